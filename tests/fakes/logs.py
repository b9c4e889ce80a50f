"""A log in memory that answers like the ledger service, a store of blobs, and ways to lie with both."""

from __future__ import annotations

import hashlib
from typing import Any

from edge_agent import tlog
from edge_agent.notes import Checkpoint, Signer
from edge_agent.peers.serving import Call, DeclinedError

Message = dict[str, Any]


class FakeLog:
    """Entries of a log and the key that signs it."""

    def __init__(self, name: str = "log.example", seed: int = 1, entries: int = 0) -> None:
        self.signer = Signer(name, bytes([seed]) * 32)
        self.verifier = self.signer.verifier
        self.entries: list[bytes] = []
        self.grow(entries)

    def grow(self, count: int, mark: bytes = b"entry") -> FakeLog:
        """So many entries more."""
        for _ in range(count):
            self.entries.append(mark + b" %d" % len(self.entries))
        return self

    def fork(self, keep: int) -> FakeLog:
        """Another history with the same key that shares ``keep`` entries."""
        other = FakeLog(self.verifier.name, 1)
        other.signer, other.verifier = self.signer, self.verifier
        other.entries = self.entries[:keep]
        return other

    def leaves(self, size: int) -> list[bytes]:
        return [tlog.leaf_hash(entry) for entry in self.entries[:size]]

    def note(self, size: int | None = None) -> bytes:
        """The signed head of the first ``size`` entries."""
        size = len(self.entries) if size is None else size
        return self.signer.sign(Checkpoint(self.verifier.name, size, tlog.root(self.leaves(size))).text())

    def answer(self, op: str, args: Message) -> Message | DeclinedError:
        """As the ledger service."""
        try:
            return self._answer(op, args)
        except (tlog.ProofError, IndexError, ValueError) as error:
            return DeclinedError("not-found", str(error))

    def _answer(self, op: str, args: Message) -> Message:
        if op == "head":
            return {"checkpoint": self.note()}
        if op == "append":
            first = len(self.entries)
            self.entries += args["entries"]
            return {"first": first, "size": len(self.entries)}
        if op == "consistency":
            return {"proof": tlog.consistency_proof(self.leaves(args["to"]), args["from"])}
        if op == "entries":
            found = self.entries[args["start"] : args["start"] + args["most"]]
            return {"entries": found}
        assert op == "inclusion"
        leaves = self.leaves(args["size"])
        index = args["index"] if "index" in args else leaves.index(args["hash"])
        return {"index": index, "hash": leaves[index], "proof": tlog.inclusion_proof(leaves, index)}


class FakeBlobs:
    """Blobs by their hash, as the storage service has them."""

    def __init__(self, *blobs: bytes) -> None:
        self.blobs = {hashlib.sha256(blob).digest(): blob for blob in blobs}

    def answer(self, op: str, args: Message) -> Message | DeclinedError:
        """As the storage service."""
        assert op == "get"
        blob = self.blobs.get(args["hash"])
        if blob is None:
            return DeclinedError("not-found", "no such blob")
        return {"data": blob[args["offset"] : args["offset"] + args["length"]], "size": len(blob)}


class Machine:
    """The services of one machine: what a full node's Calls reach."""

    def __init__(self, log: FakeLog | None = None, blobs: FakeBlobs | None = None) -> None:
        self.log, self.blobs = log, blobs or FakeBlobs()
        self.calls: list[Call] = []

    def answer(self, call: Call) -> Message | DeclinedError:
        self.calls.append(call)
        if call.service == "storage":
            return self.blobs.answer(call.op, call.args)
        if self.log is None:
            return DeclinedError("unavailable", "ledger does not run here")
        return self.log.answer(call.op, call.args)
