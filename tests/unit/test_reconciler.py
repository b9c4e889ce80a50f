"""The node by example: what a person would tell a colleague it does."""

from __future__ import annotations

from edge_agent import model as m
from edge_agent.lifecycle import BACKOFF, QUARANTINED, READY, WAITING
from edge_agent.reconciler import boot, next_deadline, smaller
from tests.property.world import World


def service(name: str, memory: int = 10, cpu: int = 100, **more: object) -> m.Service:
    return m.Service(
        name,
        (f"/bin/{name}",),
        limits=m.Limits(memory_request=memory, memory_limit=memory, cpu_request=cpu),
    )._replace(**more)  # type: ignore[arg-type]


def plan(name: str, *services: m.Service, total: int = 100, timeout: float = 60.0) -> m.Plan:
    return m.Plan(name, f"/etc/{name}.yaml", total, 1000, 0, 0, services, switch_timeout=timeout)


def running(*services: m.Service, total: int = 100) -> World:
    world = World(plan("day", *services, total=total))
    world.calm()
    return world


def states(world: World) -> dict[str, str]:
    return {name: unit.state for name, unit in world.node.units.items()}


def test_a_service_starts_when_what_it_depends_on_is_ready() -> None:
    world = World(plan("day", service("db", health=m.Health("tcp", port=1)), service("web", depends_on=("db",))))
    world.executes("db")
    assert states(world) == {"db": "starting", "web": WAITING}
    assert world.node.units["web"].reason == "waits for db, which is starting"
    world.answers("db")
    assert set(world.processes) == {"db", "web"}


def test_stops_go_in_reverse() -> None:
    world = running(service("db"), service("web", depends_on=("db",)))
    world.feed(m.Shutdown())
    assert states(world) == {"db": READY, "web": "stopping"}
    world.dies("web", 0)
    assert states(world) == {"db": "stopping"}
    world.dies("db", 0)
    assert world.exited


def test_a_switch_keeps_what_it_does_not_concern() -> None:
    world = running(service("db"), service("web"), service("old"))
    pids = {name: process.pid for name, process in world.processes.items()}
    world.feed(m.Switch(1, plan("night", service("db"), service("web", memory=20), service("new"))))
    world.calm()
    assert {name: process.pid for name, process in world.processes.items() if name in pids} == {
        "db": pids["db"],
        "web": pids["web"],
    }
    assert world.processes["web"].service.limits.memory_limit == 20
    assert world.replies[1] == m.Reply(1, "switched from day to night")
    assert world.committed is not None
    assert world.committed.profile == "night"


def test_what_shrinks_goes_before_what_grows() -> None:
    world = running(service("a", memory=80), service("b", memory=20))
    world.feed(m.Switch(1, plan("night", service("a", memory=20), service("b", memory=80))))
    assert world.processes["a"].service.limits.memory_request == 20
    assert world.processes["b"].service.limits.memory_request == 80


def test_opposite_needs_in_memory_and_cpu_do_not_block_each_other() -> None:
    world = running(service("a", memory=80, cpu=200), service("b", memory=20, cpu=800))
    world.feed(m.Switch(1, plan("night", service("a", memory=20, cpu=800), service("b", memory=80, cpu=200))))
    assert not world.replies[1].code
    assert world.processes["a"].service.limits.cpu_request == 800


def test_growth_waits_for_the_end_of_what_must_go() -> None:
    world = running(service("a", memory=60), service("b", memory=40))
    world.feed(m.Switch(1, plan("night", service("a", memory=100))))
    assert world.processes["a"].service.limits.memory_request == 60
    world.dies("b", 0)
    assert world.processes["a"].service.limits.memory_request == 100


def test_the_total_shrinks_only_as_far_as_what_runs_allows() -> None:
    world = running(service("a", memory=60), service("b", memory=40))
    world.feed(m.Switch(1, plan("small", service("a", memory=60), total=60)))
    assert world.total[0] == 100
    world.dies("b", 0)
    assert world.total[0] == 60


ESSENTIAL = {"importance": m.ESSENTIAL}


def test_an_essential_that_is_not_ready_in_time_rolls_the_switch_back() -> None:
    world = running(service("a"))
    pid = world.processes["a"].pid
    slow = service("core", importance=m.ESSENTIAL, health=m.Health("tcp", port=1))
    world.feed(m.Switch(1, plan("night", service("a"), slow, timeout=30.0)))
    world.executes("core")
    world.pass_time(30.0)
    world.dies("core", -15)
    world.calm()
    assert world.replies[1].code
    assert "core is starting after 30 s; rolled back to day" in world.replies[1].text
    assert states(world) == {"a": READY}
    assert world.processes["a"].pid == pid
    assert world.committed is not None
    assert world.committed.profile == "day"
    assert not world.node.degraded


def test_an_essential_that_gives_up_rolls_back_at_once() -> None:
    world = running(service("a"))
    once = m.Restart(max_attempts=0)
    world.feed(
        m.Switch(1, plan("night", service("core", importance=m.ESSENTIAL, restart=once, health=m.Health("tcp"))))
    )
    world.dies("a", 0)
    world.executes("core")
    world.dies("core", 3)
    world.calm()
    assert "core is quarantined: exited with code 3" in world.replies[1].text
    assert states(world) == {"a": READY}


def test_a_plan_that_fails_at_boot_gives_way_to_the_last_good_one() -> None:
    good, bad = plan("good", service("a")), plan("bad", service("core", importance=m.ESSENTIAL))
    world = World(good)
    world.calm()
    world.fail_launches.add("core")
    world.processes.clear()
    world.node, actions = boot(bad, good, {}, {}, world.now)
    world._carry_out(actions, None)
    world._drain()
    world.pass_time(61.0)
    world.executes("a")
    assert world.node.plan == good
    assert world.node.degraded.startswith("cannot switch to bad: core is ")
    assert states(world) == {"a": READY}


def test_one_switch_at_a_time() -> None:
    world = running(service("a", health=m.Health("tcp")))
    world.feed(m.Switch(1, plan("night", service("b", health=m.Health("tcp")))))
    world.feed(m.Switch(2, plan("other")))
    assert "a switch to night is under way" in world.replies[2].text


def test_quarantine_frees_the_budget() -> None:
    never = m.Restart(max_attempts=0)
    world = running(service("a", memory=60, restart=never), service("b", memory=40))
    world.dies("a", 1)
    assert states(world)["a"] == QUARANTINED
    world.feed(m.Switch(1, plan("day", service("b", memory=100))))
    assert not world.replies[1].code
    assert world.processes["b"].service.limits.memory_request == 100


def test_a_service_in_backoff_keeps_its_place() -> None:
    world = running(service("a", memory=60), service("b", memory=40))
    world.dies("a", 1)
    assert states(world)["a"] == BACKOFF
    assert next_deadline(world.node) is not None
    world.feed(m.Switch(1, plan("day", service("a", memory=60), service("b", memory=40), service("c", memory=0))))
    assert world.node.units["b"].service.limits.memory_request == 40


def test_stopped_by_a_person_stays_down_over_a_reload_not_over_a_switch() -> None:
    world = running(service("a"))
    world.feed(m.Ask(1, "stop", "a"))
    world.dies("a", 0)
    world.feed(m.Switch(2, plan("day", service("a", memory=20))))
    assert states(world) == {"a": "off"}
    world.feed(m.Switch(3, plan("night", service("a"))))
    world.calm()
    assert states(world) == {"a": READY}


def test_a_restart_is_a_new_process_of_that_service_alone() -> None:
    world = running(service("db"), service("web", depends_on=("db",)))
    pids = {name: process.pid for name, process in world.processes.items()}
    world.feed(m.Ask(1, "restart", "db"))
    world.dies("db", 0)
    world.calm()
    assert world.processes["web"].pid == pids["web"]
    assert world.processes["db"].pid != pids["db"]


def test_asking_for_what_is_not_there_is_an_answer() -> None:
    world = running(service("a"))
    world.feed(m.Ask(1, "start", "zzz"))
    assert world.replies[1].text == "cannot start zzz: it is not a service of profile day"


def test_smaller_takes_no_limit_as_the_largest() -> None:
    old = m.Limits(memory_request=5, memory_limit=None, cpu_request=9, cpu_limit=7)
    new = m.Limits(memory_request=9, memory_limit=10, cpu_request=5, cpu_limit=None)
    assert smaller(old, new) == m.Limits(memory_request=5, memory_limit=10, cpu_request=5, cpu_limit=7)


def test_a_scheduled_service_sleeps_until_it_is_asked_for() -> None:
    world = running(service("web"), service("heavy", scheduled=True, depends_on=("web",)))
    assert states(world) == {"web": READY, "heavy": "off"}
    world.feed(m.Wake("heavy", True, "night begins"))
    world.calm()
    assert states(world) == {"web": READY, "heavy": READY}
    pid = world.node.units["heavy"].pid
    world.feed(m.Wake("heavy", True, "asked again"))
    assert world.node.units["heavy"].pid == pid
    world.feed(m.Wake("heavy", False, "night ends"))
    world.calm()
    assert states(world) == {"web": READY, "heavy": "off"}
    assert [note.text for note in world.notes if note.kind == "schedule"] == ["night begins", "night ends"]


def test_the_schedule_does_not_start_what_a_person_has_stopped() -> None:
    world = running(service("heavy", scheduled=True))
    world.feed(m.Ask(1, "start", "heavy"))
    world.calm()
    assert states(world) == {"heavy": READY}
    world.feed(m.Ask(2, "stop", "heavy"))
    world.calm()
    world.feed(m.Wake("heavy", False, "night ends"))
    world.feed(m.Wake("heavy", True, "night begins"))
    world.calm()
    assert states(world) == {"heavy": "off"}
    assert world.notes[-1].text == "night begins; a person has stopped it, so it stays stopped"
    world.feed(m.Ask(3, "start", "heavy"))
    world.calm()
    assert states(world) == {"heavy": READY}


def test_the_schedule_begins_again_what_has_done_its_work() -> None:
    world = running(service("job", scheduled=True, restart=m.Restart("on_failure")))
    for _ in range(2):
        world.feed(m.Wake("job", True, "due"))
        world.calm()
        assert states(world) == {"job": READY}
        world.dies("job", 0)
        world.calm()
        assert states(world) == {"job": "completed"}


def test_the_schedule_has_no_say_over_other_services() -> None:
    world = running(service("web"))
    world.feed(m.Wake("web", False, "night ends"))
    world.feed(m.Wake("nonsuch", True, "night begins"))
    world.calm()
    assert states(world) == {"web": READY}


def test_a_switch_does_not_wait_for_what_sleeps() -> None:
    world = running(service("web"))
    world.feed(m.Switch(1, plan("night", service("web"), service("heavy", scheduled=True))))
    world.calm()
    assert world.node.change is None
    assert states(world) == {"web": READY, "heavy": "off"}


# -- shed under pressure -----------------------------------------------------------------------------------------------


WEB = service("web", importance=m.ESSENTIAL, depends_on=("db",))


def shed(world: World, name: str) -> bool:
    world.feed(m.Shed(name, "memory some 34% over 30% for 1.2 s"))
    return bool(world.node.units[name].shed)


def test_what_is_shed_ends_soon_frees_its_request_and_returns() -> None:
    world = running(service("db", memory=80), service("job", memory=20), service("late", memory=60))
    assert states(world)["late"] == WAITING
    assert shed(world, "db")
    assert world.node.units["db"].deadline == world.now + 2.0
    world.dies("db", 0)
    world.executes("late")
    assert states(world) == {"db": "off", "job": READY, "late": READY}
    world.feed(m.Return("db", "memory calm for 10 s"))
    assert world.node.units["db"].reason.startswith("waits for room"), "room was given away by requests meanwhile"
    assert [note.kind for note in world.notes if note.service == "db"][-1] == "returns"


def test_a_persons_start_wins_over_shedding() -> None:
    world = running(service("job"))
    shed(world, "job")
    world.calm()
    assert states(world) == {"job": "off"}
    world.feed(m.Ask(1, "start", "job"))
    world.calm()
    assert states(world) == {"job": READY}
    assert not world.node.units["job"].shed


def test_neither_an_essential_nor_what_it_needs_is_shed() -> None:
    world = running(service("db"), WEB, service("job"))
    assert [shed(world, name) for name in ("db", "web", "job")] == [False, False, True]
    assert world.processes["db"].alive


def test_a_switch_brings_back_what_an_essential_now_needs_and_keeps_the_rest_shed() -> None:
    world = running(service("db"), service("job"))
    assert shed(world, "db")
    assert shed(world, "job")
    world.calm()
    world.feed(m.Switch(1, plan("night", service("db"), service("job"), WEB)))
    world.calm()
    assert states(world) == {"db": READY, "job": "off", "web": READY}
    assert world.replies[1].code == ""


def test_a_rollback_brings_back_what_the_old_plan_needs() -> None:
    world = running(service("db"), WEB)
    mute = service("mute", importance=m.ESSENTIAL, health=m.Health("tcp", port=1))
    world.feed(m.Switch(1, plan("night", service("db"), mute)))
    world.dies("web", 0)
    assert shed(world, "db"), "nothing essential needs it now"
    world.dies("db", 0)
    world.executes("mute")
    world.pass_time(61)
    world.calm()
    assert world.replies[1].code == "rolled-back"
    assert states(world) == {"db": READY, "web": READY}


def test_what_has_left_the_plan_is_not_shed_any_more_should_a_rollback_bring_it_back() -> None:
    """It is still ending, and nobody would return it: the governor has forgotten what is not in the plan."""
    world = running(service("db"), service("job"))
    assert shed(world, "job")
    world.feed(m.Switch(1, plan("night", service("db"))))
    assert (states(world)["job"], world.node.units["job"].shed) == ("stopping", "")


def test_a_new_agent_keeps_shed_what_was() -> None:
    world = running(service("db"), service("job"))
    shed(world, "job")
    world.calm()
    world.restart_agent()
    world.calm()
    assert states(world) == {"db": READY, "job": "off"}
    assert world.node.units["job"].shed == "memory some 34% over 30% for 1.2 s"
