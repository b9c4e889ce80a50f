"""What ``/proc`` says about the supervisors' processes: memory, threads, wakeups, CPU time. Read-only.

Sources: proc(5), Documentation/filesystems/proc.rst, Documentation/scheduler/sched-stats.rst.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
KIB = 1024


@dataclass(frozen=True)
class Memory:
    """Sum over processes, bytes. PSS divides a page by the number of processes that map it."""

    pss: int
    rss: int
    private_dirty: int
    pss_anon: int


@dataclass(frozen=True)
class Activity:
    """Counters since each process started, summed over every thread of every process."""

    wakeups: int  # voluntary context switches: a thread went to sleep, so something had woken it
    cpu_seconds: float


def parse_rollup(text: str) -> dict[str, int]:
    """``smaps_rollup`` or ``status`` lines of the form ``Name: 12 kB``, as bytes by name."""
    found = {}
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if len(words) == 2 and words[1] == "kB" and words[0].isdigit():
            found[name] = int(words[0]) * KIB
    return found


def parse_parent(stat: str) -> int:
    """Field 4 of ``/proc/PID/stat``; the name in field 2 may hold spaces and parentheses."""
    return int(stat.rpartition(")")[2].split()[1])


def parse_voluntary(status: str) -> int:
    """``voluntary_ctxt_switches`` of ``/proc/PID/task/TID/status``."""
    for line in status.splitlines():
        if line.startswith("voluntary_ctxt_switches:"):
            return int(line.split()[1])
    raise ValueError("status has no voluntary_ctxt_switches")


def descends(parents: dict[int, int], root: int) -> set[int]:
    """``root`` and everything below it, from a map of PID to parent PID."""
    children: dict[int, list[int]] = {}
    for pid, parent in parents.items():
        children.setdefault(parent, []).append(pid)
    found: set[int] = set()
    queue = [root]
    while queue:
        pid = queue.pop()
        if pid not in found:
            found.add(pid)
            queue += children.get(pid, ())
    return found


def pids() -> list[int]:
    """Every process now."""
    return [int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit()]


def argv(pid: int) -> tuple[str, ...]:
    """Its command line; empty when the process is gone, a zombie or a kernel thread."""
    try:
        raw = (PROC / str(pid) / "cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return ()
    return tuple(raw.decode(errors="replace").split("\0")[:-1])


def tree(root: int) -> set[int]:
    """``root`` and its living descendants."""
    parents = {}
    for pid in pids():
        try:
            parents[pid] = parse_parent((PROC / str(pid) / "stat").read_text(errors="replace"))
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended while we read
    return descends(parents, root)


def memory(processes: Iterable[int]) -> Memory:
    """Memory of these processes together. Raises FileNotFoundError or ProcessLookupError when one is gone."""
    total = {"Pss": 0, "Rss": 0, "Private_Dirty": 0, "Pss_Anon": 0}
    for pid in processes:
        rollup = parse_rollup((PROC / str(pid) / "smaps_rollup").read_text())
        for name in total:
            total[name] += rollup[name]
    return Memory(total["Pss"], total["Rss"], total["Private_Dirty"], total["Pss_Anon"])


def _tasks(pid: int) -> list[Path]:
    return list((PROC / str(pid) / "task").iterdir())


def threads(processes: Iterable[int]) -> int:
    """Threads of these processes together."""
    return sum(len(_tasks(pid)) for pid in processes)


def activity(processes: Iterable[int]) -> Activity:
    """Counters of these processes together; schedstat counts CPU in nanoseconds, stat only in ticks of 10 ms."""
    wakeups, nanoseconds = 0, 0
    for pid in processes:
        for task in _tasks(pid):
            wakeups += parse_voluntary((task / "status").read_text())
            nanoseconds += int((task / "schedstat").read_text().split()[0])
    return Activity(wakeups, nanoseconds / 1e9)
