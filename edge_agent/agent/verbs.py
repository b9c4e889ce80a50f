"""Answers to the control socket's verbs. Reading is for everybody who may connect; plans and ends are for root."""

from __future__ import annotations

import os
import time

from .. import __version__, codec
from ..control.connection import Request
from ..digests import sha256
from ..grips import due
from ..host import confinement
from ..lifecycle import HOLDING, Unit
from ..model import ESSENTIAL, PROTECTIONS, Ask, Shutdown, Switch
from ..reconciler import room

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ..host.loop import Timer
    from .performer import Agent

LOG_CHUNK = 64 * 1024
LONGEST_WAIT = 3600.0
"""Who follows the events of a node at rest wakes it up so rarely."""
VIEWED = ("status", "events", "digest")


class Verbs:
    """The handler of requests. ``reload`` and ``reexec`` are what the process as a whole does."""

    def __init__(
        self,
        agent: Agent,
        reload: Callable[[Callable[[str], None]], None],
        reexec: Callable[[], None],
        enforcement: str,
    ) -> None:
        self.agent = agent
        self.enforcement = enforcement
        self.started = time.time()
        self._reload = reload
        self._reexec = reexec
        self._next = 1
        self._waiting: list[tuple[Request, Callable[[], bool], Timer]] = []
        self._cpu_before: dict[str, tuple[float, int]] = {}
        self._verbs: dict[str, tuple[Callable[[Request], None], bool]] = {  # verb -> (answer, only for the privileged)
            "status": (self._status, False),
            "plan": (self._plan, False),
            "digest": (self._digest, False),
            "look": (self._look, False),
            "switch": (self._switch, True),
            "start": (self._ask, False),
            "stop": (self._ask, False),
            "restart": (self._ask, False),
            "logs": (self._logs, False),
            "events": (self._events, False),
            "shutdown": (self._shutdown, True),
            "reload": (self._do_reload, True),
            "reexec": (self._do_reexec, True),
        }

    def __call__(self, request: Request) -> None:
        """Answer one request, now or when what it waits for has come."""
        answer, privileged = self._verbs.get(request.verb, (None, False))
        if answer is None:
            request.fail(
                "unknown-verb",
                f"cannot {request.verb!r:.40}: this agent does not know it",
                "use the client of its version",
            )
        elif privileged and not request.privileged:
            request.fail("denied", f"cannot {request.verb}: it is for root and the agent's user", "use sudo")
        else:
            try:
                answer(request)
            except (KeyError, TypeError, ValueError) as error:
                request.fail("bad-request", f"cannot {request.verb}: its arguments are wrong: {error!r:.200}")

    def viewed(self, request: Request) -> None:
        """Answer one request of somebody who may look at what goes on and do nothing else."""
        if request.verb in VIEWED:
            self(request)
        else:
            why = f"cannot {request.verb!r:.40}: this socket tells what goes on and does nothing else"
            request.fail("denied", why, "use the control socket")

    def add(self, verb: str, answer: Callable[[Request], None], *, privileged: bool) -> None:
        """One more verb."""
        self._verbs[verb] = (answer, privileged)

    def wake(self) -> None:
        """Something was logged or has happened: serve those who wait for it."""
        if self._waiting:
            self._waiting = [entry for entry in self._waiting if not self._served(*entry)]

    def _served(self, request: Request, attempt: Callable[[], bool], timer: Timer) -> bool:
        if request.closed or attempt():
            timer.cancel()
            return True
        return False

    def _wait(self, request: Request, attempt: Callable[[], bool], otherwise: Callable[[], None]) -> None:
        """Answer by ``attempt`` as soon as it can, by ``otherwise`` after the wait that the client asked for."""
        wait = min(float(request.args.get("wait", 0)), LONGEST_WAIT)
        if attempt():
            return
        if not wait > 0:
            otherwise()
            return
        loop = self.agent.loop

        def expire() -> None:
            self._waiting = [entry for entry in self._waiting if entry[0] is not request]
            otherwise()

        timer = loop.at(loop.now() + wait, expire)
        self._waiting.append((request, attempt, timer))
        request.when_closed = lambda: self._forget(request, timer)

    def _forget(self, request: Request, timer: Timer) -> None:
        """Its client is gone."""
        timer.cancel()
        self._waiting = [entry for entry in self._waiting if entry[0] is not request]

    # -- what changes something ----------------------------------------------------------------------------------------

    def _enroll(self, request: Request) -> int:
        self._next += 1
        self.agent.requests[self._next] = request
        return self._next

    def _switch(self, request: Request) -> None:
        try:
            plan = codec.unpack_plan(request.args["plan"])
        except codec.PlanError as error:
            request.fail("refused", f"cannot switch: {error}", "compile the plan with this version of edge-agent")
            return
        self.agent.emit(Switch(self._enroll(request), plan))

    def _ask(self, request: Request) -> None:
        name = request.args["name"]
        if name not in self.agent.node.units:
            request.fail(
                "unknown", f"cannot {request.verb} {name!r:.80}: there is no such service", "see `edge-agent status`"
            )
            return
        self.agent.emit(Ask(self._enroll(request), request.verb, name))

    def _shutdown(self, request: Request) -> None:
        request.reply({})
        self.agent.emit(Shutdown())

    def _do_reload(self, request: Request) -> None:
        if not request.args.get("wait"):
            request.reply({})

        def ended(failure: str) -> None:  # an answer given already is not given twice
            if failure:
                request.fail("failed", failure, "see `edge-agent plan`")
            else:
                request.reply({})

        self._reload(ended)

    def _do_reexec(self, request: Request) -> None:
        self.agent.records.save()
        if self.agent.records.complete:
            request.reply({})
            self._reexec()
        else:
            why = "cannot execute itself anew: not every service is on record, as the run directory is full"
            request.fail("refused", why, f"free {self.agent.store.run_dir}")

    # -- what only reads -----------------------------------------------------------------------------------------------

    def _plan(self, request: Request) -> None:
        node = self.agent.node
        request.reply({"plan": codec.pack_plan(node.plan), "committed": node.change is None})

    def _digest(self, request: Request) -> None:
        """Which plan is in force, without what is in it: commands and environments are not for everybody."""
        node = self.agent.node
        digest = sha256(codec.pack_plan(node.plan)).digest()
        request.reply({"sha256": digest, "committed": node.change is None})

    def _look(self, request: Request) -> None:
        """The governor's counters, read once more; its own looks are not disturbed."""
        reading = self.agent.governing.read(self.agent.loop.now())
        request.reply(
            {
                **reading._asdict(),
                "machine": reading.machine._asdict(),
                "all": None if reading.all is None else reading.all._asdict(),
                "services": {name: raw._asdict() for name, raw in reading.services.items()},
            }
        )

    def _logs(self, request: Request) -> None:
        name, cursor = request.args["name"], int(request.args.get("cursor", -1))
        sink = self.agent.sink(name)
        if sink is None:
            request.fail("unknown", f"cannot show the log of {name!r:.80}: it has none here", "see `edge-agent status`")
            return

        def attempt() -> bool:
            data, after = sink.read(cursor, LOG_CHUNK)
            if data:
                request.reply({"data": data, "cursor": after})
            return bool(data)

        self._wait(request, attempt, lambda: request.reply({"data": b"", "cursor": sink.read(cursor, 0)[1]}))

    def _events(self, request: Request) -> None:
        journal = self.agent.journal
        cursor, service = int(request.args.get("cursor", 0)), str(request.args.get("service", ""))
        if cursor < 0:
            cursor = journal.last

        def attempt() -> bool:
            found = journal.since(cursor, service)
            if found:
                fields = ("seq", "time", "kind", "service", "text", "kept")
                events = [{field: getattr(entry, field) for field in fields} for entry in found]
                request.reply({"events": events, "cursor": found[-1].seq})
            return bool(found)

        self._wait(request, attempt, lambda: request.reply({"events": [], "cursor": cursor}))

    def _status(self, request: Request) -> None:
        agent, node = self.agent, self.agent.node
        change = node.change
        memory, cpu = agent.containment.usage(None).memory, 0.0
        services = {}
        for name, unit in node.units.items():
            services[name] = entry = self._service(name, unit)
            cpu += entry["cpu"]["used"] or 0.0
        held = [unit.service.limits for unit in node.units.values() if unit.state in HOLDING]
        plan = node.plan
        reserve_memory, reserve_cpu = plan.memory_reserve, plan.cpu_reserve
        if memory is None:
            known = [entry["memory"]["used"] for entry in services.values() if entry["memory"]["used"] is not None]
            memory = sum(known) if known else None
        request.reply(
            {
                "profile": plan.profile,
                "source": plan.source,
                "degraded": node.degraded or None,
                "switching": f"from {change.old.profile} to {plan.profile}" if change is not None else None,
                "stopping": node.closing,
                "enforcement": self.enforcement,
                "notes": list(plan.notes),
                "schedule": [entry._asdict() for entry in plan.schedule],
                "agent": self._agent(),
                "budget": {
                    "memory": {
                        "total": node.memory + reserve_memory,
                        "goal": plan.memory_total,
                        "reserve": reserve_memory,
                        "requested": sum(limits.memory_request for limits in held) + reserve_memory,
                        "used": memory,
                        "enforcement": _report(agent.total_report, "memory"),
                    },
                    "cpu": {
                        "total": (node.cpu + reserve_cpu) / 1000,
                        "goal": plan.cpu_total / 1000,
                        "reserve": reserve_cpu / 1000,
                        "requested": (sum(limits.cpu_request for limits in held) + reserve_cpu) / 1000,
                        "used": round(cpu, 3),
                        "enforcement": _report(agent.total_report, "cpu"),
                    },
                },
                "room": list(room(plan)),
                "governor": self._governor(),
                "services": services,
            }
        )

    def _governor(self) -> dict[str, Any]:
        """What is withheld, why, and when it may be given back if it stays calm until then."""
        governing, away = self.agent.governing, time.time() - self.agent.loop.now()
        held = [
            {
                "resource": resource,
                "service": name,
                "level": grip.level,
                "since": grip.since + away,
                "until": due(governing.governor, resource, grip) + away,
                "why": grip.why,
            }
            for (resource, name), grip in governing.governor.grips.items()
            if grip.level
        ]
        return {"held": held, "next": None if governing.next is None else governing.next + away}

    def _service(self, name: str, unit: Unit) -> dict[str, Any]:
        agent, limits = self.agent, unit.service.limits
        usage = agent.containment.usage(name)
        sample = agent.watching.usage(name)
        if sample is not None and unit.pid:
            usage = usage._replace(
                memory=sample.memory if usage.memory is None else usage.memory,
                pids=sample.pids if usage.pids is None else usage.pids,
                cpu_usec=sample.cpu_usec if usage.cpu_usec is None else usage.cpu_usec,
            )
        report = agent.reports.get(name, {})
        away = time.time() - agent.loop.now()
        return {
            "state": unit.state,
            "reason": unit.reason,
            "pid": unit.pid,
            "restarts": unit.restarts,
            "attempts": unit.attempts,
            "counts": agent.counts.get(name, {}),
            "since": unit.since + away,
            "next": None if unit.deadline is None else unit.deadline + away,
            "down": unit.down,
            "shed": unit.shed,
            "importance": unit.service.importance,
            "essential": unit.service.importance >= ESSENTIAL,
            "memory": {"request": limits.memory_request, "limit": limits.memory_limit, "used": usage.memory},
            "cpu": {
                "request": limits.cpu_request / 1000,
                "limit": None if limits.cpu_limit is None else limits.cpu_limit / 1000,
                "used": self._cpu(name, unit, usage.cpu_usec),
            },
            "pids": {"limit": limits.pids_limit, "used": usage.pids},
            "enforcement": {resource: {"kind": kind, "code": code} for resource, (kind, code) in report.items()},
            "sandbox": _confined(unit),
            "last_exit": {"text": unit.last_exit, "time": unit.last_exit_at + away} if unit.last_exit else None,
            "depends_on": list(unit.service.depends_on),
            "asleep": unit.service.scheduled and not unit.awake,
        }

    def _cpu(self, name: str, unit: Unit, usec: int | None) -> float | None:
        """Cores in use since the status before this one, or since the state began."""
        if usec is None:
            return None
        now = self.agent.loop.now()
        at, before = self._cpu_before.get(name, (unit.since, 0))
        if usec < before or at >= now:
            at, before = unit.since, 0
        self._cpu_before[name] = (now, usec)
        return round((usec - before) / 1e6 / (now - at), 3) if now > at else 0.0

    def _agent(self) -> dict[str, Any]:
        sizes = {"Pss": 0, "Rss": 0, "Private_Dirty": 0}
        try:
            with open("/proc/self/smaps_rollup", encoding="ascii") as file:
                for line in file:
                    key, _, rest = line.partition(":")
                    if key in sizes:
                        sizes[key] = int(rest.split()[0]) * 1024
        except OSError:
            pass  # a kernel without CONFIG_PROC_PAGE_MONITOR: the sizes are then 0
        return {
            "pid": os.getpid(),
            "version": __version__,
            "pss_bytes": sizes["Pss"],
            "rss_bytes": sizes["Rss"],
            "private_dirty_bytes": sizes["Private_Dirty"],
            "wakeups": self.agent.loop.wakeups,
            "since": self.started,
        }


def _confined(unit: Unit) -> dict[str, dict[str, str]]:
    """What of its sandbox the process has, as the kernel shows it now; {} when nothing runs or nothing is asked."""
    if not unit.pid or not any(confinement.asked(unit.service.sandbox, name) for name in PROTECTIONS):
        return {}
    report = confinement.report(unit.service.sandbox, unit.pid)
    return {name: {"kind": kind, "code": code} for name, (kind, code) in report.items()}


def _report(report: dict[str, tuple[str, str]], resource: str) -> dict[str, str]:
    kind, code = report.get(resource, ("not enforced", "unknown"))
    return {"kind": kind, "code": code}
