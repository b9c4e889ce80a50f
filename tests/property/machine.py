"""One machine over the lives of several agents: what happens on it, and what must always hold."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, cast

from edge_agent.agent.governing import Governing
from edge_agent.agent.performer import Agent
from edge_agent.agent.recovery import resume
from edge_agent.changes import needs_restart
from edge_agent.host.journal import Entry, Journal
from edge_agent.host.process import Child
from edge_agent.host.senses import MachineSenses
from edge_agent.lifecycle import LIVE, QUARANTINED, READY, UP, WAITING
from edge_agent.model import Ask, Plan, Ready, Shutdown, Switch, Unhealthy
from tests.fakes.fakehost import FakeProcess

from .doors import Client, Disk, Door, Holds, Host, Killed, Main, Probes, Turns, notifies, sinks
from .test_node import NAMES

if TYPE_CHECKING:
    from edge_agent.control.connection import Request
    from tests.fakes.fakehost import FakePlace


class Told(Journal):
    """A journal that also counts kills for lack of memory, over the lives of agents."""

    def __init__(self, data_dir: str, kills: Counter[str]) -> None:
        super().__init__(data_dir)
        self._kills = kills

    def add(self, kind: str, service: str, text: str, *, notable: bool) -> Entry:
        entry = super().add(kind, service, text, notable=notable)
        self._kills[service] += kind == "oom"
        return entry


class Machine:
    """One machine over the lives of several agents. ``now`` moves only when a test moves it."""

    def __init__(self, directory: str, kind: str, plan: Plan) -> None:
        self.directory = directory
        self.kind = kind
        self.plan = plan  # the one that a person starts the next agent with, if none is committed
        self.now = 1000.0
        self.countdown = 0  # moments until the agent is killed; 0: it is not
        self.fds: dict[int, int] = {}  # descriptor -> inode
        self.pidfds: dict[int, FakeProcess] = {}
        self.errors: dict[int, Main] = {}
        self.watches: dict[int, str] = {}
        self.changed: set[str] = set()  # services that may have become empty since they were looked at
        self.mains: dict[int, Main] = {}  # by start time
        self.children: set[int] = set()  # start times of the agent's own
        self.late: list[FakeProcess] = []  # of a killed agent, held, and slow to notice
        self.slow = False  # whether the next of them will be
        self.attempts: Counter[str] = Counter()
        self.clients: dict[int, Client] = {}
        self.ooms = 0
        self.kills: Counter[str] = Counter()  # by service: for lack of memory, as its agents told them
        self.lives = 0
        self.requests = 0
        self.host = Host(self)
        self.start(plan)

    # -- lives of the agent --------------------------------------------------------------------------------------------

    def start(self, plan: Plan | None = None) -> None:
        """As agent/start.py, again and again if it is killed meanwhile."""
        while True:
            try:
                self._start(plan)
            except Killed:
                self.die()
            else:
                return

    def _start(self, plan: Plan | None) -> None:
        self.lives += 1
        self.loop = Turns(self)
        self.store = Disk(self)
        self.store.lock()
        committed = self.store.committed()
        self.containment = Holds(self)
        self.containment.open()
        self.journal = Told(self.store.data_dir, self.kills)
        self.agent = Agent(
            self.loop,
            self.store,
            self.journal,
            self.containment,
            self.directory + "/log",
            processes=Door(self),
            sink=sinks(self),
            notify=notifies(self),
        )
        self.probes = Probes()
        self.agent.prober = self.probes
        self.agent.governing = Governing(self.agent, MachineSenses(self.directory + "/no-proc"))
        resume(self.agent, plan or committed or self.plan, committed)

    def die(self, *, again: bool = False) -> None:
        """kill -9. ``again``: it executes itself anew instead, so its children stay its own."""
        self.countdown = 0
        self.store.close(remove=False)
        for fd in [fd for fd in self.fds if self.is_open(fd)]:
            os.close(fd)
        for name in self.store.stale:
            self._distrust(name)
        if not again:
            self.children.clear()
            for process in [process for process in self.host.processes.values() if not process.alive]:
                del self.host.processes[process.pid]
        for main in self.mains.values():
            if main.alive and main.process.held:
                main.excuses.add("was never released")
                if self.slow:
                    self.late.append(main.process)
                else:
                    self.host.end(main.process.pid, 127)
        self.clients.clear()  # their connections are gone

    def lose_record(self, name: str, *, torn: bool) -> None:
        """While no agent runs. ``torn``: it is there, and nonsense."""
        path = Path(self.store.service_dir(name), "unit")
        if path.exists():
            self._distrust(name)
            path.write_bytes(path.read_bytes()[:-3]) if torn else path.unlink()

    def _distrust(self, name: str) -> None:
        for main in self.mains.values():
            if main.service.name == name:
                main.excuses.add("its record is not true")

    def finish(self) -> None:
        """The loop has ended in an orderly way: what start.py does then, and what must be gone."""
        self.countdown = 0
        assert self.agent.done
        self._check_memory()
        self.mains.clear()
        assert not any(client.answers != 1 for client in self.clients.values()), "a request was not answered"
        self.agent.close()
        assert not self.loop.epoll.fds, "descriptors are still watched"
        assert not self.loop.pending(), f"timers are left: {[timer.call for timer in self.loop.pending()]}"
        self.containment.close(remove=True)
        self.store.close(remove=True)
        assert not self.host.places, "containments are left"
        assert not self.host.processes, f"processes are left: {self.host.processes} {list(self.journal.since(0))}"
        assert not [fd for fd in self.fds if self.is_open(fd)], "descriptors are left"
        assert not os.path.exists(self.store.run_dir), os.listdir(self.store.run_dir)  # noqa: PTH110, PTH208

    # -- what it is asked for ------------------------------------------------------------------------------------------

    def ask(self, event: Callable[[int], Ask | Switch]) -> None:
        self.requests += 1
        client = self.clients[self.requests] = Client()
        self.agent.requests[self.requests] = cast("Request", client)
        self.agent.emit(event(self.requests))

    # -- descriptors ---------------------------------------------------------------------------------------------------

    def open(self) -> int:
        fd = os.memfd_create("machine", os.MFD_CLOEXEC)
        self.fds[fd] = os.fstat(fd).st_ino
        for of in (self.pidfds, self.errors, self.watches):
            of.pop(fd, None)
        return fd

    def is_open(self, fd: int) -> bool:
        with suppress(OSError):
            return os.fstat(fd).st_ino == self.fds[fd]
        return False

    def is_ready(self, fd: int) -> bool:
        assert self.is_open(fd), "a descriptor was closed while it was watched"
        if fd in self.pidfds:
            return not self.pidfds[fd].alive
        if fd in self.errors:
            return self.errors[fd].told is not None or not self.errors[fd].alive
        return self.watches.get(fd) in self.changed

    # -- what happens --------------------------------------------------------------------------------------------------

    def moment(self) -> None:
        if self.countdown:
            self.countdown -= 1
            if not self.countdown:
                raise Killed

    @contextmanager
    def mortal(self) -> Iterator[None]:
        """The agent may be killed in here; then the next one starts."""
        try:
            yield
        except Killed:
            self.die()
            self.start()
        self.observe()

    def of(self, name: str) -> list[Main]:
        return [main for main in self.mains.values() if main.alive and main.service.name == name]

    def living(self) -> list[Main]:
        return [main for main in self.mains.values() if main.alive]

    def observe(self) -> None:
        for main in list(self.mains.values()):
            unit = self.agent.node.units.get(main.service.name)
            if unit is not None and unit.state == READY and unit.pid == main.process.pid:
                main.was_ready = True
            if not main.alive and main.process.pid not in self.host.processes and not main.oom:
                del self.mains[main.process.started]

    def turn(self, choose: Callable[[list[int]], list[int]] = list, most: int = 100) -> bool:
        """Turn the loop until nothing is left to do now, in the order chosen. False: there was nothing."""
        for done in range(most):
            self.loop.epoll.choose = list
            if self.loop.stopped or not self.loop.can_turn():
                return done > 0
            self.loop.epoll.choose = choose
            self.loop.turn(0)
            self.observe()
        raise AssertionError("the agent does not come to rest")

    def executes(self, main: Main) -> None:
        if main.alive and not main.process.held and main.told is None:
            main.told = ""

    def fails_to_execute(self, main: Main) -> None:
        if main.alive and not main.process.held and main.told is None:
            main.told = f"cannot start {main.service.name}: cannot execute it; fix: none, a test asked"
            main.excuses.add("could not be started")
            self.host.end(main.process.pid, 127)

    def ends(self, main: Main, status: int) -> None:
        if main.alive and main.told == "":
            self.host.end(main.process.pid, status)

    def out_of_memory(self, name: str, whose: str) -> None:
        for process in self.host.living(name):
            self.host.unstick(process.pid)
        mains = self.of(name)
        if not mains or mains[0].process.held:
            return
        self.host.run_out_of_memory(name, whose)
        mains[0].oom = whose
        mains[0].attempts = self.attempts[name]
        mains[0].told_before = self.kills[name]

    def on_disk(self, name: str) -> bool:
        """Whether a kill for lack of memory is: not each of them, the journal counts those like one that is."""
        return any(entry.kind == "oom" for entry in Journal(self.store.data_dir).since(0, name, 1000))

    def answers(self, name: str) -> None:
        if self.probes.watched.get(name) is False and any(main.told == "" for main in self.of(name)):
            self.probes.watched[name] = True
            self.agent.emit(Ready(name))

    def all_work(self) -> None:
        """Every program runs, ends when it is told to, and answers when it is asked."""
        for main in self.living():
            if main.asked:
                self.ends(main, 0)
            self.executes(main)
        for name in list(self.probes.watched):
            self.answers(name)

    def sickens(self, name: str) -> None:
        if self.probes.watched.get(name):
            for main in self.of(name):
                main.excuses.add("unhealthy")
            self.agent.emit(Unhealthy(name, "3 probes failed"))

    def unstick(self) -> None:
        for process in list(self.host.processes.values()):
            self.host.unstick(process.pid)
        for process in self.late:
            if process.alive:
                self.host.end(process.pid, 127)
        self.late.clear()

    def on_record(self, child: Child) -> set[str]:
        """Names under which the process is on record on disk, or cannot be as the disk is full."""
        found = {name for name, unit in self.store.units().items() if (unit.pid, unit.started) == child[0:3:2]}
        return found | self.store.stale

    # -- what must hold ------------------------------------------------------------------------------------------------

    def justify(self, name: str) -> None:
        """Nobody who runs is told to end without a reason of his own."""
        node = self.agent.node
        unit, goal = node.units.get(name), {service.name: service for service in node.plan.services}.get(name)
        for main in self.of(name):
            slow = not main.was_ready and self.now >= main.launched + main.service.start_timeout
            leaving = goal is None or needs_restart(main.service, goal)
            due = node.closing or leaving or slow or (unit is not None and unit.down)
            assert due or main.excuses, f"{name} is told to end without a reason: {unit}"
            main.excuses.add("told to end")

    def check(self) -> None:
        node = self.agent.node
        memory = cpu = 0
        for name in {process.name for process in self.host.processes.values() if process.alive}:
            living, place = self.host.living_anywhere(name), self.host.places.get(name)
            assert len(self.of(name)) <= 1, f"two main processes of {name}"
            assert {process.place for process in living} == {cast("FakePlace", place).number}, f"generations of {name}"
            unit = node.units.get(name)
            assert unit is not None, f"{name} runs and is not known"
            assert unit.state in LIVE, f"{name} is {unit.state} and has processes"
            memory += unit.service.limits.memory_request
            cpu += unit.service.limits.cpu_request
        assert memory <= node.memory, "requests of what runs are over the total"
        assert cpu <= node.cpu, "cpu requests of what runs are over the total"
        for client in self.clients.values():
            assert client.answers <= 1, "answered twice"
        for fd in self.loop.epoll.fds:
            assert self.is_open(fd), "a descriptor was closed while it was watched"
        assert len(self.loop.pending()) <= 2 * len(NAMES) + 2, "timers multiply"
        self._check_memory()

    def _check_memory(self) -> None:
        """A kill for lack of memory is told as one, in the journal and on the service."""
        for started, main in list(self.mains.items()):
            name = main.service.name
            seen = self.agent.mains.get(name)
            if not main.oom or (seen is not None and seen.pid == main.process.pid):
                continue
            del self.mains[started]
            if "its record is not true" in main.excuses:
                continue
            assert self.kills[name] > main.told_before, f"nobody said why {name} was killed"
            assert self.on_disk(name), f"the disk does not say why {name} was killed"
            unit = self.agent.node.units.get(name)
            if unit is not None and main.attempts == self.attempts[name]:
                fresh = not unit.last_exit  # what was removed while stopping came back with the next agent
                assert fresh or "lack of memory" in unit.last_exit, f"{name} was killed for {main.oom}: {unit}"

    def calm(self) -> None:
        """Everything works from now on, and time passes until nothing changes."""
        self.host.faults_end()
        self.countdown = 0
        for _ in range(500):
            self.unstick()
            self.all_work()
            busy = self.turn()
            self.check()
            pending = self.loop.pending()
            if self.loop.stopped or not (busy or pending):
                return
            if not busy:
                self.now = max(self.now, pending[0].due)
        raise AssertionError(f"never comes to rest: {self.agent.node}")

    def check_rest(self) -> None:
        """Whatever is wanted is up, or given up with a reason."""
        node = self.agent.node
        assert node.change is None, "a switch never ends"
        assert all(client.answers == 1 for client in self.clients.values()), "a request was not answered"
        for name, unit in node.units.items():
            blocked = unit.state == WAITING and any(
                node.units[other].state not in UP for other in unit.service.depends_on
            )
            given_up = unit.state == QUARANTINED and unit.reason
            asleep = unit.service.scheduled and not unit.awake
            assert unit.down or asleep or blocked or given_up or unit.state in UP, f"{name} is forgotten: {unit}"
            if unit.state == READY:
                assert bool(unit.service.health.kind) == (name in self.probes.watched), f"{name} is not watched: {unit}"
                assert not unit.service.health.kind or self.probes.health[name] == unit.service.health, "as it was"
            living = self.host.living(name)
            # Not by self.of: of a service without a record or a main process, another leader of a session is adopted.
            assert (unit.state == READY) == bool(living), f"{name} is {unit.state}: {living}"
            assert not living or unit.pid in {process.pid for process in living}, f"{name} has no main process: {unit}"
        assert not self.store.stale, "the records are not what is"
        committed = self.store.committed()
        assert committed == node.plan or node.degraded, "the plan in force is not kept for the next boot"
        assert set(self.host.places) == {name for name, unit in node.units.items() if unit.state == READY}

    def shut_down(self) -> None:
        self.agent.emit(Shutdown())
        self.calm()
        assert self.loop.stopped, f"the agent does not end: {self.agent.node}"
        self.finish()
