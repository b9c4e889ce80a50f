"""Which profile a command is about: flags, then variables, then the choice that the agent keeps for the next boot."""

from __future__ import annotations

import argparse
import os

from ..codec import MAX_BYTES, PlanError, unpack_choice, unpack_plan
from ..model import Plan
from ..profile.directories import variable
from ..profile.files import DEFAULT
from ..records import Record
from . import exits
from .context import CommandError, Context

PLAN = "plan"
"""The committed plan's file in the data directory; the resident writes it (host/store.py)."""


class Selection(Record):
    """A profile by name or by file; ``typed`` by a person on the command line, or found as it is at boot."""

    name: str | None
    config: str | None
    typed: bool
    origin: str  # for messages: '--profile', 'EDGE_AGENT_CONFIG', 'the last choice'


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options that choose a profile and say how it is compiled."""
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--profile", metavar="NAME", help="a profile from the profile directories")
    which.add_argument("--config", metavar="FILE", help="a profile by its path")
    parser.add_argument("--fit", action="store_true", help="leave out the least important services until the rest fits")
    parser.add_argument(
        "--dev", action="store_true", help="development mode: as the profile's development block says, and verbose"
    )
    parser.add_argument(
        "--enforcement",
        choices=("auto", "cgroup2", "sampling", "none"),
        help="how limits are held, over the profile's own",
    )


def words(options: argparse.Namespace) -> tuple[str, ...]:
    """The options besides the profile as they would be typed: a choice that is kept is kept with them."""
    given = [f"--{name}" for name in ("fit", "dev") if getattr(options, name)]
    return (*given, f"--enforcement={options.enforcement}") if options.enforcement else tuple(given)


def _as_before(options: argparse.Namespace, flags: tuple[str, ...]) -> None:
    """Take over the flags of the last choice, in place, where none are given now."""
    for flag in flags:
        name, _, value = flag.removeprefix("--").partition("=")
        if name in ("fit", "dev", "enforcement") and not getattr(options, name):
            setattr(options, name, value or True)


def choose(context: Context, options: argparse.Namespace) -> Selection:
    """The selection; the last choice comes with its flags. Raises CommandError when nothing says what to run."""
    if options.profile:
        return Selection(options.profile, None, True, "--profile")
    if options.config:
        return Selection(None, os.path.abspath(options.config), True, "--config")
    for name in ("CONFIG", "PROFILE"):
        value, source = variable(context.environ, name)
        if value:
            by_path = name == "CONFIG"
            return Selection(None if by_path else value, os.path.abspath(value) if by_path else None, False, source)
    last = _last(context)
    default = os.path.join(context.directories.config, DEFAULT)
    if last is None and os.path.exists(default):
        return Selection(None, default, False, default)
    if last is None:
        raise CommandError(
            exits.CONFIGURATION,
            f"cannot {context.task}: nothing says which profile; fix: give --profile NAME or --config FILE, "
            "or set EDGE_AGENT_CONFIG",
        )
    source, flags = last
    _as_before(options, flags)
    return Selection(None, source, False, "the last choice")


def committed(context: Context) -> Plan | None:
    """The last known good plan, what is known here of a newer release's; None when there is none that can be read."""
    try:
        return unpack_plan(_read(context), newer=True)
    except (OSError, PlanError) as error:
        context.debug("no committed plan: {}", error)
        return None


def _last(context: Context) -> tuple[str, tuple[str, ...]] | None:
    """Source and flags of the last choice: what is left of it when another release wrote the plan."""
    try:
        return unpack_choice(_read(context))
    except (OSError, PlanError) as error:
        context.debug("no last choice: {}", error)
        return None


def _read(context: Context) -> bytes:
    with open(os.path.join(context.directories.data, PLAN), "rb") as file:
        return file.read(MAX_BYTES + 1)
