"""The database: what is written is there, and the bound of bytes holds."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge_agent.services.analytics_buckets import DAY, EPOCH, STEPS, Rollup, Row
from edge_agent.services.analytics_store import MAX_KEY, FullError, Store

LEAST = 2 * 1024 * 1024
FINE = STEPS[0]
Make = Callable[..., Store]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[Store] = []

    def store(max_bytes: int = LEAST) -> Store:
        if made:
            made[-1].close()
        made.append(Store(str(tmp_path), max_bytes))
        return made[-1]

    yield store
    made[-1].close()


def rows(store: Store, series: int, begin: int = 0, end: int = 2**40) -> list[Row]:
    """What of a series is there."""
    found = store.rows(FINE, series, begin, end)
    return [Row(FINE, start, series, rollup) for start, rollup in found if rollup is not None]


def row(start: int, series: int = 1, value: float = 1.0, step: int = FINE) -> Row:
    return Row(step, start, series, Rollup(1, value, value, value, value))


def test_what_is_written_is_there_after_a_new_start(make: Make) -> None:
    store = make()
    ident = store.series("up", {"service": "storage"}, "gauge", EPOCH)
    store.write([row(EPOCH, ident, 1.0), row(EPOCH + 60, ident, 2.0)], EPOCH)
    store = make()
    assert store.series("up", {"service": "storage"}, "gauge", EPOCH) == ident
    found = rows(store, ident, EPOCH, EPOCH + 120)
    assert found == [row(EPOCH, ident, 1.0), row(EPOCH + 60, ident, 2.0)]
    assert list(store.rows(FINE, ident, EPOCH + 1, EPOCH + 60)) == []
    assert rows(store, ident + 1) == []
    assert list(store.rows(FINE, ident + 1, 0, 2**40)) == [(EPOCH, None), (EPOCH + 60, None)], "a look each"
    assert store.spans() == {FINE: (EPOCH, EPOCH + 60)}
    assert store.removed == ""


def test_a_bucket_that_is_there_takes_more(make: Make) -> None:
    store = make()
    store.write([row(EPOCH, value=5.0)], EPOCH)
    store.write([row(EPOCH, value=-1.0)], EPOCH)
    assert rows(store, 1) == [Row(FINE, EPOCH, 1, Rollup(2, 4.0, -1.0, 5.0, -1.0))]


def test_counters_are_remembered(make: Make) -> None:
    store = make()
    asked, up = (store.series(name, {}, kind, EPOCH) for name, kind in (("asked_total", "counter"), ("up", "gauge")))
    store.write([row(EPOCH, asked, 3.0), row(EPOCH + 60, asked, 7.0), row(EPOCH + 60, up, 1.0)], EPOCH)
    assert list(make().counters()) == [(asked, 7.0)]


def test_series_are_found_by_some_of_their_labels(make: Make) -> None:
    store = make()
    for service in ("a", "b"):
        for level in ("own", "total"):
            store.series("kills_total", {"service": service, "level": level}, "counter", EPOCH)
    store.series("up", {}, "gauge", EPOCH)
    found = store.find("kills_total", {"service": "b"}, 0, 10)
    assert [dict(each.labels)["level"] for each in found] == ["own", "total"]
    assert [each.metric for each in store.find("", {}, 0, 10)] == ["kills_total"] * 4 + ["up"]
    assert len(store.find("", {}, 0, 2)) == 2
    assert [each.metric for each in store.find("", {}, 4, 10)] == ["up"]
    assert store.find("kills_total", {"service": "x"}, 0, 10) == []


def test_the_series_not_seen_for_longest_gives_way_and_none_of_today_does(make: Make) -> None:
    store = make()
    for number in range(store.most_series):
        store.series("x", {"n": str(number)}, "gauge", EPOCH)
    with pytest.raises(FullError):
        store.series("y", {}, "gauge", EPOCH + DAY)
    store.series("x", {"n": "0"}, "gauge", EPOCH + 3 * DAY)
    store.series("y", {}, "gauge", EPOCH + 3 * DAY)
    store = make()
    names = {dict(each.labels).get("n") for each in store.find("", {}, 0, 10_000)}
    assert "0" in names
    assert "1" not in names
    assert len(store) == store.most_series


def test_a_name_that_is_too_long_is_refused(make: Make) -> None:
    with pytest.raises(FullError):
        make().series("x" * MAX_KEY, {}, "gauge", EPOCH)


def test_the_bound_holds_and_the_coarse_remembers_longer(make: Make) -> None:
    store, most = make(), 0
    for minute in range(0, 600, 30):
        at = EPOCH + minute * 60
        made = [
            row((at + each * 60) // step * step, series, step=step)
            for step in STEPS
            for each in range(30)
            for series in range(60)
        ]
        store.write(sorted(set(made)), at)
        most = max(most, store.used())
    assert most <= LEAST
    assert most > LEAST // 2, "and it is used"
    spans = store.spans()
    assert spans[FINE][0] > EPOCH, "the finest has given up its oldest"
    assert spans[STEPS[2]][0] == EPOCH
    assert spans[FINE][1] == EPOCH + 599 * 60


def test_a_bound_that_is_lowered_holds_at_once(make: Make) -> None:
    store = make(4 * LEAST)
    for minute in range(400):
        at = EPOCH + minute * 60
        store.write([row(at, series) for series in range(300)], at)
    assert store.used() > LEAST
    store = make(LEAST)
    assert store.used() <= LEAST
    assert store.spans()[FINE][1] == EPOCH + 399 * 60, "the newest stays"
    store.write([row(EPOCH + 400 * 60)], EPOCH)
    assert store.used() <= LEAST


@pytest.mark.parametrize(
    "content", [b"this is no database, and longer than a header of one" * 9, b"SQLite format 3\0" * 99]
)
def test_what_is_no_database_gives_way_to_one(make: Make, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "analytics.db").write_bytes(content)
    store = make()
    assert store.removed
    store.write([row(EPOCH)], EPOCH)
    assert make().removed == ""


def test_another_release_of_it_gives_way(make: Make, tmp_path: Path) -> None:
    make().close()
    with sqlite3.connect(tmp_path / "analytics.db") as database:
        database.execute("PRAGMA user_version=99")
    database.close()
    assert "99" in Store(str(tmp_path), LEAST).removed


def test_a_disk_that_is_full_loses_nothing_and_writes_nothing_twice(make: Make) -> None:
    store = make()
    wanted = [row(EPOCH, series) for series in range(100)]
    wanted.insert(50, Row(FINE, EPOCH, 5000, Rollup(1, None, 0.0, 0.0, 0.0)))  # type: ignore[arg-type]  # is refused
    left = list(wanted)
    with pytest.raises(sqlite3.Error):
        store.write(left, EPOCH)
    assert 0 < len(left) < len(wanted)
    left = [each for each in left if each.series != 5000]
    store.write(left, EPOCH)
    assert left == []
    written = [each for series in range(100) for each in rows(store, series)]
    assert [each.rollup.number for each in written] == [1] * 100
