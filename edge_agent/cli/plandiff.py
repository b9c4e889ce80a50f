"""What a switch from one plan to another does, as records and as text. Pure.

Light on purpose: the way from a compiled plan to a running agent imports it while the agent is at work.
"""

from __future__ import annotations

from .. import text
from ..changes import needs_resize, needs_restart
from ..model import Limits, Plan, Service
from ..records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

START, STOP, RESTART, RESIZE, KEEP = "start", "stop", "restart", "resize", "keep"


class Change(Record):
    """What becomes of one service. A ``keep`` with details changes something that needs no new process or limit."""

    name: str
    change: str  # start | stop | restart | resize | keep
    details: tuple[str, ...] = ()


_PLAIN = {
    "argv": "command",
    "env": "environment",
    "cwd": "working directory",
    "uid": "user",
    "gid": "group",
    "groups": "groups",
    "depends_on": "dependencies",
    "importance": "importance",
    "health": "health check",
    "restart": "restart policy",
    "log": "log",
    "stop_signal": "stop signal",
    "stop_timeout": "stop time-out",
    "start_timeout": "start time-out",
    "nice": "nice",
    "ioprio": "I/O priority",
    "scheduler": "scheduler class",
    "oom_score_adj": "oom_score_adj",
    "rlimits": "rlimits",
    "directories": "own directories",
    "sandbox": "sandbox",
    "freezable": "freezing under pressure",
}
"""Fields of Service as a person calls them, in the order they are listed. Values stay out: an environment may
hold secrets. ``limits`` is told with its values instead."""


def diff(old: Plan | None, new: Plan) -> list[Change]:
    """What a switch from ``old`` (None: nothing runs) to ``new`` does: stops first, then in the new start order."""
    before = {service.name: service for service in old.services} if old else {}
    wanted = {service.name for service in new.services}
    stops = [Change(name, STOP) for name in reversed(before) if name not in wanted]
    return stops + [_change(before.get(service.name), service) for service in new.services]


def render_diff(old: Plan | None, new: Plan) -> str:
    """The difference as text: a line per change, what stays as it is as a count, and the totals if they move."""
    changes = diff(old, new)
    lines = []
    if old:
        for what, before, after in (
            ("total memory", text.size(old.memory_total), text.size(new.memory_total)),
            ("total cpu", text.cores(old.cpu_total), text.cores(new.cpu_total)),
            ("enforcement", old.enforcement, new.enforcement),
        ):
            if before != after:
                lines.append(f"{what}: {before} -> {after}")
    told = [change for change in changes if change.change != KEEP or change.details]
    longest = max((len(change.name) for change in told), default=0)
    for change in told:
        line = f"{change.change:<7}  {change.name:<{longest}}  {', '.join(change.details)}".rstrip()
        if len(line) <= text.WIDTH:
            lines.append(line)
        else:
            from textwrap import wrap  # it imports re, which most differences can do without

            lines += wrap(line, text.WIDTH, subsequent_indent=" " * (longest + 11), break_long_words=False)
    same = len(changes) - len(told)
    if same:
        lines.append("1 service stays as it is" if same == 1 else f"{same} services stay as they are")
    return "\n".join(lines or ["no service before, none after"]) + "\n"


def _change(old: Service | None, new: Service) -> Change:
    if old is None:
        return Change(new.name, START)
    details = (*_limit_details(old.limits, new.limits), *_field_details(old, new))
    if needs_restart(old, new):
        return Change(new.name, RESTART, details)
    return Change(new.name, RESIZE if needs_resize(old, new) else KEEP, details)


def _limit_details(old: Limits, new: Limits) -> list[str]:
    details = []
    for field in Limits._fields:
        before, after = getattr(old, field), getattr(new, field)
        if before != after:
            show = _show(field)
            details.append(f"{field.replace('_', ' ')} {show(before)} -> {show(after)}")
    return details


def _field_details(old: Service, new: Service) -> list[str]:
    details = []
    for field, plain in _PLAIN.items():
        before, after = getattr(old, field), getattr(new, field)
        if before == after:
            continue
        if field == "env":
            changed = sorted({name for name, _ in set(before) ^ set(after)})
            plain = f"environment ({', '.join(changed)})" if changed else "order of the environment"
        elif field == "importance":
            plain = f"importance {text.importance(before)} -> {text.importance(after)}"
        elif field == "log" and before.kind == after.kind:
            plain = f"log size {text.size(before.max_bytes)} -> {text.size(after.max_bytes)}"
        elif field in ("nice", "oom_score_adj"):
            plain = f"{plain} {before} -> {after}"
        details.append(plain)
    return details


def _show(field: str) -> Callable[[int | None], str]:
    """How a field of Limits is written."""
    if field.startswith("cpu"):
        return text.cores
    if field.startswith(("memory", "swap")):
        return text.size
    if field.endswith("bps"):
        return lambda value: text.NOTHING if value is None else f"{text.size(value)}/s"
    return lambda value: text.NOTHING if value is None else str(value)
