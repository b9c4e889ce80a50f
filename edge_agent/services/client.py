"""Synchronous clients of the bundled services, one class each.

    with Storage.local("/run/edge-agent/bundled/storage") as storage:
        digest = storage.put(data)

Every call raises UnreachableError (no service, no permission), TimedOutError, or ServiceError (the service refused;
its ``code`` says why).
"""

from __future__ import annotations

import hashlib
import os
import time

import zmq

from ..peers import transport
from ..peers.wire import PROTOCOL, WireError, pack, unpack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import TracebackType
    from typing import Any, Self

    from ..peers.wire import Message

MAX_ANSWER = 1024 * 1024  # bytes
PIECE = 256 * 1024  # bytes of a blob per message
PAUSE, MOST_PAUSE = 0.1, 2.0  # seconds until a busy service is asked again


class ClientError(Exception):
    """A request did not succeed."""


class UnreachableError(ClientError):
    """There is no service to talk to, or no permission."""


class TimedOutError(ClientError):
    """No answer in time. Over CURVE also when the service does not know this client's key."""


class ServiceError(ClientError):
    """The service refused the request."""

    def __init__(self, code: str, why: str, fix: str) -> None:
        super().__init__(f"{why}; fix: {fix}" if fix else why)
        self.code, self.why, self.fix = code, why, fix


class Client:
    """A connection to one service. Not for use by several threads; never fork with one open."""

    service = ""

    def __init__(self, endpoint: str, curve: tuple[transport.Key, str] | None = None, timeout: float = 5.0) -> None:
        """``curve``: (own key, the service's public key) for a tcp endpoint. ``timeout``: seconds per request."""
        self.timeout = timeout
        self._context = transport.context()
        self._last = 0
        try:
            self._socket = transport.connect(self._context, endpoint, MAX_ANSWER, curve)
        except transport.TransportError as error:
            self._context.destroy(linger=0)
            raise UnreachableError(str(error)) from error

    @classmethod
    def local(cls, run_dir: str, timeout: float = 5.0) -> Self:
        """The service of this node whose socket is in ``run_dir``. Raises UnreachableError."""
        path = os.path.join(run_dir, f"{cls.service}.sock")
        if not os.path.exists(path):
            raise UnreachableError(f"cannot reach {cls.service}: no socket {path}; fix: start the service")
        if not os.access(path, os.W_OK):
            raise UnreachableError(
                f"cannot reach {cls.service}: no permission for {path}; fix: join its group, or be root"
            )
        return cls(f"ipc://{path}", None, timeout)

    def close(self) -> None:
        """End the connection; fine twice."""
        self._context.destroy(linger=0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()

    def ask(self, op: str, **arguments: Any) -> Message:
        """One request and its answer, for any operation."""
        self._last += 1
        if not transport.send(self._socket, [pack({"v": PROTOCOL, "id": self._last, "op": op, **arguments})]):
            raise TimedOutError(f"cannot send to {self.service}: it does not read")
        deadline = time.monotonic() + self.timeout
        while True:
            answer = self._receive(deadline)
            if answer.get("id") in (self._last, 0):  # 0: the service could not read the request
                break  # any other belongs to a request that timed out
        if answer.get("ok") is True:
            return answer
        error = answer.get("error")
        error = error if isinstance(error, dict) else {}
        raise ServiceError(str(error.get("code", "")), str(error.get("why", "")), str(error.get("fix", "")))

    def _receive(self, deadline: float) -> Message:
        rest = max(0, int((deadline - time.monotonic()) * 1000))
        if not self._socket.poll(rest, zmq.POLLIN):
            raise TimedOutError(f"cannot reach {self.service}: no answer in {self.timeout:g} s")
        parts = transport.receive(self._socket, 1)
        if not parts:
            return {}
        try:
            return unpack(parts[0].bytes, MAX_ANSWER)
        except WireError as error:
            raise ServiceError("malformed", f"the answer of {self.service} is {error}", "") from error

    def health(self) -> Message:
        """{name, release, pid, uptime, answered, refused, handshakes_refused, ...}, by service."""
        return self.ask("health")

    def metrics(self) -> list[Any]:
        """[[name, kind, help, [[labels, value], ...]], ...], see ``services.metrics``."""
        told: list[Any] = self.ask("metrics")["metrics"]
        return told


class Identity(Client):
    """The node's keys, tokens, and document."""

    service = "identity"

    def document(self) -> str:
        """The signed identity document: ``documents.parse`` reads it, ``documents.follow`` leads to it from a pin."""
        text: str = self.ask("document")["document"]
        return text

    def token(self, audience: str, **claims: Any) -> str:
        """A token for ``audience``. ``claims``: subject, scope, lifetime (seconds), nonce."""
        token: str = self.ask("token", audience=audience, **claims)["token"]
        return token

    def challenge(self) -> str:
        """A nonce to be put into a token that this node will check once, within two minutes."""
        nonce: str = self.ask("challenge")["nonce"]
        return nonce

    def check(self, token: str, audience: str, document: str = "", pinned: bytes = b"") -> Message:
        """{valid, claims} or {valid, code, why, fix}; of this node, or of the one whose ``document`` it is."""
        other = {"document": document, "pinned": pinned} if document else {}
        return self.ask("check", token=token, audience=audience, **other)

    def rotate(self, overlap: int | None = None) -> str:
        """The next key becomes the current one; the new document. ``overlap``: seconds the old one stays valid."""
        given = {} if overlap is None else {"overlap": overlap}
        text: str = self.ask("rotate", **given)["document"]
        return text

    def revoke(self, key: str, reason: str = "") -> str:
        """``key`` (base64url or Z85) is valid for nothing any more; the new document."""
        text: str = self.ask("revoke", key=key, reason=reason)["document"]
        return text

    def enrol(self, service: str, *keys: str) -> str:
        """The CURVE keys (Z85) of a service of this node: the present one, and the next; the new document."""
        text: str = self.ask("enrol", service=service, keys=list(keys))["document"]
        return text

    def public(self) -> Message:
        """The identity document {node_id, ed25519 (base64), created (seconds since 1970)}."""
        document: Message = self.ask("public")["document"]
        return document

    def sign(self, data: bytes) -> bytes:
        """The node's Ed25519 signature over ``data``, 64 bytes."""
        signature: bytes = self.ask("sign", data=data)["signature"]
        return signature

    def verify(self, data: bytes, signature: bytes, key: bytes | None = None) -> bool:
        """Is this ``key``'s (default: this node's) signature over ``data``?"""
        given = {} if key is None else {"key": key}
        return self.ask("verify", data=data, signature=signature, **given)["valid"] is True


class Storage(Client):
    """Blobs by their SHA-256.

    A blob that is fetched from peers, or is large and not checked yet, may take minutes: ``patience`` is how many
    seconds that may go on without a byte more, and how long a busy service is asked again.
    """

    service = "storage"
    patience = 60.0

    def put(self, data: bytes) -> bytes:
        """Store ``data``; its hash."""
        pieces = (data[start : start + PIECE] for start in range(0, len(data), PIECE))
        return self.put_stream(pieces, len(data))

    def put_stream(self, pieces: Iterable[bytes], size: int) -> bytes:
        """Store ``size`` bytes that come in pieces of at most 512 KiB; their hash, computed at both ends."""
        upload = self._patiently("begin", size=size)["upload"]
        digest, offset = hashlib.sha256(), 0
        for piece in pieces:
            digest.update(piece)
            offset = self._patiently("chunk", upload=upload, offset=offset, data=piece)["offset"]
        key: bytes = self._patiently("commit", upload=upload, hash=digest.digest())["hash"]
        return key

    def get(self, key: bytes) -> bytes:
        """The whole blob, in memory."""
        return b"".join(self.get_stream(key))

    def get_stream(self, key: bytes) -> Iterator[bytes]:
        """The blob in pieces. Raises ServiceError('corrupt') at the end when the bytes do not have that hash."""
        digest, offset, size = hashlib.sha256(), 0, 1
        while offset < size:
            answer = self._patiently("get", hash=key, offset=offset, length=PIECE)
            piece, size = answer["data"], answer["size"]
            if not piece and offset < size:
                break
            digest.update(piece)
            offset += len(piece)
            yield piece
        if digest.digest() != key:
            raise ServiceError("corrupt", "the bytes received do not have that hash", "get it from elsewhere")

    def _patiently(self, op: str, **arguments: Any) -> Message:
        """Ask until the service is less busy, and until the blob is checked or fetched as long as that goes on."""
        told, until, pause = "", 0.0, PAUSE
        while True:
            try:
                return self.ask(op, **arguments)
            except ServiceError as error:
                if error.code not in ("pending", "busy"):
                    raise
                if error.why != told:  # says how far it is
                    told, until, pause = error.why, time.monotonic() + self.patience, PAUSE
                elif time.monotonic() >= until:
                    raise
                if error.code == "busy":  # over its rate, on the port, or too many at once
                    time.sleep(pause)
                    pause = min(2 * pause, MOST_PAUSE)

    def has(self, key: bytes) -> bool:
        """Is the blob there?"""
        return self.ask("has", hash=key)["has"] is True

    def size(self, key: bytes) -> int:
        """Its size in bytes."""
        size: int = self.stat(key)["size"]
        return size

    def stat(self, key: bytes) -> Message:
        """{size (bytes), pinned, replicas (nodes that should have it)}."""
        return self.ask("stat", hash=key)

    def pin(self, key: bytes) -> None:
        """Keep the blob until it is unpinned; fetch it first where storage reads through."""
        self._patiently("pin", hash=key)

    def unpin(self, key: bytes) -> bool:
        """Let it go when it has to; False when it was not pinned."""
        return self.ask("unpin", hash=key)["unpinned"] is True

    def replicas(self, key: bytes, wished: int | None = None) -> int:
        """How many nodes should have the blob, from now on with ``wished`` (1 to 255)."""
        told: int = self.ask("replicas", hash=key, **({} if wished is None else {"wished": wished}))["wished"]
        return told

    def wishes(self) -> Iterator[Message]:
        """{hash, pinned, replicas} of every blob of which something was wished, ascending."""
        answer = self.ask("wishes")
        while True:
            yield from answer["wishes"]
            if not answer["more"]:
                return
            answer = self.ask("wishes", after=answer["wishes"][-1]["hash"])

    def scrub(self, rate: int | None = None) -> Message:
        """Check every blob now, reading ``rate`` bytes a second (default: the profile's); how it was up to now.

        {running, blobs, bytes, damaged, finished (seconds since 1970, or None)}; later ones are in ``health``.
        """
        return self.ask("scrub", **({} if rate is None else {"rate": rate}))

    def delete(self, key: bytes) -> bool:
        """Remove the blob; False when it was not there."""
        return self.ask("delete", hash=key)["deleted"] is True

    def hashes(self) -> Iterator[bytes]:
        """Every hash, ascending."""
        answer = self.ask("list")
        while True:
            yield from answer["hashes"]
            if not answer["more"]:
                return
            answer = self.ask("list", after=answer["hashes"][-1])


class Ledger(Client):
    """The log. ``edge_agent.tlog`` verifies proofs, ``edge_agent.notes`` heads."""

    service = "ledger"

    def append(self, *entries: bytes) -> tuple[int, int]:
        """Add entries, at most 60 KiB each; the index of the first, and the size of a tree that has them all."""
        answer = self.ask("append", entries=list(entries))
        return answer["first"], answer["size"]

    def head(self, *, witnessed: bool = False) -> bytes:
        """The signed checkpoint; ``witnessed``: the latest that enough witnesses have cosigned."""
        head: bytes = self.ask("head", witnessed=witnessed)["checkpoint"]
        return head

    def vkey(self) -> str:
        """The log's verifier key, which others pin."""
        vkey: str = self.ask("key")["vkey"]
        return vkey

    def inclusion(self, place: int | bytes, size: int) -> tuple[bytes, int, list[bytes]]:
        """Leaf hash, index and proof of the entry with this index, or of the first with this leaf hash."""
        given = {"hash": place} if isinstance(place, bytes) else {"index": place}
        answer = self.ask("inclusion", size=size, **given)
        return answer.get("hash", place), answer["index"], answer["proof"]

    def consistency(self, size1: int, size2: int) -> list[bytes]:
        """The proof that the log of ``size1`` entries is the beginning of the one of ``size2``."""
        proof: list[bytes] = self.ask("consistency", **{"from": size1, "to": size2})["proof"]
        return proof

    def entries(self, start: int, most: int = 1000) -> list[bytes]:
        """Entries from index ``start`` on, as many as one answer holds; [] at the end."""
        entries: list[bytes] = self.ask("entries", start=start, most=most)["entries"]
        return entries

    def cosign(self, checkpoint: bytes) -> int:
        """Hand in cosignatures of a head of this log; how many of its witnesses have signed that by now."""
        count: int = self.ask("cosign", checkpoint=checkpoint)["count"]
        return count


class Telemetry(Client):
    """What everything on this node measures."""

    service = "telemetry"

    def gathered(self) -> bytes:
        """The page, at most a second old, for ``telemetry_text.unpack_page``."""
        page: bytes = self.ask("gathered")["page"]
        return page


class Analytics(Client):
    """What was measured, in buckets of time."""

    service = "analytics"

    def record(self, metric: str, value: float, kind: str = "gauge", **labels: str) -> None:
        """One sample of the caller's own. ``kind``: counter | gauge."""
        self.ask("record", metric=metric, value=value, kind=kind, labels=labels)

    def flush(self) -> None:
        """Have what is held in memory written now."""
        self.ask("flush")

    def series(self, metric: str = "", **labels: str) -> Iterator[Message]:
        """{metric, labels, kind} of each series with these labels and perhaps others."""
        for answer in self._pages("series", metric=metric, labels=labels):
            yield from answer["series"]

    def query(self, metric: str, begin: int, end: int, step: int, **labels: str) -> list[Message]:
        """{metric, labels, kind, step, times, number, total, low, high, last} of each series, times in [begin, end).

        Times are unix seconds; ``step`` is the length of a bucket in seconds, perhaps another than the one asked for.
        """
        found: list[Message] = []
        for answer in self._pages("query", metric=metric, labels=labels, to=end, step=step, **{"from": begin}):
            for part in answer["series"]:
                same = found and found[-1]["labels"] == part["labels"] and found[-1]["step"] == answer["step"]
                if same:
                    for column in ("times", "number", "total", "low", "high", "last"):
                        found[-1][column] += part[column]
                else:
                    found.append({**part, "step": answer["step"]})
        return found

    def _pages(self, op: str, **arguments: Any) -> Iterator[Message]:
        answer = self.ask(op, **arguments)
        while True:
            yield answer
            if answer["after"] is None:
                return
            answer = self.ask(op, **arguments, after=answer["after"])


class Node(Client):
    """The link to other nodes. A light node asks its full peers for what is not here: give it half a minute."""

    service = "node"

    def peers(self) -> Message:
        """{mode, peers: [...]}, see ``services.node``."""
        return self.ask("peers")

    def key(self) -> str:
        """This node's CURVE public key (Z85)."""
        key: str = self.ask("key")["public"]
        return key

    def heads(self) -> list[Message]:
        """The logs that are believed: [{origin, size, root, time, source, forked, checked}]."""
        heads: list[Message] = self.ask("heads")["heads"]
        return heads

    def refused(self) -> Message:
        """What was not believed lately, and what is held against logs: {refused: [...], evidence: [...]}."""
        return self.ask("refused")

    def includes(self, origin: str, leaf: bytes) -> tuple[int, int]:
        """(index, size): where the leaf with this hash is, as proved under the head of ``size`` entries."""
        answer = self.ask("includes", origin=origin, hash=leaf)
        return answer["index"], answer["size"]

    def entries(self, origin: str, start: int, most: int) -> list[bytes]:
        """At least one entry from ``start`` on, each proved to be there."""
        entries: list[bytes] = self.ask("entries", origin=origin, start=start, most=most)["entries"]
        return entries

    def submit(self, origin: str, entry: bytes) -> tuple[int, int]:
        """(index, size) that a full peer promises; ``includes`` proves it later."""
        answer = self.ask("submit", origin=origin, entry=entry)
        return answer["index"], answer["size"]

    def fetch(self, key: bytes) -> bytes:
        """A whole blob from the best full peer, in memory. Raises ServiceError('wrong-blob') at its end."""
        data, size = b"", 1
        while len(data) < size:
            answer = self.ask("fetch", hash=key, offset=len(data), length=PIECE)
            data, size = data + answer["data"], answer["size"]
            if size == 0:
                break
        return data
