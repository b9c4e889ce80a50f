"""``switch NAME``: hand a plan to the running agent and follow the switch to its end."""

from __future__ import annotations

import argparse

from ..codec import pack_plan, unpack_plan
from ..control.client import TIMEOUT, AgentError, Client
from ..model import Plan
from . import compiling, exits, selection
from .context import CommandError, Context, complain, say, show_json
from .planview import render_diff
from .statusview import event

WAIT = 30.0  # seconds of one question for events; the agent answers at once when there is something


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument("name", nargs="?", metavar="NAME", help="a profile's name, as --profile NAME")
    selection.arguments(parser)
    parser.add_argument("--json", action="store_true", help="the outcome as JSON")


def run(context: Context, options: argparse.Namespace) -> int:
    """Compile, show the difference, hand over, follow."""
    if options.name:
        if options.profile or options.config:
            raise CommandError(exits.USAGE, "cannot switch: two profiles are given; fix: give one")
        options.profile = options.name
    with context.connect() as client:
        agent = client.call("status")["agent"]["pid"]
        facts = compiling.look(context, agent)
        plan = compiling.compile_selection(context, selection.choose(context, options), options, facts)
        return hand_over(context, client, plan)


def hand_over(context: Context, client: Client, plan: Plan) -> int:
    """Give the plan to the agent and follow. 0 only when it was committed."""
    running = unpack_plan(client.call("plan")["plan"])
    if not context.json:
        say(f"profile {running.profile} -> {plan.profile} ({plan.source})")
        say(*render_diff(running, plan).splitlines())
        if plan.notes:
            say(*(f"note: {note}" for note in plan.notes))
    try:
        answer = _follow(context, client, plan)
    except KeyboardInterrupt:
        complain(["the agent goes on with the switch; see `edge-agent status`"])
        raise
    except AgentError as error:
        if not context.json:
            raise
        show_json({"committed": False, "code": error.code, "why": error.why, "fix": error.fix})
        return exits.BY_CODE.get(error.code, exits.FAILED)
    if context.json:
        show_json({"committed": True, "text": answer})
    else:
        say(answer or f"profile {plan.profile} is in force")
    return exits.OK


def _follow(context: Context, client: Client, plan: Plan) -> str:
    """What the agent says at the end of the switch, its events shown meanwhile. Raises AgentError.

    However long the switch takes, the agent answers the question for events; silence means that it is stuck.
    """
    cursor = client.call("events", {"cursor": -1, "wait": 0, "service": ""})["cursor"]
    switch = client.begin("switch", {"plan": pack_plan(plan)})
    news = client.begin("events", {"cursor": cursor, "wait": WAIT, "service": ""})
    while True:
        ident, answer, error = client.next(WAIT + TIMEOUT)
        if error is not None:
            raise error
        if ident == switch:
            return str(answer.get("text", ""))
        if ident == news:
            if not context.json:
                say(*(event(entry) for entry in answer["events"]))
            news = client.begin("events", {"cursor": answer["cursor"], "wait": WAIT, "service": ""})
