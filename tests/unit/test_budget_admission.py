"""Who is let in: the sums hold, essentials stay, the order is right, and a refusal says what to do."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.admission import Total, choose_drops, find_cycle, in_start_order
from edge_agent.budget import BudgetError, compile_plan
from edge_agent.demand import Demand, Facts, Profile
from edge_agent.model import ESSENTIAL, HEAVY, NORMAL, Limits, Plan, Service

from .samples import GIB, MIB, SERVER, demand, profile


def fitted(*demands: Demand, memory: int = 100 * MIB, cpu: int = 1000) -> tuple[list[str], list[str]]:
    """Names in the plan compiled with fit, and the notes."""
    plan = compile_plan(profile(*demands, memory=memory, cpu=cpu), SERVER, fit=True)
    return [service.name for service in plan.services], list(plan.notes)


def refused(*demands: Demand, memory: int = 100 * MIB, cpu: int = 1000, fit: bool = False) -> BudgetError:
    with pytest.raises(BudgetError) as caught:
        compile_plan(profile(*demands, memory=memory, cpu=cpu), SERVER, fit=fit)
    return caught.value


def test_exactly_full_is_let_in_and_one_byte_more_is_not() -> None:
    full = [demand("a", 60 * MIB, 400), demand("b", 40 * MIB, 600)]
    assert fitted(*full) == (["a", "b"], [])
    assert "by 1 B of memory;" in refused(demand("a", 60 * MIB + 1), demand("b", 40 * MIB)).problems[0]
    assert "by 0.001 cores;" in refused(demand("a", 0, 401), demand("b", 0, 600)).problems[0]


def test_the_reserve_of_the_agent_counts() -> None:
    asked = profile(demand("a", 90 * MIB), memory=100 * MIB, agent=16 * MIB)
    with pytest.raises(BudgetError, match=r"by 6\.0 MiB of memory"):
        compile_plan(asked, SERVER)


def test_a_refusal_shows_who_asks_what_and_what_to_switch_off() -> None:
    error = refused(
        demand("identity", 40 * MIB, 250, importance=ESSENTIAL),
        demand("telemetry", 30 * MIB, 100, importance=HEAVY),
        demand("analytics", 50 * MIB, 900, importance=HEAVY),
        demand("storage", 20 * MIB, 500),
    )
    assert str(error) == (
        "cannot admit profile 'test': its services and the agent together ask for more than the total by 40.0 MiB of "
        "memory and 0.75 cores; fix: switch off analytics (--fit does that), or lower requests, or raise the total "
        "(deployment.resources)\n\n"
        "service      importance     memory   cpu\n"
        "identity     essential    40.0 MiB  0.25\n"
        "storage      normal       20.0 MiB  0.50\n"
        "telemetry    heavy        30.0 MiB  0.10\n"
        "analytics    heavy        50.0 MiB  0.90\n"
        "(the agent)                    0 B  0.00\n"
        "(together)               140.0 MiB  1.75\n"
        "(total)                  100.0 MiB  1.00\n"
        "(over)                    40.0 MiB  0.75"
    )
    assert error.switch_off == ("analytics",)


def test_nobody_is_told_to_raise_what_the_machine_does_not_have() -> None:
    small = SERVER._replace(memory=GIB)
    with pytest.raises(BudgetError) as caught:
        compile_plan(profile(demand("a", GIB), memory=2 * GIB), small)
    assert "raise" not in caught.value.problems[0]
    assert caught.value.notes[0].startswith("total_memory 2.0 GiB is more than")
    assert "\n\nnote: total_memory 2.0 GiB" in str(caught.value)


def test_fit_drops_the_least_important_and_says_so() -> None:
    names, notes = fitted(
        demand("a", 40 * MIB, importance=HEAVY), demand("b", 40 * MIB), demand("c", 40 * MIB, importance=ESSENTIAL)
    )
    assert names == ["c", "b"]
    assert notes == ["dropped a (heavy), which asks for 40.0 MiB and 0.00 cores, so that the rest fits the total"]


def test_fit_drops_the_biggest_of_equals_and_the_last_of_the_same() -> None:
    assert fitted(demand("a", 40 * MIB), demand("b", 50 * MIB), demand("c", 30 * MIB))[0] == ["a", "c"]
    assert fitted(demand("a", 40 * MIB), demand("b", 40 * MIB), demand("c", 40 * MIB))[0] == ["a", "b"]


def test_fit_leaves_alone_what_would_not_help() -> None:
    names, _ = fitted(demand("idle", importance=HEAVY), demand("cpu", 0, 900, importance=HEAVY), demand("a", 120 * MIB))
    assert names == ["idle", "cpu"]


def test_what_depends_on_a_dropped_service_goes_with_it() -> None:
    names, notes = fitted(
        demand("db", 90 * MIB, importance=HEAVY),
        demand("ui", 0, importance=HEAVY, depends_on=("api",)),
        demand("api", 0, importance=HEAVY, depends_on=("db",)),
        demand("other", 90 * MIB),
    )
    assert names == ["other"]
    assert [note.split(",")[0] for note in notes] == [
        "dropped db (heavy)",
        "dropped ui (heavy): it depends on db",
        "dropped api (heavy): it depends on db",
    ]


def test_of_a_chain_of_equals_only_the_end_goes() -> None:
    chain = [demand(f"s{i}", 40 * MIB, depends_on=(f"s{i - 1}",) if i else ()) for i in range(4)]
    assert fitted(*chain)[0] == ["s0", "s1"]


def test_a_service_is_as_important_as_what_depends_on_it() -> None:
    names, _ = fitted(
        demand("db", 60 * MIB, importance=HEAVY),
        demand("vital", 10 * MIB, importance=ESSENTIAL, depends_on=("db",)),
        demand("nice", 60 * MIB, importance=NORMAL),
    )
    assert names == ["db", "vital"]


def test_essentials_alone_too_big_is_an_error_even_with_fit() -> None:
    demands = [demand("db", 60 * MIB), demand("vital", 60 * MIB, importance=100, depends_on=("db",)), demand("x", MIB)]
    error = refused(*demands, fit=True)
    assert error.switch_off == ()
    assert (
        "by 21.0 MiB of memory, and without x still by 20.0 MiB of memory; fix: lower the requests of the essential"
        in (error.problems[0])
    )
    assert str(refused(*demands)) == str(error)


def test_start_order_is_dependencies_then_importance_then_file_order() -> None:
    services = [
        Service("late", ("/x",), depends_on=("heavy", "outside")),
        Service("first", ("/x",)),
        Service("second", ("/x",)),
        Service("heavy", ("/x",), importance=HEAVY),
        Service("vital", ("/x",), importance=ESSENTIAL, depends_on=("second",)),
    ]
    assert [service.name for service in in_start_order(services)] == ["first", "second", "vital", "heavy", "late"]


# -- properties --------------------------------------------------------------------------------------------------------

NAMES = [f"s{index}" for index in range(8)]


@st.composite
def profiles(draw: st.DrawFn) -> Profile:
    """Up to 8 services in any file order, depending on earlier-drawn ones only, around a total of 100."""
    demands: list[Demand] = []
    for name in draw(st.lists(st.sampled_from(NAMES), unique=True)):
        enabled = [each.service.name for each in demands if each.enabled]
        depends_on = draw(st.lists(st.sampled_from(enabled), unique=True, max_size=3)) if enabled else []
        demands.append(
            demand(
                name,
                draw(st.integers(0, 60)),
                draw(st.integers(0, 60)),
                importance=draw(st.sampled_from([HEAVY, 20, NORMAL, 99, ESSENTIAL])),
                depends_on=tuple(depends_on),
                enabled=draw(st.booleans()) or draw(st.booleans()),
            )
        )
    return profile(*draw(st.permutations(demands)), memory=100, cpu=100, agent=draw(st.integers(0, 20)))


MACHINE: Facts = SERVER._replace(swap=0)


def compiled(asked: Profile, *, fit: bool) -> Plan | str:
    try:
        return compile_plan(asked, MACHINE, fit=fit)
    except BudgetError as error:
        return str(error)


@given(profiles(), st.booleans())
def test_any_accepted_plan_is_within_the_total_and_in_order(asked: Profile, fit: bool) -> None:
    try:
        plan = compile_plan(asked, MACHINE, fit=fit)
    except BudgetError:
        return
    assert sum(service.limits.memory_request for service in plan.services) + plan.memory_reserve <= plan.memory_total
    assert sum(service.limits.cpu_request for service in plan.services) + plan.cpu_reserve <= plan.cpu_total
    seen: set[str] = set()
    for service in plan.services:
        assert seen.issuperset(service.depends_on)
        seen.add(service.name)
        assert all(value is None or type(value) is int for value in service.limits)
    assert all(type(getattr(plan, name)) is int for name in ("memory_total", "cpu_total", "memory_reserve"))


@given(profiles())
def test_fit_changes_nothing_that_fits_and_never_drops_an_essential(asked: Profile) -> None:
    plain, fitting = compiled(asked, fit=False), compiled(asked, fit=True)
    if not isinstance(plain, str):
        assert fitting == plain
    elif not isinstance(fitting, str):
        kept = {service.name for service in fitting.services}
        enabled = [each.service for each in asked.demands if each.enabled]
        assert {service.name for service in enabled if service.importance >= ESSENTIAL} <= kept
        assert kept < {service.name for service in enabled}


@given(profiles())
def test_a_refusal_with_fit_means_that_essentials_and_their_needs_do_not_fit(asked: Profile) -> None:
    if not isinstance(compiled(asked, fit=True), str):
        return
    services = {each.service.name: each for each in asked.demands if each.enabled}
    needed = {name for name, each in services.items() if each.service.importance >= ESSENTIAL}
    while more := {dep for name in needed for dep in services[name].service.depends_on} - needed:
        needed |= more
    memory = sum(amount.absolute for name in needed if (amount := services[name].memory_request) is not None)
    cpu = sum(amount.absolute for name in needed if (amount := services[name].cpu_request) is not None)
    assert memory + (asked.memory_reserve or 0) > 100 or cpu > 100


@given(profiles(), st.booleans())
def test_the_same_input_gives_the_same_answer(asked: Profile, fit: bool) -> None:
    assert compiled(asked, fit=fit) == compiled(asked, fit=fit)


@given(profiles())
def test_what_is_dropped_is_no_more_important_than_what_could_have_gone(asked: Profile) -> None:
    services = [
        each.service._replace(
            limits=Limits(
                memory_request=each.memory_request.absolute if each.memory_request else 0,
                cpu_request=each.cpu_request.absolute if each.cpu_request else 0,
            )
        )
        for each in asked.demands
        if each.enabled
    ]
    total = Total(100, 100, asked.memory_reserve or 0)
    drops, rest = choose_drops(services, total)
    assert sorted([drop.service.name for drop in drops] + [each.name for each in rest]) == sorted(
        each.name for each in services
    )
    kept = {each.name for each in rest}
    assert all(kept.issuperset(each.depends_on) for each in rest)
    if drops and not any(total.over(rest)):  # the last choice was needed
        last = max(index for index, drop in enumerate(drops) if not drop.because_of)
        assert any(total.over([*rest, *(drop.service for drop in drops[last:])]))


@given(st.dictionaries(st.sampled_from(NAMES), st.lists(st.sampled_from(NAMES), max_size=3)))
def test_a_cycle_is_found_exactly_when_there_is_no_order(edges: dict[str, list[str]]) -> None:
    services = [Service(name, ("/x",), depends_on=tuple(needs)) for name, needs in edges.items()]
    cycle = find_cycle(services)
    assert bool(cycle) == (len(in_start_order(services)) < len(services))
    if cycle:
        assert cycle[0] == cycle[-1]
        assert all(after in edges[before] for before, after in itertools.pairwise(cycle))
