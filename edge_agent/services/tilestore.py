"""A log on disk that a kill or a power cut does not harm: a journal in front, C2SP tlog-tiles behind it.

    DATA_DIR/journal            what was appended since the tiles were last flushed to the device
    DATA_DIR/bundle             the entries of the bundle that is not full yet
    DATA_DIR/log/checkpoint     the signed head, and
    DATA_DIR/log/tile/...       tiles and bundles (``tiles``): any web server may serve this directory as it is

An append is one write and one fdatasync of the journal, whatever the number of entries; with that it is durable, and it
is acknowledged once it is in the tree. Tiles follow: each file is written aside and renamed, and the checkpoint after
what it stands on, so that a reader finds the whole or the state before. They are flushed in bulk, and the journal
begins anew on them; whatever the device lost of them until then is made again from the journal. The journal's head says
on which size and root it begins: tiles that do not have that root are damaged, and the log does not start.

Partial tiles stay until the full one is there, as the specification asks; of partial bundles, which repeat their
entries each time, the last two. Those that the journal begins on stay until it begins anew.
"""

from __future__ import annotations

import errno
import os
import struct
from zlib import crc32

from .. import tlog
from ..host.journal import sync_directory
from ..records import Record
from . import tiles
from .errors import StartError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

FLUSH_BYTES = 1024 * 1024  # of the journal; then the tiles are flushed and it begins anew
FLUSH_ENTRIES = 16 * tiles.WIDTH
CACHED = 32  # full tiles kept in memory, 8 KiB each
_MAGIC = b"edge-agent log 1\n"
_HEAD = struct.Struct(">Q32sI")  # size, root, crc32 of all before
_RECORD = struct.Struct(">II")  # bytes, crc32
_COPY = 64 * 1024  # bytes at a time


class Batch(Record):
    """Entries as one record of the journal."""

    entries: tuple[bytes, ...]
    data: bytes

    @staticmethod
    def of(entries: Iterable[bytes]) -> Batch:
        """Raises TileError when an entry is too long."""
        entries = tuple(entries)
        body = b"".join(map(tiles.pack, entries))
        return Batch(entries, _RECORD.pack(len(body), crc32(body)) + body)


class NoRoomError(OSError):
    """The device has no room for the entries; nothing of them is left."""


class Store:
    """The log in ``root``, a private directory that nobody else uses. Methods may raise OSError.

    After that only closing makes sense, NoRoomError excepted: what is durable is found again at the next start.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        self._log = os.path.join(root, "log")
        self._journal = self._bundle = -1
        self._offsets = [0]  # where the entries of the open bundle begin, and where the next one will
        self._cache: dict[tuple[int, int], bytes] = {}  # in the order of use
        self._unflushed: set[str] = set()  # files and directories
        self._written = self._since = 0  # bytes in the journal; entries
        self._partial: list[str] = []  # partial bundles of the open one, the oldest first
        self._base: set[str] = set()  # partial tiles and bundle that the journal begins on
        self._later: set[str] = set()  # directories of partial ones to be removed with them
        self.flushes = 0
        self.tree = tiles.Tree(self._tile)

    # -- start and end

    def open(self) -> None:
        """Find the log, or begin one; what the journal has is in the tiles afterwards. Raises StartError."""
        try:
            os.makedirs(self._log, mode=0o755, exist_ok=True)
            path = self._path("journal")
            if not os.path.exists(path):
                self._begin()
            self._journal = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            self._recover()
        except (OSError, tiles.TileError, tlog.ProofError) as error:
            why = f"cannot use the log in {self._root}: {error}"
            raise StartError(f"{why}; fix: space and rights there, or restore it from a backup") from error

    def close(self) -> None:
        """Let go; fine twice."""
        for descriptor in (self._journal, self._bundle):
            if descriptor >= 0:
                os.close(descriptor)
        self._journal = self._bundle = -1

    def _begin(self) -> None:
        if os.path.lexists(self._path("log/checkpoint")):
            raise OSError(errno.ENOENT, "the log is there and its journal is not")
        self._new_journal()

    def _recover(self) -> None:
        size, root, position = self._head()
        self.tree.restore(size, self._partial_tile)
        self._base = self._names()
        if self.tree.root() != root:
            raise tiles.TileError(f"the tiles are not those of the {size} entries that the journal begins on")
        self._open_bundle(size)
        for entries, end in self._records(position):
            self._integrate(entries)
            position = end
        os.ftruncate(self._journal, position)  # what is behind was cut short, and so never acknowledged
        os.lseek(self._journal, position, os.SEEK_SET)
        self._written, self._since = position, self.tree.size - size

    def _head(self) -> tuple[int, bytes, int]:
        data = os.pread(self._journal, len(_MAGIC) + _HEAD.size, 0)
        if len(data) == len(_MAGIC) + _HEAD.size and data.startswith(_MAGIC):
            size, root, crc = _HEAD.unpack_from(data, len(_MAGIC))
            if crc == crc32(data[:-4]):
                return size, root, len(data)
        raise tiles.TileError("the journal has no head")

    def _records(self, position: int) -> Iterator[tuple[list[bytes], int]]:
        """Entries of each whole record, and where it ends."""
        while True:
            head = os.pread(self._journal, _RECORD.size, position)
            if len(head) < _RECORD.size:
                return
            length, crc = _RECORD.unpack(head)
            if length > os.fstat(self._journal).st_size:
                return
            body = os.pread(self._journal, length, position + _RECORD.size)
            if len(body) < length or crc32(body) != crc or not body:
                return
            position += _RECORD.size + length
            yield list(tiles.unpack(body)), position

    def _open_bundle(self, size: int) -> None:
        """Make the open bundle's file again from its partial bundle."""
        number, width = divmod(size, tiles.WIDTH)
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        self._bundle = os.open(self._path("bundle"), flags, 0o644)
        self._offsets = [0]
        if width:
            partial = tiles.path(tiles.ENTRIES, number, width)
            kept = sorted(
                os.listdir(os.path.join(self._log, os.path.dirname(partial))), key=lambda name: (len(name), name)
            )
            self._partial = [f"{os.path.dirname(partial)}/{name}" for name in kept]
            for place, entry in enumerate(self._from_bundle(partial, 0, width)):
                if tlog.leaf_hash(entry) != self.tree.leaf(size - width + place):
                    raise tiles.TileError(f"{partial} does not have the entries of its tile")
                self._extend([entry])

    # -- growth

    def append(self, batch: Batch) -> int:
        """Make the entries durable and part of the tree; the index of the first."""
        first = self.tree.size
        try:
            _write(self._journal, batch.data)
        except OSError as error:
            os.ftruncate(self._journal, self._written)
            os.lseek(self._journal, self._written, os.SEEK_SET)
            raise NoRoomError(error.errno, error.strerror) from error
        os.fdatasync(self._journal)
        self._written += len(batch.data)
        self._since += len(batch.entries)
        self._integrate(batch.entries)
        return first

    def publish(self, checkpoint: bytes) -> None:
        """Bring the files to where ``checkpoint`` says that the log is. It may be tried again when it fails."""
        for level, index, data in self.tree.partial():
            name = tiles.path(level, index, len(data) // tlog.SIZE)
            if name not in self._base:  # what is on the device is not put at risk for the same bytes
                self._put(name, data)
        number, width = divmod(self.tree.size, tiles.WIDTH)
        if width:
            partial = tiles.path(tiles.ENTRIES, number, width)
            if partial not in self._base:
                self._copy_bundle(partial)
            self._partial = [*(name for name in self._partial if name != partial), partial]
        self._put("checkpoint", checkpoint)
        old = [name for name in self._partial[:-2] if name not in self._base]
        for name in old:
            self._forget(name)
        self._partial = [name for name in self._partial if name not in old]

    def flush_is_due(self) -> bool:
        """Is the journal long enough?"""
        return self._written >= FLUSH_BYTES or self._since >= FLUSH_ENTRIES

    def flush(self) -> None:
        """Have what was published on the device, and begin the journal anew. Nothing was appended since ``publish``."""
        if not self._since:
            return
        for path in sorted(self._unflushed, reverse=True):  # files before the directories they are in
            if os.path.isdir(path):
                sync_directory(path)
            elif os.path.exists(path):
                _sync_file(path)
        self._unflushed.clear()
        self._new_journal()
        self._base, later, self._later = self._names(), self._later, set()
        for directory in later:
            self._drop(directory)
        self.flushes += 1

    def _names(self) -> set[str]:
        """Partial tiles and bundle of the tree as it is."""
        names = {tiles.path(level, index, len(data) // tlog.SIZE) for level, index, data in self.tree.partial()}
        number, width = divmod(self.tree.size, tiles.WIDTH)
        return names | ({tiles.path(tiles.ENTRIES, number, width)} if width else set())

    def _new_journal(self) -> None:
        head = _MAGIC + _HEAD.pack(self.tree.size, self.tree.root(), 0)[:-4]
        head += crc32(head).to_bytes(4, "big")
        fresh = self._path("journal.new")
        descriptor = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            _write(descriptor, head)
            os.fsync(descriptor)
            os.rename(fresh, self._path("journal"))
            sync_directory(self._root)
        except OSError:
            os.close(descriptor)
            raise
        if self._journal >= 0:
            os.close(self._journal)
        self._journal, self._written, self._since = descriptor, len(head), 0

    def _integrate(self, entries: Sequence[bytes]) -> None:
        room = tiles.WIDTH - self.tree.size % tiles.WIDTH
        for part in (
            entries[:room],
            *(entries[at : at + tiles.WIDTH] for at in range(room, len(entries), tiles.WIDTH)),
        ):
            self._extend(part)
            full = [tile for entry in part for tile in self.tree.add(tlog.leaf_hash(entry))]
            if full:
                self._close_bundle(full[0].index)
            for tile in full:
                self._put(tiles.path(tile.level, tile.index), tile.data)
                self._drop(tiles.path(tile.level, tile.index) + ".p")

    def _extend(self, entries: Sequence[bytes]) -> None:
        """Append to the open bundle."""
        for entry in entries:
            self._offsets.append(self._offsets[-1] + len(entry) + 2)
        _write(self._bundle, b"".join(map(tiles.pack, entries)))

    def _close_bundle(self, index: int) -> None:
        """The open bundle is full: it gets its name, and the next one begins."""
        path = tiles.path(tiles.ENTRIES, index)
        os.close(self._bundle)
        self._rename(self._path("bundle"), path)
        self._drop(path + ".p")
        self._partial = []
        self._bundle = os.open(self._path("bundle"), os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        self._offsets = [0]

    # -- reading

    def entries(self, start: int, most: int, room: int) -> Iterator[bytes]:
        """Entries from index ``start`` on: one at least if there is one, at most ``most`` and ``room`` bytes of them.

        Raises TileError where an entry does not have the hash in its tile.
        """
        end = min(start + most, self.tree.size)
        index = start
        while index < end:
            number, place = divmod(index, tiles.WIDTH)
            count = min(end - index, tiles.WIDTH - place)
            is_open, name = number == self.tree.size // tiles.WIDTH, tiles.path(tiles.ENTRIES, number)
            for entry in self._from_open(place, count) if is_open else self._from_bundle(name, place, count):
                room -= len(entry)
                if room < 0 and index > start:
                    return
                if tlog.leaf_hash(entry) != self.tree.leaf(index):
                    raise tiles.TileError(f"entry {index} does not have the hash in its tile")
                yield entry
                index += 1

    def _from_open(self, place: int, count: int) -> Iterator[bytes]:
        for start, end in zip(self._offsets[place : place + count], self._offsets[place + 1 :], strict=False):
            yield os.pread(self._bundle, end - start - 2, start + 2)

    def _from_bundle(self, name: str, place: int, count: int) -> Iterator[bytes]:
        with open(os.path.join(self._log, name), "rb") as file:
            for _ in range(place):
                file.seek(int.from_bytes(file.read(2), "big"), os.SEEK_CUR)
            for _ in range(count):
                yield file.read(int.from_bytes(file.read(2), "big"))

    def _tile(self, level: int, index: int) -> bytes:
        """A full tile, from memory if it was used lately."""
        data = self._cache.pop((level, index), None)
        if data is None:
            data = self._read(tiles.path(level, index))
            if len(self._cache) >= CACHED:
                del self._cache[next(iter(self._cache))]
        self._cache[level, index] = data
        return data

    def _partial_tile(self, level: int, index: int, width: int) -> bytes:
        return self._read(tiles.path(level, index, width))

    # -- files

    def keep(self, name: str, data: bytes) -> None:
        """A small file beside the log, durable on return."""
        aside = self._path("aside")
        self._write_aside(aside, data)
        _sync_file(aside)
        os.rename(aside, self._path(name))
        sync_directory(self._root)

    def kept(self, name: str) -> bytes:
        """What is in a file beside the log, or of it; b'' when there is none."""
        try:
            with open(self._path(name), "rb") as file:
                return file.read()
        except FileNotFoundError:
            return b""

    def _path(self, name: str) -> str:
        return os.path.join(self._root, name)

    def _read(self, name: str) -> bytes:
        with open(os.path.join(self._log, name), "rb") as file:
            return file.read()

    def _put(self, name: str, data: bytes) -> None:
        """Write a file aside, and give it its name."""
        aside = self._path("aside")
        self._write_aside(aside, data)
        self._rename(aside, name)

    def _write_aside(self, aside: str, data: bytes) -> None:
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            _write(descriptor, data)
        finally:
            os.close(descriptor)

    def _copy_bundle(self, name: str) -> None:
        aside = self._path("aside")
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            for at in range(0, self._offsets[-1], _COPY):
                _write(descriptor, os.pread(self._bundle, _COPY, at))
        finally:
            os.close(descriptor)
        self._rename(aside, name)

    def _rename(self, source: str, name: str) -> None:
        path = os.path.join(self._log, name)
        directory = os.path.dirname(path)
        if not os.path.isdir(directory):
            os.makedirs(directory, mode=0o755, exist_ok=True)
        os.rename(source, path)
        self._unflushed.add(path)
        while len(directory) >= len(self._log):
            self._unflushed.add(directory)
            directory = os.path.dirname(directory)

    def _forget(self, name: str) -> None:
        path = os.path.join(self._log, name)
        self._unflushed.discard(path)
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass

    def _drop(self, directory: str) -> None:
        """Remove the partial ones of a tile that is full, those that the journal begins on when it begins anew."""
        path = os.path.join(self._log, directory)
        try:
            names = os.listdir(path)
        except FileNotFoundError:
            return
        for name in names:
            if f"{directory}/{name}" in self._base:
                self._later.add(directory)
            else:
                self._forget(f"{directory}/{name}")
        if directory not in self._later:
            self._unflushed.discard(path)
            os.rmdir(path)


def _write(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _sync_file(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
