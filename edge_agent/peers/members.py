"""The light nodes that a full node lets in: their sessions, their status, their bounds (PROTOCOL.md 3 and 8). Pure.

Only peers whose CURVE key is a member's ever get here: ``key`` is what the handshake proved, not what a message says.
"""

from __future__ import annotations

import heapq

from ..records import Record
from . import frames, status

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from .wire import Beat, Message

MISSED_BEATS = 3  # a light node is down after this many of its own intervals without a beat
BURST, RATE = 64.0, 16.0  # requests at once, and then a second
MOST_JOBS = 8  # requests in work


class View(Record):
    """A light node as seen from here."""

    key: str
    state: str  # never | up | down
    node: str  # the name it gives itself
    release: str
    last_seen: float | None  # on the clock given to ``step``, seconds
    refused: int  # messages that were not acceptable
    version: int  # of the protocol it speaks; 0: not heard yet
    status: status.Status


class Member:
    """One light node."""

    __slots__ = (
        "beat",
        "due",
        "expires",
        "jobs",
        "key",
        "last",
        "last_seen",
        "left",
        "refused",
        "route",
        "stamp",
        "state",
        "status",
        "version",
    )

    def __init__(self, key: str) -> None:
        self.key = key
        self.state = "never"
        self.route = b""
        self.last = 0  # the largest id of this session
        self.beat = 0  # the beat that ``status`` belongs to
        self.status: status.Status = {}
        self.version = 0
        self.last_seen: float | None = None
        self.expires: float | None = None
        self.due: float | None = None  # when the table will look at it
        self.refused = self.jobs = 0
        self.left, self.stamp = BURST, 0.0

    def spend(self, now: float) -> bool:
        """One request more: is it within the rate?"""
        self.left = min(BURST, self.left + RATE * (now - self.stamp))
        self.stamp = now
        if self.left < 1:
            return False
        self.left -= 1
        return True

    def first_beat(self, route: bytes, number: int, told: object) -> None:
        """A session begins. Raises WireError, and nothing has changed."""
        made = status.apply({}, told)
        status.check_first(made)
        self.route, self.last, self.beat = route, number, number
        self.status, self.version = made, frames.VERSION

    def next_beat(self, number: int, args: Message) -> bool:
        """A difference: does it belong to the status known here? Raises WireError."""
        if frames.whole(args, "base", 1, frames.MAX_INT) != self.beat:
            return False
        if "set" in args:
            made = status.apply(self.status, args["set"])
            status.check_first(made)
            self.status = made
        self.beat = number
        return True

    def old_beat(self, beat: Beat) -> None:
        """A beat of version 1: it is there, and nothing more."""
        self.status = {"node": beat.node, "release": beat.release}
        self.route, self.version = b"", 1

    def view(self) -> View:
        """For people."""
        name, release = (str(self.status.get(key, "")) for key in ("node", "release"))
        return View(self.key, self.state, name, release, self.last_seen, self.refused, self.version, self.status)


class Members:
    """All of them, and who is up until when."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._members = {key: Member(key) for key in keys}
        self._heap: list[tuple[float, str]] = []  # one entry for each that is up, no later than it expires

    def __len__(self) -> int:
        return len(self._members)

    def get(self, key: str) -> Member | None:
        """The member with this key."""
        return self._members.get(key)

    def replace(self, keys: Iterable[str]) -> None:
        """Others are members now; who stays is not touched."""
        self._members = {key: self._members.get(key) or Member(key) for key in keys}

    def views(self) -> tuple[View, ...]:
        """Every one, in the order of the configuration."""
        return tuple(member.view() for member in self._members.values())

    def deadline(self) -> float | None:
        """When ``expire`` is due; None: never."""
        return self._heap[0][0] if self._heap else None

    def heard(self, member: Member, every: float, now: float) -> bool:
        """A beat came: has it come up?"""
        came_up = member.state != "up"
        member.state, member.last_seen = "up", now
        member.expires = now + MISSED_BEATS * every
        if member.due is None or member.due > member.expires:
            member.due = member.expires
            heapq.heappush(self._heap, (member.due, member.key))
        return came_up

    def expire(self, now: float) -> list[Member]:
        """Those that have gone down. An entry of the heap is moved only when it comes up: beats do not touch it."""
        gone = []
        while self._heap and self._heap[0][0] <= now:
            due, key = heapq.heappop(self._heap)
            member = self._members.get(key)
            if member is None or member.due != due or member.expires is None:
                continue
            if member.expires > now:
                member.due = member.expires
                heapq.heappush(self._heap, (member.due, key))
            else:
                member.state, member.expires, member.due, member.route = "down", None, None, b""
                gone.append(member)
        return gone
