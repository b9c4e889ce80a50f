"""What of a plan the kernel will hold on this machine, what is only watched, and why, in words. Pure; front end.

Kinds: 'enforced' (a cgroup v2 controller holds it), 'sampled' (the agent measures the whole process tree and
restarts a service that is over), 'not enforced', 'unset' (nothing is asked). Codes say why a limit is not enforced;
the resident reports the same ones for what really happened, and ``explain`` turns either into sentences.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable

from .demand import Facts
from .host.confinement import asked
from .model import PROTECTIONS, RESOURCES, Limits, Plan, Sandbox
from .records import Record

ENFORCED, SAMPLED, NOT_ENFORCED, UNSET = "enforced", "sampled", "not enforced", "unset"

Outlook = dict[str, tuple[str, str]]
"""Resource -> (kind, code)."""

CONTROLLER = {"memory": "memory", "swap": "memory", "oom_group": "memory", "cpu": "cpu", "pids": "pids", "io": "io"}
"""The v2 controller that holds each resource."""
WATCHED = ("memory", "pids")
"""Resources that can be sampled instead."""
MISSING = ("no-cgroup2", "not-delegated", "memory-disabled", "no-controller")
"""Codes for what the machine would have to be given before the kernel could hold a limit."""

_BUILT_WITH = {
    "memory": "CONFIG_MEMCG",
    "cpu": "CONFIG_CFS_BANDWIDTH",
    "pids": "CONFIG_CGROUP_PIDS",
    "io": "CONFIG_BLK_CGROUP",
}


class _Sentences(Record):
    because: str  # both may name {controller}, {built_with}
    fix: str


_CODES = {
    "no-cgroup2": _Sentences(
        "the agent sees no unified cgroup v2 hierarchy on this machine",
        "boot with systemd.unified_cgroup_hierarchy=1 on the kernel command line, "
        "or name a cgroup v2 directory in EDGE_AGENT_CGROUP_ROOT",
    ),
    "not-delegated": _Sentences(
        "the agent's cgroup is not delegated to it",
        "run the agent as a systemd service with Delegate=yes, or by 'systemd-run --scope -p Delegate=yes'",
    ),
    "memory-disabled": _Sentences(
        "the kernel command line has cgroup_disable=memory",
        "append cgroup_enable=memory to the one line of /boot/firmware/cmdline.txt (`edge-agent check --fix` does it) "
        "and reboot (other than on a Raspberry Pi: take cgroup_disable=memory out)",
    ),
    "no-controller": _Sentences(
        "the {controller} controller is not in cgroup.controllers of the agent's cgroup",
        "have it delegated (Delegate=yes in the unit, or +{controller} in cgroup.subtree_control above), "
        "or use a kernel with {built_with}",
    ),
    "by-setting": _Sentences("the profile or a flag says so (enforcement)", "set enforcement: auto"),
    "no-io-weight": _Sentences(
        "neither BFQ nor io.cost is active on the disk, so weights have no effect",
        "write bfq to /sys/block/DISK/queue/scheduler, or use read and write rates",
    ),
    "no-device": _Sentences(
        "the data directory is not on a disk that could be named in io.max",
        "put the data directory on a disk (EDGE_AGENT_DATA_DIR)",
    ),
    "no-swap": _Sentences("this machine has no swap", "nothing to do; a limit will matter once there is swap"),
    "no-root": _Sentences("the agent does not run as root", "run the agent as root"),
    "no-admin": _Sentences(
        "the agent has no CAP_SYS_ADMIN, as in a container",
        "start the container with that capability, or the agent outside of it",
    ),
    "old-kernel": _Sentences("mount_setattr(2) came with Linux 5.12", "use a kernel of at least 5.12"),
    "started-without": _Sentences(
        "the kernel refused it when the service started, or an older release started it",
        "`edge-agent restart` it, and see its log",
    ),
    "readback": _Sentences(
        "the kernel took the value but reports another one",
        "see whether something else writes to the agent's cgroups, and whether the value is beyond what the "
        "kernel can hold",
    ),
}

_REFUSALS = {
    "EINVAL": "ask for a value in the kernel's range",
    "ERANGE": "ask for a value in the kernel's range",
    "EACCES": "give the agent its cgroup: Delegate=yes in its unit, or run it as root",
    "EPERM": "give the agent its cgroup: Delegate=yes in its unit, or run it as root",
    "EROFS": "mount the cgroup filesystem read-write for the agent (a container needs this said)",
    "EBUSY": "end what else runs in the agent's own cgroup: it may hold no process but the agent",
    "ENOENT": "use a kernel that has this limit ({built_with}), or take the limit out",
    "ENODEV": "put the data directory on a whole disk or partition that is present (EDGE_AGENT_DATA_DIR)",
    "EOPNOTSUPP": "use a kernel that has this limit ({built_with}), or take the limit out",
}

_MEANS = {
    ("memory", SAMPLED): "the agent measures it and restarts a service that is over",
    ("pids", SAMPLED): "the agent measures it and restarts a service that is over",
    ("memory", NOT_ENFORCED): "nothing bounds the memory",
    ("pids", NOT_ENFORCED): "nothing bounds the number of tasks",
    ("swap", NOT_ENFORCED): "nothing bounds the swap",
    ("cpu", NOT_ENFORCED): "only nice and the scheduler class apply",
    ("io", NOT_ENFORCED): "only the I/O priority applies",
    **{(name, NOT_ENFORCED): "the service runs without it" for name in PROTECTIONS},
    ("oom_group", NOT_ENFORCED): "when memory runs out the kernel may kill one process of a service alone",
}


class EnforcementError(Exception):
    """The profile requires cgroup v2 or a sandbox and the machine cannot. ``problems``: ``cannot X: why; fix: Y``."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


def explain(resource: str, kind: str, code: str) -> tuple[str, str]:
    """What follows 'because' and 'fix:' for a limit that is not enforced; ('', '') for one that is."""
    if kind == ENFORCED or (kind == UNSET and not code):
        return "", ""
    because, fix = reason(resource, code)
    effect = consequence(resource, kind)
    return f"{because}; {effect}" if effect else because, fix


def reason(resource: str, code: str) -> tuple[str, str]:
    """(why, fix) of a code, without what follows from it for the resource.

    A code unknown here, of an agent newer than this command, is passed on as it is.
    """
    controller = CONTROLLER.get(resource, resource)
    words = {"controller": controller, "built_with": _BUILT_WITH.get(controller, f"the {controller} controller")}
    if code.startswith("refused:"):
        name = code.partition(":")[2]
        fix = _REFUSALS.get(name, "see the kernel log, and take the limit out if it cannot be had")
        return f"the kernel refused the value ({_errno(name)})", fix.format(**words)
    if code not in _CODES:
        return f"the agent says '{code}'", "see `edge-agent events` and the kernel log"
    return _CODES[code].because.format(**words), _CODES[code].fix.format(**words)


def consequence(resource: str, kind: str) -> str:
    """What bounds the resource instead, if anything; '' where there is nothing to say."""
    return _MEANS.get((resource, kind), "")


def sentence(resource: str, kind: str, code: str) -> str:
    """``enforced``, ``no limit asked``, or ``sampled, because ...; fix: ...`` (likewise ``not enforced``)."""
    if kind == ENFORCED:
        return ENFORCED
    because, fix = explain(resource, kind, code)
    if kind == UNSET:
        return f"no limit set: {because}" if because else "no limit asked for"
    return f"{kind}, because {because}; fix: {fix}"


def mode(facts: Facts, setting: str) -> tuple[str, str]:
    """How the agent will hold its services: ('cgroup2' | 'sampling' | 'none', code why not cgroup2 or '')."""
    if setting in ("sampling", "none"):
        return setting, "by-setting"
    if not facts.cgroup_path:
        return "sampling", "no-cgroup2"
    return ("cgroup2", "") if facts.delegated else ("sampling", "not-delegated")


def predict(facts: Facts, plan: Plan) -> dict[str, Outlook]:
    """For each service, what of its limits will be held and how, as far as can be known before it starts."""
    return {service.name: _outlook(facts, plan.enforcement, service.limits) for service in plan.services}


def predict_total(facts: Facts, plan: Plan) -> Outlook:
    """The same for the total on all services together: memory and cpu."""
    return {resource: _held(facts, plan.enforcement, resource) for resource in ("memory", "cpu")}


def predict_sandboxes(facts: Facts, plan: Plan) -> dict[str, Outlook]:
    """For each service, what of its sandbox it will have, as far as can be known before it starts."""
    return {service.name: _confined(facts, service.sandbox) for service in plan.services}


def _confined(facts: Facts, sandbox: Sandbox) -> Outlook:
    mounts = (NOT_ENFORCED, facts.sandbox_obstacle) if facts.sandbox_obstacle else (ENFORCED, "")
    outlook = {}
    for name in PROTECTIONS:
        held = mounts if name not in ("no_new_privileges", "capabilities") else (ENFORCED, "")
        outlook[name] = held if asked(sandbox, name) else (UNSET, "")
    return outlook


def require(facts: Facts, plan: Plan) -> None:
    """Raise EnforcementError when the plan insists on what this machine does not give: cgroup v2, or a sandbox."""
    problems = [*_lacking_sandboxes(facts, plan), *(_lacking_controllers(facts, plan))]
    if problems:
        raise EnforcementError(problems)


def _lacking_sandboxes(facts: Facts, plan: Plan) -> list[str]:
    problems = []
    for service in plan.services:
        outlook = _confined(facts, service.sandbox)
        lacking = [name for name, (kind, _) in outlook.items() if kind == NOT_ENFORCED]
        if lacking and service.sandbox.required:
            because, fix = reason("", outlook[lacking[0]][1])
            names = ", ".join(lacking)
            fix = f"{fix}, or set required: false in its sandbox"
            problems.append(f"cannot sandbox {service.name} as asked ({names}): {because}; fix: {fix}")
    return problems


def _lacking_controllers(facts: Facts, plan: Plan) -> list[str]:
    if plan.enforcement != "cgroup2":
        return []
    lacking: dict[str, set[str]] = {}
    for outlook in (predict_total(facts, plan), *predict(facts, plan).values()):
        for resource, (_, code) in outlook.items():
            if code in MISSING:
                lacking.setdefault(code, set()).add(resource)
    problems = []
    for code in MISSING:
        names = [resource for resource in RESOURCES if resource in lacking.get(code, ())]
        for controller in dict.fromkeys(CONTROLLER[name] for name in names) if code == "no-controller" else ("",):
            group = [name for name in names if controller in ("", CONTROLLER[name])]
            if group:
                because, fix = explain(group[0], "", code)
                problems.append(f"cannot enforce {', '.join(group)} by cgroup2 as asked: {because}; fix: {fix}")
    return problems


def _outlook(facts: Facts, setting: str, limits: Limits) -> Outlook:
    asked = {
        "memory": limits.memory_limit is not None,
        "swap": limits.swap_limit is not None,
        "cpu": limits.cpu_limit is not None or limits.cpu_request > 0,
        "pids": limits.pids_limit is not None,
        "io": limits.io_weight is not None or _rates(limits),
        "oom_group": True,  # the agent sets it for every service
    }
    outlook = {name: _held(facts, setting, name) if asked[name] else (UNSET, "") for name in RESOURCES}
    if asked["swap"] and outlook["swap"][0] != ENFORCED and not facts.swap:
        outlook["swap"] = UNSET, "no-swap"
    if outlook["io"][0] == ENFORCED:
        if _rates(limits) and not facts.io_device:
            outlook["io"] = NOT_ENFORCED, "no-device"
        elif limits.io_weight is not None and not facts.io_weight:
            outlook["io"] = NOT_ENFORCED, "no-io-weight"
    return outlook


def _rates(limits: Limits) -> bool:
    return limits.io_read_bps is not None or limits.io_write_bps is not None


def _held(facts: Facts, setting: str, resource: str) -> tuple[str, str]:
    chosen, code = mode(facts, setting)
    if chosen == "cgroup2":
        controller = CONTROLLER[resource]
        if controller in facts.controllers:
            return ENFORCED, ""
        code = "memory-disabled" if controller == "memory" and facts.memory_disabled_on_cmdline else "no-controller"
    watched = resource in WATCHED and setting != "cgroup2" and chosen != "none"
    return SAMPLED if watched else NOT_ENFORCED, code


def _errno(name: str) -> str:
    number = getattr(errno, name, None)
    return f"{name}, {os.strerror(number)}" if isinstance(number, int) else name
