"""``logs``: what a service wrote, as the agent keeps it."""

from __future__ import annotations

import argparse
import sys

from . import exits
from .context import Context, show_json_line

WAIT = 30.0  # seconds of one question; the agent answers at once when there is something
ALL = 0  # cursor of the oldest byte kept


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument("name", metavar="SERVICE")
    parser.add_argument("-f", "--follow", action="store_true", help="go on until Ctrl-C or the agent's end")
    parser.add_argument("-n", "--lines", type=_count, default=None, metavar="N", help="the last N lines only")
    parser.add_argument("--json", action="store_true", help="one JSON object per line of the log")


def run(context: Context, options: argparse.Namespace) -> int:
    """Show what is kept, then what comes."""
    from ..control.client import AgentError, Client

    def ask(client: Client, cursor: int, wait: float) -> tuple[bytes, int]:
        answer = client.call("logs", {"name": options.name, "cursor": cursor, "wait": wait}, wait + 10.0)
        return answer["data"], answer["cursor"]

    show = JsonLines(options.name) if context.json else _raw
    with context.connect() as client:
        cursor, kept = ALL, b""
        while True:
            data, after = ask(client, cursor, 0.0)
            if not data:
                break
            cursor = after
            if options.lines is None:
                show(data)
            else:
                kept = last_lines(kept + data, options.lines)
        if kept:
            show(kept)
        while options.follow:
            try:
                data, cursor = ask(client, cursor, WAIT)
            except AgentError as error:
                if error.code == "gone":
                    break
                raise
            if data:
                show(data)
        show(b"")
    return exits.OK


def last_lines(data: bytes, count: int) -> bytes:
    """The end of ``data`` with its last ``count`` lines; an unfinished one counts."""
    if count == 0:
        return b""
    at = len(data) - data.endswith(b"\n")
    for _ in range(count):
        at = data.rfind(b"\n", 0, at)
        if at < 0:
            return data
    return data[at + 1 :]


def _count(word: str) -> int:
    value = int(word)
    if value < 0:
        raise ValueError(word)
    return value


def _raw(data: bytes) -> None:
    """As it was written, any bytes."""
    if data:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()


class JsonLines:
    """Shows whole lines as JSON objects; an unfinished one waits for its end, or for ``b''``."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._rest = b""

    def __call__(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        if not data and self._rest:
            lines, self._rest = [self._rest], b""
        for line in lines:
            show_json_line({"service": self._name, "line": line.decode("utf-8", "replace")})
