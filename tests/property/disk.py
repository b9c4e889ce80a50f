"""A disk under real files that can fail a call, stop the process before one, and lose what was not flushed.

``Disk`` stands for the ``os`` of the modules it is given to. Of every file it keeps the bytes of its last fsync(2), of
every directory the names at its own: after ``cut`` the files are those, or as they were written, each by chance, since
a kernel may have written back any of them. A file that was never flushed may also be torn.
"""

from __future__ import annotations

import errno
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

STEPS = (
    "open",
    "write",
    "pwrite",
    "rename",
    "replace",
    "unlink",
    "makedirs",
    "fsync",
    "fdatasync",
    "ftruncate",
    "link",
)
"""Calls that change the disk: the process may die before each."""
READS = ("read", "readv", "pread", "stat", "listdir")
"""Calls that only fail."""


class Died(BaseException):
    """The process was killed here. Not an Exception: nothing may catch it."""


class Disk:
    """``os``, but for what is said above. ``root`` is there from the beginning, and flushed."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.calls = 0
        self.die_at: int | None = None  # how many more steps are made
        self.fail_at: tuple[int, int] | None = None  # how many more calls are made, the errno of the one after these
        self.unreadable = False  # a read has failed with EIO: what was read is as good as damaged
        self._files: dict[int, bytes] = {}  # inode -> bytes at its last flush
        self._names: dict[int, dict[str, int]] = {}  # inode of a directory -> names at its last flush
        self._serials: dict[int, int] = {}  # inode -> serial number: the file system uses an inode again

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name not in STEPS and name not in READS:
            return real
        own: Callable[..., Any] = getattr(self, f"_{name}", real)

        def call(*arguments: Any, **named: Any) -> Any:
            self._step(name, arguments)
            return own(*arguments, **named)

        return call

    def quiet(self) -> None:
        """Nothing goes wrong from now on."""
        self.die_at = self.fail_at = None

    def _step(self, name: str, arguments: tuple[Any, ...]) -> None:
        self.calls += 1
        if name in STEPS and not (name == "open" and not arguments[1] & os.O_CREAT):
            if self.die_at == 0:
                raise Died
            if self.die_at is not None:
                self.die_at -= 1
        if self.fail_at is not None:
            left, number = self.fail_at
            self.fail_at = (left - 1, number)
            if left == 0:
                self.unreadable |= number == errno.EIO and name == "readv"
                raise OSError(number, os.strerror(number))

    def _fsync(self, descriptor: int) -> None:
        """Remember; there is no device to wait for."""
        found = Path(f"/proc/self/fd/{descriptor}")
        serial = self._serial(found)
        if found.is_dir():
            self._names[serial] = {each.name: self._serial(each) for each in found.iterdir()}
        else:
            self._files[serial] = found.read_bytes()

    def _fdatasync(self, descriptor: int) -> None:
        self._fsync(descriptor)

    def _open(self, path: str, flags: int, mode: int = 0o777) -> int:
        new = bool(flags & os.O_CREAT) and not os.path.lexists(path)
        descriptor = os.open(path, flags, mode)
        if new:
            self._serials[os.fstat(descriptor).st_ino] = self._next()
        return descriptor

    def _makedirs(self, path: str, mode: int = 0o777, exist_ok: bool = False) -> None:
        new = not Path(path).is_dir()
        Path(path).mkdir(mode, parents=True, exist_ok=exist_ok)
        if new:
            self._serials[Path(path).stat().st_ino] = self._next()

    def _next(self) -> int:
        return 1 + max(self._serials.values(), default=0)

    def _serial(self, path: Path) -> int:
        inode = path.stat().st_ino
        if inode not in self._serials:
            self._serials[inode] = self._next()
        return self._serials[inode]

    def cut(self, chance: random.Random) -> None:
        """The power is off, and on again."""
        now: dict[int, Path] = {self._serial(each): each for each in (self.root, *self.root.rglob("*"))}
        fresh = self.root.with_name(self.root.name + ".after")
        fresh.mkdir()
        self._restore(self._serial(self.root), now, fresh, chance)
        shutil.rmtree(self.root)
        fresh.rename(self.root)
        self._files.clear()
        self._names.clear()
        self._serials.clear()
        for each in (self.root, *self.root.rglob("*")):  # what is there after a cut is on the disk
            descriptor = os.open(each, os.O_RDONLY)
            self._fsync(descriptor)
            os.close(descriptor)

    def _restore(self, serial: int, now: dict[int, Path], to: Path, chance: random.Random) -> None:
        names = self._names.get(serial, {})
        if serial in now and chance.random() < 0.5:
            names = {each.name: self._serial(each) for each in now[serial].iterdir()}
        for name, inner in names.items():
            path = to / name
            source = now.get(inner)
            if inner in self._names or (source is not None and source.is_dir()):
                path.mkdir(mode=0o700)
                self._restore(inner, now, path, chance)
                continue
            flushed = self._files.get(inner)
            if source is not None and (flushed is None or chance.random() < 0.5):
                data = source.read_bytes()
                if flushed is None and chance.random() < 0.5:
                    data = data[: chance.randrange(len(data) + 1)] + bytes(chance.choice((0, 100)))
            else:
                data = flushed or b""
            path.write_bytes(data)


FAULTS = (errno.EIO, errno.ENOSPC, errno.EROFS, errno.EMFILE)
