"""Limits without a kernel that holds them: measure each service's whole tree with psutil, and say who is over.

Imported only where cgroups do not hold memory or pids: psutil costs the resident 3 MiB. The decision is ``over``, pure.
"""

from __future__ import annotations

import psutil

from ..model import OverLimit
from ..records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..model import Service
    from .containment import Containment

INTERVAL = 2.0  # seconds between samples
CONFIRM = 2  # samples in a row over a limit before it is acted upon: a peak shorter than that is let pass
MIB = 1024 * 1024


class Sample(Record):
    """What one service's processes used together."""

    memory: int = 0  # bytes: RSS, or PSS where RSS is over a limit
    pids: int = 0  # tasks, threads counted as the pids controller does
    cpu_usec: int = 0  # microseconds of its living processes


class Bound(Record):
    """What a service may use, for ``over``."""

    name: str
    memory_request: int
    memory_limit: int | None
    pids_limit: int | None
    importance: int


def bound(service: Service) -> Bound:
    """The part of a service's limits that can be sampled."""
    limits = service.limits
    return Bound(service.name, limits.memory_request, limits.memory_limit, limits.pids_limit, service.importance)


def over(
    samples: dict[str, Sample], bounds: list[Bound], total: int, previous: dict[str, int]
) -> tuple[list[OverLimit], dict[str, int]]:
    """Who has been over a limit for CONFIRM samples in a row, and the counts to pass as ``previous`` next time.

    Key '' of the counts stands for the total in bytes. When the sum is over it, the least important service that uses
    more than its request has to go (of equals the one furthest above it); one at a time, and none when somebody goes
    for a limit of its own, as that may be enough.
    """
    counts: dict[str, int] = {}
    result = []
    for limit in bounds:
        reason = _why(samples.get(limit.name), limit)
        if reason:
            counts[limit.name] = previous.get(limit.name, 0) + 1
            if counts[limit.name] >= CONFIRM:
                result.append(OverLimit(limit.name, reason))
                del counts[limit.name]
    used = sum(sample.memory for sample in samples.values())
    if used > total:
        counts[""] = previous.get("", 0) + 1
        if counts[""] >= CONFIRM and not result:
            victim = _victim(samples, bounds)
            if victim is not None:
                text = f"all services use {_mib(used)} of {_mib(total)}, and it {_mib(samples[victim.name].memory)}"
                result.append(
                    OverLimit(victim.name, f"{text}, more than the {_mib(victim.memory_request)} it requested")
                )
                del counts[""]
    return result, counts


class Sampler:
    """Measures by a containment's members. ``sample`` once per INTERVAL; ``usage`` is from the last one."""

    def __init__(self, containment: Containment) -> None:
        self.usage: dict[str, Sample] = {}
        self._containment = containment
        self._counts: dict[str, int] = {}

    def sample(self, services: list[Service], total: int) -> list[OverLimit]:
        """Measure the running ``services``; those to be restarted. ``total``: bytes for all of them."""
        bounds = [bound(service) for service in services]
        members = self._containment.population()
        self.usage = {limit.name: measure(members.get(limit.name, [])) for limit in bounds}
        crowded = sum(sample.memory for sample in self.usage.values()) > total
        for limit in bounds:
            sample = self.usage[limit.name]
            if crowded or (limit.memory_limit is not None and sample.memory > limit.memory_limit):
                # RSS counts a page once per process that maps it; PSS shares it out, but costs a walk of the mappings.
                memory = proportional(members.get(limit.name, []))
                self.usage[limit.name] = sample._replace(memory=min(sample.memory, memory))
        result, self._counts = over(self.usage, bounds, total, self._counts)
        return result


def measure(pids: list[int]) -> Sample:
    """Sum over the processes; those that vanish meanwhile count nothing."""
    memory = tasks = 0
    cpu = 0.0
    for pid in pids:
        try:
            one = psutil.Process(pid)
            with one.oneshot():
                resident, threads, times = one.memory_info().rss, one.num_threads(), one.cpu_times()
        except psutil.Error:
            continue
        memory += resident
        tasks += threads
        cpu += times.user + times.system
    return Sample(memory, tasks, round(cpu * 1_000_000))


def proportional(pids: list[int]) -> int:
    """The same by PSS, bytes; RSS for a process whose mappings may not be read."""
    memory = 0
    for pid in pids:
        try:
            one = psutil.Process(pid)
            try:
                memory += one.memory_full_info().pss
            except psutil.AccessDenied:
                memory += one.memory_info().rss
        except psutil.Error:
            continue
    return memory


def _why(sample: Sample | None, limit: Bound) -> str:
    if sample is None:
        return ""
    if limit.memory_limit is not None and sample.memory > limit.memory_limit:
        return f"used {_mib(sample.memory)} of memory, its limit is {_mib(limit.memory_limit)}"
    if limit.pids_limit is not None and sample.pids > limit.pids_limit:
        return f"had {sample.pids} tasks, its limit is {limit.pids_limit}"
    return ""


def _victim(samples: dict[str, Sample], bounds: list[Bound]) -> Bound | None:
    """Never one within its request: that much is guaranteed, however unimportant it is."""
    above = [limit for limit in bounds if limit.name in samples and samples[limit.name].memory > limit.memory_request]
    return min(
        above,
        key=lambda limit: (limit.importance, limit.memory_request - samples[limit.name].memory, limit.name),
        default=None,
    )


def _mib(size: int) -> str:
    return f"{size / MIB:.1f} MiB"
