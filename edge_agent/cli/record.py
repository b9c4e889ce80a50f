"""``record``: a trace of the running node, one look a line, for ``simulate``."""

from __future__ import annotations

import argparse
import os
import sys
import time
from typing import IO, Any

from ..control.client import AgentError, Client
from ..looks import SHORTEST, STALE, Machine, Raw, Reading, between
from ..profile.problems import ReadError
from ..profile.units import read_duration
from ..trace import RECORDED, Header, header_line, look_line
from . import exits
from .context import CommandError, Context, complain


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument("--output", required=True, metavar="FILE", help="a new file, or - for standard output")
    parser.add_argument(
        "--for", dest="time", type=_duration, default=None, metavar="TIME", help="such as 1h (default: until Ctrl-C)"
    )
    parser.add_argument(
        "--interval",
        type=_duration,
        default=1.0,
        metavar="TIME",
        help=f"between looks (default 1s; at least {SHORTEST * 2:g}s, less than {STALE:g}s)",
    )


def run(context: Context, options: argparse.Namespace) -> int:
    """Ask again and again. Ctrl-C is the usual end of a record without --for."""
    if not SHORTEST * 2 <= options.interval < STALE:
        raise CommandError(
            exits.USAGE,
            f"cannot record: an interval of {options.interval:g} s is no use; fix: give 100ms to {STALE:g}s, and less "
            "than that",
        )
    with context.connect() as client:
        before = reading(client.call("look"))
        profile = client.call("status")["profile"]
        output = _open(options.output)
        count = 0
        try:
            header = Header(RECORDED, before.machine.memory, os.cpu_count() or 1, psi=before.psi)
            output.write(header_line(header, profile=profile, recorded=time.strftime("%Y-%m-%dT%H:%M:%S%z")))
            count = _follow(client, output, before, options.interval, options.time)
        except KeyboardInterrupt:
            pass
        finally:
            if output is not sys.stdout:
                output.close()
    context.debug("{} looks", count)
    return exits.OK


def _follow(client: Client, output: IO[str], before: Reading, interval: float, seconds: float | None) -> int:
    """Line by line, until the time is over or the agent ends; the number of looks."""
    start, begun, count = before.at, time.monotonic(), 0
    while seconds is None or count * interval < seconds:
        count += 1
        time.sleep(max(0.0, begun + count * interval - time.monotonic()))
        try:
            after = reading(client.call("look"))
        except AgentError as error:
            if error.code != "gone":
                raise
            complain([f"the agent has ended; {count - 1} looks are in the trace"])
            return count - 1
        look = between(before, after)
        output.write(look_line(look._replace(at=look.at - start)))
        output.flush()
        before = after
    return count


def _open(path: str) -> IO[str]:
    """A record is never written over."""
    if path == "-":
        return sys.stdout
    try:
        return os.fdopen(
            os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644), "w", encoding="utf-8"
        )
    except FileExistsError:
        raise CommandError(exits.FAILED, f"cannot record: {path} exists; fix: remove it, or name another") from None


def reading(answer: dict[str, Any]) -> Reading:
    """The agent's answer to ``look``; what a newer agent says on top is left out."""

    def known(kind: Any, fields: dict[str, Any]) -> Any:
        return kind(**{name: fields[name] for name in kind._fields if name in fields})

    every = answer.get("all")
    return Reading(
        answer["at"],
        known(Machine, answer["machine"]),
        known(Raw, every) if every is not None else None,
        {name: known(Raw, fields) for name, fields in answer["services"].items()},
        answer["total"],
        answer["psi"],
    )


def _duration(word: str) -> float:
    try:
        return read_duration(word)
    except ReadError as error:
        raise argparse.ArgumentTypeError(f"{error.why}; {error.fix}") from None
