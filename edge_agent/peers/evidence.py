"""Evidence against a log: two heads that its own key has signed (PROTOCOL.md section 5). Pure."""

from __future__ import annotations

from ..digests import sha256
from ..notes import Checkpoint, Note, NoteError, Verifier, open_checkpoint
from ..notes import parse as parse_note
from ..records import Record
from . import frames
from .wire import WireError, pack, unpack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from .wire import Message

FORK, ROLLBACK, INCONSISTENT = "fork", "rollback", "inconsistent"
KINDS = (FORK, ROLLBACK, INCONSISTENT)
MOST = 16  # pieces kept by a node
SHOWN = 8  # pieces in one answer
MAX_KEPT = 1024  # bytes of a head as it is kept
MAX_BYTES = 2 * MAX_KEPT + 512  # packed


class Evidence(Record):
    """``held`` was believed, ``shown`` was refused: both are notes with the log's signature alone."""

    origin: str
    kind: str
    held: bytes
    shown: bytes

    @property
    def name(self) -> str:
        """The same for the same kind against the same log: a file name."""
        return f"{self.kind}-{sha256(self.origin.encode()).hexdigest()[:16]}"

    def message(self) -> Message:
        """As a map, for frames."""
        return dict(zip(self._fields, self, strict=True))

    def pack(self) -> bytes:
        """As bytes, for the disk."""
        return pack(self.message())


def strip(data: bytes, verifier: Verifier) -> bytes:
    """The note with the signatures of ``verifier`` alone: what is kept must not grow by what others add.

    Raises NoteError when that is more than MAX_KEPT bytes.
    """
    note = parse_note(data)
    own = tuple(each for each in note.signatures if (each.name, each.key_hash) == (verifier.name, verifier.key_hash))
    kept = Note(note.text, own[:1]).encode()
    if len(kept) > MAX_KEPT:
        raise NoteError(f"a head of more than {MAX_KEPT} bytes")
    return kept


def open_head(data: bytes, verifier: Verifier) -> Checkpoint:
    """The head in ``data``, signed by ``verifier``, of the log of that name, within the bounds. Raises NoteError."""
    head = open_checkpoint(data, (verifier,), origin=verifier.name)
    if head.size > frames.MAX_INT:
        raise NoteError("a log larger than any")
    return head


def parse(message: Mapping[str, Any], verifiers: Mapping[str, Verifier]) -> Evidence | None:
    """Evidence that somebody sent, its signatures verified and its kind found anew; None: of a log without a key here.

    Raises WireError for what is no evidence.
    """
    origin = frames.text(message, "origin", frames.MAX_ORIGIN)
    kind = frames.text(message, "kind", 32)
    held = frames.binary(message, "held", frames.MAX_NOTE)
    shown = frames.binary(message, "shown", frames.MAX_NOTE)
    verifier = verifiers.get(origin)
    if verifier is None:
        return None
    try:
        one, other = open_head(held, verifier), open_head(shown, verifier)
        held, shown = strip(held, verifier), strip(shown, verifier)
    except NoteError as error:
        raise WireError(f"evidence without the log's signatures: {error}") from error
    if (one.size, one.root) == (other.size, other.root):
        raise WireError("evidence with the same head twice")
    if one.size == other.size:
        kind = FORK
    elif other.size < one.size:
        kind = ROLLBACK
    else:
        kind = INCONSISTENT
    return Evidence(origin, kind, held, shown)


def load(data: bytes, verifiers: Mapping[str, Verifier]) -> Evidence | None:
    """Evidence from the disk, or None as ``parse``. Raises WireError."""
    return parse(unpack(data, MAX_BYTES), verifiers)


class Store:
    """At most MOST pieces, the first of each kind for each log. A fork is never pushed out."""

    def __init__(self) -> None:
        self._kept: dict[str, Evidence] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, evidence: Evidence) -> tuple[bool, str]:
        """Keep it: (is it new, the name of what had to go for it, or '')."""
        if evidence.name in self._kept:
            return False, ""
        gone = ""
        if len(self._kept) >= MOST:
            lesser = [name for name, each in self._kept.items() if each.kind != FORK]
            if evidence.kind != FORK or not lesser:
                return False, ""
            gone = lesser[0]
            del self._kept[gone]
        self._kept[evidence.name] = evidence
        return True, gone

    def all(self) -> tuple[Evidence, ...]:
        """The pieces, forks first, so that these come into one answer."""
        return tuple(sorted(self._kept.values(), key=lambda each: each.kind != FORK))
