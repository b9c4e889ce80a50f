"""Plans and unit records as bytes: msgpack arrays, checked against the records' own annotations when read back.

Whatever is wrong with the bytes, the only error is PlanError; nothing of them is believed before it was checked.
"""

from __future__ import annotations

import msgpack

from . import lifecycle, model
from .records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

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


def unpack(data: bytes, kind: str) -> Any:
    """The record ``kind`` from ``pack``'s bytes. Raises PlanError."""
    if len(data) > MAX_BYTES:
        raise PlanError(f"{len(data)} bytes are more than the {MAX_BYTES} allowed")
    try:
        value = msgpack.unpackb(data, use_list=False, strict_map_key=True, max_map_len=0, max_ext_len=0)
    except Exception as error:  # msgpack documents no common base; hostile bytes raise many kinds
        raise PlanError(f"not msgpack: {error!r:.80}") from None
    if not isinstance(value, tuple) or len(value) != 2:
        raise PlanError("not a versioned record")
    if value[0] != model.PLAN_VERSION:
        raise PlanError(f"version {value[0]!r:.20} is not the {model.PLAN_VERSION} this release reads")
    return _checked(value[1], kind, kind)


def unpack_plan(data: bytes) -> model.Plan:
    """A plan that may be run: right in shape, and consistent. Raises PlanError."""
    plan: model.Plan = unpack(data, "Plan")
    _consistent(plan)
    return plan


def legal_name(name: str) -> bool:
    """Service names become names of directories and cgroups."""
    return (
        0 < len(name) <= 63 and name[0] not in "-_" and all(c in "abcdefghijklmnopqrstuvwxyz0123456789-_" for c in name)
    )


def _checked(value: Any, kind: str, where: str) -> Any:
    if kind.endswith(" | None"):
        return None if value is None else _checked(value, kind[:-7], where)
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
            return tuple(_checked(item, items[0], f"{where}[{i}]") for i, item in enumerate(value))
        if len(items) != len(value):
            raise PlanError(f"{where}: {len(value)} items instead of {len(items)}")
        return tuple(_checked(item, of, where) for item, of in zip(value, items, strict=True))
    record = _RECORDS[kind]
    fields: dict[str, str] = record.__annotations__
    if len(fields) != len(value):
        raise PlanError(f"{where}: {len(value)} fields instead of {len(fields)}")
    return record(*[_checked(item, fields[name], f"{where}.{name}") for name, item in zip(fields, value, strict=True)])


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
