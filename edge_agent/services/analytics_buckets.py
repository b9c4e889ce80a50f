"""Samples into buckets of time, and which time it is when nobody has set the clock. Pure.

A sample is held with the time since boot, which nobody sets, and gets its place in a bucket when it is written, by what
the clock then says. So what a device without a real-time clock measures in "1970" is put where it belongs once the time
is known, as long as it is held; a jump in between moves what is held, and never what is written.
"""

from __future__ import annotations

from array import array

from ..records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

STEPS = (60, 900, 14_400)
"""Seconds of the buckets of each tier, finest first."""
EPOCH = 1_735_689_600
"""2025-01-01: a clock that says less has not been set, as this program is younger."""
MAX_HELD = 20_000
"""Samples in memory, 32 bytes each, and ten times that while they are rolled up; so many do not wait any longer."""
DAY = 86_400


class Rollup(Record):
    """What became of the samples of one series in one bucket. Of a counter ``total`` is its increase."""

    number: int
    total: float
    low: float
    high: float
    last: float  # as it was sent

    def plus(self, other: Rollup) -> Rollup:
        """Both in one; ``other`` is the later."""
        low, high = min(self.low, other.low), max(self.high, other.high)
        return Rollup(self.number + other.number, self.total + other.total, low, high, other.last)


class Row(Record):
    """A rollup and its place."""

    step: int
    start: int  # unix seconds, a multiple of ``step``
    series: int
    rollup: Rollup


class Held:
    """Samples that are not written yet."""

    def __init__(self) -> None:
        self._steady, self._values, self._raw = array("d"), array("d"), array("d")
        self._series = array("q")
        self._previous: dict[int, float] = {}  # of counters

    def __len__(self) -> int:
        return len(self._series)

    def remember(self, series: int, raw: float) -> None:
        """The last known value of a counter, from before this process."""
        self._previous[series] = raw

    def add(self, steady: float, series: int, value: float, *, counter: bool) -> None:
        """One sample at ``steady`` seconds since boot. Of a counter the increase counts; one that fell began anew."""
        increase = value
        if counter:
            before = self._previous.get(series, value)
            increase = value - before if value >= before else value
            self._previous[series] = value
        self._steady.append(steady)
        self._series.append(series)
        self._values.append(increase)
        self._raw.append(value)

    def rows(self, offset: float, steps: Iterable[int] = STEPS, only: int | None = None) -> list[Row]:
        """The held samples in buckets, sorted by place. ``offset``: of unix time to the time since boot."""
        found: dict[tuple[int, int, int], Rollup] = {}
        for steady, series, value, raw in zip(self._steady, self._series, self._values, self._raw, strict=True):
            if only is not None and series != only:
                continue
            rollup = Rollup(1, value, value, value, raw)
            for step in steps:
                place = (step, int(steady + offset) // step * step, series)
                before = found.get(place)
                found[place] = rollup if before is None else before.plus(rollup)
        return [Row(*place, found[place]) for place in sorted(found)]

    def first(self) -> float:
        """Seconds since boot of the earliest sample; there is one."""
        return self._steady[0]

    def clear(self) -> None:
        """They are written."""
        for column in (self._steady, self._values, self._raw, self._series):
            del column[:]


def offset(wall: float, steady: float) -> float | None:
    """Of unix time to the time since boot; None while the clock has not been set."""
    return wall - steady if wall >= EPOCH else None


def guessed(newest: int | None, first: float, wall: float, steady: float) -> float:
    """The same for a clock that has not been set when there is no more waiting: right behind the newest bucket.

    Time then does not go back; where there is no bucket yet, the clock is taken at its word.
    """
    return wall - steady if newest is None else newest + STEPS[0] - first


def victim(spans: Mapping[int, tuple[int, int]], now: float) -> tuple[int, int] | None:
    """(step, start) of the bucket to give up. ``spans``: first and last start of each tier that has any, by step.

    What lies in the future was written while the clock was wrong, and goes first. Else each tier may span the same
    number of buckets, so that each gets the same part of the disk: the one with the most gives up its oldest.
    """
    for step, (_first, last) in sorted(spans.items()):
        if now >= EPOCH and last > now + 2 * step + DAY:
            return step, last
    if not spans:
        return None
    step = max(sorted(spans), key=lambda step: (spans[step][1] - spans[step][0]) // step)
    return step, spans[step][0]


def tier(step: int, begin: int, oldest: Mapping[int, int]) -> int:
    """From which tier to answer a question for buckets of ``step`` seconds since ``begin``.

    The coarsest that is not coarser than asked for; where that does not reach back so far, a coarser one that does, or
    reaches the farthest. ``oldest``: first start of each tier that has any, by step.
    """
    fine = max((each for each in STEPS if each <= step), default=STEPS[0])
    reaches = oldest.get(fine)
    for coarse in (each for each in STEPS if each > fine):
        if reaches is not None and reaches <= begin:
            break
        other = oldest.get(coarse)
        if other is not None and (reaches is None or other + coarse <= reaches):
            fine, reaches = coarse, other
    return fine


def merged(rows: Iterable[Row], step: int) -> list[tuple[int, Rollup]]:
    """Rows of one series as points of ``step`` seconds, by time."""
    found: dict[int, Rollup] = {}
    for row in rows:
        start = row.start // step * step
        before = found.get(start)
        found[start] = row.rollup if before is None else before.plus(row.rollup)
    return sorted(found.items())
