"""What a light node believes, and what it holds against logs: it asks for heads, judges and keeps them. Pure."""

from __future__ import annotations

from . import evidence, frames
from .events import Keep, Note, Save
from .heads import HeadError, Log
from .inquiries import Inquiry, LieError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Protocol

    from ..notes import Verifier
    from .events import Action
    from .evidence import Evidence
    from .wire import Message

    class Node(Protocol):
        """The light node that has these beliefs."""

        def act(self, action: Action) -> None: ...
        def ask(self, index: int, inquiry: Inquiry) -> None: ...
        def refuse(self, index: int, code: str, why: str) -> None: ...
        def peers(self) -> Iterable[int]: ...
        def endpoint(self, index: int) -> str: ...
        def now(self) -> float: ...


class Beliefs:
    """The pinned logs and the evidence."""

    def __init__(self, verifiers: Iterable[Verifier], node: Node) -> None:
        self.logs = {verifier.name: Log(verifier) for verifier in verifiers}
        self.evidence = evidence.Store()
        self.verifiers = {origin: log.verifier for origin, log in self.logs.items()}
        self._node = node

    def restore(self, found: Evidence) -> None:
        """Take evidence that was kept on disk."""
        self.evidence.add(found)
        self.logs[found.origin].accuse(found)

    def tell(self, index: int) -> None:
        """A session has begun: tell that peer what is held against logs."""
        for found in self.evidence.all():
            self._announce(index, found)

    def learn(self, index: int, without: set[str]) -> None:
        """A peer has news: ask it for the heads of all logs but ``without``, and for evidence."""
        for log in self.logs.values():
            if log.origin not in without:
                self._ask_head(index, log)
        self._node.ask(index, Inquiry(None, "announced", {}, self._announced))

    def _ask_head(self, index: int, log: Log) -> None:
        size = log.size

        def judge(result: Message, peer: int) -> Message:
            note = frames.binary(result, "note", frames.MAX_NOTE)
            proof = frames.hashes(result["proof"], "proof") if "proof" in result else None
            if log.size != size and not log.forked:
                self._ask_head(peer, log)  # another peer was quicker: the proof is from another head
            else:
                self._offer(peer, log, note, proof)
            return {}

        self._node.ask(index, Inquiry(None, "head", {"origin": log.origin, "from": size}, judge))

    def _offer(self, index: int, log: Log, note: bytes, proof: Sequence[bytes] | None) -> None:
        try:
            if log.offer(note, proof, self._node.endpoint(index), self._node.now()):
                self._node.act(Save(log.origin, log.note))
        except HeadError as refused:
            if refused.evidence is not None:
                self._keep(refused.evidence)
            if refused.lie:
                raise LieError(refused.code, refused.why) from refused
            self._node.refuse(index, refused.code, refused.why)

    def _keep(self, found: Evidence) -> None:
        """Keep evidence, if it is new, and tell every full peer that is up."""
        new, gone = self.evidence.add(found)
        if not new:
            return
        self._node.act(Keep(found, gone))
        self._node.act(Note(f"evidence against log {found.origin} is kept: {found.kind}", bad=True))
        for index in self._node.peers():
            self._announce(index, found)

    def _announce(self, index: int, found: Evidence) -> None:
        self._node.ask(index, Inquiry(None, "announce", {"evidence": found.message()}, _read))

    def _announced(self, result: Message, _index: int) -> Message:
        """What a full peer hands out. A fork is proof enough; anything else is a report, and changes nothing."""
        for message in frames.maps(result, "evidence", evidence.SHOWN):
            found = evidence.parse(message, self.verifiers)
            for proved in [] if found is None else self.logs[found.origin].accuse(found):
                self._keep(proved)
        return {}


def _read(_result: Message, _index: int) -> Message:
    return {}
