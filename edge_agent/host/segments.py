"""A log of bounded size in two files: NAME.log and the older NAME.log.1, at most half the bound each.

A cursor is a byte offset since the log's birth. NAME.log.start says at which offset a segment, named by its inode,
starts, so cursors survive rotation and restarts of the agent.
"""

from __future__ import annotations

import os


class Segments:
    """A log of at most ``bound`` bytes in two files. Not a byte of it is ever moved but by rename(2)."""

    def __init__(self, path: str, bound: int) -> None:
        self._path = path
        self._half = max(4096, bound // 2)
        self._fd, start, size = self._restore()
        self.start = start  # of the current segment
        self.end = start + size

    def append(self, data: bytes) -> int:
        """How much of ``data`` was kept on its way in; less than all when the file system is full."""
        done = 0
        while done < len(data):
            room = self._half - (self.end - self.start)
            try:
                if room <= 0:
                    self._rotate()
                    continue
                written = os.write(self._fd, data[done : done + room])
            except OSError:  # ENOSPC, EIO, EDQUOT: the service must not suffer for it
                break
            done += written
            self.end += written
        return done

    def read(self, cursor: int, limit: int) -> tuple[bytes, int]:
        """As LogSink.read."""
        older = _size(self._path + ".1")
        oldest = self.start - older
        if cursor < 0:
            cursor = self.end - limit
        if cursor < oldest or cursor > self.end:
            cursor = oldest
        parts = []
        if cursor < self.start:
            parts.append(_read_at(self._path + ".1", cursor - oldest, min(limit, self.start - cursor)))
            limit -= len(parts[0])
        behind = max(cursor, self.start)
        if limit > 0 and behind < self.end:
            parts.append(_read_at(self._path, behind - self.start, min(limit, self.end - behind)))
        data = b"".join(parts)
        return data, cursor + len(data)

    def close(self) -> None:
        """Let go of the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _restore(self) -> tuple[int, int, int]:
        fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
        now = os.fstat(fd)
        inode, start = _note(self._path + ".start")
        if inode == now.st_ino:
            return fd, start, now.st_size
        # The last agent died inside _rotate, or this is a new log.
        older = _inode(self._path + ".1")
        start = start + _size(self._path + ".1") if older and inode == older else _size(self._path + ".1")
        try:
            self._keep_note(now.st_ino, start)
        except OSError:
            pass  # a full disk costs old cursors their place, not the service its start
        return fd, start, now.st_size

    def _rotate(self) -> None:
        """Each step leaves something ``_restore`` understands. Raises OSError, and then the current segment goes on."""
        try:
            os.rename(self._path, self._path + ".1")
        except FileNotFoundError:
            pass  # the last attempt got this far
        fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_EXCL, 0o640)
        os.close(self._fd)
        self._fd = fd
        self.start = self.end
        self._keep_note(os.fstat(fd).st_ino, self.start)

    def _keep_note(self, inode: int, start: int) -> None:
        temporary = self._path + ".start~"
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)
        try:
            os.write(fd, f"{inode} {start}\n".encode())
        finally:
            os.close(fd)
        os.rename(temporary, self._path + ".start")


def _note(path: str) -> tuple[int, int]:
    """Inode and offset of a segment, (0, 0) when nothing is known."""
    try:
        inode, start = _read_at(path, 0, 64).split()
        return int(inode), max(0, int(start))
    except ValueError:
        return 0, 0


def _read_at(path: str, offset: int, limit: int) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.pread(fd, limit, offset)
    except OSError:
        return b""
    finally:
        os.close(fd)


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def _inode(path: str) -> int:
    try:
        return os.stat(path).st_ino
    except OSError:
        return 0
