"""The governor at work: triggers and looks in, its decisions carried out. At rest there is no timer.

A trigger of the kernel (PSI) wakes the agent; then it looks again and again until it is calm and everything is given
back. Without PSI it looks from time to time, the more often the less memory is left.
"""

from __future__ import annotations

import os

from .. import governor as g
from ..host.containment import MACHINE, TOTAL
from ..host.loop import ERROR, HANGUP, READ, URGENT
from ..host.senses import FULL, SOME
from ..lifecycle import BACKOFF, KILLING, LIVE
from ..looks import RARE, SHORTEST, STALE, Look, Raw, Reading, between
from ..model import ESSENTIAL, Return, Shed, Unhealthy, Watch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ..governor import Decision
    from ..host.loop import Timer
    from ..host.senses import Senses
    from ..model import Service
    from .performer import Agent

WINDOW = 500_000
"""Microseconds, the shortest of a trigger; it fires at governor.SOFT of it."""
SOON = 0.1
"""Seconds to the second look, when a trigger ends a rest and there is nothing yet to compare with: it may be one of cpu
as well as one of memory."""
STUCK_WINDOW, STUCK = 10_000_000, 8_000_000
"""Microseconds: a service that waits for memory as a whole for so much of so long makes no progress."""


class Governing:
    """One agent's governor. ``senses``: the door to what it sees and does."""

    def __init__(self, agent: Agent, senses: Senses) -> None:
        self.governor = g.Governor()
        self.last = Look(agent.loop.now(), psi=senses.psi)
        self._agent = agent
        self._senses = senses
        self._reading = Reading(-RARE)
        self._triggers: dict[int, str | None] = {}  # descriptor -> service, None for those of the node
        self._timer: Timer | None = None
        self._again = False  # the look was the first after a rest
        self._begun = False
        self._perform: dict[type, Callable[[Any], None]] = {
            g.Squeeze: self._squeeze,
            g.Relax: self._relax,
            g.Freeze: lambda action: self._freeze(action, frozen=True),
            g.Thaw: lambda action: self._freeze(action, frozen=False),
            g.Helpless: lambda action: agent.note("helpless", "", action.text, notable=True),
            Shed: agent.emit,
            Return: agent.emit,
        }

    def begin(self) -> None:
        """Take up what an earlier agent had shed, and listen to the node."""
        now, self._begun = self._agent.loop.now(), True
        self.governor = self.governor._replace(unheld=self._senses.unheld)
        for name, unit in self._agent.node.units.items():
            if unit.shed:
                grip = g.Grip(g.SHED, now, unit.service.limits.memory_request, 1, unit.shed)
                self.governor = self.governor._replace(grips={**self.governor.grips, (g.MEMORY, name): grip})
        share = round(g.SOFT * WINDOW)
        self._listen(self._senses.arm(None, g.MEMORY, SOME, share, WINDOW), None, self._pressed)
        self._listen(self._senses.arm_machine(share, WINDOW), None, self._pressed)
        self._schedule()

    def started(self, service: Service) -> None:
        """A service has a place: listen to it, and hold it as it was held before."""
        name = service.name
        self.ended(name)
        stuck = self._senses.arm(name, g.MEMORY, FULL, STUCK, STUCK_WINDOW)
        self._listen(stuck, name, lambda: self._stuck(name))
        if service.importance >= ESSENTIAL:
            for resource in (g.CPU, g.IO):
                fd = self._senses.arm(name, resource, SOME, round(g.SOFT * WINDOW), WINDOW)
                self._listen(fd, name, self._pressed)
        self.hold(name)

    def adopted(self, service: Service) -> None:
        """An earlier agent may have held it."""
        self._senses.relax(service, g.MEMORY)
        self._senses.freeze(service.name, frozen=False)
        self.started(service)

    def peak(self, name: str) -> int:
        """Bytes that it has held at most since it was started."""
        return self._senses.peak(name)

    def killed(self, name: str, oom: str, held: int) -> None:
        """It has died, having held so many bytes; ``oom``: of which limit, as in ``model.Exited``. What the kernel had
        to kill because all of them had no room is shed, if it would be started again."""
        unit = self._agent.node.units.get(name)
        if not self._begun or unit is None or oom not in (TOTAL, MACHINE):
            return
        if (unit.then if unit.state == KILLING else unit.state) != BACKOFF:  # it has given up, or was stopped
            return
        self._take(g.killed(self.governor, self._services(), name, held, self._agent.loop.now()))
        self._schedule()

    def ended(self, name: str) -> None:
        """Its place is given back, and the triggers with it."""
        services = {other: raw for other, raw in self._reading.services.items() if other != name}
        self._reading = self._reading._replace(services=services)
        for fd in [fd for fd, owner in self._triggers.items() if owner == name]:
            self._drop(fd)

    def hold(self, name: str) -> None:
        """Its limits were written anew: squeeze what is squeezed."""
        for (resource, owner), grip in self.governor.grips.items():
            if owner == name and grip.level == g.SQUEEZED:
                self._press(name, resource, grip.amount)

    def let_go(self, name: str) -> None:
        """It is to stop: a frozen one could not."""
        grip = self.governor.grips.get((g.MEMORY, name))
        if grip is not None and grip.level in (g.FROZEN, g.SHED):
            self._senses.freeze(name, frozen=False)

    @property
    def next(self) -> float | None:
        """When the next look is due, though no trigger fires."""
        return None if self._timer is None else self._timer.due

    def close(self) -> None:
        """No more looks."""
        for fd in list(self._triggers):
            self._drop(fd)
        if self._timer is not None:
            self._timer.cancel()

    # -- looking -------------------------------------------------------------------------------------------------------

    def _pressed(self) -> None:
        """A trigger fired: that much has stalled in its window, of memory, or of an essential's cpu or io."""
        self.look(pressed=True)

    def look(self, *, pressed: bool = False) -> None:
        """See, decide, act, and settle when to look again."""
        agent = self._agent
        now = agent.loop.now()
        self._again = pressed and now - self._reading.at >= STALE
        if not pressed or now - self._reading.at >= SHORTEST:
            before, self._reading = self._reading, self.read(now)
            self.last = look = between(before, self._reading)
            for name, unit in agent.node.units.items():
                if not unit.shed:
                    self.governor = g.released(self.governor, name, now)
            self._take(g.decide(self.governor, look, self._services()))
        self._schedule()

    def read(self, now: float) -> Reading:
        """All counters. Nothing changes by it."""
        agent, senses = self._agent, self._senses
        services = {}
        for name, unit in agent.node.units.items():
            if unit.state in LIVE and unit.pid:
                raw, sample = senses.raw(name) or Raw(), agent.watching.usage(name)
                services[name] = raw if raw.memory or sample is None else raw._replace(memory=sample.memory)
        return Reading(now, senses.machine(), senses.raw(None), services, agent.node.memory, senses.psi)

    def _services(self) -> dict[str, Service]:
        return {service.name: service for service in self._agent.node.plan.services}

    def _schedule(self) -> None:
        agent = self._agent
        due = None if agent.done else g.next_look(self.governor, self.last)
        if self._again and not agent.done:
            due = agent.loop.now() + SOON
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if due is not None:
            self._timer = agent.loop.at(due, self.look)

    # -- doing ---------------------------------------------------------------------------------------------------------

    def _take(self, decided: tuple[g.Governor, list[Decision]]) -> None:
        self.governor, decisions = decided
        for decision in decisions:
            self._perform[type(decision)](decision)
        if decisions:
            self._agent.woken()  # for those who follow the events

    def _squeeze(self, action: g.Squeeze) -> None:
        self._press(action.name, action.resource, action.amount)
        self._agent.note("squeezed", action.name, action.text)

    def _press(self, name: str, resource: str, amount: int) -> None:
        swap = self.last.swap and self._agent.node.units[name].service.limits.swap_limit != 0
        fd = self._senses.squeeze(name, resource, amount, swap=swap)
        if fd >= 0:
            self._agent.loop.watch(fd, READ, lambda _events: self._reclaimed(fd))

    def _reclaimed(self, fd: int) -> None:
        self._agent.loop.forget(fd)
        os.waitid(os.P_PIDFD, fd, os.WEXITED | os.WNOHANG)
        os.close(fd)

    def _relax(self, action: g.Relax) -> None:
        unit = self._agent.node.units.get(action.name)
        if unit is not None:
            if action.amount:
                self._press(action.name, action.resource, action.amount)
            else:
                self._senses.relax(unit.service, action.resource)
            self._agent.note("relaxed", action.name, action.text)

    def _freeze(self, action: g.Freeze | g.Thaw, *, frozen: bool) -> None:
        """A frozen service answers no probe."""
        agent = self._agent
        unit = agent.node.units.get(action.name)
        if unit is None:
            return
        if frozen:
            agent.prober.stop(action.name)
        self._senses.freeze(action.name, frozen=frozen)
        if not frozen and unit.state in LIVE and unit.service.health.kind:
            agent.perform(Watch(unit.service, ready=unit.ready_at is not None))
        agent.note("frozen" if frozen else "thawed", action.name, action.text, notable=frozen)

    def _stuck(self, name: str) -> None:
        """It lives, but does nothing but wait for memory under its own limit."""
        share = f"{STUCK / STUCK_WINDOW:.0%} of {STUCK_WINDOW // 1_000_000} s"
        if self.governor.grips.get((g.MEMORY, name), g.Grip()).level == g.SQUEEZED:
            held, now = self._reading.services.get(name, Raw()).memory, self._agent.loop.now()
            why = f"squeezed, it did nothing but wait for memory for {share}"
            self._take(g.away(self.governor, self._services(), name, held, now, why))
            self._schedule()
        else:
            self._agent.emit(Unhealthy(name, f"made no progress: all of it waited for memory for {share}"))

    # -- triggers ------------------------------------------------------------------------------------------------------

    def _listen(self, fd: int, name: str | None, call: Callable[[], None]) -> None:
        if fd < 0:
            return
        self._triggers[fd] = name

        def fired(events: int) -> None:
            if events & (ERROR | HANGUP):
                self._drop(fd)  # its cgroup has gone
            else:
                call()

        self._agent.loop.watch(fd, URGENT, fired)

    def _drop(self, fd: int) -> None:
        if self._triggers.pop(fd, self) is not self:
            self._agent.loop.forget(fd)
            os.close(fd)
