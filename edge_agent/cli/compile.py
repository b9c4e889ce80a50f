"""``compile``: a profile's plan as a file, for `edge-agent --plan FILE`, which starts without reading YAML."""

from __future__ import annotations

import argparse
import os

from ..codec import pack_plan
from . import compiling, exits, selection
from .context import Context, complain, say, show_json


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    selection.arguments(parser)
    parser.add_argument("--output", required=True, metavar="FILE", help="where to write it; replaced in one step")
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(context: Context, options: argparse.Namespace) -> int:
    """Compile and write."""
    facts, _asks = compiling.look_ahead(context, None)
    plan = compiling.compile_selection(context, selection.choose(context, options), options, facts)
    data = pack_plan(plan)
    write(options.output, data)
    if context.json:
        show_json({"profile": plan.profile, "file": options.output, "bytes": len(data), "notes": list(plan.notes)})
    else:
        say(f"{options.output}: profile {plan.profile}, {len(plan.services)} services, {len(data)} bytes")
        complain(f"note: {note}" for note in plan.notes)
    return exits.OK


def write(path: str, data: bytes) -> None:
    """Replace ``path`` by ``data``: environments may hold secrets, so only the owner reads it. Raises OSError."""
    temporary = f"{path}.new"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
    os.replace(temporary, path)
