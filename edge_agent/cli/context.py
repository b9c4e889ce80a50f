"""What every verb is given: the environment, the directories, the streams, the way to the agent."""

from __future__ import annotations

import os
import sys

from ..profile.directories import Directories, find
from ..records import Record
from . import exits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from ..control.client import Client

DIRECTORY_FLAGS = {
    "run_dir": "RUN_DIR",
    "data_dir": "DATA_DIR",
    "log_dir": "LOG_DIR",
    "config_dir": "CONFIG_DIR",
}
"""Flags that stand for EDGE_AGENT_* variables."""


DEFAULT = "orchestrator"
"""The verb of a command line without one."""


class CommandError(Exception):
    """The command cannot do what it was asked. ``lines``: sentences ``cannot X: why; fix: Y`` without the program."""

    def __init__(self, code: int, *lines: str) -> None:
        self.code = code
        self.lines = lines
        super().__init__("\n".join(lines))


class Context(Record):
    """One command."""

    verb: str
    environ: Mapping[str, str]
    directories: Directories
    json: bool = False
    verbose: bool = False

    @property
    def task(self) -> str:
        """The verb as it stands in ``cannot ...``."""
        return "start" if self.verb == DEFAULT else self.verb

    def connect(self) -> Client:
        """A connection to the agent. Raises NotRunningError, AgentError."""
        from ..control import SOCKET_NAME
        from ..control.client import Client

        return Client(os.path.join(self.directories.run, SOCKET_NAME))

    def connect_if_running(self) -> Client | None:
        """As ``connect``; None without an agent. Raises AgentError when there is one that may not be talked to."""
        from ..control.client import AgentError, NotRunningError

        try:
            return self.connect()
        except NotRunningError:
            return None
        except AgentError as error:
            if error.code == "gone":  # it was just going away
                return None
            raise

    def debug(self, message: str, *values: object) -> None:
        """A diagnostic of this command, on standard error; only with --verbose is its library imported."""
        if self.verbose:
            from loguru import logger

            logger.debug(message, *values)


def make(verb: str, options: object, environ: Mapping[str, str]) -> Context:
    """The context for parsed ``options``: flags go before variables."""
    environ = dict(environ)
    for flag, name in DIRECTORY_FLAGS.items():
        value = getattr(options, flag, None)
        if value:
            environ["EDGE_AGENT_" + name] = os.path.abspath(value)
    json = bool(getattr(options, "json", False))
    verbose = bool(getattr(options, "verbose", False) or getattr(options, "dev", False))
    return Context(verb, environ, find(environ, os.geteuid()), json, verbose)


def say(*lines: str) -> None:
    """Lines on standard output, through to the reader: followers and the resident's start depend on it."""
    sys.stdout.write("".join(line + "\n" for line in lines))
    sys.stdout.flush()


def show_json(value: Any) -> None:
    """One JSON document and a newline. Bytes become text."""
    import json

    def other(item: object) -> str:
        if isinstance(item, bytes):
            return item.decode("utf-8", "replace")
        raise TypeError(type(item).__name__)

    say(json.dumps(value, indent=2, default=other, ensure_ascii=False))


def show_json_line(value: Any) -> None:
    """One JSON document on one line, for streams."""
    import json

    say(json.dumps(value, ensure_ascii=False))


def complain(lines: Iterable[str]) -> None:
    """Sentences on standard error, each behind the program's name."""
    try:
        sys.stderr.write("".join(f"edge-agent: {line}\n" for line in lines))
        sys.stderr.flush()
    except OSError:
        pass  # nobody reads it; the exit code still tells


def unknown_service(name: str, known: Iterable[str]) -> CommandError:
    """An error that names the nearest right one."""
    from ..profile.problems import suggest

    fix = suggest(name, known)
    return CommandError(exits.FAILED, f"there is no service {name!r}" + (f"; fix: {fix}" if fix else ""))
