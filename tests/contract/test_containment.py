"""What every containment does, the fake included."""

from __future__ import annotations

import errno
import os
import select

import pytest

from edge_agent.host.containment import ENFORCED, NOT_ENFORCED, SAMPLED, UNSET, OomCounts, Usage
from edge_agent.model import RESOURCES, Limits, Service
from tests.contract.places import DAEMON, DAEMON_SIZE, SLEEP, Place, wait_until

MIB = 1 << 20
ONE = Service("one", SLEEP)
TWO = Service("two", SLEEP)
ASKED = Limits(
    memory_request=8 * MIB, memory_limit=64 * MIB, swap_limit=0, cpu_request=100, cpu_limit=500, pids_limit=32
)


def test_nothing_is_there_at_first(place: Place) -> None:
    containment = place.containment()
    assert containment.names() == []
    assert containment.kind in ("cgroup2", "tree")


def test_a_name_nobody_prepared_is_an_answer(place: Place) -> None:
    containment = place.containment()
    assert not containment.populated("none")
    assert containment.members("none") == []
    assert not containment.owns("none", os.getpid())
    assert containment.usage("none") == Usage()
    assert containment.oom_cause("none") == ""
    assert containment.oom_counts("none")._replace(total=0) == OomCounts()
    assert containment.watch("none") == -1
    containment.kill("none")
    assert containment.remove("none")


def test_a_started_process_is_a_member(place: Place) -> None:
    containment = place.containment()
    containment.prepare(ONE)
    assert not containment.populated("one")
    pid = place.start(containment, ONE)
    assert containment.populated("one")
    assert containment.members("one") == [pid]
    assert containment.owns("one", pid)
    assert containment.names() == ["one"]


def test_strangers_are_never_owned(place: Place) -> None:
    containment = place.containment()
    for service in (ONE, TWO):
        containment.prepare(service)
    one, two = place.start(containment, ONE), place.start(containment, TWO)
    assert not containment.owns("one", two)
    assert not containment.owns("two", one)
    for stranger in (1, os.getpid(), os.getppid(), 4194304):
        assert not containment.owns("one", stranger)


def test_kill_leaves_nobody_and_no_other_service_is_touched(place: Place) -> None:
    containment = place.containment()
    for service in (ONE, TWO):
        containment.prepare(service)
    place.start(containment, ONE)
    two = place.start(containment, TWO)
    containment.kill("one")
    assert wait_until(lambda: not containment.populated("one"))
    assert containment.members("one") == []
    assert containment.remove("one")
    assert containment.names() == ["two"]
    assert containment.members("two") == [two]
    containment.kill("one")  # again: harmless
    assert containment.members("two") == [two]


def test_daemons_that_left_session_parent_and_environment_are_found_and_killed(place: Place) -> None:
    containment = place.containment()
    service = Service("daemon", DAEMON)
    containment.prepare(service)
    pid = place.start(containment, service)
    assert wait_until(lambda: len(containment.members("daemon")) == DAEMON_SIZE)
    assert all(containment.owns("daemon", member) for member in containment.members("daemon"))
    place.end(pid)
    assert len(containment.members("daemon")) == DAEMON_SIZE - 1
    assert containment.populated("daemon")
    containment.kill("daemon")
    assert wait_until(lambda: not containment.populated("daemon"))


def test_prepare_refuses_while_someone_is_alive(place: Place) -> None:
    containment = place.containment()
    containment.prepare(ONE)
    pid = place.start(containment, ONE)
    with pytest.raises(OSError, match="one") as caught:
        containment.prepare(ONE)
    assert caught.value.errno == errno.EBUSY
    assert containment.members("one") == [pid]
    place.end(pid)
    assert wait_until(lambda: not containment.populated("one"))
    containment.prepare(ONE)


def test_remove_of_a_populated_one_says_no_and_changes_nothing(place: Place) -> None:
    containment = place.containment()
    containment.prepare(ONE)
    pid = place.start(containment, ONE)
    assert not containment.remove("one")
    assert containment.members("one") == [pid]


def test_a_service_may_be_started_again_and_again(place: Place) -> None:
    containment = place.containment()
    for _ in range(3):
        containment.prepare(ONE)
        pid = place.start(containment, ONE)
        assert containment.members("one") == [pid]
        place.end(pid)
        assert wait_until(lambda: not containment.populated("one"))
    assert containment.remove("one")
    assert containment.names() == []


def test_the_next_agent_finds_what_runs(place: Place) -> None:
    first = place.containment()
    first.prepare(ONE)
    pid = place.start(first, ONE)
    second = place.containment()
    assert second.names() == ["one"]
    assert second.members("one") == [pid]
    assert second.owns("one", pid)
    assert second.populated("one")
    second.kill("one")
    assert wait_until(lambda: not second.populated("one"))
    assert not first.populated("one")


def test_reports_name_every_resource_and_only_known_kinds(place: Place) -> None:
    containment = place.containment()
    report = containment.prepare(ONE)
    assert tuple(report) == RESOURCES
    asked = {"oom_group"}
    for resource, (kind, code) in report.items():
        assert (kind == UNSET) == (resource not in asked)
        assert code == "" or kind != ENFORCED
    report = containment.resize(ONE._replace(limits=ASKED))
    assert tuple(report) == RESOURCES
    for resource, (kind, code) in report.items():
        assert kind in ((UNSET,) if resource == "io" else (ENFORCED, SAMPLED, NOT_ENFORCED))
        assert bool(code) == (kind in (SAMPLED, NOT_ENFORCED))


def test_the_total_is_reported(place: Place) -> None:
    report = place.containment().set_total(256 * MIB, 1500)
    assert set(report) == {"memory", "cpu"}


def test_resizing_does_not_touch_who_runs(place: Place) -> None:
    containment = place.containment()
    containment.prepare(ONE)
    pid = place.start(containment, ONE)
    containment.resize(ONE._replace(limits=ASKED))
    containment.resize(ONE)
    assert containment.members("one") == [pid]


def test_watch_tells_that_the_last_one_has_gone(place: Place) -> None:
    containment = place.containment()
    containment.prepare(ONE)
    pid = place.start(containment, ONE)
    assert containment.populated("one")
    fd = containment.watch("one")
    if fd < 0:
        pytest.skip(f"{place.kind} is polled")
    with select.epoll() as epoll:
        epoll.register(fd, select.EPOLLPRI)
        assert epoll.poll(0) == []
        place.end(pid)
        assert [found for found, _ in epoll.poll(20)] == [fd]
        assert not containment.populated("one")
        assert epoll.poll(0) == []
    os.close(fd)


def test_close_with_remove_leaves_nothing(place: Place) -> None:
    containment = place.containment()
    containment.prepare(ONE)
    pid = place.start(containment, ONE)
    place.end(pid)
    assert wait_until(lambda: not containment.populated("one"))
    containment.close(remove=True)
    assert place.containment().names() == []
