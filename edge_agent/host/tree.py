"""Containment without cgroups: a service is every process that descends from what the agent started for it.

A process belongs to a service when any of these holds, so that a daemon cannot leave by forking twice, by starting a
session, or by clearing its environment alone:
- its initial environment (/proc/PID/environ) carries the marker EDGE_AGENT_UNIT=<instance>:<name>;
- it is the tracked main process, or was found to belong before (pid and start time);
- its parent belongs, or its session is one of a process that belongs.
Nothing is limited here; ``sampling`` watches the use. No process is signalled by a bare number: a pidfd is opened
first and the identity checked behind it.
"""

from __future__ import annotations

import errno
import os
import signal

from .containment import MARKER, NOT_ENFORCED, SAMPLED, UNSET, OomCounts, Usage
from .process import open_pidfd, read_stat, same_process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..model import Limits, Service
    from .containment import Report

KILL_ROUNDS = 20  # scans within one ``kill``; what forks faster than that is met again by the agent's next call
ENVIRON_BYTES = 1 << 20  # more than ARG_MAX leaves for a marker anywhere but far behind

_STATE, _PPID, _PGRP, _SESSION, _STARTED = 0, 1, 2, 3, 19

Identity = tuple[int, int]  # pid, start time


class Process:
    """One line of a scan."""

    __slots__ = ("group", "parent", "pid", "session", "started", "state")

    def __init__(self, pid: int, fields: list[bytes]) -> None:
        self.pid = pid
        self.state = fields[_STATE]
        self.parent = int(fields[_PPID])
        self.group = int(fields[_PGRP])
        self.session = int(fields[_SESSION])
        self.started = int(fields[_STARTED])

    @property
    def alive(self) -> bool:
        return self.state not in (b"Z", b"X")


class TreeContainment:
    """``mode``: 'sampling' or 'none', for the report; ``code``: why there is no cgroup ('no-cgroup2', 'by-setting')."""

    kind = "tree"
    path = ""

    def __init__(self, instance: str, mode: str, code: str = "no-cgroup2", proc: str = "/proc") -> None:
        self._instance = instance
        self._mark = f"{MARKER}={instance}:".encode()
        self._mode = mode
        self._code = code
        self._proc = proc
        # Services that may have a live process: found by the last scan, or tracked since. None: not scanned yet. Who is
        # not among them has none, as nobody but this agent starts any: twenty starts cost one scan, not twenty.
        self._possible: set[str] | None = None
        self._owners: dict[Identity, str] = {}  # who belonged at the last scan, or is tracked
        self._sessions: dict[int, str] = {}  # sessions whose leader belongs, or did while the session lasts
        self._verdicts: dict[Identity, str] = {}  # what an environment said; '' for strangers

    def open(self) -> None:
        """Nothing to make."""

    def set_total(self, memory: int, cpu: int) -> Report:  # noqa: ARG002 - the interface's
        """Nothing holds the total on cpu; sampling watches the one on memory."""
        return {"memory": self._watched(), "cpu": (NOT_ENFORCED, self._code)}

    def prepare(self, service: Service) -> Report:
        """Raises OSError(EBUSY) while processes of an earlier start are alive."""
        if self.populated(service.name):
            raise OSError(errno.EBUSY, f"processes of {service.name} are still alive")
        return self._report(service.limits)

    def resize(self, service: Service) -> Report:
        """Limits are the sampler's; this is the report on them."""
        return self._report(service.limits)

    def entry(self, name: str) -> int:  # noqa: ARG002 - the interface's
        """There is nothing to join."""
        return -1

    def marker(self, name: str) -> tuple[tuple[str, str], ...]:
        """What every process of the service inherits in its environment."""
        return ((MARKER, f"{self._instance}:{name}"),)

    def track(self, name: str, pid: int, started: int) -> None:
        """A process that is still the one meant counts from now on, and with it the session it leads."""
        if self._possible is not None:
            self._possible.add(name)
        if same_process(pid, started, self._proc):
            self._owners[pid, started] = name

    def watch(self, name: str) -> int:  # noqa: ARG002 - the interface's
        """No kernel object tells; poll ``populated``."""
        return -1

    def populated(self, name: str) -> bool:
        """Is any process of it alive? One scan answers for every service found empty in it."""
        return bool(self._find(name))

    def members(self, name: str) -> list[int]:
        """Live processes, by pid."""
        return sorted(process.pid for process in self._find(name))

    def population(self) -> dict[str, list[int]]:
        """One scan for all."""
        return {name: sorted(process.pid for process in found) for name, found in self._scan().items()}

    def kill(self, name: str) -> None:
        """SIGKILL until a scan finds nobody that has not got one yet."""
        done: set[Identity] = set()
        for turn in range(KILL_ROUNDS):
            fresh = [process for process in self._find(name) if (process.pid, process.started) not in done]
            if not fresh:
                return
            for process in fresh:
                self._kill_one(process, whole_group=turn > 0)
                done.add((process.pid, process.started))

    def remove(self, name: str) -> bool:
        """Forget the service unless someone is alive."""
        return not self.populated(name)

    def usage(self, name: str | None) -> Usage:  # noqa: ARG002 - the interface's
        """Not counted here: the sampler counts."""
        return Usage()

    def oom_counts(self, name: str) -> OomCounts:  # noqa: ARG002 - the interface's
        """No kernel counter exists per process tree."""
        return OomCounts()

    def oom_cause(self, name: str) -> str:  # noqa: ARG002 - the interface's
        """Unknown here; an exit by SIGKILL speaks for itself."""
        return ""

    def names(self) -> list[str]:
        """Services of this instance with a live process."""
        return sorted(self._scan())

    def owns(self, name: str, pid: int) -> bool:
        """Without a scan of everything: this process, then its ancestors."""
        own = os.getpid()
        for _ in range(64):  # deeper than any sane tree, and an end should the numbers ever form a ring
            fields = read_stat(pid, self._proc)
            if fields is None or pid in (own, 1):
                return False
            process = Process(pid, fields)
            found = self._claim(process, own)
            if found:
                return found == name
            pid = process.parent
        return False

    def close(self, *, remove: bool) -> None:
        """Nothing is held."""

    # -- scanning ------------------------------------------------------------------------------------------------------

    def _find(self, name: str) -> list[Process]:
        if self._possible is not None and name not in self._possible:
            return []
        return self._scan().get(name, [])

    def _scan(self) -> dict[str, list[Process]]:
        """Live members by service, from one walk over /proc; refreshes what is remembered."""
        own = os.getpid()
        table: dict[int, Process] = {}
        for entry in os.listdir(self._proc):
            if entry.isdigit():
                fields = read_stat(int(entry), self._proc)
                if fields is not None:
                    table[int(entry)] = Process(int(entry), fields)
        table.pop(own, None)
        owner: dict[int, str] = {}
        for process in table.values():
            name = self._claim(process, own)
            if name:
                owner[process.pid] = name
        self._spread(table, owner)
        found: dict[str, list[Process]] = {}
        for pid, name in owner.items():
            if table[pid].alive:
                found.setdefault(name, []).append(table[pid])
        seen = {(process.pid, process.started) for process in table.values()}
        self._verdicts = {identity: said for identity, said in self._verdicts.items() if identity in seen}
        self._owners = {(pid, table[pid].started): name for pid, name in owner.items()}
        self._possible = set(found)
        return found

    def _claim(self, process: Process, own: int) -> str:
        """Whose the process is by itself, without regard to its relatives; '' nobody's."""
        identity = (process.pid, process.started)
        name = self._owners.get(identity)
        if name is None:
            name = self._verdicts.get(identity)
        if name is None:
            name, final = self._read_mark(process)
            # A child of this process will yet execute its program, and only then carries the marker.
            if final and process.parent != own:
                self._verdicts[identity] = name
        return name

    def _read_mark(self, process: Process) -> tuple[str, bool]:
        """The service named in its environment or '', and whether that is its last word."""
        if process.pid == 2 or process.parent == 2:  # kernel threads have no environment
            return "", True
        try:
            fd = os.open(f"{self._proc}/{process.pid}/environ", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return "", False
        try:
            text = os.read(fd, ENVIRON_BYTES)
        except OSError:
            return "", False
        finally:
            os.close(fd)
        for entry in text.split(b"\0"):
            if entry.startswith(self._mark):
                return entry[len(self._mark) :].decode(errors="replace"), True
        return "", bool(text)  # it is empty in the middle of execve

    def _spread(self, table: dict[int, Process], owner: dict[int, str]) -> None:
        """Give descendants and sessions to the service of their parent or leader, in place."""
        sessions = {  # a leader that is there but belongs to nobody has got the number of one that is gone
            session: name for session, name in self._sessions.items() if session not in table or session in owner
        }
        growing = True
        while growing:
            growing = False
            for process in table.values():
                found = owner.get(process.pid) or owner.get(process.parent) or sessions.get(process.session)
                if not found:
                    continue
                if process.pid not in owner:
                    owner[process.pid] = found
                    growing = True
                if process.session == process.pid and process.pid not in sessions:
                    sessions[process.pid] = found
                    growing = True
        lasting = {process.session for process in table.values()}
        self._sessions = {session: name for session, name in sessions.items() if session in lasting}

    def _kill_one(self, process: Process, *, whole_group: bool) -> None:
        pidfd = open_pidfd(process.pid, process.started, self._proc)
        if pidfd < 0:
            return
        try:
            # A group dies in one step, so not even a fork bomb escapes; a group lies within one session, and that must
            # be the service's. The member just verified keeps the number from being anyone else's.
            if whole_group and process.session in self._sessions and os.getpgid(process.pid) == process.group:
                os.killpg(process.group, signal.SIGKILL)
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        except ProcessLookupError:
            pass
        finally:
            os.close(pidfd)

    # -- report --------------------------------------------------------------------------------------------------------

    def _watched(self) -> tuple[str, str]:
        return (SAMPLED, self._code) if self._mode == "sampling" else (NOT_ENFORCED, self._code)

    def _report(self, limits: Limits) -> Report:
        def unless(unset: bool, held: tuple[str, str]) -> tuple[str, str]:
            return (UNSET, "") if unset else held

        refused = (NOT_ENFORCED, self._code)
        io = (limits.io_weight, limits.io_read_bps, limits.io_write_bps)
        return {
            "memory": unless(limits.memory_limit is None, self._watched()),
            "swap": unless(limits.swap_limit is None, refused),
            "cpu": unless(limits.cpu_limit is None and not limits.cpu_request, refused),
            "pids": unless(limits.pids_limit is None, self._watched()),
            "io": unless(io == (None, None, None), refused),
            "oom_group": refused,
        }
