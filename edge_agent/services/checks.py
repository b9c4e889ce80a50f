"""No byte of a blob goes out before the whole was hashed once: in slices, between the requests of others.

A blob that was sound is remembered with its file's mark (inode, size, times) and not hashed again while that stays.
"""

from __future__ import annotations

from .errors import RefusedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .blobs import Blobs, Mark

SLICE = 1024 * 1024  # bytes hashed in one turn of the loop: milliseconds
MOST_CHECKS = 8  # blobs being checked
REMEMBERED = 4096  # sound blobs


class _Check:
    __slots__ = ("done", "mark", "steps")

    def __init__(self, mark: Mark, steps: Iterator[bool | None]) -> None:
        self.mark, self.steps = mark, steps
        self.done = 0


class Checks:
    """The blobs that are known to be sound, and those being looked at.

    ``outcome(key, damaged)`` is called at the end of each check. Neither damaged nor sound: it has changed meanwhile.
    """

    def __init__(self, blobs: Blobs, outcome: Callable[[bytes, bool], None]) -> None:
        self._blobs, self._outcome = blobs, outcome
        self._sound: dict[bytes, Mark] = {}
        self._under_way: dict[bytes, _Check] = {}

    def busy(self) -> bool:
        """Is a blob being checked?"""
        return bool(self._under_way)

    def progress(self, key: bytes) -> tuple[int, int] | None:
        """Bytes of the blob that were looked at, and all; None: it is not being checked."""
        check = self._under_way.get(key)
        return None if check is None else (check.done, check.mark.size)

    def sound(self, key: bytes, mark: Mark) -> bool:
        """Is the blob, as it is now, known to be sound?"""
        return self._sound.get(key) == mark

    def begin(self, key: bytes, mark: Mark) -> None:
        """Check it, unless that is under way. Raises RefusedError."""
        if key in self._under_way:
            return
        if len(self._under_way) >= MOST_CHECKS:
            raise RefusedError("busy", f"{MOST_CHECKS} blobs are being checked", "try again later")
        self._under_way[key] = _Check(mark, self._blobs.check(key, SLICE))

    def work(self) -> None:
        """One slice of the check that is under way for longest."""
        key, check = next(iter(self._under_way.items()))
        try:
            sound = next(check.steps)
        except OSError:
            sound = False  # gone meanwhile, or the device cannot read it: the same to whoever asks
        if sound is None:
            check.done += SLICE
            return
        del self._under_way[key]
        unchanged = self._blobs.mark(key) == check.mark
        if unchanged and sound:
            self.remember(key, check.mark)
        self._outcome(key, unchanged and not sound)

    def remember(self, key: bytes, mark: Mark) -> None:
        """The blob was hashed as it is now."""
        self._sound.pop(key, None)
        if len(self._sound) >= REMEMBERED:
            del self._sound[next(iter(self._sound))]
        self._sound[key] = mark
