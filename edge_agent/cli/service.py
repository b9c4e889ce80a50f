"""``service --name NAME``: one bundled service in the foreground, as the agent runs it."""

from __future__ import annotations

import argparse
import os

from ..host.interpreter import interpreter
from .context import Context


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    names = "identity, storage, node, ledger, telemetry, analytics or timekeeper"
    parser.add_argument("--name", required=True, metavar="NAME", help=names)


def run(context: Context, options: argparse.Namespace) -> int:
    """Become the service. Raises OSError."""
    context.debug("executing the bundled service {}", options.name)
    argv = [interpreter(), "-m", "edge_agent.services", options.name]
    os.execve(argv[0], argv, dict(context.environ))  # noqa: S606 - no shell, and this very program
