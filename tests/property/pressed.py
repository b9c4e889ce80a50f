"""A node under load for the governor: services grow, leak, crash, give back or do not, and everything is checked."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from edge_agent import governor as g
from edge_agent.grips import (
    CPU,
    FIRST_WAIT,
    FORGIVEN,
    IO,
    LEAST,
    LIMITED,
    LONGEST_WAIT,
    MARGIN,
    MEMORY,
    MOST_OFFENCES,
    STEP,
    wait,
)
from edge_agent.looks import Load, Look
from edge_agent.model import ESSENTIAL, HEAVY, NORMAL, Limits, Plan, Return, Service, Shed

from .world import essential_for

MIB = 1 << 20
TOTAL = 1000 * MIB
MACHINE = 1300 * MIB
NAMES = ("web", "store", "worker", "batch", "telemetry", "report", "cache")
STEPS = (g.Squeeze, g.Freeze, Shed)
CLOSE = 1e-6


def random_services(random: Random) -> dict[str, Service]:
    """A profile: requests fit the total, dependencies come before dependants."""
    made: dict[str, Service] = {}
    left = TOTAL
    for name in NAMES:
        if made and random.random() < 0.2:
            continue
        request = min(left, random.choice((0, 20, 100, 200)) * MIB)
        left -= request
        limit = random.choice((None, None, request + random.choice((1, 50, 300)) * MIB))
        limits = Limits(request, limit, None, random.choice((0, 100, 500)), random.choice((None, 600)))
        needs = tuple(other for other in made if random.random() < 0.2)
        importance = random.choice((HEAVY, NORMAL, NORMAL, 70, ESSENTIAL))
        made[name] = Service(
            name,
            ("/bin/x",),
            depends_on=needs,
            importance=importance,
            limits=limits,
            freezable=random.random() < 0.3,
        )
    return made


@dataclass
class Running:
    """One service's processes."""

    memory: int = 5 * MIB
    wants: int = 50 * MIB
    leaks: int = 0  # bytes per second
    cpu: int = 0
    io: int = 0
    stubborn: bool = False  # it gives nothing back when it is squeezed
    ends: float | None = None  # it was told to stop


@dataclass
class Pressed:
    """The node. ``turn`` is one look; what must always hold is checked at each."""

    random: Random
    psi: bool = True
    now: float = 1000.0
    governor: g.Governor = field(default_factory=g.Governor)
    running: dict[str, Running] = field(default_factory=dict)
    returns_at: dict[str, float] = field(default_factory=dict)  # crashed ones
    other: int = 100 * MIB  # what the system itself uses
    hard_since: float | None = None
    rough: dict[str, float] = field(default_factory=dict)
    limited: dict[str, float] = field(default_factory=dict)
    stepped: float = -1e9
    holds: dict[tuple[str, str], tuple[str, float]] = field(default_factory=dict)
    offences: dict[tuple[str, str], tuple[int, float]] = field(default_factory=dict)  # count, when given back
    last_shed: dict[str, tuple[float, float]] = field(default_factory=dict)  # when, and the wait it began
    helpless: bool = False
    said: dict[str, float] = field(default_factory=dict)
    eased: set[tuple[str, str]] = field(default_factory=set)  # some was given back
    counts: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.services = random_services(self.random)
        self.running = {name: Running() for name in self.services}
        if self.random.random() < 0.2:
            self.governor = g.Governor(unheld={self.random.choice((CPU, IO)): "no controller"})

    # -- what happens --------------------------------------------------------------------------------------------------

    def shed(self) -> set[str]:
        return {name for (_, name), grip in self.governor.grips.items() if grip.level == g.SHED}

    def turn(self) -> list[g.Decision]:
        """Something happens, time passes, the governor looks."""
        random = self.random
        due = g.next_look(self.governor, self.last) if hasattr(self, "last") else None
        passes = random.choice((0.05, 0.25, 0.25, 0.5, 1.0, 3.0, 12.0))
        if due is not None and random.random() < 0.7:
            passes = max(0.0, due - self.now)
        if random.random() < 0.3:
            self.happens()
        self.pass_time(passes)
        return self.look()

    def happens(self) -> None:
        """Loads change, services crash, the system grows, plans switch, people start things."""
        random = self.random
        name = random.choice(NAMES)
        found = self.running.get(name)
        kind = random.random()
        if kind < 0.02:
            self.switch()
        elif kind < 0.06:
            self.other = random.choice((50, 100, 100, 300, 700, 1280)) * MIB
        elif kind < 0.10 and name in self.shed():
            self.governor = g.released(self.governor, name, self.now)
            self.given_back(MEMORY, name)
            self.last_shed.pop(name, None)
            self.running[name] = Running()
        elif found is None:
            return
        elif kind < 0.2:
            del self.running[name]
            if found.ends is None and kind < 0.13:
                self.killed(name, found.memory)
            elif found.ends is None:
                self.returns_at[name] = self.now + random.choice((1.0, 10.0))
        else:
            found.wants = random.choice((2, 10, 50, 100, 100, 200, 400, 900)) * MIB
            found.leaks = random.choice((0, 0, 0, 1, 20, 200)) * MIB
            found.cpu = random.choice((0, 10, 100, 1000))
            found.io = random.choice((0, 0, 1, 40)) * MIB
            found.stubborn = random.random() < 0.3

    def killed(self, name: str, held: int) -> None:
        """By the kernel, for want of memory: an essential, and what it needs, is started again, others are shed."""
        before = self.governor
        self.governor, decisions = g.killed(before, self.services, name, held, self.now)
        if self.essential(name):
            assert (self.governor, decisions) == (before, [])
            self.returns_at[name] = self.now + 1.0
            return
        (shed,) = decisions
        assert isinstance(shed, Shed)
        self.stepped = self.rough[MEMORY] = self.now
        self.last_shed[name] = self.now, wait(MEMORY, self.governor.grips[MEMORY, name].offences)
        self.taken(MEMORY, name)

    def switch(self) -> None:
        """Another profile: the reconciler brings back what has become essential, and ends what is gone."""
        self.services = random_services(self.random)
        for name in list(self.running):
            if name not in self.services:
                del self.running[name]
        for name in self.shed():
            if name in self.services and self.essential(name):
                self.governor = g.released(self.governor, name, self.now)
                self.given_back(MEMORY, name)
                self.last_shed.pop(name, None)
        for name in self.services:
            if name not in self.shed():
                self.running.setdefault(name, Running())
        self.last_shed = {name: at for name, at in self.last_shed.items() if name in self.services}
        self.holds = {key: held for key, held in self.holds.items() if key[1] in self.services}
        self.offences = {key: found for key, found in self.offences.items() if key[1] in self.services}

    def essential(self, name: str) -> bool:
        services = tuple(self.services.values())
        return essential_for(Plan("p", "", 0, 0, 0, 0, services), name) >= ESSENTIAL

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        for name, at in list(self.returns_at.items()):
            if at <= self.now:
                del self.returns_at[name]
                if name in self.services and name not in self.shed():
                    self.running.setdefault(name, Running())
        for name, found in list(self.running.items()):
            if found.ends is not None and found.ends <= self.now:
                del self.running[name]
                continue
            level = self.governor.grips.get((MEMORY, name), g.Grip()).level
            found.wants += int(found.leaks * seconds)
            if level == g.SQUEEZED and not found.stubborn:
                found.wants = min(found.wants, max(LEAST[MEMORY], self.services[name].limits.memory_request))
            limit = self.services[name].limits.memory_limit
            goal = min(found.wants, TOTAL if limit is None else limit)
            if level not in (g.FROZEN, g.SHED):
                most = int(400 * MIB * seconds)
                found.memory += max(-most, min(most, goal - found.memory, max(0, self.free())))

    def free(self) -> int:
        return min(TOTAL - sum(found.memory for found in self.running.values()), MACHINE - self.other - self.used())

    def used(self) -> int:
        return sum(found.memory for found in self.running.values())

    # -- the look ------------------------------------------------------------------------------------------------------

    def see(self) -> Look:
        """Stalls from what does not fit, and some at random; nothing about them is consistent on purpose."""
        random = self.random
        loads = {}
        for name, found in self.running.items():
            tight = self.free() < 40 * MIB
            waits = random.choice((0.0, 0.05, 0.2, 0.9)) if self.psi and (tight or random.random() < 0.02) else 0.0
            cpu_wait = random.choice((0.0, 0.3, 0.9)) if sum(r.cpu for r in self.running.values()) > 1000 else 0.0
            io_wait = random.choice((0.0, 0.3, 0.9)) if sum(r.io for r in self.running.values()) > 20 * MIB else 0.0
            limited = random.choice((0, 0, 0, 3)) if waits else 0
            loads[name] = Load(found.memory, found.cpu, found.io, waits, cpu_wait, io_wait, limited)
        some = max([random.choice((0.0, 0.0, 0.01, 0.05)), *(load.memory_wait for load in loads.values())])
        full = some * random.choice((0.0, 0.2, 1.0)) if some > 0.02 else 0.0
        return Look(
            self.now,
            some if self.psi else 0.0,
            full if self.psi else 0.0,
            max(0, TOTAL - self.used()),
            TOTAL,
            max(0, MACHINE - self.other - self.used()),
            MACHINE,
            random.random() < 0.5,
            self.psi,
            loads,
            random.choice((0.0, 0.5, 0.95)),
        )

    def look(self, seen: Look | None = None) -> list[g.Decision]:
        look = self.last = self.see() if seen is None else seen
        before = self.governor
        copy = before._replace(grips=dict(before.grips), rough=dict(before.rough))
        self.governor, decisions = g.decide(before, look, self.services)
        again = g.decide(copy, look, self.services)
        assert (self.governor, decisions) == again, "the same look decides something else"
        assert before == copy, "the state given was changed"
        self.check(before, look, decisions)
        for decision in decisions:
            self.carry_out(decision)
        return decisions

    def carry_out(self, decision: g.Decision) -> None:
        name = getattr(decision, "name", "")
        self.counts[type(decision).__name__] = self.counts.get(type(decision).__name__, 0) + 1
        if isinstance(decision, Shed):
            self.running[name].ends = self.now + self.random.choice((0.0, 0.1, 1.0, 2.0, 5.0))
        elif isinstance(decision, Return):
            self.running[name] = Running(wants=self.random.choice((20, 100, 400)) * MIB)

    # -- what must always hold -----------------------------------------------------------------------------------------

    def check(self, before: g.Governor, look: Look, decisions: list[g.Decision]) -> None:
        self.measure(before, look)
        memory = [each for each in decisions if isinstance(each, STEPS) and getattr(each, "resource", MEMORY) == MEMORY]
        assert len(memory) <= 1, "more than one step of memory at one look"
        if memory:
            assert look.at - self.stepped >= g.SETTLE - CLOSE, "a step of memory before the last had its time"
            self.stepped = look.at
        backs: dict[str, int] = {}
        for decision in decisions:
            name = getattr(decision, "name", "")
            if isinstance(decision, STEPS):
                self.check_step(before, look, decision)
            elif isinstance(decision, g.Helpless) and decision.resource != MEMORY:
                assert decision.resource in self.governor.unheld
                assert look.at - self.said.get(decision.resource, -FORGIVEN) >= FORGIVEN - CLOSE, "it is said too often"
                self.said[decision.resource] = look.at
            elif isinstance(decision, g.Helpless):
                assert not self.helpless, "helpless is said twice"
                assert self.hard_since is not None
                self.helpless = True
            elif not isinstance(decision, g.Thaw):
                resource = decision.resource if isinstance(decision, g.Relax) else MEMORY
                if not self.essential(name):
                    backs[resource] = backs.get(resource, 0) + 1
                    self.check_back(before, look, resource, decision)
                if isinstance(decision, g.Relax) and decision.amount:
                    self.check_ease(before, decision)
                else:
                    self.given_back(resource, name)
                self.rough[resource] = look.at
        assert all(count == 1 for count in backs.values()), "two things of one resource were given back at once"
        self.check_state(look, decisions)

    def measure(self, before: g.Governor, look: Look) -> None:
        """What the governor may react to, anew and in the plain way."""
        own = others = 0.0
        self.limited = {name: at for name, at in self.limited.items() if name in look.loads}
        for name, load in look.loads.items():
            if load.limited:
                self.limited[name] = look.at
            grip = before.grips.get((MEMORY, name), g.Grip())
            held = bool(grip.level) and not self.essential(name)
            if held or look.at - self.limited.get(name, -LIMITED) < LIMITED:
                own += load.memory_wait
            else:
                others = max(others, load.memory_wait)
        self.some = max(others, look.some - own)
        self.full = min(self.some, look.full - own)
        self.short = look.available < 0.04 * MACHINE
        self.tight = not self.psi and look.free < 0.04 * TOTAL
        hard = self.short or self.some >= 0.3 or self.full >= 0.1
        self.hard_since = None if not hard else look.at if self.hard_since is None else self.hard_since
        if self.some >= 0.02 or hard or self.tight:
            self.rough[MEMORY] = look.at
        if look.at - self.rough.get(MEMORY, look.at) >= FIRST_WAIT[MEMORY]:
            self.helpless = False

    def check_step(self, before: g.Governor, look: Look, decision: g.Squeeze | g.Freeze | Shed) -> None:
        name = decision.name
        resource = decision.resource if isinstance(decision, g.Squeeze) else MEMORY
        assert not self.essential(name), f"{decision}: an essential, or what it needs"
        assert name in look.loads, f"{decision}: it does not run"
        level = before.grips.get((MEMORY, name), g.Grip()).level
        assert level != g.SHED, f"{decision}: it is shed"
        text = decision.text
        assert text
        if isinstance(decision, g.Squeeze):
            self.check_squeeze(before, look, decision)
        else:
            hard = self.hard_since is not None and look.at - self.hard_since >= g.HOLD
            late = level in (g.SQUEEZED, g.FROZEN) and look.at - self.holds[MEMORY, name][1] >= g.SETTLE
            waits = look.loads[name].memory_wait
            assert hard or (late and (waits >= 0.3 or self.tight)), f"{decision} without its condition"
            dependants = [other for other in look.loads if name in self.services[other].depends_on]
            assert all(other in self.shed() for other in dependants), f"{decision}: {dependants} need it"
        if isinstance(decision, g.Freeze):
            assert self.services[name].freezable
            assert level != g.FROZEN
        if isinstance(decision, Shed):
            if name in self.last_shed:
                at, least = self.last_shed[name]
                assert look.at - at >= least - CLOSE, f"{decision}: shed again after {look.at - at}, not {least}"
            self.last_shed[name] = look.at, wait(MEMORY, self.governor.grips[MEMORY, name].offences)
        self.taken(resource, name)

    def check_squeeze(self, before: g.Governor, look: Look, decision: g.Squeeze) -> None:
        name, resource, load = decision.name, decision.resource, look.loads[decision.name]
        limits = self.services[name].limits
        if resource == MEMORY:
            pressed = self.short or self.tight or self.some >= 0.1 or self.full >= 0.1
            assert pressed, f"{decision} without pressure"
            assert decision.amount == max(limits.memory_request, LEAST[MEMORY]) < load.memory
        else:
            share = {CPU: "cpu_wait", IO: "io_wait"}[resource]
            entitled = [
                other
                for other, its in look.loads.items()
                if getattr(its, share) >= 0.1
                and self.rank(other) > self.rank(name)
                and (resource == IO or its.cpu <= self.services[other].limits.cpu_request)
            ]
            by_usage = resource == IO and not self.psi and look.disk >= 0.9
            assert entitled or by_usage, f"{decision} for nobody"
            assert resource not in self.governor.unheld, f"{decision}, which nothing can hold"
            own = max(limits.cpu_request, LEAST[CPU]) if resource == CPU else LEAST[IO]
            assert decision.amount >= own
            grip = before.grips.get((resource, name), g.Grip())
            if grip.level:
                assert decision.amount < grip.amount, f"{decision}: it has less already"
                assert look.at - grip.since >= STEP - CLOSE, f"{decision} before the last had its time"

    def check_ease(self, before: g.Governor, decision: g.Relax) -> None:
        key = (decision.resource, decision.name)
        assert decision.resource == IO, "of nothing else is some given back"
        assert decision.amount == 4 * before.grips[key].amount
        self.eased.add(key)
        self.holds[key] = g.SQUEEZED, self.now

    def rank(self, name: str) -> int:
        return essential_for(Plan("p", "", 0, 0, 0, 0, tuple(self.services.values())), name)

    def check_back(self, before: g.Governor, look: Look, resource: str, decision: g.Decision) -> None:
        name = getattr(decision, "name", "")
        level, since = self.holds[resource, name]
        least = wait(resource, self.offences[resource, name][0])
        calm = look.at - max(since, self.rough.get(resource, since) if resource == MEMORY else since)
        assert calm >= least - CLOSE, f"{decision} after {calm} s, not {least}"
        if isinstance(decision, Return):
            grip = before.grips[MEMORY, name]
            limits = self.services[name].limits
            needed = grip.amount * MARGIN
            if needed > limits.memory_request:
                halves = int(calm / least + CLOSE) - 1
                needed = limits.memory_request + (needed - limits.memory_request) / 2**halves
            fits = needed <= look.free + 1
            assert fits or (look.at - since >= LONGEST_WAIT[MEMORY] and limits.memory_request <= look.free)
            missing = [other for other in self.services[name].depends_on if other in self.shed()]
            assert not missing, f"{decision}: it needs {missing}"
        assert level

    def taken(self, resource: str, name: str) -> None:
        key = (resource, name)
        level = self.governor.grips[key].level
        if key not in self.holds or key in self.eased:
            count, at = self.offences.get(key, (0, 0.0))
            count = 0 if key not in self.eased and self.now - at >= FORGIVEN else count
            self.eased.discard(key)
            self.offences[key] = min(count + 1, MOST_OFFENCES), 0.0
            assert self.governor.grips[key].offences == self.offences[key][0], "offences are counted wrong"
        elif resource == MEMORY and self.holds[key][0] == level:
            raise AssertionError(f"{key} is {level} twice")
        self.holds[key] = level, self.now

    def given_back(self, resource: str, name: str) -> None:
        key = (resource, name)
        self.holds.pop(key, None)
        self.eased.discard(key)
        if key in self.offences:
            self.offences[key] = self.offences[key][0], self.now

    def check_state(self, look: Look, decisions: list[g.Decision]) -> None:
        grips = self.governor.grips
        assert all(name in self.services and resource in FIRST_WAIT for resource, name in grips), "it grows"
        assert all(grip.offences <= MOST_OFFENCES for grip in grips.values())
        held = {key: grip.level for key, grip in grips.items() if grip.level}
        assert {key: level for key, (level, _) in self.holds.items()} == held
        assert set(self.governor.rough) <= set(FIRST_WAIT)
        assert not any(self.essential(name) for _, name in held), "an essential is held"
        due = g.next_look(self.governor, look)
        assert due is None or due > look.at, "it looks without a pause"
        calm = self.hard_since is None and self.some < 0.02 and not decisions
        if not held and calm and self.psi and look.at - self.stepped > g.SETTLE:
            assert due is None, "a timer at rest"

    # -- back to normal ------------------------------------------------------------------------------------------------

    def bound(self) -> float:
        """Seconds within which everything is given back once there is room for good: one at a time, each after its
        longest wait and at most one more look; what held much counts as a leak only after the longest wait."""
        longest = LONGEST_WAIT[MEMORY]
        return longest + len(self.services) * (longest + FIRST_WAIT[MEMORY])

    def recover(self) -> None:
        """Room for good: for the requests of those that are shed, no more. Everything is given back in time."""
        start = self.now
        while held := {key for key, grip in self.governor.grips.items() if grip.level}:
            assert self.now - start <= self.bound(), f"never given back: {held}"
            room = sum(self.services[name].limits.memory_request for name in self.shed())
            idle = {name: Load(MIB) for name in self.services if name not in self.shed()}
            self.running = {name: Running() for name in idle}
            room = max(room, 41 * MIB)
            look = Look(self.now, 0.0, 0.0, room, TOTAL, MACHINE, MACHINE, False, self.psi, idle)
            self.look(look)
            due = g.next_look(self.governor, look)
            if due is None:
                break
            self.now = due
        assert not {key for key, grip in self.governor.grips.items() if grip.level}, "no look is asked for"
