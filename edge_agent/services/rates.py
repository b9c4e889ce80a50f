"""How much one peer may ask for: token buckets (RFC 2697 has the terms) for requests and for bytes. Pure.

A peer that is over its rate is answered ``busy``, which costs it as much as an answer. One that goes on all the same,
and so gets into debt, is cut off and not let in again for a while: of many peers behind one ZeroMQ socket a single one
cannot be left unread.
"""

from __future__ import annotations

from ..records import Record

OK, BUSY, CUT = "ok", "busy", "cut"
PATIENCE = 64  # requests of debt before a peer is cut off; of bytes, as many as the burst has
PAUSE = 10.0  # seconds without it


class Rate(Record):
    """Sustained rates a second, and what may come at once after a rest."""

    requests: float = 200.0
    burst_requests: float = 1000.0
    bytes: float = 16.0 * 2**20
    burst_bytes: float = 64.0 * 2**20


class _Peer:
    __slots__ = ("at", "bytes", "requests")

    def __init__(self, rate: Rate, now: float) -> None:
        self.at, self.requests, self.bytes = now, rate.burst_requests, rate.burst_bytes


class Rates:
    """The buckets of all peers of one socket: no more of them than it has allowed keys."""

    def __init__(self, rate: Rate) -> None:
        self.rate = rate
        self.busy = self.cut = 0  # requests answered so, peers cut off
        self._peers: dict[str, _Peer] = {}
        self._paused: dict[str, float] = {}

    def admit(self, user: str, size: int, now: float) -> str:
        """OK, BUSY, or CUT for one request of ``size`` bytes at ``now``, monotonic seconds."""
        peer = self._peers.get(user)
        if peer is None:
            peer = self._peers[user] = _Peer(self.rate, now)
        self._fill(peer, now)
        enough = peer.requests >= 1 and peer.bytes >= size
        peer.requests -= 1
        peer.bytes -= size
        if enough:
            return OK
        self.busy += 1
        if peer.requests > -PATIENCE and peer.bytes > -self.rate.burst_bytes:
            return BUSY
        self.cut += 1
        self._paused[user] = now + PAUSE
        return CUT

    def welcome(self, user: str, now: float) -> bool:
        """May this peer connect? Not while its pause lasts."""
        until = self._paused.get(user)
        if until is None or until <= now:
            self._paused.pop(user, None)
            return True
        return False

    def _fill(self, peer: _Peer, now: float) -> None:
        rate, passed = self.rate, max(0.0, now - peer.at)
        peer.at = now
        peer.requests = min(rate.burst_requests, peer.requests + rate.requests * passed)
        peer.bytes = min(rate.burst_bytes, peer.bytes + rate.bytes * passed)
