"""A light node's side of the heartbeats: whom to connect to, when to speak, when to give up for a while. Pure.

``step(event, now)`` takes what happened and returns what to do; ``deadline()`` is when to call again with a Tick. One
connection is made per attempt and dropped when it does not answer, so that a half-open TCP connection cannot look
alive, and the only clock that retries is the one here.

    down --due--> connecting --echo--> up --due--> waiting --echo--> up
                      |                               |
                      +----------- no echo in time ---+--> down, and due again after a growing, jittered time
"""

from __future__ import annotations

from ..records import Record
from .wire import Beat, Echo, WireError, pack_beat, unpack_beat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

DOWN, CONNECTING, UP, WAITING = "down", "connecting", "up", "waiting"

FIRST_RETRY = 1.0  # seconds
LAST_RETRY = 60.0  # seconds; the time between attempts doubles up to here
ANSWER_WITHIN = 10.0  # seconds for a connection and its echo, or the heartbeat interval when that is shorter


class Tick(Record):
    """Time has passed."""


class Heard(Record):
    """Bytes came from the full peer with this index."""

    peer: int
    data: bytes


class Open(Record):
    """Make a connection to the peer."""

    peer: int


class Close(Record):
    """Drop the connection to the peer."""

    peer: int


class Send(Record):
    """Send these bytes on the peer's connection."""

    peer: int
    data: bytes


class Note(Record):
    """Something for the log."""

    text: str


Action = Open | Close | Send | Note


class Target(Record):
    """A full peer as configured."""

    endpoint: str  # tcp://HOST:PORT
    key: str  # its CURVE public key, Z85 (ZeroMQ RFC 32), 40 characters


class View(Record):
    """A full peer as seen from here."""

    endpoint: str
    key: str
    state: str  # down | connecting | up
    node: str  # '' until it has answered
    release: str
    last_seen: float | None  # on the clock given to ``step``, seconds
    rtt: float | None  # of the last echo, seconds
    failures: int  # attempts in a row without an echo
    refused: int  # messages that were not an acceptable echo


class _Peer:
    __slots__ = (
        "due",
        "failures",
        "last_seen",
        "node",
        "refused",
        "release",
        "rtt",
        "sent",
        "sequence",
        "state",
        "target",
    )

    def __init__(self, target: Target) -> None:
        self.target = target
        self.state = DOWN
        self.due = 0.0
        self.failures = 0
        self.refused = 0
        self.sequence = 0
        self.sent = 0.0
        self.node = self.release = ""
        self.last_seen: float | None = None
        self.rtt: float | None = None


class Light:
    """All configured full peers. ``chance`` returns a number from 0 to 1; it spreads the retries of many nodes."""

    def __init__(
        self,
        node: str,
        release: str,
        targets: Sequence[Target],
        heartbeat: float,
        chance: Callable[[], float],
    ) -> None:
        self._node, self._release = node, release
        self._heartbeat = heartbeat
        self._patience = min(ANSWER_WITHIN, heartbeat)
        self._chance = chance
        self._peers = [_Peer(target) for target in targets]

    def deadline(self) -> float | None:
        """When ``step(Tick(), …)`` is due, on the clock given to ``step``; None: never."""
        return min((peer.due for peer in self._peers), default=None)

    def views(self) -> tuple[View, ...]:
        """The peers in the order they were configured."""
        return tuple(
            View(
                peer.target.endpoint,
                peer.target.key,
                UP if peer.state == WAITING else peer.state,
                peer.node,
                peer.release,
                peer.last_seen,
                peer.rtt,
                peer.failures,
                peer.refused,
            )
            for peer in self._peers
        )

    def step(self, event: Tick | Heard, now: float) -> list[Action]:
        """What to do about ``event``. ``now`` must not go backwards (a monotonic clock)."""
        if isinstance(event, Heard):
            return self._heard(event.peer, event.data, now)
        return [action for index, peer in enumerate(self._peers) if peer.due <= now for action in self._due(index, now)]

    def _due(self, index: int, now: float) -> list[Action]:
        peer = self._peers[index]
        if peer.state == DOWN:
            peer.state = CONNECTING
            return [Open(index), self._beat(index, now)]
        if peer.state == UP:
            peer.state = WAITING
            return [self._beat(index, now)]
        return self._lost(index, now)

    def _beat(self, index: int, now: float) -> Send:
        peer = self._peers[index]
        peer.sequence += 1
        peer.sent, peer.due = now, now + self._patience
        return Send(index, pack_beat(Beat(self._node, self._release, peer.sequence, self._heartbeat)))

    def _lost(self, index: int, now: float) -> list[Action]:
        peer = self._peers[index]
        actions: list[Action] = [Close(index)]
        if peer.state == WAITING or not peer.failures:  # said once, not at every attempt
            was = "lost" if peer.state == WAITING else "cannot reach"
            actions.append(
                Note(f"{was} full peer {peer.target.endpoint}: no echo in {self._patience:g} s; trying again")
            )
        peer.state = DOWN
        delay = min(LAST_RETRY, FIRST_RETRY * 2.0 ** min(peer.failures, 16))
        peer.failures += 1
        peer.due = now + delay * (0.75 + 0.25 * self._chance())
        return actions

    def _heard(self, index: int, data: bytes, now: float) -> list[Action]:
        peer = self._peers[index]
        if peer.state not in (CONNECTING, WAITING):
            peer.refused += 1  # nothing was asked
            return []
        try:
            echo = unpack_beat(data)
        except WireError as error:
            peer.refused += 1
            first = [Note(f"full peer {peer.target.endpoint} sent no acceptable echo: {error}")]
            return [*first] if peer.refused == 1 else []
        if not isinstance(echo, Echo) or echo.sequence != peer.sequence:
            peer.refused += 1
            return []
        came_up = peer.state == CONNECTING
        peer.state, peer.failures = UP, 0
        peer.node, peer.release = echo.node, echo.release
        peer.last_seen, peer.rtt = now, now - peer.sent
        peer.due = max(now, peer.sent + self._heartbeat)
        return [Note(f"full peer {peer.target.endpoint} is up: {echo.node} {echo.release}")] if came_up else []
