"""``plan``: what a profile would do on this machine, and what it would change. It does nothing."""

from __future__ import annotations

import argparse

from ..codec import unpack_plan
from ..enforcement import predict, predict_sandboxes, predict_total
from ..model import Plan
from . import compiling, exits, scope, selection
from .context import Context, say, show_json
from .plandiff import diff, render_diff
from .planview import render, to_dict


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    selection.arguments(parser)
    parser.add_argument("--json", action="store_true", help="as JSON: bytes, cores, seconds")


def run(context: Context, options: argparse.Namespace) -> int:
    """Compile and show."""
    running, agent = _running(context)
    facts, asks = compiling.look_ahead(context, agent)
    plan = compiling.compile_selection(context, selection.choose(context, options), options, facts)
    predicted = predict(facts, plan), predict_total(facts, plan), predict_sandboxes(facts, plan)
    if context.json:
        shown = to_dict(plan, *predicted)
        changes = diff(running, plan) if running else None
        shown["changes"] = None if changes is None else [change._asdict() for change in changes]
        show_json(shown)
        return exits.OK
    say(*render(plan, *predicted).splitlines())
    if asks and plan.enforcement in scope.ENFORCEMENTS:
        say("", "started here, the agent first asks systemd for the delegated cgroup that this assumes")
    if running:
        say("", f"against the running profile {running.profile}:", *render_diff(running, plan).splitlines())
    return exits.OK


def _running(context: Context) -> tuple[Plan | None, int | None]:
    """The running agent's plan and process id."""
    client = context.connect_if_running()
    if client is None:
        return None, None
    with client:
        return unpack_plan(client.call("plan")["plan"]), client.call("status")["agent"]["pid"]
