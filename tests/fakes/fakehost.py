"""A host in memory: processes that fork, end and are killed, in containments that keep the contract of the real ones.

Nothing happens by itself. Faults are asked for: ``host.fail("prepare", errno.EINVAL)`` makes the next such call raise.
The tests in tests/contract hold this fake to what the real containments do.
"""

from __future__ import annotations

import errno
import itertools
import os
from collections import defaultdict, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_agent.host.containment import (
    ENFORCED,
    MACHINE,
    NOT_ENFORCED,
    OWN,
    TOTAL,
    UNSET,
    OomCounts,
    Usage,
)
from edge_agent.host.process import LaunchError
from edge_agent.model import Service

if TYPE_CHECKING:
    from edge_agent.host.containment import Report


@dataclass
class FakeProcess:
    """``place``: which making of which service's containment it is in."""

    pid: int
    started: int
    name: str
    place: int
    held: bool = True  # forked, and not released
    stuck: bool = False  # in an uninterruptible wait: SIGKILL ends it only once that is over
    killed: bool = False
    status: int | None = None  # None: it runs
    memory: int = 0

    @property
    def alive(self) -> bool:
        return self.status is None


@dataclass
class FakePlace:
    """What a cgroup would be."""

    number: int
    service: Service
    oom: int = 0
    kills: int = 0


class FakeHost:
    """Processes by pid. Survives the agent: hand it to the next FakeContainment."""

    def __init__(self, pids: int = 32768) -> None:
        self.processes: dict[int, FakeProcess] = {}
        self.places: dict[str, FakePlace] = {}
        self.total_ooms = 0
        self.clock = 1000  # ticks since boot
        self._numbers = itertools.count(1)
        self._last_pid = 100
        self._pids = pids
        self._faults: defaultdict[str, deque[int]] = defaultdict(deque)

    def fail(self, call: str, *codes: int) -> None:
        """The next calls of that name fail with these error numbers, one each; 0 lets one through."""
        self._faults[call].extend(codes)

    def faults_end(self) -> None:
        """What was asked for and has not happened does not happen any more."""
        self._faults.clear()

    def check(self, call: str) -> None:
        """Raise what was asked for."""
        if self._faults[call]:
            code = self._faults[call].popleft()
            if code:
                raise OSError(code, os.strerror(code))

    def launch(self, service: Service) -> FakeProcess:
        """As process.launch: forked into its place, held. Raises LaunchError for a fault asked of 'launch'."""
        try:
            self.check("launch")
        except OSError as error:
            raise LaunchError(f"cannot fork for {service.name}: {error.strerror}; fix: none, a test asked") from None
        place = self.places.get(service.name)
        if place is None:
            raise LaunchError(f"cannot start {service.name}: cannot join its cgroup: it is gone; fix: prepare it")
        return self._make(service.name, place.number)

    def release(self, pid: int) -> None:
        """It executes its program."""
        self.processes[pid].held = False

    def fork(self, pid: int) -> FakeProcess:
        """A process makes another, which stays in the service whatever it does."""
        parent = self.processes[pid]
        child = self._make(parent.name, parent.place)
        child.held = False
        return child

    def end(self, pid: int, status: int = 0) -> None:
        """A process ends by itself or by a signal (``status`` below 0)."""
        process = self.processes[pid]
        if process.alive:
            process.status = status

    def reap(self, pid: int) -> int | None:
        """As process.reap; the number is free again."""
        process = self.processes.get(pid)
        if process is None or process.alive:
            return None
        del self.processes[pid]
        return process.status

    def unstick(self, pid: int) -> None:
        """An uninterruptible wait is over."""
        process = self.processes[pid]
        process.stuck = False
        if process.killed:
            self.end(pid, -9)

    def run_out_of_memory(self, name: str, whose: str) -> None:
        """The kernel's killer ends the service, for the limit named: own, total or machine."""
        place = self.places[name]
        place.oom += whose == OWN
        self.total_ooms += whose == TOTAL
        for process in self.living(name):
            place.kills += 1
            self.end(process.pid, -9)

    def living(self, name: str) -> list[FakeProcess]:
        """Processes of the service as it is now, alive."""
        place = self.places.get(name)
        return [
            process
            for process in self.processes.values()
            if place is not None and process.alive and (process.name, process.place) == (name, place.number)
        ]

    def _make(self, name: str, place: int) -> FakeProcess:
        for _ in range(self._pids):
            self._last_pid = self._last_pid % self._pids + 1
            if self._last_pid > 1 and self._last_pid not in self.processes:
                break
        self.clock += 1
        made = FakeProcess(self._last_pid, self.clock, name, place)
        self.processes[made.pid] = made
        return made


class FakeContainment:
    """Keeps host.containment.Containment over a FakeHost."""

    kind = "cgroup2"
    path = "/fake"

    def __init__(self, host: FakeHost) -> None:
        self.host = host
        self.total: tuple[int, int] | None = None
        self._told: dict[str, OomCounts] = {}  # as the real ones: gone with the agent

    def open(self) -> None:
        self.host.check("open")

    def set_total(self, memory: int, cpu: int) -> Report:
        code = self._code("set_total")
        if not code:
            self.total = (memory, cpu)
        return {name: self._judge(code) for name in ("memory", "cpu")}

    def prepare(self, service: Service) -> Report:
        self.host.check("prepare")
        if self.populated(service.name):
            raise OSError(errno.EBUSY, f"processes of {service.name} are still there")
        place = FakePlace(next(self.host._numbers), service)
        self._told[service.name] = OomCounts(total=self.host.total_ooms)
        self.host.places[service.name] = place
        return self._report(service, self._code("limit"))

    def resize(self, service: Service) -> Report:
        place = self.host.places.get(service.name)
        code = self._code("limit")
        if place is not None and not code:
            place.service = service
        return self._report(service, code)

    def entry(self, name: str) -> int:
        self.host.check("entry")
        if name not in self.host.places:
            raise OSError(errno.ENOENT, f"the cgroup of {name} is gone")
        return -1

    def marker(self, name: str) -> tuple[tuple[str, str], ...]:
        return ()

    def track(self, name: str, pid: int, started: int) -> None:
        pass

    def watch(self, name: str) -> int:
        return -1

    def populated(self, name: str) -> bool:
        return bool(self.host.living(name))

    def members(self, name: str) -> list[int]:
        return sorted(process.pid for process in self.host.living(name))

    def population(self) -> dict[str, list[int]]:
        return {name: members for name in self.names() if (members := self.members(name))}

    def kill(self, name: str) -> None:
        for process in self.host.living(name):
            process.killed = True
            if not process.stuck:
                self.host.end(process.pid, -9)

    def remove(self, name: str) -> bool:
        if self.populated(name) or self._code("remove"):
            return False
        self.host.places.pop(name, None)
        self._told.pop(name, None)
        return True

    def usage(self, name: str | None) -> Usage:
        if name is not None and name not in self.host.places:
            return Usage()
        names = list(self.host.places) if name is None else [name]
        living = [process for each in names for process in self.host.living(each)]
        return Usage(sum(process.memory for process in living), 0, len(living))

    def oom_counts(self, name: str) -> OomCounts:
        place = self.host.places.get(name)
        return OomCounts() if place is None else OomCounts(place.oom, place.kills, 0, self.host.total_ooms)

    def oom_cause(self, name: str) -> str:
        before, now = self._told.get(name, OomCounts()), self.oom_counts(name)
        if now.kills <= before.kills:
            return ""
        self._told[name] = now
        for other, told in self._told.items():
            if self.oom_counts(other).kills == told.kills:
                self._told[other] = told._replace(total=now.total)
        if now.oom > before.oom:
            return OWN
        return TOTAL if now.total > before.total else MACHINE

    def names(self) -> list[str]:
        return sorted(self.host.places)

    def owns(self, name: str, pid: int) -> bool:
        return pid in self.members(name)

    def close(self, *, remove: bool) -> None:
        if remove:
            for name in self.names():
                self.remove(name)

    def _code(self, call: str) -> str:
        try:
            self.host.check(call)
        except OSError as error:
            return f"refused:{errno.errorcode[error.errno or errno.EIO]}"
        return ""

    def _judge(self, code: str) -> tuple[str, str]:
        return (NOT_ENFORCED, code) if code else (ENFORCED, "")

    def _report(self, service: Service, code: str) -> Report:
        limits = service.limits
        asked = {
            "memory": limits.memory_limit is not None,
            "swap": limits.swap_limit is not None,
            "cpu": limits.cpu_limit is not None or limits.cpu_request > 0,
            "pids": limits.pids_limit is not None,
            "io": (limits.io_weight, limits.io_read_bps, limits.io_write_bps) != (None, None, None),
            "oom_group": True,
        }
        return {resource: self._judge(code) if wanted else (UNSET, "") for resource, wanted in asked.items()}
