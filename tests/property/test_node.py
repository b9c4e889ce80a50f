"""The whole node against a machine where anything may happen at any time."""

from __future__ import annotations

import os

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from edge_agent import model as m
from edge_agent.lifecycle import LIVE, OFF, QUARANTINED, UP, WAITING

from .world import World, essential_for

NAMES = ("a", "b", "c", "d", "e")
EXAMPLES = int(os.environ.get("EDGE_AGENT_EXAMPLES", "120"))
"""Look longer: 10000."""


@st.composite
def services(draw: st.DrawFn, name: str, before: list[str]) -> m.Service:
    request = draw(st.integers(0, 20)) * 10
    cpu = draw(st.integers(0, 20)) * 10
    return m.Service(
        name,
        ("/bin/true", str(draw(st.integers(0, 1)))),
        depends_on=tuple(draw(st.lists(st.sampled_from(before), unique=True, max_size=2))) if before else (),
        importance=draw(st.sampled_from((m.HEAVY, m.NORMAL, m.ESSENTIAL))),
        limits=m.Limits(
            memory_request=request, memory_limit=request + draw(st.integers(0, 3)) * 10, cpu_request=cpu, pids_limit=10
        ),
        health=m.Health(kind=draw(st.sampled_from(("", "tcp", "sd_notify"))), port=draw(st.integers(1, 2))),
        log=m.Log(kind=draw(st.sampled_from(("memory", "disk"))), max_bytes=draw(st.sampled_from((1000, 2000)))),
        restart=m.Restart(
            condition=draw(st.sampled_from(("always", "on_failure", "never"))),
            max_attempts=draw(st.sampled_from((0, 2, m.UNLIMITED))),
        ),
    )


@st.composite
def plans(draw: st.DrawFn) -> m.Plan:
    chosen: list[m.Service] = []
    for name in NAMES:
        if draw(st.booleans()):
            chosen.append(draw(services(name, [service.name for service in chosen])))
    reserve = draw(st.integers(0, 3)) * 10
    memory = sum(service.limits.memory_request for service in chosen) + reserve
    cpu = sum(service.limits.cpu_request for service in chosen)
    slack = draw(st.integers(0, 2)) * 50
    profile = draw(st.sampled_from(("edge", "night", "full")))
    return m.Plan(profile, "/etc/x.yaml", memory + slack, cpu + slack, reserve, 0, tuple(chosen))


class NodeMachine(RuleBasedStateMachine):
    """Every rule is something that can happen to a node; World checks the invariants after every single step."""

    world: World

    @initialize(plan=plans())
    def begin(self, plan: m.Plan) -> None:
        self.world = World(plan)
        self.request = 0

    def some(self, index: int) -> str | None:
        names = sorted(self.world.processes)
        return names[index % len(names)] if names else None

    @rule(index=st.integers(0, 4))
    def executes(self, index: int) -> None:
        if name := self.some(index):
            self.world.executes(name)

    @rule(index=st.integers(0, 4))
    def answers(self, index: int) -> None:
        if (name := self.some(index)) and self.world.processes[name].service.health.kind:
            self.world.answers(name)

    @rule(index=st.integers(0, 4), status=st.sampled_from((0, 1, -9, -15)))
    def dies(self, index: int, status: int) -> None:
        if (name := self.some(index)) and self.world.processes[name].released:
            self.world.dies(name, status)

    @rule(index=st.integers(0, 4))
    def emptied(self, index: int) -> None:
        if name := self.some(index):
            self.world.emptied(name)

    @rule(index=st.integers(0, 4))
    def unhealthy(self, index: int) -> None:
        if name := self.some(index):
            self.world.feed(m.Unhealthy(name, "3 probes failed"))

    @rule(name=st.sampled_from(NAMES), event=st.sampled_from((m.Executed, m.Ready, m.Emptied)))
    def late_news(self, name: str, event: type[m.Executed | m.Ready | m.Emptied]) -> None:
        """Of a generation that is over, as far as the host could ever send it."""
        unit = self.world.node.units.get(name)
        if unit is not None and unit.state not in LIVE:
            self.world.feed(event(name))

    @rule(seconds=st.sampled_from((0.1, 1.0, 10.0, 61.0, 3600.0)))
    def time_passes(self, seconds: float) -> None:
        self.world.pass_time(seconds)

    @rule(plan=plans())
    def switch(self, plan: m.Plan) -> None:
        self.request += 1
        self.world.feed(m.Switch(self.request, plan))

    @rule(name=st.sampled_from(NAMES), verb=st.sampled_from(("start", "stop", "restart")))
    def person_asks(self, name: str, verb: str) -> None:
        self.request += 1
        self.world.feed(m.Ask(self.request, verb, name))
        unit = self.world.node.units.get(name)
        accepted = not self.world.replies[self.request].code
        assert verb == "stop" or unit is None or not unit.shed or not accepted, "a person's start wins"

    @rule(name=st.sampled_from(NAMES))
    def is_shed(self, name: str) -> None:
        world, before = self.world, self.world.node.units.get(name)
        world.feed(m.Shed(name, "memory some 34% over 30% for 1.2 s"))
        wanted = {service.name for service in world.node.plan.services} if not world.node.closing else set()
        if before is not None and name in wanted and essential_for(world.node.plan, name) < m.ESSENTIAL:
            assert world.node.units[name].shed == before.shed or not before.shed
            assert world.node.units[name].shed

    @rule(name=st.sampled_from(NAMES))
    def there_is_room_for_it(self, name: str) -> None:
        self.world.feed(m.Return(name, "memory calm for 10 s"))
        unit = self.world.node.units.get(name)
        assert unit is None or not unit.shed or self.world.node.closing

    @rule(name=st.sampled_from(NAMES), fails=st.booleans())
    def launches_fail(self, name: str, fails: bool) -> None:
        (self.world.fail_launches.add if fails else self.world.fail_launches.discard)(name)

    @rule(name=st.sampled_from(NAMES))
    def leaves_processes_behind(self, name: str) -> None:
        self.world.leave_behind.add(name)

    @precondition(lambda self: not self.world.node.closing)
    @rule()
    def agent_is_killed(self) -> None:
        before = {name for name, unit in self.world.node.units.items() if unit.shed}
        change = self.world.node.change
        self.world.restart_agent()
        after = {name for name, unit in self.world.node.units.items() if unit.shed}
        assert change is not None or before == after, "a new agent forgets, or makes up, who is shed"

    @invariant()
    def holds(self) -> None:
        if hasattr(self, "world"):
            self.world.check()

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        self.world.replay()
        self.world.calm()
        for name, unit in self.world.node.units.items():
            assert not unit.shed or unit.state == OFF, f"{name} is shed and never off: {unit}"
        self.world.return_all()
        self.world.calm()
        node = self.world.node
        assert node.change is None, "a switch never ends"
        for name, unit in node.units.items():
            blocked = unit.state == WAITING and any(
                node.units[other].state not in UP for other in unit.service.depends_on
            )
            assert unit.down or blocked or unit.state in UP | {QUARANTINED}, f"{name} is forgotten: {unit}"
        self.world.feed(m.Shutdown())
        self.world.calm()
        assert self.world.exited
        assert not self.world.processes


TestNode = NodeMachine.TestCase
TestNode.settings = settings(max_examples=EXAMPLES // 2, stateful_step_count=40, deadline=None)
