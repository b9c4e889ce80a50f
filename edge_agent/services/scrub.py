"""Every blob is read from the device and hashed now and then, in slices, at a rate that leaves the device to others.

A round goes through the hashes in ascending order. How far it is, and when the last one ended, is in a file, so that a
device that is often switched off gets to the end all the same. Reading changes nothing on the disk: no access times.
"""

from __future__ import annotations

import os

from .log import WARNING, log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..peers.wire import Message
    from .blobs import Blobs, Mark

SLICE = 256 * 1024  # bytes between two pauses
LEAST = 4096  # bytes that a blob counts as
IDLE = 9.0  # a slice that took a second is followed by so many of pause: at most a tenth of a slow device's time
DELAY = 60.0  # seconds after a start
SAVE_EVERY = 600.0  # seconds of a round: flash wears


class Scrub:
    """``damaged(key)`` is told each blob that is not what it should be; ``begun()`` that a round begins.

    ``interval``: seconds from the end of a round to the next, 0: never by itself. ``rate``: bytes a second.
    ``clock``: monotonic, ``wall``: seconds since 1970; when it is wrong a round comes early, or an interval late.
    """

    def __init__(
        self,
        blobs: Blobs,
        damaged: Callable[[bytes], object],
        begun: Callable[[], None],
        clock: Callable[[], float],
        wall: Callable[[], float],
        interval: float,
        rate: int,
    ) -> None:
        self._blobs, self._damaged, self._begun = blobs, damaged, begun
        self._clock, self._wall, self._interval, self._usual = clock, wall, interval, rate
        self._path = os.path.join(blobs.root, "scrub")
        self._rate, self._idle = rate, IDLE
        self._due: float | None = None
        self._cursor = b""
        self._round: Iterator[tuple[bytes, bool | None, int]] | None = None
        self._saved = 0.0
        self.finished: float | None = None  # wall clock
        self.blobs = self.bytes = self.bad = 0  # of this round, or the last one

    def open(self) -> None:
        """Find out when the next round is due."""
        self._cursor, self.finished = _read(self._path)
        if self.finished is None and not self._cursor:
            self.finished = self._wall()  # nothing was checked, but nothing is old either
            self._save()
        self._settle(self._wall() - (self.finished or 0.0))

    def close(self) -> None:
        """Remember how far the round is."""
        if self._round is not None:
            self._save()

    def start(self, rate: int | None) -> None:
        """A round now, or the rest of the one under way, at ``rate`` bytes a second (None: the usual).

        Who names a rate means it, whatever the device has besides.
        """
        self._rate, self._idle = rate or self._usual, 0.0 if rate else IDLE
        self._due = self._clock()
        if self._round is None:
            self._begin(self._due)  # may raise OSError

    def deadline(self) -> float | None:
        """When ``tick`` is due."""
        return self._due

    def tick(self) -> None:
        """One slice, if it is time."""
        began = self._clock()
        if self._due is None or self._due > began:
            return
        try:
            if self._round is None:
                self._begin(began)
            done = self._slice()
        except OSError as error:  # of a directory; those of blobs count as damage
            log("storage", f"scrub: given up: {error}; fix: check the disk", WARNING)
            self._forget()
            return
        if done is None:
            self.finished = self._wall()
            self._forget()
            log("storage", f"scrub: {self.blobs} blobs of {self.bytes} bytes are checked, {self.bad} were damaged")
            return
        now = self._clock()
        self._due = now + pause(done, now - began, self._rate, self._idle)
        if now - self._saved >= SAVE_EVERY:
            self._save()
            self._saved = now

    def _slice(self) -> int | None:
        """Bytes that were looked at; None: the round is over."""
        done = 0
        while self._round is not None and done < SLICE:
            found = next(self._round, None)
            if found is None:
                return None
            key, sound, size = found
            done += max(size, LEAST) if sound is not None else SLICE
            self.bytes += size
            if sound is not None:
                self._cursor = key
                self.blobs += 1
            if sound is False:
                self.bad += 1
                self._damaged(key)
        return done

    def state(self) -> Message:
        """{running, blobs, bytes, damaged, finished}: of the round under way or the last one; wall clock, or nil."""
        return {
            "running": self._round is not None,
            "blobs": self.blobs,
            "bytes": self.bytes,
            "damaged": self.bad,
            "finished": self.finished,
        }

    def _settle(self, passed: float) -> None:
        if self._cursor:
            self._due = self._clock() + DELAY
        elif self._interval:
            rest = min(self._interval, max(0.0, self._interval - passed))
            self._due = self._clock() + max(DELAY, rest)
        else:
            self._due = None

    def _begin(self, now: float) -> None:
        self.blobs = self.bytes = self.bad = 0
        self._saved = now
        self._round = self._slices(self._cursor)
        self._begun()

    def _forget(self) -> None:
        """The round is over."""
        self._round, self._cursor = None, b""
        self._rate, self._idle = self._usual, IDLE
        self._save()
        self._settle(0.0)

    def _slices(self, after: bytes) -> Iterator[tuple[bytes, bool | None, int]]:
        """(blob, None while there is more of it or whether it is sound, bytes looked at)."""
        for key in self._blobs.keys(after):
            mark = self._blobs.mark(key)
            if mark is not None:
                yield from self._slices_of(key, mark)

    def _slices_of(self, key: bytes, mark: Mark) -> Iterator[tuple[bytes, bool | None, int]]:
        left = mark.size
        try:
            for sound in self._blobs.check(key, SLICE, from_device=True):
                if sound is None:
                    left -= SLICE
                    yield key, None, SLICE
                else:
                    yield key, sound or self._blobs.mark(key) != mark, max(0, left)
        except OSError:  # gone meanwhile, or the device cannot read it
            yield key, self._blobs.mark(key) != mark, 0

    def _save(self) -> None:
        """No fsync: what a power cut takes from it is only done again."""
        temporary = self._path + ".new"
        try:
            with open(temporary, "w", encoding="ascii") as file:
                file.write(f"{self._cursor.hex() or '-'} {self.finished or 0:.0f}\n")
            os.rename(temporary, self._path)
        except OSError:
            pass


def pause(done: int, took: float, rate: int, idle: float) -> float:
    """Seconds until the next slice, after one of ``done`` bytes that took ``took`` seconds."""
    return max(done / rate - took, idle * took, 0.0)


def _read(path: str) -> tuple[bytes, float | None]:
    """The cursor (b'': no round under way) and when the last round ended (None: none yet)."""
    try:
        with open(path, encoding="ascii") as file:
            cursor, finished = file.read(256).split()
        key = b"" if cursor == "-" else bytes.fromhex(cursor)
        return (key if len(key) == 32 else b""), float(int(finished)) or None
    except (OSError, ValueError):  # no file, or not whole: it begins anew
        return b"", None
