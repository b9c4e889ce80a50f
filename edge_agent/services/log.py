"""Plain lines on standard error; whoever started the service keeps them.

    storage: ready: /run/edge-agent/bundled/storage/storage.sock
    storage: debug: uid:0 asks 'put': done

EDGE_AGENT_LOG_LEVEL says from which level on: DEBUG, INFO (default), WARNING or ERROR. The agent sets DEBUG for
``--dev`` and ``debug_logging``. Lines of level INFO carry no name of a level.
"""

from __future__ import annotations

import os
import select

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

VARIABLE = "EDGE_AGENT_LOG_LEVEL"
DEBUG, INFO, WARNING, ERROR = 10, 20, 30, 40
LEVELS = {"DEBUG": DEBUG, "INFO": INFO, "WARNING": WARNING, "ERROR": ERROR}
_WORDS = {DEBUG: "debug: ", INFO: "", WARNING: "warning: ", ERROR: "error: "}
MOST = 2048  # bytes of a line; less than PIPE_BUF, so that a pipe which is ready takes it without blocking


class _Output:
    """What all lines of this process share."""

    least = INFO
    lost = 0  # lines since the last one that was written


def configure(name: str, environ: Mapping[str, str]) -> None:
    """Take the level from the environment; a word that is none is said and means INFO."""
    word = environ.get(VARIABLE) or "INFO"
    _Output.least = LEVELS.get(word.upper(), INFO)
    if word.upper() not in LEVELS:
        log(name, f"cannot read {VARIABLE}={word[:40]!r}: not a level; fix: one of {', '.join(LEVELS)}", WARNING)


def wanted(level: int) -> bool:
    """Whether lines of this level are written: asked first where making one costs something."""
    return level >= _Output.least


def log(name: str, text: str, level: int = INFO) -> None:
    """Write one line, unless nobody wants its level.

    A reader that is gone must not end the service, and one that does not read must not stop it, since the agent may be
    restarted beside it: what the pipe has no room for is lost, and the next line says how much that was.
    """
    if not wanted(level):
        return
    line = f"{name}: {_WORDS[level]}{' '.join(text.splitlines())}"
    if _Output.lost:
        line = f"{name}: warning: {_Output.lost} lines were lost, nobody read them\n{line}"
    data = line.encode("utf-8", "backslashreplace")
    try:
        poll = select.poll()
        poll.register(2, select.POLLOUT)
        if not poll.poll(0):
            _Output.lost += 1
            return
        os.write(2, data[: MOST - 1] + b"\n")
        _Output.lost = 0
    except OSError:
        pass
