"""Given a look, expect decisions: thresholds, order, texts. Time is an input."""

from __future__ import annotations

from typing import Any

import pytest

from edge_agent import governor as g
from edge_agent import grips
from edge_agent.looks import Load, Look
from edge_agent.model import ESSENTIAL, HEAVY, NORMAL, Limits, Return, Service, Shed

MIB = 1 << 20
TOTAL, MACHINE = 1000 * MIB, 1200 * MIB


def service(
    name: str,
    importance: int = NORMAL,
    request: int = 100,
    *,
    cpu: int = 200,
    needs: tuple[str, ...] = (),
    freezable: bool = False,
    limit: int | None = None,
    cpu_limit: int | None = None,
) -> Service:
    """Memory in MiB."""
    limits = Limits(
        memory_request=request * MIB,
        memory_limit=None if limit is None else limit * MIB,
        cpu_request=cpu,
        cpu_limit=cpu_limit,
    )
    return Service(name, ("/bin/x",), depends_on=needs, importance=importance, limits=limits, freezable=freezable)


def plan(*services: Service) -> dict[str, Service]:
    return {each.name: each for each in services}


NODE = plan(
    service("web", ESSENTIAL),
    service("worker"),
    service("telemetry", HEAVY, 50),
    service("analytics", HEAVY),
)
LOADS = {"web": 80, "worker": 250, "telemetry": 40, "analytics": 410}
"""MiB: the worker and analytics have borrowed."""


class Story:
    """Looks one after the other at one node. ``now`` moves by what a look is told."""

    def __init__(self, services: dict[str, Service], loads: dict[str, Any] | None = None) -> None:
        self.services = services
        self.loads = dict(loads or {})
        self.governor = g.Governor()
        self.now = 1000.0

    def look(self, after: float = 0.25, **changes: Any) -> list[g.Decision]:
        """What is decided ``after`` seconds; shed services are gone by then, unless ``loads`` says otherwise."""
        self.now += after
        shed = {name for (_, name), grip in self.governor.grips.items() if grip.level == g.SHED}
        loads = {
            name: load if isinstance(load, Load) else Load(memory=load * MIB)
            for name, load in changes.pop("loads", {n: v for n, v in self.loads.items() if n not in shed}).items()
        }
        free = max(0, TOTAL - sum(load.memory for load in loads.values()))
        given = {"free": free, "available": MACHINE // 2, "machine": MACHINE, "total": TOTAL, **changes}
        self.seen = Look(at=self.now, loads=loads, **given)
        self.governor, decisions = g.decide(self.governor, self.seen, self.services)
        return decisions

    def next(self) -> float | None:
        """When the next look is asked for."""
        return g.next_look(self.governor, self.seen)

    def level(self, name: str, resource: str = g.MEMORY) -> str:
        return self.governor.grips.get((resource, name), g.Grip()).level

    def shed(self, *names: str, some: float = 0.34) -> None:
        """Press until these are shed, in that order."""
        found: list[str] = []
        for _ in range(40):
            found += [each.name for each in self.look(some=some) if isinstance(each, Shed)]
            if len(found) == len(names):
                break
        assert found == list(names)


def names(decisions: list[g.Decision]) -> list[tuple[str, str]]:
    return [(type(each).__name__.lower(), getattr(each, "name", "")) for each in decisions]


# -- memory, the way in ------------------------------------------------------------------------------------------------


def test_at_rest_nothing_is_decided_and_no_look_is_asked_for() -> None:
    story = Story(NODE, LOADS)
    before = story.governor
    assert story.look(some=0.019, full=0.019) == []
    assert story.governor == before
    assert story.next() is None


@pytest.mark.parametrize(("some", "expected"), [(0.099, []), (0.1, [("squeeze", "analytics")])])
def test_loans_are_called_back_from_soft_on(some: float, expected: list[tuple[str, str]]) -> None:
    story = Story(NODE, LOADS)
    assert names(story.look(some=some)) == expected


def test_the_least_important_lends_back_first_and_of_equals_the_largest_loan() -> None:
    story = Story(plan(service("a", HEAVY), service("b", HEAVY), service("c")), {"a": 150, "b": 300, "c": 900})
    found = [names(story.look(some=0.12)) for _ in range(4)]
    assert found == [[("squeeze", "b")], [("squeeze", "a")], [("squeeze", "c")], []]


def test_one_call_back_at_a_time_each_with_time_to_show_its_effect() -> None:
    story = Story(NODE, LOADS)
    assert story.look(some=0.12)
    assert story.next() == story.now + 0.25
    assert story.look(0.2, some=0.12) == []
    assert names(story.look(0.06, some=0.12)) == [("squeeze", "worker")]


def test_who_stays_within_its_own_is_not_squeezed_nor_an_essential() -> None:
    story = Story(plan(service("web", ESSENTIAL, 10), service("small")), {"web": 500, "small": 100})
    assert story.look(some=0.2) == []


def test_something_is_left_to_a_service_without_a_request() -> None:
    story = Story(plan(service("greedy", HEAVY, 0), service("tiny", HEAVY, 0)), {"greedy": 300, "tiny": 9})
    (squeeze,) = story.look(some=0.12)
    assert squeeze == g.Squeeze(
        "greedy", g.MEMORY, 8 * MIB, "memory some 12% over 10%; calls 292 MiB back, 8 MiB are its own"
    )
    assert story.look(some=0.12) == []


@pytest.mark.parametrize(("some", "full"), [(0.299, 0.099), (0.12, 0.0)])
def test_below_hard_nobody_is_shed(some: float, full: float) -> None:
    story = Story(NODE, LOADS)
    decided = [each for _ in range(40) for each in story.look(some=some, full=full)]
    assert not [each for each in decided if isinstance(each, Shed | g.Freeze)]


@pytest.mark.parametrize("pressure", [{"some": 0.3}, {"some": 0.1, "full": 0.1}, {"available": MACHINE // 25 - 1}])
def test_hard_sheds_in_half_a_second_after_the_loan_was_called_back(pressure: dict[str, Any]) -> None:
    story = Story(NODE, LOADS)
    assert names(story.look(**pressure)) == [("squeeze", "analytics")]
    assert story.look(0.2, **pressure) == []
    assert names(story.look(0.05, **pressure)) == [("shed", "analytics")]


def test_hard_must_last_without_a_break() -> None:
    story = Story(NODE, LOADS)
    story.look(some=0.3)
    story.look(0.2, some=0.05)
    assert not [each for each in story.look(0.2, some=0.3) if isinstance(each, Shed)]


def test_the_floor_is_a_share_of_the_machine() -> None:
    story = Story(NODE, LOADS)
    assert [story.look(available=MACHINE // 25) for _ in range(8)] == [[]] * 8


def test_the_text_has_the_numbers_the_gain_and_who_is_next() -> None:
    story = Story(plan(service("web", ESSENTIAL), service("analytics", HEAVY, 310), service("telemetry", 10)))
    story.loads = {"web": 80, "analytics": 310, "telemetry": 40}
    assert story.look(some=0.34) == []
    story.look(0.95, some=0.34, loads={})
    (shed,) = story.look(some=0.34)
    assert shed == Shed("analytics", "memory some 34% over 30% for 1.2 s; frees 310 MiB; next: telemetry")
    (shed,) = story.look(some=0.29, full=0.29)
    assert isinstance(shed, Shed)
    assert shed.text == "memory full 29% over 10% for 1.5 s; frees 40 MiB; next: nobody"


def test_the_machines_shortage_is_said_without_any_stall() -> None:
    story = Story(plan(service("analytics", HEAVY)), {"analytics": 60})
    for _ in range(2):
        (shed,) = story.look(available=30 * MIB, psi=False) or (None,)
    assert isinstance(shed, Shed)
    assert shed.text.startswith("30 MiB of the machine's 1200 MiB are available, under 4% for 0.2 s; frees 60 MiB")


def test_everything_less_important_goes_in_order_and_the_essential_stays() -> None:
    story = Story(NODE, LOADS)
    found = []
    for _ in range(40):
        found += names(story.look(some=0.5))
    assert found == [
        ("squeeze", "analytics"),
        ("shed", "analytics"),
        ("squeeze", "worker"),
        ("shed", "worker"),
        ("shed", "telemetry"),
        ("helpless", ""),
    ]


def test_helpless_is_said_once_and_looked_at_seldom_until_it_has_been_calm_for_long() -> None:
    story = Story(plan(service("web", ESSENTIAL)), {"web": 900})
    decided = [story.look(some=some) for some in (0.9, 0.9, 0.9, 0.15, 0.9, 0.9, 0.9)]
    (helpless,) = [each for one in decided for each in one]
    assert helpless == g.Helpless("memory some 90% over 30% for 0.2 s; only essential services are left, and they stay")
    assert story.next() == story.now + 2.0
    story.look(9.9)
    assert [len(story.look(some=0.9)) for _ in range(3)] == [0, 0, 0]
    story.look(10.0)
    assert [len(story.look(some=0.9)) for _ in range(3)] == [0, 1, 0]


def test_a_frozen_one_is_shed_when_freezing_was_not_enough() -> None:
    story = Story(plan(service("batch", HEAVY, freezable=True)), {"batch": 300})
    found = [story.look(some=0.4) for _ in range(2)]
    assert [names(each) for each in found] == [[("squeeze", "batch")], [("freeze", "batch")]]
    assert [story.look(some=0.4) for _ in range(3)] == [[], [], []], "its memory has to be moved out first"
    assert names(story.look(some=0.4)) == [("shed", "batch")]
    (freeze,) = found[1]
    assert freeze == g.Freeze("batch", "memory some 40% over 30% for 0.2 s; keeps 300 MiB from growing")


def test_only_what_may_be_frozen_is() -> None:
    story = Story(NODE, LOADS)
    decided = [each for _ in range(60) for each in story.look(some=0.9)]
    assert not [each for each in decided if isinstance(each, g.Freeze)]


def test_who_is_shed_gets_its_grace_before_the_next_is_touched() -> None:
    story = Story(NODE, LOADS)
    story.shed("analytics")
    found = [names(story.look(some=0.5, loads=LOADS)) for _ in range(12)]
    assert found[:8] == [[]] * 8
    assert ("squeeze", "worker") in found[8] + found[9]


def test_who_has_what_it_was_promised_is_shed_after_all_who_borrow_however_important_they_are() -> None:
    services = plan(
        service("heavy", HEAVY, 300), service("lender", 90), service("back", 80), service("a", 70, needs=("lender",))
    )
    story = Story(services, {"heavy": 300, "lender": 300, "back": 125, "a": 10})
    story.shed("a", "lender", "heavy", "back")
    assert story.level("back") == g.SHED


# -- who is shed -------------------------------------------------------------------------------------------------------


def test_what_an_essential_needs_is_as_important_as_it() -> None:
    services = plan(
        service("store", HEAVY),
        service("broker", HEAVY, needs=("store",)),
        service("web", ESSENTIAL, needs=("broker", "absent")),
        service("report", HEAVY, needs=("store",)),
    )
    assert grips.effective_importance(services) == {"store": 100, "broker": 100, "web": 100, "report": 0}
    story = Story(services, {"store": 300, "broker": 300, "web": 10, "report": 20})
    story.shed("report")
    found = [each for _ in range(20) for each in story.look(some=0.9)]
    assert [type(each) for each in found] == [g.Helpless]


def test_dependants_go_before_what_they_depend_on_even_small_ones() -> None:
    services = plan(service("store", HEAVY), service("a", HEAVY, needs=("store",)), service("b", needs=("a",)))
    story = Story(services, {"store": 400, "a": 0, "b": 0})
    story.shed("b", "a", "store")


def test_what_frees_nothing_is_not_shed() -> None:
    services = plan(service("web", ESSENTIAL), service("a", HEAVY, needs=("web",)), service("b", HEAVY))
    story = Story(services, {"web": 400, "a": 0, "b": 0})
    assert [names(story.look(some=0.9)) for _ in range(3)] == [[], [("helpless", "")], []]


def test_services_that_are_leaving_are_left_alone() -> None:
    story = Story(plan(service("web", ESSENTIAL)), {"web": 10, "of-another-plan": 500})
    assert [names(story.look(some=0.9)) for _ in range(2)] == [[], [("helpless", "")]]


# -- whose pressure ----------------------------------------------------------------------------------------------------


def waits(memory: int, share: float) -> Load:
    return Load(memory=memory * MIB, memory_wait=share)


def test_who_stalls_at_its_own_limit_presses_nobody() -> None:
    services = plan(service("cache", ESSENTIAL), service("other", ESSENTIAL), service("report", HEAVY))
    limited = {"cache": waits(98, 0.9)._replace(limited=1), "other": waits(98, 0.5)._replace(limited=9), "report": 300}
    story = Story(services, limited)
    assert [story.look(some=1.0, full=0.9) for _ in range(8)] == [[]] * 8
    story.loads = {"cache": waits(98, 0.9), "other": 98, "report": 300}
    assert story.look(2.9, some=0.9) == [], "it may sleep for as long as that before it meets its limit again"
    assert names(story.look(0.1, some=0.9)) == [("squeeze", "report")], "it is not its limit that it waits for"
    assert story.governor.limited == {}


def test_of_the_stall_of_all_only_as_much_counts_as_others_stalled_at_all() -> None:
    """Counters are read one after the other, and stalls weigh by processor: so they do not add up."""
    services = plan(service("cache", ESSENTIAL), service("report", HEAVY))
    story = Story(services, {"cache": waits(98, 0.8)._replace(limited=1), "report": waits(300, 0.01)})
    assert [story.look(full=1.0) for _ in range(8)] == [[]] * 8


def test_who_is_squeezed_presses_nobody_and_gets_it_back_when_the_others_are_calm() -> None:
    services = plan(service("web", ESSENTIAL), service("small", HEAVY, 50), service("worker"))
    story = Story(services, {"web": waits(90, 0.2), "small": 40, "worker": 300})
    assert names(story.look(some=0.2)) == [("squeeze", "worker")]
    story.loads = {"web": 300, "small": 40, "worker": waits(100, 0.95)}
    assert [story.look(some=0.95, full=0.9, swap=True) for _ in range(12)] == [[]] * 12
    assert names(story.look(10.0, some=0.95, swap=True)) == [("relax", "worker")]


@pytest.mark.parametrize(("swap", "after"), [(False, 0.25), (True, 2.0)])
def test_who_gives_nothing_back_in_time_is_shed_though_nobody_else_waits(swap: bool, after: float) -> None:
    services = plan(service("web", ESSENTIAL), service("small", HEAVY, 50), service("leak"))
    if after < 1.0:  # a swap limit of none is as good as no swap
        leak = services["leak"]
        services["leak"] = leak._replace(limits=leak.limits._replace(swap_limit=0))
        swap = True
    story = Story(services, {"web": 90, "small": 40, "leak": waits(600, 0.9)})
    assert names(story.look(some=0.9, swap=swap)) == [("squeeze", "leak")]
    assert story.look(after - 0.01, some=0.9, swap=swap) == []
    (shed,) = story.look(0.01, some=0.9, swap=swap)
    assert shed == Shed(
        "leak", "leak waits for memory 90% of the time and gives nothing back; frees 600 MiB; next: small"
    )


def test_who_has_given_back_may_be_slow_for_longer() -> None:
    services = plan(service("web", ESSENTIAL), service("worker"))
    story = Story(services, {"web": 90, "worker": waits(300, 0.9)})
    story.look(some=0.9)
    story.loads["worker"] = waits(110, 0.9)
    assert [story.look(some=0.9) for _ in range(20)] == [[]] * 20


def test_without_stall_measurement_a_full_total_costs_those_who_borrow() -> None:
    services = plan(service("web", ESSENTIAL, 500), service("small", HEAVY, 100), service("leak", NORMAL, 100))
    story = Story(services, {"web": 470, "small": 90, "leak": 401})
    assert story.look() == []  # with stalls measured, that is how it should be
    (squeeze,) = story.look(psi=False)
    assert isinstance(squeeze, g.Squeeze)
    assert (
        squeeze.text
        == "39 MiB of 1000 MiB for all services are free, under 4%; calls 301 MiB back, 100 MiB are its own"
    )
    assert names(story.look(psi=False)) == [("shed", "leak")]
    full = Story(services, {"web": 800, "small": 90, "leak": 100})
    assert [full.look(psi=False) for _ in range(8)] == [[]] * 8, "everybody has what is his"


# -- memory, the way back ----------------------------------------------------------------------------------------------


def test_the_shed_return_in_reverse_each_after_its_own_wait() -> None:
    story = Story(NODE, LOADS)
    story.shed("analytics", "worker", "telemetry", some=0.5)
    story.loads = {"web": 80}
    found: list[tuple[float, str]] = []
    last = story.now
    for _ in range(60):
        for decision in story.look(1.0):
            assert isinstance(decision, Return)
            found.append((story.now - last, decision.name))
    assert found == [(10.0, "worker"), (20.0, "telemetry"), (30.0, "analytics")]
    assert story.next() is None


def test_a_return_has_its_numbers() -> None:
    story = Story(plan(service("worker", request=300)), {"worker": 310})
    story.look(some=0.5)
    story.shed("worker")
    (back,) = story.look(12.0, free=400 * MIB)
    assert back == Return("worker", "memory calm for 12 s; 400 MiB are free, it held 310 MiB")


@pytest.mark.parametrize("some", [0.02, 0.09])
def test_between_calm_and_soft_nothing_changes(some: float) -> None:
    story = Story(NODE, LOADS)
    story.look(some=0.12)
    assert [story.look(1.0, some=some) for _ in range(30)] == [[]] * 30
    assert story.look(9.9) == []
    assert names(story.look(0.1)) == [("relax", "analytics")]


def test_a_frozen_one_thaws_and_is_relaxed() -> None:
    story = Story(plan(service("batch", HEAVY, freezable=True)), {"batch": 300})
    story.look(some=0.4)
    story.look(some=0.4)
    assert names(story.look(10.0)) == [("thaw", "batch"), ("relax", "batch")]
    assert story.level("batch") == ""


def test_what_returns_must_fit_beside_the_requests_of_those_before_it() -> None:
    story = Story(plan(service("big", 60, 500), service("small", HEAVY, 50)), {"big": 600, "small": 60})
    story.shed("small", some=0.5)
    story.shed("big", some=0.5)
    story.loads = {}
    needed = 750 * MIB
    assert story.look(10.0, free=needed - 1, available=MACHINE)[0].name == "small"  # type: ignore[union-attr]
    assert names(story.look(10.0, free=needed, available=MACHINE)) == [("return", "big")]
    tight = Story(plan(service("big", 60, 500), service("small", HEAVY, 50)), {"big": 600, "small": 60})
    tight.shed("small", some=0.5)
    tight.shed("big", some=0.5)
    assert tight.look(10.0, free=574 * MIB, loads={}) == []
    assert names(tight.look(0.0, free=575 * MIB, available=MACHINE, loads={})) == [("return", "small")]


def test_the_machine_must_have_room_as_well_above_the_floor() -> None:
    story = Story(plan(service("worker")), {"worker": 80})
    story.shed("worker")
    assert story.look(60.0, free=TOTAL, available=147 * MIB, loads={}) == []
    assert names(story.look(60.0, free=TOTAL, available=148 * MIB, loads={})) == [("return", "worker")]


def test_of_what_it_held_above_its_own_half_is_asked_for_after_each_further_wait() -> None:
    for waits_, free in ((1, 1125), (2, 613), (3, 357), (4, 229)):
        story = Story(plan(service("leak", request=100)), {"leak": 900})
        story.look(some=0.5)
        story.shed("leak", some=0.5)
        assert story.look(10.0 * waits_, free=free * MIB - MIB, available=2 * TOTAL) == []
        assert story.next() == story.now + 10.0
        assert names(story.look(0.0, free=free * MIB, available=2 * TOTAL)) == [("return", "leak")]


def test_a_leak_counts_as_needed_only_for_the_longest_wait() -> None:
    story = Story(plan(service("leak", request=100)), {"leak": 900})
    story.governor = g.Governor({(g.MEMORY, "leak"): g.Grip(g.SHED, story.now, 900 * MIB, 7, "why")})
    assert story.look(599.0, free=TOTAL, loads={}) == []
    assert names(story.look(1.0, free=100 * MIB, loads={})) == [("return", "leak")]


def test_a_dependant_waits_for_what_it_depends_on() -> None:
    story = Story(plan(service("store", 60, 0), service("app", 60, 10, needs=("store",))), {"store": 500, "app": 10})
    story.shed("app", "store", some=0.5)
    assert story.look(10.0, free=300 * MIB) == []
    assert names(story.look(10.0, free=TOTAL, available=MACHINE)) == [("return", "store")]
    assert names(story.look(10.0, free=TOTAL, loads={"store": 20})) == [("return", "app")]


def test_waits_double_with_each_offence_up_to_the_longest_and_are_forgiven() -> None:
    story = Story(plan(service("again", request=300)), {"again": 200})
    seen = []
    for _ in range(9):
        story.shed("again")
        shed_at = story.now
        while not story.look(1.0):
            assert story.now - shed_at < 1000
        seen.append(round(story.now - shed_at))
    assert seen == [10, 20, 40, 80, 160, 320, 600, 600, 600]
    story.look(grips.FORGIVEN)
    assert story.governor.grips == {}
    story.shed("again")
    assert story.look(9.9) == []
    assert names(story.look(0.1)) == [("return", "again")]


def test_forgiveness_counts_from_the_return_not_from_the_shedding() -> None:
    story = Story(plan(service("again", request=300)), {"again": 200})
    key = (g.MEMORY, "again")
    story.governor = g.Governor({key: g.Grip(g.SHED, story.now - 600, 200 * MIB, 9, "why")})
    assert names(story.look(0.0)) == [("return", "again")]
    assert story.governor.grips[key].offences == 9
    story.shed("again")
    assert story.governor.grips[key].offences == 10


def test_offences_without_end_are_counted_to_a_bound() -> None:
    assert grips.wait(g.MEMORY, 10**9) == 600.0
    story = Story(plan(service("again", request=300)), {"again": 200})
    key = (g.MEMORY, "again")
    story.governor = g.Governor({key: g.Grip("", story.now, 0, grips.MOST_OFFENCES, "")})
    story.shed("again")
    assert story.governor.grips[key].offences == grips.MOST_OFFENCES


def test_an_important_offender_does_not_keep_the_innocent_waiting() -> None:
    story = Story(plan(service("bad", 60, 100), service("good", HEAVY, 50)))
    at = story.now
    story.governor = g.Governor(
        {
            (g.MEMORY, "bad"): g.Grip(g.SHED, at, 80 * MIB, 7, "why"),
            (g.MEMORY, "good"): g.Grip(g.SHED, at, 40 * MIB, 1, "why"),
        }
    )
    assert names(story.look(10.0)) == [("return", "good")]


# -- killed by the kernel ----------------------------------------------------------------------------------------------


def test_what_the_kernel_killed_for_want_of_memory_stays_away_as_if_it_were_shed() -> None:
    story = Story(plan(service("web", ESSENTIAL), service("leak", HEAVY, 10)), {"web": 80, "leak": 150})
    story.look()
    story.governor, decisions = g.killed(story.governor, story.services, "leak", 150 * MIB, story.now)
    assert decisions == [
        Shed(
            "leak",
            "it was killed for want of memory, holding 150 MiB, 10 MiB are its own; it stays away for now",
        )
    ]
    assert story.level("leak") == g.SHED
    assert story.next() == story.now + 9.0, "and a look before, to compare with"
    assert story.look(9.9) == []
    assert names(story.look(0.1)) == [("return", "leak")]
    story.governor, _ = g.killed(story.governor, story.services, "leak", 150 * MIB, story.now)
    assert story.governor.grips[g.MEMORY, "leak"].offences == 2
    assert story.look(19.9) == []
    assert names(story.look(0.1)) == [("return", "leak")]


def test_a_kill_costs_no_essential_nothing_it_needs_and_nobody_twice() -> None:
    services = plan(service("store", HEAVY), service("web", ESSENTIAL, needs=("store",)), service("batch"))
    for name in ("web", "store", "unknown"):
        assert g.killed(g.Governor(), services, name, MIB, 1.0) == (g.Governor(), [])
    governor, decisions = g.killed(g.Governor(), services, "batch", MIB, 1.0)
    assert names(decisions) == [("shed", "batch")]
    assert g.killed(governor, services, "batch", MIB, 2.0) == (governor, [])


def test_a_squeezed_one_that_is_killed_has_offended_once() -> None:
    story = Story(NODE, LOADS)
    story.look(some=0.12)
    governor, _ = g.killed(story.governor, story.services, "analytics", MIB, story.now + 1)
    grip = governor.grips[g.MEMORY, "analytics"]
    assert (grip.level, grip.offences) == (g.SHED, 1)


def test_a_squeezed_one_that_makes_no_progress_is_sent_away_and_returns() -> None:
    story = Story(NODE, LOADS)
    story.look(some=0.12)
    story.governor, decisions = g.away(story.governor, story.services, "analytics", 100 * MIB, story.now, "no progress")
    assert decisions == [Shed("analytics", "no progress")]
    assert names(story.look(10.0)) == [("return", "analytics")]


# -- what else happens -------------------------------------------------------------------------------------------------


def test_a_person_who_brings_it_back_wins_and_the_offence_stays() -> None:
    story = Story(NODE, LOADS)
    story.shed("analytics")
    before = story.governor
    story.governor = g.released(before, "analytics", story.now)
    assert story.level("analytics") == ""
    assert story.look(some=0.0, loads=LOADS) == []
    story.look(some=0.5)
    assert story.governor.grips[g.MEMORY, "analytics"].offences == 2
    assert g.released(story.governor, "analytics", 1.0) is story.governor, "it is squeezed, not shed"
    assert g.released(story.governor, "unknown", 1.0) is story.governor


def test_a_service_that_leaves_the_plan_is_forgotten() -> None:
    story = Story(NODE, LOADS)
    story.shed("analytics")
    story.services = plan(service("web", ESSENTIAL))
    assert story.look(loads={"web": 80}) == []
    assert story.governor.grips == {}


@pytest.mark.parametrize("needed", [False, True], ids=["itself", "what needs it"])
@pytest.mark.parametrize(
    ("level", "expected"),
    [
        (g.SQUEEZED, [("relax", "batch")]),
        (g.FROZEN, [("thaw", "batch"), ("relax", "batch")]),
        (g.SHED, [("return", "batch")]),
    ],
)
def test_what_becomes_essential_gets_everything_back_at_once(level: str, expected: Any, needed: bool) -> None:
    batch = service("batch", HEAVY if needed else ESSENTIAL)
    story = Story(plan(batch, service("web", ESSENTIAL, needs=("batch",) if needed else ())), {"batch": 80})
    story.governor = g.Governor({(g.MEMORY, "batch"): g.Grip(level, story.now, MIB, 3, "why")})
    assert names(story.look(some=0.9)) == expected
    assert [names(story.look(some=0.9)) for _ in range(2)] == [[("helpless", "")], []]


def test_the_governor_given_is_not_changed() -> None:
    story = Story(NODE, LOADS)
    story.look(some=0.5)
    before = story.governor
    copy = before._replace(grips=dict(before.grips), rough=dict(before.rough))
    story.look(some=0.5)
    assert before == copy
    assert story.governor != before


def test_without_stall_measurement_looks_come_the_sooner_the_less_is_left() -> None:
    story, pauses = Story(NODE, {"web": 80}), []
    for left in (0.0, 0.03, 0.15, 0.3, 1.0):
        story.look(psi=False, free=int(left * TOTAL), total=TOTAL)
        pauses.append(round((story.next() or 0.0) - story.now, 2))
    assert pauses == [0.5, 0.6, 2.88, 10.0, 10.0]
    story.look(psi=False, available=MACHINE // 20)
    assert story.next() == pytest.approx(story.now + 0.76, abs=0.01), "the machine's counts as well"
    story.governor = g.Governor({(g.MEMORY, "worker"): g.Grip(g.SHED, story.now, MIB, 3, "why")})
    story.look(psi=False, available=MACHINE // 20)
    assert (story.next() or 0) < story.now + 1.0, "what is due only later does not put it off"
