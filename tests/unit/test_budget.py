"""From a profile to a plan: totals, shares, checks, notes. ``test_budget_admission`` has who is let in."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from edge_agent.budget import AGENT_MEMORY, DEFAULT_PIDS, BudgetError, compile_plan
from edge_agent.codec import pack_plan, unpack_plan
from edge_agent.demand import Amount, Demand, Facts, Profile
from edge_agent.enforcement import EnforcementError
from edge_agent.model import ESSENTIAL, Limits, Plan, Service

from .samples import EDGE, GB, GIB, HYBRID, MACHINES, MB, MIB, SERVER, SHARES, demand, profile


def facts(memory: int = 4 * GIB, cpus: int = 4) -> Facts:
    return SERVER._replace(memory=memory, cpus=cpus)


def only(plan: Plan) -> Limits:
    (service,) = plan.services
    return service.limits


@pytest.mark.parametrize(
    ("ram", "kept"),
    [(256 * MIB, 64 * MIB), (640 * MIB, 64 * MIB), (GIB, GIB // 10), (4 * GIB, 4 * GIB // 10), (64 * GIB, 512 * MIB)],
)
def test_without_a_total_the_machine_is_shared_with_its_operating_system(ram: int, kept: int) -> None:
    plan = compile_plan(profile(), facts(ram))
    assert plan.memory_total == ram - kept
    assert plan.notes == ()


@pytest.mark.parametrize(("cpus", "total"), [(1, 900), (4, 3900)])
def test_without_a_total_a_tenth_of_a_core_stays_free(cpus: int, total: int) -> None:
    assert compile_plan(profile(), facts(cpus=cpus)).cpu_total == total


def test_a_declared_total_is_taken_as_it_is_when_the_machine_has_it() -> None:
    plan = compile_plan(profile(memory=2 * GB, cpu=4000), facts())
    assert (plan.memory_total, plan.cpu_total, plan.notes) == (2 * GB, 4000, ())


def test_a_total_beyond_the_machine_is_capped_and_said() -> None:
    plan = compile_plan(profile(memory=2 * GB, cpu=1500), facts(GIB, 1))
    assert (plan.memory_total, plan.cpu_total) == (GIB - GIB // 10, 1000)
    assert plan.notes == (
        (
            "total_memory 1.9 GiB is more than this machine can give: 1.0 GiB minus 102.4 MiB for the operating "
            "system; using 921.6 MiB"
        ),
        "total_cpu 1.50 is more than this machine has; using its 1.00 cores",
    )


def test_a_share_of_the_total_is_one_of_the_machine() -> None:
    asked = profile()._replace(memory_total=Amount(share=0.29), cpu_total=Amount(share=0.29))
    plan = compile_plan(asked, facts(100 * GIB, 100))
    assert (plan.memory_total, plan.cpu_total) == (29 * GIB, 29_000)  # 0.29 * 100 is 28.999… in floating point


@pytest.mark.parametrize(("reserve", "kept"), [(Amount(300 * MIB), 300 * MIB), (Amount(share=0.5), GIB // 2)])
def test_the_reserve_of_the_operating_system_is_a_setting(reserve: Amount, kept: int) -> None:
    assert compile_plan(profile()._replace(os_memory_reserve=reserve), facts(GIB)).memory_total == GIB - kept


def test_the_agent_keeps_a_part_of_the_total() -> None:
    assert compile_plan(profile(agent=None), facts()).memory_reserve == AGENT_MEMORY
    assert compile_plan(profile(agent=5 * MIB), facts()).memory_reserve == 5 * MIB


def test_shares_of_a_service_are_shares_of_the_total_and_never_exceed_it_together() -> None:
    third = Amount(share=1 / 3)
    demands = [
        Demand(Service(name, ("/bin/true",)), memory_request=third, memory_limit=third, cpu_request=third)
        for name in "abc"
    ]
    plan = compile_plan(profile(*demands, memory=1000 * MIB + 1, cpu=1000), facts())
    assert {service.limits.memory_request for service in plan.services} == {(1000 * MIB + 1) // 3}
    assert {service.limits.cpu_request for service in plan.services} == {333}


def test_what_a_service_leaves_open() -> None:
    limits = only(compile_plan(profile(demand("web")), facts()))
    assert limits == Limits(pids_limit=DEFAULT_PIDS)


def test_what_a_service_sets_is_kept() -> None:
    service = Service("web", ("/bin/web",), limits=Limits(pids_limit=7, io_weight=50, io_read_bps=1), oom_score_adj=3)
    asked = Demand(service, swap_limit=Amount(share=0.5), cpu_limit=Amount(250))
    (got,) = compile_plan(profile(asked, memory=GIB), facts()).services
    assert got.limits == Limits(pids_limit=7, io_weight=50, io_read_bps=1, swap_limit=GIB // 2, cpu_limit=250)
    assert got.oom_score_adj == 3


def test_a_limit_above_the_total_is_kept_and_noted() -> None:
    asked = Demand(Service("web", ("/bin/web",)), memory_limit=Amount(4 * GIB), cpu_limit=Amount(2000))
    plan = compile_plan(profile(asked, memory=GIB, cpu=1000), facts())
    assert (only(plan).memory_limit, only(plan).cpu_limit) == (4 * GIB, 2000)
    assert plan.notes == (
        "web: the memory limit of 4.0 GiB is above the total of 1.0 GiB, which holds first",
        "web: the cpu limit of 2.00 is above the total of 1.00, which holds first",
    )


def test_disabled_services_are_not_in_the_plan() -> None:
    plan = compile_plan(profile(demand("a"), demand("b", 64 * GIB, enabled=False)), facts())
    assert [service.name for service in plan.services] == ["a"]


def test_swap_on_zram_is_noted_where_a_service_may_use_it() -> None:
    machine = facts()._replace(swap=MIB, swap_kind="zram")
    assert any("zram" in note for note in compile_plan(profile(demand("a")), machine).notes)
    bounded = demand("a")._replace(swap_limit=Amount(0))
    assert compile_plan(profile(bounded), machine).notes == ()
    assert compile_plan(profile(demand("a")), machine._replace(swap_kind="disk")).notes == ()


def test_keys_without_effect_are_said() -> None:
    plan = compile_plan(profile()._replace(not_acted_on=("a.b (x.yaml:3)", "c")), facts())
    assert plan.notes == ("not acted on: a.b (x.yaml:3)", "not acted on: c")


def problems(asked: Profile, machine: Facts | None = None) -> tuple[str, ...]:
    with pytest.raises(BudgetError) as caught:
        compile_plan(asked, machine or facts())
    assert all("; fix: " in problem and problem.startswith("cannot ") for problem in caught.value.problems)
    return caught.value.problems


def test_every_problem_is_said_at_once_with_its_place() -> None:
    above = Demand(
        Service("a", ("/a",), depends_on=("gone",)), line=12, memory_request=Amount(2 * MIB), memory_limit=Amount(MIB)
    )
    nothing = Demand(Service("b", ("/b",), depends_on=("off",)), cpu_limit=Amount(share=0.0001))
    assert problems(profile(above, nothing, demand("off", enabled=False), cpu=1000)) == (
        (
            "cannot start a: it depends on gone, which the profile does not have; "
            "fix: add gone or take it out of depends_on"
        ),
        "cannot start b: it depends on off, which is off; fix: enable off, disable b, or take off out of depends_on",
        (
            "cannot admit a (/etc/edge-agent/profiles/test.yaml:12): its memory request of 2.0 MiB is above its limit "
            "of 1.0 MiB; fix: raise the limit or lower the request (resources.memory)"
        ),
        "cannot admit b: its cpu limit is 0, with which nothing runs; fix: raise resources.cpu.limit",
    )


def test_a_cycle_is_shown_without_what_hangs_on_it() -> None:
    demands = [
        demand("leaf", depends_on=("a",)),
        demand("a", depends_on=("free", "b")),
        demand("b", depends_on=("c",)),
        demand("c", depends_on=("a",)),
        demand("free"),
    ]
    assert problems(profile(*demands)) == (
        (
            "cannot order a -> b -> c -> a: each depends on the next, so none could start first; "
            "fix: take one of them out of depends_on"
        ),
    )
    assert "cannot order a -> a:" in problems(profile(demand("a", depends_on=("a",))))[0]


def test_a_machine_too_small_for_the_agent_is_refused() -> None:
    assert "leaves nothing beside the agent's own 16.0 MiB" in problems(profile(agent=None), facts(70 * MIB))[0]
    assert "leaves nothing beside" in problems(profile(memory=MIB, agent=MIB))[0]
    assert "of 0 B memory" in problems(profile()._replace(os_memory_reserve=Amount(64 * GIB)))[0]
    assert "a total of 0.00 cores" in problems(profile(cpu=0))[0]


def test_insisting_on_cgroup2_fails_where_the_machine_has_none() -> None:
    insists = EDGE._replace(enforcement="cgroup2")
    assert compile_plan(insists, SERVER).enforcement == "cgroup2"
    with pytest.raises(EnforcementError, match=r"cannot enforce memory, cpu, pids, oom_group by cgroup2"):
        compile_plan(insists, HYBRID)


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("asked", [EDGE, SHARES], ids=lambda each: str(each.name))
def test_golden_plans(asked: Profile, machine: str, golden: Callable[[str, str], None]) -> None:
    plan = compile_plan(asked, MACHINES[machine])
    assert unpack_plan(pack_plan(plan)) == plan
    golden(f"plan-{asked.name}-{machine}.json", json.dumps(plain(plan), indent=1) + "\n")


def plain(record: object) -> object:
    """Records as dictionaries, without what is at its default: a golden plan shows what was decided."""
    fields = getattr(record, "_asdict", None)
    if fields is not None:
        defaults = getattr(record, "_field_defaults", {})
        return {
            name: plain(value) for name, value in fields().items() if name not in defaults or value != defaults[name]
        }
    return [plain(item) for item in record] if isinstance(record, tuple) else record


def test_the_edge_block_fits_a_two_gigabyte_pi() -> None:
    plan = compile_plan(EDGE, MACHINES["stock-pi"])
    assert [service.name for service in plan.services] == ["identity", "storage", "node"]
    assert sum(service.limits.memory_request for service in plan.services) == 1024 * MB
    assert sum(service.limits.cpu_request for service in plan.services) == plan.cpu_total == 1000
    assert plan.services[0].importance == ESSENTIAL
