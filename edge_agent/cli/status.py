"""``status``: what runs and what it takes."""

from __future__ import annotations

import argparse
import time

from . import exits
from .context import Context, say, show_json


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument("--json", action="store_true", help="as JSON: bytes, cores, unix seconds")


def run(context: Context, _options: argparse.Namespace) -> int:
    """Ask and show."""
    with context.connect() as client:
        status = client.call("status")
    if context.json:
        show_json(status)
    else:
        from .statusview import render

        say(*render(status, time.time()))
        if status.get("schedule"):
            from . import scheduleview

            say("", *scheduleview.render(scheduleview.of_status(status), time.time()))
    return exits.OK
