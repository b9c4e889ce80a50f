"""What an earlier agent left running: taken over without a restart, or said to have died. Never a stranger.

Each record names a process by pid and start time, and the containment must own that pid now. Processes without a
readable record are known by their containment's name: the plan's service of that name takes them over if a session
leader is among them, as every main process is one (setsid(2) in ``host.process``); otherwise they are ended.
"""

from __future__ import annotations

import os
import time

from ..host import process
from ..lifecycle import KILLING, LIVE, OFF, READY, STARTING, Unit
from ..model import Exited, Plan, Service
from ..reconciler import boot
from ..records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..host.containment import Containment
    from ..host.process import Processes
    from .performer import Agent

PATIENCE = 2.0
"""Seconds for a released process to execute its program."""


class Found(Record):
    """What there is: units by name, descriptors of the living main processes, the ends of the dead, and what to say.

    ``empty``: services that have a place in the containment and nothing in it.
    """

    units: dict[str, Unit]
    pidfds: dict[str, int]
    dead: dict[str, Exited]
    empty: tuple[str, ...]
    said: tuple[str, ...]


def resume(agent: Agent, plan: Plan, committed: Plan | None, degraded: str = "") -> None:
    """Take over what is on record and what is there, and go on to ``plan`` from the last known good one."""
    now = agent.loop.now()
    found = recover(agent.store.units(), agent.containment, committed or plan, now, agent.processes)
    for complaint in agent.store.complaints:
        agent.note("set-aside", "", complaint, notable=True)
    for remark in agent.store.remarks:
        agent.note("release", "", remark, notable=True)
    for said in found.said:
        agent.note("adoption", "", said)
    if degraded:
        agent.note("degraded", "", degraded, notable=True)
    for name, end in found.dead.items():
        if end.oom:
            agent.count(name, f"killed-{end.oom}")
    node, actions = boot(plan, committed, found.units, found.dead, now, degraded)
    agent.begin(node, actions, found)


def recover(
    records: dict[str, Unit],
    containment: Containment,
    plan: Plan,
    now: float,
    processes: Processes = process,
) -> Found:
    """Hold the records against the processes that are there. Opens a pidfd for each adopted one."""
    units: dict[str, Unit] = {}
    pidfds: dict[str, int] = {}
    dead: dict[str, Exited] = {}
    empty: list[str] = []
    said: list[str] = []
    known = {service.name: service for service in plan.services}
    for name, unit in records.items():
        units[name] = unit
        if unit.state not in LIVE:
            continue
        pidfd = processes.open_pidfd(unit.pid, unit.started) if unit.pid else -1
        if pidfd >= 0 and _ours(name, unit, containment, processes):
            pidfds[name] = pidfd
            if unit.state == STARTING and unit.service.health.kind == "sd_notify":
                # READY=1 may have been said while nobody listened, and is said once: waiting could cost a restart.
                units[name] = unit._replace(state=READY, since=now, ready_at=now, deadline=None)
            said.append(f"adopted {name}, pid {unit.pid}")
            continue
        if pidfd >= 0:
            os.close(pidfd)
            said.append(f"did not adopt {name}: pid {unit.pid} is not in its containment any more")
        dead[name] = Exited(name, unit.pid, processes.reap(unit.pid) if unit.pid else None, containment.oom_cause(name))
    for name in containment.names():
        if name in units and units[name].state in LIVE:
            continue
        members = containment.members(name)
        if not members:
            empty.append(name)
            continue
        unit, pidfd = _rebuild(name, members, known.get(name), containment, now, processes)
        units[name] = unit
        if pidfd >= 0:
            pidfds[name] = pidfd
            said.append(f"adopted {name}, pid {unit.pid}, without a record")
        else:
            said.append(f"ends {len(members)} processes of {name}: no record tells what they are")
    return Found(units, pidfds, dead, tuple(empty), tuple(said))


def _ours(name: str, unit: Unit, containment: Containment, processes: Processes) -> bool:
    """Is the process on record, alive with its pid and start time, really the service's?

    Besides what the containment owns there are two: a process that was released just before the agent died, and is
    still that agent's fork for some milliseconds; and, where nothing but its environment marks a process, one that
    wrote its title over its environment, as nginx, redis and postgres do. ``launch`` made it the leader of a session.
    """
    until = time.monotonic() + PATIENCE
    while True:
        fields = processes.read_stat(unit.pid)
        if fields is None or int(fields[19]) != unit.started:
            return False
        if containment.owns(name, unit.pid):
            return True
        if containment.kind == "tree" and int(fields[3]) == unit.pid:
            return True
        if processes.program(unit.pid) != processes.program(os.getpid()) or time.monotonic() > until:
            return False
        time.sleep(0.01)


def _rebuild(
    name: str,
    members: list[int],
    service: Service | None,
    containment: Containment,
    now: float,
    processes: Processes,
) -> tuple[Unit, int]:
    """A unit from the processes alone, with a pidfd of the main one, or -1 when they are to be killed."""
    stats = {pid: fields for pid in members if (fields := processes.read_stat(pid)) is not None}
    for started, pid in sorted((int(fields[19]), pid) for pid, fields in stats.items()):
        if service is None or int(stats[pid][3]) != pid:
            continue
        pidfd = processes.open_pidfd(pid, started)
        if pidfd >= 0 and containment.owns(name, pid):
            state = STARTING if service.health.kind in ("tcp", "http", "exec") else READY
            deadline = now + service.start_timeout if state == STARTING else None
            ready_at = now if state == READY else None
            return Unit(service, state, pid, started, now, deadline, ready_at), pidfd
        if pidfd >= 0:
            os.close(pidfd)
    spec = service or Service(name, ("/nonexistent",))
    return Unit(spec, KILLING, since=now, deadline=now, then=OFF), -1
