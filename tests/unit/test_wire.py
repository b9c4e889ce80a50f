"""Frames: what is refused, when, and what is given back unchanged."""

from __future__ import annotations

import itertools
import struct

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.control import wire

SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**63), st.floats(allow_nan=False), st.text(), st.binary()
)
ARGS = st.dictionaries(st.text(min_size=1, max_size=20), SCALARS, max_size=10)


def framed(body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + body


@given(args=ARGS, cuts=st.lists(st.integers(0, 400), max_size=8), ident=st.integers(0, 2**53))
def test_frames_survive_any_fragmentation(args: dict[str, object], cuts: list[int], ident: int) -> None:
    stream = wire.pack(wire.request(ident, "start", args)) * 2
    decoder = wire.Decoder(wire.PUBLIC_LIMIT, requests=True)
    frames = []
    edges = sorted({0, len(stream), *(min(cut, len(stream)) for cut in cuts)})
    for start, end in itertools.pairwise(edges):
        frames += decoder.feed(stream[start:end])
    assert [wire.check_request(frame) for frame in frames] == [(ident, "start", args)] * 2
    assert decoder.buffered == 0


def test_an_oversized_length_is_refused_before_the_body_comes() -> None:
    decoder = wire.Decoder(1000)
    with pytest.raises(wire.WireError, match="1001 bytes"):
        decoder.feed(struct.pack(">I", 1001))


def test_the_largest_allowed_frame_passes() -> None:
    body = msgpack.packb({"a": b"x" * 900})
    assert wire.Decoder(len(body)).feed(framed(body)) == [{"a": b"x" * 900}]


@pytest.mark.parametrize(
    "body",
    [
        b"\xdd\xff\xff\xff\xff",  # an array that announces 2**32 - 1 members
        b"\xdf\xff\xff\xff\xff",  # a map that does
        b"\x81\xa1a\xdb\xff\xff\xff\xff",  # a string
        b"\x81\xa1a\xc6\xff\xff\xff\xff",  # a byte string
        b"\x91" * 5000 + b"\x80",
        b"\x81\xa1a" * 5000 + b"\x80",
        b"\x81\xa1a\xd6\xff\x00\x00\x00\x00",  # a timestamp
        b"\x81\xa1a\xc7\x00\x05",  # an empty extension
        b"\x81\xa1a\xc7\x00\xff",
        b"\x81\x01\x02",  # a number as key
        b"\x81\xa1\xff\x01",  # not UTF-8
        b"\x80\x80",
        b"\xc1",
        b"\x90",
        b"\xc0",
        b"\x82\xa1a\x01",
    ],
)
def test_hostile_bodies_are_refused(body: bytes) -> None:
    for requests in (True, False):
        with pytest.raises(wire.WireError):
            wire.Decoder(wire.PUBLIC_LIMIT, requests=requests).feed(framed(body))


def test_an_empty_frame_is_refused() -> None:
    with pytest.raises(wire.WireError, match="0 bytes"):
        wire.Decoder(100).feed(b"\0\0\0\0")


@pytest.mark.parametrize(
    "frame",
    [
        {},
        {"id": 1, "verb": "status"},
        {"id": True, "verb": "status", "args": {}},
        {"id": -1, "verb": "status", "args": {}},
        {"id": 2**60, "verb": "status", "args": {}},
        {"id": 1, "verb": "", "args": {}},
        {"id": 1, "verb": "x" * 33, "args": {}},
        {"id": 1, "verb": b"status", "args": {}},
        {"id": 1, "verb": "status", "args": []},
        {"id": 1, "verb": "status", "args": {"a": []}},
        {"id": 1, "verb": "status", "args": {"a": {}}},
        {"id": 1, "verb": "status", "args": {b"a": 1}},
        {"id": 1, "verb": "status", "args": {}, "more": 1},
    ],
)
def test_what_is_not_a_request_is_refused(frame: dict[object, object]) -> None:
    with pytest.raises(wire.WireError):
        wire.check_request(frame)


@pytest.mark.parametrize(
    "frame",
    [
        {},
        {"id": 1, "ok": True},
        {"id": 1, "ok": 1, "result": {}},
        {"id": "1", "ok": True, "result": {}},
        {"id": 1, "ok": False, "error": {}},
        {"id": 1, "ok": False, "error": {"code": "a", "why": "b", "fix": None}},
        {"id": 1, "ok": False, "result": {}},
    ],
)
def test_what_is_not_a_response_is_refused(frame: dict[object, object]) -> None:
    with pytest.raises(wire.WireError):
        wire.check_response(frame)


def test_responses_come_back() -> None:
    assert wire.check_response(wire.result(3, {"a": [1]})) == (3, {"a": [1]}, ("", "", ""))
    assert wire.check_response(wire.error(4, "busy", "why", "fix")) == (4, None, ("busy", "why", "fix"))


@pytest.mark.parametrize("frame", [{}, {"edge_agent": "1", "version": "1"}, {"edge_agent": 1}, {"version": "1"}])
def test_a_stranger_is_told_from_an_agent(frame: dict[object, object]) -> None:
    with pytest.raises(wire.WireError, match="not an edge-agent"):
        wire.check_hello(frame)


def test_another_protocol_is_named() -> None:
    with pytest.raises(wire.WireError, match=r"9\.9\.9.*protocol 2"):
        wire.check_hello({"edge_agent": 2, "version": "9.9.9"})


@pytest.mark.parametrize("value", [object(), "\udcff", 2**70, {1, 2}])
def test_what_cannot_be_packed_is_a_wire_error(value: object) -> None:
    with pytest.raises(wire.WireError):
        wire.pack({"a": value})


def test_packing_respects_the_limit() -> None:
    with pytest.raises(wire.WireError, match="longer than 100"):
        wire.pack({"a": "x" * 100}, 100)
