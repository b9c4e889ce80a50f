"""A light client of the peer protocol in one file: pyzmq, msgpack, and what Python brings. Nothing of edge_agent.

It was written from edge_agent/peers/PROTOCOL.md, RFC 9162 section 2.1 and https://c2sp.org/signed-note, so whatever the
text leaves out does not work here. It believes one log and waits for each answer.
"""

from __future__ import annotations

import base64
from hashlib import sha256
from types import TracebackType
from typing import Any, Self

import msgpack
import zmq

from .ed25519 import verify

Frame = dict[str, Any]


class LieError(Exception):
    """The full node's answer cannot be believed."""


class RefusalError(Exception):
    """The full node has refused; ``code`` is one of section 2."""

    def __init__(self, error: Frame) -> None:
        super().__init__(f"{error['code']}: {error['why']}")
        self.code: str = error["code"]
        self.error = error


class Client:
    """One connection to one full node (section 1). ``vkey`` is the pinned key of the log."""

    def __init__(self, endpoint: str, server: str, secret: str, vkey: str, timeout: float = 10.0) -> None:
        self.origin, hash_text, key_text = vkey.split("+", 2)
        key = base64.b64decode(key_text)
        assert key[0] == 1, "an Ed25519 key"
        self._key, self._hash = key[1:], bytes.fromhex(hash_text)
        self.size, self.root, self.note = 0, sha256().digest(), b""
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.linger = 0
        self._socket.maxmsgsize = 320 * 1024
        self._socket.curve_serverkey = server.encode()
        self._socket.curve_secretkey = secret.encode()
        self._socket.curve_publickey = zmq.curve_public(secret.encode())
        self._socket.connect(endpoint)
        self._timeout = timeout
        self._last = 0
        self._base = 0
        self._told: Frame = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._socket.close(linger=0)
        self._context.term()

    # -- section 2

    def raw(self, data: bytes | list[bytes]) -> bytes | None:
        """Any bytes, and what comes back, if something does."""
        self._socket.send_multipart(data if isinstance(data, list) else [data])
        if not self._socket.poll(int(self._timeout * 1000)):
            return None
        parts = self._socket.recv_multipart()
        assert len(parts) == 1
        return parts[0]

    def ask(self, op: str, number: int = 0, **arguments: Any) -> Frame:
        """One request and its answer."""
        self._last = number or self._last + 1
        data = self.raw(msgpack.packb({"v": 2, "id": self._last, "op": op, **arguments}))
        if data is None:
            raise TimeoutError(op)
        answer = msgpack.unpackb(data)
        if not isinstance(answer, dict) or answer.get("v") != 2 or answer.get("id") not in (self._last, 0):
            raise LieError(f"no answer to {self._last}: {answer}")
        if "error" in answer:
            raise RefusalError(answer["error"])
        return answer

    # -- section 3

    def beat(self, **status: int | str | bool) -> Frame:
        """Be there, with this whole status: a first beat, or the difference."""
        if not self._base:
            answer = self.ask("beat", set=status)
        else:
            change = {key: value for key, value in status.items() if self._told.get(key) != value}
            change |= {key: None for key in self._told if key not in status}
            answer = self.ask("beat", base=self._base, **({"set": change} if change else {}))
            if answer.get("again"):
                self._base = 0
                return self.beat(**status)
        self._base, self._told = self._last, status
        return answer

    # -- section 4

    def head(self) -> int:
        """Ask for the head, and believe it if it follows from the one held; its size."""
        answer = self.ask("head", origin=self.origin, **{"from": self.size})
        size, root = self._open(answer["note"])
        if size < self.size:
            raise LieError("rollback")
        if size == self.size and root != self.root and self.note:
            raise LieError("fork")
        if 0 < self.size < size and not consistent(self.size, size, answer.get("proof", []), self.root, root):
            raise LieError("stale-proof")
        self.size, self.root, self.note = size, root, answer["note"]
        return size

    def _open(self, note: bytes) -> tuple[int, bytes]:
        """https://c2sp.org/tlog-checkpoint: (size, root) of a head that the pinned key has signed."""
        text, signatures = note.decode().rsplit("\n\n", 1)
        text += "\n"
        for line in signatures.splitlines():
            dash, name, encoded = line.split(" ")
            data = base64.b64decode(encoded)
            if (dash, name, data[:4]) == ("\u2014", self.origin, self._hash) and verify(
                self._key, text.encode(), data[4:]
            ):
                origin, size, root = text.splitlines()[:3]
                if origin == self.origin:
                    return int(size), base64.b64decode(root)
        raise LieError("wrong-head")

    def entries(self, start: int, most: int) -> list[bytes]:
        """Entries, each proved."""
        answer = self.ask("entries", origin=self.origin, size=self.size, start=start, most=most)
        found: list[bytes] = answer["entries"]
        for place, (entry, proof) in enumerate(zip(found, answer["proofs"], strict=True)):
            if not included(sha256(b"\0" + entry).digest(), start + place, self.size, proof, self.root):
                raise LieError("wrong-entry")
        return found

    def index(self, entry: bytes) -> int:
        """Where the entry is, proved."""
        leaf = sha256(b"\0" + entry).digest()
        answer = self.ask("inclusion", origin=self.origin, size=self.size, hash=leaf)
        if not included(leaf, answer["index"], self.size, answer["proof"], self.root):
            raise LieError("wrong-entry")
        index: int = answer["index"]
        return index

    # -- section 6

    def blob(self, digest: bytes, piece: int = 256 * 1024) -> bytes:
        """A blob, its hash checked."""
        data = b""
        while True:
            answer = self.ask("blob", hash=digest, offset=len(data), length=piece)
            data += answer["data"]
            if len(data) >= answer["size"] or not answer["data"]:
                break
        if sha256(data).digest() != digest:
            raise LieError("wrong-blob")
        return data


# -- RFC 9162 sections 2.1.3.2 and 2.1.4.2, step by step


def _node(left: bytes, right: bytes) -> bytes:
    return sha256(b"\1" + left + right).digest()


def included(leaf: bytes, index: int, size: int, proof: list[bytes], root: bytes) -> bool:
    """Is ``leaf`` at ``index`` of the tree?"""
    if index >= size:
        return False
    fn, sn, r = index, size - 1, leaf
    for p in proof:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            r = _node(p, r)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            r = _node(r, p)
        fn, sn = fn >> 1, sn >> 1
    return sn == 0 and r == root


def consistent(first: int, second: int, proof: list[bytes], first_root: bytes, second_root: bytes) -> bool:
    """Is the first tree the beginning of the second? 0 < first < second."""
    path = list(proof)
    if first & (first - 1) == 0:
        path.insert(0, first_root)
    if not path:
        return False
    fn, sn = first - 1, second - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    fr = sr = path[0]
    for c in path[1:]:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            fr, sr = _node(c, fr), _node(c, sr)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            sr = _node(sr, c)
        fn, sn = fn >> 1, sn >> 1
    return (fr, sr, sn) == (first_root, second_root, 0)
