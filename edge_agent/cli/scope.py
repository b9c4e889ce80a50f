"""A delegated cgroup for an agent that a person starts on a systemd machine: a transient scope with Delegate=yes.

systemd moves this very process into the scope, so standard streams, environment and pid stay what they are. The scope
is named after the run directory; when it still exists, because an agent was killed and its services live on in it,
this process joins it instead, and the next agent finds them. systemd.scope(5), org.freedesktop.systemd1(5).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from binascii import crc32

from ..demand import Facts
from ..host.facts import CGROUP_ROOT_VARIABLE
from ..host.hierarchy import AGENT, read_text
from .context import Context

BUSCTL = "busctl"
ENFORCEMENTS = ("auto", "cgroup2")
"""Settings of a profile with which a delegated cgroup is of use."""
PATIENCE = 5.0  # seconds for systemd to do it
DEFAULT_RUN = "/run/edge-agent"
_MANAGER = ("org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager")


def wanted(facts: Facts, enforcement: str) -> bool:
    """Whether there is a cgroup to be had that this process has not, and was not told to use another."""
    if os.environ.get(CGROUP_ROOT_VARIABLE):
        return False
    return facts.systemd and facts.cgroup == "unified" and not facts.delegated and enforcement in ENFORCEMENTS


def granted(facts: Facts, *, root: str = "/sys/fs/cgroup", uid: int | None = None) -> Facts:
    """The machine as an agent in the scope would see it: every controller that the service manager itself has.

    For root that is the system's manager, for others their own, user@.service(5). Without a manager nothing changes.
    """
    uid = os.geteuid() if uid is None else uid
    manager = root if uid == 0 else f"{root}/user.slice/user-{uid}.slice/user@{uid}.service"
    controllers = tuple(read_text(f"{manager}/cgroup.controllers").split())
    return facts._replace(delegated=True, controllers=controllers) if controllers else facts


def enter(context: Context, *, own: str = "/proc/self/cgroup", patience: float = PATIENCE) -> str:
    """Move into the scope. '' when it worked, else why not, for people. ``own``: where this process's cgroup shows."""
    program = shutil.which(BUSCTL, path=context.environ.get("PATH"))
    if program is None:
        return f"{BUSCTL} is not installed"
    base = [program, *(() if os.geteuid() == 0 else ("--user",)), "call", *_MANAGER]
    name = unit_name(context.directories.run)
    pid = str(os.getpid())
    before = read_text(own)
    start = ["StartTransientUnit", "ssa(sv)a(sa(sv))", name, "fail", "3"]
    start += ["Description", "s", f"edge-agent with {context.directories.run}"]
    start += ["Delegate", "b", "true", "PIDs", "au", "1", pid, "0"]
    failure = _call([*base, *start])
    if failure:
        context.debug("no new scope {}: {}", name, failure)
        if _call([*base, "AttachProcessesToUnit", "ssau", name, f"/{AGENT}", "1", pid]):
            return failure
    until = time.monotonic() + patience
    while read_text(own) == before:  # the method call returns when the job is queued, not done
        if time.monotonic() > until:
            return f"systemd has not started {name} in {patience:g} s"
        time.sleep(0.01)
    return ""


def unit_name(run_dir: str) -> str:
    """``edge-agent.scope`` for the system's run directory, another for every other one."""
    if run_dir == DEFAULT_RUN:
        return "edge-agent.scope"
    return f"edge-agent-{crc32(run_dir.encode()):08x}.scope"


def _call(argv: list[str]) -> str:
    """'' or what the program said on standard error."""
    try:
        done = subprocess.run(argv, capture_output=True, timeout=PATIENCE, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if done.returncode == 0:
        return ""
    return done.stderr.decode("utf-8", "replace").strip() or f"{BUSCTL} exited with {done.returncode}"
