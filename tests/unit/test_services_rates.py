"""Token buckets of peers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edge_agent.services.rates import BUSY, CUT, OK, PATIENCE, PAUSE, Rate, Rates

RATE = Rate(requests=2.0, burst_requests=4.0, bytes=100.0, burst_bytes=1000.0)


def test_a_burst_then_the_sustained_rate() -> None:
    bounded = Rates(RATE)
    assert [bounded.admit("a", 1, 0.0) for _ in range(5)] == [OK] * 4 + [BUSY]
    assert bounded.admit("a", 1, 0.9) == BUSY  # which costs as well
    assert bounded.admit("a", 1, 1.5) == OK
    assert [bounded.admit("a", 1, 60.0) for _ in range(5)] == [OK] * 4 + [BUSY]  # a rest saves no more than a burst


def test_bytes_count_as_well() -> None:
    bounded = Rates(RATE)
    assert bounded.admit("a", 1000, 0.0) == OK
    assert bounded.admit("a", 1, 0.0) == BUSY
    assert bounded.admit("a", 99, 1.0) == OK
    assert bounded.admit("a", 500, 1.0) == BUSY
    assert bounded.admit("a", 500, 1.0) == CUT


def test_one_peer_does_not_use_up_what_another_may() -> None:
    bounded = Rates(RATE)
    for _ in range(20):
        bounded.admit("a", 1000, 0.0)
    assert bounded.admit("b", 1000, 0.0) == OK


def test_who_goes_on_is_cut_off_and_comes_back_after_the_pause() -> None:
    bounded = Rates(RATE)
    answers = [bounded.admit("a", 1, 0.0) for _ in range(4 + PATIENCE + 1)]
    assert answers == [OK] * 4 + [BUSY] * (PATIENCE - 1) + [CUT] * 2
    assert not bounded.welcome("a", PAUSE - 0.1)
    assert bounded.welcome("b", 0.0)
    assert bounded.welcome("a", PAUSE)
    assert (bounded.busy, bounded.cut) == (PATIENCE + 1, 2)


def test_a_little_over_the_rate_is_cut_off_as_well_in_the_end() -> None:
    bounded = Rates(Rate(requests=100.0, burst_requests=100.0))
    answers = [bounded.admit("a", 1, number / 110) for number in range(3000)]
    assert answers[:1000] == [OK] * 1000
    assert CUT in answers


def test_who_waits_when_told_so_is_never_cut_off() -> None:
    bounded, now = Rates(RATE), 0.0
    for _ in range(10 * PATIENCE):
        assert bounded.admit("a", 1, now) != CUT
        now += 0.5


@given(st.lists(st.tuples(st.floats(0, 5), st.integers(0, 2000)), max_size=60))
def test_never_more_than_the_burst_and_the_rate(asked: list[tuple[float, int]]) -> None:
    bounded, now, requests, size = Rates(RATE), 0.0, 0, 0
    for wait, length in asked:
        now += wait
        if bounded.admit("a", length, now) == OK:
            requests, size = requests + 1, size + length
    assert requests <= RATE.burst_requests + RATE.requests * now + 1e-6
    assert size <= RATE.burst_bytes + RATE.bytes * now + 1e-6
