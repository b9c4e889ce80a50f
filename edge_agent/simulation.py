"""A trace played to the governor: what it would have decided. Pure; the same trace gives the same decisions.

``replay`` shows it looks as they were recorded. What it has shed is left out of them and its memory is free; where that
makes room, the stalls of memory are taken as gone. Otherwise what it decides changes nothing: the loop is open.

``play`` closes it: a small model of a machine turns what services want into usage and stalls. Memory comes at FILL
bytes per second, slower the less is left; in the last ZONE of the room those that grow stall by the share of it that is
gone, the others by OTHERS of that. What nobody can have for OOM_AFTER seconds, the kernel takes from the least
important. A processor is shared by requests, a disk evenly; who gets less than it wants waits for the rest, and where
nothing is left, each for CROWD of what the others have. It is a rule of thumb for comparing policies, not a kernel.
"""

from __future__ import annotations

from . import governor as g
from .looks import Load, Look
from .model import Return, Shed
from .records import Record
from .trace import Line, Want

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from .model import Plan, Service
    from .trace import Header

MOST_HAPPENINGS = 100_000
IDLE = Want()
ZONE = 0.05
OTHERS = 0.34
CROWD = 0.3
FULL_UP = 0.01
"""Share of the zone; less than that is nothing."""
OOM_AFTER = 2.0
FILL = 64 << 20
"""Bytes per second that a service grows, or is moved out, at most."""
ENDING = 0.5
"""Seconds a service takes to stop."""
WINDOW = 0.5
"""Seconds: of a trigger of the kernel, which agent/governing.py sets so."""
ROOM_AGAIN = 0.10
"""Share of the total and of the machine that must be free for recorded stalls to be gone."""

KINDS: dict[type, str] = {
    g.Squeeze: "squeezed",
    g.Relax: "relaxed",
    g.Freeze: "frozen",
    g.Thaw: "thawed",
    Shed: "shed",
    Return: "returns",
    g.Helpless: "helpless",
}
"""Decision -> the kind of event that the agent makes of it."""


class Happening(Record):
    """A decision, or a kill by the simulated kernel."""

    at: float
    kind: str
    service: str
    resource: str
    text: str


class Tally(Record):
    """One service over the whole trace."""

    squeezed: int = 0
    frozen: int = 0
    shed: int = 0
    killed: int = 0
    away: float = 0.0  # seconds shed


class Result(Record):
    """What came of it."""

    seconds: float
    looks: int
    happenings: tuple[Happening, ...]
    services: dict[str, Tally]
    unknown: tuple[str, ...] = ()  # services of a recorded trace that the profile does not have


class TooMuchError(ValueError):
    """More happens than anybody would read."""


class _Log:
    """The governor, and what it has decided so far."""

    def __init__(self, services: dict[str, Service]) -> None:
        self.services = services
        self.governor = g.Governor()
        self.looks = 0
        self._happenings: list[Happening] = []
        self._tallies = dict.fromkeys(services, Tally())
        self._away: dict[str, float] = {}

    def level(self, name: str, resource: str = g.MEMORY) -> str:
        grip = self.governor.grips.get((resource, name))
        return "" if grip is None else grip.level

    def amount(self, name: str, resource: str) -> int | None:
        """What a squeezed service is held to."""
        grip = self.governor.grips.get((resource, name))
        return grip.amount if grip is not None and grip.level == g.SQUEEZED else None

    def decide(self, look: Look) -> list[g.Decision]:
        self.looks += 1
        self.governor, decisions = g.decide(self.governor, look, self.services)
        self._decided(look.at, decisions)
        return decisions

    def killed(self, at: float, name: str, held: int) -> bool:
        """By the kernel, because nobody had room. Whether it is to stay away."""
        self.governor, decisions = g.killed(self.governor, self.services, name, held, at)
        self._decided(at, decisions)
        return bool(decisions)

    def _decided(self, at: float, decisions: list[g.Decision]) -> None:
        for decision in decisions:
            kind, name = KINDS[type(decision)], getattr(decision, "name", "")
            self.note(at, kind, name, getattr(decision, "resource", g.MEMORY), decision.text)
            if isinstance(decision, Shed):
                self._away[name] = at
            elif isinstance(decision, Return):
                self._add(name, away=at - self._away.pop(name))

    def note(self, at: float, kind: str, name: str, resource: str, text: str) -> None:
        if len(self._happenings) >= MOST_HAPPENINGS:
            raise TooMuchError(f"more than {MOST_HAPPENINGS} decisions by {at:.0f} s")
        self._happenings.append(Happening(at, kind, name, resource, text))
        if kind in Tally._fields:
            self._add(name, **{kind: 1})

    def _add(self, name: str, **more: float) -> None:
        tally = self._tallies[name]
        self._tallies[name] = tally._replace(**{key: getattr(tally, key) + value for key, value in more.items()})

    def result(self, end: float) -> Result:
        for name, since in self._away.items():
            self._add(name, away=end - since)
        return Result(end, self.looks, tuple(self._happenings), self._tallies)


def replay(looks: Iterable[Look], plan: Plan) -> Result:
    """Recorded looks. Services that the plan does not have are in nobody's hands. Raises TooMuchError."""
    log = _Log({service.name: service for service in plan.services})
    at, unknown = 0.0, dict[str, None]()
    for look in looks:
        at = look.at
        unknown.update(dict.fromkeys(name for name in look.loads if name not in log.services))
        log.decide(_without(look, [name for name in look.loads if log.level(name) == g.SHED]))
    return log.result(at)._replace(unknown=tuple(unknown))


def _without(look: Look, away: list[str]) -> Look:
    if not away:
        return look
    given = sum(look.loads[name].memory for name in away)
    free, available = look.free + given, look.available + given
    loads = {name: load for name, load in look.loads.items() if name not in away}
    if given and free >= ROOM_AGAIN * look.total and available >= ROOM_AGAIN * look.machine:
        loads = {name: load._replace(memory_wait=0.0) for name, load in loads.items()}
        look = look._replace(some=0.0, full=0.0)
    return look._replace(free=free, available=available, loads=loads)


def play(header: Header, lines: Iterable[Line], plan: Plan) -> Result:
    """A written trace against the model. Raises TooMuchError."""
    model = _Model(header, plan)
    end = 0.0
    for line in lines:
        model.until(line.at)
        model.wants.update(line.wants)
        model.system = model.system if line.system is None else line.system
        end = line.at
    return model.log.result(end)


class _Process:
    """One run of one service."""

    __slots__ = ("ends", "grown", "held")

    def __init__(self) -> None:
        self.held = 0.0  # bytes
        self.grown = 0.0  # bytes leaked
        self.ends: float | None = None


class _Model:
    def __init__(self, header: Header, plan: Plan) -> None:
        self.header = header
        self.services = {service.name: service for service in plan.services}
        self.log = _Log(self.services)
        self.total = plan.memory_total - plan.memory_reserve
        self.cores = min(header.cpus * 1000, plan.cpu_total - plan.cpu_reserve)
        self.system = header.system
        self.wants: dict[str, Want] = {}
        self.running = {name: _Process() for name in self.services}
        self.starts: dict[str, float] = {}  # killed ones
        self.now = 0.0
        self.out_since: float | None = None  # there has been no room for what is wanted
        self.quiet = 0  # looks one after the other without a decision

    # -- time ----------------------------------------------------------------------------------------------------------

    def until(self, end: float) -> None:
        """Let time pass, with a look wherever the agent would have one."""
        while self.now < end:
            look = self.see()
            decisions = self.log.decide(look)
            self.quiet = 0 if decisions else self.quiet + 1
            for decision in decisions:
                self.carry_out(decision)
            self.advance(min(end, self.next(look, acted=bool(decisions))) - self.now)
        self.now = end

    def next(self, look: Look, *, acted: bool) -> float:
        """The next moment at which something may be different."""
        moments = [look.at + self.steady()]
        due = g.next_look(self.log.governor, look)
        if due is not None:
            moments.append(due)
        if acted or (look.some >= g.SOFT and look.psi):  # a trigger fires on; more seldom where it changes nothing
            moments.append(look.at + WINDOW * (1 + self.quiet))
        moments += [process.ends for process in self.running.values() if process.ends is not None]
        moments += self.starts.values()
        return max(min(moments), look.at + 1e-3)

    def steady(self) -> float:
        """Seconds for which loads grow as they do now, to a hundredth of the room or to the edge of the zone."""
        room, zone = self.room(), self.zone()
        rate = filling = 0.0
        own = 3600.0
        for name, process in self.running.items():
            grows, limit = self.wants.get(name, IDLE).grows, self.services[name].limits.memory_limit
            if self.grows(name, process):
                rate += grows
                filling += max(0.0, self.goal(name, process) - process.held) > 1.0
                if grows and limit is not None:
                    own = min(own, max(0.25, (limit - process.held) / grows))
        if filling and room > FULL_UP * zone:
            return 0.25
        if rate <= 0:
            return own
        return min(own, max(0.25, (room - zone) / rate if room > zone else zone / 100 / rate))

    def advance(self, seconds: float) -> None:
        self.now += seconds
        for name, process in list(self.running.items()):
            if process.ends is not None and process.ends <= self.now:
                del self.running[name]
        for name in [name for name, at in self.starts.items() if at <= self.now]:
            if all(other in self.running for other in self.services[name].depends_on):
                del self.starts[name]
                self.running[name] = _Process()
            else:
                self.starts[name] = self.now + 1.0
        self.grow(seconds)
        self.kill_for_lack()

    # -- memory --------------------------------------------------------------------------------------------------------

    def room(self) -> float:
        held = sum(process.held for process in self.running.values())
        return min(self.total - held, self.header.machine - self.system - held)

    def zone(self) -> float:
        return ZONE * min(self.total, self.header.machine)

    def pressure(self) -> float:
        return min(1.0, max(0.0, 1.0 - self.room() / self.zone()))

    def grows(self, name: str, process: _Process) -> bool:
        return process.ends is None and self.log.level(name) != g.FROZEN

    def goal(self, name: str, process: _Process) -> float:
        """What it would hold if there were room."""
        wanted = self.wants.get(name, IDLE).memory + process.grown
        kept = self.log.amount(name, g.MEMORY)
        return max(kept, wanted - self.header.swap) if kept is not None and wanted > kept else wanted

    def grow(self, seconds: float) -> None:
        fill = FILL * seconds
        for name, process in list(self.running.items()):
            if not self.grows(name, process):
                continue
            process.grown += self.wants.get(name, IDLE).grows * seconds
            more = self.goal(name, process) - process.held
            slowed = 1.0 - self.pressure() if more > 0 else 1.0
            process.held += max(-fill, min(more, fill * slowed, max(0.0, self.room())))
            limit = self.services[name].limits.memory_limit
            if limit is not None and self.goal(name, process) > limit <= process.held + 1:
                self.kill(name, f"its own limit of {_size(limit)} was reached")

    def kill_for_lack(self) -> None:
        """The kernel's way: a badness by importance (oom_score_adj) and size."""
        short = [name for name, process in self.running.items() if self.goal(name, process) > process.held + 1]
        if self.room() > FULL_UP * self.zone() or not short:
            self.out_since = None
            return
        if self.out_since is None:
            self.out_since = self.now
        if self.now - self.out_since >= OOM_AFTER:
            running = [name for name, process in self.running.items() if process.held > 0]
            name = min(running, key=lambda name: (self.services[name].importance, -self.running[name].held, name))
            self.out_since = None
            process = self.running[name]
            self.kill(name, "no memory was left")
            if process.ends is None and self.log.killed(self.now, name, round(process.held)):
                del self.starts[name]

    def kill(self, name: str, why: str) -> None:
        process = self.running.pop(name)
        self.log.note(self.now, "killed", name, g.MEMORY, f"by the kernel: {why}; it held {_size(process.held)}")
        if process.ends is None:
            self.starts[name] = self.now + self.services[name].restart.delay

    # -- what the governor sees, and what it does ----------------------------------------------------------------------

    def see(self) -> Look:
        stall = self.pressure()
        cpu = self.shares(g.CPU, self.cores)
        io = self.shares(g.IO, self.header.disk or 1 << 62)
        loads = {}
        for name, process in self.running.items():
            lacks = self.goal(name, process) - process.held > 1.0 and self.grows(name, process)
            waits = stall if lacks else stall * OTHERS
            if self.log.amount(name, g.MEMORY) is not None:  # it lives on less than it would
                wanted = self.wants.get(name, IDLE).memory + process.grown
                waits = max(waits, min(0.9, 1.0 - process.held / wanted)) if wanted > 0 else waits
            usage = round(process.held), round(cpu[name][0]), round(io[name][0])
            stalls = (waits, cpu[name][1], io[name][1]) if self.header.psi else (0.0, 0.0, 0.0)
            loads[name] = Load(*usage, *stalls)
        every = [load.memory_wait for load in loads.values()]
        held = sum(load.memory for load in loads.values())
        return Look(
            self.now,
            max(every, default=0.0),
            min(every, default=0.0),
            max(0, self.total - held),
            self.total,
            max(0, self.header.machine - self.system - held),
            self.header.machine,
            self.header.swap > 0,
            self.header.psi,
            loads,
            min(1.0, sum(moved for moved, _ in io.values()) / (self.header.disk or 1 << 62)),
        )

    def shares(self, resource: str, capacity: int) -> dict[str, tuple[float, float]]:
        """Service -> what it gets, and the share of what it wants that it does not."""
        asked: dict[str, float] = {}
        weights: dict[str, float] = {}
        for name, process in self.running.items():
            want, limits = self.wants.get(name, IDLE), self.services[name].limits
            bounds = [limits.cpu_limit] if resource == g.CPU else [limits.io_read_bps, limits.io_write_bps]
            most = [bound for bound in (*bounds, self.log.amount(name, resource)) if bound is not None]
            wanted = (want.cpu if resource == g.CPU else want.io) if self.grows(name, process) else 0
            asked[name] = float(min([wanted, *most]))
            weights[name] = float(max(limits.cpu_request, 10)) if resource == g.CPU else 1.0
        got = share_out(float(capacity), asked, weights)
        taken = sum(got.values())
        crowded = CROWD if taken >= capacity - 1 else 0.0
        found = {}
        for name in self.running:
            want = self.wants.get(name, IDLE)
            wanted = want.cpu if resource == g.CPU else want.io
            waits = max(1.0 - got[name] / wanted, crowded * (taken - got[name]) / capacity) if asked[name] else 0.0
            found[name] = got[name], waits
        return found

    def carry_out(self, decision: g.Decision) -> None:
        if isinstance(decision, Shed) and decision.name in self.running:
            self.running[decision.name].ends = self.now + ENDING
        elif isinstance(decision, Return):
            self.starts[decision.name] = self.now


def share_out(capacity: float, asked: dict[str, float], weights: dict[str, float]) -> dict[str, float]:
    """By weight; what one does not use is for the others (weighted max-min)."""
    got = dict.fromkeys(asked, 0.0)
    left, open_ = capacity, [name for name in asked if asked[name] > 0]
    while open_:
        unit = left / sum(weights[name] for name in open_)
        full = [name for name in open_ if asked[name] <= unit * weights[name]]
        for name in full or open_:
            got[name] = asked[name] if full else unit * weights[name]
            left -= got[name]
        if not full:
            break
        open_ = [name for name in open_ if name not in full]
    return got


def _size(amount: float) -> str:
    return f"{amount / (1 << 20):.0f} MiB"
