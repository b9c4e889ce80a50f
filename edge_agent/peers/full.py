"""A full node's side of the heartbeats: who is there, until when, and the echo to each. Pure.

Only peers whose CURVE key is configured ever get here: ``key`` is what the handshake proved, not what a message says.
The table therefore has at most as many entries as there are configured keys.
"""

from __future__ import annotations

from ..records import Record
from .light import Note, Tick
from .wire import Beat, Echo, WireError, pack_beat, unpack_beat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

MISSED_BEATS = 3.0  # a light node is down after this many of its own intervals without a beat


class Heard(Record):
    """Bytes from the peer that proved to own ``key``; ``route`` is where an answer goes."""

    key: str
    route: bytes
    data: bytes


class Send(Record):
    """Send these bytes to ``route``."""

    route: bytes
    data: bytes


class View(Record):
    """A light node as seen from here."""

    key: str
    state: str  # never | up | down
    node: str  # the name it gives itself
    release: str
    last_seen: float | None  # on the clock given to ``step``, seconds
    refused: int  # messages that were not an acceptable beat


class _Node:
    __slots__ = ("expires", "last_seen", "name", "refused", "release", "state")

    def __init__(self) -> None:
        self.state = "never"
        self.name = self.release = ""
        self.last_seen: float | None = None
        self.expires: float | None = None
        self.refused = 0


class Full:
    """The light nodes this full node answers."""

    def __init__(self, node: str, release: str, keys: Iterable[str]) -> None:
        self._node, self._release = node, release
        self._nodes = {key: _Node() for key in keys}

    def deadline(self) -> float | None:
        """When ``step(Tick(), …)`` is due; None: never."""
        return min((node.expires for node in self._nodes.values() if node.expires is not None), default=None)

    def views(self) -> tuple[View, ...]:
        """Every configured light node, in the order of the configuration."""
        return tuple(
            View(key, node.state, node.name, node.release, node.last_seen, node.refused)
            for key, node in self._nodes.items()
        )

    def step(self, event: Tick | Heard, now: float) -> list[Send | Note]:
        """What to do about ``event``. ``now`` must not go backwards (a monotonic clock)."""
        return self._heard(event, now) if isinstance(event, Heard) else self._expire(now)

    def _heard(self, event: Heard, now: float) -> list[Send | Note]:
        node = self._nodes.get(event.key)
        if node is None:
            return []  # the key was taken off the list after its handshake
        try:
            beat = unpack_beat(event.data)
        except WireError as error:
            node.refused += 1
            return [Note(f"light node {event.key} sent no acceptable beat: {error}")] if node.refused == 1 else []
        if not isinstance(beat, Beat):
            node.refused += 1
            return []
        came_up = node.state != "up"
        node.state, node.name, node.release = "up", beat.node, beat.release
        node.last_seen, node.expires = now, now + MISSED_BEATS * beat.interval
        actions: list[Send | Note] = [Send(event.route, pack_beat(Echo(self._node, self._release, beat.sequence)))]
        if came_up:
            actions.append(Note(f"light node {beat.node} is up: {beat.release}, key {event.key}"))
        return actions

    def _expire(self, now: float) -> list[Send | Note]:
        actions: list[Send | Note] = []
        for node in self._nodes.values():
            if node.expires is not None and node.expires <= now:
                node.state, node.expires = "down", None
                actions.append(Note(f"light node {node.name} is down: no beat for {MISSED_BEATS:g} intervals"))
        return actions
