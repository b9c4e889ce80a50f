"""When an entry of a schedule is due: cron expressions and windows in a time zone. Pure: the time is an argument.

The calendar is APScheduler's (``CronTrigger``); what crontab(5) says otherwise than it is put right here: weekdays
count from Sunday, and with both days given, either is enough. Over daylight saving, as in cron(8): what falls into the
hour that is left out is due when that hour ends; what falls into the hour that comes twice is due the first time, and
both times only where every hour is meant. Nothing here sleeps or looks at a clock, because APScheduler's schedulers,
which do, are flooded or stopped by a clock that jumps (its issues 526 and 1066).
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta, tzinfo
from math import floor

from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.combining import OrTrigger
from apscheduler.triggers.cron import CronTrigger

from .model import Entry

DAY = 86_400.0
MINUTE = 60.0
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
LONGEST = 28 * 366 * DAY
"""Seconds within which any cron expression that is ever due is due: the calendar repeats itself after 28 years."""

_CRON_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat", "sun")
_FIELD = re.compile(r"[0-9A-Za-z*/,-]+")


class ScheduleError(ValueError):
    """An entry makes no sense. ``why`` and ``fix`` are for people."""

    def __init__(self, why: str, fix: str = "") -> None:
        super().__init__(why)
        self.why, self.fix = why, fix


class Times:
    """The occurrences of one entry, unix seconds. Raises ScheduleError."""

    def __init__(self, entry: Entry, zone: tzinfo) -> None:
        self.entry, self.zone = entry, zone
        self._every_hour = False
        if entry.cron:
            self._trigger = self._from_cron(entry.cron)
        else:
            days = ",".join(DAYS[day] for day in entry.days) or "*"
            hour, minute = divmod(entry.begin, 60)
            self._trigger = CronTrigger(minute=str(minute), hour=str(hour), day_of_week=days, timezone=zone)

    def next(self, after: float) -> float | None:
        """The first occurrence later than ``after``; None when there is none within 28 years."""
        at = floor(after) + 1  # occurrences are whole seconds
        while at - after <= LONGEST:
            found = self._trigger.get_next_fire_time(None, self._local(at))
            if found is None:
                break
            due = found.timestamp() if self._every_hour else self._first(found)
            if due is not None and due > after:
                return due
            at = floor(found.timestamp()) + 1
        return None

    def last(self, at: float, since: float) -> float | None:
        """The latest occurrence in (since, at]. Looks back in growing steps, so years of minutes cost nothing."""
        step, low = MINUTE, at
        while low > since:
            low = max(since, at - step)
            found = self.next(low)
            if found is not None and found <= at:
                break
            step *= 2
        else:
            return None
        while (later := self.next(found)) is not None and later <= at:
            found = later
        return found

    def end(self, begin: float) -> float:
        """When the window that opens at ``begin`` closes."""
        if self.entry.cron:
            return begin + self.entry.lasts
        day = self._local(begin).date()
        minutes = self.entry.end
        if minutes <= self.entry.begin or minutes == 1440:
            day, minutes = day + timedelta(days=1), minutes % 1440
        return self._settled(_at(day, minutes, self.zone))

    def open_since(self, at: float) -> float | None:
        """When the window that is open at ``at`` has opened; None when it is closed. Of overlapping ones the latest."""
        begin = self.last(at, at - (self.entry.lasts or 2 * DAY))
        return begin if begin is not None and at < self.end(begin) else None

    def _first(self, found: datetime) -> float | None:
        """The instant of a local time that is left out or comes twice; None for its second coming."""
        return None if found.fold else self._settled(found)

    def _settled(self, local: datetime) -> float:
        """As it is, or the end of the gap that it falls into."""
        instant = local.timestamp()
        shown = self._local(instant)
        if shown.replace(tzinfo=None, fold=0) == local.replace(tzinfo=None, fold=0):
            return instant
        low, high = instant - DAY, instant
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self._local(middle).utcoffset() == shown.utcoffset() else (middle, high)
        return high

    def _local(self, instant: float) -> datetime:
        return datetime.fromtimestamp(instant, UTC).astimezone(self.zone)

    def _from_cron(self, expression: str) -> BaseTrigger:
        fields = expression.split()
        if len(fields) != 5:
            raise ScheduleError(
                f"cron needs five fields, not {len(fields)}", "write minute, hour, day, month, weekday: 0 2 * * *"
            )
        minute, hour, day, month, weekday = (field.lower() for field in fields)
        self._every_hour = hour.startswith("*")
        weekdays = _weekdays(weekday)
        try:
            if day.startswith("*") or weekday.startswith("*"):
                return self._cron(minute, hour, day, month, weekdays)
            either = (self._cron(minute, hour, day, month, "*"), self._cron(minute, hour, "*", month, weekdays))
        except ValueError as error:
            raise ScheduleError(
                f"cannot read the cron expression: {error}", "see crontab(5), or write 0 2 * * *"
            ) from None
        return OrTrigger(either)

    def _cron(self, minute: str, hour: str, day: str, month: str, weekdays: str) -> BaseTrigger:
        for field in (minute, hour, day, month):
            if not _FIELD.fullmatch(field):
                raise ValueError(f"{field!r:.40} is not a field of it")
        return CronTrigger(minute=minute, hour=hour, day=day, month=month, day_of_week=weekdays, timezone=self.zone)


def overlap(one: Times, other: Times, since: float, most: int) -> bool:
    """Whether two windows are ever open together, by the first ``most`` of each after ``since``."""
    for opens, asked in ((one, other), (other, one)):
        at = since
        for _ in range(most):
            begin = opens.next(at)
            if begin is None:
                break
            if asked.open_since(begin) is not None:
                return True
            at = begin
    return False


def words(entry: Entry) -> str:
    """When, for people: ``22:00-06:00 mon,tue Europe/Berlin``, ``cron 0 2 * * * for 2 h``."""
    if entry.cron:
        text = f"cron {entry.cron}" + (f" for {amount(entry.lasts)}" if entry.lasts else "")
    else:
        days = "" if not entry.days else " " + ",".join(DAYS[day] for day in entry.days)
        text = f"{_clock(entry.begin)}-{_clock(entry.end)}{days}"
    return f"{text} {entry.zone}".rstrip()


def _at(day: date, minutes: int, zone: tzinfo) -> datetime:
    return datetime(day.year, day.month, day.day, minutes // 60, minutes % 60, tzinfo=zone)


def _weekdays(field: str) -> str:
    """A field of crontab(5), where 0 and 7 are Sunday, as the names that APScheduler knows, to which 0 is Monday."""
    if field == "*":
        return "*"
    chosen: set[str] = set()
    for part in field.split(","):
        span, _, step = part.partition("/")
        first, dash, last = ("0", "-", "6") if span == "*" else span.partition("-")
        low, high = _weekday(first), _weekday(last) if dash else _weekday(first)
        if dash and high < low and last in ("sun", "0"):
            high = 7
        if high < low or (step and not (step.isascii() and step.isdigit() and 0 < int(step) < 8)) or "/" in step:
            raise ScheduleError(f"{part!r:.40} is not a range of weekdays", "write 1-5 or mon-fri; 0 and 7 are Sunday")
        chosen |= {_CRON_DAYS[day] for day in range(low, high + 1, int(step or 1))}
    return ",".join(day for day in DAYS if day in chosen)


def _weekday(name: str) -> int:
    if name in _CRON_DAYS:
        return _CRON_DAYS.index(name)
    if len(name) == 1 and name in "01234567":
        return int(name)
    raise ScheduleError(f"{name!r:.40} is not a weekday", "write 0 to 7 or sun to sat; 0 and 7 are Sunday")


def amount(seconds: float) -> str:
    """A duration for people in its largest units: ``2 h``, ``1 h 30 min``, ``10 y 3 d``."""
    rest, parts = round(abs(seconds)), []
    for unit, size in (("y", 365 * 86_400), ("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)):
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2]) or "0 s"


def _clock(minutes: int) -> str:
    return f"{minutes // 60:02}:{minutes % 60:02}"
