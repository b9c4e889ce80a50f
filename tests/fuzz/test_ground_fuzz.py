"""Mutated bytes for the parsers below every service: nothing but the declared errors, memory bounded.

``EDGE_AGENT_FUZZ_EXAMPLES`` raises the number of examples; ``python -m tests.fuzz.test_ground_fuzz N`` mutates N frames
for each parser without hypothesis, in some minutes for a million.
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

from edge_agent.peers import zap
from edge_agent.peers.wire import WireError, pack, unpack
from edge_agent.services import metrics, requests
from tests.fuzz.test_wire_fuzz import EDIT, mutate

EXAMPLES = int(os.environ.get("EDGE_AGENT_FUZZ_EXAMPLES", "300"))
LIMIT = 4096
OPERATIONS: dict[str, requests.Operation] = {
    "health": lambda _request: {"name": "x"},
    "get": lambda request: {
        "data": request.data("data", 8),
        "hash": request.exact("hash", 32, bytes(32)),
        "offset": request.whole("offset", 0, 2**40, 0),
    },
}
SEEDS = [
    pack({"v": 1, "id": 1, "op": "health"}),
    pack({"v": 1, "id": 2**62, "op": "get", "data": b"12345678", "hash": bytes(32), "offset": 2**40}),
    pack({"v": 1, "id": 3, "op": "get", "data": b"", "more": [1, [2, {"a": None}]], "other": 1.5}),
    pack({"v": 2, "id": 4, "op": "get"}),
    pack({"metrics": [metrics.counter("a_total", "A.", 1, by="x")]}),
    b"\xdf\xff\xff\xff\xff",
    b"\x81\xa1a" + b"\x91" * 40,
]
ZAP = [
    [b"1.0", b"1", b"identity.local", b"localhost:0:0:1", b"", b"NULL"],
    [b"1.0", b"2", b"identity.clients", b"127.0.0.1", b"", b"CURVE", bytes(range(32))],
    [b"1.0", b"3", b"identity.clients", b"127.0.0.1", b"", b"PLAIN", b"admin", b"admin"],
]
fuzz = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))


def parse_wire(data: bytes) -> None:
    """A map with text keys, or WireError."""
    with contextlib.suppress(WireError):
        message = unpack(data, LIMIT)
        assert type(message) is dict
        assert all(type(key) is str for key in message)


def parse_request(data: bytes) -> None:
    """Always exactly one answer, itself acceptable."""
    answers: list[bytes] = []
    request = requests.parse(data, LIMIT, "uid:0", answers.append)
    if request is not None:
        requests.perform(request, OPERATIONS)
    assert len(answers) == 1
    answer = unpack(answers[0], LIMIT)
    assert (answer["ok"] is True) == ("error" not in answer)


def parse_zap(data: bytes) -> None:
    """A query by NULL without or CURVE with a key, or ZapError; of the address, credentials or none."""
    parts = data.split(b"\xfe")
    with contextlib.suppress(zap.ZapError):
        query = zap.parse(parts)
        assert (query.mechanism, len(query.key)) in (("NULL", 0), ("CURVE", 32))
        zap.credentials(query.address)
    assert zap.answer(parts[0], None)[2] == b"400"


PARSERS: dict[str, tuple[Callable[[bytes], None], list[bytes]]] = {
    "wire.unpack": (parse_wire, SEEDS),
    "requests.parse": (parse_request, SEEDS),
    "zap.parse": (parse_zap, [b"\xfe".join(parts) for parts in ZAP]),
}


@fuzz
@given(st.sampled_from(sorted(PARSERS)), st.integers(0, 99), st.lists(EDIT, max_size=12))
def test_mutated_bytes(name: str, seed: int, edits: list[tuple[str, int, int]]) -> None:
    parser, seeds = PARSERS[name]
    parser(mutate(seeds[seed % len(seeds)], edits))


@fuzz
@given(st.sampled_from(sorted(PARSERS)), st.binary(max_size=2 * LIMIT))
def test_random_bytes(name: str, data: bytes) -> None:
    PARSERS[name][0](data)


NESTED = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-5, 2**40), st.text(max_size=5), st.binary(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=3), inner, max_size=4)),
    max_leaves=20,
)


@fuzz
@given(st.dictionaries(st.sampled_from(["v", "id", "op", "data", "hash", "offset"]), NESTED))
def test_well_formed_maps_of_the_wrong_shape(message: dict[str, object]) -> None:
    parse_request(msgpack.packb(message))


def main(count: int) -> None:
    """Mutate ``count`` frames for each parser; print how long it took and how much memory it left."""
    kinds = ("flip", "drop", "insert", "double")
    for name, (parser, seeds) in PARSERS.items():
        chance, began = random.Random(name), time.monotonic()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for _ in range(count):
            edits = [
                (chance.choice(kinds), chance.randrange(2**16), chance.randrange(256))
                for _ in range(chance.randrange(13))
            ]
            parser(mutate(chance.choice(seeds), edits))
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        print(f"{name}: {count} frames in {time.monotonic() - began:.0f} s, peak of memory grew by {grown} KiB")


if __name__ == "__main__":
    main(int(sys.argv[1]))
