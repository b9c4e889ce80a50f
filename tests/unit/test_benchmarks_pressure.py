"""The tables of bench-pressure: from what was seen to numbers and goals."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.pressure import report


def sample(during: list[float], dealt: float | None, kind: str = "memory") -> dict[str, Any]:
    """One round: a hundred quiet requests of 10 ms, then those beside a hog, one every 50 ms."""
    idle = {"latencies": [0.01] * 100, "work": 10.0, "wakeups": 0.0, "cpu": 0.0}
    due = [0.05 * number for number in range(len(during))]
    part = {"during": during, "after": [0.01], "due": due, "dealt": dealt, "work": 5.0, "wakeups": 6.0, "cpu": 0.1}
    return {"idle": idle, kind: part | {"done": ["hog killed"]}}


def test_a_failed_request_is_the_slowest_there_is() -> None:
    assert report.percentile([0.01, -1.0], 0.99) == report.TIMEOUT
    assert report.percentile([0.03, 0.01, 0.02], 0.5) == 0.02
    assert report.percentile([], 0.5) is None
    assert report.failed([0.01, -1.0, -1.0]) == 2


def test_recovered_is_when_the_last_harmed_request_is_over() -> None:
    assert report.recovered(sample([0.01] * 50, 1.0), "memory") == 0.0
    assert report.recovered(sample([0.01, 0.5, 0.01], 1.0), "memory") == pytest.approx(0.55)
    assert report.recovered(sample([0.01, -1.0, 0.01], 1.0), "memory") == pytest.approx(0.05 + report.TIMEOUT)


def test_goals_compare_with_the_peers_of_the_same_run() -> None:
    samples = {
        "edge-agent": [sample([0.011] * 100, 2.0)],
        "systemd-oomd": [sample([0.5] * 100, 40.0)],
        "earlyoom": [sample([0.01] * 100, 1.0)],
    }
    found = {goal.text: (goal.value, goal.met) for goal in report.goals(samples)}
    assert found["memory: dealt with so many times faster than by systemd-oomd"] == (20.0, True)
    assert found["memory: time of earlyoom's"] == (2.0, False)
    slowdown, met = found["memory: essential's p99, times idle"]
    assert met
    assert slowdown == pytest.approx(1.1)
    assert found["memory: requests failed"] == (0.0, True)
    assert not any(text.startswith("cpu") for text in found), "what did not run is no goal"


def test_a_peer_that_could_not_run_is_not_available() -> None:
    text = report.table({"edge-agent": [sample([0.01] * 10, 1.0)]}, ["systemd-oomd", "edge-agent"])
    assert "not available" in text
    assert "memory: hog ended or held, s" in text
    assert "edge-agent, memory: hog killed" in report.deeds({"edge-agent": [sample([0.01], 1.0)]}, ["edge-agent"])


def test_lending_is_a_ratio_and_a_time() -> None:
    fixed, lent = {"work": 10.0, "cpu": 0.1}, {"work": 25.0, "cpu": 0.1, "back": 0.3}
    samples = {"lending: edge-agent, fixed": [fixed], "lending: edge-agent": [lent]}
    gain, back = report.lending(samples)
    assert (gain.value, gain.met) == (2.5, True)
    assert (back.value, back.met) == (0.3, True)
    assert report.lending({}) == []
    assert report.goals(samples) == [], "its cpu is no hog"
