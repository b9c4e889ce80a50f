"""``events``: what happened, the oldest kept first."""

from __future__ import annotations

import argparse

from ..text import event
from . import exits
from .context import Context, say, show_json_line

WAIT = 30.0  # seconds of one question; the agent answers at once when there is something


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument("-f", "--follow", action="store_true", help="go on until Ctrl-C or the agent's end")
    parser.add_argument("--service", default="", metavar="SERVICE", help="of one service only")
    parser.add_argument("--json", action="store_true", help="one JSON object per line")


def run(context: Context, options: argparse.Namespace) -> int:
    """Show what is kept, then what comes."""
    from ..control.client import AgentError

    with context.connect() as client:
        cursor, wait = 0, 0.0
        while True:
            try:
                answer = client.call(
                    "events", {"cursor": cursor, "wait": wait, "service": options.service}, wait + 10.0
                )
            except AgentError as error:
                if options.follow and wait and error.code == "gone":
                    return exits.OK  # followed to the end
                raise
            for entry in answer["events"]:
                if context.json:
                    show_json_line(entry)
                else:
                    say(event(entry))
            done = not answer["events"] or answer["cursor"] <= cursor
            cursor = answer["cursor"]
            if done and not options.follow:
                return exits.OK
            wait = WAIT if options.follow else 0.0
