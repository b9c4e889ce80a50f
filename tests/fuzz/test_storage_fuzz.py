"""Requests to storage with every argument wrong, and answers of a node service that are none: refusals, no more.

``EDGE_AGENT_FUZZ_EXAMPLES`` raises the number of examples; ``python -m tests.fuzz.test_storage_fuzz N`` sends N mutated
requests and as many mutated answers without hypothesis.
"""

from __future__ import annotations

import hashlib
import os
import random
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgpack
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_agent.peers.wire import WireError, pack, unpack
from edge_agent.services import requests
from edge_agent.services.wishes import LINE, _line, _parse
from tests.fakes.blobnode import FakeNode
from tests.fuzz.test_wire_fuzz import EDIT, NESTED, mutate
from tests.unit.test_services_storage import Bench

EXAMPLES = int(os.environ.get("EDGE_AGENT_FUZZ_EXAMPLES", "60"))
fuzz = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))

HERE, THERE = b"h" * 5000, b"t" * 400_000
KEY, FAR = hashlib.sha256(HERE).digest(), hashlib.sha256(THERE).digest()
CODES = {
    *("malformed", "version", "unknown-op", "bad-request", "busy", "failed", "not-found", "unreachable", "pending"),
    *("wrong-blob", "corrupt", "no-upload", "offset", "size", "hash-mismatch", "too-large", "pins-full", "pinned"),
    *("too-many", "no-space"),
}
SEEDS: list[dict[str, Any]] = [
    {"op": "put", "data": b"x"},
    {"op": "begin", "size": 10, "hash": KEY},
    {"op": "begin", "size": 10},
    {"op": "chunk", "upload": bytes(16), "offset": 0, "data": b"x"},
    {"op": "commit", "upload": bytes(16)},
    {"op": "abort", "upload": bytes(16)},
    *({"op": op, "hash": key} for op in ("get", "has", "stat", "pin", "unpin") for key in (KEY, FAR)),
    {"op": "get", "hash": FAR, "offset": 1, "length": 2},
    {"op": "list", "after": KEY, "limit": 3},
    {"op": "replicas", "hash": KEY, "wished": 3},
    {"op": "wishes", "after": KEY, "limit": 3},
    {"op": "scrub", "rate": 1 << 30},
]
FRAMES = [pack({"v": 1, "id": 1, **seed}) for seed in SEEDS]
ANSWERS = [
    pack({"v": 1, "id": 1, "ok": True, "data": b"t" * 262_144, "size": 400_000, "peer": "tcp://peer:1"}),
    pack({"v": 1, "id": 1, "ok": True, "data": b"", "size": 0}),
    pack({"v": 1, "id": 1, "ok": False, "error": {"code": "offline", "why": "so", "fix": ""}}),
]


def bench(directory: str) -> Bench:
    made = Bench(Path(directory), FakeNode(THERE), cache_only=True, cache_bytes=1 << 20)
    made.put(HERE)
    return made


def feed(made: Bench, data: bytes) -> None:
    """As the runtime does; what is answered is an answer."""
    answers: list[bytes] = []
    request = requests.parse(data, made.storage.request_limit, "uid:0", answers.append)
    if request is not None:
        requests.perform(request, made.storage.operations())
        for _ in range(50):
            if answers:
                break
            made.turn()
    for raw in answers:
        answer = msgpack.unpackb(raw)
        assert answer["ok"] or answer["error"]["code"] in CODES
    assert made.storage.details()["used"] <= 1 << 20


class LyingNode(FakeNode):
    """Answers with what it is given."""

    def __init__(self, answer: bytes) -> None:
        super().__init__()
        self._answer = answer

    def _result(self, key: bytes, offset: int, length: int) -> Any:
        try:
            return unpack(self._answer, 1 << 20)
        except WireError:
            return {}


@fuzz
@given(st.lists(st.tuples(st.sampled_from(FRAMES), st.lists(EDIT, max_size=4)), max_size=8))
def test_mutated_requests(frames: list[tuple[bytes, list[tuple[str, int, int]]]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        made = bench(directory)
        for seed, edits in frames:
            feed(made, mutate(seed, edits))
        made.storage.close()


ARGUMENTS = ("hash", "upload", "offset", "length", "size", "data", "after", "limit", "wished", "rate")


@fuzz
@given(st.sampled_from(SEEDS), st.dictionaries(st.sampled_from(ARGUMENTS), NESTED, max_size=4))
def test_arguments_of_the_wrong_shape(seed: dict[str, Any], wrong: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        made = bench(directory)
        feed(made, pack({"v": 1, "id": 1, **seed, **wrong}))
        made.storage.close()


@fuzz
@given(st.sampled_from(ANSWERS), st.lists(EDIT, max_size=4))
def test_mutated_answers_of_the_node_service(seed: bytes, edits: list[tuple[str, int, int]]) -> None:
    lie(mutate(seed, edits))


def lie(answer: bytes) -> None:
    with tempfile.TemporaryDirectory() as directory:
        made = Bench(Path(directory), LyingNode(answer), cache_only=True, cache_bytes=1 << 20)
        answered = made.ask("get", hash=FAR)
        assert answered["ok"] is False
        assert answered["error"]["code"] in CODES
        assert made.files() == []
        made.storage.close()


@fuzz
@given(st.binary(min_size=LINE, max_size=LINE))
def test_lines_of_wishes(line: bytes) -> None:
    assert _parse(line) is None
    assert _parse(_line(KEY, 7)) == (KEY, 7)


def main(times: int) -> None:
    """Each parser, that often; hypothesis is too slow for millions."""
    chance = random.Random(times)

    def edited(seed: bytes) -> bytes:
        edits = [
            (chance.choice(("flip", "drop", "insert", "double")), chance.randrange(2**16), chance.randrange(256))
            for _ in range(chance.randrange(5))
        ]
        return mutate(seed, edits)

    with tempfile.TemporaryDirectory() as directory:
        began, made = time.monotonic(), bench(directory)
        for _ in range(times):
            feed(made, edited(chance.choice(FRAMES)))
        print(f"{times} requests in {time.monotonic() - began:.0f} s")
        began, line = time.monotonic(), _line(KEY, 7)
        believed = sum(_parse(edited(line)[:LINE]) not in (None, (KEY, 7)) for _ in range(times))
        print(f"{times} lines in {time.monotonic() - began:.0f} s, {believed} believed")
    began = time.monotonic()
    for _ in range(times // 100):  # each is a service of its own
        lie(edited(chance.choice(ANSWERS)))
    print(f"{times // 100} answers in {time.monotonic() - began:.0f} s")
    print(f"peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    main(int(sys.argv[1]))
