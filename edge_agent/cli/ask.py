"""``start``, ``stop``, ``restart``: ask, then follow until the state is reached."""

from __future__ import annotations

import argparse
import time
from typing import Any

from ..control.client import Client
from . import exits
from .context import CommandError, Context, say, show_json, unknown_service
from .parsing import seconds

UP, DOWN = ("ready", "completed"), ("off", "completed", "quarantined")
FAILED = ("quarantined", "off")
LOOK = 1.0  # seconds at most between two looks; an event makes it sooner


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verbs."""
    parser.add_argument("name", metavar="SERVICE")
    parser.add_argument("--json", action="store_true", help="the service's status as JSON")
    parser.add_argument("--no-wait", action="store_true", help="return once the agent has accepted")
    parser.add_argument("--timeout", type=seconds, default=60.0, metavar="SECONDS", help="for the wait (default 60)")


def run(context: Context, options: argparse.Namespace) -> int:
    """Ask the agent and wait."""
    name = options.name
    with context.connect() as client:
        services = client.call("status")["services"]
        if name not in services:
            raise unknown_service(name, services)
        before = services[name]
        cursor = client.call("events", {"cursor": -1, "wait": 0, "service": name})["cursor"]
        client.call(context.verb, {"name": name}, options.timeout)
        if options.no_wait:
            service = client.call("status")["services"][name]
        else:
            service = _follow(context, client, name, before, cursor, options.timeout)
    if context.json:
        show_json({name: service})
    else:
        say(f"{name} is {service['state']}" + (f", pid {service['pid']}" if service["pid"] else ""))
    return exits.OK


def _follow(
    context: Context, client: Client, name: str, before: dict[str, Any], cursor: int, timeout: float
) -> dict[str, Any]:
    """The service's status once the state is reached. Raises CommandError when it cannot be, or is not in time."""
    until = time.monotonic() + timeout
    while True:
        service: dict[str, Any] = client.call("status")["services"][name]
        if reached(context.verb, before, service):
            return service
        if context.verb != "stop" and service["state"] in FAILED and service["state"] != before["state"]:
            raise CommandError(
                exits.FAILED, f"cannot {context.verb} {name}: it is {_state(service)}; fix: see `edge-agent why {name}`"
            )
        left = until - time.monotonic()
        if left <= 0:
            raise CommandError(
                exits.TIMEOUT,
                f"cannot {context.verb} {name}: it is {_state(service)} after {timeout:g} s, and the agent goes on; "
                f"fix: see `edge-agent why {name}`",
            )
        answer = client.call("events", {"cursor": cursor, "wait": min(left, LOOK), "service": name})
        cursor = answer["cursor"]


def reached(verb: str, before: dict[str, Any], now: dict[str, Any]) -> bool:
    """Whether the verb's goal is met. A restart's goal is another process than before."""
    if verb == "stop":
        return now["state"] in DOWN
    if verb == "restart" and before["pid"] and now["pid"] == before["pid"]:
        return False
    return now["state"] in UP


def _state(service: dict[str, Any]) -> str:
    reason = service["reason"]
    return f"{service['state']} ({reason})" if reason else str(service["state"])
