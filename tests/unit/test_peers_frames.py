"""The bytes of protocol version 2 never change: golden frames, and the parsers' bounds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from edge_agent.peers import frames
from edge_agent.peers.frames import Answer, Request
from edge_agent.peers.wire import WireError, pack

HASH = bytes(range(32))
NOTE = b"log.example\n5\nAAAA\n\n\xe2\x80\x94 log.example AAAA\n"
EVIDENCE = {"origin": "log.example", "kind": "fork", "held": NOTE, "shown": NOTE}

FRAMES: dict[str, bytes] = {
    "first beat": frames.request(1, "beat", {"set": {"node": "n", "release": "0.1.0", "every": 60}}),
    "first beat, answer": frames.answer(1, {"news": 1000, "node": "f", "release": "0.1.0"}),
    "idle beat": frames.request(70000, "beat", {"base": 69999}),
    "idle beat, answer": frames.answer(70000, {"news": 4294967295}),
    "beat with a difference": frames.request(3, "beat", {"base": 2, "set": {"memory": 40, "s.storage": None}}),
    "beat, status wanted anew": frames.answer(3, {"news": 1000, "again": True}),
    "head": frames.request(4, "head", {"origin": "log.example", "from": 3}),
    "head, answer": frames.answer(4, {"note": NOTE, "proof": [HASH, HASH]}),
    "consistency": frames.request(5, "consistency", {"origin": "log.example", "from": 3, "to": 5}),
    "consistency, answer": frames.answer(5, {"proof": [HASH]}),
    "inclusion by hash": frames.request(6, "inclusion", {"origin": "log.example", "size": 5, "hash": HASH}),
    "inclusion by hash, answer": frames.answer(6, {"index": 2, "proof": [HASH]}),
    "inclusion by index": frames.request(7, "inclusion", {"origin": "log.example", "size": 5, "index": 2}),
    "inclusion by index, answer": frames.answer(7, {"index": 2, "proof": [HASH], "hash": HASH}),
    "entries": frames.request(8, "entries", {"origin": "log.example", "size": 5, "start": 0, "most": 2}),
    "entries, answer": frames.answer(8, {"entries": [b"a", b"b"], "proofs": [[HASH], [HASH]]}),
    "submit": frames.request(9, "submit", {"origin": "log.example", "entry": b"a"}),
    "submit, answer": frames.answer(9, {"index": 5, "size": 6}),
    "blob": frames.request(10, "blob", {"hash": HASH, "offset": 0, "length": 262144}),
    "blob, answer": frames.answer(10, {"data": b"abc", "size": 3}),
    "peers": frames.request(11, "peers", {}),
    "peers, answer": frames.answer(11, {"peers": [{"endpoint": "tcp://h:4001", "key": "k" * 40}]}),
    "announce": frames.request(12, "announce", {"evidence": EVIDENCE}),
    "announce, answer": frames.answer(12, {"kept": True}),
    "announced": frames.request(13, "announced", {}),
    "announced, answer": frames.answer(13, {"evidence": [EVIDENCE]}),
    "refusal": frames.refusal(14, "not-found", "no such blob"),
    "refusal of a version": frames.refusal(15, "version", "this node speaks version 2"),
}


def test_the_golden_frames(golden: Callable[[str, str], None]) -> None:
    lines = [f"{name}\n  {data.hex()}\n" for name, data in FRAMES.items()]
    golden("peers-frames-2.txt", "".join(lines))


@pytest.mark.parametrize("name", FRAMES)
def test_each_golden_frame_is_read_back(name: str) -> None:
    data = FRAMES[name]
    if "answer" in name or "refusal" in name or "anew" in name:
        answer = frames.parse_answer(data)
        assert answer.id > 0
        assert bool(answer.code) == name.startswith("refusal")
    else:
        assert frames.parse_request(data).op in name


def test_an_idle_beat_and_its_answer_are_small() -> None:
    assert len(FRAMES["idle beat"]) + len(FRAMES["idle beat, answer"]) <= 56


def test_further_keys_are_ignored_so_that_the_protocol_can_grow() -> None:
    assert frames.parse_request(pack({"v": 2, "id": 1, "op": "peers", "colour": "red"})).op == "peers"
    assert frames.parse_answer(pack({"v": 2, "id": 1, "colour": "red"})).code == ""
    told = frames.parse_answer(pack({"v": 2, "id": 1, "error": {"code": "tired", "why": "x", "until": 5}}))
    assert (told.code, told.why) == ("failed", "x")  # a code of a later release


@pytest.mark.parametrize(
    "message",
    [
        {"v": 1, "id": 1},
        {"v": 2},
        {"v": 2, "id": -1},
        {"v": 2, "id": True},
        {"v": 2, "id": 1.0},
        {"v": 2, "id": 1, "error": "x"},
        {"v": 2, "id": 1, "error": {}},
        {"v": 2, "id": 1, "error": {"code": "busy"}},
        {"v": 2, "id": 1, "error": {"code": "busy", "why": "\x1b[31m"}},
        {"v": 2, "id": 1, "error": {"code": "busy", "why": "x" * 801}},
    ],
)
def test_what_is_no_answer_is_refused(message: dict[str, Any]) -> None:
    with pytest.raises(WireError):
        frames.parse_answer(pack(message))


def test_frames_beyond_the_bound_of_bytes_are_refused_unread() -> None:
    with pytest.raises(WireError, match="at most 65536"):
        frames.parse_request(bytes(frames.MAX_REQUEST + 1))
    with pytest.raises(WireError, match="at most 327680"):
        frames.parse_answer(bytes(frames.MAX_ANSWER + 1))


def test_the_largest_of_each_fits() -> None:
    entry = frames.request(2**62, "submit", {"origin": "o" * 255, "entry": bytes(frames.MAX_ENTRY)})
    assert isinstance(frames.parse_request(entry), Request)
    piece = frames.answer(2**62, {"data": bytes(frames.MAX_PIECE), "size": 2**62})
    assert isinstance(frames.parse_answer(piece), Answer)
    proofs = [[HASH] * 60] * frames.MAX_ENTRIES
    most = {"entries": [bytes(frames.MAX_PIECE // 64 - 2100)] * 64, "proofs": proofs}
    assert frames.parse_answer(frames.answer(1, most)).result["proofs"] == proofs
