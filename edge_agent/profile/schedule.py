"""``schedule:`` of a profile: entries as people write them, and what is wrong with them together."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Annotated, ClassVar

from pydantic import Field, model_validator

from ..model import ESSENTIAL, TIMEKEEPER, Entry
from . import readers
from .problems import ReadError, suggest
from .readers import Before, Duration, PositiveDuration, Reader, Text
from .section import Section
from .service import Service, ServiceNames, service_name
from .tree import Leaf, Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..schedule import Times

LOOK = 400
"""Windows of an entry held against those of the others: a year of days."""
MIDNIGHT = 1440

_TIME = re.compile(r"([0-9]{1,2}):([0-9]{2})")
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def _time(value: object) -> int:
    """Minutes after midnight."""
    match = _TIME.fullmatch(readers.text(value))
    minutes = int(match[1]) * 60 + int(match[2]) if match and int(match[2]) < 60 else MIDNIGHT + 1
    if minutes > MIDNIGHT:
        raise ReadError("cannot read the time of day", "write HH:MM, from 00:00 to 24:00")
    return minutes


def _day(value: object) -> int:
    written = readers.text(value).lower()[:3] if len(readers.text(value)) >= 3 else readers.text(value)
    if written not in _DAYS:
        raise ReadError("unknown day", lambda: suggest(readers.text(value), _DAYS))
    return _DAYS.index(written)


def _cron(value: object) -> str:
    fields = readers.text(value).split()
    if not fields:
        raise ReadError("the cron expression is empty", "write minute, hour, day, month, weekday: 0 2 * * *")
    return " ".join(fields)


class ScheduleEntry(Section):
    """When, and either which services run then or which profile is switched to."""

    needs_value: ClassVar[bool] = True
    name: Annotated[str, Reader(service_name)]
    cron: Annotated[str, Reader(_cron)] | None = None
    from_: Annotated[int, Reader(_time)] | None = Field(None, alias="from")
    to: Annotated[int, Reader(_time)] | None = None
    days: Annotated[tuple[Annotated[int, Reader(_day)], ...], Before(readers.as_list)] = ()
    time_zone: Text | None = None
    for_: PositiveDuration | None = Field(None, alias="for")
    profile: Text | None = None
    services: ServiceNames = ()
    misfire_grace: Duration = 3600.0

    @classmethod
    def short(cls, _leaf: Leaf) -> dict[str, object]:
        """There is none."""
        raise ReadError("expected keys below it, not a single value", "write name, from and to or cron, and services")

    @model_validator(mode="after")
    def _one_time(self) -> ScheduleEntry:
        window = self.from_ is not None or self.to is not None
        if window and self.cron is not None:
            raise ReadError("both cron and a window say when", "keep cron, or from and to")
        if not window and self.cron is None:
            raise ReadError("needs the key 'cron'", "say when: add cron:, or from: and to:")
        if window and (self.from_ is None or self.to is None):
            missing = "from" if self.from_ is None else "to"
            raise ReadError(f"needs the key '{missing}'", f"add {missing}: HH:MM")
        if window and self.from_ == self.to:
            raise ReadError("the window ends as it begins", "write 00:00 to 24:00 for the whole day")
        if self.from_ == MIDNIGHT:
            raise ReadError("24:00 is an end only", "write from: 00:00")
        if self.for_ is not None and self.cron is None:
            raise ReadError("for belongs to cron; a window ends at to", "remove for")
        if self.for_ is not None and self.for_ < 60:
            raise ReadError("for is less than a minute", "write at least 1m")
        if self.days and self.cron is not None:
            raise ReadError("days belong to a window", "write them in the fifth field of cron")
        if self.services and self.profile is not None:
            raise ReadError("both services and a profile", "keep one of them")
        if not self.services and self.profile is None:
            raise ReadError("needs the key 'services'", "say what to do: add services: or profile:")
        return self

    def entry(self, profile: str) -> Entry:
        """The record; ``profile`` is the file's own name of the one to switch to."""
        return Entry(
            name=self.name,
            cron=self.cron or "",
            begin=-1 if self.from_ is None else self.from_,
            end=-1 if self.to is None else self.to,
            days=tuple(sorted(set(self.days))),
            zone=self.time_zone or "",
            lasts=self.for_ or 0.0,
            profile=profile,
            services=tuple(dict.fromkeys(self.services)),
            grace=self.misfire_grace,
        )


Schedule = Annotated[tuple[ScheduleEntry, ...], Before(readers.as_list)]


class Check:
    """One profile's schedule made records. Problems go to ``report(path, why, fix)``."""

    def __init__(
        self,
        services: Mapping[str, Service],
        known: Collection[str],
        own: str,
        importance: Callable[[Service], int],
        report: Callable[[Path, str, str], None],
    ) -> None:
        self._services, self._known, self._own = services, known, own
        self._importance, self._report = importance, report

    def entries(self, schedule: Sequence[ScheduleEntry]) -> tuple[Entry, ...]:
        """The records; only what ``report`` was not called for is to be used."""
        made: list[Entry] = []
        times: dict[int, Times] = {}
        for index, each in enumerate(schedule):
            entry = each.entry(self._profile(index, each))
            made.append(entry)
            self._check_services(index, each)
            found = self._times(index, entry)
            if found is not None:
                times[index] = found
            if entry.name in [other.name for other in made[:-1]]:
                self._report(("schedule", index, "name"), "another entry has this name", "give it a name of its own")
        self._check_dependants(schedule)
        self._check_overlaps(times)
        return tuple(made)

    def _profile(self, index: int, each: ScheduleEntry) -> str:
        if each.profile is None:
            return ""
        plain = each.profile.replace("_", "-")
        found = next((name for name in self._known if name.replace("_", "-") == plain), "")
        if plain == self._own.replace("_", "-"):
            self._report(("schedule", index, "profile"), "this is the profile itself", "name another one")
        elif not found:
            fix = suggest(each.profile, self._known)
            self._report(("schedule", index, "profile"), "no profile of this name", fix)
        return found

    def _check_services(self, index: int, each: ScheduleEntry) -> None:
        for place, name in enumerate(each.services):
            path: Path = ("schedule", index, "services", place)
            service = self._services.get(name)
            others = {other for other in self._services if other != TIMEKEEPER}
            if service is None or name == TIMEKEEPER:
                self._report(path, "no service of this name", suggest(name, others))
            elif not service.enabled:
                self._report(path, f"{name} is disabled", f"enable {name}, or remove it here")
            elif self._importance(service) >= ESSENTIAL:
                why = f"{name} is essential, and what is essential always runs"
                self._report(path, why, "remove it, or give it another importance")
            elif each.cron is not None and each.for_ is None and service.restart_policy.condition == "always":
                why = f"nothing says when {name} ends: it is started again whenever it ends by itself"
                self._report(path, why, "add for: DURATION to the entry, or restart_policy: on_failure to the service")

    def _times(self, index: int, entry: Entry) -> Times | None:
        from ..host import zones
        from ..model import RELEASED
        from ..schedule import ScheduleError, Times

        try:
            zone = zones.find(entry.zone)
        except zones.UnknownZoneError:
            why = "no time zone of this name on this machine"
            self._report(("schedule", index, "time_zone"), why, _zone_fix(entry.zone, zones.known()))
            return None
        key = "cron" if entry.cron else "from"
        try:
            times = Times(entry, zone)
        except ScheduleError as error:
            self._report(("schedule", index, key), error.why, error.fix)
            return None
        if times.next(RELEASED) is None:
            self._report(("schedule", index, key), "this is never due", "correct its day and month")
            return None
        return times

    def _check_dependants(self, schedule: Sequence[ScheduleEntry]) -> None:
        asleep = {name: index for index, each in enumerate(schedule) for name in each.services}
        for name, service in self._services.items():
            for wanted in service.depends_on:
                if wanted in asleep and name not in asleep and service.enabled:
                    place = schedule[asleep[wanted]].services.index(wanted)
                    why = f"{name} depends on {wanted}, and would wait for it"
                    self._report(("schedule", asleep[wanted], "services", place), why, f"add {name} to the entry")

    def _check_overlaps(self, times: Mapping[int, Times]) -> None:
        from ..model import RELEASED
        from ..schedule import overlap

        windows = [(index, each) for index, each in times.items() if each.entry.is_window]
        for place, (index, later) in enumerate(windows):
            for _, earlier in windows[:place]:
                a, b = earlier.entry, later.entry
                shared = sorted(set(a.services) & set(b.services))
                if (shared or (a.profile and b.profile)) and overlap(earlier, later, RELEASED, LOOK):
                    what = shared[0] if shared else "the profile"
                    why = f"{b.name} overlaps {a.name}, which is about {what} as well"
                    self._report(("schedule", index), why, "move one of them")


def _zone_fix(name: str, known: Collection[str]) -> str:
    if not known:
        return "install the machine's time zone data: apt-get install tzdata"
    near = suggest(name, known)
    return near if near.startswith("did") else "write one of /usr/share/zoneinfo, such as Europe/Berlin or UTC"
