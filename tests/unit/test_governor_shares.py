"""cpu and io: who is entitled and waits gets what less important ones have borrowed; given a look, expect decisions."""

from __future__ import annotations

from typing import Any

import pytest

from edge_agent import governor as g
from edge_agent.looks import Load
from edge_agent.model import ESSENTIAL, HEAVY, Limits, Service

from .test_governor import MACHINE, MIB, Story, names, plan, service

NODE = plan(
    service("web", ESSENTIAL, cpu=500),
    service("worker", cpu=300),
    service("batch", HEAVY, cpu=0),
    service("idle", HEAVY),
)


def cpu(used: int, share: float = 0.0) -> Load:
    return Load(cpu=used, cpu_wait=share)


def io(rate: int, share: float = 0.0) -> Load:
    """MiB/s."""
    return Load(io=rate * MIB, io_wait=share)


def amounts(decisions: list[g.Decision]) -> list[tuple[str, int]]:
    return [(each.name, each.amount) for each in decisions if isinstance(each, g.Squeeze | g.Relax)]


def look(story: Story, after: float = 0.25, **loads: Load) -> list[tuple[str, str]]:
    return names(story.look(after, loads=loads))


def test_an_entitled_one_that_waits_hard_gets_all_loans_of_less_important_ones_at_once() -> None:
    story = Story(NODE)
    found = story.look(loads={"web": cpu(300, 0.34), "worker": cpu(700), "batch": cpu(900), "idle": cpu(10)})
    assert found == [
        g.Squeeze(
            "batch",
            g.CPU,
            50,
            "web waits for cpu 34% of the time, over 10%; batch used 0.90 cores, 0.05 are left to it",
        ),
        g.Squeeze(
            "worker",
            g.CPU,
            300,
            "web waits for cpu 34% of the time, over 10%; worker used 0.70 cores, 0.30 are left to it",
        ),
    ]
    assert story.next() == story.now + 0.5


def test_one_that_waits_a_little_gets_half_of_a_loan_and_then_all_of_it() -> None:
    story = Story(NODE)
    waits = {"web": cpu(300, 0.15), "worker": cpu(700), "batch": cpu(130)}
    assert amounts(story.look(loads=waits)) == [("batch", 50), ("worker", 500)], "half of little is nothing"
    assert amounts(story.look(0.49, loads=waits)) == [], "it has to show its effect"
    assert amounts(story.look(0.01, loads={**waits, "worker": cpu(500)})) == [("worker", 300)]
    assert amounts(story.look(0.5, loads=waits)) == [], "there is no more to get"


def test_half_is_enough_when_nobody_waits_any_more() -> None:
    story = Story(NODE)
    story.look(loads={"web": cpu(300, 0.15), "worker": cpu(700)})
    assert story.look(0.5, loads={"web": cpu(300), "worker": cpu(500)}) == []
    assert look(story, 1.5, web=cpu(300), worker=cpu(500)) == [("relax", "worker")]


@pytest.mark.parametrize(
    ("web", "why"),
    [
        (cpu(300, 0.099), "it waits too little"),
        (cpu(501, 0.9), "it uses more than is its own"),
    ],
)
def test_who_is_not_entitled_calls_nothing_back(web: Load, why: str) -> None:
    assert look(Story(NODE), web=web, batch=cpu(900)) == [], why


def test_who_waits_at_its_own_limit_calls_nothing_back() -> None:
    services = plan(service("web", ESSENTIAL, cpu=500, cpu_limit=500), service("batch", HEAVY, cpu=0))
    assert look(Story(services), web=cpu(450, 0.9), batch=cpu(900)) == []
    assert look(Story(services), web=cpu(449, 0.9), batch=cpu(900)) == [("squeeze", "batch")]


def test_loans_come_only_from_less_important_ones() -> None:
    story = Story(NODE)
    assert look(story, web=cpu(900), worker=cpu(100, 0.9), batch=cpu(40)) == []
    assert story.next() is None, "nothing can be done, so there is nothing to look at"
    assert look(story, web=cpu(900), worker=cpu(100, 0.9), batch=cpu(60)) == [("squeeze", "batch")]


def test_what_an_essential_needs_is_entitled_as_it_is() -> None:
    services = plan(service("store", HEAVY, cpu=200), service("web", ESSENTIAL, needs=("store",)), service("worker"))
    assert look(Story(services), store=cpu(100, 0.5), worker=cpu(900)) == [("squeeze", "worker")]


def test_who_is_squeezed_waits_for_its_own_limit_and_so_is_no_sufferer() -> None:
    story = Story(NODE)
    look(story, web=cpu(300, 0.5), worker=cpu(700))
    assert look(story, web=cpu(300), worker=cpu(300, 1.0), batch=cpu(900)) == []
    assert look(story, 2.0, web=cpu(300), worker=cpu(300, 1.0)) == [("relax", "worker")]


def test_given_back_one_by_one_after_calm_the_most_important_first() -> None:
    story = Story(NODE)
    look(story, web=cpu(300, 0.5), worker=cpu(700), batch=cpu(900))
    assert story.next() == story.now + 0.5
    calm = {"web": cpu(300), "worker": cpu(300), "batch": cpu(50)}
    assert story.look(loads=calm, after=0.5) == []
    assert story.next() == story.now + 1.0
    assert story.look(loads=calm, after=1.0) == []
    assert story.next() == story.now + 0.5
    assert story.look(0.49, loads=calm) == []
    (relax,) = story.look(0.01, loads=calm)
    assert relax == g.Relax("worker", g.CPU, "nobody entitled has waited for cpu for 2 s")
    assert story.look(1.9, loads=calm) == []
    assert names(story.look(0.1, loads=calm)) == [("relax", "batch")]
    assert story.next() is None


def test_what_is_held_for_somebody_stays_as_long_as_he_waits() -> None:
    story = Story(NODE)
    pressed = {"web": cpu(300, 0.5), "worker": cpu(300)}
    look(story, web=cpu(300, 0.5), worker=cpu(700))
    assert [story.look(1.0, loads=pressed) for _ in range(20)] == [[]] * 20
    assert look(story, 1.9, web=cpu(300), worker=cpu(300)) == []


def test_a_less_important_one_that_waits_does_not_keep_a_loan_from_a_more_important_one() -> None:
    services = plan(service("web", ESSENTIAL), service("worker"), service("batch", HEAVY))
    story = Story(services)
    look(story, web=cpu(100, 0.5), worker=cpu(700), batch=cpu(100, 0.9))
    assert look(story, 2.0, web=cpu(100), worker=cpu(200), batch=cpu(100, 0.9)) == [("relax", "worker")]


def test_waits_of_cpu_double_up_to_a_minute() -> None:
    story, seen = Story(NODE), []
    for _ in range(8):
        assert look(story, web=cpu(300, 0.5), worker=cpu(700)) == [("squeeze", "worker")]
        at = story.now
        while not look(story, 1.0, web=cpu(300), worker=cpu(300)):
            assert story.now - at < 100
        seen.append(round(story.now - at))
    assert seen == [2, 4, 8, 16, 32, 60, 60, 60]


def test_the_least_important_user_of_the_disk_gets_a_quarter_and_again_a_quarter_down_to_the_least() -> None:
    story, rate, found = Story(NODE), 40 * MIB, []
    for _ in range(6):
        for squeeze in story.look(0.5, loads={"web": io(1, 0.2), "worker": io(90), "batch": Load(io=rate)}):
            assert isinstance(squeeze, g.Squeeze)
            found.append(rate := squeeze.amount)
            assert squeeze.name == ("batch" if rate < 20 * MIB else "worker")
        if rate <= 256 * 1024:
            break
    assert found == [10 * MIB, 2560 * 1024, 640 * 1024, 256 * 1024]
    (next_one,) = story.look(loads={"web": io(1, 0.2), "worker": io(90), "batch": io(1)})
    assert next_one == g.Squeeze(
        "worker",
        g.IO,
        90 * MIB // 4,
        "web waits for io 20% of the time, over 10%; worker moved 90.0 MiB/s, 22.5 MiB/s are left to it",
    )


def test_a_flood_goes_down_by_sixteenths_of_what_is_left_whatever_is_still_on_its_way() -> None:
    story = Story(NODE)
    flood = {"web": io(1, 0.9), "batch": io(160)}
    assert amounts(story.look(loads=flood)) == [("batch", 10 * MIB)]
    assert amounts(story.look(0.49, loads=flood)) == [], "it has to show its effect"
    assert amounts(story.look(0.01, loads=flood)) == [("batch", 640 * 1024)]
    assert amounts(story.look(0.5, loads=flood)) == [("batch", 256 * 1024)]
    assert amounts(story.look(0.5, loads=flood)) == [], "there is no more to get"


def test_of_a_disk_is_given_back_four_times_as_much_at_a_time_to_who_wants_more() -> None:
    story = Story(NODE)
    story.look(loads={"web": io(1, 0.9), "batch": io(16)})
    wants, given, times = {"web": io(1), "batch": io(1, 0.9)}, [], []
    while story.level("batch", g.IO):
        at = story.now
        while not (found := story.look(1.0, loads=wants)):
            assert story.now - at < 10
        given += amounts(found)
        times.append(round(story.now - at))
    assert given == [("batch", amount) for amount in (4 * MIB, 16 * MIB, 0)]
    assert times == [4, 4, 4]


def test_a_flood_that_comes_back_is_an_offence() -> None:
    story, waits = Story(NODE), []
    story.look(loads={"web": io(1, 0.9), "batch": io(16)})
    for _ in range(6):
        at = story.now
        while not story.look(1.0, loads={"web": io(1), "batch": io(1, 0.9)}):
            assert story.now - at < 100
        waits.append(round(story.now - at))
        assert look(story, 1.0, web=io(1, 0.9), batch=io(4)) == [("squeeze", "batch")]
    assert waits == [4, 8, 16, 32, 60, 60]


def test_who_wants_no_more_of_a_disk_gets_all_of_it() -> None:
    story = Story(NODE)
    story.look(loads={"web": io(1, 0.9), "batch": io(16)})
    assert story.look(4.0, loads={"web": io(1), "batch": io(0)}) == [
        g.Relax("batch", g.IO, "nobody entitled has waited for io for 4 s")
    ]


def test_without_psi_a_busy_disk_is_taken_from_who_moves_more() -> None:
    story = Story(NODE)
    loads = {"web": io(2), "worker": io(5), "batch": io(1)}
    assert story.look(psi=False, disk=0.89, loads=loads) == []
    (squeeze,) = story.look(psi=False, disk=0.95, loads=loads)
    assert squeeze == g.Squeeze(
        "worker",
        g.IO,
        5 * MIB // 16,
        "the disk that web needs is busy 95% of the time, over 90%; worker moved 5.0 MiB/s, 0.3 MiB/s are left to it",
    )
    assert Story(NODE).look(psi=False, disk=1.0, loads={"web": io(0), "worker": io(5)}) == [], "nobody waits"


def test_without_psi_it_looks_more_often_while_the_disk_is_busy() -> None:
    story, due = Story(NODE), []
    for disk in (0.0, 0.5, 1.0):
        story.look(psi=False, disk=disk, available=MACHINE)
        due.append(round((story.next() or 0.0) - story.now, 1))
    assert due == [10.0, 10.0, 0.5]


def test_what_cannot_be_held_is_said_and_nothing_is_taken_hold_of() -> None:
    story = Story(NODE)
    story.governor = g.Governor(unheld={g.IO: "no io controller (absent)"})
    flood = {"web": io(1, 0.9), "batch": io(16)}
    why = "batch is not held, io is not enforced: no io controller (absent)"
    assert story.look(loads=flood) == [g.Helpless(f"web waits for io 90% of the time, over 10%; {why}", g.IO)]
    assert story.governor.grips == {}
    assert story.next() is None, "a trigger wakes it"
    assert [story.look(1.0, loads=flood) for _ in range(599)] == [[]] * 599
    assert [type(each) for each in story.look(1.0, loads=flood)] == [g.Helpless], "now and then"
    assert look(story, web=cpu(100, 0.9), batch=cpu(900)) == [("squeeze", "batch")], "cpu is another thing"


def test_the_disk_is_not_taken_from_who_is_as_important() -> None:
    assert look(Story(NODE), worker=io(90, 0.9), web=io(200)) == []
    assert look(Story(NODE), worker=io(90, 0.9), web=io(200), batch=Load(io=256 * 1024)) == []


def test_who_moves_little_beside_the_one_that_waits_is_not_to_blame() -> None:
    assert look(Story(NODE), web=io(16, 0.9), batch=io(2)) == []
    assert look(Story(NODE), web=io(16, 0.9), batch=io(3)) == [("squeeze", "batch")]


def test_io_is_given_back_and_a_squeezed_one_that_waits_is_no_sufferer() -> None:
    story = Story(NODE)
    look(story, web=io(1, 0.3), worker=io(40))
    assert look(story, 3.9, web=io(1), worker=io(1, 1.0), batch=io(50)) == []
    assert look(story, 0.1, web=io(1), worker=io(1, 1.0), batch=io(50)) == [("relax", "worker")]


def test_a_resource_is_given_back_by_itself() -> None:
    story = Story(NODE)
    both = {"web": Load(cpu=300, cpu_wait=0.5, io_wait=0.5), "worker": Load(cpu=700, io=40 * MIB)}
    found = story.look(loads=both)
    assert [(type(each), each.resource) for each in found if isinstance(each, g.Squeeze)] == [
        (g.Squeeze, g.CPU),
        (g.Squeeze, g.IO),
    ]
    assert [each for _ in range(8) for each in look(story, web=Load(io_wait=0.5), worker=cpu(300))] == [
        ("relax", "worker")
    ]
    assert story.level("worker", g.CPU) == ""
    assert story.level("worker", g.IO) == g.SQUEEZED


@pytest.mark.parametrize("level", [g.FROZEN, g.SHED])
def test_who_is_frozen_or_shed_lends_nothing_and_suffers_nothing(level: str) -> None:
    story = Story(NODE)
    story.governor = g.Governor({(g.MEMORY, "worker"): g.Grip(level, story.now, MIB, 1, "why")})
    assert look(story, worker=Load(cpu=100, cpu_wait=1.0, io_wait=1.0), batch=Load(cpu=900, io=MIB * 40)) == []
    lends: list[Any] = look(story, web=cpu(100, 0.5), worker=cpu(900))
    assert (lends == []) == (level == g.SHED)


def test_a_service_without_a_request_is_entitled_to_nothing() -> None:
    services = plan(Service("web", ("/bin/x",), importance=ESSENTIAL, limits=Limits()), service("batch", HEAVY, cpu=0))
    assert look(Story(services), web=cpu(1, 0.9), batch=cpu(900)) == []
