"""Pins and wished copies: on the disk before they are answered, stronger than the bound of a cache."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.peers.wire import pack, unpack
from edge_agent.services import wishes
from edge_agent.services.errors import RefusedError
from edge_agent.services.lru import BLOCK
from edge_agent.services.wishes import LINE, NONE, Wish, Wishes
from tests.fakes.blobnode import FakeNode
from tests.unit.test_services_storage import Bench

A, B, C = (bytes([number]) * 32 for number in range(3))


def cached(path: Path, limit: int = 3 * BLOCK, node: FakeNode | None = None) -> Bench:
    return Bench(path, node, cache_only=True, cache_bytes=limit)


def everything(_key: bytes) -> bool:
    return True


def loaded(path: Path, here: object = None) -> Wishes:
    made = Wishes(str(path))
    made.load(everything if here is None else lambda key: key == here)
    return made


def said(made: Wishes) -> dict[bytes, Wish]:
    return {key: made.get(key) for key in made.page(b"", 1000)}


# -- the file


def test_what_was_wished_last_holds_after_a_restart(tmp_path: Path) -> None:
    first = loaded(tmp_path / "w")
    assert not (tmp_path / "w").exists(), "nothing was wished, nothing is written"
    first.set(A, Wish(pinned=True))
    first.set(B, Wish(replicas=255))
    first.set(A, Wish(pinned=True, replicas=3))
    first.set(C, Wish(pinned=True))
    first.set(C, NONE)
    expected = {A: Wish(True, 3), B: Wish(False, 255)}
    assert said(first) == said(loaded(tmp_path / "w")) == expected
    assert (tmp_path / "w").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "w").stat().st_size == 2 * LINE, "written anew"
    loaded(tmp_path / "w").set(A, NONE)
    assert said(loaded(tmp_path / "w")) == {B: Wish(False, 255)}


def test_copies_wished_of_what_is_gone_are_forgotten_pins_are_not(tmp_path: Path) -> None:
    first = loaded(tmp_path / "w")
    for key in (A, B):
        first.set(key, Wish(replicas=2))
    first.set(C, Wish(pinned=True, replicas=2))
    assert said(loaded(tmp_path / "w", A)) == {A: Wish(replicas=2), C: Wish(True, 2)}


@pytest.mark.parametrize("left", [1, LINE // 2, LINE - 1])
def test_an_append_that_was_torn_is_no_damage(tmp_path: Path, left: int, capfd: pytest.CaptureFixture[str]) -> None:
    first = loaded(tmp_path / "w")
    first.set(A, Wish(pinned=True))
    first.set(B, Wish(pinned=True))
    with (tmp_path / "w").open("r+b") as file:
        file.truncate(LINE + left)
    again = loaded(tmp_path / "w")
    assert said(again) == {A: Wish(pinned=True)}
    again.set(C, Wish(pinned=True))
    assert said(loaded(tmp_path / "w")) == {A: Wish(pinned=True), C: Wish(pinned=True)}
    assert "damaged" not in capfd.readouterr().err


def test_a_damaged_line_costs_that_line_and_is_said(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    first = loaded(tmp_path / "w")
    for key in (A, B, C):
        first.set(key, Wish(pinned=True))
    data = bytearray((tmp_path / "w").read_bytes())
    data[LINE + 10] ^= 1
    (tmp_path / "w").write_bytes(data)
    assert set(said(loaded(tmp_path / "w"))) == {A, C}
    assert "1 wishes" in capfd.readouterr().err
    assert (tmp_path / "w.damaged").read_bytes() == data
    assert set(said(loaded(tmp_path / "w"))) == {A, C}
    assert "damaged" not in capfd.readouterr().err


def test_the_file_stays_in_proportion_to_what_is_wished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wishes, "SLACK", 50)
    made = loaded(tmp_path / "w")
    for _ in range(wishes.SLACK):
        made.set(A, Wish(pinned=True))
        made.set(A, NONE)
    assert (tmp_path / "w").stat().st_size <= (wishes.SLACK + 2) * LINE


def test_a_disk_that_is_full_leaves_what_was_wished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = loaded(tmp_path / "w")
    made.set(A, Wish(pinned=True))
    whole = os.pwrite

    def half(descriptor: int, data: bytes, place: int) -> int:
        return whole(descriptor, data[:40], place)

    monkeypatch.setattr(os, "pwrite", half)
    with pytest.raises(OSError, match="No space"):
        made.set(B, Wish(pinned=True))
    monkeypatch.undo()
    assert said(made) == said(loaded(tmp_path / "w")) == {A: Wish(pinned=True)}
    made.set(C, Wish(pinned=True))
    assert set(said(loaded(tmp_path / "w"))) == {A, C}


def test_there_are_only_so_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wishes, "MOST", 2)
    made = loaded(tmp_path / "w")
    made.set(A, Wish(pinned=True))
    made.set(B, Wish(pinned=True))
    with pytest.raises(RefusedError) as caught:
        made.set(C, Wish(pinned=True))
    assert caught.value.code == "too-many"
    made.set(A, NONE)
    made.set(C, Wish(pinned=True))


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=4 * LINE), st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=6))
def test_any_bytes_are_read_and_nothing_is_invented(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, edits: list[tuple[int, int]]
) -> None:
    path = tmp_path_factory.mktemp("w") / "w"
    made = loaded(path)
    expected = {A: Wish(pinned=True), B: Wish(True, 7), C: Wish(replicas=9)}
    for key, wish in expected.items():
        made.set(key, wish)
    mutated = bytearray(path.read_bytes())
    for place, value in edits:
        mutated[place % len(mutated)] = value
    path.write_bytes(bytes(mutated) + data)
    assert said(loaded(path)).items() <= expected.items()


# -- what the service does with it


def test_a_pinned_blob_is_never_evicted_and_the_cache_says_when_pins_fill_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    bench = cached(tmp_path)
    pinned = bench.put(b"pinned")
    bench.ask("pin", hash=pinned)
    for number in range(20):
        bench.put(bytes([number]))
    assert bench.ask("get", hash=pinned)["data"] == b"pinned"
    assert "pinned; fix" not in capfd.readouterr().err
    more = [bench.put(b"1"), bench.put(b"2")]
    for key in more:
        bench.ask("pin", hash=key)
    assert "12288 of the 12288 bytes of the cache are pinned" in capfd.readouterr().err
    assert bench.code("put", data=b"3") == "pins-full"
    assert bench.code("put", data=bytes(4 * BLOCK)) == "too-large"
    assert bench.storage.details()["pinned"] == 3 * BLOCK
    assert bench.ask("unpin", hash=pinned)["unpinned"] is True
    assert bench.ask("unpin", hash=pinned)["unpinned"] is False
    bench.put(b"3")
    assert not bench.ask("has", hash=pinned)["has"]


def test_pins_hold_after_a_restart_even_beyond_a_smaller_bound(tmp_path: Path) -> None:
    bench = cached(tmp_path)
    keys = [bench.put(bytes([number])) for number in range(3)]
    for key in keys[:2]:
        bench.ask("pin", hash=key)
    again = cached(tmp_path, BLOCK)
    assert [again.ask("has", hash=key)["has"] for key in keys] == [True, True, False]
    assert again.code("put", data=b"x") == "pins-full"
    assert again.ask("unpin", hash=keys[0])["unpinned"] is True
    assert not again.ask("has", hash=keys[0])["has"], "back inside the bound"


def test_a_pin_is_on_the_disk_with_its_blob_before_it_is_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = cached(tmp_path)
    key = bench.put(b"x")
    synced: list[str] = []
    for name in ("fsync", "fdatasync"):
        real = getattr(os, name)

        def record(descriptor: int, real: object = real) -> None:
            synced.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)

        monkeypatch.setattr(os, name, record)
    assert bench.ask("pin", hash=key)["ok"]
    assert synced[:3] == [key.hex()[2:], key.hex()[:2], "cache"]
    assert synced[-1] == "wishes"


@pytest.mark.parametrize("mode", ["store", "cache"])
def test_a_pinned_blob_cannot_be_deleted(tmp_path: Path, mode: str) -> None:
    bench = cached(tmp_path) if mode == "cache" else Bench(tmp_path)
    key = bench.put(b"x")
    bench.ask("pin", hash=key)
    assert bench.code("delete", hash=key) == "pinned"
    bench.ask("unpin", hash=key)
    assert bench.ask("delete", hash=key)["deleted"]
    assert bench.code("pin", hash=key) == "not-found"


def test_a_damaged_blob_is_not_pinned(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    key = bench.put(b"x")
    bench.files()[0].write_bytes(b"y")
    assert bench.code("pin", hash=key) == "corrupt"
    assert bench.ask("wishes")["wishes"] == []


def test_copies_are_wished_blob_by_blob_and_by_the_profile(tmp_path: Path) -> None:
    bench = Bench(tmp_path, blob_replicas=2)
    keys = sorted(bench.put(bytes([number])) for number in range(3))
    assert bench.ask("replicas", hash=keys[0])["wished"] == 2
    assert bench.ask("replicas", hash=keys[0], wished=5)["wished"] == 5
    assert bench.ask("replicas", hash=keys[1], wished=2)["wished"] == 2
    bench.ask("pin", hash=keys[2])
    again = Bench(tmp_path, blob_replicas=3)
    assert again.ask("wishes")["wishes"] == [
        {"hash": keys[0], "pinned": False, "replicas": 5},
        {"hash": keys[2], "pinned": True, "replicas": 3},
    ]
    assert again.ask("wishes", limit=1)["more"] is True
    assert [each["hash"] for each in again.ask("wishes", after=keys[0])["wishes"]] == [keys[2]]
    told = again.ask("stat", hash=keys[0])
    assert (told["size"], told["pinned"], told["replicas"]) == (1, False, 5)
    for wished in (0, 256, "3", None):
        assert again.code("replicas", hash=keys[0], wished=wished) == "bad-request"
    assert again.code("replicas", hash=bytes(32), wished=2) == "not-found"
    again.ask("delete", hash=keys[0])
    assert len(again.ask("wishes")["wishes"]) == 1


def test_a_page_of_wishes_fits_into_a_message(tmp_path: Path) -> None:
    made = loaded(tmp_path / "wishes")
    bench = Bench(tmp_path)
    path = bench.root / "wishes"
    lines = [wishes._line(number.to_bytes(32, "big"), 1) for number in range(1200)]
    path.write_bytes(b"".join(lines))
    made.close()
    again = Bench(tmp_path)
    page = again.ask("wishes")
    assert len(unpack(pack(page), 1 << 20)["wishes"]) == 500
    assert page["more"] is True
