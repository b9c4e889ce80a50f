"""The agent's status as text. Pure: the agent's answer and the time in, lines out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .. import text
from ..enforcement import consequence, reason
from ..model import PROTECTIONS, RESOURCES

Reports = Mapping[str, Mapping[str, Mapping[str, str]]]
"""Service -> resource -> {'kind', 'code'}."""

_WORDS = {name: name.replace("_", " ") for name in (*RESOURCES, *PROTECTIONS)}


def render(status: Mapping[str, Any], now: float) -> list[str]:
    """Lines: what runs, the budget, a table of services, and what is not enforced and why."""
    agent = status["agent"]
    lines = [
        f"profile {status['profile']} ({status['source']})",
        (
            f"agent {agent['version']}, pid {agent['pid']}, up {span(now - agent['since'])}, "
            f"{text.size(agent['pss_bytes'])} PSS, enforcement {status['enforcement']}"
        ),
    ]
    if status.get("degraded"):
        lines.append(f"DEGRADED: {status['degraded']}")
    if status.get("switching"):
        lines.append(f"switching {status['switching']}")
    if status.get("stopping"):
        lines.append("stopping everything")
    lines += ["", *_budget(status["budget"]), "", *_services(status["services"])]
    withheld = held(status, now)
    if withheld:
        lines += ["", *withheld]
    reports = {
        name: service["enforcement"] | service.get("sandbox", {}) for name, service in status["services"].items()
    }
    total = {"the total": {name: part["enforcement"] for name, part in status["budget"].items()}}
    reasons = not_enforced({**total, **reports})
    if reasons:
        lines += ["", *reasons]
    return lines


def _budget(budget: Mapping[str, Any]) -> list[str]:
    rows = []
    for name, show in (("memory", text.size), ("cpu", _cores)):
        part = budget[name]
        values = (show(part[key]) for key in ("total", "requested", "used"))
        rows.append((name, *values, part["enforcement"]["kind"]))
    return text.table(("budget", "total", "requested", "used", ""), rows, "<>>><")


def _services(services: Mapping[str, Any]) -> list[str]:
    if not services:
        return ["no services"]
    header = ("service", "state", "pid", "memory", "limit", "cpu", "limit", "restarts", "sandbox", "limits")
    rows = [
        (
            name,
            _state(service),
            str(service["pid"] or text.NOTHING),
            text.size(service["memory"]["used"]),
            text.size(service["memory"]["limit"]),
            _cores(service["cpu"]["used"]),
            _cores(service["cpu"]["limit"]),
            str(service["restarts"]),
            confined(service.get("sandbox", {})),
            summary(service["enforcement"]),
        )
        for name, service in services.items()
    ]
    return text.table(header, rows, "<<>>>>>><<")


def confined(report: Mapping[str, Mapping[str, str]]) -> str:
    """``yes`` when a service has all of the sandbox it asks for, ``partly``, ``no``; ``-`` when it asks for none."""
    held = [part["kind"] == "enforced" for part in report.values() if part["kind"] != "unset"]
    if not held:
        return text.NOTHING
    return "yes" if all(held) else "partly" if any(held) else "no"


def _state(service: Mapping[str, Any]) -> str:
    reason = "shed" if service.get("shed") and service["state"] == "off" else service["reason"]
    return str(service["state"]) + (f" ({reason})" if reason and len(reason) <= 24 else "")


def held(status: Mapping[str, Any], now: float, name: str = "") -> list[str]:
    """A sentence for each thing that is withheld, of one service or of all."""
    lines = []
    for grip in status.get("governor", {}).get("held", ()):
        if name in ("", grip["service"]):
            what = grip["level"] if grip["resource"] == "memory" else f"{grip['level']} in {grip['resource']}"
            back = f"in {span(grip['until'] - now)}" if grip["until"] > now else "as soon as it fits"
            sentence = f"{grip['service']} is {what}, since {span(now - grip['since'])}: {grip['why']}; "
            lines += wrapped(sentence + f"given back {back} if it stays calm")
    return lines


def summary(report: Mapping[str, Mapping[str, str]]) -> str:
    """``memory, cpu enforced; pids sampled``; what nobody asked for is left out."""
    groups: dict[str, list[str]] = {}
    for resource in _ordered(report):
        groups.setdefault(report[resource]["kind"], []).append(_WORDS.get(resource, resource))
    groups.pop("unset", None)
    order = ("enforced", "sampled", "not enforced")
    known = [kind for kind in order if kind in groups] + [kind for kind in groups if kind not in order]
    return "; ".join(f"{', '.join(groups[kind])} {kind}" for kind in known) or text.NOTHING


def not_enforced(reports: Reports) -> list[str]:
    """A sentence per kind and cause: ``memory, cpu: not enforced, because ... (...); fix: ...``, wrapped.

    Services are named behind a resource when it is held for others.
    """
    told: dict[tuple[str, str, str], dict[str, list[str]]] = {}
    asked: dict[str, int] = {}
    for name, report in reports.items():
        for resource in _ordered(report):
            kind, code = report[resource]["kind"], report[resource]["code"]
            asked[resource] = asked.get(resource, 0) + (kind != "unset")
            if kind not in ("enforced", "unset"):
                why = reason(resource, code)
                told.setdefault((kind, *why), {}).setdefault(resource, []).append(name)
    lines = []
    for (kind, because, fix), resources in told.items():
        what = []
        for resource, names in resources.items():
            some = f" of {', '.join(names)}" if len(names) < asked[resource] else ""
            what.append(_WORDS.get(resource, resource) + some)
        effects = dict.fromkeys(effect for resource in resources if (effect := consequence(resource, kind)))
        effect = f" ({'; '.join(effects)})" if effects else ""
        lines += wrapped(f"{', '.join(what)}: {kind}, because {because}{effect}" + (f"; fix: {fix}" if fix else ""))
    return lines


def wrapped(line: str) -> list[str]:
    """A long sentence on several lines, the later ones indented."""
    from textwrap import wrap

    return wrap(line, text.WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def _ordered(report: Mapping[str, object]) -> list[str]:
    return [name for name in RESOURCES if name in report] + [name for name in report if name not in RESOURCES]


def _cores(value: float | None) -> str:
    return text.cores(None if value is None else round(value * 1000))


def span(seconds: float) -> str:
    """A duration in its two largest units: ``3 h 12 min``, ``4.2 s``."""
    seconds = max(0.0, seconds)
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours else f"{days} d"
