"""Fits a profile to a machine: Profile + Facts -> Plan, or a refusal that says why and what to do. Pure.

What is chosen where a profile is silent:

- The operating system keeps a tenth of the RAM, at least 64 MiB and at most 512 MiB. A total without a number is
  the RAM minus that, and all cores minus a tenth of one; a declared total is capped at what the machine can give.
- The agent keeps 16 MiB and no cores of the total for itself: its weight is below 10 MiB, the rest is headroom for
  answering and for a switch; at rest it uses no processor time.
- A service that names no request is guaranteed nothing. One without a limit is bounded by the total.
- Every service has a bound on its tasks, 1024 unless it names one, so that a fork bomb is always held.
- Shares of a service (``memory: 25%``) are shares of the total; a share of ``total_memory`` is one of the machine.
  Shares are rounded down, so that shares of 100 % together never exceed their whole.
"""

from __future__ import annotations

from decimal import Decimal

from . import text
from .admission import BudgetError, Drop, Total, choose_drops, find_cycle, in_start_order, refusal
from .demand import Amount, Demand, Facts, Profile
from .enforcement import require
from .model import Plan, Sandbox, Service

__all__ = ["BudgetError", "compile_plan"]

MIB = 1 << 20
AGENT_MEMORY = 16 * MIB
AGENT_CPU = 0
OS_MEMORY_LEAST, OS_MEMORY_MOST = 64 * MIB, 512 * MIB
OS_CPU = 100
CPU_LEAST = 100
DEFAULT_PIDS = 1024
SANDBOX_MEMORY = 8 * MIB
"""What a child needs before it becomes its program: 2.8 MiB were measured, with pages of 4 KiB; some have 16."""
NOTHING = Amount()


def compile_plan(profile: Profile, facts: Facts, *, fit: bool = False) -> Plan:
    """The plan for this machine. With ``fit``, services are dropped, least important first, until the rest fits.

    Raises BudgetError with everything that is wrong, and enforcement.EnforcementError when the profile insists on
    cgroup v2 controllers that the machine does not give.
    """
    notes: list[str] = []
    problems: list[str] = []
    most = Total(facts.memory - os_memory_reserve(profile, facts), facts.cpus * 1000)
    total = _total(profile, facts, most, notes, problems)
    caps = tuple(notes)
    enabled = [demand for demand in profile.demands if demand.enabled]
    problems += _dependency_problems(profile, [demand.service for demand in enabled])
    services: list[Service] = []
    if total.memory > total.memory_reserve and total.cpu > total.cpu_reserve:
        services = [_resolve(demand, total, profile.source, notes, problems) for demand in enabled]
    if problems:
        raise BudgetError(problems)
    if any(total.over(services)):
        drops, rest = choose_drops(services, total)
        if not fit or any(total.over(rest)):
            raise refusal(profile.name, services, total, most, caps)
        services = rest
        notes += [_dropped(drop) for drop in drops]
    if facts.swap_kind == "zram" and any(service.limits.swap_limit is None for service in services):
        notes.append(
            "swap is zram, compressed RAM: what a service without a swap limit swaps out no longer counts as its memory"
        )
    notes += profile.notes
    notes += [f"not acted on: {key}" for key in profile.not_acted_on]
    plan = Plan(
        profile=profile.name,
        source=profile.source,
        memory_total=total.memory,
        cpu_total=total.cpu,
        memory_reserve=total.memory_reserve,
        cpu_reserve=total.cpu_reserve,
        services=in_start_order(services),
        enforcement=profile.enforcement,
        switch_timeout=profile.switch_timeout,
        notes=tuple(notes),
    )
    require(facts, plan)
    return plan


def os_memory_reserve(profile: Profile, facts: Facts) -> int:
    """Bytes of RAM left to the kernel and to everything the agent does not run."""
    if profile.os_memory_reserve is not None:
        return _amount(profile.os_memory_reserve, facts.memory)
    return min(OS_MEMORY_MOST, max(OS_MEMORY_LEAST, facts.memory // 10))


def _amount(amount: Amount, whole: int) -> int:
    """Bytes or milli-cores. Decimal keeps 29 % of 100 at 29, which a float product would round down to 28."""
    return amount.absolute if amount.share is None else int(Decimal(repr(amount.share)) * whole)


def _total(profile: Profile, facts: Facts, most: Total, notes: list[str], problems: list[str]) -> Total:
    reserve = AGENT_MEMORY if profile.memory_reserve is None else profile.memory_reserve
    memory, cpu = most.memory, max(CPU_LEAST, most.cpu - OS_CPU)
    if profile.memory_total is not None:
        memory = _amount(profile.memory_total, facts.memory)
        if memory > most.memory:
            notes.append(
                f"total_memory {text.size(memory)} is more than this machine can give: {text.size(facts.memory)} "
                f"minus {text.size(facts.memory - most.memory)} for the operating system; "
                f"using {text.size(most.memory)}"
            )
            memory = most.memory
    if profile.cpu_total is not None:
        cpu = _amount(profile.cpu_total, most.cpu)
        if cpu > most.cpu:
            notes.append(
                f"total_cpu {text.cores(cpu)} is more than this machine has; using its {text.cores(most.cpu)} cores"
            )
            cpu = most.cpu
    if memory <= reserve:
        problems.append(
            f"cannot admit profile '{profile.name}': the total of {text.size(max(0, memory))} memory leaves nothing "
            f"beside the agent's own {text.size(reserve)}; fix: raise total_memory or lower the reserves"
        )
    if cpu <= AGENT_CPU:
        problems.append(
            f"cannot admit profile '{profile.name}': a total of {text.cores(cpu)} cores lets nothing run; "
            "fix: raise total_cpu"
        )
    return Total(memory, cpu, reserve, AGENT_CPU)


def _resolve(demand: Demand, total: Total, source: str, notes: list[str], problems: list[str]) -> Service:
    """The service with every amount a number. What makes no sense goes to ``problems``, the rest to ``notes``."""
    service = demand.service
    memory_request = _amount(demand.memory_request or NOTHING, total.memory)
    memory_limit = None if demand.memory_limit is None else _amount(demand.memory_limit, total.memory)
    cpu_request = _amount(demand.cpu_request or NOTHING, total.cpu)
    cpu_limit = None if demand.cpu_limit is None else _amount(demand.cpu_limit, total.cpu)
    where = f"{service.name} ({source}:{demand.line})" if demand.line else service.name
    for resource, request, limit, asked, whole, show in (
        ("memory", memory_request, memory_limit, demand.memory_limit, total.memory, text.size),
        ("cpu", cpu_request, cpu_limit, demand.cpu_limit, total.cpu, text.cores),
    ):
        if limit is None or asked is None:
            continue
        if limit <= 0:
            why, fix = f"its {resource} limit is 0, with which nothing runs", f"raise resources.{resource}.limit"
            problems.append(f"cannot admit {where}: {why}; fix: {fix}")
        elif request > limit:
            share = "" if asked.share is None else ", a share of the total"
            why = f"its {resource} request of {show(request)} is above its limit of {show(limit)}{share}"
            fix = f"raise the limit or lower the request (resources.{resource})"
            problems.append(f"cannot admit {where}: {why}; fix: {fix}")
        elif limit > whole:
            above = f"the {resource} limit of {show(limit)} is above the total of {show(whole)}"
            notes.append(f"{service.name}: {above}, which holds first")
    if memory_limit is not None and 0 < memory_limit < SANDBOX_MEMORY and service.sandbox != Sandbox():
        why = f"its memory limit of {text.size(memory_limit)} is less than making its sandbox takes"
        fix = f"raise resources.memory.limit to {text.size(SANDBOX_MEMORY)}, or set sandbox: none"
        problems.append(f"cannot admit {where}: {why}; fix: {fix}")
    pids = service.limits.pids_limit
    return service._replace(
        limits=service.limits._replace(
            memory_request=memory_request,
            memory_limit=memory_limit,
            swap_limit=None if demand.swap_limit is None else _amount(demand.swap_limit, total.memory),
            cpu_request=cpu_request,
            cpu_limit=cpu_limit,
            pids_limit=DEFAULT_PIDS if pids is None else pids,
        )
    )


def _dependency_problems(profile: Profile, services: list[Service]) -> list[str]:
    known = {demand.service.name for demand in profile.demands}
    enabled = {service.name for service in services}
    problems = []
    for service in services:
        for name in service.depends_on:
            if name not in known:
                problems.append(
                    f"cannot start {service.name}: it depends on {name}, which the profile does not have; "
                    f"fix: add {name} or take it out of depends_on"
                )
            elif name not in enabled:
                problems.append(
                    f"cannot start {service.name}: it depends on {name}, which is off; "
                    f"fix: enable {name}, disable {service.name}, or take {name} out of depends_on"
                )
    cycle = find_cycle(services)
    if cycle:
        problems.append(
            f"cannot order {' -> '.join(cycle)}: each depends on the next, so none could start first; "
            "fix: take one of them out of depends_on"
        )
    return problems


def _dropped(drop: Drop) -> str:
    service = drop.service
    named = f"dropped {service.name} ({text.importance(service.importance)})"
    if drop.because_of:
        return f"{named}: it depends on {drop.because_of}"
    limits = service.limits
    asks = f"{text.size(limits.memory_request)} and {text.cores(limits.cpu_request)} cores"
    return f"{named}, which asks for {asks}, so that the rest fits the total"
