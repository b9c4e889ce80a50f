"""The identity's keys and its document on disk. The document says which key is which; the files follow it.

    identity.document    the signed document: replaced in one step, so this is where a rotation happens or does not
    identity.key         the secret of the current key; all that releases before the document had
    identity-next.key    that of the next one
    identity-fresh.key   between the making of a key and the document that names it

A power cut leaves the document of before or after, and every secret that it names in one of the files; ``open`` then
gives the files their names. Secrets that no document names any more are removed.
"""

from __future__ import annotations

import base64
import os

from ..host.journal import sync_directory
from . import documents, jws, keyfile, rotation
from .errors import StartError
from .log import WARNING, log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .sealing import Sealing

KIND, LENGTH = "ed25519", 44  # of a key file: a seed in base64
CURRENT, NEXT, FRESH = "identity.key", "identity-next.key", "identity-fresh.key"
DOCUMENT = "identity.document"
MAX_NAME = 64  # characters of a node's name


def _seed(path: str, text: str) -> bytes:
    try:
        seed = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise StartError(f"cannot read the key {path}: not base64; fix: restore it from a backup") from error
    if len(seed) != jws.SEED:
        raise StartError(f"cannot read the key {path}: not {jws.SEED} bytes; fix: restore it from a backup")
    return seed


class KeyStore:
    """What is on disk, open. ``issued``: the time of a document made here, unix seconds or 0. Raises StartError."""

    def __init__(self, directory: str, seal: Sealing, node: str | None, now: float, issued: Callable[[], int]) -> None:
        self._directory, self._seal, self._now = directory, seal, now
        self.created = 0  # of the current key, unix seconds
        secrets = {name: found for name in (CURRENT, NEXT, FRESH) if (found := self._load(name)) is not None}
        text = self._read()
        if text is None:
            self.current, self.after = secrets.get(CURRENT) or self._make(CURRENT), self._make(NEXT)
            name = node or f"node-{self.current.key[:8].hex()}"[:MAX_NAME]
            self.document = rotation.begin(name, self.current, self.after, issued())
            self.text = self._commit(self.document, self.current)
        else:
            self.text, self.document = text, self._parse(text)
            self._take(secrets, issued)
        self._arrange()
        if node is not None and node != self.document.node:
            log("identity", f"renamed from {self.document.node} to {node}: peers must pin its key again", WARNING)
            self.change(rotation.rename(self.document, node, issued()))

    def fresh(self) -> jws.Signer:
        """A new key, on disk until the next change of the document names it, or does not. Raises StartError."""
        return self._make(FRESH)

    def change(self, document: documents.Document, fresh: jws.Signer | None = None) -> None:
        """Put ``document`` in the place of the one there is; its keys are among the ones here and ``fresh``.

        Raises StartError when it cannot be written, and DocumentError when it would be too long: then nothing changed.
        """
        known = {each.key: each for each in (self.current, self.after, fresh) if each is not None}
        current, after = known[document.current], known[document.next]
        self.text = self._commit(document, current)
        self.document, self.current, self.after = document, current, after
        self._arrange()

    def _take(self, secrets: dict[str, jws.Signer], issued: Callable[[], int]) -> None:
        known = {each.key: each for each in secrets.values()}
        document = self.document
        current = known.get(document.current)
        if current is None:
            raise StartError(
                f"cannot use {self._path(DOCUMENT)}: the secret of its current key is missing; fix: restore {CURRENT} "
                f"from a backup, or move {DOCUMENT} away, and have peers pin the new key"
            )
        self.current = current
        after = known.get(document.next)
        if after is not None:
            self.after = after
            return
        log("identity", "the secret of the next key is missing: another one is announced", WARNING)
        lost = self.after = self._make(FRESH)
        name = jws.encode(document.next)
        self.document = rotation.revoke(document, name, "its secret was lost", current, lost, lost, issued())
        self.text = self._commit(self.document, current)

    def _arrange(self) -> None:
        """Give the secrets the names of their roles, and remove those without one."""
        wanted = {CURRENT: self.current.key, NEXT: self.after.key}
        here = {name: found.key for name in (CURRENT, NEXT, FRESH) if (found := self._load(name)) is not None}
        try:
            for name, key in wanted.items():
                if here.get(name) != key:
                    old = next(each for each, held in here.items() if held == key)
                    os.rename(self._path(old), self._path(name))
                    here[name] = here.pop(old)
            for name in set(here) - set(wanted):
                os.unlink(self._path(name))
            sync_directory(self._directory)
        except OSError as error:
            raise StartError(
                f"cannot rename the keys in {self._directory}: {error.strerror}; fix: rights on the directory"
            ) from error
        secret = keyfile.load(self._path(CURRENT), KIND, LENGTH, self._seal)
        self.created = secret.created if secret else 0

    def _load(self, name: str) -> jws.Signer | None:
        path = self._path(name)
        secret = keyfile.load(path, KIND, LENGTH, self._seal)
        return None if secret is None else jws.Signer(_seed(path, secret.text))

    def _make(self, name: str) -> jws.Signer:
        seed = os.urandom(jws.SEED)
        text = base64.b64encode(seed).decode()
        keyfile.write(self._path(name), KIND, keyfile.Secret(text, int(self._now)), self._seal)
        return jws.Signer(seed)

    def _read(self) -> str | None:
        path = self._path(DOCUMENT)
        try:
            with open(path, "rb") as file:
                return file.read(documents.MAX_DOCUMENT + 1).decode("ascii", "replace").strip()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StartError(f"cannot read {path}: {error.strerror}; fix: rights on it") from error

    def _parse(self, text: str) -> documents.Document:
        try:
            return documents.parse(text)
        except documents.DocumentError as error:
            raise StartError(
                f"cannot use {self._path(DOCUMENT)}: {error}; fix: restore it from a backup, or move it away, and "
                "have peers pin the key again"
            ) from error

    def _commit(self, document: documents.Document, signer: jws.Signer) -> str:
        text = documents.write(document, signer)
        path = self._path(DOCUMENT)
        try:
            keyfile.replace(path, f"{text}\n".encode(), 0o644)
        except OSError as error:
            raise StartError(
                f"cannot write {path}: {error.strerror}; fix: space and rights on {self._directory}"
            ) from error
        return text

    def _path(self, name: str) -> str:
        return os.path.join(self._directory, name)
