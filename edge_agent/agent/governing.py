"""The governor at work: triggers and looks in, its decisions carried out. At rest there is no timer.

A trigger of the kernel (PSI) wakes the agent; then it looks again and again until it is calm and everything is given
back. Without PSI it looks from time to time, the more often the less memory is left.
"""

from __future__ import annotations

import os

from .. import governor as g
from ..host.containment import MACHINE, TOTAL
from ..host.loop import ERROR, HANGUP, READ, URGENT
from ..host.senses import FULL, LEFT_OVER, SOME, Machine, Raw
from ..lifecycle import BACKOFF, KILLING, LIVE
from ..model import ESSENTIAL, Return, Shed, Unhealthy, Watch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ..governor import Decision, Look
    from ..host.loop import Timer
    from ..host.senses import Senses
    from ..model import Service
    from .performer import Agent

WINDOW = 500_000
"""Microseconds, the shortest of a trigger; it fires at governor.SOFT of it."""
STUCK_WINDOW, STUCK = 10_000_000, 8_000_000
"""Microseconds: a service that waits for memory as a whole for so much of so long makes no progress."""
STALE = 2.0
"""Seconds; counters from before that say nothing about now."""
SHORTEST = 0.05
"""Seconds; between two looks closer than that shares would be noise."""
SOON = 0.1
"""Seconds to the second look, when a trigger ends a rest and there is nothing yet to compare with."""
TIGHT = 0.1
"""Share of the machine's memory: less available than that, and the stalls of the machine as a whole count. Otherwise
they are those of services at their own limits, which are in there too."""
LIMITED = 3.0
"""Seconds for which a service waits by its own limit after it met it: memory.high has it sleep up to 2 s at a time."""
OFTEN, SELDOM, NEAR = 0.5, 10.0, 0.3
"""Without PSI: seconds between looks, from OFTEN at the edge to SELDOM where more than the share NEAR is free."""


class Governing:
    """One agent's governor. ``senses``: the door to what it sees and does."""

    def __init__(self, agent: Agent, senses: Senses) -> None:
        self.governor = g.Governor()
        self.last: Look | None = None
        self._agent = agent
        self._senses = senses
        self._machine = Machine()
        self._raw: dict[str | None, Raw] = {}
        self._at = -STALE
        self._limited: dict[str, float] = {}  # service -> when its own limit was last seen to stop it
        self._triggers: dict[int, str | None] = {}  # descriptor -> service, None for those of the node
        self._timer: Timer | None = None
        self._again = False
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
        for name, unit in self._agent.node.units.items():
            if unit.shed:
                grip = g.Grip(g.SHED, now, unit.service.limits.memory_request, 1, now, unit.shed)
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
        to kill because all of them had no room is shed: started again at once, it would do the same again."""
        unit = self._agent.node.units.get(name)
        if not self._begun or unit is None or oom not in (TOTAL, MACHINE):
            return
        again = (unit.then if unit.state == KILLING else unit.state) == BACKOFF  # else it has given up, or was stopped
        if not again or unit.service.importance >= ESSENTIAL:
            return
        self.governor, decisions = g.killed(self.governor, unit.service, held, self._agent.loop.now())
        for decision in decisions:
            self._carry_out(decision)
        self._schedule()

    def ended(self, name: str) -> None:
        """Its place is given back, and the triggers with it."""
        self._limited.pop(name, None)
        self._raw.pop(name, None)
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

    def close(self) -> None:
        """No more looks."""
        for fd in list(self._triggers):
            self._drop(fd)
        if self._timer is not None:
            self._timer.cancel()

    # -- looking -------------------------------------------------------------------------------------------------------

    def _pressed(self) -> None:
        """A trigger fired: that much has stalled in its window."""
        self.look(pressed=True)

    def look(self, *, pressed: bool = False) -> None:
        """See, decide, act, and settle when to look again. ``pressed``: by a trigger."""
        agent = self._agent
        now = agent.loop.now()
        self._again = pressed and now - self._at >= STALE
        if not pressed or now - self._at >= SHORTEST:
            self.last = look = self._see(now)
            services = {service.name: service for service in agent.node.plan.services}
            for name, unit in agent.node.units.items():
                if not unit.shed:
                    self.governor = g.released(self.governor, name, now)
            self.governor, decisions = g.decide(self.governor, look, services)
            for decision in decisions:
                self._carry_out(decision)
            if decisions:
                agent.woken()  # for those who follow the events
        self._schedule()

    def _see(self, now: float) -> Look:
        agent, senses = self._agent, self._senses
        elapsed = now - self._at
        fresh = SHORTEST <= elapsed < STALE
        before_machine, machine = self._machine, senses.machine()
        names = [name for name, unit in agent.node.units.items() if unit.state in LIVE and unit.pid]
        before, raw = self._raw, {}
        for name in (None, *names):
            found = senses.raw(name)
            if found is not None:
                raw[name] = found
        self._machine, self._raw, self._at = machine, raw, now

        def rate(after: int, earlier: int) -> float:
            return max(0.0, (after - earlier) / elapsed) if fresh else 0.0

        def share(after: int, earlier: int) -> float:
            return min(1.0, rate(after, earlier) / 1e6)

        total = raw.get(None, Raw())
        some, full = 0.0, 0.0
        if None not in raw or machine.available < TIGHT * machine.memory:
            some = share(machine.memory_some, before_machine.memory_some)
            full = share(machine.memory_full, before_machine.memory_full)
        loads = {}
        for name in names:
            sample = agent.watching.usage(name)
            after = raw.get(name, Raw(memory=0 if sample is None else sample.memory))
            earlier = before.get(name, after)
            loads[name] = g.Load(
                memory=after.memory,
                cpu=round(rate(after.cpu, earlier.cpu) / 1000),
                io=round(rate(after.io, earlier.io)),
                cpu_wait=share(after.cpu_some - after.throttled, earlier.cpu_some - earlier.throttled),
                io_wait=share(after.io_some, earlier.io_some),
            )
            if after.limited != before.get(name, Raw()).limited:
                self._limited[name] = now
            # Waiting at its own limit, or because it is held, is no reason to take from others.
            own = now - self._limited.get(name, -LIMITED) < LIMITED
            if not own and not self.governor.grips.get((g.MEMORY, name), g.Grip()).level:
                some = max(some, share(after.memory_some, earlier.memory_some))
                full = max(full, share(after.memory_full, earlier.memory_full))
        used = total.memory - total.cache if None in raw else sum(load.memory for load in loads.values())
        return g.Look(
            at=now,
            some=some,
            full=full,
            free=max(0, agent.node.memory - used),
            available=machine.available,
            machine=machine.memory,
            swap=machine.swap_free > LEFT_OVER,
            loads=loads,
        )

    def _schedule(self) -> None:
        agent = self._agent
        due = None if agent.done else g.next_look(self.governor, agent.loop.now())
        if due is None and not agent.done and not self._senses.psi:
            due = agent.loop.now() + self._pause()
        if self._again and not agent.done:
            due = agent.loop.now() + SOON
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if due is not None:
            self._timer = agent.loop.at(due, self.look)

    def _pause(self) -> float:
        """Without PSI: the less is left, the sooner."""
        look = self.last
        if look is None or not look.machine:
            return SELDOM
        left = min(look.available / look.machine, look.free / max(1, self._agent.node.memory))
        return OFTEN + (SELDOM - OFTEN) * min(1.0, left / NEAR) ** 2

    # -- doing ---------------------------------------------------------------------------------------------------------

    def _carry_out(self, decision: Decision) -> None:
        self._perform[type(decision)](decision)

    def _squeeze(self, action: g.Squeeze) -> None:
        self._press(action.name, action.resource, action.amount)
        self._agent.note("squeezed", action.name, action.text)

    def _press(self, name: str, resource: str, amount: int) -> None:
        limits = self._agent.node.units[name].service.limits
        swap = self.last is not None and self.last.swap and limits.swap_limit != 0
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
            self._agent.emit(Shed(name, f"squeezed, it did nothing but wait for memory for {share}"))
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
