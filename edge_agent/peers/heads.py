"""What a light node believes of one log: its key, and the last head it accepted (PROTOCOL.md section 4). Pure."""

from __future__ import annotations

from .. import tlog
from ..notes import Checkpoint, NoteError, Verifier
from ..records import Record
from .evidence import FORK, INCONSISTENT, ROLLBACK, Evidence, open_head, strip

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

WRONG_HEAD, STALE_PROOF, FORKED = "wrong-head", "stale-proof", "forked"


class HeadError(Exception):
    """The head is not believed. ``code`` says how; ``lie``: it is the sender's doing, not the log's."""

    def __init__(self, code: str, why: str, *, lie: bool, evidence: Evidence | None = None) -> None:
        super().__init__(why)
        self.code, self.why, self.lie, self.evidence = code, why, lie, evidence


class View(Record):
    """A log as seen from here."""

    origin: str
    size: int | None  # None: no head yet
    root: bytes
    since: float | None  # when this head was accepted, on the clock given; None: it comes from the disk
    seen: float | None  # when a peer last confirmed it
    source: str  # who showed it first: an endpoint, 'disk', or ''
    forked: bool
    checked: int  # signatures and proofs of heads that held


class Log:
    """One pinned log."""

    def __init__(self, verifier: Verifier) -> None:
        self.verifier = verifier
        self.origin = verifier.name
        self.head: Checkpoint | None = None
        self.note = b""
        self.forked = False
        self._since: float | None = None
        self._seen: float | None = None
        self._source = ""
        self._checked = 0

    @property
    def size(self) -> int:
        """Leaves of the held head; 0 without one."""
        return 0 if self.head is None else self.head.size

    def view(self) -> View:
        """For people."""
        size, root = (None, b"") if self.head is None else (self.head.size, self.head.root)
        return View(self.origin, size, root, self._since, self._seen, self._source, self.forked, self._checked)

    def restore(self, note: bytes) -> None:
        """Take the head that was kept on disk. Raises NoteError: it is believed no more than one from the network."""
        self.head, self.note, self._source = open_head(note, self.verifier), strip(note, self.verifier), "disk"

    def offer(self, note: bytes, proof: Sequence[bytes] | None, source: str, now: float) -> bool:
        """A head that ``source`` shows, with the proof from the held size if it has one: is it a new one?

        Then ``note`` is to be kept on disk before it is used. Raises HeadError.
        """
        try:
            head, kept = open_head(note, self.verifier), strip(note, self.verifier)
        except NoteError as error:
            raise HeadError(WRONG_HEAD, f"a head of {self.origin} is not to be believed: {error}", lie=True) from error
        if self.forked:
            raise HeadError(FORKED, f"{self.origin} has two histories: no head of it is believed any more", lie=False)
        held = self.head
        if held is not None:
            self._compare(held, head, kept, proof)
        self._checked += 1
        self._seen = now
        if held is not None and head.size == held.size:
            return False
        self.head, self.note, self._since, self._source = head, kept, now, source
        return True

    def _compare(self, held: Checkpoint, head: Checkpoint, kept: bytes, proof: Sequence[bytes] | None) -> None:
        if head.size == held.size:
            if head.root != held.root:
                self.forked = True
                why = f"{self.origin} has two histories: two roots of {held.size} leaves, both signed"
                raise HeadError(FORK, why, lie=False, evidence=Evidence(self.origin, FORK, self.note, kept))
            return
        if head.size < held.size:
            why = f"{self.origin} would shrink from {held.size} leaves to {head.size}"
            raise HeadError(ROLLBACK, why, lie=False, evidence=Evidence(self.origin, ROLLBACK, self.note, kept))
        try:
            tlog.verify_consistency(held.size, head.size, list(proof or ()), held.root, head.root)
        except tlog.ProofError as error:
            why = f"{self.origin} of {head.size} leaves is not shown to begin with the {held.size} known: {error}"
            found = Evidence(self.origin, INCONSISTENT, self.note, kept)
            raise HeadError(STALE_PROOF, why, lie=True, evidence=found) from error
        self._checked += 1

    def accuse(self, evidence: Evidence) -> list[Evidence]:
        """Evidence from elsewhere, verified by ``evidence.parse``: what it proves here that was not known.

        Two signed heads of one size are a fork; so is one of them beside the head held here.
        """
        if self.forked:
            return []
        if evidence.kind == FORK:
            self.forked = True
            return [evidence]
        if self.head is None:
            return []
        for note in (evidence.held, evidence.shown):
            head = open_head(note, self.verifier)
            if head.size == self.head.size and head.root != self.head.root:
                self.forked = True
                return [Evidence(self.origin, FORK, self.note, note)]
        return []
