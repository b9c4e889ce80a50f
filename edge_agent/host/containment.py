"""What holds a service: the interface that cgroups, plain process trees and the tests' fake all keep.

An enforcement report maps a resource of ``model.RESOURCES`` to ``(kind, code)``. Kind is 'enforced' (the kernel took
the limit and gave it back when read), 'sampled', 'not enforced' or 'unset' (no limit was asked for); code says why not.
"""

from __future__ import annotations

from ..records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from ..model import Service

    Report = dict[str, tuple[str, str]]

MARKER = "EDGE_AGENT_UNIT"
"""Environment variable by which a process of a tree-contained service is recognised: ``<instance>:<name>``."""

ENFORCED, SAMPLED, NOT_ENFORCED, UNSET = "enforced", "sampled", "not enforced", "unset"

OWN, TOTAL, MACHINE = "own", "total", "machine"
"""Which memory limit had a service killed."""


class Usage(Record):
    """What is used now; None where nothing counts it."""

    memory: int | None = None  # bytes, page cache included, as memory.current
    cpu_usec: int | None = None  # microseconds of CPU time since the containment was made
    pids: int | None = None


class OomCounts(Record):
    """Counters of memory.events(.local), cgroup-v2 documentation; they only grow while a cgroup exists."""

    oom: int = 0  # times the service's own limit, or one below it, was out of memory
    kills: int = 0  # its processes killed by any out-of-memory killer
    group_kills: int = 0  # times memory.oom.group had all of it killed
    total: int = 0  # times the total on all services was out of memory


if TYPE_CHECKING:

    class Containment(Protocol):
        """Holds services by name. No method waits for a process.

        ``open``, ``prepare`` and ``entry`` raise OSError when the host refuses; every other method takes 'gone' as an
        answer. Names are service names: one path component, checked by the profile.
        """

        kind: str  # 'cgroup2' | 'tree'
        path: str  # the delegated directory; '' for a tree

        def open(self) -> None:
            """Make the place for services. Needed once before anything else; services from before stay untouched."""

        def set_total(self, memory: int, cpu: int) -> Report:
            """Limit all services together to ``memory`` bytes and ``cpu`` milli-cores; reports 'memory' and 'cpu'."""

        def prepare(self, service: Service) -> Report:
            """Make the service's place anew, empty, and set its limits. Raises OSError(EBUSY) while it is populated."""

        def resize(self, service: Service) -> Report:
            """Set the limits of a running (or adopted) service in place."""

        def entry(self, name: str) -> int:
            """A descriptor to which a new process writes b"0" to join; the caller closes it. -1: nothing to write."""

        def marker(self, name: str) -> tuple[tuple[str, str], ...]:
            """Environment that every process started for this service must carry."""

        def track(self, name: str, pid: int, started: int) -> None:
            """The service's main process (launched or adopted), with its start time in clock ticks."""

        def watch(self, name: str) -> int:
            """A descriptor that gives EPOLLPRI when ``populated`` may have changed; the caller closes it.

            It goes on giving EPOLLPRI until ``populated`` is asked. -1: poll ``populated`` instead.
            """

        def populated(self, name: str) -> bool:
            """Is any process of the service alive? Zombies are not."""

        def members(self, name: str) -> list[int]:
            """Process ids of the service, now."""

        def population(self) -> dict[str, list[int]]:
            """Members of every service that has any, at the cost of one look."""

        def kill(self, name: str) -> None:
            """SIGKILL every process of the service. Returns before they are gone; safe to repeat."""

        def remove(self, name: str) -> bool:
            """Give the place back. True: gone; False: processes are still in it."""

        def usage(self, name: str | None) -> Usage:
            """What one service uses; None: all of them together."""

        def oom_counts(self, name: str) -> OomCounts:
            """The counters now, zeros where nothing counts."""

        def oom_cause(self, name: str) -> str:
            """Whose limit killed processes of it since it was prepared or last asked: '' | own | total | machine."""

        def names(self) -> list[str]:
            """Services that have a place here, from this agent or one before it."""

        def owns(self, name: str, pid: int) -> bool:
            """Is ``pid`` a process of this service at this moment?"""

        def close(self, *, remove: bool) -> None:
            """Let go; with ``remove``, also take away every empty place, so that nothing is left on the machine."""
