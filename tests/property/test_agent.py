"""A real agent on a machine where anything may happen at any time, its own death included."""

from __future__ import annotations

import errno
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Callable
from typing import TYPE_CHECKING

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from edge_agent.host.containment import MACHINE, OWN, TOTAL
from edge_agent.model import Ask, Plan, Shutdown, Switch

from .machine import Machine
from .test_node import NAMES, plans

if TYPE_CHECKING:
    from .doors import Main

EXAMPLES = int(os.environ.get("EDGE_AGENT_EXAMPLES", "120"))
FAULTS = (
    *(("prepare", code) for code in (errno.ENOENT, errno.EBUSY, errno.ENOSPC)),
    *(("launch", code) for code in (errno.ENOMEM, errno.EAGAIN)),
    *(("limit", code) for code in (errno.EINVAL, errno.EBUSY)),
    *(("save", code) for code in (errno.ENOSPC, errno.EIO)),
    *((call, errno.ENOSPC) for call in ("sink", "notify", "commit")),
    *((call, errno.EMFILE) for call in ("entry", "writer")),
    *((call, errno.EPERM) for call in ("setup", "set_total")),
    ("remove", errno.EBUSY),
)


class AgentMachine(RuleBasedStateMachine):
    """Every rule is something that can happen outside of the agent; Machine checks what must hold after each."""

    machine: Machine

    @initialize(plan=plans(), kind=st.sampled_from(("cgroup2", "tree")))
    def begin(self, plan: Plan, kind: str) -> None:
        self.before = sorted(os.listdir("/proc/self/fd"))  # noqa: PTH208
        self.machine = Machine(tempfile.mkdtemp(dir="/dev/shm"), kind, plan)

    def some(self, index: int) -> Main | None:
        living = self.machine.living()
        return living[index % len(living)] if living else None

    # -- services ------------------------------------------------------------------------------------------------------

    @rule()
    def all_execute(self) -> None:
        for main in self.machine.living():
            self.machine.executes(main)

    @rule(index=st.integers(0, 4))
    def executes(self, index: int) -> None:
        if main := self.some(index):
            self.machine.executes(main)

    @rule(index=st.integers(0, 4))
    def fails_to_execute(self, index: int) -> None:
        if main := self.some(index):
            self.machine.fails_to_execute(main)

    @rule(index=st.integers(0, 4), status=st.sampled_from((0, 1, -9, -15)))
    def ends(self, index: int, status: int) -> None:
        if main := self.some(index):
            self.machine.ends(main, status)

    @rule(index=st.integers(0, 4), whose=st.sampled_from((OWN, TOTAL, MACHINE)))
    def runs_out_of_memory(self, index: int, whose: str) -> None:
        if main := self.some(index):
            self.machine.out_of_memory(main.service.name, whose)

    @rule(index=st.integers(0, 4), stuck=st.booleans())
    def forks(self, index: int, stuck: bool) -> None:
        if (main := self.some(index)) and main.told == "":
            self.machine.host.fork(main.process.pid).stuck = stuck

    @rule(index=st.integers(0, 4))
    def gets_stuck(self, index: int) -> None:
        if (main := self.some(index)) and main.told == "":
            main.process.stuck = True

    @rule()
    def nothing_is_stuck_any_more(self) -> None:
        self.machine.unstick()

    @rule(index=st.integers(0, 4))
    def answers(self, index: int) -> None:
        if main := self.some(index):
            with self.machine.mortal():
                self.machine.answers(main.service.name)

    @rule(index=st.integers(0, 4))
    def sickens(self, index: int) -> None:
        if main := self.some(index):
            with self.machine.mortal():
                self.machine.sickens(main.service.name)

    @rule()
    def all_goes_well(self) -> None:
        """For a while, so that there is more to go wrong."""
        with self.machine.mortal():
            for _ in range(3):
                self.machine.all_work()
                self.machine.turn()
        self.rise()

    # -- the machine ---------------------------------------------------------------------------------------------------

    @rule(fault=st.sampled_from(FAULTS), times=st.integers(1, 3))
    def fault(self, fault: tuple[str, int], times: int) -> None:
        self.machine.host.fail(fault[0], *[fault[1]] * times)

    @rule(seconds=st.sampled_from((0.02, 0.1, 1.0, 10.0, 61.0, 5 * 3600.0)))
    def time_passes(self, seconds: float) -> None:
        self.machine.now += seconds

    @rule(index=st.integers(0, 20))
    def one_thing(self, index: int) -> None:
        with self.machine.mortal():
            self.machine.loop.epoll.choose = lambda ready: ready and [ready[index % len(ready)]]
            if not self.machine.loop.stopped:
                self.machine.loop.turn(0)
        self.rise()

    @rule(seed=st.integers(0, 5))
    def everything(self, seed: int) -> None:
        with self.machine.mortal():
            self.machine.turn(order(seed))
        self.rise()

    # -- people --------------------------------------------------------------------------------------------------------

    @rule(plan=plans())
    def switch(self, plan: Plan) -> None:
        with self.machine.mortal():
            self.machine.ask(lambda request: Switch(request, plan))

    @rule(name=st.sampled_from(NAMES), verb=st.sampled_from(("start", "stop", "restart")))
    def ask(self, name: str, verb: str) -> None:
        with self.machine.mortal():
            for main in self.machine.of(name):
                if verb != "start":
                    main.excuses.add(f"{verb} was asked for")
            self.machine.ask(lambda request: Ask(request, verb, name))

    @rule(again=st.booleans())
    def shut_down(self, again: bool) -> None:
        with self.machine.mortal():
            self.machine.agent.emit(Shutdown())
            if again:
                for main in self.machine.living():
                    main.excuses.add("hurry")
                self.machine.agent.hurry()
        self.rise()

    @rule(again=st.booleans(), plan=st.none() | plans(), moments=st.integers(0, 9))
    def killed(self, again: bool, plan: Plan | None, moments: int) -> None:
        self.machine.die(again=again and self.machine.agent.records.complete)
        self.machine.countdown = moments
        self.machine.start(plan)
        self.machine.observe()
        self.rise()

    @rule(names=st.sets(st.sampled_from(NAMES), min_size=1), torn=st.booleans())
    def records_are_lost(self, names: set[str], torn: bool) -> None:
        self.machine.die()
        for name in names:
            self.machine.lose_record(name, torn=torn)
        self.machine.start()
        self.machine.observe()

    @rule(moments=st.integers(1, 12), late=st.booleans())
    def is_killed_soon(self, moments: int, late: bool) -> None:
        self.machine.countdown = moments
        self.machine.slow = late

    def rise(self) -> None:
        """After an orderly end, start again as at the next boot."""
        if self.machine.loop.stopped:
            self.machine.host.faults_end()
            self.machine.finish()
            self.machine.start()

    @invariant()
    def holds(self) -> None:
        if hasattr(self, "machine"):
            self.machine.check()

    def teardown(self) -> None:
        if not hasattr(self, "machine"):
            return
        try:
            if sys.exc_info()[0] is not None:
                return  # it has failed already
            self.machine.calm()
            if self.machine.loop.stopped:
                self.machine.finish()
            else:
                self.machine.check_rest()
                self.machine.shut_down()
            assert sorted(os.listdir("/proc/self/fd")) == self.before  # noqa: PTH208
        finally:
            for fd in [fd for fd in self.machine.fds if self.machine.is_open(fd)]:
                os.close(fd)
            shutil.rmtree(self.machine.directory)


def order(seed: int) -> Callable[[list[int]], list[int]]:
    """As it comes for 0, else shuffled."""
    dice = random.Random(seed)
    return lambda ready: dice.sample(ready, len(ready)) if seed else ready


TestAgent = AgentMachine.TestCase
TestAgent.settings = settings(max_examples=EXAMPLES, stateful_step_count=40, deadline=None)
