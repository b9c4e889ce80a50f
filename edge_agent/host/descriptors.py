"""Files of cgroup v2 as attributes, on cgroupspy's descriptors (cgroupspy itself knows version 1 only).

A descriptor reads and writes through ``get_property`` and ``set_property`` of its owner. Reading the attribute gives a
Python value, writing takes one; both raise OSError as the file does, and ValueError for a content that is not of the
kind. ``sanitize_get`` and ``sanitize_set`` are the conversions alone. Formats: Linux Documentation,
admin-guide/cgroup-v2.rst; Pressure: accounting/psi.rst.
"""

from __future__ import annotations

from cgroupspy.interfaces import BaseFileInterface, FlagFile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    class Holder(Protocol):
        """A cgroup, as descriptors need it."""

        def get_property(self, filename: bytes) -> str:
            """Content of the file."""

        def set_property(self, filename: bytes, value: object) -> object:
            """Write ``str(value)`` in one write(2)."""


__all__ = ["CpuMax", "FlagFile", "FlatKeyed", "IntFile", "MaxFile", "NestedKeyed", "Pressure", "Weight", "Words"]

PERIOD = 100_000  # microseconds; the kernel's default for cpu.max
LONG_PERIOD = 1_000_000  # the longest it takes: its least quota, 1 ms, is then one milli-core


class IntFile(BaseFileInterface):
    """One whole number: memory.current, pids.current."""

    if TYPE_CHECKING:

        def __get__(self, instance: Holder, owner: type | None = None) -> int: ...
        def __set__(self, instance: Holder, value: int) -> None: ...

    def sanitize_get(self, value: str) -> int:
        return int(value)

    def sanitize_set(self, value: int) -> int:
        return int(value)


class MaxFile(BaseFileInterface):
    """A number, or None for 'max': memory.max, memory.swap.max, pids.max."""

    if TYPE_CHECKING:

        def __get__(self, instance: Holder, owner: type | None = None) -> int | None: ...
        def __set__(self, instance: Holder, value: int | None) -> None: ...

    def sanitize_get(self, value: str) -> int | None:
        text = value.strip()
        return None if text == "max" else int(text)

    def sanitize_set(self, value: int | None) -> str:
        return "max" if value is None else str(int(value))


class CpuMax(BaseFileInterface):
    """cpu.max as milli-cores, or None for no limit. File: ``QUOTA|max PERIOD``, microseconds."""

    if TYPE_CHECKING:

        def __get__(self, instance: Holder, owner: type | None = None) -> int | None: ...
        def __set__(self, instance: Holder, value: int | None) -> None: ...

    def sanitize_get(self, value: str) -> int | None:
        quota, period = value.split()
        return None if quota == "max" else int(quota) * 1000 // int(period)

    def sanitize_set(self, value: int | None) -> str:
        if value is None:
            return f"max {PERIOD}"
        period = PERIOD if value >= 10 else LONG_PERIOD  # a quota of less than 1 ms is EINVAL
        return f"{value * period // 1000} {period}"


class FlatKeyed(BaseFileInterface):
    """Lines of ``KEY NUMBER``, as a dict: memory.events, cpu.stat, cgroup.events."""

    readonly = True
    if TYPE_CHECKING:

        def __get__(self, instance: Holder, owner: type | None = None) -> dict[str, int]: ...

    def sanitize_get(self, value: str) -> dict[str, int]:
        return {key: int(number) for key, number in (line.split() for line in value.splitlines())}


class NestedKeyed(BaseFileInterface):
    """Lines of ``KEY SUB=NUMBER|max ...``, as a dict of dicts: io.max, io.stat."""

    if TYPE_CHECKING:

        def __get__(self, instance: Holder, owner: type | None = None) -> dict[str, dict[str, int | None]]: ...
        def __set__(self, instance: Holder, value: dict[str, dict[str, int | None]]) -> None: ...

    def sanitize_get(self, value: str) -> dict[str, dict[str, int | None]]:
        return {words[0]: _pairs(words[1:]) for words in (line.split() for line in value.splitlines()) if words}

    def sanitize_set(self, value: dict[str, dict[str, int | None]]) -> str:
        return "\n".join(
            " ".join([key, *(f"{sub}={'max' if number is None else number}" for sub, number in inner.items())])
            for key, inner in value.items()
        )


class Pressure(BaseFileInterface):
    """A PSI file: ``{'some' | 'full': {'avg10', 'avg60', 'avg300': per cent, 'total': microseconds}}``."""

    readonly = True
    if TYPE_CHECKING:

        def __get__(self, instance: Holder, owner: type | None = None) -> dict[str, dict[str, float]]: ...

    def sanitize_get(self, value: str) -> dict[str, dict[str, float]]:
        result = {}
        for line in value.splitlines():
            kind, *pairs = line.split()
            result[kind] = {key: float(number) for key, number in (pair.split("=") for pair in pairs)}
        return result


class Weight(BaseFileInterface):
    """A weight: cpu.weight holds a number; io.weight and io.bfq.weight ``default NUMBER`` and lines per device."""

    if TYPE_CHECKING:

        def __get__(self, instance: Holder, owner: type | None = None) -> int: ...
        def __set__(self, instance: Holder, value: int) -> None: ...

    def sanitize_get(self, value: str) -> int:
        return int(value.split("\n", 1)[0].rpartition(" ")[2])

    def sanitize_set(self, value: int) -> int:
        return int(value)


class Words(BaseFileInterface):
    """Words between spaces: cgroup.controllers, cgroup.subtree_control."""

    readonly = True
    if TYPE_CHECKING:

        def __get__(self, instance: Holder, owner: type | None = None) -> list[str]: ...

    def sanitize_get(self, value: str) -> list[str]:
        return value.split()


def _pairs(words: list[str]) -> dict[str, int | None]:
    result: dict[str, int | None] = {}
    for word in words:
        key, _, number = word.partition("=")
        result[key] = None if number == "max" else int(number)
    return result
