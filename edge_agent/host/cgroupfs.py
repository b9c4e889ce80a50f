"""One directory of the cgroup v2 filesystem, held by descriptor.

A cgroup that was removed and made again under the same name is another one; by descriptor the old one answers ENOENT or
ENODEV, never with the new one's values. Methods that look around take 'gone' as an answer: an empty list, False.
Attributes raise OSError as the files do.
"""

from __future__ import annotations

import errno
import os
import signal

from .descriptors import CpuMax, FlagFile, FlatKeyed, IntFile, MaxFile, NestedKeyed, Pressure, Weight, Words

KILL_ROUNDS = 100  # without cgroup.kill


class Cgroup:
    """Files as attributes, children by name. Close it, or leave that to the end of the process."""

    controllers = Words("cgroup.controllers")
    subtree_control = Words("cgroup.subtree_control")
    events = FlatKeyed("cgroup.events")
    freeze = FlagFile("cgroup.freeze")
    kill_all = FlagFile("cgroup.kill", writeonly=True)
    memory_current = IntFile("memory.current")
    memory_low = IntFile("memory.low")
    memory_max = MaxFile("memory.max")
    memory_high = MaxFile("memory.high")
    memory_swap_max = MaxFile("memory.swap.max")
    memory_oom_group = FlagFile("memory.oom.group")
    memory_events = FlatKeyed("memory.events")
    memory_events_local = FlatKeyed("memory.events.local")
    memory_pressure = Pressure("memory.pressure")
    cpu_weight = Weight("cpu.weight")
    cpu_max = CpuMax("cpu.max")
    cpu_stat = FlatKeyed("cpu.stat")
    pids_current = IntFile("pids.current")
    pids_max = MaxFile("pids.max")
    io_weight = Weight("io.weight")
    io_bfq_weight = Weight("io.bfq.weight")
    io_max = NestedKeyed("io.max")

    def __init__(self, path: str, parent: Cgroup | None = None) -> None:
        """``path`` is a name below ``parent``, or stands by itself. Raises OSError when there is no such directory."""
        where = None if parent is None else parent.fd
        self.fd: int = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=where)
        self._events_fd = -1

    def get_property(self, filename: bytes) -> str:
        """Content of a file of this cgroup."""
        fd = os.open(filename, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self.fd)
        try:
            parts = []
            while part := os.read(fd, 65536):
                parts.append(part)
        finally:
            os.close(fd)
        return b"".join(parts).decode()

    def set_property(self, filename: bytes, value: object) -> None:
        """Write to a file of this cgroup; the kernel takes one write(2) as one value."""
        fd = os.open(filename, os.O_WRONLY | os.O_CLOEXEC, dir_fd=self.fd)
        try:
            os.write(fd, str(value).encode())
        finally:
            os.close(fd)

    def child(self, name: str) -> Cgroup | None:
        """The cgroup below, None when there is none."""
        try:
            return Cgroup(name, self)
        except OSError:
            return None

    def make(self, name: str) -> Cgroup:
        """The cgroup below, made when it is not there. Raises OSError."""
        try:
            os.mkdir(name, 0o755, dir_fd=self.fd)
        except FileExistsError:
            pass
        return Cgroup(name, self)

    def children(self) -> list[str]:
        """Names of the cgroups below."""
        if self.fd < 0:  # to scandir, -1 is not a bad descriptor: it is the working directory
            return []
        try:
            with os.scandir(self.fd) as entries:
                return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
        except OSError:
            return []

    def enable(self, controller: str) -> None:
        """Give the cgroups below a controller. Raises OSError, EBUSY while processes are in this very cgroup."""
        if controller not in self.subtree_control:
            self.set_property(b"cgroup.subtree_control", f"+{controller}")

    def disable(self, controller: str) -> None:
        """Take a controller from the cgroups below. Raises OSError, EBUSY while one of them passes it on."""
        self.set_property(b"cgroup.subtree_control", f"-{controller}")

    def entry(self) -> int:
        """cgroup.procs, open for writing: whoever writes b"0" moves in. Raises OSError."""
        return os.open(b"cgroup.procs", os.O_WRONLY | os.O_CLOEXEC, dir_fd=self.fd)

    def own_procs(self) -> list[int]:
        """Processes in this very cgroup."""
        try:
            return [int(line) for line in self.get_property(b"cgroup.procs").split()]
        except OSError:  # gone, or threaded (EOPNOTSUPP): then its processes are listed further up
            return []

    def procs(self) -> list[int]:
        """Processes in this cgroup and in all below it."""
        found = self.own_procs()
        for name in self.children():
            below = self.child(name)
            if below is not None:
                found += below.procs()
                below.close()
        return found

    def events_fd(self) -> int:
        """cgroup.events, open: EPOLLPRI until it is read by this descriptor or a duplicate. -1 when gone."""
        if self._events_fd < 0:
            try:
                self._events_fd = os.open(b"cgroup.events", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self.fd)
            except OSError:
                return -1
        return self._events_fd

    def populated(self) -> bool:
        """Is any process alive in it or below? Reads by ``events_fd``, which rearms its EPOLLPRI."""
        fd = self.events_fd()
        try:
            return fd >= 0 and b"populated 1" in os.pread(fd, 4096, 0)
        except OSError:
            return False

    def kill(self) -> None:
        """SIGKILL every process in it and below, also those being forked meanwhile."""
        try:
            self.kill_all = True
        except FileNotFoundError:
            self._kill_each()  # Linux before 5.14, or the cgroup is gone
        except OSError as error:
            if error.errno != errno.ENODEV:
                self._kill_each()  # a threaded cgroup has no cgroup.kill

    def remove(self, name: str) -> bool:
        """Remove the cgroup ``name`` below with everything below it. False: some process is still in there."""
        below = self.child(name)
        if below is not None:
            for inner in below.children():
                below.remove(inner)
            below.close()
        try:
            os.rmdir(name, dir_fd=self.fd)
        except FileNotFoundError:
            return True
        except OSError as error:
            if error.errno in (errno.EBUSY, errno.ENOTEMPTY):
                return False
            raise
        return True

    def close(self) -> None:
        """Let go of the descriptors; the cgroup stays."""
        for fd in (self.fd, self._events_fd):
            if fd >= 0:
                os.close(fd)
        self.fd = self._events_fd = -1

    def _kill_each(self) -> None:
        """Nobody forks while frozen, and a frozen process dies of SIGKILL, so one round is enough where it works."""
        try:
            self.freeze = True
        except OSError:
            pass
        try:
            for _ in range(KILL_ROUNDS):
                found = self.procs()
                for pid in found:
                    try:
                        os.kill(pid, signal.SIGKILL)
                    except ProcessLookupError:
                        pass
                if not found:
                    return
        finally:
            try:
                self.freeze = False
            except OSError:
                pass
