"""The log on disk: killed before every single step, cut off from power with everything unflushed lost, out of room."""

from __future__ import annotations

import errno
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent import tlog
from edge_agent.services import tilestore
from edge_agent.services.errors import StartError
from edge_agent.services.tiles import MAX_ENTRY, TileError, path, split, unpack
from edge_agent.services.tilestore import Batch, NoRoomError, Store


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a power cut takes is decided here, not by the device."""
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)
    monkeypatch.setattr(os, "fdatasync", lambda _descriptor: None)


def opened(root: Path) -> Store:
    store = Store(str(root))
    store.open()
    return store


def head(store: Store) -> bytes:
    """What stands for the signed checkpoint here."""
    return f"{store.tree.size} {store.tree.root().hex()}".encode()


def entries(store: Store) -> list[bytes]:
    """All of them, as they are told."""
    found: list[bytes] = []
    while piece := list(store.entries(len(found), 1000, 256 * 1024)):
        found += piece
    return found


def served(root: Path) -> list[bytes]:
    """All entries as somebody reads them who knows tlog-tiles and has these files only; checked against the head."""
    log = root / "log"
    if not (log / "checkpoint").exists():
        return []
    text, want = (log / "checkpoint").read_text().split()
    size = int(text)
    found: list[bytes] = []
    for level in range(8):
        count = size >> 8 * level
        hashes: list[bytes] = []
        for number in range(-(-count // 256)):
            width = min(256, count - 256 * number)
            full = log / path(level, number)
            whole = full if full.exists() else log / path(level, number, width)  # a partial one may be full by now
            data = whole.read_bytes()
            hashes += split(data, 256 if whole == full else width)[:width]
            if level == 0:
                bundle = log / path("entries", number)
                bundle = bundle if bundle.exists() else log / path("entries", number, width)
                found += list(unpack(bundle.read_bytes()))[:width]
        if level == 0:
            leaves = hashes
        assert hashes == [tlog.root(leaves[at << 8 * level : (at + 1) << 8 * level]) for at in range(count)]
    assert list(map(tlog.leaf_hash, found)) == leaves
    assert tlog.root(leaves).hex() == want
    return found


def numbered(start: int, count: int) -> list[bytes]:
    return [b"entry %d" % number for number in range(start, start + count)]


def test_a_log_grows_is_served_and_comes_back(tmp_path: Path) -> None:
    store = opened(tmp_path)
    wanted: list[bytes] = []
    for count in (1, 254, 1, 1, 300, 3, 600, 1000):
        fresh = numbered(len(wanted), count)
        assert store.append(Batch.of(fresh)) == len(wanted)
        wanted += fresh
        store.publish(head(store))
        assert entries(store) == wanted == served(tmp_path)
    before = store.tree.root()
    store.flush()
    store.close()
    again = opened(tmp_path)
    assert (again.tree.size, again.tree.root()) == (len(wanted), before)
    assert entries(again) == wanted == served(tmp_path)


def test_an_empty_log_has_the_empty_root(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.publish(head(store))
    store.close()
    assert opened(tmp_path).tree.root() == tlog.EMPTY_ROOT
    assert served(tmp_path) == []


def test_what_was_appended_is_durable_by_one_write_and_one_flush(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, calls = opened(tmp_path), []
    monkeypatch.setattr(os, "fdatasync", lambda _fd: calls.append("fdatasync"))
    monkeypatch.setattr(os, "fsync", lambda _fd: calls.append("fsync"))
    store.append(Batch.of(numbered(0, 1000)))
    store.publish(head(store))
    assert calls == ["fdatasync"]


def test_entries_come_in_bounded_pieces(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.append(Batch.of([b"x" * 1000] * 600))
    assert len(list(store.entries(0, 1000, 10_000))) == 10
    assert len(list(store.entries(250, 10, 1_000_000))) == 10
    assert len(list(store.entries(599, 10, 1_000_000))) == 1
    assert list(store.entries(600, 10, 1_000_000)) == []
    assert len(list(store.entries(0, 10, 1))) == 1, "one at least"


def test_the_longest_entries_are_kept_and_longer_ones_refused(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.append(Batch.of([bytes(MAX_ENTRY), b""]))
    assert entries(store) == [bytes(MAX_ENTRY), b""]
    with pytest.raises(TileError):
        Batch.of([bytes(MAX_ENTRY + 1)])


def test_partial_tiles_stay_until_the_full_one_is_there(tmp_path: Path) -> None:
    store = opened(tmp_path)
    for number in range(5):
        store.append(Batch.of(numbered(number, 1)))
        store.publish(head(store))
    assert sorted(each.name for each in (tmp_path / "log/tile/0/000.p").iterdir()) == ["1", "2", "3", "4", "5"]
    assert sorted(each.name for each in (tmp_path / "log/tile/entries/000.p").iterdir()) == ["4", "5"]
    store.append(Batch.of(numbered(5, 300)))
    assert not (tmp_path / "log/tile/0/000.p").exists()
    assert not (tmp_path / "log/tile/entries/000.p").exists()


def test_those_that_the_journal_begins_on_stay_longer(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.append(Batch.of(numbered(0, 5)))
    store.publish(head(store))
    store.flush()
    store.append(Batch.of(numbered(5, 300)))
    store.publish(head(store))
    assert [each.name for each in (tmp_path / "log/tile/0/000.p").iterdir()] == ["5"]
    assert entries(opened(tmp_path)) == numbered(0, 305)
    store.flush()
    assert not (tmp_path / "log/tile/0/000.p").exists()
    assert not (tmp_path / "log/tile/entries/000.p").exists()
    store.close()
    assert entries(opened(tmp_path)) == numbered(0, 305) == served(tmp_path)


# -- killed before every step


class KilledError(BaseException):
    """kill -9: nothing that follows is done, no handler runs."""


class Steps:
    """``os`` for the store; the process is killed before the step with that number, a write after half of its bytes."""

    changing = frozenset(("write", "rename", "unlink", "rmdir", "open", "ftruncate", "fsync", "fdatasync", "makedirs"))

    def __init__(self, kill_at: int) -> None:
        self.left = kill_at
        self.dead = False

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        return self._counted(name, real) if name in self.changing else real

    def _counted(self, name: str, real: Any) -> Any:
        def step(*given: Any, **named: Any) -> Any:
            if self.dead:
                raise KilledError
            self.left -= 1
            if self.left < 0:
                self.dead = True
                if name == "write":
                    real(given[0], given[1][: len(given[1]) // 2])
                raise KilledError
            return real(*given, **named)

        return step


def story(root: Path, acknowledged: list[bytes]) -> Iterator[None]:
    """Two lives of a log: batches, files, flushes; what was acknowledged is noted."""
    for life in ((3, 252, 2), (1, 300)):
        store = opened(root)
        store.publish(head(store))
        yield
        for count in life:
            fresh = numbered(len(acknowledged), count)
            store.append(Batch.of(fresh))
            acknowledged += fresh
            yield
            store.publish(head(store))
            yield
            if count in (2, 300):
                store.flush()
                yield
        store.close()


def test_a_kill_before_any_step_loses_nothing_and_leaves_nothing_torn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    number, done = 0, False
    while not done:
        root = tmp_path / str(number)
        acknowledged: list[bytes] = []
        root.mkdir()
        monkeypatch.setattr(tilestore, "os", Steps(number))
        try:
            for _ in story(root, acknowledged):
                pass
            done = True
        except KilledError:
            pass
        monkeypatch.setattr(tilestore, "os", os)
        assert served(root) == numbered(0, len(served(root))), "what is served stands on its own, before any recovery"
        store = opened(root)
        found = entries(store)
        assert found[: len(acknowledged)] == acknowledged
        assert found == numbered(0, len(found)), "what was not acknowledged may be there, whole and in order"
        store.append(Batch.of(numbered(len(found), 300)))
        store.publish(head(store))
        store.flush()
        assert entries(store) == numbered(0, len(found) + 300) == served(root)
        store.close()
        shutil.rmtree(root)
        number += 1
    assert number > 100, "the story has that many steps"


# -- power cuts


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32))
def test_a_power_cut_loses_what_was_not_flushed_and_nothing_acknowledged(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    chance, root = random.Random(seed), tmp_path_factory.mktemp("log")
    wanted: list[bytes] = []
    for _ in range(4):
        store = opened(root)
        for _ in range(chance.randrange(6)):
            fresh = numbered(len(wanted), chance.choice((1, 2, 100, 256, 700)))
            store.append(Batch.of(fresh))
            wanted += fresh
            if chance.random() < 0.7:
                store.publish(head(store))
                if chance.random() < 0.3:
                    store.flush()
        lost = sorted(each for each in store._unflushed if Path(each).is_file())
        store.close()
        for each in [*lost, str(root / "bundle")]:
            fate = chance.choice(("gone", "empty", "zeros", "half", "kept"))
            whole = Path(each).read_bytes()
            if fate == "gone":
                Path(each).unlink()
            elif fate != "kept":
                Path(each).write_bytes(
                    {"empty": b"", "zeros": bytes(len(whole)), "half": whole[: len(whole) // 2]}[fate]
                )
        with (root / "journal").open("ab") as journal:  # a record that was under way
            journal.write(chance.choice((b"", bytes(100), chance.randbytes(50), Batch.of([b"x" * 50]).data[:-1])))
    store = opened(root)
    assert entries(store) == wanted
    store.publish(head(store))
    assert served(root) == wanted


# -- other trouble


def test_without_room_nothing_of_the_entries_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = opened(tmp_path)
    store.append(Batch.of(numbered(0, 3)))
    real = os.write

    def full(descriptor: int, data: bytes) -> int:
        real(descriptor, data[:5])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(NoRoomError):
        store.append(Batch.of(numbered(3, 3)))
    monkeypatch.undo()
    assert store.append(Batch.of(numbered(3, 2))) == 3
    store.close()
    assert entries(opened(tmp_path)) == numbered(0, 5)


@pytest.mark.parametrize("name", ["log/tile/0/000.p/5", "log/tile/entries/000.p/5", "journal"])
@pytest.mark.parametrize("harm", ["flip", "cut", "gone"])
def test_a_damaged_log_does_not_start(tmp_path: Path, name: str, harm: str) -> None:
    store = opened(tmp_path)
    store.append(Batch.of(numbered(0, 5)))
    store.publish(head(store))
    store.flush()
    store.close()
    file = tmp_path / name
    data = bytearray(file.read_bytes())
    data[20] ^= 1
    if harm == "gone":
        file.unlink()
    else:
        file.write_bytes(data if harm == "flip" else data[:20])
    with pytest.raises(StartError, match="cannot use the log"):
        opened(tmp_path)


def test_a_damaged_tile_or_entry_is_not_told(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.append(Batch.of(numbered(0, 600)))
    bundle = tmp_path / "log/tile/entries/001"
    data = bytearray(bundle.read_bytes())
    data[-1] ^= 1
    bundle.write_bytes(data)
    assert len(list(store.entries(0, 511, 10**6))) == 511
    with pytest.raises(TileError):
        list(store.entries(511, 1, 10**6))
    (tmp_path / "log/tile/0/001").write_bytes(b"short")
    store._cache.clear()
    with pytest.raises(TileError):
        store.tree.inclusion(300, 600)


def test_memory_of_a_reader_is_bounded(tmp_path: Path) -> None:
    store = opened(tmp_path)
    for start in range(0, 256 * 50, 1000):
        store.append(Batch.of(numbered(start, 1000)))
    for index in range(0, store.tree.size, 100):
        store.tree.inclusion(index, store.tree.size)
    assert len(store._cache) <= tilestore.CACHED


def test_small_files_beside_the_log(tmp_path: Path) -> None:
    store = opened(tmp_path)
    assert store.kept("origin") == b""
    store.keep("origin", b"first\n")
    store.keep("origin", b"second\n")
    assert store.kept("origin") == b"second\n"
