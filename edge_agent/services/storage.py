"""Blobs by their SHA-256: kept for good (DATA_DIR/blobs) or, with ``cache_only``, while there is room (DATA_DIR/cache).

    put      {data}                        -> {hash, size}         a blob of at most MAX_PIECE bytes, at once
    begin    {size, hash?}                 -> {exists} or {exists, upload}    larger ones: begin, chunk …, commit
    chunk    {upload, offset, data}        -> {offset}             where the next one belongs; a repeated one is fine
    commit   {upload, hash?}               -> {hash, size}
    abort    {upload}                      -> {}
    get      {hash, offset?, length?}      -> {data, size}         only from blobs whose hash was checked
    has      {hash}                        -> {has}                here, as are those of stat and list
    stat     {hash}                        -> {size, pinned, replicas}
    delete   {hash}                        -> {deleted}
    list     {after?, limit?}              -> {hashes, more}       ascending, ``after`` excluded
    pin      {hash}                        -> {size}               kept until it is unpinned, on the disk when answered
    unpin    {hash}                        -> {unpinned}
    replicas {hash, wished?}               -> {wished}             how many nodes should have it; without: what was said
    wishes   {after?, limit?}              -> {wishes: [{hash, pinned, replicas}], more}
    scrub    {rate?}                       -> {running, blobs, bytes, damaged, finished}    begins, or goes on with it

Further codes: not-found, unreachable, pending, wrong-blob, corrupt, no-upload, offset, size, hash-mismatch, too-large,
pins-full, pinned, too-many, no-space.

With ``read_through``, get and pin of a blob that is not here fetch it from full peers, by the node service; it is
visible when it is whole and has its hash. A request that would wait for longer than ``held.HOLD``, for that or for the
check of a large blob, is answered ``pending``: it goes on, ask again.

The cache is on the disk of the data directory, not in the run directory: pages of a disk's file are given back when the
service nears its memory limit, those of a tmpfs are not and end in an OOM kill. The default bound is half of the memory
limit all the same, so that it holds where the data directory is in memory; it is that at the start, and a limit changed
under the running service moves it at the next one. After a restart the order of use is that of
the files' times (atime as the mount keeps it, else when they were written).
"""

from __future__ import annotations

import errno
import os
import time

from . import cgroup, lru, metrics
from .blobs import HASH, Blobs, Mark
from .checks import Checks
from .errors import RefusedError, StartError
from .fetches import Fetches
from .held import Held
from .inventory import Inventory
from .log import WARNING, log
from .options import MOST_REPLICAS
from .runtime import Service
from .scrub import Scrub
from .uploads import TOKEN, Upload, Uploads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Protocol

    from ..peers.wire import Message
    from .inventory import Incoming
    from .options import Options
    from .requests import Operation, Request
    from .runtime import Runtime

    class Link(Protocol):
        """What is needed of a ``relay.Relay``."""

        def ask(self, token: int, op: str, args: Message) -> None: ...
        def deadline(self) -> float | None: ...
        def tick(self, now: float) -> None: ...
        def close(self) -> None: ...


MAX_PIECE = 512 * 1024  # bytes of a blob in one message
DEFAULT_PIECE = 64 * 1024
MAX_BLOB = 2**50  # bytes
MAX_LIST = 1000  # hashes
MAX_WISHES = 500
MAX_RATE = 2**40  # bytes a second
DEFAULT_CACHE = 64 * 1024 * 1024  # bytes, without cache_bytes and without a memory limit
SHARE = 4  # of the memory limit, a fourth may be taken by accounts of blobs
NODE_WITHIN = 45.0  # seconds; the node tries several peers


class Storage(Service):
    """The service."""

    name = "storage"
    request_limit = 1024 * 1024

    def __init__(self, options: Options, memory_max: Callable[[], int | None] = cgroup.memory_max) -> None:
        super().__init__(options)
        kind = "cache" if options.cache_only else "blobs"  # apart: a durable blob is never evicted
        blobs = Blobs(os.path.join(options.data_dir, kind), durable=not options.cache_only)
        memory = memory_max()
        bound = options.cache_bytes or default_cache(memory)
        cache = lru.Lru(bound, most_blobs(memory)) if options.cache_only else None
        self._inventory = Inventory(blobs, cache)
        self._uploads = Uploads()
        self._held = Held()
        self._checks = Checks(blobs, self._checked)
        self._relay: Link | None = None
        self._fetches = Fetches(self._ask, self._incoming, self._fetched)
        interval, rate = options.scrub_interval, options.scrub_rate
        self._scrub = Scrub(blobs, self._damaged, self._restore, lambda: self._now(), time.time, interval, rate)
        self._now: Callable[[], float] = lambda: 0.0

    # -- life

    def open(self, runtime: Runtime) -> None:
        """Prepare the directory; a cache is counted and shrunk to its bound."""
        self._now = runtime.now
        if self.options.read_through:
            self._relay = self.link(runtime)
        try:
            self._inventory.open()
        except OSError as error:
            root = self._inventory.blobs.root
            raise StartError(f"cannot use {root}: {error}; fix: rights and space there") from error
        self._scrub.open()

    def link(self, runtime: Runtime) -> Link:
        """The way to the node service."""
        from .relay import Relay

        return Relay(runtime, "node", self._relayed, NODE_WITHIN)

    def close(self) -> None:
        """Unfinished uploads and transfers are forgotten."""
        self._uploads.close()
        self._fetches.close()
        if self._relay is not None:
            self._relay.close()
        self._scrub.close()
        self._inventory.close()

    def deadline(self) -> float | None:
        """When something expires, or is to be fetched or scrubbed."""
        dues = (
            self._uploads.deadline(),
            self._held.deadline(),
            self._fetches.deadline(),
            self._scrub.deadline(),
            self._relay.deadline() if self._relay else None,
        )
        return min((due for due in dues if due is not None), default=None)

    def tick(self, now: float) -> None:
        """What is due."""
        self._uploads.expire(now)
        for key, request in self._held.late(now):
            request.fail(self._pending(key))
        if self._relay is not None:
            self._relay.tick(now)
            self._fetches.tick(now)
        self._scrub.tick()

    def busy(self) -> bool:
        """Large blobs are checked in slices."""
        return self._checks.busy()

    def work(self) -> None:
        """One slice."""
        self._checks.work()

    def details(self) -> Message:
        """What is kept, and how much more there may be."""
        told = {"uploads": len(self._uploads), "fetches": len(self._fetches), "scrub": self._scrub.state()}
        return self._inventory.details() | told

    def metrics(self) -> Sequence[metrics.Metric]:
        """The same in numbers."""
        outcomes = (({"outcome": "fetched"}, self._fetches.fetched), ({"outcome": "failed"}, self._fetches.failed))
        about = "Blobs asked for at peers, by what became of it."
        finished = self._scrub.finished or 0.0
        return [
            *self._inventory.metrics(),
            metrics.Metric("storage_fetches_total", metrics.COUNTER, about, outcomes),
            metrics.counter("storage_fetched_bytes_total", "Bytes of blobs from peers.", self._fetches.bytes),
            metrics.gauge("storage_scrub_finished_seconds", "When the last scrub ended, since 1970.", finished),
        ]

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
            "pin": self._pin,
            "unpin": self._unpin,
            "replicas": self._replicas,
            "wishes": self._wishes,
            "scrub": self._scrub_now,
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
        if key and self._inventory.mark(key) is not None:
            return {"exists": True}
        return {"exists": False, "upload": self._start(size, request.user)}

    def _start(self, size: int, user: str) -> bytes:
        self._uploads.check_room()
        return self._uploads.begin(user, self._inventory.begin(size), self._now())

    def _chunk(self, request: Request) -> Message:
        token = request.exact("upload", TOKEN)
        offset = request.whole("offset", 0, MAX_BLOB)
        data = request.data("data", MAX_PIECE)
        upload = self._uploads.get(token, request.user, self._now())
        if offset + len(data) > upload.blob.size:
            why = f"the blob was announced with {upload.blob.size} bytes"
            raise RefusedError("size", why, "begin again with its size")
        if offset > upload.blob.written or offset < upload.blob.written < offset + len(data):
            raise RefusedError("offset", f"the next chunk begins at {upload.blob.written}", "send that one")
        if offset == upload.blob.written:
            self._write(token, upload, data)
        return {"offset": upload.blob.written}

    def _write(self, token: bytes, upload: Upload, data: bytes) -> None:
        try:
            upload.blob.write(data)
        except OSError as error:
            self._uploads.drop(token)
            raise _full(error) from error

    def _commit(self, request: Request) -> Message:
        return self._finish(request.exact("upload", TOKEN), request.user, request.exact("hash", HASH, b""))

    def _finish(self, token: bytes, user: str, wanted: bytes) -> Message:
        blob = self._uploads.get(token, user, self._now()).blob
        if blob.written != blob.size:
            raise RefusedError("size", f"{blob.written} of {blob.size} bytes are here", "send the rest")
        if wanted and blob.digest() != wanted:
            self._uploads.drop(token)
            raise RefusedError("hash-mismatch", "the bytes received have another hash", "send the blob again")
        try:
            key = blob.finish()
        except OSError as error:
            self._uploads.drop(token)
            raise _full(error) from error
        self._uploads.end(token)
        self._arrived(key)
        return {"hash": key, "size": blob.size}

    def _arrived(self, key: bytes) -> None:
        """It was hashed as it was written: that holds as long as this process and the file do."""
        mark = self._inventory.mark(key)
        if mark is not None:
            self._checks.remember(key, mark)

    def _abort(self, request: Request) -> Message:
        token = request.exact("upload", TOKEN)
        self._uploads.get(token, request.user, self._now())
        self._uploads.drop(token)
        return {}

    # -- out

    def _get(self, request: Request) -> None:
        key = request.exact("hash", HASH)
        request.whole("offset", 0, MAX_BLOB, 0)
        request.whole("length", 0, MAX_PIECE, DEFAULT_PIECE)
        self._when_here(key, request)

    def _pin(self, request: Request) -> None:
        self._when_here(request.exact("hash", HASH), request)

    def _when_here(self, key: bytes, request: Request) -> None:
        """Serve ``request`` once the blob is here and known to be sound. Raises RefusedError, OSError."""
        mark = self._inventory.mark(key)
        if mark is not None and self._checks.sound(key, mark):
            self._serve(key, request, mark)
            return
        if mark is not None:
            self._checks.begin(key, mark)
        elif self._relay is not None:
            self._fetches.begin(key, self._now())
        else:
            raise RefusedError("not-found", "there is no such blob")
        self._held.add(key, request, self._now())

    def _serve(self, key: bytes, request: Request, mark: Mark) -> None:
        if request.op == "pin":
            self._inventory.pin(key)
            request.reply({"size": mark.size})
            return
        offset, length = request.whole("offset", 0, MAX_BLOB, 0), request.whole("length", 0, MAX_PIECE, DEFAULT_PIECE)
        request.reply({"data": self._inventory.read(key, offset, length), "size": mark.size})

    def _checked(self, key: bytes, damaged: bool) -> None:
        if damaged and (not self._damaged(key) or self._relay is None):
            why = "the blob was damaged on disk and has been taken out"
            self._refuse(key, RefusedError("corrupt", why, "get it from elsewhere"))
        else:
            self._resume(key)

    def _resume(self, key: bytes) -> None:
        for request in self._held.take(key):
            try:
                self._when_here(key, request)  # again from the start when the file was replaced meanwhile
            except RefusedError as error:
                request.fail(error)
            except OSError as error:
                request.fail(RefusedError("failed", error.strerror or str(error)))

    def _refuse(self, key: bytes, error: RefusedError) -> None:
        for request in self._held.take(key):
            request.fail(error)

    def _pending(self, key: bytes) -> RefusedError:
        what, done = "fetched", self._fetches.progress(key)
        if done is None:
            what, done = "checked", self._checks.progress(key) or (0, 0)
        return RefusedError("pending", f"the blob is being {what}: {done[0]} of {done[1]} bytes", "ask again")

    # -- from peers

    def _ask(self, token: int, arguments: Message) -> None:
        if self._relay is not None:
            self._relay.ask(token, "fetch", arguments)

    def _relayed(self, token: int, result: Message | Exception) -> None:
        if isinstance(result, dict):
            self._fetches.answered(token, result, self._now())
        else:
            code, why = str(getattr(result, "code", "failed")), str(getattr(result, "why", result))
            self._fetches.declined(token, code, why, self._now())

    def _incoming(self, size: int) -> Incoming:
        return self._inventory.begin(size, known=False)

    def _fetched(self, key: bytes, error: RefusedError | None) -> None:
        if error is not None:
            self._refuse(key, error)
            return
        try:
            self._arrived(key)
        except OSError as failed:
            self._refuse(key, _full(failed))
        else:
            self._resume(key)

    def _restore(self) -> None:
        """What should be here and is not."""
        if self._relay is not None:
            self._fetches.later(self._inventory.missing(), self._now())

    def _damaged(self, key: bytes) -> bool:
        """Take it out; False: not even that can be done."""
        try:
            self._inventory.damaged(key)
        except OSError as error:
            said = f"blob {key.hex()} is corrupt, and cannot be taken out: {error.strerror}; fix: check the disk"
            log(self.name, said, WARNING)
            return False
        log(self.name, f"blob {key.hex()} is corrupt and was taken out; fix: put it again, and check the disk", WARNING)
        if self._relay is not None:
            self._fetches.later((key,), self._now())
        return True

    # -- what is kept

    def _has(self, request: Request) -> Message:
        return {"has": self._inventory.mark(request.exact("hash", HASH)) is not None}

    def _stat(self, request: Request) -> Message:
        key = request.exact("hash", HASH)
        mark = self._inventory.mark(key)
        if mark is None:
            raise RefusedError("not-found", "there is no such blob")
        return {"size": mark.size} | self._wish(key)

    def _delete(self, request: Request) -> Message:
        return {"deleted": self._inventory.delete(request.exact("hash", HASH))}

    def _list(self, request: Request) -> Message:
        most = request.whole("limit", 1, MAX_LIST, MAX_LIST)
        hashes = []
        for key in self._inventory.blobs.keys(request.exact("after", HASH, b"")):
            hashes.append(key)
            if len(hashes) > most:
                break
        return {"hashes": hashes[:most], "more": len(hashes) > most}

    # -- what is wished

    def _unpin(self, request: Request) -> Message:
        return {"unpinned": self._inventory.unpin(request.exact("hash", HASH))}

    def _replicas(self, request: Request) -> Message:
        key = request.exact("hash", HASH)
        wish = self._inventory.wishes.get(key)
        if not wish.pinned and self._inventory.mark(key) is None:
            raise RefusedError("not-found", "there is no such blob")
        if "wished" in request.message:
            wished = request.whole("wished", 1, MOST_REPLICAS)
            own = 0 if wished == self.options.blob_replicas else wished
            self._inventory.wishes.set(key, wish._replace(replicas=own))
        return {"wished": self._wish(key)["replicas"]}

    def _wishes(self, request: Request) -> Message:
        most = request.whole("limit", 1, MAX_WISHES, MAX_WISHES)
        keys = self._inventory.wishes.page(request.exact("after", HASH, b""), most + 1)
        wishes = [{"hash": key} | self._wish(key) for key in keys[:most]]
        return {"wishes": wishes, "more": len(keys) > most}

    def _wish(self, key: bytes) -> Message:
        wish = self._inventory.wishes.get(key)
        return {"pinned": wish.pinned, "replicas": wish.replicas or self.options.blob_replicas}

    def _scrub_now(self, request: Request) -> Message:
        self._scrub.start(request.whole("rate", 1, MAX_RATE) if "rate" in request.message else None)
        return self._scrub.state()


def default_cache(memory: int | None) -> int:
    """The bound of a cache in bytes, for a memory limit of ``memory`` bytes or none."""
    return DEFAULT_CACHE if memory is None else max(1, memory // 2)


def most_blobs(memory: int | None) -> int:
    """How many blobs a cache may have at that memory limit."""
    return lru.UNBOUNDED if memory is None else max(1, memory // SHARE // lru.ENTRY)


def _full(error: OSError) -> RefusedError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return RefusedError("no-space", "the disk is full", "delete blobs")
    return RefusedError("failed", error.strerror or str(error), "check the disk")
