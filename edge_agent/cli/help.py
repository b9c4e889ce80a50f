"""``help``: the verbs, one verb's options, or the exit codes."""

from __future__ import annotations

import argparse

from .. import __doc__ as what
from . import exits
from .context import DEFAULT, CommandError, Context, say
from .parsing import VERBS, make_parser


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument("topic", nargs="?", metavar="VERB|exits")


def run(_context: Context, options: argparse.Namespace) -> int:
    """Show it."""
    if options.topic is None:
        say(overview())
    elif options.topic == "exits":
        say(exits.text().rstrip())
    elif options.topic in VERBS:
        say(make_parser(options.topic).format_help().rstrip())
    else:
        from ..profile.problems import suggest

        raise CommandError(
            exits.USAGE, f"cannot help with {options.topic!r}: no such verb; fix: {suggest(options.topic, VERBS)}"
        )
    return exits.OK


def overview() -> str:
    """Usage, verbs, exit codes."""
    width = max(map(len, VERBS))
    lines = [
        f"{what}",
        "",
        "usage: edge-agent [--profile NAME | --config FILE | --plan FILE] [--fit] [--dev] [--enforcement KIND]",
        "       edge-agent VERB [OPTIONS]",
        "       edge-agent --version",
        "",
        "verbs:",
        *(f"  {verb:<{width}}  {summary}" for verb, (_module, summary) in VERBS.items() if verb != DEFAULT),
        "",
        "`edge-agent help VERB` shows the options of one.",
        "",
        exits.text().rstrip(),
    ]
    return "\n".join(lines)
