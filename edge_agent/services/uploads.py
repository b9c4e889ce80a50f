"""Blobs on their way in: a bounded number, each with a declared size, forgotten when their client falls silent."""

from __future__ import annotations

import os

from .errors import RefusedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .inventory import Incoming

MOST = 8  # at a time
SILENCE = 60.0  # seconds without a chunk
TOKEN = 16  # bytes; knowing it is the right to go on with the upload


class Upload:
    """One upload; ``user`` is the only one who may send it."""

    __slots__ = ("blob", "expires", "user")

    def __init__(self, user: str, blob: Incoming, expires: float) -> None:
        self.user, self.blob, self.expires = user, blob, expires


class Uploads:
    """All of them."""

    def __init__(self) -> None:
        self._open: dict[bytes, Upload] = {}

    def __len__(self) -> int:
        return len(self._open)

    def check_room(self) -> None:
        """Raises RefusedError('busy') when there are as many as there may be."""
        if len(self._open) >= MOST:
            raise RefusedError("busy", f"{MOST} uploads are under way", "try again later")

    def begin(self, user: str, blob: Incoming, now: float) -> bytes:
        """A new upload; its token."""
        token = os.urandom(TOKEN)
        self._open[token] = Upload(user, blob, now + SILENCE)
        return token

    def get(self, token: bytes, user: str, now: float) -> Upload:
        """The upload, kept for another while. Raises RefusedError('no-upload')."""
        upload = self._open.get(token)
        if upload is None or upload.user != user:
            raise RefusedError("no-upload", "there is no such upload; it may have expired", "begin again")
        upload.expires = now + SILENCE
        return upload

    def end(self, token: bytes) -> None:
        """It became a blob."""
        del self._open[token]

    def drop(self, token: bytes) -> None:
        """It will not become a blob."""
        self._open.pop(token).blob.discard()

    def deadline(self) -> float | None:
        """When the next one expires."""
        return min((upload.expires for upload in self._open.values()), default=None)

    def expire(self, now: float) -> None:
        """Drop those that fell silent."""
        for token in [token for token, upload in self._open.items() if upload.expires <= now]:
            self.drop(token)

    def close(self) -> None:
        """Drop all."""
        for token in list(self._open):
            self.drop(token)
