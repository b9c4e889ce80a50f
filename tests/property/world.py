"""A machine made of dictionaries: does what the reconciler asks; the test decides what happens to the processes."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from edge_agent import model as m
from edge_agent.changes import needs_restart
from edge_agent.lifecycle import BACKOFF, KILLING, LIVE, OFF, STOPPING, WAITING, Unit
from edge_agent.reconciler import Node, boot, next_deadline, step


@dataclass
class Process:
    """A service's main process and whether something it started outlives it."""

    service: m.Service
    pid: int
    released: bool = False
    executed: bool = False
    alive: bool = True
    leftovers: bool = False
    ready_told: bool = False
    watched: m.Health | None = None


def essential_for(plan: m.Plan, name: str) -> int:
    """The importance of the most important service that needs this one, itself included: by search, not by order."""
    services = {service.name: service for service in plan.services}
    found, todo = 0, [name]
    while todo:
        current = todo.pop()
        found = max(found, services[current].importance if current in services else 0)
        todo += [other.name for other in plan.services if current in other.depends_on]
    return found


@dataclass
class World:
    """The host of one node. ``now`` moves only when a test moves it."""

    plan: m.Plan
    now: float = 1000.0
    processes: dict[str, Process] = field(default_factory=dict)
    fail_launches: set[str] = field(default_factory=set)
    leave_behind: set[str] = field(default_factory=set)
    committed: m.Plan | None = None
    exited: bool = False
    replies: dict[int, m.Reply] = field(default_factory=dict)
    notes: list[m.Note] = field(default_factory=list)
    total: tuple[int, int] = (0, 0)
    killing: set[str] = field(default_factory=set)
    log: list[tuple[m.Event, float]] = field(default_factory=list)
    next_pid: int = 100
    places: set[str] = field(default_factory=set)  # cgroups

    def __post_init__(self) -> None:
        self._queue: deque[m.Event] = deque()
        self.node, actions = boot(self.plan, None, {}, {}, self.now)
        self.first = self.node
        self._carry_out(actions, None)
        self._drain()

    def feed(self, event: m.Event) -> None:
        """One event, and everything that follows from it at once."""
        self._queue.append(event)
        self._drain()

    def _drain(self) -> None:
        while self._queue:
            event = self._queue.popleft()
            before = self.node
            self.log.append((event, self.now))
            self.node, actions = step(before, event, self.now)
            self._justify(before, event, actions)
            self._carry_out(actions, event)
            self.check()

    def restart_agent(self) -> None:
        """kill -9 and the next agent: what was forked and not released exits, the rest is adopted or found dead."""
        units: dict[str, Unit] = {}
        dead: dict[str, m.Exited] = {}
        self._queue.clear()
        for name, unit in self.node.units.items():
            process = self.processes.get(name)
            if process is not None and process.alive and not process.released:
                process.alive = False
                self.processes.pop(name)
                process = None
            units[name] = unit
            if unit.state in LIVE and unit.state != KILLING and (process is None or not process.alive):
                dead[name] = m.Exited(name, unit.pid, None)
        self.node, actions = boot(self.committed or self.plan, self.committed, units, dead, self.now)
        self.log.clear()
        self.first = self.node
        self._carry_out(actions, None)
        for name, unit in list(self.node.units.items()):
            if unit.state == "starting" and unit.pid:
                self.feed(m.Executed(name))
        self._drain()

    # -- the host ------------------------------------------------------------------------------------------------------

    def _carry_out(self, actions: list[m.Action], _event: m.Event | None) -> None:
        for action in actions:
            self._do(action)
            self._hear(action)

    def _do(self, action: m.Action) -> None:
        if isinstance(action, m.Launch):
            self._launch(action.service)
        elif isinstance(action, m.Release):
            self.processes[action.name].released = True
        elif isinstance(action, m.Resize):
            process = self.processes.get(action.service.name)
            if process is not None:
                process.service = action.service
        elif isinstance(action, m.SetTotal):
            self.total = (action.memory, action.cpu)
        elif isinstance(action, m.Kill):
            self.killing.add(action.name)
            self._check_empty(action.name)
        elif isinstance(action, m.Watch) and action.service.name in self.processes:
            self.processes[action.service.name].watched = action.service.health

    def _hear(self, action: m.Action) -> None:
        if isinstance(action, m.Commit):
            self.committed = action.plan
        elif isinstance(action, m.Reply):
            assert action.request not in self.replies, "answered twice"
            self.replies[action.request] = action
        elif isinstance(action, m.Note):
            self.notes.append(action)
        elif isinstance(action, m.Remove):
            assert action.name not in self.processes, "removed while processes are in it"
            self.places.discard(action.name)
        elif isinstance(action, m.Exit):
            self.exited = True

    def _launch(self, service: m.Service) -> None:
        assert service.name not in self.processes, f"a second generation of {service.name}"
        assert not self.node.units[service.name].shed, f"{service.name} is started though it is shed"
        self.places.add(service.name)
        if service.name in self.fail_launches:
            self._queue.append(m.LaunchFailed(service.name, "cannot fork"))
            return
        self.next_pid += 1
        self.processes[service.name] = Process(service, self.next_pid, leftovers=service.name in self.leave_behind)
        self._queue.append(m.Launched(service.name, self.next_pid, self.next_pid * 7))

    def _check_empty(self, name: str) -> None:
        if name in self.killing and name not in self.processes:
            self.killing.discard(name)
            self._queue.append(m.Emptied(name))

    def dies(self, name: str, status: int) -> None:
        """The main process ends by itself, of a signal, or because it was told to."""
        process = self.processes[name]
        if process.alive:
            process.alive = False
            if not process.leftovers:
                del self.processes[name]
            self.feed(m.Exited(name, process.pid, status))
            self.emptied(name)

    def emptied(self, name: str) -> None:
        """A kill has taken effect on whatever was left."""
        if name in self.killing:
            process = self.processes.pop(name, None)
            if process is not None and process.alive:
                process.alive = False
                self.feed(m.Exited(name, process.pid, -9))
            self._check_empty(name)
            self._drain()

    def executes(self, name: str) -> None:
        """A released process runs its program."""
        process = self.processes[name]
        if process.alive and process.released and not process.executed:
            process.executed = True
            self.feed(m.Executed(name))

    def answers(self, name: str) -> None:
        """A probe succeeds."""
        process = self.processes[name]
        if process.alive and process.executed and not process.ready_told:
            process.ready_told = True
            self.feed(m.Ready(name))

    def pass_time(self, seconds: float) -> None:
        """Time goes by, with a Tick where the reconciler asked for one."""
        until = self.now + seconds
        while (due := next_deadline(self.node)) is not None and due <= until:
            self.now = max(self.now, due)
            self.feed(m.Tick())
        self.now = until

    def calm(self, turns: int = 200) -> None:
        """Everything works from now on: processes start, answer, obey; time passes until nothing changes."""
        self.fail_launches.clear()
        self.leave_behind.clear()
        for _ in range(turns):
            before = (self.node, set(self.processes))
            for name in list(self.processes):
                process = self.processes.get(name)
                if process is None:
                    continue
                process.leftovers = False
                if self.node.units[name].state == STOPPING and process.alive:
                    self.dies(name, 0)
                elif name in self.killing:
                    self.emptied(name)
                else:
                    self.executes(name)
                    if name in self.processes and process.service.health.kind:
                        self.answers(name)
            self.pass_time(30.0)
            if before == (self.node, set(self.processes)) and next_deadline(self.node) is None:
                return
        raise AssertionError(f"never comes to rest: {self.node}")

    # -- what must always hold -----------------------------------------------------------------------------------------

    def check(self) -> None:
        node = self.node
        memory = sum(process.service.limits.memory_request for process in self.processes.values())
        cpu = sum(process.service.limits.cpu_request for process in self.processes.values())
        assert memory <= node.memory, "requests of what runs are over the total"
        assert cpu <= node.cpu, "cpu requests of what runs are over the total"
        assert self.total == (node.memory, node.cpu) or not self.total[0], "the kernel has another total"
        for name, unit in node.units.items():
            if unit.state not in LIVE:
                assert name not in self.processes, f"{name} is {unit.state} and has processes"
                assert name not in self.places, f"{name} is {unit.state} and has a cgroup"
            if unit.shed:
                assert unit.state in (OFF, STOPPING, KILLING) or self._kept(name), f"{name} is shed and {unit.state}"
                assert essential_for(node.plan, name) < m.ESSENTIAL, f"{name} is needed by an essential and shed"
            if unit.state == WAITING:
                assert unit.reason, f"{name} waits without a reason"
            if unit.state in (BACKOFF, STOPPING, KILLING, "starting"):
                assert unit.deadline is not None, f"{name} is {unit.state} without an end"
        for name in self.processes:
            assert name in node.units, f"{name} runs and is not known"
        due = next_deadline(node)
        if not self._queue and not self.exited and (due is None or due > self.now):
            same, actions = step(node, m.Tick(), self.now)
            assert not actions, f"a step at rest asks for {actions}"
            assert same == node, "a step at rest changes the state"

    def _kept(self, name: str) -> bool:
        """Whether something that depends on it is to stop as well, and goes first."""
        units = self.node.units
        return any(
            name in unit.service.depends_on and unit.state in LIVE and not self._wanted(other)
            for other, unit in units.items()
        )

    def _wanted(self, name: str) -> bool:
        unit = self.node.units[name]
        goal = {service.name: service for service in self.node.plan.services}.get(name)
        stays = goal is not None and not needs_restart(unit.service, goal)
        return stays and not unit.down and not unit.shed and not self.node.closing

    def _justify(self, before: Node, event: m.Event, actions: list[m.Action]) -> None:
        """Nobody is stopped without a reason of his own: an unaffected service keeps its process."""
        goal = {service.name: service for service in self.node.plan.services}
        for action in actions:
            if not isinstance(action, m.Signal | m.Kill) or action.name not in before.units:
                continue
            unit = before.units[action.name]
            own = getattr(event, "name", None) == action.name
            due = unit.deadline is not None and unit.deadline <= self.now
            leaving = action.name not in goal or needs_restart(unit.service, goal[action.name])
            asked = self.node.closing or unit.then or unit.down or unit.shed
            assert own or due or leaving or asked, f"{action} after {event}"

    def return_all(self) -> None:
        """The governor has room again."""
        for name, unit in list(self.node.units.items()):
            if unit.shed:
                self.feed(m.Return(name, "there is room"))

    def replay(self) -> None:
        """The same events give the same state."""
        node = self.first
        for event, now in self.log:
            node, _ = step(node, event, now)
        assert node == self.node
