"""An append-only log: a Merkle tree of entries (RFC 9162), its head signed as a C2SP checkpoint.

    append      {entries: [bytes]}   -> {first, size}            when they are durable and in the tree of ``size``
    head        {witnessed?}         -> {checkpoint}             the signed note, with the cosignatures of this head
    key         {}                   -> {vkey, origin}           of the log, to be pinned
    inclusion   {index, size?}       -> {hash, index, size, proof}
    inclusion   {hash, size?}        -> {index, size, proof}     the first entry with this leaf hash
    consistency {from, to?}          -> {proof, size}
    entries     {start, most?}       -> {entries}                at most 256 KiB of them, one at least if there is one
    cosign      {checkpoint}         -> {count}                  cosignatures for a head of this log, by its witnesses

Without ``size`` or ``to`` it is the present one. ``head {witnessed: true}`` is the latest head that a quorum of
witnesses has cosigned. Further codes: not-found, corrupt, no-space. Who may connect (root, the service's user, its
group; the port's clients) may append: what is in the log was said by somebody allowed to, not more.

Appends of one turn, and of those that wait in the sockets, are one record of the journal and one fdatasync.
"""

from __future__ import annotations

import base64
import errno
import os
import time

from .. import tlog
from ..notes import MAX_NOTE, Checkpoint, NoteError, Signer
from . import keyfile, metrics, tiles
from .errors import RefusedError, StartError
from .leaves import Leaves
from .log import WARNING, log
from .recorder import Recorder
from .runtime import Service
from .tilestore import Batch, NoRoomError, Store
from .witnessed import Witnessed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..peers.wire import Message
    from .options import Options
    from .requests import Operation, Request
    from .runtime import Runtime

MOST_ENTRIES = 1000  # of one append
MOST_WAITING = 2 * 1024 * 1024  # bytes of entries that wait for the disk
MOST_AT_ONCE = 1024 * 1024  # bytes of one record of the journal
ANSWER = 256 * 1024  # bytes of entries in one answer
PAUSE = 0.5  # seconds from an append to the files of the tiles; they are no part of what is promised
SHARE = 20  # and that many times as long as writing them has taken
KEEP_FREE = 16 * 1024 * 1024  # bytes of the file system that are left to others
INDEXED = tiles.WIDTH  # hashes that go into the index at once
RETRY = 60.0  # seconds until an index that could not be written is tried again
KEY_KIND = "ed25519"


class Ledger(Service):
    """The service."""

    name = "ledger"
    request_limit = 1024 * 1024

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self._store = Store(options.data_dir)
        self._tree = self._store.tree
        self._signer: Signer
        self._leaves: Leaves
        self._witnessed: Witnessed
        self._recorder: Recorder | None = None
        self._runtime: Runtime
        self._head = b""  # the signed head of the tree as it is, with what witnesses say of it
        self._waiting: list[tuple[Request | None, list[bytes]]] = []
        self._waits = 0  # bytes in there
        self._more = False  # something came since the last look
        self._noted: set[bytes] = set()  # hashes of the recorder's entries in there
        self._due: float | None = None  # when the files are to be written
        self._earliest = 0.0
        self._index_due = 0.0
        self._batches = 0

    # -- life

    def open(self, runtime: Runtime) -> None:
        """Find the log, or begin one."""
        self._runtime = runtime
        self._signer = self._key()
        self._store.open()
        self._sign()
        told = self.options.log
        self._witnessed = Witnessed(self._store, self._signer, told.witnesses, told.quorum)
        try:
            self._leaves = self._index()
            self._witnessed.find()
            if self._store.kept("log/checkpoint") != self._head:
                self._store.publish(self._head)
                self._store.flush()
        except OSError as error:
            raise StartError(f"cannot use {self.options.data_dir}: {error}; fix: rights and space there") from error
        if told.record:
            self._recorder = Recorder(self.options.status, self._note, runtime.watch, runtime.unwatch)
        log(self.name, f"{self._tree.size} entries; its key is {self._signer.verifier.vkey()}")

    def _key(self) -> Signer:
        path = os.path.join(self.options.data_dir, "ledger.key")
        if not os.path.lexists(path) and os.path.lexists(os.path.join(self.options.data_dir, "journal")):
            raise StartError(f"cannot sign for the log: no key {path}; fix: restore it from a backup")
        secret = keyfile.load_or_make(
            path, KEY_KIND, 44, lambda: base64.b64encode(os.urandom(32)).decode(), time.time()
        )
        try:
            seed = base64.b64decode(secret.text, validate=True)
            return Signer(self._origin(Signer("new", seed)), seed)
        except ValueError as error:
            raise StartError(f"cannot use the key {path}: {error}; fix: restore it from a backup") from error

    def _origin(self, signer: Signer) -> str:
        """The log's name: as asked for at its first start, and the same ever after, as others have pinned it."""
        path = os.path.join(self.options.data_dir, "origin")
        kept = self._store.kept("origin").decode("utf-8", "replace").strip()
        wanted = self.options.log.origin or kept or self._default(signer)
        if kept and kept != wanted:
            why = f"cannot call the log {wanted}: it is {kept}, and others know it by that name"
            raise StartError(f"{why}; fix: remove origin, or begin another log in another data_dir")
        if not kept:
            if os.path.lexists(os.path.join(self.options.data_dir, "journal")):
                raise StartError(f"cannot find the log's name: no {path}; fix: restore it from a backup")
            self._store.keep("origin", f"{wanted}\n".encode())
        return wanted

    def _default(self, signer: Signer) -> str:
        words = (self.options.cluster_name or "edge-agent", self.options.node_id or signer.verifier.key[:8].hex())
        names = ("".join(c if c.isalnum() or c in "._-" else "-" for c in word) for word in words)
        return "/".join((*names, "ledger"))

    def _index(self) -> Leaves:
        """The index, as far as it is one of this log."""
        leaves = Leaves(os.path.join(self.options.data_dir, "leaves.sqlite"))
        last = min(leaves.size, self._tree.size) - 1
        if last >= 0 and last not in leaves.find(self._tree.leaf(last), last + 1):
            last = -1
        leaves.cut(last + 1)
        return leaves

    def close(self) -> None:
        """Bring the files to where the log is."""
        if self._recorder is not None:
            self._recorder.close()
        if not self._head:
            return
        try:
            self._store.publish(self._head)
            self._store.flush()
        except OSError as error:
            log(
                self.name, f"cannot write the tiles: {error}; they are made from the journal at the next start", WARNING
            )
        self._store.close()
        self._leaves.close()

    def deadline(self) -> float | None:
        """When files are to be written, or the agent is to be asked again."""
        due = [self._due] if self._due is not None else []
        if self._recorder is not None:
            due.append(self._recorder.due)
        return min(due, default=None)

    def tick(self, now: float) -> None:
        """Do what is due."""
        if self._due is not None and self._due <= now:
            self._publish(now)
        if self._recorder is not None and self._recorder.due <= now:
            self._recorder.tick(now)

    def _publish(self, now: float) -> None:
        try:
            self._store.publish(self._head)
            if self._store.flush_is_due():
                self._store.flush()
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise  # what the device has said that it cannot keep must not be asked of it again: fsync(2)
            self._due = now + RETRY
            log(self.name, f"cannot write the tiles yet: {error}; fix: free the disk", WARNING)
            return
        after = self._runtime.now()
        self._due, self._earliest = None, after + SHARE * (after - now)

    def busy(self) -> bool:
        """Are there entries that wait for the disk, or for the index?"""
        return bool(self._waiting) or (self._behind() and self._index_due <= self._runtime.now())

    def work(self) -> None:
        """One batch, once nothing more has come in a turn, or a piece of the index."""
        if self._waiting:
            if self._more and self._waits < MOST_AT_ONCE:
                self._more = False  # what waits in the sockets joins
            else:
                self._commit()
        else:
            self._catch_up(INDEXED)

    def operations(self) -> Mapping[str, Operation]:
        """See the module."""
        return {
            "append": self._append,
            "head": self._told_head,
            "key": self._told_key,
            "inclusion": self._inclusion,
            "consistency": self._consistency,
            "entries": self._entries,
            "cosign": self._cosign,
        }

    def details(self) -> Message:
        """Which log, and how large."""
        told: Message = {"origin": self._signer.verifier.name, "size": self._tree.size, "batches": self._batches}
        if self._recorder is not None:
            told |= {"follows_agent": self._recorder.connected, "recorded": self._recorder.recorded}
        return told

    def metrics(self) -> Sequence[metrics.Metric]:
        """The same for machines."""
        return (
            metrics.gauge("ledger_entries", "Entries of the log.", self._tree.size),
            metrics.gauge("ledger_indexed_entries", "Entries that are found by their hash.", self._leaves.size),
            metrics.counter(
                "ledger_batches_total", "Records written to the journal, one fdatasync each.", self._batches
            ),
            metrics.counter("ledger_flushes_total", "How often the tiles were flushed.", self._store.flushes),
        )

    # -- growth

    def _append(self, request: Request) -> None:
        entries = request.message.get("entries")
        if not isinstance(entries, list) or not 0 < len(entries) <= MOST_ENTRIES:
            raise RefusedError("bad-request", f"entries is not a list of 1 to {MOST_ENTRIES}")
        if not all(isinstance(each, bytes) and len(each) <= tiles.MAX_ENTRY for each in entries):
            raise RefusedError("bad-request", f"an entry is not at most {tiles.MAX_ENTRY} bytes")
        if self._waits >= MOST_WAITING:
            raise RefusedError("busy", "the disk is behind", "try again later")
        self._check_room()
        self._join(request, entries)

    def _check_room(self) -> None:
        found = os.statvfs(self.options.data_dir)
        if found.f_bavail * found.f_frsize < KEEP_FREE + self._waits:
            raise RefusedError("no-space", f"less than {KEEP_FREE} bytes are free", "free the disk")

    def _join(self, request: Request | None, entries: list[bytes]) -> None:
        self._waiting.append((request, entries))
        self._waits += sum(map(len, entries)) + 64 * len(entries)
        self._more = True

    def _note(self, entry: bytes) -> bool:
        """An entry of the recorder, unless it is there; False: not now."""
        leaf = tlog.leaf_hash(entry)
        self._catch_up(2 * INDEXED)
        if self._behind() or self._waits >= MOST_AT_ONCE:
            return False
        if leaf not in self._noted and self._find(leaf, self._tree.size) is None:
            self._noted.add(leaf)
            self._join(None, [entry])
        return True

    def _commit(self) -> None:
        """Everything that waits, as one record; then the answers."""
        waiting, self._waiting, self._waits, self._noted = self._waiting, [], 0, set()
        size = self._tree.size
        try:
            first = self._store.append(Batch.of(entry for _request, entries in waiting for entry in entries))
        except NoRoomError as error:
            refused = RefusedError("no-space", f"the disk has no room: {error.strerror}", "free the disk")
            for request, _entries in waiting:
                if request is not None:
                    request.fail(refused)
                elif self._recorder is not None:
                    self._recorder.again(self._runtime.now() + RETRY)
            return
        self._batches += 1
        self._sign()
        for request, entries in waiting:
            if request is not None:
                request.reply({"first": first, "size": self._tree.size})
            first += len(entries)
        if self._index_due <= self._runtime.now():
            self._catch_up(max(INDEXED, self._tree.size - size))  # at the pace of the log, or it would starve
        if self._due is None:
            self._due = max(self._runtime.now() + PAUSE, self._earliest)

    def _sign(self) -> None:
        head = Checkpoint(self._signer.verifier.name, self._tree.size, self._tree.root())
        self._head = self._signer.sign(head.text())

    # -- the index of hashes

    def _behind(self) -> bool:
        return self._leaves.size < self._tree.size

    def _catch_up(self, most: int) -> None:
        start = self._leaves.size
        hashes = [self._tree.leaf(index) for index in range(start, min(start + most, self._tree.size))]
        if not hashes:
            return
        try:
            self._leaves.add(hashes)
        except OSError as error:
            self._index_due = self._runtime.now() + RETRY
            log(self.name, f"{error}; fix: free the disk", WARNING)

    def _find(self, leaf: bytes, size: int) -> int | None:
        return next((place for place in self._leaves.find(leaf, size) if self._tree.leaf(place) == leaf), None)

    # -- proofs

    def _told_head(self, request: Request) -> Message:
        if not request.message.get("witnessed"):
            return {"checkpoint": self._head}
        if not self._witnessed.latest:
            raise RefusedError("not-found", "no head was cosigned by enough witnesses yet", "try again later")
        return {"checkpoint": self._witnessed.latest}

    def _told_key(self, _request: Request) -> Message:
        return {"vkey": self._signer.verifier.vkey(), "origin": self._signer.verifier.name}

    def _size(self, request: Request, key: str) -> int:
        size = request.whole(key, 0, 2**63 - 1, self._tree.size)
        if size > self._tree.size:
            raise RefusedError("not-found", f"the log has {self._tree.size} entries, not {size}", "ask for its head")
        return size

    def _inclusion(self, request: Request) -> Message:
        size = self._size(request, "size")
        if "hash" in request.message:
            leaf = request.exact("hash", tlog.SIZE)
            self._catch_up(16 * INDEXED)
            place = self._find(leaf, size)
            if place is None and self._behind():
                raise RefusedError("busy", "the index of hashes is being made", "try again later")
            if place is None:
                raise RefusedError("not-found", f"no entry of the first {size} has this hash")
            return {"index": place, "size": size, "proof": self._proof(place, size)}
        place = request.whole("index", 0, 2**63 - 1)
        if place >= size:
            raise RefusedError("not-found", f"there is no entry {place} in the first {size}")
        proof = self._proof(place, size)
        return {"hash": self._tree.leaf(place), "index": place, "size": size, "proof": proof}

    def _proof(self, place: int, size: int) -> list[bytes]:
        try:
            return self._tree.inclusion(place, size)
        except tiles.TileError as error:
            raise self._corrupt(error) from error

    def _consistency(self, request: Request) -> Message:
        size = self._size(request, "to")
        start = request.whole("from", 0, size)
        try:
            return {"proof": self._tree.consistency(start, size) if start else [], "size": size}
        except tiles.TileError as error:
            raise self._corrupt(error) from error

    def _entries(self, request: Request) -> Message:
        start = request.whole("start", 0, 2**63 - 1)
        most = request.whole("most", 1, MOST_ENTRIES, MOST_ENTRIES)
        try:
            return {"entries": list(self._store.entries(start, most, ANSWER))}
        except tiles.TileError as error:
            raise self._corrupt(error) from error

    def _corrupt(self, error: Exception) -> RefusedError:
        log(self.name, f"{error}; fix: restore the log from a backup", WARNING)
        return RefusedError("corrupt", f"a file of the log is damaged: {error}", "restore it from a backup")

    # -- witnesses

    def _cosign(self, request: Request) -> Message:
        """Keep cosignatures of a head of this log; how many of its witnesses have signed it by now."""
        data = request.data("checkpoint", MAX_NOTE)
        try:
            self._head, count = self._witnessed.take(data, self._head)
        except NoteError as error:
            raise RefusedError("bad-request", f"not a cosigned head of this log: {error}") from error
        return {"count": count}
