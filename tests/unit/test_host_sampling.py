"""Limits by sampling: the decision, and measuring real processes."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from edge_agent.host import sampling
from edge_agent.host.sampling import Bound, Sample, Sampler, over
from edge_agent.model import Limits, Service

if TYPE_CHECKING:
    import pytest

    from edge_agent.host.containment import Containment

MIB = 1 << 20
WEB = Bound("web", 50 * MIB, 100 * MIB, 10, 50)
JOB = Bound("job", 20 * MIB, None, None, 0)
LOG = Bound("log", 20 * MIB, None, None, 0)
CORE = Bound("core", 80 * MIB, None, None, 100)
PLENTY = 10_000 * MIB


def test_one_peak_is_let_pass() -> None:
    high, low = {"web": Sample(101 * MIB)}, {"web": Sample(99 * MIB)}
    result, counts = over(high, [WEB], PLENTY, {})
    assert result == []
    result, counts = over(low, [WEB], PLENTY, counts)
    assert result == []
    result, counts = over(high, [WEB], PLENTY, counts)
    assert result == []
    result, counts = over(high, [WEB], PLENTY, counts)
    assert [(found.name, found.reason) for found in result] == [
        ("web", "used 101.0 MiB of memory, its limit is 100.0 MiB")
    ]
    assert over(high, [WEB], PLENTY, counts)[0] == [], "it is being restarted: counted anew"


def test_tasks() -> None:
    crowd = {"web": Sample(MIB, 11)}
    _, counts = over(crowd, [WEB], PLENTY, {})
    result, _ = over(crowd, [WEB], PLENTY, counts)
    assert result[0].reason == "had 11 tasks, its limit is 10"


def test_exactly_the_limit_is_within() -> None:
    assert over({"web": Sample(100 * MIB, 10)}, [WEB], PLENTY, {"web": 5}) == ([], {})


def test_the_total_takes_the_least_important_above_its_request() -> None:
    samples = {
        "core": Sample(300 * MIB),
        "web": Sample(90 * MIB),
        "job": Sample(19 * MIB),  # least important, but within what it was guaranteed
        "log": Sample(30 * MIB),
    }
    bounds = [CORE, WEB, JOB, LOG]
    result, counts = over(samples, bounds, 200 * MIB, {})
    assert result == []
    result, counts = over(samples, bounds, 200 * MIB, counts)
    assert [found.name for found in result] == ["log"]
    assert "439.0 MiB of 200.0 MiB" in result[0].reason
    assert over(samples, bounds, 200 * MIB, counts)[0] == [], "one, then another look"


def test_of_equals_the_one_furthest_above() -> None:
    samples = {"job": Sample(50 * MIB), "log": Sample(60 * MIB)}
    assert over(samples, [JOB, LOG], MIB, {"": 9})[0][0].name == "log"


def test_nobody_goes_for_the_total_when_somebody_goes_for_its_own_limit() -> None:
    samples = {"web": Sample(150 * MIB), "job": Sample(30 * MIB)}
    result, counts = over(samples, [WEB, JOB], 160 * MIB, {"": 1, "web": 1})
    assert [found.name for found in result] == ["web"]
    assert counts == {"": 2}


def test_all_within_their_requests_nobody_goes() -> None:
    assert over({"core": Sample(80 * MIB)}, [CORE], 10 * MIB, {"": 7})[0] == []


@given(
    st.dictionaries(
        st.sampled_from(["web", "job", "log", "core"]), st.builds(Sample, st.integers(0, 2**40), st.integers(0, 20))
    ),
    st.integers(0, 2**41),
    st.dictionaries(st.sampled_from(["web", "job", "log", "core", ""]), st.integers(0, 3)),
)
def test_whoever_goes_is_over_something(samples: dict[str, Sample], total: int, previous: dict[str, int]) -> None:
    bounds = {bound.name: bound for bound in (CORE, WEB, JOB, LOG)}
    result, counts = over(samples, list(bounds.values()), total, previous)
    crowded = sum(sample.memory for sample in samples.values()) > total
    for found in result:
        limit = bounds[found.name].memory_limit
        above = samples[found.name].memory > bounds[found.name].memory_request
        tasks = bounds[found.name].pids_limit
        over_own = limit is not None and samples[found.name].memory > limit
        over_tasks = tasks is not None and samples[found.name].pids > tasks
        assert over_own or over_tasks or (crowded and above)
    assert len({found.name for found in result}) == len(result)
    assert all(count > 0 for count in counts.values())


class Members:
    """A containment, as far as the sampler looks."""

    def __init__(self, pids: list[int]) -> None:
        self.pids = pids

    def population(self) -> dict[str, list[int]]:
        return {"web": self.pids}


def _sampler(pids: list[int]) -> Sampler:
    containment: Containment = Members(pids)  # type: ignore[assignment]  # no more is needed here
    return Sampler(containment)


def test_a_real_tree_is_measured_and_vanished_ones_count_nothing() -> None:
    code = "import sys; held = bytearray(40 << 20); print(1, flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-S", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"1\n"
        sampler = _sampler([child.pid, 4194304])
        service = Service("web", ("/bin/true",), limits=Limits(memory_limit=20 * MIB))
        assert sampler.sample([service], PLENTY) == []
        found = sampler.sample([service], PLENTY)
        assert child.stdin is not None
        child.stdin.close()
    assert [over_limit.name for over_limit in found] == ["web"]
    usage = sampler.usage["web"]
    assert 40 * MIB < usage.memory < 80 * MIB
    assert usage.pids == 1
    assert usage.cpu_usec > 0
    assert sampler.sample([service], PLENTY) == []
    assert sampler.usage["web"] == Sample(), "all gone"


def test_shared_pages_are_not_counted_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """RSS is quick but over; only when it is above a limit is PSS asked, and it decides."""
    monkeypatch.setattr(sampling, "measure", lambda _: Sample(150 * MIB, 3, 5))
    asked: list[int] = []

    def proportional(pids: list[int]) -> int:
        asked.append(len(pids))
        return 60 * MIB

    monkeypatch.setattr(sampling, "proportional", proportional)
    sampler = _sampler([1])
    within = Service("web", ("/bin/true",), limits=Limits(memory_limit=200 * MIB))
    sampler.sample([within], PLENTY)
    assert asked == []
    tight = within._replace(limits=Limits(memory_limit=100 * MIB))
    for _ in range(3):
        assert sampler.sample([tight], PLENTY) == []
    assert asked == [1, 1, 1]
    assert sampler.usage["web"] == Sample(60 * MIB, 3, 5)


def test_pss_of_oneself_is_not_above_rss() -> None:
    pids = [os.getpid()]
    assert 0 < sampling.proportional(pids) <= sampling.measure(pids).memory * 1.1
