"""From words to a verb and its options. Only the verb's own parser is built."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import NoReturn

from .. import __version__
from . import exits
from .context import DEFAULT

VERBS = {
    "orchestrator": ("orchestrator", "run a profile: start the agent, or switch the one that runs (the default)"),
    "switch": ("switch", "switch the running agent to another profile"),
    "plan": ("plan", "show what a profile would do here, and the difference to what runs"),
    "compile": ("compile", "write a profile's plan to a file, for a fast start with --plan"),
    "status": ("status", "show the agent, its budget and its services"),
    "why": ("why", "tell why a service is in the state it is in"),
    "check": ("check", "show what this machine can enforce, and how to get the rest"),
    "events": ("events", "show what happened"),
    "logs": ("logs", "show what a service wrote"),
    "start": ("ask", "start a service"),
    "stop": ("ask", "stop a service"),
    "restart": ("ask", "restart a service"),
    "reload": ("control", "read the profile again, as SIGHUP does, and wait until it is in force"),
    "reexec": ("control", "replace the agent by the installed version; services keep running"),
    "shutdown": ("control", "stop all services and the agent"),
    "simulate": ("simulate", "show what the governor would decide over a trace"),
    "record": ("record", "record a trace of the running node, for simulate"),
    "identity": ("identity", "show, rotate and revoke the node's keys; make and check tokens"),
    "peers": ("peers", "show the other nodes, the heads of logs, and what was refused"),
    "service": ("service", "run a bundled service in the foreground"),
    "help": ("help", "show the verbs, the options of one, or the exit codes"),
}
"""Verb -> (module, what it does)."""

WITH_VALUE = {
    "--profile",
    "--config",
    "--plan",
    "--enforcement",
    "--control-group",
    "--cmdline",
    "--run-dir",
    "--data-dir",
    "--log-dir",
    "--config-dir",
    "--output",
    "--for",
    "--interval",
    "--timeout",
    "--service",
    "--name",
    "--overlap",
    "--key",
    "--token",
    "--reason",
    "--subject",
    "--scope",
    "--lifetime",
    "--nonce",
    "--audience",
    "--document",
    "--pin",
    "-n",
}
"""Options that take the next word, for finding the verb behind them."""


class UsageError(Exception):
    """The words are not a command. The text is a sentence."""


class Parser(argparse.ArgumentParser):
    """argparse with our errors: raised, not printed with a screen of usage."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"cannot run {self.prog}: {message}; fix: see `{self.prog} --help`")


def parse(words: Sequence[str]) -> tuple[str, argparse.Namespace, Callable[..., int]]:
    """(verb, its options, its run(context, options) -> exit code). Raises UsageError; SystemExit after --help."""
    at = _verb_at(words)
    rest = list(words)
    verb = DEFAULT
    if at is not None:
        verb = rest.pop(at)
    elif "--help" in rest or "-h" in rest:
        verb, rest = "help", []
    elif "--version" in rest:
        sys.stdout.write(f"edge-agent {__version__}\n")
        raise SystemExit(exits.OK)
    if verb not in VERBS:
        option = words[at - 1] if at else ""
        if option.startswith("-") and option not in _known_options(make_parser(DEFAULT)):
            raise _unexpected(DEFAULT, option, _known_options(make_parser(DEFAULT)))
        fix = _suggest(verb, VERBS, "`edge-agent help`")
        raise UsageError(f"cannot run {verb!r}: there is no such verb; fix: {fix}")
    parser = make_parser(verb)
    options, unknown = parser.parse_known_args(rest)
    if unknown:
        raise _unexpected(verb, unknown[0].partition("=")[0], _known_options(parser))
    return verb, options, import_module(f".{VERBS[verb][0]}", __package__).run


def seconds(word: str) -> float:
    """A time-out of at most a year."""
    value = float(word)
    if not 0 < value <= 366 * 86400:
        raise argparse.ArgumentTypeError(f"{word} is not a time-out: more than 0 seconds, at most a year")
    return value


def make_parser(verb: str) -> Parser:
    """The parser of one verb."""
    module, summary = VERBS[verb]
    prog = "edge-agent" if verb == DEFAULT else f"edge-agent {verb}"
    parser = Parser(prog=prog, description=summary[0].upper() + summary[1:] + ".", allow_abbrev=False)
    common = parser.add_argument_group("directories (flag, then EDGE_AGENT_*_DIR, then the system's or the XDG ones)")
    for name in ("run-dir", "data-dir", "log-dir", "config-dir"):
        common.add_argument(f"--{name}", metavar="DIR")
    parser.add_argument("--verbose", action="store_true", help="say what this command does, on standard error")
    import_module(f".{module}", __package__).arguments(parser)
    return parser


def _verb_at(words: Sequence[str]) -> int | None:
    skip = False
    for index, word in enumerate(words):
        if skip:
            skip = False
        elif word in WITH_VALUE:
            skip = True
        elif not word.startswith("-"):
            return index
    return None


def _known_options(parser: Parser) -> list[str]:
    return [option for action in parser._actions for option in action.option_strings]


def _unexpected(verb: str, word: str, known: Sequence[str]) -> UsageError:
    program = "edge-agent" if verb == DEFAULT else f"edge-agent {verb}"
    return UsageError(
        f"cannot run {program}: {word!r} is not expected; fix: {_suggest(word, known, f'`{program} --help`')}"
    )


def _suggest(word: str, known: Sequence[str] | dict[str, tuple[str, str]], otherwise: str) -> str:
    from ..profile.problems import nearest

    near = nearest(word, known)
    return f"did you mean {near!r}?" if near else f"see {otherwise}"
