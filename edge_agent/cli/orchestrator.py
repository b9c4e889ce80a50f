"""The default verb: no agent running, become one; an agent running, switch it.

A profile that a person typed (--profile, --config) is compiled or refused. One that was found, by EDGE_AGENT_CONFIG,
EDGE_AGENT_PROFILE or the last choice, is what a boot has: if it is broken, the last known good plan runs, degraded, and
every problem is on standard error. A device must not stay dark for a typing error.
"""

from __future__ import annotations

import argparse

from ..codec import pack_plan, unpack_plan
from ..demand import Facts
from ..enforcement import predict, predict_sandboxes, predict_total
from ..model import Plan
from ..profile.directories import variable
from . import compiling, exits, resident, scope, selection
from .compiled import read_plan
from .context import CommandError, Context, complain, say
from .failures import explain
from .handover import hand_over
from .planview import render


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    selection.arguments(parser)
    parser.add_argument("--plan", metavar="FILE", help="a plan made by `edge-agent compile`, instead of a profile")
    parser.add_argument("--control-group", metavar="GROUP", help="members of this group may use the control socket")
    parser.add_argument("--json", action="store_true", help="the outcome of a switch as JSON")


def run(context: Context, options: argparse.Namespace) -> int:
    """Start or switch. Returns only after a switch, or with an error."""
    client = context.connect_if_running()
    if client is not None:
        with client:
            if options.plan:
                return hand_over(context, client, read_plan(options.plan))
            agent = client.call("status")["agent"]["pid"]
            plan = _plan(context, options, compiling.look(context, agent))
            return hand_over(context, client, pack_plan(plan))
    return _start(context, options)


def _start(context: Context, options: argparse.Namespace) -> int:
    gid = control_gid(context, options)
    facts = compiling.look(context, None)
    note = ""
    if scope.wanted(facts, options.enforcement or "auto"):
        failure = scope.enter(context)
        if failure:
            note = (
                f"cannot get a delegated cgroup from systemd: {failure}; going on without; fix: see `edge-agent check`"
            )
        facts = compiling.look(context, None)
    elif (place := variable(context.environ, "CGROUP_ROOT")[0]) and facts.cgroup == "unified" and not facts.delegated:
        note = f"cannot use the cgroup {place}: it is not there, or not ours; fix: see `edge-agent check`"
    degraded = ""
    try:
        plan = _plan(context, options, facts)
    except Exception as error:  # whatever it is, even our own mistake: see _last_known_good
        plan, degraded = _last_known_good(context, options, error)
    if note:
        complain([note])
    say(*render(plan, predict(facts, plan), predict_total(facts, plan), predict_sandboxes(facts, plan)).splitlines())
    fd = resident.plan_descriptor(pack_plan(plan))
    resident.execute(
        context.directories,
        ["--plan-fd", str(fd)],
        enforcement=options.enforcement,
        cgroup_path=facts.cgroup_path if facts.delegated else "",
        io_device=facts.io_device,
        control_gid=gid,
        degraded=degraded,
    )
    return exits.FAILED


def _plan(context: Context, options: argparse.Namespace, facts: Facts) -> Plan:
    if options.plan:
        return unpack_plan(read_plan(options.plan))
    return compiling.compile_selection(context, selection.choose(context, options), options, facts)


def _last_known_good(context: Context, options: argparse.Namespace, error: Exception) -> tuple[Plan, str]:
    """The committed plan and why it runs instead. Raises ``error`` when a person waits, or when there is none.

    At boot nobody reads a traceback, so an error that is this program's own fault leads here as well.
    """
    if options.plan:
        raise error
    chosen = selection.choose(context, options)
    plan = None if chosen.typed else selection.committed(context)
    if plan is None:
        raise error
    lines = explain(context, error)[1] or [f"cannot compile the profile: {type(error).__name__}: {error}"]
    degraded = f"{chosen.config or chosen.name} is not usable: {lines[0]}"
    if len(lines) > 1:
        degraded += f" (and {len(lines) - 1} more)"
    fix = f"correct {chosen.config or chosen.name}"
    complain([*lines, f"running the last known good plan, profile {plan.profile}, degraded; fix: {fix}"])
    return plan, degraded


def control_gid(context: Context, options: argparse.Namespace) -> int | None:
    """The group of the control socket, by flag or EDGE_AGENT_CONTROL_GROUP.

    Raises CommandError when the one that was typed does not exist; one that was found is complained about, because the
    services matter more than who may ask for their status.
    """
    name = options.control_group or variable(context.environ, "CONTROL_GROUP")[0]
    if not name:
        return None
    if name.isdecimal():
        return int(name)
    import grp

    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        problem = f"cannot let group {name!r} use the control socket: there is none; fix: `addgroup --system {name}`"
    if options.control_group:
        raise CommandError(exits.CONFIGURATION, problem)
    complain([problem])
    return None
