"""``switch NAME``: hand a plan to the running agent and follow the switch to its end."""

from __future__ import annotations

import argparse

from ..codec import pack_plan
from . import compiling, exits, selection
from .context import CommandError, Context
from .handover import hand_over


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument("name", nargs="?", metavar="NAME", help="a profile's name, as --profile NAME")
    selection.arguments(parser)
    parser.add_argument("--json", action="store_true", help="the outcome as JSON")


def run(context: Context, options: argparse.Namespace) -> int:
    """Compile, show the difference, hand over, follow."""
    if options.name:
        if options.profile or options.config:
            raise CommandError(exits.USAGE, "cannot switch: two profiles are given; fix: give one")
        options.profile = options.name
    with context.connect() as client:
        agent = client.call("status")["agent"]["pid"]
        facts = compiling.look(context, agent)
        plan = compiling.compile_selection(context, selection.choose(context, options), options, facts)
        return hand_over(context, client, pack_plan(plan))
