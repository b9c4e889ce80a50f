"""What a light node asks of full peers, and how each answer is judged: by keys, proofs and hashes alone. Pure.

An Inquiry is sent to one peer after the other until an answer holds. ``judge`` returns what whoever asked is told, or
raises LieError (the peer's), WireError (an answer of the wrong form, the peer's as well) or UnfitError (nobody's).
"""

from __future__ import annotations

from .. import tlog
from . import frames
from .wire import WireError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .heads import Log
    from .wire import Message

STALE_PROOF, WRONG_ENTRY, WRONG_BLOB = "stale-proof", "wrong-entry", "wrong-blob"
TRANSFERS = 32  # blobs on their way at once
IDLE = 120.0  # seconds after which a transfer that nobody goes on with is forgotten


class LieError(Exception):
    """The peer has said what cannot be true. ``final``: another peer's answer would not help any more."""

    def __init__(self, code: str, why: str, *, final: bool = False) -> None:
        super().__init__(why)
        self.code, self.why, self.final = code, why, final


class UnfitError(Exception):
    """It cannot be answered, and no peer is to blame for that alone."""

    def __init__(self, code: str, why: str) -> None:
        super().__init__(why)
        self.code, self.why = code, why


class Inquiry:
    """One question. ``token`` is whose it is; None: the node's own."""

    __slots__ = ("args", "bound", "code", "deadline", "judge", "once", "op", "prefer", "token", "tried", "why")

    def __init__(
        self, token: object, op: str, args: Message, judge: Callable[[Message, int], Message], *, once: bool = False
    ) -> None:
        self.token, self.op, self.args, self.judge = token, op, args, judge
        self.once = once  # sent again it might be done twice
        self.bound = False  # for one peer alone
        self.prefer: int | None = None
        self.tried: set[int] = set()
        self.deadline = 0.0  # to find a peer
        self.code, self.why = "offline", "no peer can be reached"  # the answer when there is none


# -- logs


def _head(log: Log) -> tuple[int, bytes]:
    if log.forked:
        raise UnfitError("forked", f"{log.origin} has two histories: nothing of it is believed")
    if log.head is None:
        raise UnfitError("no-head", f"no peer has shown a head of {log.origin} yet")
    return log.head.size, log.head.root


def includes(token: object, log: Log, leaf: bytes) -> Inquiry:
    """Where in the log ``leaf`` (a leaf hash) is -> {index, size}. Raises UnfitError."""
    size, root = _head(log)

    def judge(answer: Message, _peer: int) -> Message:
        index = frames.whole(answer, "index", 0, frames.MAX_INT)
        _verify(leaf, index, size, answer.get("proof"), root)
        return {"index": index, "size": size}

    return Inquiry(token, "inclusion", {"origin": log.origin, "size": size, "hash": leaf}, judge)


def entries(token: object, log: Log, start: int, most: int) -> Inquiry:
    """Entries from ``start`` on, each proved -> {entries, size}. Raises UnfitError."""
    size, root = _head(log)
    if start >= size:
        raise UnfitError("not-found", f"{log.origin} has {size} entries")
    most = min(most, frames.MAX_ENTRIES, size - start)

    def judge(answer: Message, _peer: int) -> Message:
        given, proofs = answer.get("entries"), answer.get("proofs")
        if not isinstance(given, list) or not isinstance(proofs, list) or not 1 <= len(given) <= most:
            raise WireError(f"entries and proofs are not lists of 1 to {most}")
        if len(proofs) != len(given) or not all(isinstance(entry, bytes) for entry in given):
            raise WireError("not an entry and a proof each")
        for place, (entry, proof) in enumerate(zip(given, proofs, strict=True)):
            _verify(tlog.leaf_hash(entry), start + place, size, proof, root)
        return {"entries": given, "size": size}

    return Inquiry(token, "entries", {"origin": log.origin, "size": size, "start": start, "most": most}, judge)


def submit(token: object, log: Log, entry: bytes) -> Inquiry:
    """Append ``entry`` -> {index, size}: a promise, not a proof. Raises UnfitError for a log that has forked."""
    if log.forked:
        _head(log)

    def judge(answer: Message, _peer: int) -> Message:
        size = frames.whole(answer, "size", 1, frames.MAX_INT)
        return {"index": frames.whole(answer, "index", 0, size - 1), "size": size}

    return Inquiry(token, "submit", {"origin": log.origin, "entry": entry}, judge, once=True)


def _verify(leaf: bytes, index: int, size: int, proof: object, root: bytes) -> None:
    try:
        tlog.verify_inclusion(leaf, index, size, frames.hashes(proof, "proof"), root)
    except tlog.ProofError as error:
        raise LieError(WRONG_ENTRY, f"entry {index} is not shown to be in the log: {error}") from error


# -- blobs


class _Transfer:
    __slots__ = ("at", "hash", "last", "offset", "peers", "size", "used")

    def __init__(self, digest: bytes) -> None:
        import hashlib  # OpenSSL, 3.4 MiB: not before there is a blob

        self.hash = hashlib.sha256()
        self.at = digest
        self.offset = 0
        self.size: int | None = None
        self.peers: set[int] = set()
        self.last = 0  # the peer that sent the last piece
        self.used = 0.0


class Transfers:
    """Blobs on their way, one per (client, hash): pieces in order, hashed as they pass."""

    def __init__(self) -> None:
        self._running: dict[tuple[str, bytes], _Transfer] = {}
        self._suspect: dict[bytes, None] = {}

    def __len__(self) -> int:
        return len(self._running)

    def fetch(self, token: object, client: str, digest: bytes, offset: int, length: int, now: float) -> Inquiry:
        """The next piece -> {data, size}; offset 0 begins anew. Raises UnfitError."""
        key = (client, digest)
        if offset == 0:
            self._running.pop(key, None)
            self._make_room(now)
            self._running[key] = _Transfer(digest)
        transfer = self._running.get(key)
        if transfer is None or transfer.offset != offset:
            raise UnfitError("bad-request", "pieces of a blob are asked for in order, from offset 0 on")
        transfer.used = now

        def judge(answer: Message, peer: int) -> Message:
            return self._piece(key, transfer, offset, length, answer, peer)

        inquiry = Inquiry(token, "blob", {"hash": digest, "offset": offset, "length": length}, judge)
        if transfer.peers:
            inquiry.prefer = transfer.last
            inquiry.bound = digest in self._suspect
        return inquiry

    def _piece(
        self, key: tuple[str, bytes], transfer: _Transfer, offset: int, length: int, answer: Message, peer: int
    ) -> Message:
        size = frames.whole(answer, "size", 0, frames.MAX_INT)
        data = frames.binary(answer, "data", length)
        if self._running.get(key) is not transfer or transfer.offset != offset:
            raise UnfitError("bad-request", "the blob was asked for anew meanwhile")
        if transfer.size not in (None, size):
            raise LieError(WRONG_BLOB, f"a blob of {transfer.size} bytes is now one of {size}")
        if offset + len(data) > size or (len(data) < length and offset + len(data) != size):
            raise LieError(WRONG_BLOB, f"{len(data)} bytes at {offset} of a blob of {size}")
        transfer.peers.add(peer)
        transfer.last = peer
        transfer.hash.update(data)
        transfer.offset, transfer.size = offset + len(data), size
        if transfer.offset == size:
            del self._running[key]
            self._finish(transfer)
        return {"data": data, "size": size}

    def _finish(self, transfer: _Transfer) -> None:
        if transfer.hash.digest() == transfer.at:
            self._suspect.pop(transfer.at, None)
            return
        why = "the bytes have another hash than asked for"
        if len(transfer.peers) == 1:
            raise LieError(WRONG_BLOB, why, final=True)
        while len(self._suspect) >= TRANSFERS:
            del self._suspect[next(iter(self._suspect))]
        self._suspect[transfer.at] = None
        raise UnfitError(WRONG_BLOB, f"{why}, and {len(transfer.peers)} peers have sent parts of it")

    def _make_room(self, now: float) -> None:
        idle: Iterable[tuple[str, bytes]] = [key for key, each in self._running.items() if each.used + IDLE <= now]
        for key in idle:
            del self._running[key]
        while len(self._running) >= TRANSFERS:  # the longest unused gives way
            del self._running[min(self._running, key=lambda key: self._running[key].used)]
