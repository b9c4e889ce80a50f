"""``reload``, ``reexec``, ``shutdown``: one word to the agent."""

from __future__ import annotations

import argparse

from ..control.client import AgentError, Client
from . import exits
from .context import CommandError, Context, say, show_json
from .parsing import seconds


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verbs."""
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.add_argument("--no-wait", action="store_true", help="return once it is accepted")
    parser.add_argument("--timeout", type=seconds, default=60.0, metavar="SECONDS", help="for the wait (default 60)")


def run(context: Context, options: argparse.Namespace) -> int:
    """Say it, and wait: for a reload until its plan is in force or refused, for shutdown until the agent is gone."""
    wait = not options.no_wait and context.verb == "reload"
    with context.connect() as client:
        client.call(context.verb, {"wait": True} if wait else {}, options.timeout)
        if context.verb == "shutdown" and not options.no_wait:
            _until_gone(client, options.timeout)
    if context.json:
        show_json({context.verb: True})
    elif context.verb == "shutdown":
        say("stopping" if options.no_wait else "stopped")
    else:
        say("reloaded" if wait else f"{context.verb} accepted")
    return exits.OK


def _until_gone(client: Client, timeout: float) -> None:
    """The agent closes the connection as its last act; a question it holds back until then tells when."""
    import time

    until = time.monotonic() + timeout
    cursor = -1
    while (left := until - time.monotonic()) > 0:
        try:
            answer = client.call("events", {"cursor": cursor, "wait": min(left, 20.0), "service": ""}, left + 5.0)
        except AgentError as error:
            if error.code == "gone":
                return
            raise
        cursor = answer["cursor"]
    raise CommandError(
        exits.TIMEOUT,
        f"cannot shutdown: not stopped after {timeout:g} s, and still at it; fix: see `edge-agent status`",
    )
