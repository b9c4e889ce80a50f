"""Counters read twice -> what went on in between: ``between(before, after)``. Pure.

Counters are cumulative, microseconds or bytes, as in the kernel's accounting/psi.rst and admin-guide/cgroup-v2.rst; a
look has shares of the time between, bytes, milli-cores, bytes per second, monotonic seconds.
"""

from __future__ import annotations

from .records import Record

SHORTEST, STALE, RARE = 0.05, 2.0, 15.0
"""Seconds between two readings: of less, shares would be noise; of more, they say nothing about now, and read as 0.
Where stalls are not measured readings are rare, and what is seen is a mean over more."""
TIGHT = 0.1
"""Share of the machine's memory: less available than that, and the stalls of the machine as a whole count. Otherwise
they are those of services at their own limits, which are in there too."""


class Raw(Record):
    """Counters of one cgroup."""

    memory: int = 0  # bytes now, memory.current
    cache: int = 0  # bytes of it that can be dropped at once: file pages
    memory_some: int = 0  # microseconds stalled
    memory_full: int = 0
    cpu: int = 0  # microseconds used
    cpu_some: int = 0
    io: int = 0  # bytes read and written
    io_some: int = 0
    limited: int = 0  # times that its own memory.max or memory.high stopped it
    throttled: int = 0  # microseconds its own cpu.max had it wait


class Machine(Record):
    """The machine as a whole."""

    memory_some: int = 0  # microseconds stalled
    memory_full: int = 0
    available: int = 0  # bytes, MemAvailable of proc_meminfo(5)
    memory: int = 0  # bytes, MemTotal
    swap_free: int = 0  # bytes
    disk: int = 0  # microseconds the disk was busy, where stalls are not measured


class Reading(Record):
    """Everything that is read at one time."""

    at: float
    machine: Machine = Machine()
    all: Raw | None = None  # of all services together; None: nothing counts them
    services: dict[str, Raw] = {}  # noqa: RUF012 - records are never changed
    total: int = 0  # bytes all services together may use
    psi: bool = False  # stalls are measured here


class Load(Record):
    """One running service as it was seen."""

    memory: int = 0  # bytes it holds
    cpu: int = 0  # milli-cores it used
    io: int = 0  # bytes per second it read and wrote
    memory_wait: float = 0.0  # share of the time in which some task of it waited for memory
    cpu_wait: float = 0.0  # for a processor, and not for its own limit
    io_wait: float = 0.0  # for a disk
    limited: int = 0  # times that its own memory limit stopped it since the look before, however long ago that was


class Look(Record):
    """The node as it was seen. ``some``: of the machine where little is available, or where nothing is known of the
    services; ``full``: of all services, and of the machine in these cases."""

    at: float
    some: float = 0.0  # share of the time in which some task waited for memory
    full: float = 0.0  # in which all did
    free: int = 0  # bytes of ``total`` that are unused; cache that can be dropped is unused
    total: int = 0  # bytes all services together may use
    available: int = 0  # bytes, MemAvailable
    machine: int = 0  # bytes of RAM
    swap: bool = False  # pages can be moved out, so memory.high slows down and does not stop
    psi: bool = True  # stalls are measured here
    loads: dict[str, Load] = {}  # noqa: RUF012 - records are never changed
    disk: float = 0.0  # share of the time in which the disk was busy; of use where stalls are not measured


NEW = Raw()
LEFT_OVER = 16 << 20
"""Bytes; less free swap than that is none."""


def between(before: Reading, after: Reading) -> Look:
    """The look at ``after.at``; without shares when ``before`` is no use for them."""
    elapsed = after.at - before.at
    fresh = SHORTEST <= elapsed < (STALE if after.psi else RARE)

    def share(later: int, earlier: int) -> float:
        return min(1.0, max(0.0, (later - earlier) / 1e6 / elapsed)) if fresh else 0.0

    def rate(later: int, earlier: int) -> float:
        return max(0.0, (later - earlier) / elapsed) if fresh else 0.0

    loads = {}
    for name, now in after.services.items():
        then = before.services.get(name, now)
        loads[name] = Load(
            now.memory,
            round(rate(now.cpu, then.cpu) / 1000),
            round(rate(now.io, then.io)),
            share(now.memory_some, then.memory_some),
            share(now.cpu_some - now.throttled, then.cpu_some - then.throttled),
            share(now.io_some, then.io_some),
            max(0, now.limited - before.services.get(name, NEW).limited),
        )
    all_now = after.all or Raw()
    all_then = before.all or all_now
    machine, earlier = after.machine, before.machine
    of_machine = after.all is None or machine.available < TIGHT * machine.memory
    used = all_now.memory - all_now.cache if all_now.memory else sum(load.memory for load in loads.values())
    return Look(
        at=after.at,
        some=share(machine.memory_some, earlier.memory_some) if of_machine else 0.0,
        full=max(
            share(machine.memory_full, earlier.memory_full) if of_machine else 0.0,
            share(all_now.memory_full, all_then.memory_full),
        ),
        free=max(0, after.total - used),
        total=after.total,
        available=machine.available,
        machine=machine.memory,
        swap=machine.swap_free > LEFT_OVER,
        psi=after.psi,
        loads=loads,
        disk=share(machine.disk, earlier.disk) if earlier.memory else 0.0,
    )
