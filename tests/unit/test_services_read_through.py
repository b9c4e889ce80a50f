"""Blobs that are not here come from peers, once for all who ask, and only when they are what was asked for."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import msgpack
import pytest

from edge_agent.services import fetches
from edge_agent.services.held import HOLD
from edge_agent.services.lru import BLOCK, cost
from tests.fakes.blobnode import FakeNode
from tests.unit.test_services_storage import Bench

BLOB = os.urandom(3 * fetches.PIECE + 5)
KEY = hashlib.sha256(BLOB).digest()


def cached(path: Path, node: FakeNode, limit: int = 4 << 20) -> Bench:
    return Bench(path, node, cache_only=True, cache_bytes=limit)


def answers_of(raw: list[bytes]) -> list[Any]:
    return [msgpack.unpackb(each) for each in raw]


@pytest.mark.parametrize("size", [0, 1, fetches.PIECE, fetches.PIECE + 1, 5 * fetches.PIECE])
@pytest.mark.parametrize("cache", [True, False])
def test_a_blob_of_a_peer_is_served_and_kept(tmp_path: Path, size: int, cache: bool) -> None:
    blob = os.urandom(size)
    key, node = hashlib.sha256(blob).digest(), FakeNode(blob)
    bench = cached(tmp_path, node) if cache else Bench(tmp_path, node)
    answer = bench.ask("get", hash=key, offset=1, length=100)
    assert (answer["data"], answer["size"]) == (blob[1:101], size)
    asked = len(node.asked)
    assert bench.ask("get", hash=key, length=100)["data"] == blob[:100]
    assert len(node.asked) == asked == max(1, -(-size // fetches.PIECE))
    node.blobs.clear()
    again = cached(tmp_path, node) if cache else Bench(tmp_path, node)
    assert again.ask("get", hash=key)["ok"], "served without peers after a restart"


def test_all_who_ask_share_one_transfer_and_nothing_is_visible_before_its_end(tmp_path: Path) -> None:
    node = FakeNode(BLOB)
    bench = cached(tmp_path, node)
    raw: list[bytes] = []
    for user in ("uid:0", "uid:7", "uid:0"):
        bench.send("get", raw, user, hash=KEY)
    for _ in range(4):
        bench.turn()
        assert not bench.ask("has", hash=KEY)["has"]
        assert bench.ask("list")["hashes"] == []
    while len(raw) < 3:
        bench.turn()
    assert [answer["size"] for answer in answers_of(raw)] == [len(BLOB)] * 3
    assert [offset for _, offset in node.asked] == [0, fetches.PIECE, 2 * fetches.PIECE, 3 * fetches.PIECE]


@pytest.mark.parametrize("checks", [True, False], ids=["node-checks", "node-does-not"])
@pytest.mark.parametrize("place", [0, 3])
def test_a_wrong_blob_is_asked_for_again(tmp_path: Path, checks: bool, place: int) -> None:
    node = FakeNode(BLOB, checks=checks)
    node.faults.extend([""] * place + ["corrupt"])
    bench = cached(tmp_path, node)
    assert bench.ask("get", hash=KEY)["ok"]
    assert [offset for _, offset in node.asked].count(0) == 2
    assert bench.storage.details()["used"] == cost(len(BLOB))


@pytest.mark.parametrize("checks", [True, False], ids=["node-checks", "node-does-not"])
def test_a_wrong_blob_is_given_up_after_some_tries_and_leaves_nothing(tmp_path: Path, checks: bool) -> None:
    node = FakeNode(BLOB, checks=checks)
    node.faults.extend(["corrupt"] * 100)
    bench = cached(tmp_path, node)
    assert bench.code("get", hash=KEY) == "wrong-blob"
    assert [offset for _, offset in node.asked].count(0) == fetches.TRIES
    assert bench.files() == []
    assert bench.storage.details()["used"] == 0
    node.faults.clear()
    assert bench.ask("get", hash=KEY)["ok"], "later it is tried anew"


@pytest.mark.parametrize("fault", ["size", "short", "garbage"])
def test_what_cannot_be_is_not_believed(tmp_path: Path, fault: str) -> None:
    node = FakeNode(BLOB)
    node.faults.extend(["", fault])
    bench = cached(tmp_path, node)
    assert bench.ask("get", hash=KEY)["ok"]
    node.faults.extend([fault] * 100)
    other = os.urandom(700_000)
    node.blobs[hashlib.sha256(other).digest()] = other
    if fault == "size":
        node.faults.extend(["", "size"] * 9)
        node.faults.rotate(9)
    assert bench.code("get", hash=hashlib.sha256(other).digest()) in ("unreachable", "wrong-blob")
    assert bench.storage.details()["used"] == cost(len(BLOB))


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("not-found", "not-found"),
        ("unknown-op", "not-found"),  # a full node: there is nobody to ask
        ("offline", "unreachable"),
        ("timeout", "unreachable"),
        ("unavailable", "unreachable"),  # no node service
        ("failed", "unreachable"),
    ],
)
def test_what_no_peer_can_give_is_refused_at_once_and_the_cache_goes_on(tmp_path: Path, fault: str, code: str) -> None:
    node = FakeNode(BLOB)
    bench = cached(tmp_path, node)
    key = bench.put(b"here")
    node.faults.append(fault)
    assert bench.code("get", hash=KEY) == code
    assert bench.clock.time == 0.0
    assert bench.ask("get", hash=key)["data"] == b"here"
    assert bench.ask("get", hash=KEY)["ok"], "when the peers are back"


def test_a_transfer_goes_on_after_a_pause_of_its_peers(tmp_path: Path) -> None:
    node = FakeNode(BLOB)
    node.faults.extend(["", "", "offline", "timeout", ""])
    bench = cached(tmp_path, node)
    raw: list[bytes] = []
    bench.send("get", raw, hash=KEY)
    bench.rest()
    assert answers_of(raw)[0]["error"]["code"] == "pending"  # it took longer than a client waits
    assert [offset // fetches.PIECE for _, offset in node.asked] == [0, 1, 2, 2, 2, 3]
    assert bench.ask("get", hash=KEY)["ok"]


def test_a_transfer_without_an_end_is_given_up(tmp_path: Path) -> None:
    node = FakeNode(BLOB)
    node.faults.extend(["", *["offline"] * 100])
    bench = cached(tmp_path, node)
    raw: list[bytes] = []
    bench.send("get", raw, hash=KEY)
    bench.rest()
    assert len(node.asked) == 2 + fetches.STALLS
    assert bench.files() == []
    assert bench.storage.details()["fetches"] == 0


def test_a_node_that_has_forgotten_the_transfer_is_asked_from_the_beginning(tmp_path: Path) -> None:
    node = FakeNode(BLOB)
    node.faults.extend(["", "", "bad-request"])
    bench = cached(tmp_path, node)
    assert bench.ask("get", hash=KEY)["ok"]


def test_who_waits_long_is_told_how_far_it_is(tmp_path: Path) -> None:
    node = FakeNode(BLOB)
    bench = cached(tmp_path, node)
    raw: list[bytes] = []
    bench.send("get", raw, hash=KEY)
    bench.turn()
    bench.turn()  # one piece is here
    bench.clock.time = HOLD
    bench.storage.tick(HOLD)
    (answer,) = answers_of(raw)
    assert answer["error"]["code"] == "pending"
    assert f"{fetches.PIECE} of {len(BLOB)} bytes" in answer["error"]["why"]
    assert bench.ask("get", hash=KEY)["ok"], "the transfer went on"
    assert len(node.asked) == 4


def test_transfers_are_bounded(tmp_path: Path) -> None:
    bench = cached(tmp_path, FakeNode())
    raw: list[bytes] = []
    for number in range(fetches.MOST + 1):
        bench.send("get", raw, hash=bytes([number]) * 32)
    assert [answer["error"]["code"] for answer in answers_of(raw)] == ["busy"]


def test_the_announced_size_of_a_stranger_evicts_nothing(tmp_path: Path) -> None:
    node = FakeNode(bytes(40 * BLOCK))
    bench = cached(tmp_path, node, 50 * BLOCK)
    keys = [bench.put(bytes([number])) for number in range(40)]
    node.faults.append("short")  # announced, and not given
    node.faults.extend(["failed"])
    assert bench.code("get", hash=hashlib.sha256(bytes(40 * BLOCK)).digest()) == "unreachable"
    assert all(bench.ask("has", hash=key)["has"] for key in keys)


@pytest.mark.parametrize(("pinned", "code"), [(False, "too-large"), (True, "pins-full")])
def test_a_blob_for_which_there_is_no_room_is_refused_when_its_size_is_known(
    tmp_path: Path, pinned: bool, code: str
) -> None:
    node = FakeNode(bytes(40 * BLOCK))
    bench = cached(tmp_path, node, (45 if pinned else 30) * BLOCK)
    if pinned:
        bench.ask("pin", hash=bench.put(bytes(10 * BLOCK)))
    assert bench.code("get", hash=hashlib.sha256(bytes(40 * BLOCK)).digest()) == code
    assert len(node.asked) == 1
    assert bench.storage.details()["fetches"] == 0


def test_a_full_disk_ends_the_transfer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = cached(tmp_path, FakeNode(BLOB))

    def full(_descriptor: int, _data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    assert bench.code("get", hash=KEY) == "no-space"
    assert bench.files() == []
    assert bench.storage.details()["used"] == 0


@pytest.mark.parametrize("cache", [True, False])
def test_a_damaged_blob_is_fetched_again_for_whoever_asks(tmp_path: Path, cache: bool) -> None:
    bench = cached(tmp_path, FakeNode(BLOB)) if cache else Bench(tmp_path, FakeNode(BLOB))
    assert bench.ask("get", hash=KEY)["ok"]
    (path,) = bench.files()
    path.write_bytes(b"damage")
    assert bench.ask("get", hash=KEY, length=9)["data"] == BLOB[:9]
    assert bench.storage.details()["corrupt"] == 1
    assert [each.read_bytes() for each in bench.files()] == [BLOB], "what was set aside is gone"


def test_a_damaged_blob_that_no_peer_has_is_refused_and_kept_aside(tmp_path: Path) -> None:
    bench = Bench(tmp_path, FakeNode())
    key = bench.put(b"x")
    (path,) = bench.files()
    path.write_bytes(b"damage")
    assert bench.code("get", hash=key) == "not-found"
    assert [each.parent.name for each in bench.files()] == ["corrupt"]


def test_a_pin_fetches_what_it_pins(tmp_path: Path) -> None:
    bench = cached(tmp_path, FakeNode(BLOB))
    assert bench.ask("pin", hash=KEY)["size"] == len(BLOB)
    assert bench.ask("stat", hash=KEY)["pinned"] is True
    assert bench.code("pin", hash=bytes(32)) == "not-found"


def test_at_its_end_it_forgets_transfers(tmp_path: Path) -> None:
    node = FakeNode(BLOB)
    bench = cached(tmp_path, node)
    bench.send("get", [], hash=KEY)
    bench.turn()
    bench.turn()
    bench.storage.close()
    assert node.closed
    assert bench.files() == []


def test_without_read_through_nobody_is_asked(tmp_path: Path) -> None:
    bench = Bench(tmp_path, cache_only=True, cache_bytes=BLOCK)
    assert bench.code("get", hash=KEY) == "not-found"
    assert bench.code("pin", hash=KEY) == "not-found"
