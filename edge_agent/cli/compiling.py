"""A selection made a plan: the profile read, the machine looked at, the budget done."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from .. import budget, profile
from ..admission import BudgetError
from ..demand import Facts, Profile
from ..enforcement import EnforcementError
from ..host import facts as machine
from ..host.hierarchy import read_text
from ..model import TIMEKEEPER, Plan
from ..profile import ProfileError
from . import scope
from .context import Context
from .selection import Selection, words


def compile_selection(context: Context, selection: Selection, options: argparse.Namespace, facts: Facts) -> Plan:
    """The plan. Raises ProfileError, BudgetError, EnforcementError."""
    context.debug("profile by {}: {}", selection.origin, selection.config or selection.name)
    loaded = _load(context, options, selection.config, selection.name)
    if options.schedule:
        loaded = under(loaded, _load(context, options, options.schedule, None))
    context.debug("profile {} of {}, {} services", loaded.name, loaded.source, len(loaded.demands))
    plan = budget.compile_plan(loaded, facts, fit=options.fit)
    notes = tuple(_refusals(context, options, facts, loaded))
    return plan._replace(flags=words(options), notes=plan.notes + notes)


def _load(context: Context, options: argparse.Namespace, config: str | None, name: str | None) -> Profile:
    flags: dict[str, object] = {}
    if options.enforcement:
        flags["enforcement"] = options.enforcement
    if options.dev:
        flags["dev"] = True
    return profile.load(config=config, name=name, flags=flags, environ=context.environ, directories=context.directories)


def under(loaded: Profile, owner: Profile) -> Profile:
    """The profile with the schedule of another, whose timekeeper goes on: its process is the same in both."""
    if not owner.schedule:
        return loaded._replace(
            not_acted_on=(*loaded.not_acted_on, f"--schedule: profile {owner.name} has no schedule any more")
        )
    keeper = tuple(demand for demand in owner.demands if demand.bundled and demand.service.name == TIMEKEEPER)
    others = tuple(demand for demand in loaded.demands if demand.service.name != TIMEKEEPER)
    notes = loaded.not_acted_on
    if loaded.schedule:
        notes = (*notes, f"schedule: this profile's own, while that of {owner.name} is in force")
    return loaded._replace(demands=others + keeper, schedule=owner.schedule, not_acted_on=notes)


def _refusals(context: Context, options: argparse.Namespace, facts: Facts, home: Profile) -> Iterator[str]:
    """What would keep a scheduled switch from happening if it were due now: said while somebody reads it."""
    for entry in home.schedule:
        if not entry.profile:
            continue
        try:
            target = _load(context, options, None, entry.profile)
            budget.compile_plan(under(target, home) if entry.is_window else target, facts, fit=options.fit)
        except (ProfileError, BudgetError, EnforcementError) as error:
            why = str(error).splitlines()[0]
            yield f"schedule {entry.name}: profile {entry.profile} would be refused now: {why}"


def look(context: Context, agent: int | None) -> Facts:
    """The machine as the agent with process id ``agent`` sees it, or as this command does."""
    place = None if agent is None else _place_of(agent)
    facts = machine.gather(data_dir=context.directories.data, pid=agent, override=place)
    context.debug("{}", facts)
    return facts


def _place_of(agent: int) -> str:
    """The delegated cgroup that an agent was given: under systemd it is another unit's than its own."""
    words = read_text(f"/proc/{agent}/cmdline").split("\0")
    return words[words.index("--cgroup-path") + 1] if "--cgroup-path" in words else ""


def look_ahead(context: Context, agent: int | None) -> tuple[Facts, bool]:
    """The machine as an agent will see it, and whether a delegated cgroup is to be asked for first.

    Without a running agent that is the view from the scope that a start would ask systemd for.
    """
    facts = look(context, agent)
    asks = agent is None and scope.wanted(facts, "auto")
    return (scope.granted(facts) if asks else facts), asks
