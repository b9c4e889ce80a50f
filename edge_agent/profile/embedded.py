"""``mode: embedded``: bundled services that share one process, and so are one service of the plan.

What the kernel does to a process it does to all in it: they have one budget, the sum of theirs, one user, one sandbox,
and are started, stopped and restarted together. A defect in one ends all. In return they need half of the memory. What
can be added up is; what a process can have only once must be the same for all of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from ..callers import EMBEDDED
from ..demand import Amount, Demand
from ..model import Limits, Service
from . import service as sections
from .program import OPTIONS

NAME = EMBEDDED
SAME = (
    *("user", "group", "environment", "working_directory", "sandbox", "rlimits", "restart_policy", "health", "log"),
    *("stop_signal", "nice", "io_priority", "scheduler", "freeze"),
)
"""Keys of which a process has one value."""

Report = Callable[[str, str, str, str], None]
"""``report(name, key, why, fix)`` of services.name.key."""


def check(members: dict[str, sections.Service], report: Report) -> None:
    """Report what keeps these from sharing a process."""
    (first, model), *others = members.items()
    kinds = {model.bundled: first}
    for name, section in others:
        if section.bundled in kinds:
            why = f"{kinds[section.bundled]} runs {section.bundled} in the same process"
            report(name, "mode", why, "mode: subprocess for one of them")
        kinds.setdefault(section.bundled, name)
        for key in SAME:
            if getattr(section, key) != getattr(model, key):
                why = f"{key} differs from that of {first}, with which it shares a process"
                report(name, key, why, "write the same for both, or mode: subprocess for one of them")
    if NAME in members:
        report(NAME, "mode", "is the name of the process that they share", "give this service another name")
    for resource in ("memory", "cpu"):
        for part in ("request", "limit"):
            amounts = [getattr(getattr(section.resources, resource), part) for section in members.values()]
            if len({amount.share is None for amount in amounts if amount is not None}) > 1:
                why = "cannot be added up: some are shares, some are not"
                report(first, "resources", f"{resource} {part}s {why}", "write all of them alike")


def merged(demands: Sequence[Demand], kinds: Sequence[str]) -> Demand:
    """One demand for all, in the file's order. ``kinds``: the bundled service of each."""
    first = demands[0]
    return first._replace(
        service=_service([each.service for each in demands], kinds),
        memory_request=_requested([each.memory_request for each in demands]),
        memory_limit=_sum([each.memory_limit for each in demands]),
        swap_limit=_sum([each.swap_limit for each in demands]),
        cpu_request=_requested([each.cpu_request for each in demands]),
        cpu_limit=_sum([each.cpu_limit for each in demands]),
    )


def renamed(service: Service, members: frozenset[str]) -> Service:
    """A service that depends on members depends on their process instead."""
    wanted = tuple(dict.fromkeys(NAME if each in members else each for each in service.depends_on))
    return service._replace(depends_on=tuple(each for each in wanted if each != service.name))


def _service(services: list[Service], kinds: Sequence[str]) -> Service:
    first, members = services[0], frozenset(each.name for each in services)
    told = {kind: json.loads(dict(each.env)[OPTIONS]) for kind, each in zip(kinds, services, strict=True)}
    env = dict(first.env) | {OPTIONS: json.dumps(told)}
    limits = [each.limits for each in services]
    joined = first._replace(
        name=NAME,
        argv=(*first.argv[:-1], *kinds),
        env=tuple(sorted(env.items())),
        depends_on=tuple(wanted for each in services for wanted in each.depends_on),
        importance=max(each.importance for each in services),
        limits=Limits(
            pids_limit=_total([each.pids_limit for each in limits]),
            io_weight=max((each.io_weight for each in limits if each.io_weight is not None), default=None),
            io_read_bps=_total([each.io_read_bps for each in limits]),
            io_write_bps=_total([each.io_write_bps for each in limits]),
        ),
        stop_timeout=max(each.stop_timeout for each in services),
        start_timeout=max(each.start_timeout for each in services),
        oom_score_adj=min(each.oom_score_adj for each in services),
        directories=tuple(path for each in services for path in each.directories),
    )
    return renamed(joined, members)


def _total(amounts: list[int | None]) -> int | None:
    """None, for no bound, as soon as one has none."""
    known = [each for each in amounts if each is not None]
    return sum(known) if len(known) == len(amounts) else None


def _requested(amounts: list[Amount | None]) -> Amount | None:
    """None, for nothing, when nobody asks for anything."""
    return _sum([each for each in amounts if each is not None]) if any(amounts) else None


def _sum(amounts: Sequence[Amount | None]) -> Amount | None:
    known = [each for each in amounts if each is not None]
    if len(known) < len(amounts):
        return None
    shares = [each.share for each in known if each.share is not None]
    absolute = sum(each.absolute for each in known)
    return Amount(absolute, min(1.0, sum(shares))) if shares else Amount(absolute)
