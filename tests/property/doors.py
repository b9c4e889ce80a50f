"""The doors of a real Agent in the test's hand: processes, containment, loop, disk, probes, logs, sockets.

Descriptors are real ones (memfds), so closing one twice, or watching a closed one, is noticed as the kernel notices it.
``machine.moment`` is called before and after everything the agent does to the outside; there it can be killed.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edge_agent.host.logs import LogSink
from edge_agent.host.loop import READ, Loop, Timer
from edge_agent.host.notify import NotifySocket
from edge_agent.host.probes import Prober
from edge_agent.host.process import Child
from edge_agent.host.store import Store
from edge_agent.lifecycle import KILLING, STOPPING, Unit
from edge_agent.model import Health, Plan, Service
from tests.fakes.fakehost import FakeContainment, FakeHost, FakeProcess

if TYPE_CHECKING:
    from edge_agent.host.containment import Containment, Report
    from edge_agent.host.notify import Listener

    from .machine import Machine


class Killed(BaseException):
    """The agent is killed here."""


@dataclass
class Main:
    """What the host knows of a process that the agent forked, besides that it lives."""

    process: FakeProcess
    service: Service
    launched: float
    told: str | None = None  # what came through its error pipe: '' executed, None nothing yet
    asked: bool = False  # got its stop signal
    answers: bool = False
    was_ready: bool = False  # the agent knew it
    excuses: set[str] = field(default_factory=set)  # why it may be told to end
    oom: str = ""  # whose memory it was killed for, as long as the agent has not said so
    attempts: int = 0  # to start this service, at that time
    told_before: int = 0  # how often the journal had said so, at that time

    @property
    def alive(self) -> bool:
        return self.process.alive


class Host(FakeHost):
    """``orphans``: ended processes that are nobody's child but init's are collected at once."""

    def __init__(self, machine: Machine) -> None:
        super().__init__()
        self.machine = machine

    def end(self, pid: int, status: int = 0) -> None:
        process = self.processes[pid]
        was = process.alive
        super().end(pid, status)
        if was:
            if not self.living(process.name):
                self.machine.changed.add(process.name)
            if process.started not in self.machine.children:
                del self.processes[pid]

    def living_anywhere(self, name: str) -> list[FakeProcess]:
        return [process for process in self.processes.values() if process.alive and process.name == name]


class Holds(FakeContainment):
    """``kind`` cgroup2 tells by descriptor when a service is empty, tree does not."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine.host)
        self.machine = machine
        self.kind = machine.kind

    def set_total(self, memory: int, cpu: int) -> Report:
        self.machine.moment()
        return super().set_total(memory, cpu)

    def prepare(self, service: Service) -> Report:
        self.machine.attempts[service.name] += 1
        self.machine.moment()
        report = super().prepare(service)
        self.machine.moment()
        return report

    def entry(self, name: str) -> int:
        super().entry(name)
        return self.machine.open() if self.kind == "cgroup2" else -1

    def watch(self, name: str) -> int:
        if self.kind == "tree" or name not in self.host.places:
            return -1
        fd = self.machine.open()
        self.machine.watches[fd] = name
        return fd

    def populated(self, name: str) -> bool:
        self.machine.changed.discard(name)
        return super().populated(name)

    def kill(self, name: str) -> None:
        self.machine.moment()
        self.machine.justify(name)
        super().kill(name)
        self.machine.moment()

    def remove(self, name: str) -> bool:
        self.machine.moment()
        return super().remove(name)


class Epoll:
    """epoll(7), level-triggered: what is ready comes in the order, and in the number, that the test chooses."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.fds: set[int] = set()
        self.choose: Callable[[list[int]], list[int]] = list

    def register(self, fd: int, _mask: int) -> None:
        assert fd not in self.fds
        assert self.machine.is_open(fd), f"descriptor {fd} is watched and not open"
        self.fds.add(fd)

    def modify(self, fd: int, _mask: int) -> None:
        assert fd in self.fds

    def unregister(self, fd: int) -> None:
        assert self.machine.is_open(fd), f"descriptor {fd} was closed while it was watched"
        self.fds.remove(fd)

    def poll(self, _timeout: float | None) -> list[tuple[int, int]]:
        ready = [fd for fd in sorted(self.fds) if self.machine.is_ready(fd)]
        return [(fd, READ) for fd in self.choose(ready)]


class Turns(Loop):
    """host.loop itself, with the test's clock and the test's epoll."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(lambda: machine.now)
        self._epoll.close()
        self.machine = machine
        self.epoll = self._epoll = Epoll(machine)  # type: ignore[assignment]  # as much of it as the loop uses

    @property
    def stopped(self) -> bool:
        return self._stopped

    def pending(self) -> list[Timer]:
        """Timers that are still to fire, the next one first."""
        return sorted((timer for _, _, timer in self._timers if timer.call is not None), key=lambda timer: timer.due)

    def can_turn(self) -> bool:
        """Would a turn call anything now?"""
        pending = self.pending()
        return bool(self._epoll.poll(0) or (pending and pending[0].due <= self.machine.now))


class Disk(Store):
    """A real store on a disk that may be full. ``stale``: services whose last record was not written."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine.directory + "/run", machine.directory + "/data")
        self.machine = machine
        self.stale: set[str] = set()

    def save_unit(self, unit: Unit) -> None:
        self.machine.moment()
        self.stale.add(unit.service.name)
        self.machine.host.check("save")
        super().save_unit(unit)
        self.stale.discard(unit.service.name)
        if unit.state in (STOPPING, KILLING):  # whatever happens to this agent, the next one goes on with it
            for main in self.machine.of(unit.service.name):
                main.excuses.add("is on record as ending")
        self.machine.moment()

    def drop_unit(self, name: str) -> None:
        super().drop_unit(name)
        self.stale.discard(name)

    def commit(self, plan: Plan) -> None:
        self.machine.moment()
        self.machine.host.check("commit")
        super().commit(plan)
        self.machine.moment()


class Probes(Prober):
    """Knows who is watched; the test speaks for the services."""

    def __init__(self) -> None:
        self.watched: dict[str, bool] = {}  # name -> ready
        self.health: dict[str, Health] = {}

    def start(self, service: Service, ready: bool) -> None:
        self.stop(service.name)
        if service.health.kind:
            self.watched[service.name] = ready
            self.health[service.name] = service.health

    def stop(self, name: str) -> None:
        self.watched.pop(name, None)


def sinks(machine: Machine) -> type[LogSink]:
    """LogSink on this machine: two descriptors, one of them watched."""

    class Sink(LogSink):
        def __init__(self, loop: Loop, service: Service, folder: str, log_dir: str) -> None:
            machine.host.check("sink")
            self.on_data = None
            self.reason = ""
            self._fd = machine.open()
            loop.watch(self._fd, 1, lambda _events: None)

        def open_writer(self) -> int:
            machine.host.check("writer")
            return machine.open()

        def close(self) -> None:
            machine.agent.loop.forget(self._fd)
            os.close(self._fd)

    return Sink


def notifies(machine: Machine) -> type[NotifySocket]:
    """NotifySocket on this machine."""

    class Notify(NotifySocket):
        def __init__(
            self, loop: Loop, path: str, service: Service, containment: Containment, listener: Listener
        ) -> None:
            machine.host.check("notify")
            self.path = path
            self._fd = machine.open()
            loop.watch(self._fd, 1, lambda _events: None)

        def close(self) -> None:
            machine.agent.loop.forget(self._fd)
            os.close(self._fd)

    return Notify


class Door:
    """host.process on this machine."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def launch(
        self,
        service: Service,
        *,
        entry_fd: int,
        stdout: int,
        env_extra: tuple[tuple[str, str], ...] = (),
        notify_path: str | None = None,
    ) -> Child:
        machine = self.machine
        machine.moment()
        assert stdout >= 0
        assert not machine.host.living_anywhere(service.name), f"a second generation of {service.name}"
        process = machine.host.launch(service)
        main = machine.mains[process.started] = Main(process, service, machine.now)
        machine.children.add(process.started)
        machine.moment()
        pidfd, release, error = machine.open(), machine.open(), machine.open()
        machine.pidfds[pidfd] = process
        machine.errors[error] = main
        try:
            machine.host.check("setup")
        except OSError as failure:  # in the child, before its release
            main.told = f"cannot start {service.name}: {failure.strerror}; fix: none, a test asked"
            main.excuses.add("could not be started")
            machine.host.end(process.pid, 127)
        return Child(process.pid, pidfd, process.started, release, error)

    def release(self, child: Child) -> bool:
        self.machine.moment()
        assert self.machine.mains[child.started].service.name in self.machine.on_record(child), "not on record"
        os.close(child.release_fd)
        process = self.machine.mains[child.started].process
        process.held = False
        self.machine.moment()
        return process.alive

    def read_error(self, fd: int) -> str | None:
        main = self.machine.errors[fd]
        return main.told if main.alive else main.told or ""

    def send_signal(self, pidfd: int, signum: int) -> bool:
        self.machine.moment()
        process = self.machine.pidfds[pidfd]
        self.machine.justify(process.name)
        main = self.machine.mains.get(process.started)
        if main is not None:
            main.asked = True
        return process.pid in self.machine.host.processes

    def reap(self, pid: int) -> int | None:
        process = self.machine.host.processes.get(pid)
        if process is None or process.started not in self.machine.children:
            return None
        return self.machine.host.reap(pid)

    def open_pidfd(self, pid: int, started: int) -> int:
        process = self.machine.host.processes.get(pid)
        if process is None or process.started != started or not process.alive:
            return -1
        fd = self.machine.open()
        self.machine.pidfds[fd] = process
        return fd

    def read_stat(self, pid: int) -> list[bytes] | None:
        """Leader of a session: every main process, and whoever made a session (an odd start, here)."""
        process = self.machine.host.processes.get(pid)
        if process is None:
            return None
        leader = pid if process.started in self.machine.mains or process.started % 2 else 0
        state = b"S" if process.alive else b"Z"
        return [state, b"1", b"0", b"%d" % leader, *[b"0"] * 15, b"%d" % process.started]

    def program(self, pid: int) -> str:
        return "/usr/bin/python3" if pid == os.getpid() else "/bin/true"


class Client:
    """A request; it is answered once."""

    def __init__(self) -> None:
        self.answers = 0

    def reply(self, _result: dict[str, Any]) -> None:
        self.answers += 1

    def fail(self, _code: str, _why: str, _fix: str = "") -> None:
        self.answers += 1
