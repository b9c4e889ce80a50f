"""``peers``: the other nodes as the node service sees them, the heads of logs, and what was refused."""

from __future__ import annotations

import argparse
import os
import time
from typing import Any

from . import exits
from .context import CommandError, Context, say, show_json


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument("--service", default="node", metavar="NAME", help="the node service's name (default: node)")
    parser.add_argument("--json", action="store_true", help="as JSON: seconds, hashes as hexadecimal digits")


def run(context: Context, options: argparse.Namespace) -> int:
    """Ask the node service, not the agent: it answers root, its own user and its group."""
    from ..services.client import ClientError, Node, TimedOutError, UnreachableError

    directory = os.path.join(context.directories.run, "bundled", options.service)
    try:
        with Node.local(directory) as node:
            told: dict[str, Any] = {"key": node.key(), **_plain(node.peers())}
            told |= {"heads": node.heads(), **_plain(node.refused())}
    except UnreachableError as error:
        code = exits.PERMISSION if "no permission" in str(error) else exits.FAILED
        raise CommandError(code, f"cannot show peers: {error}") from error
    except TimedOutError as error:
        raise CommandError(exits.TIMEOUT, f"cannot show peers: {error}; fix: see `edge-agent why node`") from error
    except ClientError as error:
        raise CommandError(exits.FAILED, f"cannot show peers: {error}") from error
    if context.json:
        show_json(_readable(told))
    else:
        from .peersview import render

        say(*render(told, time.time()))
    return exits.OK


def _plain(answer: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in answer.items() if key not in ("v", "id", "ok")}


def _readable(told: dict[str, Any]) -> dict[str, Any]:
    heads = [{**head, "root": head["root"].hex()} for head in told["heads"]]
    evidence = [
        {**each, "held": each["held"].decode("utf-8", "replace"), "shown": each["shown"].decode("utf-8", "replace")}
        for each in told["evidence"]
    ]
    return {**told, "heads": heads, "evidence": evidence}
