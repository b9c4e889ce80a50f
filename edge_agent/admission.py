"""Which services fit a total: the sums, the order of sacrifice, and a refusal that says what to do. Pure.

The rule: the requests of all services plus the agent's reserve stay within the total, for memory and for cpu alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from heapq import heapify, heappop, heappush

from . import text
from .model import ESSENTIAL, Service
from .records import Record


class BudgetError(Exception):
    """A profile does not make a plan for this machine.

    ``problems``: one sentence each, ``cannot X: why; fix: Y``. ``table``: who asks for what, '' where sums are not
    the problem. ``switch_off``: names that would have to go, least important first; empty when that would not help.
    ``notes``: how the total came about, where it is not the one asked for.
    """

    def __init__(
        self,
        problems: Iterable[str],
        table: str = "",
        switch_off: tuple[str, ...] = (),
        notes: tuple[str, ...] = (),
    ) -> None:
        self.problems = tuple(problems)
        self.table = table
        self.switch_off = switch_off
        self.notes = notes
        parts = ["\n".join(self.problems), table, "\n".join(f"note: {note}" for note in notes)]
        super().__init__("\n\n".join(part for part in parts if part))


class Total(Record):
    """What there is to give, the agent's reserve included."""

    memory: int  # bytes
    cpu: int  # milli-cores
    memory_reserve: int = 0  # bytes of ``memory`` for the agent
    cpu_reserve: int = 0

    def over(self, services: Iterable[Service]) -> tuple[int, int]:
        """By how much the services and the reserve exceed the total: bytes, milli-cores; 0 where they fit."""
        memory, cpu = requested(services)
        return max(0, memory + self.memory_reserve - self.memory), max(0, cpu + self.cpu_reserve - self.cpu)


class Drop(Record):
    """A service given up so that the others fit."""

    service: Service
    because_of: str = ""  # the dropped service it depends on; '' when it was chosen itself


def requested(services: Iterable[Service]) -> tuple[int, int]:
    """Sum of the requests: bytes, milli-cores."""
    memory = cpu = 0
    for service in services:
        memory += service.limits.memory_request
        cpu += service.limits.cpu_request
    return memory, cpu


def in_start_order(services: Sequence[Service]) -> tuple[Service, ...]:
    """Dependencies before dependants; among those that could come next the most important, then in the order given.

    Names outside of ``services`` are ignored. A cycle leaves its members and their dependants out: the caller
    compares lengths.
    """
    names = {service.name for service in services}
    missing = [len(set(service.depends_on) & names) for service in services]
    dependants: dict[str, list[int]] = {}
    for index, service in enumerate(services):
        for name in set(service.depends_on) & names:
            dependants.setdefault(name, []).append(index)
    free = [(-service.importance, index) for index, service in enumerate(services) if not missing[index]]
    heapify(free)
    ordered = []
    while free:
        _, index = heappop(free)
        ordered.append(services[index])
        for dependant in dependants.get(services[index].name, ()):
            missing[dependant] -= 1
            if not missing[dependant]:
                heappush(free, (-services[dependant].importance, dependant))
    return tuple(ordered)


def find_cycle(services: Sequence[Service]) -> tuple[str, ...]:
    """One cycle of depends_on, its first name repeated at its end; () when there is none."""
    ordered = {service.name for service in in_start_order(services)}
    stuck = {service.name: service for service in services if service.name not in ordered}
    walk: list[str] = list(stuck)[:1]
    while walk:
        # Whatever is stuck depends on something stuck, so the walk goes on until it meets itself.
        following = next(name for name in stuck[walk[-1]].depends_on if name in stuck)
        if following in walk:
            return (*walk[walk.index(following) :], following)
        walk.append(following)
    return ()


def choose_drops(services: Sequence[Service], total: Total) -> tuple[list[Drop], list[Service]]:
    """Services to drop so that the rest fits, in that order, and the rest, in the order given.

    What depends on a dropped service is dropped with it. A service therefore counts as important as the most
    important one that depends on it, and nothing is taken from under an essential. The least important goes first,
    of equals the one that asks for most of what is short, of the same the one written last. What asks for nothing
    that is short stays. The rest may still not fit: then nothing more may go. ``services`` must be free of cycles.
    """
    kept = {service.name: service for service in services}
    place = {service.name: index for index, service in enumerate(services)}
    order = [service.name for service in reversed(in_start_order(services))]
    drops: list[Drop] = []
    over = total.over(services)
    while any(over):
        ranks = _ranks(kept, order)
        candidates = [
            (ranks[name], -share, -place[name], name)
            for name, service in kept.items()
            if ranks[name] < ESSENTIAL and (share := _share(service, over, total))
        ]
        if not candidates:
            break
        chosen = min(candidates)[-1]
        drops.append(Drop(kept.pop(chosen)))
        gone = {chosen}
        for name in reversed(order):
            if name in kept and not gone.isdisjoint(kept[name].depends_on):
                gone.add(name)
        drops += [Drop(kept.pop(name), chosen) for name in place if name in gone and name != chosen]
        over = total.over(kept.values())
    return drops, list(kept.values())


def refusal(
    profile: str, services: Sequence[Service], total: Total, most: Total, notes: tuple[str, ...] = ()
) -> BudgetError:
    """The error for services that do not fit ``total``: by how much, the table, and what to switch off.

    ``most`` is the largest total the machine could give, so that nobody is told to raise what is at its end.
    """
    over = total.over(services)
    raises = (not over[0] or total.memory < most.memory) and (not over[1] or total.cpu < most.cpu)
    or_raise = ", or raise the total (deployment.resources)" if raises else ""
    why = f"its services and the agent together ask for more than the total by {_amounts(*over)}"
    drops, rest = choose_drops(services, total)
    names = tuple(drop.service.name for drop in drops)
    short = total.over(rest)
    if any(short):
        if names:
            why += f", and without {', '.join(names)} still by {_amounts(*short)}"
        fix = f"lower the requests of the essential services and of what they depend on{or_raise}"
        names = ()
    else:
        fix = f"switch off {', '.join(names)} (--fit does that), or lower requests{or_raise}"
    problem = f"cannot admit profile '{profile}': {why}; fix: {fix}"
    return BudgetError((problem,), _table(services, total), names, notes)


def _amounts(memory: int, cpu: int) -> str:
    parts = ((memory, f"{text.size(memory)} of memory"), (cpu, f"{text.cores(cpu)} cores"))
    return " and ".join(part for amount, part in parts if amount)


def _ranks(services: Mapping[str, Service], order: Iterable[str]) -> dict[str, int]:
    """The importance of each service or, if higher, of what depends on it. ``order``: dependants first."""
    ranks = {name: service.importance for name, service in services.items()}
    for name in order:
        if name in services:
            for needed in services[name].depends_on:
                if needed in ranks:
                    ranks[needed] = max(ranks[needed], ranks[name])
    return ranks


def _share(service: Service, over: tuple[int, int], total: Total) -> int:
    """The larger of its shares of what is short. Both totals multiplied in: whole numbers that compare."""
    memory = service.limits.memory_request * max(1, total.cpu) if over[0] else 0
    cpu = service.limits.cpu_request * max(1, total.memory) if over[1] else 0
    return max(memory, cpu)


def _table(services: Sequence[Service], total: Total) -> str:
    memory, cpu = requested(services)
    over_memory, over_cpu = total.over(services)
    ranked = sorted(services, key=lambda service: -service.importance)
    rows = [
        (
            service.name,
            text.importance(service.importance),
            text.size(service.limits.memory_request),
            text.cores(service.limits.cpu_request),
        )
        for service in ranked
    ]
    rows += [
        ("(the agent)", "", text.size(total.memory_reserve), text.cores(total.cpu_reserve)),
        ("(together)", "", text.size(memory + total.memory_reserve), text.cores(cpu + total.cpu_reserve)),
        ("(total)", "", text.size(total.memory), text.cores(total.cpu)),
        ("(over)", "", text.size(over_memory or None), text.cores(over_cpu or None)),
    ]
    return "\n".join(text.table(("service", "importance", "memory", "cpu"), rows, "<<>>"))
