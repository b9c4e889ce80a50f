"""What tests/property/test_agent.py has found, by example: a real agent on a machine in the test's hand."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge_agent.agent.performer import SELDOM
from edge_agent.agent.records import AGAIN
from edge_agent.lifecycle import BACKOFF, KILLING, OFF, READY, STARTING, STOPPING
from edge_agent.model import Ask, Health, Log, Plan, Restart, Service, Switch
from tests.property.machine import Machine

WEB = Service("web", ("/bin/web",))
Make = Callable[..., Machine]


def plan(*services: Service, name: str = "day") -> Plan:
    return Plan(name, "/etc/x.yaml", 100, 1000, 0, 0, services)


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[Machine] = []

    def machine(*services: Service, kind: str = "cgroup2") -> Machine:
        made.append(Machine(str(tmp_path), kind, plan(*services)))
        return made[0]

    yield machine
    made[0].calm()
    made[0].shut_down()


def running(machine: Machine) -> Machine:
    machine.calm()
    return machine


def state(machine: Machine, name: str = "web") -> str:
    return machine.agent.node.units[name].state


def kinds(machine: Machine, name: str = "web") -> list[str]:
    return [entry.kind for entry in machine.journal.since(0, name, 1000)]


def stop(machine: Machine, name: str = "web") -> None:
    for main in machine.of(name):
        main.excuses.add("stop was asked for")
    machine.ask(lambda request: Ask(request, "stop", name))


def on_record(machine: Machine) -> bool:
    return machine.agent.records.complete


def has_log(machine: Machine) -> bool:
    return machine.agent.sink("web") is not None


def pass_time(machine: Machine, seconds: float, step: float) -> int:
    """How often the loop was woken."""
    before, until = machine.loop.wakeups, machine.now + seconds
    while machine.now < until:
        machine.now += step
        machine.turn()
    return machine.loop.wakeups - before


def test_a_process_that_cannot_be_killed_costs_a_look_a_second(make: Make) -> None:
    machine = running(make(WEB, kind="tree"))
    machine.host.fork(machine.of("web")[0].process.pid).stuck = True
    machine.ends(machine.of("web")[0], 0)
    machine.turn()
    pass_time(machine, 60.0, 0.5)
    assert state(machine) == KILLING
    assert len(machine.loop.pending()) == 2, "one for the next look, one for the next kill"
    assert pass_time(machine, 600.0, 0.5) <= 600.0 / SELDOM + 600.0 / 5.0 + 2


def test_a_removal_that_is_refused_is_tried_by_one_timer_until_it_succeeds(make: Make) -> None:
    machine = running(make(WEB))
    machine.host.fail("remove", *[errno.EBUSY] * 5)
    stop(machine)
    machine.ends(machine.of("web")[0], 0)
    machine.turn()
    assert (state(machine), list(machine.host.places), len(machine.loop.pending())) == (OFF, ["web"], 1)
    pass_time(machine, 5.0, 0.05)
    assert not machine.host.places
    assert not machine.loop.pending()


def test_news_of_a_closed_descriptor_is_not_taken_for_news_of_the_next_with_its_number(make: Make) -> None:
    """The end of one process starts another in the same batch of epoll_wait(2), by the same descriptor numbers."""
    machine = make(WEB, Service("other", ("/bin/other",)))
    first = machine.of("web")[0]
    machine.fails_to_execute(first)  # its error pipe and its pidfd are ready at once
    stop(machine, "other")
    machine.fails_to_execute(machine.of("other")[0])
    machine.ask(lambda request: Switch(request, plan(WEB._replace(argv=("/bin/web", "2")))))
    machine.turn(lambda ready: ready[::-1])
    machine.turn()
    assert [main.alive for main in machine.of("web")] == [True]
    assert "ended while no agent was its parent, exit status unknown" not in {
        entry.text for entry in machine.journal.since(0)
    }


@pytest.mark.parametrize("ending", [STOPPING, KILLING])
def test_killed_for_lack_of_memory_on_its_way_out(make: Make, ending: str) -> None:
    machine = running(make(WEB))
    stop(machine)
    machine.out_of_memory("web", "total")
    if ending == KILLING:
        machine.now += WEB.stop_timeout
        machine.loop.epoll.choose = lambda _ready: []  # its deadline is noticed before its end
        machine.loop.turn(0)
    assert state(machine) == ending
    machine.turn()
    assert state(machine) == OFF
    assert "the total memory limit of all services" in machine.agent.node.units["web"].last_exit
    machine.die()
    machine.start()
    assert "oom" in kinds(machine), "it is notable: on disk"


def test_kills_and_sheds_are_counted_by_service_and_level(make: Make) -> None:
    machine = running(make(WEB))
    machine.out_of_memory("web", "own")
    machine.turn()
    assert machine.agent.counts == {"web": {"killed-own": 1}}
    machine.agent.note("shed", "web", "it had to")
    machine.agent.note("shed", "web", "again")
    machine.agent.note("backoff", "web", "is not counted")
    machine.agent.note("shed", "", "of nobody")
    assert machine.agent.counts == {"web": {"killed-own": 1, "shed": 2}}
    machine.ask(lambda request: Switch(request, plan()))
    machine.calm()
    assert not machine.agent.counts, "what is gone is not counted for ever"


def test_a_process_that_ended_before_it_executed_was_not_ready(make: Make) -> None:
    machine = make(WEB, Service("next", ("/bin/next",), depends_on=("web",)))
    machine.out_of_memory("web", "machine")
    machine.turn()
    assert state(machine) == BACKOFF
    assert "ready" not in kinds(machine)
    assert not machine.of("next")


def test_a_full_disk_does_not_keep_the_agent_from_adopting(make: Make) -> None:
    machine = running(make(WEB))
    pid = machine.of("web")[0].process.pid
    machine.die()
    machine.host.fail("sink", errno.ENOSPC)
    machine.start()
    assert (state(machine), machine.of("web")[0].process.pid) == (READY, pid)
    assert not has_log(machine)
    assert "log" in kinds(machine)
    pass_time(machine, 11.0, 1.0)
    assert has_log(machine)


def test_a_record_that_was_refused_is_written_later(make: Make) -> None:
    machine = make(WEB)
    machine.host.fail("save", *[errno.ENOSPC] * 3)
    machine.executes(machine.of("web")[0])
    machine.turn()
    assert not on_record(machine)
    pass_time(machine, 3 * AGAIN, 1.0)
    assert on_record(machine)
    assert machine.store.units()["web"].state == READY
    assert kinds(machine).count("record") == 1, "said once"
    assert not machine.loop.pending()


@pytest.mark.parametrize("alive", [True, False])
def test_what_is_being_killed_is_collected_by_the_agent_that_executed_itself_anew(make: Make, alive: bool) -> None:
    """Its children stay its children: nobody else collects them."""
    machine = running(make(WEB))
    main = machine.of("web")[0]
    main.process.stuck = True
    stop(machine)
    machine.now += WEB.stop_timeout
    machine.turn()
    assert state(machine) == KILLING
    machine.die(again=True)
    if not alive:
        machine.unstick()
    machine.start()
    machine.unstick()
    machine.turn()
    assert state(machine) == OFF
    assert not machine.host.processes


def test_an_empty_containment_that_was_found_is_removed_sooner_or_later(make: Make) -> None:
    machine = running(make(WEB))
    stop(machine)
    machine.host.fail("remove", *[errno.EBUSY] * 2)
    machine.ends(machine.of("web")[0], 0)
    machine.turn()
    assert machine.host.places
    machine.die()
    machine.start()
    assert machine.host.places
    pass_time(machine, 1.0, 0.05)
    assert not machine.host.places


def test_what_an_agent_left_of_a_service_that_is_no_more_goes(make: Make) -> None:
    machine = running(make(WEB))
    machine.die()
    Path(machine.store.service_dir("gone")).mkdir()
    machine.start()
    assert not Path(machine.store.service_dir("gone")).exists()


def test_a_log_that_could_not_be_opened_anew_is_not_used_closed(make: Make) -> None:
    machine = running(make(WEB))
    there = WEB._replace(log=Log("disk"))
    machine.host.fail("sink", *[errno.ENOSPC] * 9)
    machine.ask(lambda request: Switch(request, plan(there, name="night")))
    machine.ends(machine.of("web")[0], 0)
    machine.turn()
    assert "launch-failed" in kinds(machine)
    machine.ask(lambda request: Switch(request, plan(WEB, name="day")))
    machine.calm()
    assert state(machine) == READY
    assert has_log(machine)


def test_another_health_check_is_in_force_at_once_for_what_is_ready(make: Make) -> None:
    machine = running(make(WEB))
    pid = machine.of("web")[0].process.pid
    checked = WEB._replace(health=Health("tcp", port=80))
    for health in (checked.health, Health("http", port=81), Health()):
        machine.ask(lambda request, health=health: Switch(request, plan(WEB._replace(health=health))))  # type: ignore[misc]
        assert machine.probes.watched == ({"web": True} if health.kind else {})
        assert not health.kind or machine.probes.health["web"] == health
    assert machine.of("web")[0].process.pid == pid


def test_a_starting_service_becomes_ready_by_the_check_under_way(make: Make) -> None:
    machine = make(WEB._replace(health=Health("tcp", port=80)))
    machine.executes(machine.of("web")[0])
    machine.turn()
    assert state(machine) == STARTING
    machine.ask(lambda request: Switch(request, plan(WEB)))
    assert machine.probes.watched == {"web": False}
    machine.answers("web")
    assert (state(machine), machine.agent.node.units["web"].service, machine.probes.watched) == (READY, WEB, {})


def test_an_unrecorded_process_is_no_reason_to_start_a_second(make: Make) -> None:
    """Killed between fork and record, the agent leaves a child that ends by itself, sooner or later."""
    machine = running(make(WEB._replace(restart=Restart(delay=0.1, jitter=0.0))))
    machine.ends(machine.of("web")[0], 1)
    machine.turn()
    machine.now += 1.0
    machine.countdown = 4  # before and after preparing, before and after fork(2)
    machine.slow = True
    with machine.mortal():
        machine.turn()
    assert machine.lives == 2
    assert len(machine.host.living_anywhere("web")) == 1
    machine.unstick()
    machine.calm()
    assert state(machine) == READY
