"""What is withheld from which service, since when, and who comes next: the governor's state and its bookkeeping. Pure.

Three resources, each with its own grips; a resource is called back in order of importance and given back in reverse,
after a time that doubles with each offence. Bytes, milli-cores, bytes per second, monotonic seconds.
"""

from __future__ import annotations

from .looks import Load, Look
from .model import ESSENTIAL, Return, Service, Shed
from .records import Record

MEMORY, CPU, IO = "memory", "cpu", "io"
SQUEEZED, FROZEN, SHED = "squeezed", "frozen", "shed"

SOFT = 0.10
"""Share of stalled time (some) from which loans are called back; below CALM things are given back."""
HARD = 0.30
"""Share (some) from which, after HOLD seconds without a break, the next step is taken: freeze, shed."""
STEP = 0.5
"""Seconds for a hold on cpu or io to show its effect before a tighter one."""

FIRST_WAIT = {MEMORY: 10.0, CPU: 2.0, IO: 4.0}
LONGEST_WAIT = {MEMORY: 600.0, CPU: 60.0, IO: 60.0}
"""Seconds of calm before something is given back: doubled with each offence soon after it was."""
MOST_OFFENCES = 16
"""Counted; more would not make a wait longer."""
FORGIVEN = 600.0
"""Seconds after it was given everything back, without an offence, from which a service starts anew."""
MARGIN = 1.25
"""Times its own that a service must hold to count as one that has not given back; times what it held that must be free
before it returns."""
WORTH = 1 << 20
"""Bytes; a service that holds less, with what only runs for it, is not shed, and a smaller loan not called back: it
would not help."""
LIMITED = 3.0
"""Seconds for which a service waits by its own limit after it met it: memory.high has it sleep up to 2 s at a time."""
LEAST = {MEMORY: 8 << 20, CPU: 50, IO: 256 * 1024}
"""Bytes, milli-cores, bytes per second that are left to a squeezed service, whatever it has requested."""
MOST = {IO: 64 << 20}
"""Bytes per second; who may have as much need not be held at all: what this is for has no such disk."""


class Grip(Record):
    """What is withheld from one service of one resource; with level '' only remembered."""

    level: str = ""  # '' | squeezed | frozen | shed
    since: float = 0.0  # of the level
    amount: int = 0  # squeezed: what is left to it; frozen, shed: bytes it held
    offences: int = 0
    why: str = ""  # for people
    held: int = 0  # memory: bytes it held when it was first taken hold of
    eased: bool = False  # some of it was given back since it was last taken


NOTHING = Grip()


class Governor(Record):
    """The state. Keys of ``grips``: (resource, service)."""

    grips: dict[tuple[str, str], Grip] = {}  # noqa: RUF012
    rough: dict[str, float] = {}  # noqa: RUF012 - resource -> when it was last not calm, or something was given back
    limited: dict[str, float] = {}  # noqa: RUF012 - service -> when its own memory limit was last seen to stop it
    hard_since: float | None = None  # memory has been hard pressed without a break
    acted: float = -1e9  # when memory was last acted upon
    busy: bool = False  # what was done, or is to be done, cannot wait for a trigger
    helpless: bool = False  # it was said that nothing is left to take
    unheld: dict[str, str] = {}  # noqa: RUF012 - resource of which nothing can be withheld here -> why
    said: dict[str, float] = {}  # noqa: RUF012 - resource -> when that was last said


class Squeeze(Record):
    """Call a loan back: memory to ``amount`` (memory.high where swap makes it safe, and memory.reclaim), cpu.max and
    io.max to it: bytes, milli-cores, bytes per second."""

    name: str
    resource: str
    amount: int
    text: str


class Relax(Record):
    """Give it back: the limits of the plan apply. With an amount only some of it: that is the new limit."""

    name: str
    resource: str
    text: str
    amount: int = 0


class Freeze(Record):
    """Stop it where it is, cgroup.freeze; its memory can be moved out, and it asks for no more."""

    name: str
    text: str


class Thaw(Record):
    """Let it go on."""

    name: str
    text: str


class Helpless(Record):
    """Somebody lacks something, and nothing is left to take, or nothing can be taken."""

    text: str
    resource: str = MEMORY


Decision = Squeeze | Relax | Freeze | Thaw | Shed | Return | Helpless


def released(governor: Governor, name: str, now: float) -> Governor:
    """Somebody else, a person or another plan, has brought a service back that was shed."""
    key = (MEMORY, name)
    grip = governor.grips.get(key)
    if grip is None or grip.level != SHED:
        return governor
    return governor._replace(grips={**governor.grips, key: grip._replace(level="", since=now, why="")})


def taken(before: Grip, level: str, now: float, amount: int, why: str, held: int) -> Grip:
    """A hold, or a tighter one. It is an offence when it was not held before, or some was given back already."""
    if before.level and not before.eased:
        return Grip(level, now, amount, before.offences, why, before.held)
    return Grip(level, now, amount, min(before.offences + 1, MOST_OFFENCES), why, held)


def due(governor: Governor, resource: str, grip: Grip) -> float:
    """When something may be given back if it stays calm until then."""
    return max(grip.since, governor.rough.get(resource, grip.since)) + wait(resource, grip.offences)


def wait(resource: str, offences: int) -> float:
    """Seconds of calm before something is given back."""
    doubled = FIRST_WAIT[resource] * (1 << max(0, min(offences, MOST_OFFENCES) - 1))
    return min(doubled, LONGEST_WAIT[resource])


def effective_importance(services: dict[str, Service]) -> dict[str, int]:
    """Importance, at least that of everything that depends on it: what an essential needs is never shed."""
    found = {name: service.importance for name, service in services.items()}
    for service in reversed(services.values()):  # dependants come after what they depend on
        for name in service.depends_on:
            if name in found:
                found[name] = max(found[name], found[service.name])
    return found


class Work:
    """One decision in the making."""

    def __init__(self, governor: Governor, look: Look, services: dict[str, Service]) -> None:
        self.governor = governor
        self.look = look
        self.services = services
        self.importance = effective_importance(services)
        self.grips = dict(governor.grips)
        self.rough = dict(governor.rough)
        self.limited = {
            name: at for name, at in governor.limited.items() if name in look.loads and look.at - at < LIMITED
        }
        self.said = dict(governor.said)
        self.limited.update((name, look.at) for name, load in look.loads.items() if load.limited)
        self.decisions: list[Decision] = []
        self.busy = False
        self.there = [name for name in services if name in look.loads and self.level(MEMORY, name) != SHED]
        """Services of the plan that run and are not to end, dependencies before dependants."""

    def forget(self) -> None:
        """Services that left the plan, and offences of long ago. What became essential gets everything back."""
        for key, grip in list(self.grips.items()):
            if key[1] not in self.services or (not grip.level and self.look.at - grip.since >= FORGIVEN):
                del self.grips[key]
            elif grip.level and self.importance[key[1]] >= ESSENTIAL:
                self.give_back(*key, "it is essential now")

    def level(self, resource: str, name: str) -> str:
        return self.grips.get((resource, name), NOTHING).level

    def hold(self, resource: str, name: str, level: str, amount: int, decision: Decision) -> None:
        """Take hold, or a tighter hold."""
        before, held = self.grips.get((resource, name), NOTHING), self.look.loads[name].memory
        why = getattr(decision, "text", "")
        self.grips[resource, name] = taken(before, level, self.look.at, amount, why, held)
        self.decisions.append(decision)
        self.busy = self.busy or resource == MEMORY
        if level == SHED:
            self.there.remove(name)

    def give_back(self, resource: str, name: str, text: str) -> None:
        """Everything of one resource; the next one waits for its own time, and sees what this one does."""
        grip = self.grips[resource, name]
        if grip.level == SHED:
            self.decisions.append(Return(name, text))
        else:
            if grip.level == FROZEN:
                self.decisions.append(Thaw(name, text))
            self.decisions.append(Relax(name, resource, text))
        self.grips[resource, name] = grip._replace(level="", since=self.look.at, why="")
        self.rough[resource] = self.look.at

    def ease(self, resource: str, name: str, amount: int, text: str) -> None:
        """Some of it; the rest after the next wait."""
        self.grips[resource, name] = self.grips[resource, name]._replace(amount=amount, since=self.look.at, eased=True)
        self.decisions.append(Relax(name, resource, text, amount))
        self.rough[resource] = self.look.at

    def own(self, resource: str, name: str) -> int:
        """What a squeeze leaves to a service."""
        limits = self.services[name].limits
        request = limits.memory_request if resource == MEMORY else limits.cpu_request if resource == CPU else 0
        return max(request, LEAST[resource])

    def borrowers(self, resource: str) -> list[str]:
        """Who uses more than its own and is not held yet: the least important first, of equals the largest loan."""
        loans, least = {}, WORTH if resource == MEMORY else 0
        for name in self.there:
            loan = used(self.look.loads[name], resource) - self.own(resource, name)
            if loan > least and self.importance[name] < ESSENTIAL and not self.level(resource, name):
                loans[name] = loan
        return sorted(loans, key=lambda name: (self.importance[name], -loans[name], name))

    def swaps(self, name: str) -> bool:
        """Whether its pages can be moved out."""
        return self.look.swap and self.services[name].limits.swap_limit != 0

    def overdrawn(self, name: str) -> bool:
        """Whether it holds much more memory than its own."""
        return self.look.loads[name].memory > MARGIN * self.own(MEMORY, name)

    def victims(self, without: str = "") -> list[str]:
        """Who could be shed: those who borrow, then those who have what they were promised; of each the least important
        first, of equals the one that frees most. Dependants go before what they depend on, and for it."""
        there = [name for name in self.there if name != without]
        needed = {other for name in there for other in self.services[name].depends_on}
        frees: dict[str, int] = {}
        borrows: dict[str, bool] = {}
        for name in there:
            if self.importance[name] < ESSENTIAL:
                behind = [other for other in self.services[name].depends_on if other in frees]
                frees[name] = self.look.loads[name].memory + sum(frees[other] for other in behind)
                borrows[name] = self.overdrawn(name) or any(borrows[other] for other in behind)
        names = [name for name, size in frees.items() if name not in needed and size >= WORTH]
        return sorted(names, key=lambda name: (not borrows[name], self.importance[name], -frees[name], name))

    def held(self, resource: str) -> list[tuple[str, Grip]]:
        """Who has something withheld, in the order of giving back: the most important first, the latest first."""
        found = [(key[1], grip) for key, grip in self.grips.items() if key[0] == resource and grip.level]
        return sorted(found, key=lambda pair: (-self.importance[pair[0]], -pair[1].since, pair[0]))

    def due(self, resource: str, grip: Grip) -> bool:
        return self.look.at >= due(self.governor._replace(rough=self.rough), resource, grip)

    def waited(self, resource: str, grip: Grip) -> int:
        """How many times its wait has passed in calm."""
        calm = self.look.at - max(grip.since, self.rough.get(resource, grip.since))
        return int(calm / wait(resource, grip.offences) + 1e-9)


def used(load: Load, resource: str) -> int:
    """Bytes, milli-cores, bytes per second."""
    return load.memory if resource == MEMORY else load.cpu if resource == CPU else load.io
