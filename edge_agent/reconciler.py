"""The node: ``step(node, event, now) -> (node, actions)``, pure. Every event ends in a comparison with the goal.

Nothing here waits and nothing is scripted: a switch is a new goal, and two local rules make it safe. A service may
start or grow only when its request fits beside what is held, so what shrinks goes first by itself; a service whose
dependants are to stop as well waits for them. Rolling back is switching to the plan before.
"""

from __future__ import annotations

from .changes import needs_resize, needs_restart
from .grips import effective_importance
from .lifecycle import (
    BACKOFF,
    COMPLETED,
    HOLDING,
    KILLING,
    LIVE,
    OFF,
    QUARANTINED,
    READY,
    STARTING,
    STOPPING,
    UP,
    WAITING,
    Deadline,
    Start,
    Stop,
    Unit,
    advance,
)
from .model import (
    ESSENTIAL,
    Action,
    Ask,
    Commit,
    Event,
    Exit,
    Exited,
    Kill,
    Limits,
    Note,
    Plan,
    Reply,
    Resize,
    Return,
    Service,
    SetTotal,
    Shed,
    Shutdown,
    Signal,
    Switch,
    Tick,
    Wake,
    Watch,
)
from .records import Record

SETTLED = UP | {BACKOFF, QUARANTINED}
"""States in which a service has shown what comes of it: a switch waits no longer for it."""


class Change(Record):
    """A switch under way. ``old`` is what a failure goes back to."""

    request: int
    old: Plan
    deadline: float
    down: frozenset[str]  # services a person had stopped before
    failure: str = ""  # set once rolling back


class Node(Record):
    """The whole state. ``memory`` (bytes), ``cpu`` (milli-cores): what all services together may use, as in force."""

    plan: Plan
    units: dict[str, Unit]  # by name; never mutated: a step that changes it makes a new one
    memory: int
    cpu: int
    change: Change | None = None
    degraded: str = ""
    closing: bool = False


class _Step:
    """What one step is working on."""

    __slots__ = ("actions", "goal", "node", "now", "units")

    def __init__(self, node: Node, now: float) -> None:
        self.node = node
        self.units = dict(node.units)
        self.now = now
        self.actions: list[Action] = []
        self.goal: dict[str, Service] = {}
        self.aim()

    def aim(self) -> None:
        """Read the goal from the plan, anew after the plan has changed."""
        self.goal = {} if self.node.closing else {service.name: service for service in self.node.plan.services}

    def apply(self, name: str, event: object) -> None:
        self.units[name], actions = advance(self.units[name], event, self.now)
        self.actions += actions

    def wanted(self, name: str) -> bool:
        unit = self.units[name]
        return name in self.goal and not unit.down and not unit.shed and (unit.awake or not self.goal[name].scheduled)

    def stale(self, name: str) -> bool:
        """Whether what runs under this name is not what the goal says, and cannot become it in place."""
        unit, goal = self.units[name], self.goal.get(name)
        return goal is None or (unit.service is not goal and needs_restart(unit.service, goal))

    def held(self) -> tuple[int, int]:
        """Requests of everything that holds a place in the budget: bytes, milli-cores."""
        memory = cpu = 0
        for unit in self.units.values():
            if unit.state in HOLDING:
                memory += unit.service.limits.memory_request
                cpu += unit.service.limits.cpu_request
        return memory, cpu

    def fits(self, memory: int, cpu: int) -> bool:
        """Whether so much more may be held."""
        held = self.held()
        return held[0] + memory <= self.node.memory and held[1] + cpu <= self.node.cpu


def boot(
    plan: Plan, committed: Plan | None, found: dict[str, Unit], dead: dict[str, Exited], now: float, degraded: str = ""
) -> tuple[Node, list[Action]]:
    """The first step. ``found``: units on record or rebuilt; ``dead``: those of them that died while no agent ran.

    A plan other than the last known good one is switched to, so that it is rolled back if its essentials fail.
    """
    good = _sharing(committed or plan, found)
    node = Node(good, found, *room(good), degraded=degraded)
    step = _Step(node, now)
    _spare(step)
    step.actions.append(SetTotal(node.memory, node.cpu))
    for name, exited in dead.items():
        step.apply(name, exited)
    for unit in step.units.values():
        if unit.state in LIVE and unit.state not in (STOPPING, KILLING) and unit.service.health.kind and unit.pid:
            step.actions.append(Watch(unit.service, ready=unit.state == READY))
        elif unit.state == STOPPING:  # the agent before may have ended between its record and its deed
            step.actions.append(Signal(unit.service.name, unit.service.stop_signal))
        elif found[unit.service.name].state == KILLING:
            step.actions.append(Kill(unit.service.name))
    if committed is None:
        step.actions.append(Commit(plan))
    elif committed != plan:
        _begin(step, Switch(0, plan))
    return _finish(step)


def _sharing(plan: Plan, units: dict[str, Unit]) -> Plan:
    """The plan with the units' own specs where they are equal: comparing the two is what every step does most."""
    running = {name: unit.service for name, unit in units.items()}
    services = tuple(
        running[service.name] if running.get(service.name) == service else service for service in plan.services
    )
    return plan._replace(services=services)


def room(plan: Plan) -> tuple[int, int]:
    """What a plan gives its services together, the agent's reserve taken off: bytes, milli-cores."""
    return plan.memory_total - plan.memory_reserve, plan.cpu_total - plan.cpu_reserve


def step(node: Node, event: Event, now: float) -> tuple[Node, list[Action]]:
    """One event at monotonic ``now``. The node given is not changed."""
    work = _Step(node, now)
    if isinstance(event, Tick):
        for name, unit in node.units.items():
            if unit.deadline is not None and unit.deadline <= now:
                work.apply(name, Deadline())
    elif isinstance(event, Switch):
        _begin(work, event)
    elif isinstance(event, Ask):
        _ask(work, event)
    elif isinstance(event, Shutdown):
        _close(work)
    elif isinstance(event, Shed | Return):
        _shed(work, event)
    elif isinstance(event, Wake):
        _wake(work, event)
    elif event.name in work.units:  # else: news of a service that is already gone
        work.apply(event.name, event)
    return _finish(work)


def next_deadline(node: Node) -> float | None:
    """When the next Tick is due, monotonic seconds; None: nothing is waiting for time to pass."""
    due = [unit.deadline for unit in node.units.values() if unit.deadline is not None]
    if node.change is not None:
        due.append(node.change.deadline)
    return min(due, default=None)


def _begin(work: _Step, event: Switch) -> None:
    node = work.node
    if node.closing:
        work.actions.append(
            Reply(event.request, "cannot switch: the agent is stopping; fix: start it again", "refused")
        )
    elif node.change is not None:
        text = f"cannot switch: a switch to {node.plan.profile} is under way; fix: wait for it to end"
        work.actions.append(Reply(event.request, text, "busy"))
    else:
        down = frozenset(name for name, unit in work.units.items() if unit.down)
        change = Change(event.request, node.plan, work.now + event.plan.switch_timeout, down)
        for name, unit in work.units.items():
            if unit.down and event.plan.profile != node.plan.profile:  # it stays so over a reload only
                work.units[name] = unit._replace(down=False)
            if unit.state == QUARANTINED:
                work.apply(name, Start())
        work.node = node._replace(plan=_sharing(event.plan, work.units), change=change)
        work.aim()
        _spare(work)
        work.actions.append(Note("switching", "", f"from {node.plan.profile} to {event.plan.profile}"))


def _ask(work: _Step, event: Ask) -> None:
    unit = work.units.get(event.name)
    if work.node.closing:
        text = f"cannot {event.verb} {event.name}: the agent is stopping; fix: start it again"
        work.actions.append(Reply(event.request, text, "refused"))
        return
    if unit is None or event.name not in work.goal:
        text = f"cannot {event.verb} {event.name}: it is not a service of profile {work.node.plan.profile}"
        work.actions.append(Reply(event.request, text, "refused"))
        return
    stops = event.verb == "stop"
    work.units[event.name] = unit._replace(
        down=stops, shed=unit.shed if stops else "", awake=unit.awake if stops else True
    )
    if event.verb == "restart" and unit.state in LIVE:
        work.apply(event.name, Stop())
    elif event.verb != "stop" and unit.state in (BACKOFF, QUARANTINED, COMPLETED):
        work.apply(event.name, Start())
    work.actions.append(Note(f"{event.verb}-asked", event.name, f"{event.verb} asked for by a person"))
    work.actions.append(Reply(event.request, ""))


def _shed(work: _Step, event: Shed | Return) -> None:
    unit, goal = work.units.get(event.name), work.goal.get(event.name)
    leaves = isinstance(event, Shed)
    if unit is None or goal is None or effective_importance(work.goal)[event.name] >= ESSENTIAL:
        return
    if bool(unit.shed) == leaves:
        return
    work.units[event.name] = unit._replace(shed=event.text if leaves else "")
    work.actions.append(Note("shed" if leaves else "returns", event.name, event.text, notable=leaves))


def _wake(work: _Step, event: Wake) -> None:
    """What a person has stopped stays so; what has done its work, or was given up, is begun again."""
    unit, goal = work.units.get(event.name), work.goal.get(event.name)
    if unit is None or goal is None or not goal.scheduled:
        return
    again = event.awake and not unit.down and unit.state in (QUARANTINED, COMPLETED)
    if unit.awake == event.awake and not again:
        return
    work.units[event.name] = unit._replace(awake=event.awake)
    if again:
        work.apply(event.name, Start())
    kept = "; a person has stopped it, so it stays stopped" if event.awake and unit.down else ""
    work.actions.append(Note("schedule", event.name, event.text + kept))


def _spare(work: _Step) -> None:
    """An essential service, and what it needs, is never kept from running: the goal may be another than when it was.
    Nor is one that has left the goal, should it be back before it is gone: the governor has forgotten it."""
    importance = effective_importance(work.goal)
    for name, unit in work.units.items():
        if unit.shed and importance.get(name, ESSENTIAL) >= ESSENTIAL:
            work.units[name] = unit._replace(shed="")


def _close(work: _Step) -> None:
    if work.node.change is not None:
        text = "cannot finish the switch: the agent is stopping; fix: start it again"
        work.actions.append(Reply(work.node.change.request, text, "refused"))
    work.node = work.node._replace(closing=True, change=None)
    work.aim()


def _finish(work: _Step) -> tuple[Node, list[Action]]:
    _settle(work)
    while _judge(work):
        _settle(work)
    if work.node.closing and not work.units:
        work.actions.append(Exit())
    return work.node._replace(units=work.units), work.actions


def _settle(work: _Step) -> None:
    """Compare with the goal until nothing more can be done now."""
    before: object = None
    while before != (work.units, work.node.memory, work.node.cpu):
        before = (dict(work.units), work.node.memory, work.node.cpu)
        _bring_down(work)
        _set_total(work)
        for name, goal in work.goal.items():
            if name not in work.units:
                work.units[name] = Unit(goal, since=work.now)
            _resize(work, name, goal)
            _bring_up(work, name, goal)


def _bring_down(work: _Step) -> None:
    leaving = {
        name for name, unit in work.units.items() if unit.state != OFF and (not work.wanted(name) or work.stale(name))
    }
    for name in list(work.units):
        unit = work.units[name]
        if name in leaving and unit.state != STOPPING and unit.state != KILLING:
            dependants = [other for other in leaving if name in work.units[other].service.depends_on]
            if unit.state not in LIVE or not any(work.units[other].state in LIVE for other in dependants):
                work.apply(name, Stop())
        elif name in leaving and unit.then != OFF:
            work.apply(name, Stop())  # it was to come back: no more
    for name in [name for name, unit in work.units.items() if unit.state == OFF and name not in work.goal]:
        del work.units[name]


def _set_total(work: _Step) -> None:
    """Grow at once, shrink as far as what is held allows: the sum of requests is inside the total at every step."""
    node = work.node
    held, goal = work.held(), room(node.plan)
    memory, cpu = max(held[0], goal[0]), max(held[1], goal[1])
    if (memory, cpu) != (node.memory, node.cpu):
        work.node = node._replace(memory=memory, cpu=cpu)
        work.actions.append(SetTotal(memory, cpu))


def _resize(work: _Step, name: str, goal: Service) -> None:
    """Take over what can change in a running service: what shrinks now, what grows once there is room."""
    unit = work.units[name]
    if unit.service is goal or unit.state not in HOLDING or unit.state in (STOPPING, KILLING) or work.stale(name):
        return
    old, new = unit.service.limits, goal.limits
    grows = work.fits(new.memory_request - old.memory_request, new.cpu_request - old.cpu_request)
    target = goal if grows else goal._replace(limits=smaller(old, new))
    if unit.state == STARTING:  # it becomes ready by the check that is under way, and is watched by the new one then
        target = target._replace(health=unit.service.health)
    if target != unit.service:
        work.units[name] = unit._replace(service=target)
        if target.health != unit.service.health and unit.state == READY:
            work.actions.append(Watch(target, ready=True))
        if needs_resize(unit.service, target) and unit.state in LIVE:
            work.actions.append(Resize(target))


def _in_force(unit: Unit, goal: Service) -> bool:
    """Whether it is what the goal says, but for how a starting one will be watched."""
    spec = unit.service._replace(health=goal.health) if unit.state == STARTING else unit.service
    return spec == goal


def smaller(old: Limits, new: Limits) -> Limits:
    """The smaller of each value; None is the largest."""
    pairs = zip(old, new, strict=True)
    return Limits._make(b if a is None else a if b is None else min(a, b) for a, b in pairs)


def _bring_up(work: _Step, name: str, goal: Service) -> None:
    unit = work.units[name]
    if unit.service is not goal and unit.state in (OFF, WAITING):
        unit = work.units[name] = unit._replace(service=goal, attempts=0)
    elif unit.service is not goal and unit.state in (QUARANTINED, COMPLETED) and not work.stale(name):
        unit = work.units[name] = unit._replace(service=goal)
    if not work.wanted(name):
        return
    if unit.state == OFF:
        unit = work.units[name] = unit._replace(state=WAITING, since=work.now)
    if unit.state != WAITING:
        return
    missing = [other for other in goal.depends_on if work.units[other].state not in UP]
    if missing:
        reason = f"waits for {missing[0]}, which is {work.units[missing[0]].state}"
    elif not work.fits(goal.limits.memory_request, goal.limits.cpu_request):
        held = work.held()
        reason = (
            f"waits for room: asks for {goal.limits.memory_request} bytes and {goal.limits.cpu_request} milli-cores, "
            f"{work.node.memory - held[0]} and {work.node.cpu - held[1]} are free"
        )
    else:
        work.apply(name, Start())
        return
    if unit.reason != reason:
        work.units[name] = unit._replace(reason=reason)


def _judge(work: _Step) -> bool:
    """See whether a switch has succeeded or failed. True: the goal has changed, settle again."""
    node = work.node
    change = node.change
    if change is None:
        return False
    stale = [name for name, unit in work.units.items() if name not in work.goal or not _in_force(unit, work.goal[name])]
    essentials = [name for name, service in work.goal.items() if service.importance >= ESSENTIAL and work.wanted(name)]
    missing = [name for name in essentials if work.units[name].state not in UP]
    lost = [name for name in missing if work.units[name].state == QUARANTINED]
    late = work.now >= change.deadline
    total_set = (node.memory, node.cpu) == room(node.plan)
    arrived = not stale and total_set and not missing
    pending = [name for name in work.goal if work.wanted(name) and work.units[name].state not in SETTLED]
    if arrived and (late or not pending):
        _end(work, change, [name for name in work.goal if work.wanted(name) and work.units[name].state not in UP])
        return False
    if not late and not lost:
        return False
    about = lost or missing or stale
    if about:
        unit = work.units[about[0]]
        why = f"{about[0]} is {unit.state}" + (f": {unit.reason}" if unit.reason else "")
    else:
        why = "the total could not be set"
    if change.failure:  # the way back failed as well: stay here, say so, go on trying as usual
        text = f"{change.failure}; and after rolling back to {node.plan.profile}, {why}"
        work.node = node._replace(change=None, degraded=text)
        work.actions += (Note("degraded", "", text, notable=True), Reply(change.request, text, "rolled-back"))
        return False
    if late and not lost:
        why += f" after {node.plan.switch_timeout:g} s"
    failure = f"cannot switch to {node.plan.profile}: {why}; rolled back to {change.old.profile}"
    work.actions.append(Note("rolling-back", "", failure, notable=True))
    deadline = work.now + change.old.switch_timeout
    back = change._replace(old=node.plan, deadline=deadline, failure=failure)
    work.node = node._replace(plan=change.old, change=back)
    for name, unit in work.units.items():
        work.units[name] = unit._replace(down=name in change.down)
    work.aim()
    _spare(work)
    return True


def _end(work: _Step, change: Change, not_up: list[str]) -> None:
    node = work.node
    rest = f"; not up: {', '.join(not_up)}" if not_up else ""
    if change.failure:
        # Asked for by a person, the node is back where it was; at boot, it is not where it was told to be.
        degraded = change.failure if change.request == 0 else node.degraded
        work.node = node._replace(change=None, degraded=degraded)
        work.actions.append(Reply(change.request, change.failure + rest, "rolled-back"))
        work.actions.append(Note("rolled-back", "", change.failure + rest, notable=True))
        return
    text = f"switched from {change.old.profile} to {node.plan.profile}{rest}"
    work.node = node._replace(change=None, degraded="")
    work.actions += (
        Commit(node.plan),
        Note("switched", "", text, notable=True),
        Reply(change.request, text),
    )
