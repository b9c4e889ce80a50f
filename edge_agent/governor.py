"""Pressure and usage -> who gives what back, who is shed, who returns. Pure: ``decide(governor, look, services)``.

Limits above requests are loans: a service may use what nobody entitled to it wants. Under pressure loans are called
back from the least important first, and memory goes on from there: squeeze, freeze where the service allows it, shed.
Who holds no more than its request, which is promised to it, is touched only when nobody borrows any more. Afterwards
everything is given back in reverse order, each after a time that grows when it did harm again soon.

A service that is held, or at its own limit, waits by its own doing: that is no pressure on others, and no reason to
take anything from them. The same looks give the same decisions; each carries the numbers it was made of. Shares are of
the time between two looks, as in the kernel's accounting/psi.rst; bytes, milli-cores, monotonic seconds.

Rates, which tests/property/test_governor.py holds: one step of memory per SETTLE; nothing is given back before it was
calm for its wait, nor two things of one resource at a time; so a service is shed again not sooner than its wait.
"""

from __future__ import annotations

from .grips import (
    CPU,
    FIRST_WAIT,
    FROZEN,
    HARD,
    IO,
    LONGEST_WAIT,
    MARGIN,
    MEMORY,
    SHED,
    SOFT,
    SQUEEZED,
    STEP,
    Decision,
    Freeze,
    Governor,
    Grip,
    Helpless,
    Relax,
    Squeeze,
    Thaw,
    Work,
    due,
    effective_importance,
    released,
    taken,
)
from .lending import share
from .looks import Look
from .model import ESSENTIAL, Service, Shed

__all__ = [
    "CPU",
    "FROZEN",
    "IO",
    "MEMORY",
    "SHED",
    "SOFT",
    "SQUEEZED",
    "Decision",
    "Freeze",
    "Governor",
    "Grip",
    "Helpless",
    "Relax",
    "Squeeze",
    "Thaw",
    "away",
    "decide",
    "killed",
    "next_look",
    "released",
]

FULL = 0.10
"""The same for the share in which nothing at all went on (full)."""
CALM = 0.02
HOLD = 0.25
FLOOR = 0.04
"""Share of the machine's memory: less available than that is as bad as HARD, whatever the stalls say. Where stalls are
not measured, of the services' total as well, at the cost of those who borrow."""
SETTLE = 0.25
"""Seconds for a step to show its effect before the next."""
WATCH = 1.0
"""Seconds between looks at what is held of cpu and io; in less, one short burst is most of the time seen."""
FREEZING = 1.0
"""Seconds a frozen service has to help: its memory has to be moved out first."""
GRACE = 2.0
"""Seconds a service that is shed has to end by itself, and one that is squeezed to give back what can be swapped."""
KEPT = 0.95
"""Share of what it held from which a squeezed service is taken to give nothing back."""
OFTEN, SELDOM, NEAR = 0.5, 10.0, 0.3
"""Where stalls are not measured: seconds between looks, from OFTEN at the edge to SELDOM where NEAR of it is left."""


def decide(governor: Governor, look: Look, services: dict[str, Service]) -> tuple[Governor, list[Decision]]:
    """One look. ``services``: the plan's, by name, dependencies before dependants. The governor is not changed."""
    work = Work(governor, look, services)
    work.forget()
    _memory(work)
    for resource in (CPU, IO):
        share(work, resource)
    found = {name: getattr(work, name) for name in ("grips", "rough", "limited", "busy", "said")}
    return work.governor._replace(**found), work.decisions


def killed(
    governor: Governor, services: dict[str, Service], name: str, held: int, now: float
) -> tuple[Governor, list[Decision]]:
    """The kernel killed a service because all of them, or the machine, had no memory left: as good as shed, or it would
    do the same again. ``held``: bytes it had at most. Without swap and with little cache no pressure goes before it."""
    own = _size(services[name].limits.memory_request if name in services else 0)
    why = f"it was killed for want of memory, holding {_size(held)}, {own} are its own; it stays away for now"
    return away(governor, services, name, held, now, why)


def away(
    governor: Governor, services: dict[str, Service], name: str, held: int, now: float, why: str
) -> tuple[Governor, list[Decision]]:
    """Shed a service that held so many bytes, for a reason that no look shows; unless an essential needs it."""
    key = (MEMORY, name)
    before = governor.grips.get(key, Grip())
    if before.level == SHED or effective_importance(services).get(name, ESSENTIAL) >= ESSENTIAL:
        return governor, []
    grips = {**governor.grips, key: taken(before, SHED, now, held, why, held)}
    return governor._replace(grips=grips, rough={**governor.rough, MEMORY: now}, acted=now), [Shed(name, why)]


def next_look(governor: Governor, look: Look) -> float | None:
    """When to look again after this one though no trigger fires; None: nothing is withheld and nothing to be done.

    Where stalls are not measured nothing fires: the less is left, the sooner.
    """
    now = look.at
    if governor.busy:
        return now + (GRACE if governor.helpless else SETTLE)
    found = None if look.psi else now + _pause(look)
    for (resource, _name), grip in governor.grips.items():
        if grip.level:
            at = due(governor, resource, grip)
            if at <= now:  # it does not fit yet, or something else was given back just now
                at = now + FIRST_WAIT[resource]
            elif resource != MEMORY and now - grip.since < STEP:
                at = min(at, grip.since + STEP)
            elif resource != MEMORY and now - governor.rough.get(resource, grip.since) < FIRST_WAIT[resource]:
                at = min(at, now + WATCH)
            elif at > now + WATCH:
                at -= WATCH  # so that at last there is something to compare with
            found = at if found is None else min(found, at)
    return found


def _pause(look: Look) -> float:
    left = min(look.available / max(1, look.machine), look.free / max(1, look.total), 1.0 - look.disk)
    return OFTEN + (SELDOM - OFTEN) * min(1.0, left / NEAR) ** 2


# -- memory ------------------------------------------------------------------------------------------------------------


def _memory(work: Work) -> None:
    look, governor = work.look, work.governor
    some, full = _stalls(work)
    short = look.machine > 0 and look.available < FLOOR * look.machine
    tight = not look.psi and look.free < FLOOR * look.total
    hard = short or some >= HARD or full >= FULL
    late = _late(work, tight=tight)
    soft = hard or some >= SOFT or tight
    since = (look.at if governor.hard_since is None else governor.hard_since) if hard else None
    calm = not (soft or late or some >= CALM)
    if not calm:
        work.rough[MEMORY] = look.at
    again = look.at - work.rough.get(MEMORY, look.at) >= FIRST_WAIT[MEMORY]
    work.governor = governor = governor._replace(hard_since=since, helpless=governor.helpless and not again)
    because = _numbers(look, some, full, since, short=short, tight=tight)
    if calm:
        _give_back(work)
    elif not _settled(work):
        pass
    elif since is not None and look.at - since >= HOLD:
        _step(work, because, work.victims())
    elif late:
        waits = f"{late[0]} waits for memory {look.loads[late[0]].memory_wait:.0%} of the time"
        _step(work, f"{waits} and gives nothing back", late)
    elif soft:
        _call_back(work, because)
    work.busy = work.busy or hard or bool(late) or look.at - work.governor.acted < SETTLE


def _stalls(work: Work) -> tuple[float, float]:
    """(some, full) without what services do to themselves: those that are held, and those at their own limit."""
    own = others = 0.0
    for name, load in work.look.loads.items():
        if work.level(MEMORY, name) or name in work.limited:
            own += load.memory_wait
        else:
            others = max(others, load.memory_wait)
    some = max(others, work.look.some - own)
    return some, min(some, work.look.full - own)


def _late(work: Work, *, tight: bool) -> list[str]:
    """Who was squeezed, had the time to give back, and did not: it goes a step further."""
    look = work.look
    if not any(grip.level and resource == MEMORY for (resource, _name), grip in work.grips.items()):
        return []
    return [
        name
        for name in work.victims()
        if work.level(MEMORY, name) in (SQUEEZED, FROZEN)
        and look.at - work.grips[MEMORY, name].since >= (GRACE if work.swaps(name) else SETTLE)
        and work.overdrawn(name)
        and look.loads[name].memory > KEPT * work.grips[MEMORY, name].held
        and (tight or look.loads[name].memory_wait >= HARD)
    ]


def _settled(work: Work) -> bool:
    """Whether the last step has had its time; one that is shed may take its grace to be gone."""
    look = work.look
    times = {SHED: GRACE + SETTLE, FROZEN: FREEZING}
    pending = any(
        resource == MEMORY and name in look.loads and look.at - grip.since < times.get(grip.level, 0.0)
        for (resource, name), grip in work.grips.items()
    )
    return not pending and look.at - work.governor.acted >= SETTLE


def _act(work: Work, name: str, level: str, amount: int, decision: Decision) -> None:
    work.hold(MEMORY, name, level, amount, decision)
    work.governor = work.governor._replace(acted=work.look.at)


def _call_back(work: Work, because: str, names: list[str] | None = None) -> None:
    """Squeeze the first that borrows."""
    if MEMORY in work.governor.unheld:
        return
    for name in (work.borrowers(MEMORY) if names is None else names)[:1]:
        own = work.own(MEMORY, name)
        text = f"{because}; calls {_size(work.look.loads[name].memory - own)} back, {_size(own)} are its own"
        _act(work, name, SQUEEZED, own, Squeeze(name, MEMORY, own, text))


def _step(work: Work, because: str, victims: list[str]) -> None:
    """The first of ``victims`` goes a step further."""
    if not victims:
        if not work.governor.helpless:
            work.governor = work.governor._replace(helpless=True)
            work.decisions.append(Helpless(f"{because}; only essential services are left, and they stay"))
        return
    name = victims[0]
    memory = work.look.loads[name].memory
    if name in work.borrowers(MEMORY) and MEMORY not in work.governor.unheld:
        _call_back(work, because, [name])
    elif work.services[name].freezable and work.level(MEMORY, name) != FROZEN:
        _act(work, name, FROZEN, memory, Freeze(name, f"{because}; keeps {_size(memory)} from growing"))
    else:
        rest = work.victims(without=name)
        after = rest[0] if rest else "nobody"
        _act(work, name, SHED, memory, Shed(name, f"{because}; frees {_size(memory)}; next: {after}"))


def _give_back(work: Work) -> None:
    """One at a time, the most important first, after its time; if it fits beside the requests of those before it."""
    look = work.look
    left = look.free if not look.machine else min(look.free, look.available - round(FLOOR * look.machine))
    for name, grip in work.held(MEMORY):
        calm = f"memory calm for {look.at - work.rough.get(MEMORY, grip.since):.0f} s"
        if grip.level != SHED:
            if work.due(MEMORY, grip):
                work.give_back(MEMORY, name, calm)
                return
            continue
        needed, request = round(grip.amount * MARGIN), work.services[name].limits.memory_request
        if needed > request:  # which may have been a leak, and never be free again
            needed = request + ((needed - request) >> max(0, work.waited(MEMORY, grip) - 1))
        if look.at - grip.since >= LONGEST_WAIT[MEMORY]:
            needed = min(needed, request)
        apart = any(work.level(MEMORY, other) == SHED for other in work.services[name].depends_on)
        if work.due(MEMORY, grip) and needed <= left and not apart:
            work.give_back(MEMORY, name, f"{calm}; {_size(left)} are free, it held {_size(grip.amount)}")
            return
        left -= min(needed, request)


def _numbers(look: Look, some: float, full: float, since: float | None, *, short: bool, tight: bool) -> str:
    held = "" if since is None or since == look.at else f" for {look.at - since:.1f} s"
    if short:
        return f"{_size(look.available)} of the machine's {_size(look.machine)} are available, under {FLOOR:.0%}{held}"
    if full >= FULL and some < HARD:
        return f"memory full {full:.0%} over {FULL:.0%}{held}"
    if tight and some < SOFT:
        return f"{_size(look.free)} of {_size(look.total)} for all services are free, under {FLOOR:.0%}"
    return f"memory some {some:.0%} over {HARD if some >= HARD else SOFT:.0%}{held}"


def _size(amount: int) -> str:
    return f"{amount / (1 << 20):.0f} MiB"
