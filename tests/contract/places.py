"""What the contract tests run against: a containment with processes in it, real ones or the fake's."""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from edge_agent.host import process
from edge_agent.host.cgroup import CgroupContainment
from edge_agent.host.tree import TreeContainment
from edge_agent.model import Service
from tests.fakes.fakehost import FakeContainment, FakeHost

if TYPE_CHECKING:
    from edge_agent.host.containment import Containment

PATIENCE = 20.0  # seconds; a guest under emulation is slow
CGROUP_VARIABLE = "LAB_CGROUP"
"""A cgroup v2 directory with every controller enabled in which tests may make cgroups; tests.vm.runner sets it."""

SLEEP = ("/bin/sleep", "1000")
DAEMON = (  # twice: a session of its own, and in it a program without an environment
    sys.executable,
    "-c",
    """
import os, time
for _ in range(2):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.execve("/bin/sleep", ["sleep", "1000"], {})
        time.sleep(1000)
time.sleep(1000)
""",
)
DAEMON_SIZE = 5


class Place(Protocol):
    """A host of one kind."""

    kind: str

    def containment(self) -> Containment:
        """A new agent's containment, opened, over the same host."""

    def start(self, containment: Containment, service: Service) -> int:
        """Launch and release, as the agent does; its pid."""

    def end(self, pid: int) -> None:
        """End one process by SIGKILL and collect it."""

    def close(self) -> None:
        """End everything it started."""


def wait_until(condition: Callable[[], bool]) -> bool:
    """Poll; for processes that another process ends or starts there is nothing better."""
    until = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.005)
    return True


class FakePlaces:
    """tests.fakes."""

    kind = "fake"

    def __init__(self) -> None:
        self.host = FakeHost()

    def containment(self) -> Containment:
        made = FakeContainment(self.host)
        made.open()
        return made

    def start(self, containment: Containment, service: Service) -> int:
        entry = containment.entry(service.name)
        assert entry == -1
        pid = self.host.launch(service).pid
        self.host.release(pid)
        if service.argv == DAEMON:
            for _ in range(DAEMON_SIZE - 1):
                self.host.fork(pid)
        return pid

    def end(self, pid: int) -> None:
        self.host.end(pid, -9)
        self.host.reap(pid)

    def close(self) -> None:
        pass


class RealPlaces:
    """Real processes; ``make`` gives a containment."""

    def __init__(self, kind: str, make: Callable[[], Containment]) -> None:
        self.kind = kind
        self._make = make
        self._started: list[int] = []
        self._containments: list[Containment] = []

    def containment(self) -> Containment:
        made = self._make()
        made.open()
        self._containments.append(made)
        return made

    def launch(self, containment: Containment, service: Service, stdout: int = -1) -> process.Child:
        """As the agent does: joined, tracked, held."""
        entry = containment.entry(service.name)
        null = os.open(os.devnull, os.O_RDWR)
        try:
            child = process.launch(
                service,
                entry_fd=entry,
                stdout=null if stdout < 0 else stdout,
                env_extra=containment.marker(service.name),
            )
        finally:
            os.close(null)
            if entry >= 0:
                os.close(entry)
        self._started.append(child.pid)
        containment.track(service.name, child.pid, child.started)
        return child

    def start(self, containment: Containment, service: Service) -> int:
        child = self.launch(containment, service)
        process.release(child)
        select.select([child.error_fd], [], [], PATIENCE)
        assert process.read_error(child.error_fd) == ""
        os.close(child.error_fd)
        os.close(child.pidfd)
        return child.pid

    def end(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)

    def close(self) -> None:
        for containment in self._containments:
            for name in containment.names():
                containment.kill(name)
                assert wait_until(lambda name=name, held=containment: not held.populated(name))  # type: ignore[misc]
        for pid in self._started:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)
        for containment in self._containments:
            containment.close(remove=True)


_numbers = itertools.count()


def tree_places(tmp: Path) -> RealPlaces:
    """Contained by descent; works on every machine."""
    return RealPlaces("tree", lambda: TreeContainment(str(tmp), "sampling"))


def cgroup_places(root: Path) -> RealPlaces:
    """Contained by cgroups below ``root``, which is made here."""
    return RealPlaces("cgroup2", lambda: CgroupContainment(str(root)))


def why_no_cgroup() -> str:
    """Why there can be no test on real cgroups here; '' when there can."""
    root = os.environ.get(CGROUP_VARIABLE, "")
    if not root:
        return f"{CGROUP_VARIABLE} is not set: run by python -m tests.vm.kernel"
    if not Path(root, "cgroup.subtree_control").exists():
        return f"{root} is not a cgroup v2 directory"
    return ""


def new_cgroup() -> Path:
    """An empty cgroup of this test's own."""
    path = Path(os.environ[CGROUP_VARIABLE], f"contract-{os.getpid()}-{next(_numbers)}")
    path.mkdir()
    return path
