"""``why SERVICE``: the story of a service in sentences, from its status and its events."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from typing import Any

from .. import text
from ..text import event
from . import exits
from .context import Context, say, show_json, unknown_service
from .statusview import held, not_enforced, span, summary, wrapped

LAST = 8
"""Events told."""

_STATES = {
    "off": "is not running",
    "waiting": "waits",
    "starting": "has been started and is not ready yet",
    "ready": "is running and ready",
    "stopping": "is being stopped",
    "killing": "did not stop in time and is being killed",
    "backoff": "has ended and waits for its next start",
    "quarantined": "failed too often and is given up; its budget is free for others",
    "completed": "has done its work and ended",
}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument("name", metavar="SERVICE")
    parser.add_argument("--json", action="store_true", help="the service's status and events as JSON")


def run(context: Context, options: argparse.Namespace) -> int:
    """Ask and tell."""
    with context.connect() as client:
        status = client.call("status")
        if options.name not in status["services"]:
            raise unknown_service(options.name, status["services"])
        events: list[dict[str, Any]] = []
        cursor = 0
        while True:
            answer = client.call("events", {"cursor": cursor, "wait": 0, "service": options.name})
            events += answer["events"]
            if not answer["events"] or answer["cursor"] <= cursor:
                break
            cursor = answer["cursor"]
    if context.json:
        show_json({"name": options.name, **status["services"][options.name], "events": events})
    else:
        say(*tell(options.name, status, events, time.time()))
    return exits.OK


def tell(name: str, status: Mapping[str, Any], events: Sequence[Mapping[str, Any]], now: float) -> list[str]:
    """The story."""
    service = status["services"][name]
    return [
        *_state(name, service, now),
        *(held(status, now, name) or _shed(name, service)),
        *_dependencies(name, status["services"]),
        *_history(service, now),
        *_limits(name, service),
        *(["last events:", *(f"  {event(entry)}" for entry in events[-LAST:])] if events else []),
    ]


def _state(name: str, service: Mapping[str, Any], now: float) -> list[str]:
    state = service["state"]
    sentence = f"{name} {_STATES.get(state, f'is {state}')}"
    if service["pid"]:
        sentence += f", pid {service['pid']}"
    sentence += f", since {span(now - service['since'])}"
    lines = [sentence + (f": {service['reason']}." if service["reason"] else ".")]
    due = service.get("next")
    if state == "backoff" and due is not None:
        lines.append(f"It will be started again in {span(due - now)}.")
    if state == "off" and service.get("shed"):
        lines.append(f"Memory was short; it returns by itself, or now by `edge-agent start {name}`.")
    elif state == "off" and service.get("down"):
        lines.append(f"A person stopped it; `edge-agent start {name}` starts it.")
    if state == "quarantined":
        lines.append(f"`edge-agent restart {name}` gives it a new chance, and so does a switch that changes it.")
    return lines


def _shed(name: str, service: Mapping[str, Any]) -> list[str]:
    """Kept from running by an agent that has nothing on when: it has just started."""
    return wrapped(f"{name} is shed: {service['shed']}") if service.get("shed") else []


def _dependencies(name: str, services: Mapping[str, Any]) -> list[str]:
    if services[name]["state"] not in ("waiting", "off"):
        return []
    missing = [
        other
        for other in services[name]["depends_on"]
        if services.get(other, {}).get("state") not in ("ready", "completed")
    ]
    return [f"It depends on {other}, which is {_state_of(services.get(other))}." for other in missing]


def _state_of(service: Mapping[str, Any] | None) -> str:
    if service is None:
        return "absent"
    return f"{service['state']} (shed)" if service.get("shed") else str(service["state"])


def _history(service: Mapping[str, Any], now: float) -> list[str]:
    lines = []
    times = service["restarts"]
    if times:
        lines.append(
            f"It was restarted {times} {'time' if times == 1 else 'times'}; {service['attempts']} in a row now."
        )
    last = service["last_exit"]
    if last:
        lines.append(f"Its last process ended {span(now - last['time'])} ago: {last['text']}.")
    else:
        lines.append("None of its processes has ended since the agent keeps count.")
    return lines


def _limits(name: str, service: Mapping[str, Any]) -> list[str]:
    memory, cpu = service["memory"], service["cpu"]
    lines = [
        (
            f"It uses {text.size(memory['used'])} of memory, limit {text.size(memory['limit'])}, "
            f"guaranteed {text.size(memory['request'])}; {_cores(cpu['used'])} cores, limit {_cores(cpu['limit'])}."
        ),
        f"Limits: {summary(service['enforcement'])}.",
    ]
    return lines + not_enforced({name: service["enforcement"]})


def _cores(value: float | None) -> str:
    return text.cores(None if value is None else round(value * 1000))
