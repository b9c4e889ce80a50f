"""Mutated frames, statuses, evidence, and whole nodes fed with them: nothing but the declared errors, memory bounded.

``EDGE_AGENT_FUZZ_EXAMPLES`` raises the number of examples; ``python -m tests.fuzz.test_peers_fuzz N`` mutates N frames
for each parser without hypothesis, in a minute or two for a million.
"""

from __future__ import annotations

import contextlib
import os
import random
import resource
import sys
import time
from collections.abc import Callable

import msgpack
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_agent.notes import NoteError
from edge_agent.peers import events, evidence, frames, full, status
from edge_agent.peers.heads import HeadError, Log
from edge_agent.peers.wire import Beat, Echo, WireError, pack_beat, unpack, unpack_beat
from tests.fakes.link import KEY, FullSide, Net
from tests.fakes.logs import FakeBlobs, FakeLog, Machine
from tests.fuzz.test_wire_fuzz import EDIT, mutate
from tests.unit.test_peers_frames import FRAMES

EXAMPLES = int(os.environ.get("EDGE_AGENT_FUZZ_EXAMPLES", "300"))
fuzz = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))

LOG = FakeLog(entries=6)
KEYS = {LOG.verifier.name: LOG.verifier}
FORK = evidence.Evidence(LOG.verifier.name, "fork", LOG.note(6), LOG.fork(5).grow(1, b"other").note())
FIRST = {"node": "n", "release": "r", "every": 60, "memory": 40, "s.storage": "backoff"}
BEATS = [pack_beat(Beat("n", "r", 1, 30.0)), pack_beat(Echo("n", "r", 1))]
SEEDS = [*FRAMES.values(), *BEATS, FORK.pack(), msgpack.packb(FIRST)]


def parse_request(data: bytes) -> None:
    with contextlib.suppress(frames.UnreadableError):
        frames.parse_request(data)


def parse_answer(data: bytes) -> None:
    with contextlib.suppress(WireError):
        frames.parse_answer(data)


def parse_beat(data: bytes) -> None:
    with contextlib.suppress(WireError):
        unpack_beat(data)


def parse_evidence(data: bytes) -> None:
    with contextlib.suppress(WireError):
        evidence.load(data, KEYS)


def parse_status(data: bytes) -> None:
    with contextlib.suppress(WireError):
        told = unpack(data, frames.MAX_REQUEST)
        made = status.apply({"node": "n"}, told)
        assert len(made) <= status.MAX_KEYS
        status.check_first(made)


def parse_head(data: bytes) -> None:
    with contextlib.suppress(HeadError):
        Log(LOG.verifier).offer(data, None, "", 0.0)
    with contextlib.suppress(NoteError):
        Log(LOG.verifier).restore(data)


def feed_full(data: bytes) -> None:
    node = full.Full("f", "r", [KEY], 1, [LOG.verifier])
    node.step(full.Heard(KEY, b"r", frames.request(1, "beat", {"set": FIRST})), 0.0)
    actions = node.step(full.Heard(KEY, b"r", data), 1.0)
    assert len(actions) <= 3  # an answer, and at most a note and a refresh: nothing is amplified
    for action in actions:
        if isinstance(action, full.Send):
            assert len(action.data) < 40 * 1024
    node.step(full.Tick(), 1000.0)


def feed_light(data: bytes) -> None:
    made = Net(FullSide("f", Machine(None)), logs=[LOG.verifier])
    made.tick()
    made.run(events.Heard(0, data))
    made.tick(3000.0)
    assert made.light.beliefs.logs[LOG.verifier.name].size == 0


def feed_service(data: bytes) -> None:
    """What the ledger and the storage of a full node answer is not trusted to have a form either."""
    with contextlib.suppress(WireError):
        told = unpack(data, frames.MAX_ANSWER)
        for op, args in ASKED:
            node = full.Full("f", "r", [KEY], 1)
            node.step(full.Heard(KEY, b"r", frames.request(1, "beat", {"set": FIRST})), 0.0)
            node.step(full.Told(1, {"checkpoint": LOG.note()}), 0.0)
            node.step(full.Heard(KEY, b"r", frames.request(2, op, args)), 1.0)
            for job in range(2, 10):
                node.step(full.Told(job, told), 1.0)


WHERE = {"origin": LOG.verifier.name, "size": 6}
ASKED: list[tuple[str, dict[str, object]]] = [
    ("head", {"origin": LOG.verifier.name, "from": 2}),
    ("inclusion", {**WHERE, "index": 2}),
    ("entries", {**WHERE, "start": 0, "most": 3}),
    ("submit", {"origin": LOG.verifier.name, "entry": b"x"}),
    ("blob", {"hash": bytes(32), "offset": 0, "length": 10}),
]
PARSERS: list[Callable[[bytes], None]] = [parse_request, parse_answer, parse_beat, parse_evidence, parse_status]
NODES: list[Callable[[bytes], None]] = [feed_full, feed_light, feed_service]
edits = st.lists(EDIT, min_size=1, max_size=8)


@fuzz
@given(st.sampled_from(SEEDS), edits)
def test_mutated_frames(seed: bytes, changes: list[tuple[str, int, int]]) -> None:
    data = mutate(seed, changes)
    for parser in (*PARSERS, *NODES):
        parser(data)


@fuzz
@given(st.sampled_from([LOG.note(), LOG.note(0)]), edits)
def test_mutated_heads(seed: bytes, changes: list[tuple[str, int, int]]) -> None:
    parse_head(mutate(seed, changes))


VALUE = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**64 - 1),
        st.floats(),
        st.text(max_size=70),
        st.binary(max_size=40),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=5), inner, max_size=4)),
    max_leaves=12,
)
NAMES = ["v", "id", "op", "set", "base", "error", "note", "proof", "from", "origin", "news", "evidence", "data", "size"]
NAMES += ["entries", "proofs", "index", "hash", "start", "most", "offset", "length", "checkpoint", "first"]
OPS = ["beat", "head", "consistency", "inclusion", "entries", "submit", "blob", "peers", "announce", "announced"]


@fuzz
@given(st.sampled_from(OPS), st.dictionaries(st.sampled_from(NAMES), VALUE, max_size=8))
def test_well_formed_maps_of_the_wrong_shape(op: str, message: dict[str, object]) -> None:
    with contextlib.suppress(ValueError, OverflowError):
        data = msgpack.packb({**message, "v": 2, "id": 2, "op": op})
        for parser in (*PARSERS, *NODES):
            parser(data)


@fuzz
@given(st.lists(st.tuples(st.integers(0, 40), edits), max_size=6), st.booleans())
def test_a_light_node_is_fed_with_mutated_answers_to_its_own_questions(
    plan: list[tuple[int, list[tuple[str, int, int]]]], grows: bool
) -> None:
    """Whatever comes back: only declared refusals, and the log that is held never gets shorter nor changes."""
    log = FakeLog(entries=6)
    side = FullSide("f", Machine(log, FakeBlobs(b"blob")), logs=[log.verifier])
    at = dict(plan)
    count = 0

    def meddle(frame: bytes) -> bytes:
        nonlocal count
        count += 1
        return mutate(frame, at[count]) if count in at else frame

    side.meddle = meddle
    made = Net(side, logs=[log.verifier])
    for _ in range(20):
        made.tick(100.0)
        if grows:
            log.grow(1)
        held = made.light.beliefs.logs[log.verifier.name]
        if held.head is not None:
            assert held.note == log.note(held.head.size)


def million(number: int) -> None:
    """``number`` mutations for each parser and each node."""
    chance = random.Random(162)
    names = ["flip", "drop", "insert", "double"]
    heads = [LOG.note(), LOG.note(0)]
    for target in (*PARSERS, parse_head, *NODES):
        seeds = heads if target is parse_head else SEEDS
        count = number // 20 if target in NODES else number
        began = time.monotonic()
        for _ in range(count):
            changes = [
                (chance.choice(names), chance.randrange(2**16), chance.randrange(256))
                for _ in range(chance.randint(1, 6))
            ]
            target(mutate(chance.choice(seeds), changes))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        sys.stdout.write(f"{target.__name__}: {count} in {time.monotonic() - began:.0f} s, peak {peak:.0f} MiB\n")
        sys.stdout.flush()


if __name__ == "__main__":
    million(int(sys.argv[1]))
