"""Blobs on their way in: a bounded number, each with a declared size, forgotten when their client falls silent."""

from __future__ import annotations

import os

from .errors import RefusedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .blobs import Writer

MOST = 8  # at a time
SILENCE = 60.0  # seconds without a chunk
TOKEN = 16  # bytes; knowing it is the right to go on with the upload


class Upload:
    """One upload: ``size`` bytes are to come, and ``user`` is the only one who may send them."""

    __slots__ = ("expires", "size", "user", "writer")

    def __init__(self, size: int, user: str, writer: Writer, expires: float) -> None:
        self.size, self.user, self.writer, self.expires = size, user, writer, expires


class Uploads:
    """All of them. ``dropped`` is told the size of each one that ends without a blob."""

    def __init__(self, dropped: Callable[[int], None]) -> None:
        self._dropped = dropped
        self._open: dict[bytes, Upload] = {}

    def __len__(self) -> int:
        return len(self._open)

    def missing(self) -> int:
        """Bytes announced and not yet written, of all together."""
        return sum(upload.size - upload.writer.size for upload in self._open.values())

    def check_room(self) -> None:
        """Raises RefusedError('busy') when there are as many as there may be."""
        if len(self._open) >= MOST:
            raise RefusedError("busy", f"{MOST} uploads are under way", "try again later")

    def begin(self, size: int, user: str, writer: Writer, now: float) -> bytes:
        """A new upload; its token."""
        token = os.urandom(TOKEN)
        self._open[token] = Upload(size, user, writer, now + SILENCE)
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
        self._open.pop(token).writer.discard()

    def drop(self, token: bytes) -> None:
        """It will not become a blob."""
        upload = self._open.pop(token)
        upload.writer.discard()
        self._dropped(upload.size)

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
