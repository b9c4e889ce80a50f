"""What a node keeps on disk: the last head of each log, and evidence. All or nothing, over a power cut as well.

heads/HASH     the checkpoint, at most 1 KiB; HASH is of the log's name
evidence/NAME  two signed heads, msgpack, at most 16 files
"""

from __future__ import annotations

import os

from ..digests import sha256
from ..host.journal import sync_directory
from ..notes import NoteError
from ..peers import evidence
from ..peers.wire import WireError
from .errors import StartError
from .log import WARNING, log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from ..notes import Verifier
    from ..peers.evidence import Evidence
    from ..peers.heads import Log

NAME = "node"


class Files:
    """Heads and evidence below ``data_dir``. Raises StartError when the directories cannot be made."""

    def __init__(self, data_dir: str) -> None:
        self._heads, self._evidence = os.path.join(data_dir, "heads"), os.path.join(data_dir, "evidence")
        try:
            for directory in (self._heads, self._evidence):
                os.makedirs(directory, mode=0o700, exist_ok=True)
        except OSError as error:
            raise StartError(f"cannot make {error.filename}: {error.strerror}; fix: space and rights on it") from error

    def restore_heads(self, logs: Iterable[Log]) -> None:
        """Give each log the head that was kept. One that cannot be believed is set aside, and that is said."""
        for each in logs:
            path = self._head(each.origin)
            try:
                each.restore(_read(path, evidence.MAX_KEPT))
            except FileNotFoundError:
                continue
            except (OSError, NoteError) as error:
                _set_aside(path)
                log(NAME, f"cannot use the head kept in {path}: {error}; the next one is believed unseen", WARNING)

    def evidence(self, verifiers: Mapping[str, Verifier]) -> Iterator[Evidence]:
        """What was kept, of logs whose key is still known."""
        for name in sorted(os.listdir(self._evidence)):
            path = os.path.join(self._evidence, name)
            if name.endswith((".new", ".bad")):
                continue
            try:
                found = evidence.load(_read(path, evidence.MAX_BYTES), verifiers)
            except (OSError, WireError) as error:
                _set_aside(path)
                log(NAME, f"cannot use the evidence in {path}: {error}", WARNING)
                continue
            if found is not None:
                yield found

    def save_head(self, origin: str, note: bytes) -> None:
        """Keep a head. A full disk is said: until there is room, a rollback would go unseen after a restart."""
        _write(self._head(origin), note)

    def keep(self, found: Evidence, gone: str) -> None:
        """Keep evidence in the place of ``gone``."""
        _write(os.path.join(self._evidence, found.name), found.pack())
        if gone:
            try:
                os.unlink(os.path.join(self._evidence, gone))
            except OSError:
                pass  # it was not written, as the disk was full

    def _head(self, origin: str) -> str:
        return os.path.join(self._heads, sha256(origin.encode()).hexdigest()[:32])


def _read(path: str, most: int) -> bytes:
    with open(path, "rb") as file:
        return file.read(most + 1)


def _write(path: str, data: bytes) -> None:
    try:
        with open(f"{path}.new", "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(f"{path}.new", path)
        sync_directory(os.path.dirname(path))
    except OSError as error:
        log(NAME, f"cannot write {path}: {error.strerror}; fix: free the disk", WARNING)


def _set_aside(path: str) -> None:
    try:
        os.replace(path, f"{path}.bad")
    except OSError:
        pass
