"""Samples into buckets, by a clock that may not be set."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.services.analytics_buckets import (
    DAY,
    EPOCH,
    STEPS,
    Held,
    Rollup,
    Row,
    guessed,
    merged,
    offset,
    tier,
    victim,
)

NOON = EPOCH + 12 * 3600
FINE, MIDDLE, COARSE = STEPS


def held(*samples: tuple[float, float], counter: bool = False) -> Held:
    made = Held()
    for steady, value in samples:
        made.add(steady, 1, value, counter=counter)
    return made


def test_samples_of_a_gauge_share_their_bucket() -> None:
    made = held((10.0, 3.0), (30.0, 1.0), (59.9, 2.0), (60.0, 9.0))
    assert made.rows(NOON, (FINE,)) == [
        Row(FINE, NOON, 1, Rollup(3, 6.0, 1.0, 3.0, 2.0)),
        Row(FINE, NOON + 60, 1, Rollup(1, 9.0, 9.0, 9.0, 9.0)),
    ]


def test_of_a_counter_the_increase_counts_and_a_new_beginning_is_one() -> None:
    made = held((0.0, 100.0), (10.0, 104.0), (20.0, 3.0), (30.0, 3.0), counter=True)
    assert made.rows(NOON, (FINE,)) == [Row(FINE, NOON, 1, Rollup(4, 7.0, 0.0, 4.0, 3.0))]


def test_a_counter_goes_on_from_what_the_process_before_has_seen() -> None:
    made = Held()
    made.remember(1, 100.0)
    made.add(0.0, 1, 130.0, counter=True)
    assert made.rows(NOON, (FINE,))[0].rollup.total == 30.0


def test_every_tier_has_every_sample_once() -> None:
    made = held(*((float(second), 1.0) for second in range(0, 7200, 30)))
    rows = made.rows(NOON)
    for step in STEPS:
        assert sum(row.rollup.number for row in rows if row.step == step) == 240
    assert rows == sorted(rows)
    assert all(row.start % row.step == 0 for row in rows)


def test_what_is_held_moves_when_the_clock_is_set() -> None:
    made = held((5.0, 1.0))
    assert offset(1000.0, 5.0) is None, "1970: nobody has set it"
    assert made.rows(1000.0 - 5.0, (FINE,))[0].start == 960
    told = offset(NOON + 7.0, 7.0)
    assert told == NOON
    assert made.rows(told, (FINE,))[0].start == NOON


def test_a_clock_that_is_never_set_goes_on_behind_the_newest() -> None:
    assert guessed(None, 5.0, 1000.0, 7.0) == 993.0, "nothing is there: it is taken at its word"
    made = held((5.0, 1.0), (95.0, 1.0))
    rows = made.rows(guessed(NOON, made.first(), 1000.0, 100.0), (FINE,))
    assert [row.start for row in rows] == [NOON + 60, NOON + 120]


def test_only_one_series_is_looked_at() -> None:
    made = held((0.0, 1.0))
    made.add(0.0, 2, 5.0, counter=False)
    assert [row.series for row in made.rows(NOON, (FINE,), only=2)] == [2]
    made.clear()
    assert (len(made), made.rows(NOON)) == (0, [])


def test_the_tier_with_the_most_buckets_gives_up_its_oldest() -> None:
    spans = {FINE: (NOON, NOON + 3000 * FINE), MIDDLE: (NOON, NOON + 200 * MIDDLE), COARSE: (NOON, NOON)}
    now = float(NOON + 3000 * FINE)
    assert victim(spans, now) == (FINE, NOON)
    assert victim({**spans, COARSE: (NOON - 4000 * COARSE, NOON)}, now) == (COARSE, NOON - 4000 * COARSE)
    assert victim({}, now) is None


def test_what_was_written_by_a_wrong_clock_goes_first() -> None:
    late = NOON + 10 * 365 * DAY // FINE * FINE
    spans = {FINE: (NOON, late), COARSE: (NOON, NOON)}
    assert victim(spans, float(NOON)) == (FINE, late)
    assert victim(spans, 1000.0) == (FINE, NOON), "by a clock that is not set nothing is in the future"
    early = {FINE: (0, NOON), COARSE: (NOON, NOON)}
    assert victim(early, float(NOON)) == (FINE, 0), "1970 goes before 2025"


@pytest.mark.parametrize(
    ("step", "begin", "found"),
    [
        (1, NOON, FINE),
        (FINE, NOON, FINE),
        (899, NOON, FINE),
        (900, NOON, MIDDLE),
        (3600, NOON, MIDDLE),
        (DAY, NOON, COARSE),
        (FINE, NOON - DAY, MIDDLE),  # the finest does not reach back so far
        (FINE, NOON - 30 * DAY, COARSE),
        (FINE, 0, COARSE),  # nor does any other: the one that reaches farthest
    ],
)
def test_a_question_is_answered_from_the_tier_that_reaches_back(step: int, begin: int, found: int) -> None:
    oldest = {FINE: NOON - 3600, MIDDLE: NOON - 2 * DAY, COARSE: NOON - 60 * DAY}
    assert tier(step, begin, oldest) == found


def test_without_coarser_data_the_finest_answers() -> None:
    assert tier(FINE, 0, {}) == FINE
    assert tier(FINE, 0, dict.fromkeys(STEPS, NOON)) == FINE, "all begin together"


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1e6), st.floats(-1e9, 1e9)), min_size=1, max_size=50), st.sampled_from(STEPS))
def test_points_of_a_step_are_what_their_samples_are(samples: list[tuple[float, float]], factor: int) -> None:
    samples.sort()
    rows = held(*samples).rows(NOON, (FINE,))
    points = merged(rows, factor)
    assert sum(rollup.number for _, rollup in points) == len(samples)
    assert min(rollup.low for _, rollup in points) == min(value for _, value in samples)
    assert points[-1][1].last == samples[-1][1]
    assert all(start % factor == 0 for start, _ in points)
