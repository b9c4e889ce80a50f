"""Events for people: the last ones in memory, the notable ones on disk as well, so that a reboot does not lose why.

On disk: two segments of at most SEGMENT bytes in the data directory, records with length and CRC-32 in front. A torn
tail, as a power cut leaves it, ends the reading of that segment and is cut off before the next record. Nothing is
written for the rest: flash wears, and one record of 100 bytes costs an ext4 some 20 KiB of blocks and journal. So the
same event of the same service is written when it is new, and then, counted, in growing gaps: see Repeats.
"""

from __future__ import annotations

import errno
import os
import struct
import time
from binascii import crc32
from collections import deque

import msgpack

from ..records import Record
from .repeats import Repeats

KEPT = 256
SEGMENT = 64 * 1024
_HEAD = struct.Struct(">II")  # length, crc32


class Entry(Record):
    """One event. ``time``: unix seconds, by a clock that may have been wrong; ``uptime``: monotonic seconds.

    ``kept``: it is on disk, and the next agent has it as well.
    """

    seq: int
    time: float
    uptime: float
    kind: str
    service: str
    text: str
    kept: bool = False


class Journal:
    """The events of this node. ``complaints``: what went wrong with the disk, once."""

    def __init__(self, data_dir: str) -> None:
        self._path = os.path.join(data_dir, "events")
        self._entries: deque[Entry] = deque(maxlen=KEPT)
        self._said_full = False
        self._repeats = Repeats()
        self.listeners: list[object] = []
        _load(self._path + ".1", self._entries)
        self._good = _load(self._path, self._entries)[0]  # bytes of the file that can be read
        self.last = self._entries[-1].seq if self._entries else 0

    def add(self, kind: str, service: str, text: str, *, notable: bool) -> Entry:
        """Append an event; a notable one is on disk on return, or one like it is, or the disk refuses: an event too."""
        self.last += 1
        entry = Entry(self.last, time.time(), time.monotonic(), kind, service, text[:2000])
        self._entries.append(entry)
        if notable:
            try:
                entry = self._entries[-1] = self._keep(entry)
                self._said_full = False
            except OSError as error:
                if not self._said_full:
                    self._said_full = True
                    self.add("journal", "", f"cannot write events to {self._path}: {error.strerror}", notable=False)
        return entry

    def since(self, cursor: int, service: str = "", most: int = 100) -> list[Entry]:
        """Events with a number above ``cursor``, oldest first, at most ``most``."""
        found = []
        for entry in self._entries:
            if entry.seq > cursor and (not service or entry.service == service):
                found.append(entry)
                if len(found) == most:
                    break
        return found

    def _keep(self, entry: Entry) -> Entry:
        event = (entry.kind, entry.service, entry.text)
        more = self._repeats.due(*event, entry.uptime)
        if more < 0:
            return entry
        self._write(entry._replace(text=f"{entry.text} (and {more} more like it before)") if more else entry)
        self._repeats.written(*event, entry.uptime)
        return entry._replace(kept=True)

    def _write(self, entry: Entry) -> None:
        data = msgpack.packb(entry[:-1])
        record = _HEAD.pack(len(data), crc32(data)) + data
        if _size(self._path) != self._good:
            self._good = _mend(self._path)
        if self._good + len(record) > SEGMENT:
            os.rename(self._path, self._path + ".1")
            self._good = 0
        fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
        try:
            if os.write(fd, record) != len(record):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fdatasync(fd)
        finally:
            os.close(fd)
        if not self._good:
            sync_directory(os.path.dirname(self._path))
        self._good += len(record)


def sync_directory(path: str) -> None:
    """Have the names in a directory on the disk, fsync(2): that of a file is not there with its content."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _size(path: str) -> int:
    try:
        return os.stat(path, follow_symlinks=False).st_size
    except OSError:
        return 0


def _mend(path: str) -> int:
    """Cut a torn record off, behind which nothing would be found; the bytes left. Raises OSError."""
    good, size = _load(path, deque(maxlen=0))
    if good and good < size:
        os.truncate(path, good)
    elif size and not good:
        os.rename(path, path + ".bad")  # none of it is ours to cut
    return good


def _load(path: str, into: deque[Entry]) -> tuple[int, int]:
    """Append the file's entries; how many bytes of it they are, and how many it has. An unreadable one has none."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError:
        return 0, 0
    try:
        size = os.fstat(fd).st_size
        data = os.read(fd, SEGMENT + 4096)
    except OSError:
        return 0, 0
    finally:
        os.close(fd)
    position = 0
    while position + _HEAD.size <= len(data):
        length, crc = _HEAD.unpack_from(data, position)
        body = data[position + _HEAD.size : position + _HEAD.size + length]
        if len(body) < length or crc32(body) != crc:
            break
        try:
            seq, at, uptime, kind, service, text = msgpack.unpackb(body, strict_map_key=True)
            into.append(Entry(int(seq), float(at), float(uptime), str(kind), str(service), str(text), kept=True))
        except (ValueError, TypeError):
            break
        position += _HEAD.size + length
    return position, size
