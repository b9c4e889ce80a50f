"""What the governor sees and does: pressure stall information, usage, and holds on running services.

Counters are cumulative, microseconds or bytes, as in the kernel's accounting/psi.rst and admin-guide/cgroup-v2.rst; a
file that is not there reads as zeros, a cgroup that has gone as None. Triggers are descriptors that give EPOLLPRI when
tasks stalled for so long within a window; a cgroup that goes takes its triggers along (EPOLLERR).
"""

from __future__ import annotations

import os

from ..looks import Machine, Raw
from .hierarchy import read_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from ..model import Service
    from .cgroup import CgroupContainment
    from .cgroupfs import Cgroup

SOME, FULL = "some", "full"
UNPRIVILEGED = 2_000_000
"""Microseconds; windows of a trigger that is not set by root are multiples of it."""
ECHO = "/bin/echo"
CONTROLLERS = ("memory", "cpu", "io")


if TYPE_CHECKING:

    class Senses(Protocol):
        """The door. ``name`` None is all services together."""

        psi: bool  # are there triggers here?

        @property
        def unheld(self) -> dict[str, str]:
            """Resource of which nothing can be withheld here -> why; known once the containment is open."""

        def machine(self) -> Machine:
            """The machine now."""

        def raw(self, name: str | None) -> Raw | None:
            """The counters now; None: it has gone, or nothing counts here."""

        def peak(self, name: str) -> int:
            """Bytes that it has held at most since it was started; 0 where nobody knows."""

        def arm(self, name: str | None, resource: str, kind: str, stall: int, window: int) -> int:
            """A trigger, microseconds; the caller closes it. -1: none to be had."""

        def arm_machine(self, stall: int, window: int) -> int:
            """The same for the machine's memory."""

        def squeeze(self, name: str, resource: str, amount: int, *, swap: bool) -> int:
            """Hold a service to ``amount``. A pidfd of the process that waits for the reclaim, or -1."""

        def relax(self, service: Service, resource: str) -> None:
            """Back to the limits of the plan."""

        def freeze(self, name: str, *, frozen: bool) -> None:
            """Stop it where it is, or let it go on."""


class MachineSenses:
    """Where no cgroup can be read: the machine only. Holds do nothing."""

    def __init__(self, proc: str = "/proc") -> None:
        self._proc = proc
        self.psi = bool(read_text(f"{proc}/pressure/memory"))

    @property
    def unheld(self) -> dict[str, str]:
        """Nobody is seen to use what could not be held."""
        return {}

    def machine(self) -> Machine:
        """From pressure/memory and meminfo, proc_meminfo(5)."""
        some, full = stalls(read_text(f"{self._proc}/pressure/memory"))
        wanted = {"MemAvailable:": 0, "MemTotal:": 0, "SwapFree:": 0}
        for line in read_text(f"{self._proc}/meminfo").splitlines():
            words = line.split()
            if words and words[0] in wanted:
                wanted[words[0]] = int(words[1]) * 1024
        return Machine(some, full, wanted["MemAvailable:"], wanted["MemTotal:"], wanted["SwapFree:"])

    def raw(self, name: str | None) -> Raw | None:  # noqa: ARG002 - the door's
        """Nothing counts here."""
        return None

    def peak(self, name: str) -> int:  # noqa: ARG002
        """Nobody knows."""
        return 0

    def arm(self, name: str | None, resource: str, kind: str, stall: int, window: int) -> int:  # noqa: ARG002
        """There is no cgroup."""
        return -1

    def arm_machine(self, stall: int, window: int) -> int:
        """A trigger on the machine's memory."""
        return _arm(f"{self._proc}/pressure/memory", None, SOME, stall, window) if self.psi else -1

    def squeeze(self, name: str, resource: str, amount: int, *, swap: bool) -> int:  # noqa: ARG002
        """Nothing to hold it by."""
        return -1

    def relax(self, service: Service, resource: str) -> None:
        """Nothing holds it."""

    def freeze(self, name: str, *, frozen: bool) -> None:
        """Nothing to stop it by."""


class CgroupSenses(MachineSenses):
    """By the services' cgroups."""

    def __init__(self, containment: CgroupContainment, proc: str = "/proc", sys: str = "/sys") -> None:
        super().__init__(proc)
        self._containment = containment
        self._sys = sys

    @property
    def unheld(self) -> dict[str, str]:
        """By the controllers there are, and the disk."""
        missing = self._containment.missing
        found = {name: f"no {name} controller ({missing[name]})" for name in CONTROLLERS if name in missing}
        if not self._containment.io_device:
            found.setdefault("io", "the data directory is on no disk that io.max could name")
        return found

    def machine(self) -> Machine:
        """With the time the disk was busy, io_ticks of the kernel's block/stat.rst, where no stalls are measured."""
        found = super().machine()
        device = self._containment.io_device
        words = [] if self.psi or not device else read_text(f"{self._sys}/dev/block/{device}/stat").split()
        return found._replace(disk=int(words[9]) * 1000 if len(words) > 9 else 0)

    def raw(self, name: str | None) -> Raw | None:
        """Seven small files; memory.stat only of all services together, whose cache is to be told from what is used.
        io is that of the disk that can be limited: who floods another one is not to blame for this one's queue."""
        cgroup = self._containment.cgroup(name)
        if cgroup is None:
            return None
        try:
            return _read(cgroup, self._containment.io_device, with_cache=name is None)
        except (OSError, ValueError):
            return None

    def peak(self, name: str) -> int:
        """memory.peak, which Linux has from 5.19 on."""
        cgroup = self._containment.cgroup(name)
        try:
            return 0 if cgroup is None else int(cgroup.get_property(b"memory.peak"))
        except (OSError, ValueError):
            return 0

    def arm(self, name: str | None, resource: str, kind: str, stall: int, window: int) -> int:
        """On the cgroup's RESOURCE.pressure."""
        cgroup = self._containment.cgroup(name) if self.psi else None
        return -1 if cgroup is None else _arm(f"{resource}.pressure", cgroup.fd, kind, stall, window)

    def squeeze(self, name: str, resource: str, amount: int, *, swap: bool) -> int:
        """cpu.max and io.max at once. Memory by a child of this process: the kernel has whoever writes memory.high or
        memory.reclaim do the reclaiming, for seconds. memory.high only with swap: without, it stops the service for
        good."""
        cgroup = self._containment.cgroup(name)
        if cgroup is None:
            return -1
        try:
            if resource == "cpu":
                cgroup.cpu_max = max(amount, 1)
            elif resource == "io":
                device = self._containment.io_device
                if device:
                    cgroup.io_max = {device: {"rbps": amount, "wbps": amount}}
            else:
                return _reclaim(cgroup, amount, swap=swap)
        except (OSError, ValueError):
            pass  # gone, or no such file here; the look after this one sees what it came to
        return -1

    def relax(self, service: Service, resource: str) -> None:
        """Write the plan's limits of this resource again; what is withheld of others stays so."""
        cgroup = self._containment.cgroup(service.name)
        if cgroup is None:
            return
        limits, device = service.limits, self._containment.io_device
        try:
            if resource == "memory":
                cgroup.memory_high = None
            elif resource == "cpu":
                cgroup.cpu_max = limits.cpu_limit
            elif device:
                cgroup.io_max = {device: {"rbps": limits.io_read_bps, "wbps": limits.io_write_bps}}
        except (OSError, ValueError):
            pass  # gone

    def freeze(self, name: str, *, frozen: bool) -> None:
        """cgroup.freeze: asked for; it takes effect when every task has reached a stop."""
        cgroup = self._containment.cgroup(name)
        if cgroup is not None:
            try:
                cgroup.freeze = frozen
            except OSError:
                pass


def stalls(text: str) -> tuple[int, int]:
    """(some, full) total microseconds of a pressure file; zeros for one that cannot be read."""
    found = {SOME: 0, FULL: 0}
    for line in text.splitlines():
        kind, _, rest = line.partition(" ")
        if kind in found:
            found[kind] = int(rest.rpartition("total=")[2])
    return found[SOME], found[FULL]


def _read(cgroup: Cgroup, device: str, *, with_cache: bool) -> Raw:
    def text(name: bytes) -> str:
        try:
            return cgroup.get_property(name)
        except FileNotFoundError:  # a controller that is not there
            return ""
        except OSError:  # EOPNOTSUPP: psi=0
            return ""

    some, full = stalls(text(b"memory.pressure"))
    files = _flat(text(b"memory.stat") if with_cache else "", "active_file", "inactive_file")
    io = 0
    for line in text(b"io.stat").splitlines():
        for word in line.split()[1:] if line.startswith(device + " ") or not device else ():
            key, _, number = word.partition("=")
            if key in ("rbytes", "wbytes"):
                io += int(number)
    limits = _flat(text(b"memory.events.local"), "high", "max")
    cpu = _flat(text(b"cpu.stat"), "usage_usec", "throttled_usec")
    return Raw(
        memory=int(text(b"memory.current") or 0),
        cache=sum(files.values()),
        limited=sum(limits.values()),
        memory_some=some,
        memory_full=full,
        cpu=cpu["usage_usec"],
        cpu_some=stalls(text(b"cpu.pressure"))[0],
        throttled=cpu["throttled_usec"],
        io=io,
        io_some=stalls(text(b"io.pressure"))[0],
    )


def _flat(text: str, *keys: str) -> dict[str, int]:
    """These keys of a flat-keyed file; 0 for those that it does not have."""
    found = dict.fromkeys(keys, 0)
    for line in text.splitlines():
        key, _, number = line.partition(" ")
        if key in found:
            found[key] = int(number)
    return found


def _arm(path: str, directory: int | None, kind: str, stall: int, window: int) -> int:
    """The shortest window that this process may have: 500 ms to 10 s for root, multiples of 2 s for others."""
    longer = -(-window // UNPRIVILEGED) * UNPRIVILEGED
    for microseconds in dict.fromkeys((window, longer)):
        try:
            fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
        except OSError:
            return -1
        try:
            os.write(fd, f"{kind} {stall * microseconds // window} {microseconds}\0".encode())
        except OSError:
            os.close(fd)
        else:
            return fd
    return -1


def _reclaim(cgroup: Cgroup, amount: int, *, swap: bool) -> int:
    above = cgroup.memory_current - amount
    if above <= 0 and not swap:
        return -1
    name, value = (b"memory.high", amount) if swap else (b"memory.reclaim", above)
    fd = os.open(name, os.O_WRONLY | os.O_CLOEXEC, dir_fd=cgroup.fd)
    # EAGAIN: not all of it could be reclaimed. That is no news for anybody's log.
    quiet = (os.POSIX_SPAWN_OPEN, 2, "/dev/null", os.O_WRONLY, 0)
    try:
        # By another program, not a fork: that would hold the agent's locks and sockets for as long as it takes.
        pid = os.posix_spawn(ECHO, ["echo", str(value)], {}, file_actions=[(os.POSIX_SPAWN_DUP2, fd, 1), quiet])
    finally:
        os.close(fd)
    return os.pidfd_open(pid)
