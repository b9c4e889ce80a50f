"""What witnesses say of the log's heads (C2SP tlog-cosignature), and the latest one that enough of them have seen."""

from __future__ import annotations

from ..notes import Checkpoint, Note, NoteError, Signature, Signer, open_checkpoint, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..notes import Verifier
    from .tiles import Tree
    from .tilestore import Store

FILE = "witnessed"  # beside the log


class Witnessed:
    """``latest``: the head that enough have cosigned; b'' when there is none. Methods may raise OSError."""

    def __init__(self, store: Store, signer: Signer, witnesses: Sequence[Verifier], quorum: int) -> None:
        self._store, self._tree, self._signer = store, store.tree, signer
        self._witnesses, self._quorum = witnesses, max(1, quorum)
        self.latest = b""
        self._size = -1

    def find(self) -> None:
        """What an earlier process has kept, if it still counts."""
        data = self._store.kept(FILE)
        try:
            checkpoint = self._opened(data, self._quorum)
        except NoteError:
            return
        self.latest, self._size = data, checkpoint.size

    def take(self, data: bytes, head: bytes) -> tuple[bytes, int]:
        """Take the cosignatures of the head in ``data``. ``head``: the present one; it as it then is, and how many
        witnesses have signed the one in ``data`` by now. Raises NoteError when that is no cosigned head of this log.
        """
        checkpoint = self._opened(data, 1)
        text = parse(data).text
        signed = self._merged(
            text, [data, *(each for each in (head, self.latest) if each and parse(each).text == text)]
        )
        note = parse(signed)
        count = len({each.key for each in self._witnesses if each.verifies(note)})
        if count >= self._quorum and checkpoint.size >= self._size:
            self._store.keep(FILE, signed)
            self.latest, self._size = signed, checkpoint.size
        return (signed if parse(head).text == text else head), count

    def _opened(self, data: bytes, quorum: int) -> Checkpoint:
        own = self._signer.verifier
        checkpoint = open_checkpoint(data, [own], self._witnesses, quorum, own.name)
        _check(checkpoint, self._tree)
        return checkpoint

    def _merged(self, text: str, notes: Sequence[bytes]) -> bytes:
        """One note with the log's signature, and of each witness the latest of its signatures."""
        wanted = {(each.name, each.key_hash) for each in self._witnesses}
        latest: dict[tuple[str, int], Signature] = {}
        for note in notes:
            for each in parse(note).signatures:
                who = (each.name, each.key_hash)
                if who in wanted:  # a cosignature begins with its time, big-endian
                    latest[who] = max(latest.get(who, each), each, key=lambda one: one.data[:8])
        return Note(text, (*parse(self._signer.sign(text)).signatures, *latest.values())).encode()


def _check(checkpoint: Checkpoint, tree: Tree) -> None:
    if checkpoint.size > tree.size or checkpoint.root != tree.root(checkpoint.size) or checkpoint.extensions:
        raise NoteError("no head of this log")
