"""``check``: what this machine can enforce, resource by resource, and how to get the rest; ``--fix`` does it."""

from __future__ import annotations

import argparse
from functools import partial

from .. import text
from ..demand import Facts
from ..enforcement import ENFORCED, UNSET, explain, mode, predict, reason
from ..model import RESOURCES, Limits, Plan, Service
from . import bootfix, compiling, exits, scope
from .context import CommandError, Context, complain, say, show_json
from .statusview import not_enforced

PROBE = "check"
LINE = "the kernel command line (`edge-agent check --fix`)"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.add_argument("--enforcement", choices=("auto", "cgroup2", "sampling", "none"), default="auto")
    parser.add_argument(
        "--fix", action="store_true", help="change the kernel's command line as needed: shows it, asks, keeps a copy"
    )
    parser.add_argument("--yes", action="store_true", help="with --fix: do not ask")
    parser.add_argument(
        "--cmdline", metavar="FILE", help=f"with --fix: this file, instead of {' or '.join(bootfix.PLACES)}"
    )


def run(context: Context, options: argparse.Namespace) -> int:
    """Look and tell. 0 when everything can be enforced, else 1; with --fix 0 when that is a reboot away."""
    if (options.yes or options.cmdline) and not options.fix:
        raise CommandError(exits.USAGE, "cannot check: --yes and --cmdline belong to --fix; fix: give --fix too")
    agent = None
    client = context.connect_if_running()
    if client is not None:
        with client:
            agent = client.call("status")["agent"]["pid"]
    facts = compiling.look(context, agent)
    verdicts = judge(facts, options.enforcement)
    complete = all(kind in (ENFORCED, UNSET) for kind, _code in verdicts.values())
    if context.json:
        resources = {}
        for resource, (kind, code) in verdicts.items():
            because, fix = explain(resource, kind, code)
            resources[resource] = {"kind": kind, "code": code, "because": because, "fix": fix}
        found = {"facts": facts._asdict(), "agent": agent, "resources": resources, "complete": complete}
        if options.fix:
            outcome = _fix(facts, options)
            show_json({**found, "fix": outcome.as_json()})
            complain(outcome.lines)
            return outcome.code
        show_json(found)
    else:
        say(*describe(facts, agent), "", *_verdict_lines(verdicts))
        if agent is None and scope.wanted(facts, options.enforcement):
            say("", "started by a person, the agent first asks systemd for a delegated cgroup by itself")
    if options.fix:
        say("")
        outcome = _fix(facts, options)
        say(*outcome.lines)
        return outcome.code
    return exits.OK if complete else exits.FAILED


def _fix(facts: Facts, options: argparse.Namespace) -> bootfix.Outcome:
    return bootfix.repair(facts, options.cmdline, partial(bootfix.ask, yes=options.yes, quiet=options.json))


def judge(facts: Facts, enforcement: str) -> dict[str, tuple[str, str]]:
    """Resource -> (kind, code) for a service that asks for everything."""
    limits = Limits(
        memory_limit=1 << 20,
        swap_limit=0,
        cpu_limit=100,
        cpu_request=100,
        pids_limit=1,
        io_weight=100,
        io_write_bps=1 << 20,
    )
    plan = Plan(
        profile=PROBE,
        source="",
        memory_total=1 << 20,
        cpu_total=100,
        memory_reserve=0,
        cpu_reserve=0,
        services=(Service(PROBE, ("/bin/true",), limits=limits),),
        enforcement=enforcement,
    )
    return predict(facts, plan)[PROBE]


def describe(facts: Facts, agent: int | None) -> list[str]:
    """The machine, one fact a line."""
    chosen, _code = mode(facts, "auto")
    swap = "none" if not facts.swap else f"{text.size(facts.swap)} ({facts.swap_kind})"
    rows = [
        ("agent", "not running" if agent is None else f"running, pid {agent}"),
        ("kernel", facts.kernel),
        ("memory", text.size(facts.memory)),
        ("cpus", str(facts.cpus)),
        ("swap", swap),
        ("cgroups", facts.cgroup),
        ("cgroup", facts.cgroup_path or text.NOTHING),
        ("controllers", " ".join(facts.controllers) or text.NOTHING),
        ("delegated", "yes" if facts.delegated else "no"),
        ("systemd", "yes" if facts.systemd else "no"),
        ("pressure (PSI)", "yes" if facts.psi else f"no; fix: psi=1 on {LINE}"),
        ("disk", facts.io_device or text.NOTHING),
        ("root", "yes" if facts.root else "no"),
        ("sandboxes", _sandboxes(facts)),
        ("mode", chosen),
    ]
    width = max(len(name) for name, _value in rows)
    return [f"{name:<{width}}  {value}" for name, value in rows]


def _sandboxes(facts: Facts) -> str:
    if not facts.sandbox_obstacle:
        return "yes"
    because, fix = reason("", facts.sandbox_obstacle)
    return f"without mounts of their own, because {because}; fix: {fix}"


def _verdict_lines(verdicts: dict[str, tuple[str, str]]) -> list[str]:
    held = [resource.replace("_", " ") for resource in RESOURCES if verdicts[resource][0] == ENFORCED]
    lines = [f"{', '.join(held)}: enforced"] if held else []
    for resource in RESOURCES:
        kind, code = verdicts[resource]
        if kind == UNSET:
            because, _fix = reason(resource, code)
            lines.append(f"{resource.replace('_', ' ')}: nothing to enforce, because {because}")
    report = {resource: {"kind": kind, "code": code} for resource, (kind, code) in verdicts.items()}
    return lines + not_enforced({PROBE: report})
