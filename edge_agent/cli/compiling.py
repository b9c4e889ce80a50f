"""A selection made a plan: the profile read, the machine looked at, the budget done."""

from __future__ import annotations

import argparse

from .. import budget, profile
from ..demand import Facts
from ..host import facts as machine
from ..host.hierarchy import read_text
from ..model import Plan
from . import scope
from .context import Context
from .selection import Selection, words


def compile_selection(context: Context, selection: Selection, options: argparse.Namespace, facts: Facts) -> Plan:
    """The plan. Raises ProfileError, BudgetError, EnforcementError."""
    context.debug("profile by {}: {}", selection.origin, selection.config or selection.name)
    flags: dict[str, object] = {}
    if options.enforcement:
        flags["enforcement"] = options.enforcement
    if options.dev:
        flags["dev"] = True
    loaded = profile.load(
        config=selection.config,
        name=selection.name,
        flags=flags,
        environ=context.environ,
        directories=context.directories,
    )
    context.debug("profile {} of {}, {} services", loaded.name, loaded.source, len(loaded.demands))
    return budget.compile_plan(loaded, facts, fit=options.fit)._replace(flags=words(options))


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
