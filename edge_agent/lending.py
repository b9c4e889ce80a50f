"""cpu and io: who is entitled and waits gets back what less important ones have borrowed. Pure: ``share(work, CPU)``.

No weight helps against a total that is used up, nor against a queue in a disk: only less use does. Milli-cores, bytes
per second.
"""

from __future__ import annotations

from .grips import (
    CPU,
    FORGIVEN,
    HARD,
    IO,
    LEAST,
    MEMORY,
    MOST,
    NOTHING,
    SOFT,
    SQUEEZED,
    STEP,
    Grip,
    Helpless,
    Squeeze,
    Work,
)
from .looks import Look

AT_LIMIT = 0.9
"""Share of its own cpu limit from which a service is taken to wait for that."""
LITTLE = 8
"""Part of what the one that waits for a disk moves itself; less than that does not keep it waiting."""
BUSY = 0.9
"""Where stalls are not measured: share of the time the disk is busy from which who uses it is taken to wait for it."""


def share(work: Work, resource: str) -> None:
    """Who is entitled and waits gets what less important ones have borrowed."""
    look = work.look
    waits = {name: _waits(work, resource, name) for name in work.there}
    sufferers = [name for name, share in waits.items() if share >= SOFT]
    first = max(sufferers, key=lambda name: (work.importance[name], waits[name], name), default="")
    top = work.importance[first] if first else -1
    pressing = [name for name in _lenders(work, resource, first) if work.importance[name] < top]
    if pressing and resource in work.governor.unheld:
        _say_unheld(work, resource, f"{_because(look, resource, first, waits[first])}; {pressing[0]}")
        return
    for name in pressing:
        grip = work.grips.get((resource, name), NOTHING)
        if grip.level and look.at - grip.since < STEP:
            continue  # it has to show its effect
        _squeeze_share(work, resource, name, _because(look, resource, first, waits[first]), hard=waits[first] >= HARD)
    held = work.held(resource)
    if pressing or any(work.importance[name] < top for name, _grip in held):
        work.rough[resource] = look.at  # those that are held are held for somebody
    for name, grip in held:
        if not pressing and work.importance[name] >= top and work.due(resource, grip):
            _give_back_share(work, resource, name, grip)
            return


def _waits(work: Work, resource: str, name: str) -> float:
    """Share of the time it waits for others: of a processor it uses no more than is its own, and it is not held."""
    load, limits = work.look.loads[name], work.services[name].limits
    if work.level(resource, name) or work.level(MEMORY, name):
        return 0.0
    if resource == IO:
        by_usage = work.look.disk if work.look.disk >= BUSY and load.io else 0.0
        return load.io_wait if work.look.psi else by_usage
    at_limit = limits.cpu_limit is not None and load.cpu >= AT_LIMIT * limits.cpu_limit
    return load.cpu_wait if load.cpu <= limits.cpu_request and not at_limit else 0.0


def _because(look: Look, resource: str, first: str, share: float) -> str:
    if resource == IO and not look.psi:
        return f"the disk that {first} needs is busy {share:.0%} of the time, over {BUSY:.0%}"
    return f"{first} waits for {resource} {share:.0%} of the time, over {SOFT:.0%}"


def _lenders(work: Work, resource: str, first: str) -> list[str]:
    """Whose loans can be called back: of cpu all that are left; of a disk, of which nobody has requested anything, the
    first that moves much. Who moves little beside the one that waits is not to blame for it; where stalls are not
    measured, who does not move more."""
    look = work.look
    if resource == CPU:
        half = [name for name in work.there if look.loads[name].cpu > work.own(CPU, name) < _more(work, CPU, name)]
        return sorted(
            [*work.borrowers(CPU), *half], key=lambda name: (work.importance[name], -look.loads[name].cpu, name)
        )
    beside = look.loads[first].io if first else 0
    least = max(LEAST[IO], beside // LITTLE if look.psi else beside)
    busy = [
        name
        for name in work.there
        if look.loads[name].io > least and (not work.level(IO, name) or _more(work, IO, name) > LEAST[IO])
    ]
    return sorted(busy, key=lambda name: (work.importance[name], -look.loads[name].io, name))[:1]


def _more(work: Work, resource: str, name: str) -> int:
    """What is left to a squeezed one; 0 of others."""
    grip = work.grips.get((resource, name), NOTHING)
    return grip.amount if grip.level else 0


def _squeeze_share(work: Work, resource: str, name: str, because: str, *, hard: bool) -> None:
    """Of a loan of cpu half is called back, and all of it from who waits hard or goes on waiting. What a disk can move
    nobody knows: a quarter of what was moved is left, of that a quarter, and of a flood a sixteenth at once."""
    load, left = work.look.loads[name], _more(work, resource, name)
    if resource == CPU:
        own = work.own(CPU, name)
        loan = 0 if hard or left else load.cpu - own
        amount = own + loan // 2 if loan > 2 * LEAST[CPU] else own
        text = f"{because}; {name} used {load.cpu / 1000:.2f} cores, {amount / 1000:.2f} are left to it"
    else:
        moved = min(load.io, left) if left else load.io
        amount = max(moved // (16 if hard else 4), LEAST[IO])
        text = f"{because}; {name} moved {_rate(load.io)}, {_rate(amount)} are left to it"
    work.hold(resource, name, SQUEEZED, amount, Squeeze(name, resource, amount, text))


def _give_back_share(work: Work, resource: str, name: str, grip: Grip) -> None:
    """All of it; but of a disk four times as much to who still wants more, or a flood would be one again at once."""
    load, calm = work.look.loads.get(name), work.look.at - work.rough.get(resource, grip.since)
    text = f"nobody entitled has waited for {resource} for {calm:.0f} s"
    more = grip.amount * 4
    wants = load is not None and (load.io_wait >= HARD if work.look.psi else load.io >= grip.amount // 2)
    if resource == IO and wants and more < MOST[IO]:
        work.ease(IO, name, more, f"{text}; {_rate(more)} are left to {name}")
    else:
        work.give_back(resource, name, text)


def _say_unheld(work: Work, resource: str, because: str) -> None:
    """Now and then."""
    if work.look.at - work.said.get(resource, -FORGIVEN) >= FORGIVEN:
        work.said[resource] = work.look.at
        text = f"{because} is not held, {resource} is not enforced: {work.governor.unheld[resource]}"
        work.decisions.append(Helpless(text, resource))


def _rate(amount: int) -> str:
    return f"{amount / (1 << 20):.1f} MiB/s"
