"""The fake's own side: faults come when asked for, and what cannot be done to a real host on purpose."""

from __future__ import annotations

import errno

import pytest

from edge_agent.host.containment import MACHINE, NOT_ENFORCED, OWN, TOTAL
from edge_agent.host.process import LaunchError
from edge_agent.model import Limits, Service
from tests.fakes.fakehost import FakeContainment, FakeHost

ONE = Service("one", ("/bin/sleep", "1"), limits=Limits(memory_limit=1 << 20))


@pytest.fixture
def host() -> FakeHost:
    return FakeHost()


@pytest.fixture
def containment(host: FakeHost) -> FakeContainment:
    return FakeContainment(host)


def test_faults_come_once_and_in_order(host: FakeHost, containment: FakeContainment) -> None:
    host.fail("prepare", errno.ENOENT, 0, errno.EBUSY)
    with pytest.raises(FileNotFoundError):
        containment.prepare(ONE)
    containment.prepare(ONE)
    with pytest.raises(OSError, match="busy"):
        containment.prepare(ONE)
    containment.prepare(ONE)


def test_a_refused_limit_is_reported(host: FakeHost, containment: FakeContainment) -> None:
    host.fail("limit", errno.EINVAL)
    assert containment.prepare(ONE)["memory"] == (NOT_ENFORCED, "refused:EINVAL")


def test_fork_failure(host: FakeHost, containment: FakeContainment) -> None:
    with pytest.raises(LaunchError, match="cannot join"):
        host.launch(ONE)
    containment.prepare(ONE)
    host.fail("launch", errno.EAGAIN)
    with pytest.raises(LaunchError, match="cannot fork for one"):
        host.launch(ONE)
    assert containment.members("one") == []


def test_a_late_exit(host: FakeHost, containment: FakeContainment) -> None:
    containment.prepare(ONE)
    process = host.launch(ONE)
    process.stuck = True
    containment.kill("one")
    assert containment.populated("one")
    assert not containment.remove("one")
    host.unstick(process.pid)
    assert not containment.populated("one")
    assert host.reap(process.pid) == -9
    assert host.reap(process.pid) is None


def test_numbers_come_round_again_and_never_twice_at_once() -> None:
    host = FakeHost(pids=5)
    containment = FakeContainment(host)
    containment.prepare(ONE)
    seen = set()
    for _ in range(20):
        process = host.launch(ONE)
        assert (process.pid, process.started) not in seen
        seen.add((process.pid, process.started))
        host.end(process.pid)
        host.reap(process.pid)
    assert len({pid for pid, _ in seen}) < len(seen)


@pytest.mark.parametrize("whose", [OWN, TOTAL, MACHINE])
def test_out_of_memory(host: FakeHost, containment: FakeContainment, whose: str) -> None:
    containment.prepare(ONE)
    process = host.launch(ONE)
    host.run_out_of_memory("one", whose)
    assert process.status == -9
    assert containment.oom_cause("one") == whose
    assert containment.oom_cause("one") == ""
