"""The schedule of a plan as text: each entry, what it does, and what is due next. Imported only where there is one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import tzinfo
from typing import Any

from .. import text
from ..host import zones
from ..model import Entry
from ..schedule import ScheduleError, Times, words

Find = Callable[[str], tzinfo]


def render(entries: Iterable[Entry], now: float, find: Find = zones.find) -> list[str]:
    """A table; times are of the machine's zone."""
    rows = [(entry.name, words(entry), _does(entry), due(entry, now, find)) for entry in entries]
    return text.table(("schedule", "when", "does", "next"), rows, "<<<<") if rows else []


def due(entry: Entry, now: float, find: Find = zones.find) -> str:
    """``begins 2026-11-24 22:00``, ``ends ...``, ``due ...``; why not, where that cannot be told."""
    try:
        times = Times(entry, find(entry.zone))
    except (ScheduleError, zones.UnknownZoneError):
        return "unknown: this machine does not know its time zone"
    begin = times.open_since(now) if entry.is_window else None
    if begin is not None:
        return f"ends {_moment(times.end(begin), find)}"
    following = times.next(now)
    return "never" if following is None else f"{'begins' if entry.is_window else 'due'} {_moment(following, find)}"


def of_status(status: Mapping[str, Any]) -> list[Entry]:
    """The entries in the agent's answer; none from an agent that knows no schedule."""
    known = set(Entry._fields)
    entries = [{key: value for key, value in each.items() if key in known} for each in status.get("schedule", ())]
    return [Entry(**{key: _plain(value) for key, value in each.items()}) for each in entries]


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _does(entry: Entry) -> str:
    if entry.profile:
        return f"switches to {entry.profile}" + (" and back" if entry.is_window else "")
    return f"runs {', '.join(entry.services)}"


def _moment(instant: float, find: Find) -> str:
    from datetime import datetime

    return datetime.fromtimestamp(instant, find("")).strftime("%Y-%m-%d %H:%M")
