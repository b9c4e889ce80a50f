"""What the agent's ``status`` says, as metrics. Pure.

A status of another release may lack what is looked for here, or have it in another form: that metric is then left out.
"""

from __future__ import annotations

from .metrics import COUNTER, GAUGE, Metric
from .telemetry_text import PREFIX

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

ORCHESTRATOR = "orchestrator"
"""By this name the agent's own process stands beside those of its services."""
KILLERS = ("own", "total", "machine")

_AGENT = (
    ("pss_bytes", "memory_pss_bytes", GAUGE, "Proportional set size of the agent's own process."),
    ("rss_bytes", "memory_rss_bytes", GAUGE, "Resident set size of the agent's own process."),
    ("private_dirty_bytes", "memory_private_dirty_bytes", GAUGE, "Memory that only the agent's own process has."),
    ("wakeups", "wakeups_total", COUNTER, "Turns of the agent's loop."),
    ("since", "start_time_seconds", GAUGE, "When the agent started, in seconds since 1970."),
)
_BUDGET = {
    "total": "What is in force for all services and the agent together",
    "goal": "What the plan has for all services and the agent together",
    "reserve": "What is held for the agent itself",
    "requested": "What the services that are not off were promised, and the agent's reserve",
    "used": "What all services use",
}
_SERVICE = (
    (("memory", "request"), "memory_request_bytes", GAUGE, "Memory that was promised."),
    (("memory", "limit"), "memory_limit_bytes", GAUGE, "Memory it may have; above the request it is lent."),
    (("memory", "used"), "memory_used_bytes", GAUGE, "Memory it holds, with its page cache."),
    (("cpu", "request"), "cpu_request_cores", GAUGE, "Processors that were promised."),
    (("cpu", "limit"), "cpu_limit_cores", GAUGE, "Processors it may use."),
    (("pids", "limit"), "pids_limit", GAUGE, "Processes and threads it may have."),
    (("pids", "used"), "pids", GAUGE, "Processes and threads it has."),
    (("importance",), "importance", GAUGE, "0 to 100; the least important goes first."),
    (("restarts",), "restarts_total", COUNTER, "Starts after a failure."),
)
_COUNTS = (
    ("shed", "sheds_total", "How often it was ended for others, since the agent started."),
    ("squeezed", "squeezes_total", "How often a loan was called back, since the agent started."),
    ("frozen", "freezes_total", "How often it was frozen for others, since the agent started."),
)


class _Families:
    """Samples by the name of their family, whose members come from several places."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[str, str, list[tuple[dict[str, str], float]]]] = {}

    def put(self, name: str, kind: str, about: str, value: object, /, **labels: str) -> None:
        """One sample, unless the value is no number."""
        if isinstance(value, bool):
            value = int(value)
        if isinstance(value, int | float):
            self._found.setdefault(name, (kind, about, []))[2].append((labels, value))

    def __iter__(self) -> Iterator[Metric]:
        for name, (kind, about, samples) in self._found.items():
            yield Metric(PREFIX + name, kind, about, tuple(samples))


def metrics(status: Mapping[str, Any]) -> list[Metric]:
    """Families of the agent, its budget, and each service by the label ``service``."""
    found = _Families()
    agent = _map(status, "agent")
    told = {"version": _text(agent, "version"), "profile": _text(status, "profile")}
    found.put("info", GAUGE, "1; the labels tell.", 1, **told, enforcement=_text(status, "enforcement"))
    for key, name, kind, about in _AGENT:
        found.put(name, kind, about, agent.get(key))
    found.put("degraded", GAUGE, "1: another plan runs than the one chosen.", status.get("degraded") is not None)
    found.put("switching", GAUGE, "1: from one profile to another.", status.get("switching") is not None)
    for resource, unit in (("memory", "bytes"), ("cpu", "cores")):
        budget = _map(_map(status, "budget"), resource)
        for key, about in _BUDGET.items():
            found.put(f"budget_{resource}_{key}_{unit}", GAUGE, f"{about}: {resource}.", budget.get(key))
    for name, service in _map(status, "services").items():
        if isinstance(name, str) and isinstance(service, dict):
            _service(found, name, service)
    held = _map(status, "governor").get("held")
    for grip in held if isinstance(held, list) else ():
        if isinstance(grip, dict):
            labels = {key: _text(grip, key) for key in ("service", "resource", "level")}
            found.put("service_withheld", GAUGE, "1: the governor withholds this.", 1, **labels)
    return list(found)


def _service(found: _Families, name: str, service: Mapping[str, Any]) -> None:
    state = _text(service, "state")
    found.put("service_state", GAUGE, "1; the label tells.", 1, service=name, state=state)
    found.put("service_ready", GAUGE, "1: it is ready.", state == "ready", service=name)
    for keys, family, kind, about in _SERVICE:
        value: object = service
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        found.put(f"service_{family}", kind, about, value, service=name)
    memory = _map(service, "memory")
    used, request = memory.get("used"), memory.get("request")
    if isinstance(used, int) and isinstance(request, int):
        about = "Memory it holds above its request: lent, and called back when somebody else needs it."
        found.put("service_memory_loan_bytes", GAUGE, about, max(0, used - request), service=name)
    counts = _map(service, "counts")
    for key, family, about in _COUNTS:
        found.put(f"service_{family}", COUNTER, about, counts.get(key, 0), service=name)
    for level in KILLERS:
        about = "Kills for lack of memory by whose it was: its own limit's, all services', the machine's."
        found.put(
            "service_oom_kills_total", COUNTER, about, counts.get(f"killed-{level}", 0), service=name, level=level
        )
    for resource, report in _map(service, "enforcement").items():
        if isinstance(resource, str) and isinstance(report, dict):
            about = "1: this is how its limit is kept."
            labels = {"service": name, "resource": resource, "kind": _text(report, "kind")}
            found.put("service_enforcement", GAUGE, about, 1, **labels)


def processes(status: Mapping[str, Any]) -> dict[str, int]:
    """Main process of each service that has one, and the agent's, by name."""
    found = {ORCHESTRATOR: _map(status, "agent").get("pid")}
    for name, service in _map(status, "services").items():
        if isinstance(service, dict):
            found[str(name)] = service.get("pid")
    return {name: pid for name, pid in found.items() if type(pid) is int and pid > 0}


def _map(given: Mapping[str, Any], key: str) -> dict[Any, Any]:
    value = given.get(key)
    return value if isinstance(value, dict) else {}


def _text(given: Mapping[str, Any], key: str) -> str:
    value = given.get(key)
    return value[:128] if isinstance(value, str) else ""
