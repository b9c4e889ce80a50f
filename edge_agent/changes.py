"""What a new spec of a running service asks for: nothing, other limits in place, or a restart.

The reconciler acts on it and ``plan`` announces it, so both import it from here. Obeys the resident import rule.
"""

from __future__ import annotations

from .model import Service

IN_PLACE = (
    "limits",
    "importance",
    "health",
    "restart",
    "stop_signal",
    "stop_timeout",
    "start_timeout",
    "oom_score_adj",
    "depends_on",
    "freezable",
    "scheduled",
)
"""Fields of Service that take effect without a new process: kernel or agent can change them under it."""


def needs_restart(old: Service, new: Service) -> bool:
    """Whether a process started as ``old`` cannot become ``new``: something fixed at its start differs.

    ``log.max_bytes`` is the agent's own bound and moves freely; ``log.kind`` is where its descriptors point. A service
    that speaks by sd_notify has its address and interval (NOTIFY_SOCKET, WATCHDOG_USEC) in its environment.
    """
    if _notify_environment(old) != _notify_environment(new):
        return True
    kept = {field: getattr(old, field) for field in IN_PLACE}
    return new._replace(log=new.log._replace(max_bytes=old.log.max_bytes), **kept) != old


def _notify_environment(service: Service) -> float | None:
    return service.health.interval if service.health.kind == "sd_notify" else None


def needs_resize(old: Service, new: Service) -> bool:
    """Whether the host must write limits again: cgroup files, or oom_score_adj of every process."""
    return old.limits != new.limits or old.oom_score_adj != new.oom_score_adj
