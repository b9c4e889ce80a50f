"""Pressure and usage -> who gives what back, who is shed, who returns. Pure: ``decide(governor, look, services)``.

Limits above requests are loans: a service may use what nobody entitled to it wants. Under pressure loans are called
back from the least important first, and memory goes on from there: squeeze, freeze where the service allows it, shed.
Afterwards everything is given back in reverse order, each after a time that grows when it did harm again soon. The
same looks give the same decisions; each carries the numbers it was made of. Shares are of the time between two looks,
as in the kernel's accounting/psi.rst; bytes, milli-cores, monotonic seconds.
"""

from __future__ import annotations

from .model import ESSENTIAL, Return, Service, Shed
from .records import Record

MEMORY, CPU, IO = "memory", "cpu", "io"
SQUEEZED, FROZEN, SHED = "squeezed", "frozen", "shed"

SOFT = 0.10
"""Share of stalled time (some) from which loans are called back; below CALM nothing is."""
HARD = 0.30
"""Share (some) from which, after HOLD seconds without a break, the next step is taken: freeze, shed."""
FULL = 0.10
"""The same for the share in which nothing at all went on (full)."""
CALM = 0.02
HOLD = 0.25
FLOOR = 0.04
"""Share of the machine's memory: less available than that is as bad as HARD, whatever the stalls say."""
SETTLE = 0.25
"""Seconds for a step to show its effect before the next."""
WATCH = 1.0
"""Seconds between looks at whether cpu or io is calm again; in less, one short burst is most of the time seen."""
FREEZING = 1.0
"""The same for one that was frozen: the memory of those that stand still has to be moved out first."""
GRACE = 2.0
"""Seconds a service that is shed has to end by itself; to squeeze the next one meanwhile would hit the wrong one."""
FIRST_WAIT = {MEMORY: 10.0, CPU: 2.0, IO: 2.0}
LONGEST_WAIT = {MEMORY: 600.0, CPU: 60.0, IO: 60.0}
"""Seconds of calm before something is given back: doubled with each offence soon after it was."""
FORGIVEN = 600.0
"""Seconds without an offence after which a service starts anew."""
MARGIN = 1.25
"""What returns must fit so many times into what is free."""
WORTH = 1 << 20
"""Bytes; a service that holds less, or less above its request, is left alone, it would not help."""
AT_LIMIT = 0.9
"""Share of its own cpu limit from which a service is taken to wait for that."""
LEAST_CPU = 50
"""Milli-cores that are left to a service whose cpu is squeezed, whatever its request: it must be able to stop."""
LEAST_IO = 256 * 1024
"""Bytes per second that are left to a service whose input and output is squeezed."""


class Load(Record):
    """One running service as it was seen."""

    memory: int = 0  # bytes it holds
    cpu: int = 0  # milli-cores it used since the last look
    io: int = 0  # bytes per second it read and wrote
    cpu_wait: float = 0.0  # share of the time in which some task waited for a processor, and not for its own limit
    io_wait: float = 0.0  # for a disk


class Look(Record):
    """The node as it was seen. Stalls are the largest of any service that is neither at its own limit nor held, and of
    the machine when little is available: what a limit of its own does to a service is no reason to take from others."""

    at: float
    some: float = 0.0  # share of the time in which some task waited for memory
    full: float = 0.0  # in which all did
    free: int = 0  # bytes of the services' total that are unused; cache that can be dropped is unused
    available: int = 0  # bytes, MemAvailable of proc_meminfo(5)
    machine: int = 0  # bytes of RAM
    swap: bool = False  # pages can be moved out, so memory.high slows down and does not stop (see ``Squeeze``)
    loads: dict[str, Load] = {}  # noqa: RUF012 - records are never changed


class Grip(Record):
    """What is withheld from one service of one resource; with level '' only remembered."""

    level: str = ""  # '' | squeezed | frozen | shed
    since: float = 0.0  # of the level
    amount: int = 0  # bytes it held when it was shed; bytes per second left to it
    offences: int = 0
    last: float = 0.0  # when it was last called back
    why: str = ""  # for people


class Governor(Record):
    """The state. Keys of ``grips``: (resource, service)."""

    grips: dict[tuple[str, str], Grip] = {}  # noqa: RUF012
    hard_since: float | None = None  # memory has been hard pressed without a break
    rough: dict[str, float] = {}  # noqa: RUF012 - resource -> when it was last not calm
    acted: float = -1e9  # when memory was last acted upon
    helpless: bool = False  # it was said that nothing is left to take


class Squeeze(Record):
    """Call a loan back: memory to the request (memory.high where swap makes it safe, and memory.reclaim), cpu.max to
    the request, io.max to ``amount`` bytes per second."""

    name: str
    resource: str
    amount: int
    text: str


class Relax(Record):
    """Give it back: the limits of the plan apply."""

    name: str
    resource: str
    text: str


class Freeze(Record):
    """Stop it where it is, cgroup.freeze; its memory can be moved out, and it asks for no more."""

    name: str
    text: str


class Thaw(Record):
    """Let it go on."""

    name: str
    text: str


class Helpless(Record):
    """Only essential services are left, and memory is still short."""

    text: str


Decision = Squeeze | Relax | Freeze | Thaw | Shed | Return | Helpless


def decide(governor: Governor, look: Look, services: dict[str, Service]) -> tuple[Governor, list[Decision]]:
    """One look. ``services``: the plan's, by name. The governor given is not changed."""
    work = _Work(governor, look, services)
    work.forget()
    _memory(work)
    for resource in (CPU, IO):
        _share(work, resource)
    return work.result(), work.decisions


def released(governor: Governor, name: str, now: float) -> Governor:
    """Somebody else, a person or another plan, has brought a service back that was shed."""
    key = (MEMORY, name)
    grip = governor.grips.get(key)
    if grip is None or grip.level != SHED:
        return governor
    return governor._replace(grips={**governor.grips, key: grip._replace(level="", since=now, why="")})


def killed(governor: Governor, service: Service, held: int, now: float) -> tuple[Governor, list[Decision]]:
    """The kernel has killed a service because all of them, or the machine, had no memory left: it is as good as shed.

    ``held``: bytes it had at most. Without swap and with little cache there is no pressure before the kill.
    """
    key = (MEMORY, service.name)
    before = governor.grips.get(key, Grip())
    limits = service.limits
    text = f"it was killed holding {_size(held)}, {_size(limits.memory_request)} are its own; it stays away for now"
    grip = Grip(SHED, now, held, before.offences + (not before.level), now, text)
    rough = {**governor.rough, MEMORY: now}
    return governor._replace(grips={**governor.grips, key: grip}, rough=rough), [Shed(service.name, text)]


def next_look(governor: Governor, now: float) -> float | None:
    """When to look again though no trigger fires; None: nothing is withheld and nothing is pressing."""
    rough = {resource for resource, at in governor.rough.items() if now - at < FIRST_WAIT[CPU]}
    if governor.hard_since is not None or MEMORY in rough:
        return now + SETTLE
    if rough:
        return now + WATCH
    held = [(key, grip) for key, grip in governor.grips.items() if grip.level]
    if not held:
        return None
    return max(
        now + SETTLE, min(_due(governor, key, grip, _waited(governor, key, grip, now) + 1) for key, grip in held)
    )


def effective_importance(services: dict[str, Service]) -> dict[str, int]:
    """Importance, at least that of everything that depends on it: what an essential needs is never shed."""
    found = {name: service.importance for name, service in services.items()}
    for service in reversed(services.values()):  # dependants come after what they depend on
        for name in service.depends_on:
            if name in found:
                found[name] = max(found[name], found[service.name])
    return found


def _due(governor: Governor, key: tuple[str, str], grip: Grip, times: int = 0) -> float:
    """When it will have waited that many times in calm."""
    return max(grip.since, governor.rough.get(key[0], grip.since)) + times * _wait(key[0], grip)


def _waited(governor: Governor, key: tuple[str, str], grip: Grip, now: float) -> int:
    """How many times its wait has passed in calm."""
    return int(max(0.0, now - _due(governor, key, grip)) / _wait(key[0], grip) + 1e-9)


def _wait(resource: str, grip: Grip) -> float:
    return float(min(FIRST_WAIT[resource] * 2.0 ** max(0, grip.offences - 1), LONGEST_WAIT[resource]))


class _Work:
    """One decision in the making."""

    def __init__(self, governor: Governor, look: Look, services: dict[str, Service]) -> None:
        self.governor = governor
        self.look = look
        self.services = services
        self.importance = effective_importance(services)
        self.grips = dict(governor.grips)
        self.rough = dict(governor.rough)
        self.decisions: list[Decision] = []

    def forget(self) -> None:
        """Services that left the plan, and offences of long ago."""
        for key, grip in list(self.grips.items()):
            if key[1] not in self.services or (not grip.level and self.look.at - grip.last >= FORGIVEN):
                del self.grips[key]

    def level(self, resource: str, name: str) -> str:
        return self.grips.get((resource, name), Grip()).level

    def grip(self, resource: str, name: str, level: str, amount: int, why: str) -> None:
        """Take hold, or a tighter hold. It is an offence when it had been let go not long before."""
        before = self.grips.get((resource, name), Grip())
        again = not before.level
        self.grips[resource, name] = Grip(
            level,
            self.look.at,
            amount,
            before.offences + 1 if again else before.offences,
            self.look.at if again else before.last,
            why,
        )

    def let_go(self, resource: str, name: str) -> None:
        self.grips[resource, name] = self.grips[resource, name]._replace(level="", since=self.look.at, why="")

    def borrowers(self, resource: str) -> list[str]:
        """Who uses more than its request, the least important first, of equals the one furthest above it."""
        above = {}
        for name, load in self.look.loads.items():
            if name in self.services:
                limits = self.services[name].limits
                used, request = (
                    (load.memory, limits.memory_request) if resource == MEMORY else (load.cpu, limits.cpu_request)
                )
                if used > request + (WORTH if resource == MEMORY else 0):
                    above[name] = used - request
        return sorted(above, key=lambda name: (self.importance[name], -above[name], name))

    def sheddable(self) -> list[str]:
        """Who could be shed, in that order: the least important first, of equals the one that frees most.

        What others depend on goes after them.
        """
        there = {name for name in self.look.loads if name in self.services and self.level(MEMORY, name) != SHED}
        needed = {other for name in there for other in self.services[name].depends_on}
        names = [
            name
            for name in there - needed
            if self.importance[name] < ESSENTIAL and self.look.loads[name].memory >= WORTH
        ]
        return sorted(names, key=lambda name: (self.importance[name], -self.look.loads[name].memory, name))

    def held(self, resource: str) -> list[tuple[str, Grip]]:
        """Who has something withheld, in the order of giving back: the most important first, the latest first."""
        found = [(key[1], grip) for key, grip in self.grips.items() if key[0] == resource and grip.level]
        return sorted(found, key=lambda pair: (-self.importance[pair[0]], -pair[1].since, pair[0]))

    def waited(self, resource: str, name: str) -> int:
        """How many times its wait has passed in calm."""
        key = (resource, name)
        return _waited(self.governor._replace(rough=self.rough), key, self.grips[key], self.look.at)

    def result(self) -> Governor:
        return self.governor._replace(grips=self.grips, rough=self.rough)


# -- memory ------------------------------------------------------------------------------------------------------------


def _memory(work: _Work) -> None:
    look, governor = work.look, work.governor
    short = look.machine > 0 and look.available < FLOOR * look.machine
    hard = short or look.some >= HARD or look.full >= FULL
    soft = hard or look.some >= SOFT
    since = (look.at if governor.hard_since is None else governor.hard_since) if hard else None
    if hard or look.some >= CALM:
        work.rough[MEMORY] = look.at
    helpless = governor.helpless and look.at - work.rough.get(MEMORY, look.at) < FIRST_WAIT[MEMORY]
    governor = work.governor = governor._replace(hard_since=since, helpless=helpless)
    if since is not None and look.at - since >= HOLD and _settled(work):
        _next_step(work, _numbers(look, since, short=short))
    elif soft and look.at - governor.acted >= SETTLE:
        _call_back(work, _numbers(look, since, short=short))
    elif not soft:
        _give_back(work)


def _settled(work: _Work) -> bool:
    """Whether the last step has had its time; one that is shed may take its grace to be gone."""
    times = {SHED: GRACE + SETTLE, FROZEN: FREEZING}
    pending = any(
        name in work.look.loads and work.look.at - grip.since < times.get(grip.level, 0.0)
        for (resource, name), grip in work.grips.items()
        if resource == MEMORY
    )
    return not pending and work.look.at - work.governor.acted >= SETTLE


def _call_back(work: _Work, because: str) -> bool:
    """Squeeze the first borrower that is not squeezed yet. False: there is none."""
    for name in work.borrowers(MEMORY):
        if work.importance[name] < ESSENTIAL and not work.level(MEMORY, name):
            load, request = work.look.loads[name], work.services[name].limits.memory_request
            text = f"{because}; calls {_size(load.memory - request)} back, {_size(request)} are its own"
            work.grip(MEMORY, name, SQUEEZED, request, text)
            work.decisions.append(Squeeze(name, MEMORY, request, text))
            work.governor = work.governor._replace(acted=work.look.at)
            return True
    return False


def _next_step(work: _Work, because: str) -> None:
    """The least important one goes a step further."""
    victims = work.sheddable()
    if not victims:
        leaving = any(work.level(MEMORY, name) == SHED for name in work.look.loads)
        if not leaving and not _call_back(work, because) and not work.governor.helpless:
            work.governor = work.governor._replace(helpless=True)
            work.decisions.append(Helpless(f"{because}; only essential services are left, and they stay"))
        return
    name = victims[0]
    load = work.look.loads[name]
    work.governor = work.governor._replace(acted=work.look.at)
    if work.services[name].freezable and work.level(MEMORY, name) != FROZEN:
        text = f"{because}; stops {_size(load.memory)} from growing"
        work.grip(MEMORY, name, FROZEN, load.memory, text)
        work.decisions.append(Freeze(name, text))
        return
    after = f"; next: {victims[1]}" if len(victims) > 1 else "; next: nobody, only essential services are left"
    text = f"{because}; frees {_size(load.memory)}{after}"
    work.grip(MEMORY, name, SHED, load.memory, text)
    work.decisions.append(Shed(name, text))


def _give_back(work: _Work) -> None:
    """One at a time, when it has been calm for long enough and what returns fits."""
    look = work.look
    for name, grip in work.held(MEMORY):
        waited = work.waited(MEMORY, name)
        if not waited:
            return
        calm = f"memory calm for {look.at - work.rough.get(MEMORY, grip.since):.0f} s"
        if grip.level == SHED:
            # What it held may have been a leak, and never be free again: of that, half is asked for after each wait.
            request = work.services[name].limits.memory_request
            needed = round((request + (max(0, grip.amount - request) >> (waited - 1))) * MARGIN)
            left = min(look.free, look.available - round(FLOOR * look.machine))
            if left < needed:
                continue  # one that is smaller may fit
            work.decisions.append(Return(name, f"{calm}; {_size(left)} are free, it needs {_size(needed)}"))
        elif grip.level == FROZEN:
            work.decisions.append(Thaw(name, calm))
            work.decisions.append(Relax(name, MEMORY, calm))
        else:
            work.decisions.append(Relax(name, MEMORY, calm))
        work.let_go(MEMORY, name)
        work.rough[MEMORY] = look.at  # the next one waits for its own time, and sees what this one does
        return


def _numbers(look: Look, since: float | None, *, short: bool) -> str:
    if short:
        return f"{_size(look.available)} of the machine's {_size(look.machine)} are available"
    kind, share, bound = ("full", look.full, FULL) if look.full >= FULL and look.some < HARD else ("some", look.some, 0)
    bound = bound or (HARD if look.some >= HARD else SOFT)
    held = "" if since is None else f" for {look.at - since:.1f} s"
    return f"memory {kind} {share:.0%} over {bound:.0%}{held}"


# -- cpu and io --------------------------------------------------------------------------------------------------------


def _share(work: _Work, resource: str) -> None:
    """Who is entitled and waits gets what less important ones have borrowed."""
    look = work.look
    sufferers = [name for name in look.loads if name in work.services and _suffers(work, resource, name)]
    if sufferers:
        work.rough[resource] = look.at
        first = max(sufferers, key=lambda name: (work.importance[name], _waits(look.loads[name], resource), name))
        because = f"{first} waits for {resource} {_waits(look.loads[first], resource):.0%} of the time, over {SOFT:.0%}"
        for name in _lenders(work, resource):
            if work.importance[name] < work.importance[first]:
                _squeeze_share(work, resource, name, because)
        return
    for name, _grip in work.held(resource):
        if work.waited(resource, name):
            calm = f"nobody entitled has waited for {resource} for {look.at - work.rough.get(resource, 0.0):.0f} s"
            work.let_go(resource, name)
            work.rough[resource] = look.at
            work.decisions.append(Relax(name, resource, calm))
            return


def _waits(load: Load, resource: str) -> float:
    return load.cpu_wait if resource == CPU else load.io_wait


def _suffers(work: _Work, resource: str, name: str) -> bool:
    """Waits, and for others: of a processor it uses no more than is its own, and its own limit is not what stops it,
    or what it is held to."""
    load, limits = work.look.loads[name], work.services[name].limits
    if _waits(load, resource) < SOFT or work.level(resource, name):
        return False
    at_limit = limits.cpu_limit is not None and load.cpu >= AT_LIMIT * limits.cpu_limit
    return resource == IO or (load.cpu <= limits.cpu_request and not at_limit)


def _lenders(work: _Work, resource: str) -> list[str]:
    if resource == CPU:
        return [name for name in work.borrowers(CPU) if not work.level(CPU, name)]
    busy = [name for name, load in work.look.loads.items() if name in work.services and load.io > LEAST_IO]
    return sorted(busy, key=lambda name: (work.importance[name], -work.look.loads[name].io, name))[:1]


def _squeeze_share(work: _Work, resource: str, name: str, because: str) -> None:
    load = work.look.loads[name]
    if resource == CPU:
        amount = max(work.services[name].limits.cpu_request, LEAST_CPU)
        text = f"{because}; {name} used {load.cpu / 1000:.2f} cores, {amount / 1000:.2f} are left to it"
    else:
        amount = max(load.io // 4, LEAST_IO)
        text = f"{because}; {name} moved {_size(load.io)}/s, {_size(amount)}/s are left to it"
    work.grip(resource, name, SQUEEZED, amount, text)
    work.decisions.append(Squeeze(name, resource, amount, text))


def _size(amount: int) -> str:
    return f"{amount / (1 << 20):.0f} MiB"
