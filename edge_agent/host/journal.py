"""Events for people: the last ones in memory, the notable ones on disk as well, so that a reboot does not lose why.

On disk: two segments of at most SEGMENT bytes in the data directory, records with length and CRC-32 in front. A torn
tail, as a power cut leaves it, ends the reading of that segment and nothing else. Nothing is written for the rest:
flash wears.
"""

from __future__ import annotations

import os
import struct
import time
from binascii import crc32
from collections import deque

import msgpack

from ..records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

KEPT = 256
SEGMENT = 64 * 1024
_HEAD = struct.Struct(">II")  # length, crc32


class Entry(Record):
    """One event. ``time``: unix seconds, by a clock that may have been wrong; ``uptime``: monotonic seconds."""

    seq: int
    time: float
    uptime: float
    kind: str
    service: str
    text: str


class Journal:
    """The events of this node. ``complaints``: what went wrong with the disk, once."""

    def __init__(self, data_dir: str) -> None:
        self._path = os.path.join(data_dir, "events")
        self._entries: deque[Entry] = deque(maxlen=KEPT)
        self._said_full = False
        self.listeners: list[object] = []
        for path in (self._path + ".1", self._path):
            self._entries.extend(_records(path))
        self.last = self._entries[-1].seq if self._entries else 0

    def add(self, kind: str, service: str, text: str, *, notable: bool) -> Entry:
        """Append an event; a notable one is on disk on return, unless the disk refuses (which is an event too)."""
        self.last += 1
        entry = Entry(self.last, time.time(), time.monotonic(), kind, service, text[:2000])
        self._entries.append(entry)
        if notable:
            try:
                self._write(entry)
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

    def _write(self, entry: Entry) -> None:
        data = msgpack.packb(entry)
        record = _HEAD.pack(len(data), crc32(data)) + data
        if _size(self._path) + len(record) > SEGMENT:
            os.rename(self._path, self._path + ".1")
        fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
        try:
            os.write(fd, record)
            os.fdatasync(fd)
        finally:
            os.close(fd)


def _size(path: str) -> int:
    try:
        return os.stat(path, follow_symlinks=False).st_size
    except OSError:
        return 0


def _records(path: str) -> Iterator[Entry]:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError:
        return
    try:
        data = os.read(fd, SEGMENT + 4096)
    except OSError:
        return
    finally:
        os.close(fd)
    position = 0
    while position + _HEAD.size <= len(data):
        length, crc = _HEAD.unpack_from(data, position)
        body = data[position + _HEAD.size : position + _HEAD.size + length]
        if len(body) < length or crc32(body) != crc:
            return
        try:
            seq, at, uptime, kind, service, text = msgpack.unpackb(body, strict_map_key=True)
            yield Entry(int(seq), float(at), float(uptime), str(kind), str(service), str(text))
        except (ValueError, TypeError):
            return
        position += _HEAD.size + length
