"""Completions for bash, zsh and fish, by shtab from the parsers of the verbs."""

from __future__ import annotations

import argparse

import shtab

from edge_agent.cli.context import DEFAULT
from edge_agent.cli.parsing import VERBS, make_parser
from edge_agent.services.__main__ import NAMES

PLACES = {
    "bash": "usr/share/bash-completion/completions/edge-agent",
    "zsh": "usr/share/zsh/vendor-completions/_edge-agent",
    "fish": "usr/share/fish/vendor_completions.d/edge-agent.fish",
}
"""Where each shell of Debian looks for them."""

PROFILES = r"ls /etc/edge-agent/profiles /usr/share/edge-agent/profiles 2>/dev/null | sed -n 's/\.yaml//p' | sort -u"
SERVICES = (
    "edge-agent status --json 2>/dev/null | "
    r"""sed -n '/^  "services"/,/^  }/s/^    "\([a-z0-9_-]*\)": {.*/\1/p'"""
)
"""Shell commands that list what may come next."""


def scripts() -> dict[str, str]:
    """Place -> script."""
    return {place: shtab.complete(_parser(), shell=shell) for shell, place in PLACES.items()}


def _parser() -> argparse.ArgumentParser:
    """All verbs in one parser, as the program itself never has them: it builds only the one it needs."""
    top = make_parser(DEFAULT)
    top.add_argument("--version", action="version", version="")
    _complete(top, DEFAULT)
    verbs = top.add_subparsers(dest="verb", metavar="VERB", parser_class=argparse.ArgumentParser)
    for verb, (_, summary) in VERBS.items():
        if verb != DEFAULT:
            one = make_parser(verb)
            _complete(one, verb)
            verbs.add_parser(verb, parents=[one], add_help=False, help=summary, description=summary)
    return top


def _complete(parser: argparse.ArgumentParser, verb: str) -> None:
    for action in parser._actions:
        how = _completer(verb, action)
        if how is not None:
            action.complete = how  # type: ignore[attr-defined] # where shtab looks


def _completer(verb: str, action: argparse.Action) -> object:
    if action.metavar == "FILE":
        return shtab.FILE
    if action.metavar == "DIR":
        return shtab.DIRECTORY
    if action.metavar == "SERVICE":
        return shtab.cmd(SERVICES)
    if action.dest == "profile" or (verb == "switch" and action.dest == "name"):
        return shtab.cmd(PROFILES)
    if verb == "service" and action.dest == "name":
        action.choices = NAMES
    if verb == "help" and action.dest == "topic":
        action.choices = [*VERBS, "exits"]
    return None
