"""Mutated and random control frames: nothing but WireError, and no more memory than the bytes that came.

``EDGE_AGENT_FUZZ_EXAMPLES`` raises the number of examples for a long run.
"""

from __future__ import annotations

import contextlib
import os
import struct
import tempfile
import tracemalloc

import msgpack
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_agent.control import wire
from edge_agent.control.connection import STALL
from tests.unit.test_server import Rig

EXAMPLES = int(os.environ.get("EDGE_AGENT_FUZZ_EXAMPLES", "400"))
SEEDS = [
    wire.pack(wire.request(1, "status", {})),
    wire.pack(wire.request(2, "switch", {"plan": bytes(range(256))})),
    wire.pack(wire.request(3, "logs", {"name": "storage", "cursor": -1, "wait": 30.0})),
    wire.pack(wire.result(1, {"services": {"a": {"pid": None, "depends_on": ["b", "c"], "cpu": {"used": 0.25}}}})),
    wire.pack(wire.error(1, "busy", "why", "fix")),
    wire.pack(wire.hello("0.1.0")),
    struct.pack(">I", 9) + b"\xdd\xff\xff\xff\xff\xdd\xff\xff\xff",
]
EDIT = st.tuples(st.sampled_from(["flip", "drop", "insert", "double"]), st.integers(0, 2**16), st.integers(0, 255))
fuzz = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))


def mutate(seed: bytes, edits: list[tuple[str, int, int]]) -> bytes:
    data = bytearray(seed)
    for kind, place, value in edits:
        at = place % (len(data) + 1)
        if kind == "insert" or at == len(data):
            data.insert(at, value)
        elif kind == "flip":
            data[at] ^= value or 1
        elif kind == "drop":
            del data[at]
        else:
            data[at:at] = data[at : at + value]
    return bytes(data)


def consume(data: bytes, *, requests: bool, piece: int) -> None:
    """What a receiver does with bytes it cannot trust."""
    decoder = wire.Decoder(wire.PUBLIC_LIMIT, requests=requests)
    checks = (wire.check_request,) if requests else (wire.check_response, wire.check_hello)
    try:
        for start in range(0, len(data), piece):
            for frame in decoder.feed(data[start : start + piece]):
                assert type(frame) is dict
                for check in checks:
                    with contextlib.suppress(wire.WireError):
                        check(frame)
            assert decoder.buffered <= wire.PUBLIC_LIMIT + 4
    except wire.WireError:
        pass


@fuzz
@given(st.sampled_from(SEEDS), st.lists(EDIT, max_size=12), st.booleans(), st.integers(1, 64))
def test_mutated_frames(seed: bytes, edits: list[tuple[str, int, int]], requests: bool, piece: int) -> None:
    data = mutate(seed, edits)
    consume(data, requests=requests, piece=piece)
    body = data[4:]  # the same with a length that fits, so that the mutation reaches the unpacker
    consume(struct.pack(">I", len(body)) + body, requests=requests, piece=piece)


@fuzz
@given(st.binary(min_size=1, max_size=2000), st.booleans())
def test_random_bodies(body: bytes, requests: bool) -> None:
    consume(struct.pack(">I", len(body)) + body, requests=requests, piece=len(body) + 4)


NESTED = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-5, 2**40), st.text(max_size=5), st.binary(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=3), inner, max_size=4)),
    max_leaves=20,
)


@fuzz
@given(st.dictionaries(st.sampled_from(["id", "verb", "args", "ok", "result", "error", "edge_agent"]), NESTED))
def test_well_formed_maps_of_the_wrong_shape(frame: dict[str, object]) -> None:
    body = msgpack.packb(frame)
    for requests in (True, False):
        consume(struct.pack(">I", len(body)) + body, requests=requests, piece=len(body) + 4)


def test_memory_stays_in_proportion_to_the_bytes() -> None:
    """The worst bodies of the public limit: announced sizes and swarms of the smallest objects."""
    size = wire.PUBLIC_LIMIT
    keys = b"".join(b"\xa2" + bytes((97 + i % 26, 97 + i // 26)) + b"\x80" for i in range(16))
    bodies = [
        b"\x81\xa1a" + b"\xdc\xff\xff" * 1000,  # nested arrays, each announcing 65,535 members
        b"\xdf\xff\xff\xff\xff" + b"\xa1a\x80" * (size // 3 - 2),
        b"\xde\x00\x10" + keys,
        b"\x81\xa1a\xdc\xff\xf0" + b"\x80" * (size - 6),
        b"\x81\xa1a\xda\xff\xf0" + b"x" * (size - 6),
    ]
    tracemalloc.start()
    try:
        for body in bodies:
            consume(struct.pack(">I", len(body)) + body, requests=True, piece=64 * 1024)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 6 * size, f"{peak} bytes for frames of {size}"


@settings(max_examples=max(50, EXAMPLES // 8), deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(st.sampled_from(SEEDS), st.lists(EDIT, max_size=6)), min_size=1, max_size=6))
def test_the_server_survives_and_goes_on(streams: list[tuple[bytes, list[tuple[str, int, int]]]]) -> None:
    """Mutated streams on real connections: the loop never raises, and an honest client is served after them."""
    with tempfile.TemporaryDirectory() as directory:
        rig = Rig(directory)
        try:
            for seed, edits in streams:
                hostile = rig.connect()
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    hostile.send(mutate(seed, edits))
                    hostile.send(seed)
            honest = rig.connect()
            honest.ask("status", 5)
            assert honest.read()[1] == wire.result(5, {"verb": "status"})
            rig.clock += STALL + 1
            rig.turns()
            assert rig.quiet()
            assert rig.sleeps_for_ever()
        finally:
            rig.close()
