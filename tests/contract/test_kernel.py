"""What only a real kernel shows: limits that bite, and which of them had a service killed."""

from __future__ import annotations

import os
import select
import sys
import time
from pathlib import Path

import pytest

from edge_agent.host import process
from edge_agent.host.cgroup import CgroupContainment
from edge_agent.host.cgroupfs import Cgroup
from edge_agent.host.containment import ENFORCED, MACHINE, NOT_ENFORCED, OWN, TOTAL
from edge_agent.host.limits import PAGE
from edge_agent.model import Limits, Service
from tests.contract.places import PATIENCE, SLEEP, RealPlaces, new_cgroup, wait_until, why_no_cgroup

MIB = 1 << 20
HOG = (  # takes argv[1] MiB and stays
    sys.executable,
    "-S",
    "-c",
    "import sys, time; held = bytearray(int(sys.argv[1]) << 20); time.sleep(1000)",
)
BOMB = ("/bin/sh", "-c", "bomb() { bomb | bomb & wait; }; bomb")


def _files(containment: CgroupContainment, name: str) -> Cgroup:
    cgroup = containment._get(name)
    assert cgroup is not None
    return cgroup


def _opened(cgroups: RealPlaces) -> CgroupContainment:
    containment = cgroups.containment()
    assert isinstance(containment, CgroupContainment)
    return containment


def _run_to_its_end(cgroups: RealPlaces, containment: CgroupContainment, service: Service) -> int | None:
    containment.prepare(service)
    child = cgroups.launch(containment, service)
    process.release(child)
    assert select.select([child.pidfd], [], [], PATIENCE)[0], "it lives"
    os.close(child.pidfd)
    os.close(child.error_fd)
    return process.reap(child.pid)


def test_every_limit_is_written_and_read_back(cgroups: RealPlaces) -> None:
    containment = _opened(cgroups)
    assert {"cpu", "memory", "pids"} & set(containment.missing) == set()
    limits = Limits(
        memory_request=10 * MIB + 1,
        memory_limit=20 * MIB + PAGE - 1,
        swap_limit=0,
        cpu_request=250,
        cpu_limit=5,
        pids_limit=16,
    )
    report = containment.prepare(Service("one", SLEEP, limits=limits))
    for resource in ("memory", "cpu", "pids", "oom_group"):
        assert report[resource] == (ENFORCED, "")
    files = _files(containment, "one")
    assert files.memory_low == 10 * MIB
    assert files.memory_max == 20 * MIB
    assert files.memory_oom_group is True
    assert files.pids_max == 16
    assert files.cpu_weight == 250
    assert files.cpu_max == 5
    containment.resize(Service("one", SLEEP))
    after = Cgroup(f"{containment.path}/services/one")
    assert after.memory_low == 0
    assert after.memory_max is None
    assert after.pids_max is None
    assert after.cpu_max is None
    assert after.memory_oom_group is True
    after.close()


def test_what_the_kernel_refuses_is_not_called_enforced(cgroups: RealPlaces) -> None:
    containment = _opened(cgroups)
    report = containment.prepare(Service("one", SLEEP, limits=Limits(io_weight=200, io_read_bps=MIB)))
    assert report["io"][0] == NOT_ENFORCED
    assert report["io"][1] in ("no-device", "no-controller")
    report = containment.prepare(Service("one", SLEEP, limits=Limits(cpu_limit=0)))
    assert report["cpu"] == (NOT_ENFORCED, "refused:EINVAL")
    containment = CgroupContainment(containment.path, io_device="253:77")
    containment.open()
    report = containment.prepare(Service("one", SLEEP, limits=Limits(io_read_bps=MIB)))
    assert report["io"] == (NOT_ENFORCED, "refused:ENODEV")
    containment.close(remove=False)


def test_the_total_is_on_services_and_nothing_on_the_root(cgroups: RealPlaces) -> None:
    containment = _opened(cgroups)
    root = Cgroup(containment.path)
    before = root.memory_max, root.cpu_max
    assert containment.set_total(100 * MIB, 1500) == {"memory": (ENFORCED, ""), "cpu": (ENFORCED, "")}
    services = root.child("services")
    assert services is not None
    assert (services.memory_max, services.cpu_max) == (100 * MIB, 1500)
    assert (root.memory_max, root.cpu_max) == before
    services.close()
    root.close()


def test_own_limit(cgroups: RealPlaces) -> None:
    containment = _opened(cgroups)
    containment.set_total(200 * MIB, 1000)
    neighbour = Service("neighbour", SLEEP)
    containment.prepare(neighbour)
    pid = cgroups.start(containment, neighbour)
    hog = Service("hog", (*HOG, "100"), limits=Limits(memory_limit=24 * MIB, swap_limit=0))
    assert _run_to_its_end(cgroups, containment, hog) == -9
    assert containment.oom_cause("hog") == OWN
    assert containment.oom_cause("hog") == "", "an attributed kill is not attributed again"
    assert containment.oom_cause("neighbour") == ""
    assert containment.members("neighbour") == [pid]
    assert wait_until(lambda: not containment.populated("hog"))
    assert _run_to_its_end(cgroups, containment, hog._replace(argv=("/bin/true",))) == 0
    assert containment.oom_cause("hog") == "", "a new generation starts with a clean slate"


def test_the_total_and_then_the_machine(cgroups: RealPlaces) -> None:
    """The machine's memory is played by a limit above ``services``, where the agent does not look."""
    containment = _opened(cgroups)
    containment.set_total(48 * MIB, 1000)
    hog = Service("hog", (*HOG, "100"), limits=Limits(memory_limit=150 * MIB, swap_limit=0))
    assert _run_to_its_end(cgroups, containment, hog) == -9
    assert containment.oom_cause("hog") == TOTAL
    containment.set_total(300 * MIB, 1000)
    other = hog._replace(name="other")
    root = Cgroup(containment.path)
    root.memory_max = 64 * MIB
    try:
        assert _run_to_its_end(cgroups, containment, other) == -9
    finally:
        root.memory_max = None
        root.close()
    assert containment.oom_cause("other") == MACHINE


def test_a_cgroup_below_a_services_own_counts_as_its_own(cgroups: RealPlaces) -> None:
    containment = _opened(cgroups)
    containment.set_total(200 * MIB, 1000)
    service = Service("nested", SLEEP, limits=Limits(memory_limit=24 * MIB, swap_limit=0))
    containment.prepare(service)
    inner = _files(containment, "nested").make("inner").make("innermost")
    fd = inner.entry()
    child = process.launch(service._replace(argv=(*HOG, "100")), entry_fd=fd, stdout=1)
    os.close(fd)
    assert wait_until(lambda: inner.procs() == [child.pid])
    assert containment.members("nested") == [child.pid]
    assert containment.owns("nested", child.pid)
    assert not containment.remove("nested")
    process.release(child)
    assert select.select([child.pidfd], [], [], PATIENCE)[0]
    assert process.reap(child.pid) == -9
    assert containment.oom_cause("nested") == OWN
    inner.close()
    assert containment.remove("nested"), "nested cgroups go with it"
    os.close(child.pidfd)
    os.close(child.error_fd)


def test_a_fork_bomb_is_held_and_ended(cgroups: RealPlaces) -> None:
    containment = _opened(cgroups)
    bomb = Service("bomb", BOMB, limits=Limits(pids_limit=40, cpu_limit=500))
    containment.prepare(bomb)
    cgroups.start(containment, bomb)
    assert wait_until(lambda: (containment.usage("bomb").pids or 0) > 20)
    usage = containment.usage("bomb")
    assert usage.pids is not None
    assert usage.pids <= 40
    start = time.monotonic()
    containment.kill("bomb")
    assert wait_until(lambda: not containment.populated("bomb"))
    assert time.monotonic() - start < PATIENCE / 2
    assert containment.remove("bomb")


def test_kill_without_cgroup_kill(cgroups: RealPlaces) -> None:
    """Linux before 5.14: frozen, killed one by one, thawed."""
    containment = _opened(cgroups)
    bomb = Service("bomb", BOMB, limits=Limits(pids_limit=40, cpu_limit=500))
    containment.prepare(bomb)
    cgroups.start(containment, bomb)
    assert wait_until(lambda: (containment.usage("bomb").pids or 0) > 20)
    _files(containment, "bomb")._kill_each()
    assert wait_until(lambda: not containment.populated("bomb"))


def test_usage_counts(cgroups: RealPlaces) -> None:
    containment = _opened(cgroups)
    service = Service("hog", (*HOG, "16"))
    containment.prepare(service)
    cgroups.start(containment, service)
    assert wait_until(lambda: (containment.usage("hog").memory or 0) > 16 * MIB)
    usage, total = containment.usage("hog"), containment.usage(None)
    assert usage.pids == 1
    assert usage.cpu_usec is not None
    assert usage.cpu_usec > 0
    assert total.memory is not None
    assert total.memory > 16 * MIB
    assert total.pids == 1


def test_a_cgroup_made_anew_is_another_one(cgroups: RealPlaces) -> None:
    containment = _opened(cgroups)
    containment.prepare(Service("one", SLEEP))
    old = Cgroup(f"{containment.path}/services/one")
    assert old.memory_current >= 0
    containment.prepare(Service("one", SLEEP))
    with pytest.raises(OSError, match=r"memory\.current|No such"):
        _ = old.memory_current
    assert old.procs() == []
    assert old.children() == []
    assert not old.populated()
    assert old.child("x") is None
    old.kill()
    old.close()


def test_one_that_vanishes_does_not_hide_its_siblings(cgroups: RealPlaces) -> None:
    containment = _opened(cgroups)
    for name in ("one", "two"):
        containment.prepare(Service(name, SLEEP))
    pid = cgroups.start(containment, Service("two", SLEEP))
    Path(containment.path, "services", "one").rmdir()
    assert not containment.populated("one")
    assert containment.members("one") == []
    assert containment.usage("one").memory is None
    assert containment.oom_cause("one") == ""
    containment.kill("one")
    assert containment.remove("one")
    assert containment.members("two") == [pid]
    with pytest.raises(OSError, match=r"gone|No such"):
        containment.entry("one")


def _own_cgroup() -> Path:
    own = Path("/proc/self/cgroup").read_text(encoding="ascii").strip().removeprefix("0::")
    return Path("/sys/fs/cgroup", own.lstrip("/"))


def test_an_agent_in_the_way_moves_aside_and_back() -> None:
    """As under systemd before 254, which starts it in the unit's cgroup itself; hence a fixture of its own."""
    reason = why_no_cgroup()
    if reason:
        pytest.skip(reason)
    home, root = _own_cgroup(), new_cgroup()
    (root / "cgroup.procs").write_text("0", encoding="ascii")
    try:
        for _ in range(2):  # again, as after executing itself anew
            containment = CgroupContainment(str(root))
            containment.open()
            assert _own_cgroup() == root / "agent"
            assert {"cpu", "memory", "pids"} & set(containment.missing) == set()
        containment.prepare(Service("one", SLEEP))
        containment.close(remove=True)
        assert _own_cgroup() == root
        assert [entry.name for entry in root.iterdir() if entry.is_dir()] == []
    finally:
        (home / "cgroup.procs").write_text("0", encoding="ascii")
        root.rmdir()


def test_an_agent_elsewhere_stays_there(cgroups: RealPlaces) -> None:
    home = _own_cgroup()
    containment = _opened(cgroups)
    assert _own_cgroup() == home
    assert not Path(containment.path, "agent").exists()


def test_twenty_launches_into_cgroups(cgroups: RealPlaces, capsys: pytest.CaptureFixture[str]) -> None:
    containment = _opened(cgroups)
    services = [Service(f"s{number}", SLEEP, limits=Limits(memory_limit=64 * MIB)) for number in range(20)]
    null = os.open(os.devnull, os.O_RDWR)
    begin = time.monotonic()
    for service in services:
        containment.prepare(service)
    prepared = time.monotonic()
    children = []
    for service in services:
        entry = containment.entry(service.name)
        children.append(process.launch(service, entry_fd=entry, stdout=null))
        os.close(entry)
    launched = time.monotonic()
    for child in children:
        process.release(child)
    for child in children:
        assert select.select([child.error_fd], [], [], PATIENCE)[0]
        assert process.read_error(child.error_fd) == ""
    executed = time.monotonic()
    for service in services:
        containment.kill(service.name)
    for child in children:
        os.waitpid(child.pid, 0)
        os.close(child.error_fd)
        os.close(child.pidfd)
    assert wait_until(lambda: all(containment.remove(service.name) for service in services))
    gone = time.monotonic()
    os.close(null)
    spans = (prepared - begin, launched - prepared, executed - launched, gone - executed)
    with capsys.disabled():
        print("prepare, launch, execute, kill and remove, ms:", [round(span * 1000) for span in spans])
    assert gone - begin < PATIENCE


def test_rates_on_a_disk(cgroups: RealPlaces) -> None:
    disks = [path for path in Path("/sys/block").iterdir() if path.name.startswith(("vd", "sd", "nvme", "mmcblk"))]
    if not disks:
        pytest.skip("no disk")
    device = (disks[0] / "dev").read_text(encoding="ascii").strip()
    root = cgroups.containment()
    assert isinstance(root, CgroupContainment)
    containment = CgroupContainment(root.path, io_device=device)
    containment.open()
    limited = Service("one", SLEEP, limits=Limits(io_read_bps=2 * MIB))
    assert containment.prepare(limited)["io"] == (ENFORCED, "")
    assert _files(containment, "one").io_max[device]["rbps"] == 2 * MIB
    assert containment.resize(Service("one", SLEEP))["io"] == ("unset", "")
    assert _files(containment, "one").io_max == {}
    report = containment.prepare(Service("two", SLEEP, limits=Limits(io_weight=500)))
    assert report["io"] in ((ENFORCED, ""), (NOT_ENFORCED, "no-io-weight"))
    containment.close(remove=False)
