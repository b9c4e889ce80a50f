"""Containment by cgroups v2: ``<root>/services/<NAME>`` for each service; the total is on ``services``.

``root`` is a directory delegated to the agent (``hierarchy.find``). Of its own attributes only cgroup.subtree_control
is written, as https://systemd.io/CGROUP_DELEGATION allows. When this process itself is in ``root`` it moves to
``<root>/agent``, as a cgroup with processes cannot hand controllers down; when it is elsewhere it stays there.
"""

from __future__ import annotations

import errno
import os
import signal

from . import limits as held
from .cgroupfs import Cgroup
from .containment import MACHINE, OWN, TOTAL, OomCounts, Usage
from .hierarchy import AGENT, SERVICES, memory_disabled, read_text
from .process import open_pidfd, same_process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..model import Service
    from .containment import Report


class CgroupContainment:
    """``io_device``: 'major:minor' of the disk with the services' data, for io.max and io weights; '' there is none.

    ``sampled``: what no controller holds is watched by the sampler; it only changes what reports say. ``missing`` tells
    after ``open`` which of the controllers cpu, io, memory and pids are not there, each with a code why.
    """

    kind = "cgroup2"

    def __init__(
        self, root: str, *, io_device: str = "", sampled: bool = True, proc: str = "/proc", sys: str = "/sys"
    ) -> None:
        self.missing: dict[str, str] = {}
        self.path = root
        self._device = io_device
        self._sampled = sampled
        self._proc = proc
        self._sys = sys
        self._io = held.Io(io_device)
        self._cpus = os.cpu_count() or 1
        self._held: dict[str, Cgroup] = {}
        # A forked child joins by itself, as the kernel makes whoever writes cgroup.procs wait for a grace period of
        # RCU. Until it has joined, it is known by its identity.
        self._joining: dict[str, set[tuple[int, int]]] = {}
        self._counts: dict[str, OomCounts] = {}  # when the service was prepared, or its last kill was attributed
        self._root: Cgroup
        self._services: Cgroup

    def open(self) -> None:
        """Get out of the way if need be, and hand the controllers down to services/. Raises OSError."""
        self._root = Cgroup(self.path)
        self._services = self._root.make(SERVICES)
        if os.getpid() in self._root.own_procs():
            agent = self._root.make(AGENT)
            _move_in(agent)
            agent.close()
        available = self._root.controllers
        for controller in held.CONTROLLERS:
            if controller not in available:
                self.missing[controller] = self._why_absent(controller)
                continue
            try:
                self._root.enable(controller)
                self._services.enable(controller)
            except OSError as error:
                self.missing[controller] = held.refusal(error)
        if "io" not in self.missing:
            self._io = held.Io(self._device, self._weight_attribute())

    def set_total(self, memory: int, cpu: int) -> Report:
        """memory.max and cpu.max of services/."""
        failed = held.apply(self._services, held.total_settings(memory, cpu), fresh=False)
        return {name: held.judge(name, failed, self.missing, sampled=self._sampled) for name in ("memory", "cpu")}

    def prepare(self, service: Service) -> Report:
        """A new cgroup each time, so that its counters speak of this generation only."""
        name = service.name
        self._drop(name)
        if self._not_joined(name) or not self._services.remove(name):
            raise OSError(errno.EBUSY, f"processes of {name} are still in its cgroup")
        cgroup = self._held[name] = self._services.make(name)
        wanted = held.settings(service.limits, self._io, self._cpus)
        failed = held.apply(cgroup, self._without_missing(wanted), fresh=True)
        self._counts[name] = OomCounts(total=self._total_ooms())
        return held.report(service.limits, failed, self.missing, self._io, sampled=self._sampled)

    def resize(self, service: Service) -> Report:
        """Every limit anew, also those no longer asked for. A memory.max below what is in use reclaims, then kills."""
        cgroup = self._get(service.name)
        failed: dict[str, str] = {}
        if cgroup is not None:
            wanted = self._without_missing(held.settings(service.limits, self._io, self._cpus))
            if held.shrinking(cgroup, service.limits):
                wanted.sort(key=lambda setting: setting.attribute != "memory_low")
            failed = held.apply(cgroup, wanted, fresh=False)
        return held.report(service.limits, failed, self.missing, self._io, sampled=self._sampled)

    def cgroup(self, name: str | None) -> Cgroup | None:
        """The cgroup of a service, or of all (None); None when it has gone."""
        return self._services if name is None else self._get(name)

    @property
    def io_device(self) -> str:
        """'major:minor' of the disk that io.max is about, '' without the controller."""
        return "" if "io" in self.missing else self._device

    def entry(self, name: str) -> int:
        """cgroup.procs, for the child to write to."""
        cgroup = self._get(name)
        if cgroup is None:
            raise OSError(errno.ENOENT, f"the cgroup of {name} is gone")
        return cgroup.entry()

    def marker(self, name: str) -> tuple[tuple[str, str], ...]:  # noqa: ARG002 - the interface's
        """The cgroup itself marks its processes."""
        return ()

    def track(self, name: str, pid: int, started: int) -> None:
        """Killed with the service, should it not have joined its cgroup yet."""
        self._joining.setdefault(name, set()).add((pid, started))

    def watch(self, name: str) -> int:
        """A duplicate of the descriptor by which ``populated`` reads cgroup.events."""
        cgroup = self._get(name)
        fd = -1 if cgroup is None else cgroup.events_fd()
        return -1 if fd < 0 else os.dup(fd)

    def populated(self, name: str) -> bool:
        """cgroup.events counts live processes, in nested cgroups too."""
        cgroup = self._get(name)
        return (cgroup is not None and cgroup.populated()) or bool(self._not_joined(name))

    def members(self, name: str) -> list[int]:
        """From cgroup.procs, nested cgroups included."""
        cgroup = self._get(name)
        found = set() if cgroup is None else set(cgroup.procs())
        return sorted(found.union(pid for pid, _ in self._not_joined(name)))

    def population(self) -> dict[str, list[int]]:
        """cgroup.procs of each."""
        return {name: members for name in self.names() if (members := self.members(name))}

    def kill(self, name: str) -> None:
        """cgroup.kill, or what comes nearest to it."""
        for pid, started in self._not_joined(name):
            pidfd = open_pidfd(pid, started)
            if pidfd >= 0:
                try:
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                except ProcessLookupError:
                    pass
                os.close(pidfd)
        cgroup = self._get(name)
        if cgroup is not None:
            cgroup.kill()

    def remove(self, name: str) -> bool:
        """Nested cgroups first. A child that wanted to join it now cannot, and exits."""
        if self._not_joined(name) or not self._services.remove(name):
            return False
        self._drop(name)
        self._counts.pop(name, None)
        return True

    def usage(self, name: str | None) -> Usage:
        """From memory.current, cpu.stat and pids.current."""
        cgroup = self.cgroup(name)
        if cgroup is None:
            return Usage()
        found: dict[str, int | None] = {"memory": None, "cpu_usec": None, "pids": None}
        for field, attribute in (("memory", "memory_current"), ("cpu_usec", "cpu_stat"), ("pids", "pids_current")):
            try:
                value = getattr(cgroup, attribute)
            except (OSError, ValueError):
                continue
            found[field] = value.get("usage_usec") if isinstance(value, dict) else value
        return Usage(**found)

    def oom_counts(self, name: str) -> OomCounts:
        """memory.events of the service, which counts cgroups below it too, and the total's own memory.events.local."""
        events = _events(self._get(name), "memory_events")
        kills, groups = events.get("oom_kill", 0), events.get("oom_group_kill", 0)
        return OomCounts(events.get("oom", 0), kills, groups, self._total_ooms())

    def oom_cause(self, name: str) -> str:
        """By whose memory.events grew: the service's own oom, else the total's, else nobody's here (the machine's)."""
        before = self._counts.get(name, OomCounts())
        now = self.oom_counts(name)
        if now.kills <= before.kills and now.group_kills <= before.group_kills:
            return ""
        self._counts[name] = now
        # An incident of the total explains its victims only; a later kill of another service is not its doing.
        for other, counts in self._counts.items():
            if other != name and self.oom_counts(other).kills == counts.kills:
                self._counts[other] = counts._replace(total=now.total)
        if now.oom > before.oom:
            return OWN
        return TOTAL if now.total > before.total else MACHINE

    def names(self) -> list[str]:
        """The directories below services/."""
        return self._services.children()

    def owns(self, name: str, pid: int) -> bool:
        """Is it listed there now?"""
        return pid in self.members(name)

    def close(self, *, remove: bool) -> None:
        """With ``remove``, also undo ``open``: this process goes back to where it was. A second call does nothing."""
        if self._root.fd < 0:
            return
        for name in list(self._held):
            self._drop(name)
        if remove:
            for name in self.names():
                self._services.remove(name)
            if self._root.remove(SERVICES):
                self._leave()
        self._services.close()
        self._root.close()

    # -- details -------------------------------------------------------------------------------------------------------

    def _leave(self) -> None:
        try:
            for controller in self._root.subtree_control:
                self._root.disable(controller)
            agent = self._root.child(AGENT)
            if agent is not None:
                if os.getpid() in agent.own_procs():
                    _move_in(self._root)
                agent.close()
                self._root.remove(AGENT)
        except OSError:
            pass  # systemd removes the unit's cgroup with all in it once the process has ended

    def _get(self, name: str) -> Cgroup | None:
        """The held cgroup, or the one an earlier agent left."""
        cgroup = self._held.get(name)
        if cgroup is None:
            cgroup = self._services.child(name)
            if cgroup is not None:
                self._held[name] = cgroup
        return cgroup

    def _not_joined(self, name: str) -> set[tuple[int, int]]:
        """Tracked processes that live but may not be in the cgroup yet; forgets the others."""
        joining = self._joining.get(name)
        if not joining:
            return set()
        cgroup = self._get(name)
        inside = set() if cgroup is None else set(cgroup.procs())
        left = {(pid, started) for pid, started in joining if pid not in inside and same_process(pid, started)}
        if left:
            self._joining[name] = left
        else:
            del self._joining[name]
        return left

    def _drop(self, name: str) -> None:
        cgroup = self._held.pop(name, None)
        if cgroup is not None:
            cgroup.close()

    def _without_missing(self, wanted: list[held.Setting]) -> list[held.Setting]:
        return [setting for setting in wanted if held.CONTROLLER[setting.resource] not in self.missing]

    def _total_ooms(self) -> int:
        return _events(self._services, "memory_events_local").get("oom", 0)

    def _why_absent(self, controller: str) -> str:
        disabled = controller == "memory" and memory_disabled(read_text(f"{self._proc}/cmdline"))
        return "memory-disabled" if disabled else "no-controller"

    def _weight_attribute(self) -> str:
        """Weights have an effect under BFQ, or where io.cost is on for the disk; the file alone says nothing."""
        if not self._device:
            return ""
        disk = os.path.realpath(f"{self._sys}/dev/block/{self._device}")
        if "[bfq]" in read_text(f"{disk}/queue/scheduler"):
            return "io_bfq_weight"
        for line in read_text(f"{self._sys}/fs/cgroup/io.cost.qos").splitlines():
            device, *words = line.split()
            if device == self._device and "enable=1" in words:
                return "io_weight"
        return ""


def _move_in(cgroup: Cgroup) -> None:
    fd = cgroup.entry()
    try:
        os.write(fd, b"0")
    finally:
        os.close(fd)


def _events(cgroup: Cgroup | None, attribute: str) -> dict[str, int]:
    try:
        return {} if cgroup is None else getattr(cgroup, attribute)
    except (OSError, ValueError):
        return {}
