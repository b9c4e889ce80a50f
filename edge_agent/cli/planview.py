"""Plans as text and as plain dictionaries for JSON. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from .. import text
from ..admission import requested
from ..enforcement import ENFORCED, SAMPLED, UNSET, Outlook, explain
from ..model import ESSENTIAL, PROTECTIONS, RESOURCES, Plan, Service
from .statusview import confined, not_enforced, wrapped


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
