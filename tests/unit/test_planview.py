"""How plans and differences look to people and to programs."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from edge_agent import text
from edge_agent.budget import compile_plan
from edge_agent.cli.plandiff import Change, diff, render_diff
from edge_agent.cli.planview import render, to_dict
from edge_agent.demand import Amount, Facts, Profile
from edge_agent.enforcement import predict, predict_sandboxes, predict_total
from edge_agent.model import ESSENTIAL, HEAVY, Health, Limits, Log, Plan, Restart, Sandbox, Service

from .samples import EDGE, GB, GIB, MACHINES, MB, MIB, SERVER, SHARES, STOCK_PI, demand, profile


def shown(plan: Plan, facts: Facts) -> str:
    return render(plan, predict(facts, plan), predict_total(facts, plan), predict_sandboxes(facts, plan))


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("asked", [EDGE, SHARES], ids=lambda each: str(each.name))
def test_golden_text(asked: Profile, machine: str, golden: Callable[[str, str], None]) -> None:
    facts = MACHINES[machine]
    seen = shown(compile_plan(asked, facts), facts)
    assert max(map(len, seen.splitlines())) <= 100
    golden(f"planview-{asked.name}-{machine}.txt", seen)


def test_golden_json(golden: Callable[[str, str], None]) -> None:
    plan = compile_plan(SHARES, STOCK_PI)
    seen = to_dict(plan, predict(STOCK_PI, plan), predict_total(STOCK_PI, plan), predict_sandboxes(STOCK_PI, plan))
    golden("planview-shares-stock-pi.json", json.dumps(seen, indent=1) + "\n")


def test_golden_fit_and_difference(golden: Callable[[str, str], None]) -> None:
    """The edge profile with its heavy services on, moved from a large machine to a small one."""
    asked = EDGE._replace(
        demands=(
            *EDGE.demands[:3],
            demand("analytics", 300 * MB, 0, importance=HEAVY),
            demand("report", 10 * MB, 0, importance=HEAVY, depends_on=("analytics",)),
        )
    )
    large = compile_plan(asked, SERVER)
    small = compile_plan(asked._replace(memory_total=Amount(1100 * MB)), SERVER, fit=True)
    golden(
        "planview-fit.txt", shown(small, SERVER) + "\n" + render_diff(large, small) + "\n" + render_diff(small, large)
    )


def test_a_plan_without_services_is_shown() -> None:
    plan = compile_plan(profile(), SERVER)
    assert "(total)" in shown(plan, SERVER)
    assert to_dict(plan, {}, predict_total(SERVER, plan), {})["services"] == {}


def test_nothing_unenforced_is_called_enforced() -> None:
    for facts in MACHINES.values():
        plan = compile_plan(SHARES, facts)
        data = json.loads(
            json.dumps(to_dict(plan, predict(facts, plan), predict_total(facts, plan), predict_sandboxes(facts, plan)))
        )
        for name, service in data["services"].items():
            for resource, verdict in service["enforcement"].items():
                kind, code = predict(facts, plan)[name][resource]
                assert (verdict["kind"], verdict["code"]) == (kind, code)
                assert (
                    ("fix" in verdict) == ("because" in verdict) == (kind in ("sampled", "not enforced") or code != "")
                )


# -- differences -------------------------------------------------------------------------------------------------------

WEB = Service("web", ("/bin/web",), env=(("KEY", "secret"), ("A", "1")), limits=Limits(memory_limit=GIB))


def plan_of(*services: Service, memory: int = 2 * GIB) -> Plan:
    return Plan("p", "/p.yaml", memory, 1000, 0, 0, services)


def change(**fields: object) -> Change:
    (only,) = diff(plan_of(WEB), plan_of(Service(**(WEB._asdict() | fields))))
    return only


def test_nothing_ran_before() -> None:
    assert diff(None, plan_of(WEB)) == [Change("web", "start")]
    assert render_diff(None, plan_of(WEB)) == "start    web\n"
    assert render_diff(None, plan_of()) == "no service before, none after\n"


def test_stops_come_first_and_in_reverse() -> None:
    a, b, c, d = (Service(name, ("/x",)) for name in "abcd")
    assert [(each.name, each.change) for each in diff(plan_of(a, b, c), plan_of(d, b))] == [
        ("c", "stop"),
        ("a", "stop"),
        ("d", "start"),
        ("b", "keep"),
    ]


@pytest.mark.parametrize(
    ("fields", "what", "details"),
    [
        ({}, "keep", ()),
        ({"limits": Limits(memory_limit=2 * GIB)}, "resize", ("memory limit 1.0 GiB -> 2.0 GiB",)),
        ({"limits": Limits()}, "resize", ("memory limit 1.0 GiB -> -",)),
        ({"limits": Limits(memory_limit=GIB, cpu_limit=250)}, "resize", ("cpu limit - -> 0.25",)),
        ({"limits": Limits(memory_limit=GIB, io_read_bps=MIB)}, "resize", ("io read bps - -> 1.0 MiB/s",)),
        ({"limits": Limits(memory_limit=GIB, pids_limit=9)}, "resize", ("pids limit - -> 9",)),
        ({"oom_score_adj": 5}, "resize", ("oom_score_adj 0 -> 5",)),
        ({"argv": ("/bin/web", "-v")}, "restart", ("command",)),
        ({"env": (("KEY", "other"), ("B", "1"))}, "restart", ("environment (A, B, KEY)",)),
        ({"env": (("A", "1"), ("KEY", "secret"))}, "restart", ("order of the environment",)),
        ({"log": Log("disk")}, "restart", ("log",)),
        ({"log": Log(max_bytes=MIB)}, "keep", ("log size 256.0 KiB -> 1.0 MiB",)),
        ({"importance": ESSENTIAL}, "keep", ("importance normal -> essential",)),
        ({"health": Health("tcp", port=1), "restart": Restart("never")}, "keep", ("health check", "restart policy")),
        ({"nice": 1, "limits": Limits()}, "restart", ("memory limit 1.0 GiB -> -", "nice 0 -> 1")),
    ],
)
def test_what_a_change_costs_and_is_called(fields: dict[str, object], what: str, details: tuple[str, ...]) -> None:
    assert change(**fields) == Change("web", what, details)


def test_values_of_the_environment_are_never_shown() -> None:
    assert "secret" not in render_diff(plan_of(WEB), plan_of(WEB._replace(env=(("KEY", "secret2"),))))


def test_every_field_of_a_service_is_told() -> None:
    told = {
        "argv": ("/y",),
        "env": (("X", "1"),),
        "cwd": "/y",
        "uid": 7,
        "gid": 7,
        "groups": (7,),
        "depends_on": ("y",),
        "importance": 7,
        "limits": Limits(memory_request=7),
        "health": Health("tcp"),
        "restart": Restart("never"),
        "log": Log("none"),
        "stop_signal": 2,
        "stop_timeout": 7.0,
        "start_timeout": 7.0,
        "nice": 7,
        "ioprio": (1, 1),
        "scheduler": (1, 1),
        "oom_score_adj": 7,
        "freezable": True,
        "rlimits": ((7, 7, 7),),
        "directories": ("/y",),
        "sandbox": Sandbox(read_only=True),
    }
    assert set(told) == set(Service._fields) - {"name"}
    for field, value in told.items():
        assert change(**{field: value}).details, field


def test_the_difference_as_text() -> None:
    a, b, c, longer = (Service(name, ("/x",)) for name in ("a", "b", "c", "much-longer"))
    old = plan_of(a, b, c)
    new = plan_of(b._replace(nice=3), c, longer, memory=GB)
    assert render_diff(old, new) == (
        "total memory: 2.0 GiB -> 953.7 MiB\n"
        "stop     a\n"
        "restart  b            nice 0 -> 3\n"
        "start    much-longer\n"
        "1 service stays as it is\n"
    )
    assert render_diff(old, old) == "3 services stay as they are\n"


# -- text --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("amount", "shown_as"),
    [
        (None, "-"),
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (256 * MB, "244.1 MiB"),
        (MIB - 1, "1.0 MiB"),
        (GIB - 1, "1.0 GiB"),
        (1023 * MIB, "1023.0 MiB"),
        (2 * GB, "1.9 GiB"),
        (3 << 50, "3072.0 TiB"),
    ],
)
def test_sizes(amount: int | None, shown_as: str) -> None:
    assert text.size(amount) == shown_as


@pytest.mark.parametrize(
    ("milli", "shown_as"), [(None, "-"), (0, "0.00"), (250, "0.25"), (1500, "1.50"), (1, "0.001"), (125, "0.125")]
)
def test_cores(milli: int | None, shown_as: str) -> None:
    assert text.cores(milli) == shown_as


@pytest.mark.parametrize(("value", "name"), [(100, "essential"), (50, "normal"), (0, "heavy"), (70, "70")])
def test_importance(value: int, name: str) -> None:
    assert text.importance(value) == name
