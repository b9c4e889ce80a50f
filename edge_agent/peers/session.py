"""One full peer as a light node deals with it: its connection, its requests, how far it is trusted. Pure.

Section 7 of PROTOCOL.md has the states. Nothing is decided here about what answers mean; ``light`` does that.
"""

from __future__ import annotations

import math

from ..records import Record
from . import frames, status
from .wire import WireError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .inquiries import Inquiry
    from .wire import Message

DOWN, CONNECTING, UP, DISTRUSTED = "down", "connecting", "up", "distrusted"

FIRST_RETRY, LAST_RETRY = 1.0, 600.0  # seconds; the time between attempts doubles
FIRST_DISTRUST, LAST_DISTRUST = 600.0, 86_400.0  # seconds; doubles with each lie
ANSWER_WITHIN = 10.0  # seconds for a connection and its first beat, or the interval when that is shorter
PATIENCE = 5.0  # seconds for an answer to anything else, before another peer is asked
MOST_PENDING = 32  # requests on one connection


class Target(Record):
    """A full peer as configured."""

    endpoint: str  # tcp://HOST:PORT
    key: str  # its CURVE public key, Z85 (ZeroMQ RFC 32), 40 characters


class View(Record):
    """A full peer as seen from here."""

    endpoint: str
    key: str
    state: str  # down | connecting | up | distrusted
    node: str  # '' until it has answered
    release: str
    last_seen: float | None  # on the clock given to ``step``, seconds
    rtt: float | None  # of its answers, smoothed, seconds
    failures: int  # attempts in a row without an answer
    refused: int  # answers that were not believed
    why: str  # the last thing that was not believed, or ''
    until: float | None  # distrusted until then, on the clock given


class Pending(Record):
    """A request that waits for its answer."""

    due: float
    sent: float
    inquiry: Inquiry | None  # None: a beat


class Session:
    """Everything about one peer."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.state = DOWN
        self.due = 0.0  # down: the next attempt; up: the next beat; distrusted: its end
        self.tried = -math.inf  # when it was last connected to
        self.failures = self.lies = self.refused = 0
        self.why = self.node = self.release = ""
        self.last_seen: float | None = None
        self.rtt: float | None = None
        self.news: int | None = None
        self.without: set[str] = set()  # logs that it does not serve, found in this session
        self._last = 0
        self._beat: tuple[int, status.Status] | None = None  # on its way: its id and the status it tells
        self._told: tuple[int, status.Status] | None = None  # answered
        self._pending: dict[int, Pending] = {}
        self._late: set[int] = set()

    def view(self) -> View:
        """For people."""
        return View(
            self.target.endpoint,
            self.target.key,
            self.state,
            self.node,
            self.release,
            self.last_seen,
            self.rtt,
            self.failures,
            self.refused,
            self.why,
            self.due if self.state == DISTRUSTED else None,
        )

    @property
    def order(self) -> tuple[int, int, float]:
        """The smaller, the better a peer it is."""
        return self.lies, self.failures, math.inf if self.rtt is None else self.rtt

    @property
    def load(self) -> int:
        """Requests that wait for an answer."""
        return len(self._pending)

    def wakes(self) -> float:
        """When something about the open connection, or the distrust, is due."""
        return min([self.due, *(each.due for each in self._pending.values())])

    # -- life

    def open(self, now: float) -> None:
        """A connection is made."""
        self.state, self.tried, self.due = CONNECTING, now, math.inf
        self._last = 0
        self._beat = self._told = None
        self.news = None
        self._pending.clear()
        self._late.clear()
        self.without.clear()

    def close(self, state: str, due: float) -> list[Inquiry]:
        """The connection is dropped; what waited on it."""
        self.state, self.due = state, due
        waiting = [each.inquiry for each in self._pending.values() if each.inquiry is not None]
        self._pending.clear()
        return waiting

    def retry_in(self, chance: float) -> float:
        """One more failure: seconds until the next attempt."""
        delay = min(LAST_RETRY, FIRST_RETRY * 2.0 ** min(self.failures, 16))
        self.failures += 1
        return delay * (0.75 + 0.25 * chance)

    def distrust_for(self) -> float:
        """One more lie: seconds without it."""
        delay = min(LAST_DISTRUST, FIRST_DISTRUST * 2.0 ** min(self.lies, 16))
        self.lies += 1
        return delay

    # -- frames out

    def beat(self, current: status.Status, now: float, patience: float) -> bytes:
        """The next beat: the whole status first, then what has changed."""
        args: Message = {}
        if self._told is None:
            args["set"] = current
        else:
            args["base"] = self._told[0]
            change = status.difference(self._told[1], current)
            if change:
                args["set"] = change
        self._last += 1
        self._beat = (self._last, current)
        self._pending[self._last] = Pending(now + patience, now, None)
        self.due = math.inf
        return frames.request(self._last, "beat", args)

    def ask(self, inquiry: Inquiry, now: float) -> bytes:
        """A request; there has to be room for it (``load``)."""
        self._last += 1
        self._pending[self._last] = Pending(now + PATIENCE, now, inquiry)
        return frames.request(self._last, inquiry.op, inquiry.args)

    # -- answers in

    def take(self, number: int, now: float) -> Pending | None:
        """The request that ``number`` answers; None: it came too late. Raises WireError when nobody waits for it."""
        pending = self._pending.pop(number, None)
        if pending is None:
            if number in self._late:
                self._late.discard(number)
                return None
            raise WireError("an answer never asked for, or given twice")
        self.last_seen = now
        took = now - pending.sent
        self.rtt = took if self.rtt is None else 0.75 * self.rtt + 0.25 * took
        return pending

    def overdue(self, now: float) -> tuple[bool, list[Inquiry]]:
        """(the beat has not been answered in time, the requests that have not)."""
        late = {number: each for number, each in self._pending.items() if each.due <= now}
        for number in late:
            del self._pending[number]
            if len(self._late) < 4 * MOST_PENDING:
                self._late.add(number)
        asked = [each.inquiry for each in late.values() if each.inquiry is not None]
        if asked:
            self.rtt = PATIENCE if self.rtt is None else 0.5 * self.rtt + 0.5 * PATIENCE
        return len(asked) < len(late), asked

    def beaten(self, answer: Message, now: float, heartbeat: float, sent: float) -> bool:
        """The beat's answer: has ``news`` changed? Raises WireError when it is none."""
        news = frames.whole(answer, "news", 0, frames.MAX_INT)
        again = answer.get("again", False)
        if not isinstance(again, bool) or (again and self._told is None) or self._beat is None:
            raise WireError("again is wrong")
        if self._told is None:
            self.node = frames.text(answer, "node", 64)
            self.release = frames.text(answer, "release", 32)
        self._told = None if again else self._beat
        self._beat = None
        self.state, self.failures = UP, 0
        self.due = now if again else max(now, sent + heartbeat)
        changed, self.news = news != self.news, news
        return changed
