"""The door to the machine's time zones, tzfile(5)."""

from __future__ import annotations

import os
from datetime import UTC, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

LOCALTIME = "/etc/localtime"


class UnknownZoneError(LookupError):
    """This machine has no such zone."""


def find(name: str) -> tzinfo:
    """The zone of that name of the IANA database; for '' the machine's own, UTC where it has none."""
    if name:
        try:
            return ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise UnknownZoneError(name) from None
    try:
        with open(LOCALTIME, "rb") as file:
            return ZoneInfo.from_file(file)
    except (OSError, ValueError):
        return UTC


def known() -> set[str]:
    """The names this machine has. Empty: its time zone data is not installed."""
    from zoneinfo import available_timezones

    return available_timezones()


def version() -> object:
    """Changes when the machine is given another zone."""
    try:
        found = os.stat(LOCALTIME)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns
