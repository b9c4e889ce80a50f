"""Hostile bytes raise WireError and nothing else; what was packed comes back."""

from __future__ import annotations

import contextlib
import tracemalloc
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.peers import wire
from edge_agent.peers.wire import Beat, Echo, WireError

SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=20) | st.binary()
)
NAMES = st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=8)


def whole(data: bytes) -> dict[str, Any]:
    return wire.unpack(data, 1 << 20)


@given(st.dictionaries(st.text(max_size=8), SCALARS | st.lists(SCALARS, max_size=5), max_size=6))
def test_what_was_packed_comes_back(message: dict[str, Any]) -> None:
    assert repr(whole(wire.pack(message))) == repr(message)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_map_or_a_wire_error(data: bytes) -> None:
    with contextlib.suppress(WireError):
        assert isinstance(whole(data), dict)


@given(st.integers(0, 10_000), st.integers(0, 255))
def test_a_changed_byte_is_a_map_or_a_wire_error(position: int, byte: int) -> None:
    data = bytearray(wire.pack({"v": 1, "id": 7, "op": "get", "hash": bytes(32), "list": [1, 2.5, "x", None]}))
    data[position % len(data)] = byte
    with contextlib.suppress(WireError):
        assert isinstance(whole(bytes(data)), dict)


@given(st.integers(0, 60))
def test_every_truncation_is_refused(cut: int) -> None:
    data = wire.pack({"v": 1, "id": 7, "op": "get", "hash": bytes(32), "deep": [[1, {"a": 2}]]})
    with pytest.raises(WireError, match="cut short"):
        whole(data[: min(cut, len(data) - 1)])


def nested(levels: int) -> bytes:
    return b"\x81\xa1a" + b"\x91" * levels + b"\xc0"


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "cut short"),
        (b"\xc1", "never uses"),
        (b"\x90", "not a map"),
        (b"\x81\x01\x02", "not a map with text keys|not msgpack"),
        (b"\x81\xc4\x01a\x02", "text keys"),
        (b"\x80\x80", "trailing"),
        (b"\x81\xa1a\xc7\x00\x01", "extension"),
        (b"\x81\xa1a\xd4\x01\x00", "extension"),
        (b"\x81\xa1a\xd6\xff\x00\x00\x00\x00", "extension"),
        (b"\xdf\xff\xff\xff\xff", "values"),
        (b"\x81\xa1a\xdd\xff\xff\xff\xff", "values"),
        (b"\x81\xa1a\xdb\xff\xff\xff\xff", "cut short"),
        (b"\x81\xa1a\xc6\x7f\xff\xff\xff", "cut short"),
        (b"\x81\xa2\xff\xfe\x01", "not msgpack"),
        (nested(wire.MAX_DEPTH), "deeper"),
        (msgpack.packb({"a": [None] * wire.MAX_ITEMS}), "values"),
    ],
)
def test_each_kind_of_bad_bytes_says_why(data: bytes, why: str) -> None:
    with pytest.raises(WireError, match=why):
        whole(data)


def test_nesting_up_to_the_bound_is_fine() -> None:
    assert whole(nested(wire.MAX_DEPTH - 1)) == {"a": [[[[[None]]]]]}


def test_longer_than_allowed_is_refused_unread() -> None:
    with pytest.raises(WireError, match="at most 10"):
        wire.unpack(bytes(11), 10)


def test_a_mebibyte_of_empty_arrays_costs_no_memory() -> None:
    data = b"\x81\xa1a\xdd" + (900_000).to_bytes(4, "big") + b"\x90" * 900_000
    tracemalloc.start()
    try:
        with pytest.raises(WireError):
            whole(data)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


@given(NAMES, NAMES, st.integers(0, 2**63 - 1), st.floats(0.001, 86_400))
def test_beats_and_echoes_come_back(node: str, release: str, sequence: int, interval: float) -> None:
    beat, echo = Beat(node, release, sequence, interval), Echo(node, release, sequence)
    assert wire.unpack_beat(wire.pack_beat(beat)) == beat
    back = wire.unpack_beat(wire.pack_beat(echo))
    assert isinstance(back, Echo)
    assert back == echo


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"v": 2}, "version"),
        ({"v": None}, "version"),
        ({"kind": "hello"}, "kind"),
        ({"node": ""}, "node"),
        ({"node": "n" * 65}, "node"),
        ({"node": "a\nb"}, "node"),
        ({"node": b"n"}, "node"),
        ({"release": "r" * 33}, "release"),
        ({"sequence": -1}, "sequence"),
        ({"sequence": True}, "sequence"),
        ({"sequence": 2**63}, "sequence"),
        ({"interval": 0}, "interval"),
        ({"interval": float("nan")}, "interval"),
        ({"interval": float("inf")}, "interval"),
        ({"interval": "30"}, "interval"),
        ({"filler": bytes(600)}, "at most 512"),
    ],
)
def test_each_wrong_field_of_a_beat_is_named(change: dict[str, Any], why: str) -> None:
    fields = {"v": 1, "kind": "beat", "node": "n", "release": "r", "sequence": 1, "interval": 30}
    with pytest.raises(WireError, match=why):
        wire.unpack_beat(wire.pack(fields | change))


def test_the_bytes_of_a_beat_never_change_for_version_1() -> None:
    golden = (
        "86a17601a46b696e64a462656174a46e6f6465a16ea772656c65617365a5302e312e30a873657175656e636501"
        "a8696e74657276616ccb403e000000000000"
    )
    assert wire.pack_beat(Beat("n", "0.1.0", 1, 30.0)).hex() == golden
    assert wire.unpack_beat(bytes.fromhex(golden)) == Beat("n", "0.1.0", 1, 30.0)


def test_further_keys_of_a_beat_are_ignored() -> None:
    fields = {"v": 1, "kind": "echo", "node": "n", "release": "r", "sequence": 1, "load": 0.5}
    assert wire.unpack_beat(wire.pack(fields)) == Echo("n", "r", 1)
