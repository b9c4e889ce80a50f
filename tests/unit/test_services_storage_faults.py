"""What a disk that fails, for a moment or for good, must not take with it."""

from __future__ import annotations

import errno
import hashlib
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_agent.host import journal
from edge_agent.services import blobs as blobs_module
from edge_agent.services import wishes as wishes_module
from edge_agent.services.blobs import Blobs
from edge_agent.services.inventory import Inventory
from edge_agent.services.lru import Lru
from edge_agent.services.wishes import LINE, Wish, Wishes
from tests.property.disk import Disk
from tests.unit.test_services_storage import Bench

DATA = b"a blob"
KEY = hashlib.sha256(DATA).digest()
OTHERS = [bytes([number]) * 32 for number in range(5)]


def refusing(number: int, path: str) -> Callable[..., int]:
    """An ``os.open`` that cannot open what has ``path`` in its name."""
    real = os.open

    def opened(name: Any, *rest: Any, **named: Any) -> int:
        if path in str(name):
            raise OSError(number, os.strerror(number))
        return real(name, *rest, **named)

    return opened


@pytest.mark.parametrize("cache", [False, True])
@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EACCES])
def test_a_blob_that_cannot_be_opened_now_is_not_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: bool, number: int
) -> None:
    Bench(tmp_path, cache_only=cache).put(DATA)
    bench = Bench(tmp_path, cache_only=cache)  # which has not checked it
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refusing(number, KEY.hex()[2:]))
        assert bench.code("get", hash=KEY) == "failed"
    assert bench.ask("get", hash=KEY)["data"] == DATA
    assert bench.storage.details()["corrupt"] == 0


def test_a_scrub_passes_by_what_it_cannot_open_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(tmp_path)
    bench.put(DATA)
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refusing(errno.EMFILE, KEY.hex()[2:]))
        bench.ask("scrub", rate=2**40)
        for _ in range(10):
            bench.storage.tick(bench.clock.now())
    assert bench.storage.details()["scrub"]["damaged"] == 0
    assert bench.ask("get", hash=KEY)["data"] == DATA


def test_what_the_device_cannot_read_is_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Bench(tmp_path).put(DATA)
    bench = Bench(tmp_path)
    with monkeypatch.context() as patch:

        def unreadable(*_: Any) -> int:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        patch.setattr(os, "readv", unreadable)
        assert bench.code("get", hash=KEY) == "corrupt"
    assert (bench.root / "corrupt" / KEY.hex()).read_bytes() == DATA


def test_a_pin_after_a_directory_that_could_not_be_flushed_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "wishes"
    wishes = Wishes(str(path))
    wishes.load(lambda _key: True)
    wishes.set(OTHERS[0], Wish(pinned=True))
    monkeypatch.setattr(wishes_module, "SLACK", -10)  # write it anew at the next wish
    with monkeypatch.context() as patch:

        def failing(_path: str) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        patch.setattr(wishes_module, "sync_directory", failing)
        with pytest.raises(OSError, match="Input/output"):
            wishes.set(OTHERS[1], Wish(pinned=True))
    monkeypatch.setattr(wishes_module, "SLACK", 4096)
    wishes.set(OTHERS[2], Wish(pinned=True))  # is answered, so it holds
    wishes.close()
    again = Wishes(str(path))
    again.load(lambda _key: True)
    assert again.get(OTHERS[2]).pinned
    assert again.get(OTHERS[0]).pinned


class KilledError(BaseException):
    """The process has ended."""


@pytest.mark.parametrize("call", ["unlink", "link", "open", "fsync", "rename"])
def test_a_kill_while_damaged_pins_are_repaired_forgets_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "wishes"
    wishes = Wishes(str(path))
    wishes.load(lambda _key: True)
    for key in OTHERS:
        wishes.set(key, Wish(pinned=True))
    wishes.close()
    data = bytearray(path.read_bytes())
    data[LINE] ^= 1  # of the second one
    path.write_bytes(data)
    with monkeypatch.context() as patch:

        def killed(*_: Any, **__: Any) -> None:
            raise KilledError

        patch.setattr(os, call, killed)
        with pytest.raises(KilledError):
            Wishes(str(path)).load(lambda _key: True)
    again = Wishes(str(path))
    again.load(lambda _key: True)
    assert [again.get(key).pinned for key in OTHERS] == [True, False, True, True, True]
    assert Path(f"{path}.damaged").read_bytes() == data


def test_on_a_full_disk_a_store_starts_and_lets_blobs_be_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Bench(tmp_path)
    first.put(DATA)
    first.ask("pin", hash=KEY)
    first.ask("unpin", hash=KEY)  # two lines where none is needed
    first.storage.close()
    real = os.open

    def full(name: Any, flags: int, *rest: Any, **named: Any) -> int:
        if flags & os.O_CREAT:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(name, flags, *rest, **named)

    monkeypatch.setattr(os, "open", full)
    bench = Bench(tmp_path)
    assert bench.ask("get", hash=KEY)["data"] == DATA
    assert bench.ask("delete", hash=KEY)["deleted"] is True


def test_a_pin_in_a_new_cache_survives_a_power_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(20):  # what a kernel has written back besides what was flushed
        root = tmp_path / str(seed)
        root.mkdir()
        disk = Disk(root)
        with monkeypatch.context() as patch:
            for module in (blobs_module, journal, wishes_module):
                patch.setattr(module, "os", disk)
            inventory = Inventory(Blobs(str(root / "cache"), durable=False), Lru(1 << 20))
            inventory.open()
            incoming = inventory.begin(len(DATA))
            incoming.write(DATA)
            incoming.finish()
            inventory.pin(KEY)
            inventory.close()
        disk.cut(random.Random(seed))
        after = Inventory(Blobs(str(root / "cache"), durable=False), Lru(1 << 20))
        after.open()
        assert after.wishes.get(KEY).pinned
        assert after.read(KEY, 0, 100) == DATA
        after.close()
