"""Plans and unit records as bytes: msgpack arrays, checked against the records' own annotations when read back.

Whatever is wrong with the bytes, the only error is PlanError; nothing of them is believed before it was checked.

Records live longer than releases. A field is only ever added at the end of its record, with a default, and raises
PLAN_VERSION: so every version is a beginning of the next. An older record gets the defaults of what it lacks, or what
its reader says; of a newer one its reader may ask for the part it knows.
"""

from __future__ import annotations

import msgpack

from . import lifecycle, model
from .records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

OLDEST = 2
"""The first version of which PLAN_VERSION is a continuation."""

MAX_BYTES = 4 << 20
"""A plan of 1,000 services takes about 300 KiB."""

_RECORDS: dict[str, type[Any]] = {
    record.__name__: record
    for record in (
        model.Limits,
        model.Health,
        model.Restart,
        model.Log,
        model.Sandbox,
        model.Service,
        model.Plan,
        lifecycle.Unit,
    )
}
_PLAIN: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "str": (str,), "bool": (bool,)}


class PlanError(ValueError):
    """The bytes are not a plan this release can run. The text says why."""


class NewerError(PlanError):
    """A newer release wrote them."""


def pack(record: Record) -> bytes:
    """A record with a version in front."""
    return bytes(msgpack.packb((model.PLAN_VERSION, record)))


def pack_plan(plan: model.Plan) -> bytes:
    """The plan as bytes, at most MAX_BYTES."""
    data = pack(plan)
    if len(data) > MAX_BYTES:
        raise PlanError(
            f"cannot pack the plan: it takes {len(data)} bytes of {MAX_BYTES}; fix: fewer or shorter services"
        )
    return data


def unpack(data: bytes, kind: str, like: Mapping[str, model.Service] | None = None, *, newer: bool = False) -> Any:
    """The record ``kind`` from ``pack``'s bytes.

    A service in a record of an older version takes the fields it lacks from the one of its name in ``like``, else their
    defaults. ``newer``: take what is known here of a newer version's record. Raises PlanError; NewerError without it.
    """
    version, value = _opened(data)
    if version > model.PLAN_VERSION and not newer:
        raise NewerError(f"a newer release wrote it: version {version}, and this one reads {model.PLAN_VERSION}")
    return _Reader(version - model.PLAN_VERSION, like or {}).checked(value, kind, kind)


def unpack_plan(data: bytes, like: Mapping[str, model.Service] | None = None, *, newer: bool = False) -> model.Plan:
    """A plan that may be run: right in shape, and consistent. As ``unpack``."""
    plan: model.Plan = unpack(data, "Plan", like, newer=newer)
    _consistent(plan)
    return plan


def unpack_choice(data: bytes) -> tuple[str, tuple[str, ...]]:
    """Source and flags of a plan, whatever became of the rest of it in a later version. Raises PlanError."""
    version, value = _opened(data)
    fields = tuple(model.Plan.__annotations__)
    reader = _Reader(version - model.PLAN_VERSION, {})
    try:
        source, flags = value[fields.index("source")], value[fields.index("flags")]
    except (TypeError, IndexError):
        raise PlanError("it names no profile") from None
    reader.checked(source, "str", "Plan.source")
    reader.checked(flags, "tuple[str, ...]", "Plan.flags")
    return source, flags


def _opened(data: bytes) -> tuple[int, Any]:
    """The version, and what it is the version of."""
    if len(data) > MAX_BYTES:
        raise PlanError(f"{len(data)} bytes are more than the {MAX_BYTES} allowed")
    try:
        value = msgpack.unpackb(data, use_list=False, strict_map_key=True, max_map_len=0, max_ext_len=0)
    except Exception as error:  # msgpack documents no common base; hostile bytes raise many kinds
        raise PlanError(f"not msgpack: {error!r:.80}") from None
    if not isinstance(value, tuple) or len(value) != 2:
        raise PlanError("not a versioned record")
    version = value[0]
    if not isinstance(version, int) or isinstance(version, bool) or version < OLDEST:
        raise PlanError(f"version {version!r:.20} is none that this release reads: {OLDEST} to {model.PLAN_VERSION}")
    return version, value[1]


def legal_name(name: str) -> bool:
    """Service names become names of directories and cgroups."""
    return (
        0 < len(name) <= 63 and name[0] not in "-_" and all(c in "abcdefghijklmnopqrstuvwxyz0123456789-_" for c in name)
    )


class _Reader:
    """``age``: the record's version less our own. An older record may lack fields, a newer one have more."""

    __slots__ = ("_age", "_like")

    def __init__(self, age: int, like: Mapping[str, model.Service]) -> None:
        self._age = age
        self._like = like

    def checked(self, value: Any, kind: str, where: str) -> Any:
        if kind.endswith(" | None"):
            return None if value is None else self.checked(value, kind[:-7], where)
        if kind in _PLAIN:
            if not isinstance(value, _PLAIN[kind]) or (isinstance(value, bool) and kind != "bool"):
                raise PlanError(f"{where}: {value!r:.40} is not {kind}")
            if isinstance(value, int | float) and not abs(value) < 2**63:  # so written that nan is refused too
                raise PlanError(f"{where}: {value!r:.40} is out of range")
            return value
        if not isinstance(value, tuple):
            raise PlanError(f"{where}: {value!r:.40} is not a list")
        if kind.startswith("tuple["):
            items = _split(kind[6:-1])
            if items[-1] == "...":
                return tuple(self.checked(item, items[0], f"{where}[{i}]") for i, item in enumerate(value))
            if len(items) != len(value):
                raise PlanError(f"{where}: {len(value)} items instead of {len(items)}")
            return tuple(self.checked(item, of, where) for item, of in zip(value, items, strict=True))
        return self._record(value, _RECORDS[kind], where)

    def _record(self, value: tuple[Any, ...], record: type[Any], where: str) -> Any:
        fields: dict[str, str] = record.__annotations__
        count, known = len(value), len(fields)
        least = known - len(record._field_defaults) if self._age < 0 else known
        if count < least or (count > known and self._age <= 0):
            raise PlanError(f"{where}: {count} fields instead of {known}")
        read = [self.checked(item, kind, f"{where}.{name}") for (name, kind), item in zip(fields.items(), value)]  # noqa: B905
        if count < known and record is model.Service:
            read += self._like.get(read[0], ())[count:]
        return record(*read)


def _split(inner: str) -> list[str]:
    """'tuple[str, str], ...' -> ['tuple[str, str]', '...']"""
    parts, depth, start = [], 0, 0
    for position, char in enumerate(inner):
        depth += (char == "[") - (char == "]")
        if char == "," and depth == 0:
            parts.append(inner[start:position].strip())
            start = position + 1
    return [*parts, inner[start:].strip()]


def _consistent(plan: model.Plan) -> None:
    seen: set[str] = set()
    memory, cpu = plan.memory_reserve, plan.cpu_reserve
    if min(memory, cpu, plan.memory_total, plan.cpu_total) < 0:
        raise PlanError("a total or reserve is negative")
    for service in plan.services:
        limits = service.limits
        if not legal_name(service.name) or service.name in seen:
            raise PlanError(f"{service.name!r:.80} is not a name, or there twice")
        if missing := [name for name in service.depends_on if name not in seen]:
            raise PlanError(f"{service.name} depends on {missing[0]!r:.80}, which does not come before it")
        if not service.argv or "\0" in "".join(service.argv) or not service.argv[0].startswith("/"):
            raise PlanError(f"{service.name} has no command with an absolute path")
        if any("\0" in text or not key or "=" in key for key, value in service.env for text in (key, value)):
            raise PlanError(f"{service.name} has an environment that cannot be given to a program")
        if min(0 if value is None else value for value in limits) < 0:
            raise PlanError(f"{service.name} has a negative limit")
        seen.add(service.name)
        memory += limits.memory_request
        cpu += limits.cpu_request
    if memory > plan.memory_total or cpu > plan.cpu_total:
        raise PlanError(
            f"requests and reserve take {memory} bytes of {plan.memory_total} and {cpu} milli-cores of {plan.cpu_total}"
        )
