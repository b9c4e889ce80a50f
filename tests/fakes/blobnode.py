"""A light node as storage sees it: its ``fetch``, with peers that are away, late or lie."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable
from typing import Any


class DeclinedError(Exception):
    """As ``peers.serving.DeclinedError``."""

    def __init__(self, code: str, why: str = "") -> None:
        super().__init__(why)
        self.code, self.why = code, why


class FakeNode:
    """``blobs``: what the peers have. ``faults``: what becomes of the next questions instead, in order.

    A fault is a code to decline with, 'corrupt' (the piece is changed), 'size', 'short', 'garbage' or '' (none).
    ``checks``: does the node notice a wrong hash itself, as the real one does?
    """

    def __init__(self, *blobs: bytes, checks: bool = True) -> None:
        self.blobs = {hashlib.sha256(blob).digest(): blob for blob in blobs}
        self.faults: deque[str] = deque()
        self.checks = checks
        self.asked: list[tuple[bytes, int]] = []
        self.waiting: deque[tuple[int, dict[str, Any]]] = deque()
        self.deliver: Callable[[int, Any], None] = lambda _token, _result: None
        self.closed = False
        self._passed: dict[bytes, bytearray] = {}

    def ask(self, token: int, op: str, args: dict[str, Any]) -> None:
        assert op == "fetch"
        self.asked.append((args["hash"], args["offset"]))
        self.waiting.append((token, args))

    def deadline(self) -> float | None:
        return None

    def tick(self, now: float) -> None:
        pass

    def close(self) -> None:
        self.closed = True

    def answer(self) -> None:
        """To the oldest question."""
        token, args = self.waiting.popleft()
        self.deliver(token, self._result(args["hash"], args["offset"], args["length"]))

    def _result(self, key: bytes, offset: int, length: int) -> Any:
        fault = self.faults.popleft() if self.faults else ""
        if fault not in ("", "corrupt", "size", "short", "garbage"):
            return DeclinedError(fault, "so it is")
        if key not in self.blobs:
            return DeclinedError("not-found", "no peer has it")
        blob = self.blobs[key]
        passed = self._passed.setdefault(key, bytearray())
        if offset == 0:
            passed.clear()
        elif offset != len(passed):
            return DeclinedError("bad-request", "pieces of a blob are asked for in order")
        data, size = blob[offset : offset + length], len(blob)
        if fault == "corrupt":
            data = bytes(len(data)) if any(data) else b"\1" * len(data)
        passed += data
        if self.checks and len(passed) == size and hashlib.sha256(passed).digest() != key:
            return DeclinedError("wrong-blob", "the bytes have another hash than asked for")
        if fault == "garbage":
            return {"data": "text", "size": None}
        return {"data": data[1:] if fault == "short" else data, "size": size + (fault == "size")}
