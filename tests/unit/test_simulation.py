"""Traces played to the governor: three days as a golden file, the model's rules, recorded looks."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from edge_agent import simulation, trace
from edge_agent.budget import compile_plan
from edge_agent.cli.simulate import render
from edge_agent.looks import Load, Look
from edge_agent.model import ESSENTIAL, HEAVY, Plan, Service
from edge_agent.simulation import Result, share_out

from . import days
from .profiles import load_file
from .samples import SERVER
from .test_governor import MIB, service

MACHINE = trace.Header(trace.WRITTEN, 1000 * MIB, 2, system=100 * MIB)


def plan(*services: Service, memory: int = 800) -> Plan:
    return Plan("test", "/etc/test.yaml", memory * MIB, 2000, 0, 0, services)


def line(at: float, system: int | None = None, **wants: trace.Want) -> trace.Line:
    return trace.Line(at, wants, None if system is None else system * MIB)


def want(memory: int = 0, cpu: int = 0, io: int = 0, grows: int = 0) -> trace.Want:
    """MiB, milli-cores, MiB/s, MiB/s."""
    return trace.Want(memory * MIB, cpu, io * MIB, grows * MIB)


def story(result: Result) -> list[tuple[str, str]]:
    return [(happening.kind, happening.service) for happening in result.happenings]


# -- three days --------------------------------------------------------------------------------------------------------


def three_days(tmp_path: Path) -> tuple[Plan, trace.Header, Callable[[], Result]]:
    profile = tmp_path / "days.yaml"
    profile.write_text(days.PROFILE)
    compiled = compile_plan(load_file(profile), SERVER._replace(memory=days.HEADER["machine"]))
    compiled = compiled._replace(source="days.yaml")
    text = [line.encode() for line in days.lines()]

    def play() -> Result:
        header, rest = trace.read(text)
        return simulation.play(header, trace.written(rest, [each.name for each in compiled.services]), compiled)

    return compiled, trace.read(text)[0], play


def test_three_days_of_a_small_board(tmp_path: Path, golden: Callable[[str, str], None]) -> None:
    compiled, header, play = three_days(tmp_path)
    begun = time.process_time()
    result = play()
    print(f"\n72 hours in {time.process_time() - begun:.2f} s, {result.looks} looks")
    assert play() == result, "the same trace decides something else"
    golden("simulate-72h.txt", "\n".join(render(compiled, "days.trace", header, result)) + "\n")


def test_what_three_days_must_show(tmp_path: Path) -> None:
    """What the golden file is read for."""
    _compiled, _header, play = three_days(tmp_path)
    result = play()
    told = result.services
    assert result.seconds == 72 * 3600
    kills = [happening.text for happening in result.happenings if happening.kind == "killed"]
    assert all("its own limit" in text for text in kills), "memory ran out for all"
    assert told["broker"] == told["web"] == simulation.Tally()
    assert told["telemetry"].shed == 0, "it has what it was promised"
    assert told["importer"].shed >= days.DAYS, "a leak a day"
    assert told["upload"].frozen
    nights = [happening for happening in result.happenings if happening.at % 86400 < 2 * 3600]
    assert not nights, "idle nights"
    assert max(tally.away for tally in told.values()) < 0.2 * result.seconds


# -- the model ---------------------------------------------------------------------------------------------------------


def test_a_leak_is_shed_before_the_kernel_has_to_kill_and_returns() -> None:
    node = plan(service("web", ESSENTIAL), service("leak", HEAVY, limit=900))
    lines = [line(0, web=want(80), leak=want(100, grows=10)), line(100, leak=want(100)), line(1000)]
    result = simulation.play(MACHINE, lines, node)
    assert story(result) == [("squeezed", "leak"), ("shed", "leak"), ("returns", "leak")]
    (squeezed, shed, returns) = result.happenings
    assert 55 < squeezed.at < 66
    assert squeezed.at <= shed.at < squeezed.at + 3
    assert result.services["leak"].away == returns.at - shed.at


def test_without_a_governor_that_may_act_the_kernel_kills() -> None:
    """An essential that leaks cannot be helped."""
    node = plan(service("web", ESSENTIAL), service("idle", HEAVY))
    result = simulation.play(MACHINE, [line(0, web=want(80, grows=100), idle=want(5)), line(30)], node)
    kinds = [kind for kind, _ in story(result)]
    assert "helpless" in kinds
    assert ("killed", "web") in story(result)


def test_what_the_kernel_kills_for_want_of_room_stays_away_and_returns() -> None:
    """Where stalls are not measured and nobody but an essential borrows, nothing is done before."""
    node = plan(service("web", ESSENTIAL), service("batch", HEAVY, 400))
    lines = [line(0, web=want(80), batch=want(390)), line(10, web=want(500)), line(30, web=want(80)), line(60)]
    result = simulation.play(MACHINE._replace(machine=2000 * MIB, psi=False), lines, node)
    assert story(result) == [("killed", "batch"), ("shed", "batch"), ("returns", "batch")]
    assert "for want of memory, holding 390 MiB, 400 MiB are its own" in result.happenings[1].text


def test_its_own_limit_kills_a_service_and_it_starts_again() -> None:
    node = plan(service("small", limit=100))
    result = simulation.play(MACHINE, [line(0, small=want(50, grows=5)), line(60)], node)
    assert story(result) == [("killed", "small")] * result.services["small"].killed
    assert result.services["small"].killed >= 3
    assert "its own limit of 100 MiB" in result.happenings[0].text


def test_with_swap_a_squeezed_one_shrinks_and_stays() -> None:
    node = plan(service("web", ESSENTIAL, 500), service("worker", request=100))
    lines = [line(0, web=want(80), worker=want(650)), line(100, web=want(500)), line(130)]
    result = simulation.play(MACHINE._replace(swap=800 * MIB), lines, node)
    assert ("squeezed", "worker") in story(result)
    assert not {"shed", "killed"} & {kind for kind, _ in story(result)}, result.happenings
    without = simulation.play(MACHINE, lines, node)
    assert ("shed", "worker") in story(without)


def test_cpu_is_called_back_for_the_entitled_and_given_back() -> None:
    node = plan(service("web", ESSENTIAL, cpu=1500), service("batch", HEAVY, cpu=100))
    lines = [
        line(0, batch=want(10, 4000)),
        line(60, web=want(10, 1000)),
        line(120, web=want(10)),
        line(300),
    ]
    result = simulation.play(MACHINE._replace(cpus=2), lines, node)
    assert [(each.kind, each.service, each.resource) for each in result.happenings][:1] == [
        ("squeezed", "batch", "cpu")
    ]
    assert result.happenings[0].at == 60.0
    assert ("relaxed", "batch") in story(result)


def test_io_is_called_back_in_quarters() -> None:
    node = plan(service("web", ESSENTIAL), service("batch", HEAVY))
    lines = [line(0, web=want(10, io=9), batch=want(10, io=100)), line(20)]
    result = simulation.play(MACHINE._replace(disk=10 * MIB), lines, node)
    squeezed = [each for each in result.happenings if each.kind == "squeezed"]
    assert {each.resource for each in squeezed} == {"io"}
    assert len(squeezed) >= 2


@pytest.mark.parametrize("psi", [True, False])
def test_a_flood_that_does_not_end_is_let_go_step_by_step_and_less_and_less_often(psi: bool) -> None:
    node = plan(service("web", ESSENTIAL), service("batch", HEAVY))
    lines = [line(0, web=want(10, io=1), batch=want(10, io=100)), line(600), line(600, batch=want(10)), line(1000)]
    result = simulation.play(MACHINE._replace(disk=10 * MIB, psi=psi), lines, node)
    assert {each.service for each in result.happenings} == {"batch"}
    first = next(each for each in result.happenings if each.kind == "squeezed")
    assert first.at <= 11.0
    squeezed = [each.at for each in result.happenings if each.kind == "squeezed"]
    assert len([at for at in squeezed if at > 300]) <= 10, "no more than twice a minute"
    assert [each.kind for each in result.happenings][-1] == "relaxed"
    assert "are left" not in result.happenings[-1].text


def test_the_systems_own_need_counts() -> None:
    node = plan(service("batch", HEAVY, 300))
    lines = [line(0, batch=want(200)), line(60, system=790), line(90, system=100), line(300)]
    assert story(simulation.play(MACHINE, lines, node)) == [("shed", "batch"), ("returns", "batch")]


def test_a_dependant_starts_after_what_it_depends_on() -> None:
    node = plan(service("store", limit=100), service("app", needs=("store",), limit=100))
    lines = [line(0, store=want(50, grows=20), app=want(50, grows=20)), line(3600)]
    result = simulation.play(MACHINE, lines, node)
    assert result.services["app"].killed > 10


@pytest.mark.parametrize(
    ("capacity", "asked", "weights", "expected"),
    [
        (100, {"a": 10, "b": 20}, {"a": 1, "b": 1}, {"a": 10, "b": 20}),
        (100, {"a": 90, "b": 90}, {"a": 3, "b": 1}, {"a": 75, "b": 25}),
        (100, {"a": 10, "b": 90, "c": 90}, {"a": 1, "b": 1, "c": 2}, {"a": 10, "b": 30, "c": 60}),
        (100, {"a": 0}, {"a": 1}, {"a": 0}),
        (100, {}, {}, {}),
    ],
)
def test_shares(
    capacity: float, asked: dict[str, float], weights: dict[str, float], expected: dict[str, float]
) -> None:
    assert share_out(capacity, asked, weights) == pytest.approx(expected)


def test_decisions_without_end_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulation, "MOST_HAPPENINGS", 3)
    with pytest.raises(simulation.TooMuchError, match="more than 3 decisions by"):
        simulation.play(MACHINE, [line(0, small=want(50, grows=50)), line(60)], plan(service("small", limit=100)))


# -- recorded ----------------------------------------------------------------------------------------------------------


def recorded(*shares: float, every: float = 0.25) -> Iterable[Look]:
    """The worker is in the way; stalls as given."""
    loads = {"web": Load(80 * MIB), "worker": Load(600 * MIB), "stranger": Load(MIB)}
    for number, some in enumerate(shares):
        yield Look(number * every, some, 0.0, 100 * MIB, 800 * MIB, 300 * MIB, 1000 * MIB, loads=loads)


def test_a_recorded_trace_gives_the_governors_own_decisions() -> None:
    node = plan(service("web", ESSENTIAL), service("worker", HEAVY))
    result = simulation.replay(recorded(0.0, 0.34, 0.34, 0.0), node)
    assert story(result) == [("squeezed", "worker"), ("shed", "worker")]
    assert result.happenings[1].text == ("memory some 34% over 30% for 0.2 s; frees 600 MiB; next: nobody")
    assert (result.looks, result.seconds, result.unknown) == (4, 0.75, ("stranger",))
    assert result.services["worker"].away == 0.25


def test_what_was_shed_is_out_of_the_recorded_looks_its_memory_free_and_its_stalls_gone() -> None:
    node = plan(service("web", ESSENTIAL), service("worker", HEAVY))
    result = simulation.replay(recorded(*[0.34] * 20, every=1.0), node)
    assert story(result) == [("squeezed", "worker"), ("shed", "worker")], "no helpless: there is room"
    later = simulation.replay(recorded(*[0.34] * 30, every=1.0), node)
    assert story(later)[2] == ("returns", "worker"), "it held more than fits, but not for ever"


def test_a_trace_without_looks_is_no_trouble() -> None:
    assert simulation.replay([], plan(service("web"))).looks == 0
    assert simulation.play(MACHINE, [], plan(service("web"))).looks == 0


def test_the_generator_writes_what_the_reader_reads() -> None:
    lines = [json.loads(each) for each in days.lines()]
    assert lines[0] == days.HEADER
    assert list(days.lines()) == list(days.lines())
    assert lines[-1] == {"at": 72 * 3600}
