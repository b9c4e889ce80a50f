"""Occurrences, against crontab(5) read by brute force, and over both ends of daylight saving."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.model import Entry
from edge_agent.schedule import DAY, ScheduleError, Times, amount, overlap, words

BERLIN = ZoneInfo("Europe/Berlin")


def at(text: str, zone: ZoneInfo = BERLIN) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=zone).timestamp()


def shown(instant: float | None, zone: ZoneInfo = BERLIN) -> str:
    assert instant is not None
    return datetime.fromtimestamp(instant, zone).isoformat(timespec="minutes")


def following(entry: Entry, since: str, count: int, zone: ZoneInfo = BERLIN) -> list[str]:
    times, now, found = Times(entry, zone), at(since, zone), []
    for _ in range(count):
        due = times.next(now)
        assert due is not None
        now = due
        found.append(shown(due, zone))
    return found


def cron(expression: str, lasts: float = 0.0) -> Entry:
    return Entry("c", cron=expression, lasts=lasts)


def window(begin: str, end: str, *days: int) -> Entry:
    minutes = [int(text[:2]) * 60 + int(text[3:]) for text in (begin, end)]
    return Entry("w", begin=minutes[0], end=minutes[1], days=days)


def numbers(field: str, low: int, high: int) -> set[int]:
    """A field of crontab(5) by the book."""
    chosen: set[int] = set()
    for part in field.split(","):
        span, _, step = part.partition("/")
        first, dash, last = (str(low), "-", str(high)) if span == "*" else span.partition("-")
        chosen |= set(range(int(first), int(last if dash else first) + 1, int(step or 1)))
    return chosen


def matches(expression: str, moment: datetime) -> bool:
    minute, hour, day, month, weekday = expression.split()
    days = moment.day in numbers(day, 1, 31)
    weekdays = moment.isoweekday() % 7 in {number % 7 for number in numbers(weekday, 0, 6)}
    either = days and weekdays if day.startswith("*") or weekday.startswith("*") else days or weekdays
    return (
        either
        and moment.minute in numbers(minute, 0, 59)
        and moment.hour in numbers(hour, 0, 23)
        and moment.month in numbers(month, 1, 12)
    )


def field(low: int, high: int) -> st.SearchStrategy[str]:
    number = st.integers(low, high)
    pair = st.tuples(number, number).map(sorted)
    span = pair.map(lambda ends: f"{ends[0]}-{ends[1]}")
    # A step wider than its range is refused by APScheduler; crontab(5) takes it as the first value alone.
    wide = pair.filter(lambda ends: ends[0] < ends[1])
    stepped = st.tuples(wide, st.integers(1, 6)).map(
        lambda each: f"{each[0][0]}-{each[0][1]}/{min(each[1], each[0][1] - each[0][0])}"
    )
    every = st.integers(1, 6).map(lambda step: f"*/{step}")
    return st.just("*") | st.lists(number.map(str) | span | stepped | every, min_size=1, max_size=2).map(",".join)


@settings(max_examples=200, deadline=None)
@given(
    st.tuples(field(0, 59), field(0, 23), field(1, 31), field(1, 12), field(0, 7)).map(" ".join),
    st.integers(1_700_000_000, 1_900_000_000),
)
def test_next_is_the_first_minute_that_crontab_means(expression: str, since: int) -> None:
    due = Times(cron(expression), UTC).next(since)
    moment = (since // 60 + 1) * 60
    for minute in range(moment, moment + 3 * 86_400, 60):
        if matches(expression, datetime.fromtimestamp(minute, UTC)):
            assert due == minute
            return
    assert due is None or due >= moment + 3 * 86_400


@settings(max_examples=100, deadline=None)
@given(
    st.tuples(field(0, 59), field(0, 23), st.just("*"), st.just("*"), field(0, 7)).map(" ".join),
    st.integers(1_700_000_000, 1_900_000_000),
    st.floats(0, 40 * DAY),
)
def test_last_is_the_latest_before(expression: str, now: int, back: float) -> None:
    times = Times(cron(expression), BERLIN)
    found = times.last(now, now - back)
    following = times.next(now - back)
    assert (found is None) == (following is None or following > now)
    if found is not None:
        later = times.next(found)
        assert now - back < found <= now
        assert later is None or later > now


def test_years_of_minutes_cost_nothing() -> None:
    times = Times(cron("* * * * *"), BERLIN)
    calls = 0
    inner = times.next

    def counted(after: float) -> float | None:
        nonlocal calls
        calls += 1
        return inner(after)

    times.next = counted  # type: ignore[method-assign]
    assert times.last(at("2036-01-01"), at("2026-01-01")) == at("2036-01-01")
    assert calls < 5
    sparse = Times(cron("0 3 29 2 *"), BERLIN)
    assert shown(sparse.last(at("2036-01-01"), at("2026-01-01"))) == "2032-02-29T03:00+01:00"


def test_weekdays_count_from_sunday() -> None:
    assert following(cron("0 12 * * 0"), "2026-11-24", 1) == ["2026-11-29T12:00+01:00"]
    for sunday in ("7", "sun", "SUN", "0"):
        assert following(cron(f"0 12 * * {sunday}"), "2026-11-24", 1) == ["2026-11-29T12:00+01:00"]
    assert following(cron("0 12 * * fri-sun"), "2026-11-24", 4) == following(cron("0 12 * * 5-7"), "2026-11-24", 4)
    assert following(cron("0 12 * * 0-1"), "2026-11-24", 2) == ["2026-11-29T12:00+01:00", "2026-11-30T12:00+01:00"]


def test_with_both_days_given_either_is_enough() -> None:
    found = following(cron("0 0 1 * mon"), "2026-11-24", 3)
    assert found == ["2026-11-30T00:00+01:00", "2026-12-01T00:00+01:00", "2026-12-07T00:00+01:00"]


def test_an_hour_that_is_left_out() -> None:
    """2026-03-29: 02:00 is 03:00."""
    assert following(cron("30 2 * * *"), "2026-03-28T12:00", 2) == ["2026-03-29T03:00+02:00", "2026-03-30T02:30+02:00"]
    several = following(cron("0,20,40 2 * * *"), "2026-03-28T12:00", 2)
    assert several == ["2026-03-29T03:00+02:00", "2026-03-30T02:00+02:00"]
    assert following(cron("30 * * * *"), "2026-03-29T01:00", 2) == ["2026-03-29T01:30+01:00", "2026-03-29T03:30+02:00"]
    times = Times(window("02:15", "02:45"), BERLIN)
    begin = times.next(at("2026-03-28T12:00"))
    assert begin is not None
    assert (shown(begin), times.open_since(begin)) == ("2026-03-29T03:00+02:00", None)  # no minute of it is left
    times = Times(window("02:30", "03:10"), BERLIN)
    begin = times.next(at("2026-03-28T12:00"))
    assert begin is not None
    assert (shown(begin), shown(times.end(begin))) == ("2026-03-29T03:00+02:00", "2026-03-29T03:10+02:00")


def test_an_hour_that_comes_twice() -> None:
    """2026-10-25: 03:00 is 02:00 again."""
    assert following(cron("30 2 * * *"), "2026-10-24T12:00", 2) == ["2026-10-25T02:30+02:00", "2026-10-26T02:30+01:00"]
    every = following(cron("30 * * * *"), "2026-10-25T01:00", 4)
    assert [each[11:] for each in every] == ["01:30+02:00", "02:30+02:00", "02:30+01:00", "03:30+01:00"]
    times = Times(window("22:00", "06:00"), BERLIN)
    begin = times.next(at("2026-10-24T12:00"))
    assert begin is not None
    assert times.end(begin) - begin == 9 * 3600


def test_a_window_over_midnight_belongs_to_the_day_it_begins_on() -> None:
    times = Times(window("22:00", "06:00", 4), BERLIN)  # Friday
    assert shown(times.open_since(at("2026-11-28T05:59"))) == "2026-11-27T22:00+01:00"
    assert times.open_since(at("2026-11-28T06:00")) is None
    assert times.open_since(at("2026-11-28T22:30")) is None
    assert shown(times.next(at("2026-11-27T22:00"))) == "2026-12-04T22:00+01:00"


def test_a_whole_day_and_half_of_it() -> None:
    times = Times(window("00:00", "24:00"), BERLIN)
    assert shown(times.open_since(at("2026-11-24T23:59"))) == "2026-11-24T00:00+01:00"
    assert shown(times.end(at("2026-11-24T00:00"))) == "2026-11-25T00:00+01:00"
    times = Times(window("12:00", "24:00"), BERLIN)
    assert shown(times.end(at("2026-11-24T12:00"))) == "2026-11-25T00:00+01:00"


def test_windows_of_cron_go_on_while_one_is_open() -> None:
    times = Times(cron("0 * * * *", 5400.0), BERLIN)
    assert shown(times.open_since(at("2026-11-24T10:59"))) == "2026-11-24T10:00+01:00"
    times = Times(cron("0 2 * * *", 7200.0), BERLIN)
    assert times.open_since(at("2026-11-24T04:00")) is None
    assert times.open_since(at("2026-11-24T03:59")) == at("2026-11-24T02:00")


@pytest.mark.parametrize("expression", ["0 0 30 2 *", "0 0 31 4,6,9,11 *"])
def test_never(expression: str) -> None:
    assert Times(cron(expression), BERLIN).next(at("2026-01-01")) is None


@pytest.mark.parametrize(
    "expression",
    ["* * * *", "* * * * * *", "60 * * * *", "a * * * *", "* * * * 8", "* * * * mon-", "* * * * 5-3", "*/0 * * * *",
     "* * 1st_mon * *", "* * * * */9", "* * * foo *", "1-0 * * * *", "-1 * * * *"],
)  # fmt: skip
def test_what_is_no_cron_expression(expression: str) -> None:
    with pytest.raises(ScheduleError) as caught:
        Times(cron(expression), BERLIN)
    assert caught.value.fix


def test_overlaps() -> None:
    night = Times(window("22:00", "06:00"), BERLIN)
    assert overlap(night, Times(window("05:00", "07:00"), BERLIN), at("2026-01-01"), 400)
    assert not overlap(night, Times(window("06:00", "22:00"), BERLIN), at("2026-01-01"), 400)
    assert overlap(Times(cron("0 5 1 * *", 60.0), BERLIN), night, at("2026-01-01"), 400)
    assert not overlap(Times(window("01:00", "02:00", 0), BERLIN), Times(window("01:00", "02:00", 1), BERLIN), 0, 9)


def test_words() -> None:
    assert words(window("22:00", "06:00", 0, 4)._replace(zone="Europe/Berlin")) == "22:00-06:00 mon,fri Europe/Berlin"
    assert words(cron("0 2 * * *", 5400.0)) == "cron 0 2 * * * for 1 h 30 min"
    assert [amount(value) for value in (0, 59, 3600, 90_061, 400 * DAY)] == [
        "0 s",
        "59 s",
        "1 h",
        "1 d 1 h",
        "1 y 35 d",
    ]
