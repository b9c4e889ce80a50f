"""What this node was asked to keep: pins, and how many copies there should be; on the disk before it is answered.

One file of lines of 80 bytes, only ever appended to; the last line of a hash holds:

    HASH PINNED REPLICAS CHECKSUM    64 hexadecimal digits, 0 | 1, 3 digits (000: as the profile says), CRC-32 in 8

An append that a power cut tore is the last line, and was not answered. Any other line that is not as above is damage
of the disk: it is left out, said, and the file kept beside the new one as FILE.damaged.
"""

from __future__ import annotations

import errno
import os
from binascii import crc32
from heapq import nsmallest

from ..host.journal import sync_directory
from ..records import Record
from .errors import RefusedError
from .log import WARNING, log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LINE = 80  # bytes
MOST = 2**17  # blobs with a wish
SLACK = 4096  # lines beyond twice what is needed, until the file is written anew


class Wish(Record):
    """About one blob."""

    pinned: bool = False
    replicas: int = 0  # 0: as the profile says


NONE = Wish()


class Wishes:
    """The file, and in memory what it says. ``set`` and ``load`` may raise OSError."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._packed: dict[bytes, int] = {}  # replicas * 2 + pinned
        self._descriptor = -1
        self._lines = 0

    def __len__(self) -> int:
        return len(self._packed)

    def load(self, here: Callable[[bytes], bool]) -> None:
        """Read the file, and repair it if need be.

        Copies that were wished of a blob which is not pinned and no more ``here`` are forgotten.
        """
        bad = self._read()
        if bad:
            aside = self._path + ".damaged"
            said = f"{bad} wishes in {self._path} are damaged and left out; fix: see {aside}, pin again, check the disk"
            log("storage", said, WARNING)
            os.replace(self._path, aside)
        for key in [key for key, packed in self._packed.items() if not packed & 1 and not here(key)]:
            del self._packed[key]
        if bad or self._lines != len(self._packed):
            self._rewrite()
        elif self._lines:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)

    def close(self) -> None:
        """Let go of the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1

    def get(self, key: bytes) -> Wish:
        """What is wished of this blob."""
        packed = self._packed.get(key, 0)
        return Wish(bool(packed & 1), packed >> 1)

    def set(self, key: bytes, wish: Wish) -> None:
        """Wish this from now on; it is on the disk when this returns. Raises RefusedError when there are too many."""
        packed = _pack(wish)
        if packed == self._packed.get(key, 0):
            return
        if key not in self._packed and len(self._packed) >= MOST:
            raise RefusedError("too-many", f"there are pins or replicas of {MOST} blobs", "unpin some")
        self._append(_line(key, packed))
        self._note(key, packed)
        if self._lines > 2 * len(self._packed) + SLACK:
            self._rewrite()

    def page(self, after: bytes, most: int) -> list[bytes]:
        """Hashes above ``after`` of which something is wished, ascending."""
        return nsmallest(most, (key for key in self._packed if key > after))

    def pinned(self) -> Iterator[bytes]:
        """What is pinned, in no order. Not to be changed meanwhile."""
        return (key for key, packed in self._packed.items() if packed & 1)

    def _note(self, key: bytes, packed: int) -> None:
        if packed:
            self._packed[key] = packed
        else:
            self._packed.pop(key, None)

    def _read(self) -> int:
        """The number of lines that are damaged. Of the last one that is no news."""
        bad, torn = 0, False
        try:
            with open(self._path, "rb") as file:
                while len(line := file.read(LINE)) == LINE:
                    self._lines += 1
                    bad += torn
                    found = _parse(line)
                    torn = found is None
                    if found is not None:
                        self._note(*found)
        except FileNotFoundError:
            pass
        return bad

    def _append(self, line: bytes) -> None:
        if self._descriptor < 0:
            self._rewrite()  # the first wish
        place = self._lines * LINE
        try:
            _write_through(self._descriptor, line, place)
        except OSError:
            os.ftruncate(self._descriptor, place)
            raise
        self._lines += 1

    def _rewrite(self) -> None:
        """Only what holds: a new file, fsync, rename, fsync of the directory."""
        temporary = self._path + ".new"
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            with os.fdopen(os.dup(descriptor), "wb") as file:
                for key, packed in self._packed.items():
                    file.write(_line(key, packed))
            os.fsync(descriptor)
            os.rename(temporary, self._path)
            sync_directory(os.path.dirname(self._path))
        except OSError:
            os.close(descriptor)
            raise
        self.close()
        self._descriptor, self._lines = descriptor, len(self._packed)


def _write_through(descriptor: int, line: bytes, place: int) -> None:
    if os.pwrite(descriptor, line, place) != len(line):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    os.fdatasync(descriptor)


def _pack(wish: Wish) -> int:
    return wish.replicas * 2 + wish.pinned


def _line(key: bytes, packed: int) -> bytes:
    told = f"{key.hex()} {packed & 1} {packed >> 1:03d} ".encode()
    return b"%s%08x\n" % (told, crc32(told))


def _parse(line: bytes) -> tuple[bytes, int] | None:
    if b"%08x\n" % crc32(line[:71]) != line[71:]:
        return None
    try:
        key, pinned, replicas = line[:70].decode("ascii").split(" ")
        return bytes.fromhex(key), int(pinned) + 2 * int(replicas)
    except ValueError:  # a checksum by chance
        return None
