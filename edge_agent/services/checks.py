"""No byte of a blob goes out before the whole was hashed once: in slices, between the requests of others.

A blob that was sound is remembered with its file's mark (inode, size, times) and not hashed again while that stays.
"""

from __future__ import annotations

from .errors import RefusedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .blobs import Blobs, Mark
    from .requests import Request

SLICE = 1024 * 1024  # bytes hashed in one turn of the loop: milliseconds
MOST_CHECKS = 8  # blobs being checked
MOST_WAITING = 32  # requests that wait for one of them
REMEMBERED = 4096  # sound blobs


class _Check:
    __slots__ = ("mark", "steps", "waiting")

    def __init__(self, mark: Mark, steps: Iterator[bool | None]) -> None:
        self.mark, self.steps = mark, steps
        self.waiting: list[Request] = []


class Checks:
    """Requests that wait until their blob is known to be sound, and the blobs that are."""

    def __init__(
        self, blobs: Blobs, serve: Callable[[bytes, Request, Mark], None], corrupt: Callable[[bytes], None]
    ) -> None:
        self._blobs, self._serve, self._corrupt = blobs, serve, corrupt
        self._sound: dict[bytes, Mark] = {}
        self._under_way: dict[bytes, _Check] = {}

    def busy(self) -> bool:
        """Is a blob being checked?"""
        return bool(self._under_way)

    def when_sound(self, key: bytes, request: Request) -> None:
        """Serve ``request`` once the blob is known to be sound. Raises RefusedError, OSError."""
        mark = self._blobs.mark(key)
        if mark is None:
            raise RefusedError("not-found", "there is no such blob")
        if self._sound.get(key) == mark:
            self._serve(key, request, mark)
            return
        check = self._under_way.get(key)
        if check is None:
            if len(self._under_way) >= MOST_CHECKS:
                raise RefusedError("busy", f"{MOST_CHECKS} blobs are being checked", "try again later")
            check = self._under_way[key] = _Check(mark, self._blobs.check(key, SLICE))
        if len(check.waiting) >= MOST_WAITING:
            raise RefusedError("busy", f"{MOST_WAITING} requests wait for this blob", "try again later")
        check.waiting.append(request)

    def work(self) -> None:
        """One slice of the check that is under way for longest."""
        key, check = next(iter(self._under_way.items()))
        try:
            sound = next(check.steps)
        except OSError:
            sound = False  # gone meanwhile, or the device cannot read it: the same to whoever asks
        if sound is None:
            return
        del self._under_way[key]
        unchanged = self._blobs.mark(key) == check.mark
        if unchanged and sound:
            self._remember(key, check.mark)
        elif unchanged:
            self._corrupt(key)
        for request in check.waiting:
            self._answer(key, request, corrupt=unchanged and not sound)

    def _answer(self, key: bytes, request: Request, *, corrupt: bool) -> None:
        if corrupt:
            why = "the blob was damaged on disk and has been taken out"
            request.fail(RefusedError("corrupt", why, "get it from elsewhere"))
            return
        try:
            self.when_sound(key, request)  # again from the start when the file was replaced meanwhile
        except RefusedError as error:
            request.fail(error)
        except OSError as error:
            request.fail(RefusedError("failed", error.strerror or str(error)))

    def _remember(self, key: bytes, mark: Mark) -> None:
        self._sound.pop(key, None)
        if len(self._sound) >= REMEMBERED:
            del self._sound[next(iter(self._sound))]
        self._sound[key] = mark
