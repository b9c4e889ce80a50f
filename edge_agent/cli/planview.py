"""Plans and their differences, as text and as plain dictionaries for JSON. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from textwrap import wrap

from .. import text
from ..admission import requested
from ..changes import needs_resize, needs_restart
from ..enforcement import ENFORCED, SAMPLED, UNSET, Outlook, explain
from ..model import ESSENTIAL, PROTECTIONS, RESOURCES, Limits, Plan, Service
from ..records import Record
from .statusview import WIDTH, confined, not_enforced, wrapped

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
}
"""Fields of Service as a person calls them, in the order they are listed. Values stay out: an environment may
hold secrets. ``limits`` is told with its values instead."""


def diff(old: Plan | None, new: Plan) -> list[Change]:
    """What a switch from ``old`` (None: nothing runs) to ``new`` does: stops first, then in the new start order."""
    before = {service.name: service for service in old.services} if old else {}
    wanted = {service.name for service in new.services}
    stops = [Change(name, STOP) for name in reversed(before) if name not in wanted]
    return stops + [_change(before.get(service.name), service) for service in new.services]


def to_dict(
    plan: Plan, predicted: Mapping[str, Outlook], total: Outlook, sandboxes: Mapping[str, Outlook]
) -> dict[str, object]:
    """The plan for JSON: bytes, cores and seconds. The others are enforcement's predictions."""
    memory, cpu = requested(plan.services)
    return {
        "profile": plan.profile,
        "source": plan.source,
        "enforcement": plan.enforcement,
        "switch_timeout": plan.switch_timeout,
        "budget": {
            "memory": {
                "total": plan.memory_total,
                "reserve": plan.memory_reserve,
                "requested": memory,
                "enforcement": _verdict("memory", *total["memory"]),
            },
            "cpu": {
                "total": plan.cpu_total / 1000,
                "reserve": plan.cpu_reserve / 1000,
                "requested": cpu / 1000,
                "enforcement": _verdict("cpu", *total["cpu"]),
            },
        },
        "services": {
            service.name: _service(service, predicted[service.name], sandboxes[service.name])
            for service in plan.services
        },
        "notes": list(plan.notes),
    }


def render(plan: Plan, predicted: Mapping[str, Outlook], total: Outlook, sandboxes: Mapping[str, Outlook]) -> str:
    """The plan as text: the services, the sums, what is not enforced and why, the notes."""
    lines = [f"profile {plan.profile} ({plan.source})", ""]
    header = ("service", "importance", "memory", "limit", "cpu", "limit", "pids", "sandbox", "enforced")
    rows = [
        (
            service.name,
            text.importance(service.importance),
            text.size(service.limits.memory_request),
            text.size(service.limits.memory_limit),
            text.cores(service.limits.cpu_request),
            text.cores(service.limits.cpu_limit),
            text.NOTHING if service.limits.pids_limit is None else str(service.limits.pids_limit),
            confined(_report(sandboxes[service.name])),
            _summary(predicted[service.name]),
        )
        for service in plan.services
    ]
    reserve = text.size(plan.memory_reserve), text.cores(plan.cpu_reserve)
    rows.append(("(the agent)", "", reserve[0], "", reserve[1], "", "", "", ""))
    memory, cpu = requested(plan.services)
    memory_cells = text.size(memory + plan.memory_reserve), text.size(plan.memory_total)
    cpu_cells = text.cores(cpu + plan.cpu_reserve), text.cores(plan.cpu_total)
    rows.append(("(total)", "", *memory_cells, *cpu_cells, "", "", _summary(total)))
    lines += text.table(header, rows, "<<>>>>><<")
    reasons = not_enforced(_reports(predicted, total, sandboxes))
    if reasons:
        lines += ["", *reasons]
    if plan.notes:
        lines += ["", "notes:", *(line for note in plan.notes for line in wrapped(f"- {note}"))]
    return "\n".join(lines) + "\n"


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
        lines += wrap(line, WIDTH, subsequent_indent=" " * (longest + 11), break_long_words=False)
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


def _service(service: Service, outlook: Outlook, sandbox: Outlook) -> dict[str, object]:
    limits, kept = service.limits, service.sandbox
    return {
        "importance": service.importance,
        "essential": service.importance >= ESSENTIAL,
        "depends_on": list(service.depends_on),
        "command": list(service.argv),
        "memory": {"request": limits.memory_request, "limit": limits.memory_limit},
        "swap": {"limit": limits.swap_limit},
        "cpu": {"request": limits.cpu_request / 1000, "limit": _cores(limits.cpu_limit)},
        "pids": {"limit": limits.pids_limit},
        "io": {"weight": limits.io_weight, "read_bps": limits.io_read_bps, "write_bps": limits.io_write_bps},
        "enforcement": {resource: _verdict(resource, *outlook[resource]) for resource in RESOURCES},
        "user": {"uid": service.uid, "gid": service.gid, "groups": list(service.groups)},
        "sandbox": {name: _verdict(name, *sandbox[name]) for name in PROTECTIONS}
        | {
            "kept_capabilities": None
            if kept.capabilities is None
            else [text.CAPABILITIES[n] for n in kept.capabilities],
            "writable": list(kept.writable),
            "visible": list(kept.visible),
            "required": kept.required,
        },
    }


def _cores(milli: int | None) -> float | None:
    return None if milli is None else milli / 1000


def _verdict(resource: str, kind: str, code: str) -> dict[str, str]:
    because, fix = explain(resource, kind, code)
    return {"kind": kind, "code": code} | ({"because": because, "fix": fix} if because else {})


def _summary(outlook: Outlook) -> str:
    """One cell: what the kernel holds of what is asked, the short way round. The reasons stand below the table."""
    asked = [resource for resource, (kind, _) in outlook.items() if kind != UNSET]
    held = [resource for resource in asked if outlook[resource][0] == ENFORCED]
    lacking = [resource for resource in asked if resource not in held]
    if not lacking:
        return "all" if asked else text.NOTHING
    sampled = [resource for resource in lacking if outlook[resource][0] == SAMPLED]
    if not held:
        return f"no; sampled: {', '.join(sampled)}" if sampled else "no"
    cell = ", ".join(held) if len(held) <= len(lacking) else f"all but {', '.join(lacking)}"
    return cell.replace("_", " ")


def _reports(
    predicted: Mapping[str, Outlook], total: Outlook, sandboxes: Mapping[str, Outlook]
) -> dict[str, dict[str, dict[str, str]]]:
    """Predictions in the shape of the agent's own reports, so that ``status`` and ``plan`` say them alike."""
    services = {name: _report({**outlook, **sandboxes[name]}) for name, outlook in predicted.items()}
    return {"the total": _report(total), **services}


def _report(outlook: Outlook) -> dict[str, dict[str, str]]:
    return {name: {"kind": kind, "code": code} for name, (kind, code) in outlook.items()}
