"""The analytics service without sockets: requests in, answers out, two clocks in the test's hand."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.peers.wire import MAX_ITEMS, pack, unpack
from edge_agent.services import requests
from edge_agent.services.analytics import Analytics
from edge_agent.services.analytics_buckets import EPOCH
from edge_agent.services.analytics_query import LOOKS, POINTS, SERIES
from edge_agent.services.analytics_store import Store
from edge_agent.services.options import Keeping, Options

NOON = EPOCH + 12 * 3600
FAR = 2**40


class Runtime:
    """What analytics uses of the runtime."""

    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        return self.time


class Bench:
    """The service; ``ask`` answers as a client would see it. ``wall`` and ``steady`` are its clocks."""

    def __init__(self, directory: Path, wall: float = NOON, flush: float = 600.0) -> None:
        self.directory = directory
        self.wall, self.steady = wall, 100.0
        self.runtime = Runtime()
        options = Options("analytics", str(directory), f"{directory}/bundled/analytics")
        keeping = Keeping(60.0, flush, 4 * 1024 * 1024)
        self.service = Analytics(options._replace(keeping=keeping), lambda: self.wall, lambda: self.steady)
        self.service.open(self.runtime)  # type: ignore[arg-type]  # only its clock is used

    def ask(self, op: str, **arguments: Any) -> dict[str, Any]:
        answers: list[bytes] = []
        request = requests.parse(
            pack({"v": 1, "id": 1, "op": op, **arguments}), self.service.request_limit, "uid:0", answers.append
        )
        assert request is not None
        requests.perform(request, self.service.operations())
        (answer,) = answers
        unpack(answer, 1024 * 1024)  # what a client would refuse is no answer
        unpacked: dict[str, Any] = msgpack.unpackb(answer)
        return unpacked

    def record(self, value: float, metric: str = "x", kind: str = "gauge", **labels: str) -> None:
        assert self.ask("record", metric=metric, value=value, kind=kind, labels=labels)["ok"]

    def pass_time(self, seconds: float) -> None:
        self.wall += seconds
        self.steady += seconds
        self.runtime.time += seconds
        deadline = self.service.deadline()
        if deadline is not None and deadline <= self.runtime.time:
            self.service.tick(self.runtime.time)

    def points(self, metric: str = "x", step: int = 60, begin: int = 0, end: int = FAR) -> dict[int, float]:
        """Totals by time, of one series, by however many answers it takes."""
        found: dict[int, float] = {}
        after = None
        while True:
            answer = self.ask("query", metric=metric, step=step, to=end, after=after, **{"from": begin})
            for part in answer["series"]:
                new = dict(zip(part["times"], part["total"], strict=True))
                assert not found.keys() & new.keys(), "no point comes twice"
                found |= new
            after = answer["after"]
            if after is None:
                return found

    def held(self) -> int:
        held: int = self.service.details()["held"]
        return held


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.service.close()


def test_what_is_held_is_answered_as_what_is_written(bench: Bench) -> None:
    bench.record(1.0)
    bench.pass_time(60)
    bench.record(2.0)
    expected = {NOON: 1.0, NOON + 60: 2.0}
    assert bench.points() == expected
    bench.ask("flush")
    assert bench.held() == 0
    assert bench.points() == expected
    bench.record(3.0)
    assert bench.points() == {NOON: 1.0, NOON + 60: 5.0}, "one point of both"


def test_it_is_written_every_so_often_and_not_in_between(bench: Bench) -> None:
    bench.record(1.0)  # the name of a series is written when it is new
    before = bench.service.store.used()
    for _ in range(8):
        bench.record(1.0)
        bench.pass_time(60)
    assert (bench.held(), bench.service.store.used()) == (9, before), "nothing touches the flash"
    bench.pass_time(121)
    assert bench.held() == 0


def test_a_device_that_boots_in_1970_puts_its_samples_where_they_belong(tmp_path: Path) -> None:
    bench = Bench(tmp_path, wall=15.0, flush=60.0)
    bench.record(1.0)
    for _ in range(20):
        bench.pass_time(61)
    assert bench.held() == 1, "it waits for the time"
    assert list(bench.points()) == [0], "and shows what it believes meanwhile"
    bench.wall = NOON + 1220.0  # somebody sets the clock
    bench.pass_time(61)
    assert bench.held() == 0
    assert list(bench.points()) == [NOON + 0], "as long ago as it is"
    bench.service.close()


def test_a_device_that_never_learns_the_time_goes_on_behind_what_it_has(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.record(1.0)
    bench.service.close()
    for boot in range(3):
        bench = Bench(tmp_path, wall=15.0)
        bench.record(2.0)
        bench.service.close()
        bench = Bench(tmp_path)
        assert list(bench.points()) == [NOON + 60 * each for each in range(boot + 2)]
        bench.service.close()


def test_a_clock_that_is_set_back_loses_nothing(bench: Bench) -> None:
    bench.wall += 10 * 365 * 86_400
    bench.record(1.0)
    bench.ask("flush")
    bench.wall -= 10 * 365 * 86_400
    bench.record(2.0)
    bench.ask("flush")
    assert bench.points() == {NOON: 2.0, NOON + 10 * 365 * 86_400: 1.0}


def test_a_counter_shows_its_increase_by_any_step(bench: Bench) -> None:
    for value in (10, 13, 13, 20, 4):  # it begins anew at the end
        bench.record(value, kind="counter")
        bench.pass_time(60)
    assert sum(bench.points().values()) == 3 + 7 + 4
    assert list(bench.points(step=900).values()) == [14.0]
    answer = bench.ask("query", metric="x", to=FAR, step=3600, **{"from": 0})
    assert answer["step"] == 3600
    (series,) = answer["series"]
    assert (series["kind"], series["number"], series["last"]) == ("counter", [5], [4.0])


@pytest.mark.parametrize(("series", "minutes"), [(1, 3 * POINTS), (3, POINTS), (2 * SERIES + 3, 5), (1, LOOKS // 10)])
def test_a_long_answer_comes_in_parts_that_a_client_takes(bench: Bench, series: int, minutes: int) -> None:
    for minute in range(minutes):
        for each in range(series):
            bench.record(float(minute), n=str(each), long="x" * 100)
        bench.pass_time(60)
    bench.ask("flush")
    found: dict[str, list[int]] = {}
    after, answers = None, 0
    while True:
        answer = bench.ask("query", metric="x", to=FAR, step=60, after=after, **{"from": 0})
        answers += 1
        assert sum(len(part["times"]) for part in answer["series"]) <= POINTS
        for part in answer["series"]:
            found.setdefault(part["labels"]["n"], []).extend(part["times"])
        after = answer["after"]
        if after is None:
            break
    assert answers <= 2 + series * minutes // POINTS + series // SERIES + series
    expected = [NOON + 60 * minute for minute in range(minutes)]
    assert found == {str(each): expected for each in range(series)}


def test_a_span_of_decades_with_nothing_in_it_is_one_answer(bench: Bench) -> None:
    bench.record(1.0)
    bench.ask("flush")
    answer = bench.ask("query", metric="x", to=FAR, step=60, **{"from": 0})
    assert (len(answer["series"]), answer["after"]) == (1, None)


def test_series_come_in_parts_too(bench: Bench) -> None:
    for each in range(SERIES + 1):
        bench.record(1.0, n=str(each))
    first = bench.ask("series", metric="x")
    rest = bench.ask("series", metric="x", after=first["after"])
    assert len(first["series"]) == SERIES
    assert [each["labels"] for each in rest["series"]] == [{"n": str(SERIES)}]
    assert rest["after"] is None
    assert bench.ask("series", labels={"n": "3"})["series"][0]["labels"] == {"n": "3"}


def test_the_largest_answer_is_below_the_bound_of_values(bench: Bench) -> None:
    labels = {f"label{each}": "v" for each in range(9)}
    for each in range(SERIES):
        bench.ask("record", metric="x", value=1.0, labels={**labels, "label0": str(each)})
    for _ in range(POINTS // SERIES + 1):
        bench.pass_time(60)
        for each in range(SERIES):
            bench.ask("record", metric="x", value=1.0, labels={**labels, "label0": str(each)})
    answer = bench.ask("query", metric="x", to=FAR, step=60, **{"from": 0})
    values = sum(len(part["times"]) * 6 + 2 * len(part["labels"]) + 22 for part in answer["series"])
    assert 3000 < values < MAX_ITEMS


@pytest.mark.parametrize(
    "sample",
    [
        {"metric": "", "value": 1},
        {"metric": "a-b", "value": 1},
        {"metric": "x", "value": "1"},
        {"metric": "x", "value": True},
        {"metric": "x", "value": float("nan")},
        {"metric": "x", "value": float("inf")},
        {"metric": "x", "value": -1, "kind": "counter"},
        {"metric": "x", "value": 1, "kind": "histogram"},
        {"metric": "x", "value": 1, "labels": []},
        {"metric": "x", "value": 1, "labels": {"a": "v" * 129}},
    ],
)
def test_what_is_no_sample_is_refused(bench: Bench, sample: dict[str, Any]) -> None:
    answer = bench.ask("record", **sample)
    assert answer["error"]["code"] == "bad-request"
    assert bench.held() == 0


def test_a_disk_that_refuses_is_tried_again_and_nothing_is_lost(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    bench.record(1.0)

    def refuse(*_arguments: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(Store, "write", refuse)
        for _ in range(3):
            bench.pass_time(601)
        assert bench.ask("flush")["error"]["code"] == "failed"
        assert bench.points() == {NOON: 1.0}, "it is still answered"
    assert capfd.readouterr().err.count("cannot write: database or disk is full") == 1
    bench.pass_time(61)
    assert bench.service.details()["unwritten"] == 0
    assert bench.points() == {NOON: 1.0}


MOVES = st.lists(
    st.tuples(st.sampled_from(["record", "flush", "jump", "kill", "end"]), st.integers(-(10**9), 10**9)), max_size=25
)


@settings(max_examples=40, deadline=None)
@given(MOVES)
def test_whatever_the_clock_does_what_was_written_is_there_once(
    tmp_path_factory: pytest.TempPathFactory, moves: list[tuple[str, int]]
) -> None:
    """Every sample is 1: so the total of all points is how many have been written and held."""
    directory = tmp_path_factory.mktemp("analytics")
    bench, written, held = Bench(directory), 0, 0
    for kind, jump in moves:
        if kind == "record":
            bench.record(1.0)
            held += 1
        elif kind == "flush":
            bench.ask("flush")
            written, held = written + held, 0
        elif kind == "jump":
            bench.wall = max(1.0, bench.wall + jump)
        else:
            if kind == "end":
                bench.service.close()
                written += held
            else:
                bench.service.store._db.close()  # what is held is gone with the process
            held, wall = 0, bench.wall
            bench = Bench(directory, wall=wall)
        bench.pass_time(7.0)
        assert sum(bench.points(step=60).values()) == written + held
    bench.service.close()
