"""A light node against full nodes that lie, vanish, delay and come back, by random histories with a clock.

After every step: nothing is held that the log's key has not signed, or that is not the beginning of the honest log's
history; nothing shrinks; every question is answered once, and an answer that is Done is true; what is kept is bounded;
and once all are honest and there again, everything that is asked succeeds.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable

import msgpack
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_agent import tlog
from edge_agent.peers import events, evidence, inquiries, links
from tests.fakes.link import FullSide, Net
from tests.fakes.logs import FakeBlobs, FakeLog, Machine

EXAMPLES = int(os.environ.get("EDGE_AGENT_EXAMPLES", "60"))
BLOB = bytes(range(256)) * 10
DIGEST = hashlib.sha256(BLOB).digest()
LIES = ("none", "flip", "drop", "old", "forge", "blob", "twice", "cut")

EVERYBODY = 4

STEP = st.one_of(
    st.tuples(st.just("wait"), st.floats(0.0, 900.0)),
    st.tuples(st.just("lie"), st.tuples(st.integers(0, EVERYBODY), st.sampled_from(LIES))),
    st.tuples(st.just("kill"), st.integers(0, 3)),
    st.tuples(st.just("raise"), st.integers(0, 3)),
    st.tuples(st.just("restart"), st.integers(0, 3)),
    st.tuples(st.just("grow"), st.integers(1, 4)),
    st.tuples(st.just("rollback"), st.integers(0, 3)),
    st.tuples(st.just("ask"), st.integers(0, 9)),
    st.tuples(st.just("fetch"), st.integers(1, 4000)),
    st.tuples(st.just("reboot"), st.none()),
    st.tuples(st.just("cheat"), st.sampled_from(LIES)),
)


class World:
    """Four full nodes with one log, and one light node."""

    def __init__(self) -> None:
        self.log, self.forged = FakeLog(entries=3), FakeLog(seed=9, entries=3)
        self.sides = [self._side() for _ in range(4)]
        self.net = Net(*self.sides, logs=[self.log.verifier], heartbeat=300.0)
        self.size = 0
        self.asked = 0
        self.wanted: dict[object, bytes | int] = {}
        self.past: list[bytes] = []

    def _side(self) -> FullSide:
        return FullSide("f", Machine(self.log, FakeBlobs(BLOB)), logs=[self.log.verifier])

    def act(self, what: str, how: object) -> None:
        if what == "wait":
            self.net.tick(float(str(how)))
        elif what == "lie":
            index, lie = how  # type: ignore[misc]
            for number, side in enumerate(self.sides):
                if index in (number, EVERYBODY):  # type: ignore[has-type]
                    side.meddle = self._lie(lie)  # type: ignore[has-type]
        elif what == "cheat":  # everybody, in everything, from now on
            self.act("lie", (EVERYBODY, how))
            self.ask(1)
            self.fetch(1000)
            self.net.tick(301.0)
        elif what in ("kill", "raise"):
            self.sides[int(str(how))].alive = what == "raise"
        elif what == "restart":  # it forgets everybody
            side = self.sides[int(str(how))]
            side.full = self._side().full
        elif what == "grow":
            self.log.grow(int(str(how)))
        elif what == "rollback":
            side = self.sides[int(str(how))]
            side.machine.log = self.log.fork(max(1, len(self.log.entries) - 2))
        elif what == "ask":
            self.ask(int(str(how)))
        elif what == "fetch":
            self.fetch(int(str(how)))
        else:
            self.reboot()
        self.check()

    def _lie(self, lie: str) -> Callable[[bytes], bytes | None]:
        def meddle(frame: bytes) -> bytes | None:
            self.past = [*self.past[-20:], frame]
            message = msgpack.unpackb(frame)
            if lie == "drop":
                return None
            if lie == "flip":
                return frame[:-1] + bytes([frame[-1] ^ 1])
            if lie == "cut":
                return frame[:-2]
            if lie == "old":
                return self.past[0]
            if lie == "forge" and "note" in message:
                message["note"] = self.forged.note()
            if lie == "blob" and "data" in message:
                message["data"] = bytes(len(message["data"]))
            if lie == "twice" and "id" in message:
                message["id"] = max(1, message["id"] - 1)
            packed: bytes = msgpack.packb(message)
            return packed

        return meddle

    def ask(self, number: int) -> None:
        self.asked += 1
        entry = self.log.entries[number % len(self.log.entries)]
        try:
            held = self.net.light.beliefs.logs[self.log.verifier.name]
            inquiry = inquiries.includes(self.asked, held, tlog.leaf_hash(entry))
        except inquiries.UnfitError:
            return
        self.wanted[self.asked] = number % len(self.log.entries)
        self.net.run(events.Asked(inquiry))

    def fetch(self, piece: int) -> bytes | str:
        """The blob, piece by piece, waiting as a client would."""
        data: bytes = b""
        while True:
            self.asked += 1
            try:
                transfers = self.net.light.transfers
                inquiry = transfers.fetch(self.asked, "c", DIGEST, len(data), piece, self.net.now)
            except inquiries.UnfitError as error:
                return error.code
            self.net.run(events.Asked(inquiry))
            if self.asked not in self.net.done:
                self.net.tick(60.0)
            got = self.net.done[self.asked]
            if isinstance(got, events.Failed):
                return got.code
            data += got.result["data"]
            if len(data) >= got.result["size"]:
                assert data == BLOB  # the last piece is passed on only if the whole is right
                return data

    def reboot(self) -> None:
        """The light node's process is gone; what was saved is not."""
        saved, kept, now, done = self.net.saved, self.net.kept, self.net.now, self.net.done
        routes = self.net.routes
        self.net = Net(*self.sides, logs=[self.log.verifier], heartbeat=300.0)
        self.net.routes = routes
        self.net.now, self.net.done, self.net.saved, self.net.kept = now, done, saved, kept
        held = self.net.light.beliefs.logs[self.log.verifier.name]
        if saved:
            held.restore(saved[-1].note)
        assert held.size == self.size
        for each in kept:
            self.net.light.beliefs.restore(each.evidence)
        self.wanted = {token: want for token, want in self.wanted.items() if token in done}

    def check(self) -> None:
        net = self.net
        held = net.light.beliefs.logs[self.log.verifier.name]
        assert held.size >= self.size
        self.size = held.size
        if held.head is not None:
            assert held.note == self.log.note(held.head.size)
        if net.saved:
            assert net.saved[-1].note == held.note
        assert not held.forked  # nobody has the log's key but the honest log
        assert len(net.light.beliefs.evidence) <= evidence.MOST
        assert len(net.light.refused) <= links.REMEMBERED
        assert len(net.open) <= 4
        for token, want in self.wanted.items():
            got = net.done.get(token)
            if isinstance(got, events.Done):
                assert got.result["index"] == want

    def recover(self) -> None:
        """All honest, all there: after the longest distrust everything works, and nothing was left unanswered."""
        for side in self.sides:
            side.meddle, side.alive, side.machine.log = (lambda frame: frame), True, self.log
        self.net.tick(2 * 86_400.0)
        self.check()
        assert set(self.wanted) <= set(self.net.done)
        assert self.size == len(self.log.entries)
        first = self.fetch(1000)
        assert first == BLOB or self.fetch(1000) == BLOB


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(STEP, min_size=4, max_size=30))
def test_a_light_node_against_full_nodes_that_lie(steps: list[tuple[str, object]]) -> None:
    world = World()
    world.net.tick()
    world.check()
    for what, how in steps:
        world.act(what, how)
    world.recover()
