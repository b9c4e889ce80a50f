"""Blobs on disk by their SHA-256: ROOT/ab/cdef…, written aside in ROOT/uploads and renamed when complete.

A blob is visible under its hash only when all its bytes were there and had that hash. ``durable`` blobs are also
flushed to the device before they become visible (fsync of the file, then of its directory). Without it a power cut may
leave a torn file; reading finds out, because after a start no byte of a blob is served before the whole was checked.
"""

from __future__ import annotations

import os
from array import array

from ..host.journal import sync_directory
from ..records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    import hashlib
    from collections.abc import Iterator

HASH = 32  # bytes
PIECE = 64 * 1024  # bytes read at a time while checking
FLUSH_EVERY = 4 * 1024 * 1024  # bytes; bounds the dirty pages charged to this process, and the time of the last fsync
_HEX = frozenset("0123456789abcdef")


def _sha256() -> hashlib._Hash:
    """OpenSSL, seven times as fast as Python's own (M), but 3 MiB: not before there is something to hash."""
    import hashlib

    return hashlib.sha256()


class Mark(Record):
    """The identity of a file's content as far as the file system knows: changes with every write."""

    inode: int
    size: int  # bytes
    mtime_ns: int
    ctime_ns: int


class Blobs:
    """The directory. Every method may raise OSError."""

    def __init__(self, root: str, *, durable: bool) -> None:
        self.root = root
        self.durable = durable
        self._buffer = bytearray(PIECE)

    def prepare(self) -> None:
        """Make the directories, and forget uploads that were under way when the last process ended."""
        for directory in (self.root, self.uploads):
            os.makedirs(directory, mode=0o700, exist_ok=True)
        for entry in os.listdir(self.uploads):
            os.unlink(os.path.join(self.uploads, entry))
        if self.durable:  # directories whose maker was killed before they were on the disk
            sync_directory(self.root)
            sync_directory(os.path.dirname(self.root))

    @property
    def uploads(self) -> str:
        """Where incomplete blobs are."""
        return os.path.join(self.root, "uploads")

    def path(self, key: bytes) -> str:
        """Where the blob is, if it is there."""
        name = key.hex()
        return os.path.join(self.root, name[:2], name[2:])

    def mark(self, key: bytes) -> Mark | None:
        """The blob's file as it is now; None: there is none."""
        try:
            found = os.stat(self.path(key), follow_symlinks=False)
        except FileNotFoundError:
            return None
        return Mark(found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)

    def read(self, key: bytes, offset: int, length: int) -> bytes:
        """A piece of the blob, shorter at its end. Raises FileNotFoundError when it is not there."""
        descriptor = os.open(self.path(key), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            return os.pread(descriptor, length, offset)
        finally:
            os.close(descriptor)

    def check(self, key: bytes, most: int, *, from_device: bool = False) -> Iterator[bool | None]:
        """Hash the whole blob, ``most`` bytes a step: None while there is more, at last whether it is sound.

        ``from_device``: not what memory has of it, and leave nothing in memory, posix_fadvise(2).
        """
        digest = _sha256()
        view = memoryview(self._buffer)
        descriptor = _open_to_check(self.path(key))
        try:
            if from_device:
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            done = start = 0
            while count := os.readv(descriptor, [self._buffer]):
                digest.update(view[:count])
                done += count
                if done >= most:
                    if from_device:
                        os.posix_fadvise(descriptor, start, done, os.POSIX_FADV_DONTNEED)
                    start, done = start + done, 0
                    yield None
            if from_device:
                os.posix_fadvise(descriptor, start, 0, os.POSIX_FADV_DONTNEED)
            yield digest.digest() == key
        finally:
            os.close(descriptor)

    def make_durable(self, key: bytes) -> None:
        """Have the blob on the disk, whatever it was written as. Raises FileNotFoundError when it is not there."""
        descriptor = os.open(self.path(key), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        sync_directory(os.path.dirname(self.path(key)))
        sync_directory(self.root)

    def delete(self, key: bytes) -> bool:
        """Remove the blob; False when it was not there."""
        try:
            os.unlink(self.path(key))
        except FileNotFoundError:
            return False
        return True

    @property
    def aside(self) -> str:
        """Where damaged blobs are."""
        return os.path.join(self.root, "corrupt")

    def set_aside(self, key: bytes) -> None:
        """Take a corrupt blob out of sight. A durable one stays below ROOT/corrupt: it may be the only copy left."""
        if not self.durable:
            self.delete(key)
            return
        os.makedirs(self.aside, mode=0o700, exist_ok=True)
        os.rename(self.path(key), os.path.join(self.aside, key.hex()))

    def damaged(self) -> list[bytes]:
        """What was set aside and has not come back."""
        try:
            names = os.listdir(self.aside)
        except FileNotFoundError:
            return []
        return [bytes.fromhex(name) for name in names if len(name) == 2 * HASH and _HEX.issuperset(name)]

    def restored(self, key: bytes) -> None:
        """A sound copy is here again: what was set aside of it goes."""
        try:
            os.unlink(os.path.join(self.aside, key.hex()))
        except FileNotFoundError:
            pass

    def keys(self, after: bytes) -> Iterator[bytes]:
        """Hashes above ``after`` in ascending order, as they are when their directory's turn comes."""
        start = after.hex()
        for prefix in sorted(self._prefixes()):
            if prefix < start[:2]:
                continue
            for name in sorted(self._names(prefix)):
                if prefix + name > start:
                    yield bytes.fromhex(prefix + name)

    def by_last_use(self) -> Iterator[tuple[bytes, int]]:
        """Every blob and its size in bytes, the least recently used (read or written) first.

        Packed, 52 bytes a blob while it sorts: there may be hundreds of thousands of them.
        """
        keys, sizes, used = bytearray(), array("q"), array("q")
        for prefix in self._prefixes():
            for name in self._names(prefix):
                try:
                    found = os.stat(os.path.join(self.root, prefix, name), follow_symlinks=False)
                except FileNotFoundError:
                    continue
                keys += bytes.fromhex(prefix + name)
                sizes.append(found.st_size)
                used.append(max(found.st_atime_ns, found.st_mtime_ns))
        for place in sorted(range(len(used)), key=used.__getitem__):
            yield bytes(keys[HASH * place : HASH * (place + 1)]), sizes[place]

    def _prefixes(self) -> list[str]:
        return [name for name in os.listdir(self.root) if len(name) == 2 and _HEX.issuperset(name)]

    def _names(self, prefix: str) -> list[str]:
        names = os.listdir(os.path.join(self.root, prefix))
        return [name for name in names if len(name) == 2 * HASH - 2 and _HEX.issuperset(name)]

    def free(self) -> int:
        """Bytes this user may still write on the file system."""
        found = os.statvfs(self.root)
        return found.f_bavail * found.f_frsize


def _open_to_check(path: str) -> int:
    """Without a new access time: that would be a write for each read, and it is no use that a cache should count."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(path, flags | os.O_NOATIME)
    except PermissionError:  # only for the owner, open(2)
        return os.open(path, flags)


class Writer:
    """One blob on its way in. ``finish`` or ``discard`` ends it."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self._path = os.path.join(blobs.uploads, os.urandom(16).hex())
        self._digest = _sha256()
        self._flushed = 0
        self.size = 0
        self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def write(self, data: bytes) -> None:
        """Append ``data``. After an OSError only ``discard`` makes sense."""
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]
        self._digest.update(data)
        self.size += len(data)
        if self.size - self._flushed >= FLUSH_EVERY:
            os.fdatasync(self._descriptor)
            self._forget()

    def finish(self) -> bytes:
        """Make the blob visible; its hash."""
        key = self._digest.digest()
        path = self._blobs.path(key)
        directory = os.path.dirname(path)
        if self._blobs.durable:
            os.fdatasync(self._descriptor)
        self._forget()
        if not os.path.isdir(directory):
            os.makedirs(directory, mode=0o700, exist_ok=True)
            if self._blobs.durable:
                sync_directory(self._blobs.root)
        os.rename(self._path, path)
        self._close()
        if self._blobs.durable:
            sync_directory(directory)
        return key

    def digest(self) -> bytes:
        """The hash of what was written so far."""
        return self._digest.digest()

    def discard(self) -> None:
        """Forget what was written; fine after ``finish``, and twice."""
        if self._descriptor >= 0:
            self._close()
            try:
                os.unlink(self._path)
            except OSError:
                pass  # the next start removes it

    def _forget(self) -> None:
        """What is on the disk needs no memory."""
        os.posix_fadvise(self._descriptor, self._flushed, self.size - self._flushed, os.POSIX_FADV_DONTNEED)
        self._flushed = self.size

    def _close(self) -> None:
        os.close(self._descriptor)
        self._descriptor = -1
