"""Blobs by their SHA-256: kept for good (DATA_DIR/blobs) or, with ``cache_only``, while there is room (DATA_DIR/cache).

    put    {data}                        -> {hash, size}         a blob of at most MAX_PIECE bytes, at once
    begin  {size, hash?}                 -> {exists} or {exists, upload}    larger ones: begin, chunk …, commit
    chunk  {upload, offset, data}        -> {offset}             where the next one belongs; a repeated one is fine
    commit {upload, hash?}               -> {hash, size}
    abort  {upload}                      -> {}
    get    {hash, offset?, length?}      -> {data, size}         only from blobs whose hash was checked
    has    {hash}                        -> {has}
    stat   {hash}                        -> {size}
    delete {hash}                        -> {deleted}
    list   {after?, limit?}              -> {hashes, more}       ascending, ``after`` excluded

Further codes: not-found, corrupt, no-upload, offset, size, hash-mismatch, too-large, no-space.

The cache is on the disk of the data directory, not in the run directory: pages of a disk's file are given back when the
service nears its memory limit, those of a tmpfs are not and end in an OOM kill. The default bound is half of the memory
limit all the same, so that it holds where the data directory is in memory; it is that at the start, and a limit changed
under the running service moves it at the next one. After a restart the order of use is that of
the files' times (atime as the mount keeps it, else when they were written).
"""

from __future__ import annotations

import errno
import os

from . import cgroup, lru
from .blobs import HASH, Blobs, Mark, Writer
from .checks import Checks
from .errors import RefusedError, StartError
from .log import WARNING, log
from .runtime import Service
from .uploads import TOKEN, Upload, Uploads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..peers.wire import Message
    from .options import Options
    from .requests import Operation, Request
    from .runtime import Runtime

MAX_PIECE = 512 * 1024  # bytes of a blob in one message
DEFAULT_PIECE = 64 * 1024
MAX_BLOB = 2**50  # bytes
MAX_LIST = 1000  # hashes
DEFAULT_CACHE = 64 * 1024 * 1024  # bytes, without cache_bytes and without a memory limit
KEEP_FREE = 16 * 1024 * 1024  # bytes of the file system that a store leaves to others


class Storage(Service):
    """The service."""

    name = "storage"
    request_limit = 1024 * 1024

    def __init__(self, options: Options, memory_max: Callable[[], int | None] = cgroup.memory_max) -> None:
        super().__init__(options)
        kind = "cache" if options.cache_only else "blobs"  # apart: a durable blob is never evicted
        self._blobs = Blobs(os.path.join(options.data_dir, kind), durable=not options.cache_only)
        bound = options.cache_bytes or default_cache(memory_max())
        self._cache = lru.Lru(bound) if options.cache_only else None
        self._uploads = Uploads(self._dropped)
        self._checks = Checks(self._blobs, self._serve, self._corrupt)
        self._corrupted = 0
        self._now: Callable[[], float] = lambda: 0.0

    # -- life

    def open(self, runtime: Runtime) -> None:
        """Prepare the directory; a cache is counted and shrunk to its bound."""
        self._now = runtime.now
        try:
            self._blobs.prepare()
            if self._cache is not None:
                for found in sorted(self._blobs.scan(), key=lambda found: found.used_ns):
                    self._evict(self._cache.add(found.key, lru.cost(found.size)))
        except OSError as error:
            raise StartError(f"cannot use {self._blobs.root}: {error}; fix: rights and space there") from error

    def close(self) -> None:
        """Unfinished uploads are forgotten."""
        self._uploads.close()

    def deadline(self) -> float | None:
        """When the next upload expires."""
        return self._uploads.deadline()

    def tick(self, now: float) -> None:
        """Drop uploads whose client fell silent."""
        self._uploads.expire(now)

    def busy(self) -> bool:
        """Large blobs are checked in slices."""
        return self._checks.busy()

    def work(self) -> None:
        """One slice."""
        self._checks.work()

    def details(self) -> Message:
        """What is kept, and how much more there may be."""
        told: Message = {
            "mode": "cache" if self._cache is not None else "store",
            "free": self._blobs.free(),
            "uploads": len(self._uploads),
            "corrupt": self._corrupted,
        }
        if self._cache is not None:
            told |= {"blobs": len(self._cache), "used": self._cache.used, "limit": self._cache.limit}
        return told

    def operations(self) -> Mapping[str, Operation]:
        """See the module."""
        return {
            "put": self._put,
            "begin": self._begin,
            "chunk": self._chunk,
            "commit": self._commit,
            "abort": self._abort,
            "get": self._get,
            "has": self._has,
            "stat": self._stat,
            "delete": self._delete,
            "list": self._list,
        }

    # -- in

    def _put(self, request: Request) -> Message:
        data = request.data("data", MAX_PIECE)
        token = self._start(len(data), request.user)
        self._write(token, self._uploads.get(token, request.user, self._now()), data)
        return self._finish(token, request.user, b"")

    def _begin(self, request: Request) -> Message:
        size = request.whole("size", 0, MAX_BLOB)
        key = request.exact("hash", HASH, b"")
        if key and self._blobs.mark(key) is not None:
            return {"exists": True}
        return {"exists": False, "upload": self._start(size, request.user)}

    def _start(self, size: int, user: str) -> bytes:
        self._uploads.check_room()
        if self._cache is None:
            free = self._blobs.free() - KEEP_FREE - self._uploads.missing()
            if size > free:
                raise RefusedError("no-space", f"{size} bytes do not fit into {max(0, free)} free ones", "delete blobs")
        else:
            try:
                self._evict(self._cache.reserve(lru.cost(size)))
            except lru.TooLargeError:
                why = (
                    f"{size} bytes do not fit into a cache of {self._cache.limit}, {self._cache.reserved} being written"
                )
                raise RefusedError("too-large", why, "raise cache_bytes") from None
        try:
            return self._uploads.begin(size, user, Writer(self._blobs), self._now())
        except OSError:
            self._dropped(size)
            raise

    def _chunk(self, request: Request) -> Message:
        token = request.exact("upload", TOKEN)
        offset = request.whole("offset", 0, MAX_BLOB)
        data = request.data("data", MAX_PIECE)
        upload = self._uploads.get(token, request.user, self._now())
        if offset + len(data) > upload.size:
            raise RefusedError("size", f"the blob was announced with {upload.size} bytes", "begin again with its size")
        if offset > upload.writer.size or offset < upload.writer.size < offset + len(data):
            raise RefusedError("offset", f"the next chunk begins at {upload.writer.size}", "send that one")
        if offset == upload.writer.size:
            self._write(token, upload, data)
        return {"offset": upload.writer.size}

    def _write(self, token: bytes, upload: Upload, data: bytes) -> None:
        try:
            upload.writer.write(data)
        except OSError as error:
            self._uploads.drop(token)
            raise _full(error) from error

    def _commit(self, request: Request) -> Message:
        return self._finish(request.exact("upload", TOKEN), request.user, request.exact("hash", HASH, b""))

    def _finish(self, token: bytes, user: str, wanted: bytes) -> Message:
        upload = self._uploads.get(token, user, self._now())
        if upload.writer.size != upload.size:
            raise RefusedError("size", f"{upload.writer.size} of {upload.size} bytes are here", "send the rest")
        if wanted and upload.writer.digest() != wanted:
            self._uploads.drop(token)
            raise RefusedError("hash-mismatch", "the bytes received have another hash", "send the blob again")
        try:
            key = upload.writer.finish()
        except OSError as error:
            self._uploads.drop(token)
            raise _full(error) from error
        self._uploads.end(token)
        if self._cache is not None:
            self._cache.release(lru.cost(upload.size))
            self._evict(self._cache.add(key, lru.cost(upload.size)))
        return {"hash": key, "size": upload.size}

    def _abort(self, request: Request) -> Message:
        token = request.exact("upload", TOKEN)
        self._uploads.get(token, request.user, self._now())
        self._uploads.drop(token)
        return {}

    def _dropped(self, size: int) -> None:
        if self._cache is not None:
            self._cache.release(lru.cost(size))

    def _evict(self, keys: list[bytes]) -> None:
        for key in keys:
            self._blobs.delete(key)

    # -- out

    def _get(self, request: Request) -> None:
        key = request.exact("hash", HASH)
        request.whole("offset", 0, MAX_BLOB, 0)
        request.whole("length", 0, MAX_PIECE, DEFAULT_PIECE)
        self._checks.when_sound(key, request)

    def _serve(self, key: bytes, request: Request, mark: Mark) -> None:
        offset, length = request.whole("offset", 0, MAX_BLOB, 0), request.whole("length", 0, MAX_PIECE, DEFAULT_PIECE)
        if self._cache is not None:
            self._cache.touch(key)
        request.reply({"data": self._blobs.read(key, offset, length), "size": mark.size})

    def _corrupt(self, key: bytes) -> None:
        self._corrupted += 1
        said = f"blob {key.hex()} is corrupt and was taken out; fix: put it again, and check the disk"
        log(self.name, said, WARNING)
        self._blobs.set_aside(key)
        if self._cache is not None:
            self._cache.remove(key)

    def _has(self, request: Request) -> Message:
        return {"has": self._blobs.mark(request.exact("hash", HASH)) is not None}

    def _stat(self, request: Request) -> Message:
        mark = self._blobs.mark(request.exact("hash", HASH))
        if mark is None:
            raise RefusedError("not-found", "there is no such blob")
        return {"size": mark.size}

    def _delete(self, request: Request) -> Message:
        key = request.exact("hash", HASH)
        if self._cache is not None:
            self._cache.remove(key)
        return {"deleted": self._blobs.delete(key)}

    def _list(self, request: Request) -> Message:
        most = request.whole("limit", 1, MAX_LIST, MAX_LIST)
        hashes = list(self._blobs.keys(request.exact("after", HASH, b""), most + 1))
        return {"hashes": hashes[:most], "more": len(hashes) > most}


def default_cache(memory: int | None) -> int:
    """The bound of a cache in bytes, for a memory limit of ``memory`` bytes or none."""
    return DEFAULT_CACHE if memory is None else max(1, memory // 2)


def _full(error: OSError) -> RefusedError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return RefusedError("no-space", "the disk is full", "delete blobs")
    return RefusedError("failed", error.strerror or str(error), "check the disk")
