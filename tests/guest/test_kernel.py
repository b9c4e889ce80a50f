"""What edge-agent takes for granted about Linux's cgroups v2, asked of the kernel itself (cgroup-v2.rst)."""

from __future__ import annotations

import errno
import os
import select
import signal
import time
from pathlib import Path

import pytest

from .cgroups import DEADLINE, EAT, Cgroup, finish, line

MIB = 1 << 20
KILLED = -signal.SIGKILL


def test_the_hierarchy_is_unified_and_has_the_controllers_we_use() -> None:
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    assert [(point, kind) for _, point, kind, *_ in mounts if kind.startswith("cgroup")] == [
        ("/sys/fs/cgroup", "cgroup2")
    ]
    assert {"cpu", "io", "memory", "pids"} <= set(Path("/sys/fs/cgroup/cgroup.controllers").read_text().split())


def test_memory_max_kills_the_process_that_goes_over_it(cgroup: Cgroup) -> None:
    cgroup.write("memory.max", str(32 * MIB))
    code, output, _ = finish(cgroup.spawn(EAT.format(mib=64)))
    assert (code, output) == (KILLED, "")
    assert cgroup.flat("memory.events")["oom_kill"] == 1
    assert int(cgroup.read("memory.peak")) <= 32 * MIB


def test_memory_below_the_limit_is_left_alone(cgroup: Cgroup) -> None:
    cgroup.write("memory.max", str(64 * MIB))
    code, output, _ = finish(cgroup.spawn(EAT.format(mib=32)))
    assert (code, output) == (0, "full\n")
    assert cgroup.flat("memory.events")["oom"] == 0


def test_an_own_limit_shows_in_the_victims_local_events(cgroup: Cgroup) -> None:
    victim = cgroup.child("victim")
    cgroup.write("memory.max", str(128 * MIB))
    victim.write("memory.max", str(32 * MIB))
    assert finish(victim.spawn(EAT.format(mib=64)))[0] == KILLED
    assert victim.flat("memory.events.local")["oom"] >= 1
    assert victim.flat("memory.events.local")["oom_kill"] == 1
    assert cgroup.flat("memory.events.local")["oom"] == 0


def test_the_total_shows_in_the_parents_local_events(cgroup: Cgroup) -> None:
    victim, neighbour = cgroup.child("victim"), cgroup.child("neighbour")
    cgroup.write("memory.max", str(64 * MIB))
    small = neighbour.spawn(EAT.format(mib=4))
    assert line(small) == "full"
    assert finish(victim.spawn(EAT.format(mib=96)))[0] == KILLED
    assert cgroup.flat("memory.events.local")["oom"] >= 1
    assert victim.flat("memory.events.local")["oom"] == 0
    assert victim.flat("memory.events.local")["oom_kill"] == 1
    assert neighbour.flat("memory.events.local")["oom_kill"] == 0
    assert finish(small)[0] == 0


def test_the_total_with_oom_group_shows_as_a_group_kill(cgroup: Cgroup) -> None:
    victim = cgroup.child("victim")
    cgroup.write("memory.max", str(64 * MIB))
    victim.write("memory.oom.group", "1")
    assert finish(victim.spawn(EAT.format(mib=96)))[0] == KILLED
    assert cgroup.flat("memory.events.local")["oom"] >= 1
    assert victim.flat("memory.events.local")["oom"] == 0
    assert victim.flat("memory.events.local")["oom_group_kill"] == 1


def test_oom_group_kills_the_whole_service(cgroup: Cgroup) -> None:
    cgroup.write("memory.max", str(48 * MIB))
    cgroup.write("memory.oom.group", "1")
    bystanders = [cgroup.spawn(EAT.format(mib=1)) for _ in range(2)]
    assert [line(bystander) for bystander in bystanders] == ["full", "full"]
    assert finish(cgroup.spawn(EAT.format(mib=96)))[0] == KILLED
    assert [finish(bystander)[0] for bystander in bystanders] == [KILLED, KILLED]
    assert cgroup.flat("memory.events")["oom_group_kill"] == 1
    assert not cgroup.populated


def test_without_oom_group_only_the_largest_process_dies(cgroup: Cgroup) -> None:
    cgroup.write("memory.max", str(48 * MIB))
    bystander = cgroup.spawn(EAT.format(mib=1))
    assert line(bystander) == "full"
    assert finish(cgroup.spawn(EAT.format(mib=96)))[0] == KILLED
    assert finish(bystander)[0] == 0


TREE = """
import os, signal, time
for _ in range(3):
    if os.fork() == 0:
        os.setsid()          # out of the session, the process group
        if os.fork() != 0:
            os._exit(0)      # and re-parented
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.write(1, b"up\\n")
        time.sleep(1000)
time.sleep(1000)
"""


def test_cgroup_kill_reaches_every_process_however_it_hides(cgroup: Cgroup) -> None:
    service = cgroup.child("service")
    nested = service.child("nested")
    process = nested.spawn(TREE)
    assert [line(process) for _ in range(3)] == ["up"] * 3
    assert len(nested.read("cgroup.procs").split()) == 4
    service.write("cgroup.kill", "1")
    assert finish(process)[0] == KILLED
    service.wait_empty()
    assert nested.read("cgroup.procs") == ""


def test_a_populated_cgroup_cannot_be_removed_an_empty_one_can(cgroup: Cgroup) -> None:
    service = cgroup.child("service")
    process = service.spawn(EAT.format(mib=1))
    assert line(process) == "full"
    with pytest.raises(OSError, match="busy") as refused:
        service.path.rmdir()
    assert refused.value.errno == errno.EBUSY
    assert finish(process)[0] == 0
    service.wait_empty()
    service.path.rmdir()


FORK_BOMB = """
import os, time
made = 0
try:
    while True:
        if os.fork() == 0:
            time.sleep(1000)
        made += 1
except BlockingIOError:
    print(made, flush=True)
time.sleep(1000)
"""


def test_pids_max_holds_a_fork_bomb(cgroup: Cgroup) -> None:
    cgroup.write("pids.max", "10")
    bomb = cgroup.spawn(FORK_BOMB)
    assert line(bomb) == "9"
    assert cgroup.read("pids.current") == "10"
    assert cgroup.flat("pids.events")["max"] >= 1
    cgroup.write("cgroup.kill", "1")
    finish(bomb)
    cgroup.wait_empty()


def test_epoll_says_when_the_last_process_has_gone(cgroup: Cgroup) -> None:
    process = cgroup.spawn(EAT.format(mib=1))
    assert line(process) == "full"
    fd = os.open(cgroup.path / "cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
    try:
        assert b"populated 1" in os.pread(fd, 4096, 0)
        with select.epoll() as epoll:
            epoll.register(fd, select.EPOLLPRI)
            assert epoll.poll(0.2) == []  # nothing has happened since the read
            assert finish(process)[0] == 0
            ready = epoll.poll(DEADLINE)
        assert [(found, bool(mask & select.EPOLLPRI)) for found, mask in ready] == [(fd, True)]
        assert b"populated 0" in os.pread(fd, 4096, 0)
    finally:
        os.close(fd)


def test_epoll_says_when_a_limit_has_killed(cgroup: Cgroup) -> None:
    cgroup.write("memory.max", str(32 * MIB))
    fd = os.open(cgroup.path / "memory.events.local", os.O_RDONLY | os.O_CLOEXEC)
    try:
        before = os.pread(fd, 4096, 0)
        with select.epoll() as epoll:
            epoll.register(fd, select.EPOLLPRI)
            assert finish(cgroup.spawn(EAT.format(mib=64)))[0] == KILLED
            assert [found for found, _ in epoll.poll(DEADLINE)] == [fd]
        assert os.pread(fd, 4096, 0) != before
    finally:
        os.close(fd)


SPIN = "while True: pass"


def test_cpu_max_bounds_the_time_a_service_gets(cgroup: Cgroup) -> None:
    cgroup.write("cpu.max", "20000 100000")  # a fifth of one core
    process = cgroup.spawn(SPIN)
    try:
        for _ in range(4):  # of which one must be right: the emulated processor stands still when the host is busy
            begun, before = time.monotonic(), cgroup.flat("cpu.stat")
            time.sleep(2.0)
            after, elapsed = cgroup.flat("cpu.stat"), time.monotonic() - begun
            used = (after["usage_usec"] - before["usage_usec"]) / 1e6
            most = 0.2 * elapsed + 0.04  # two periods' worth at the edges
            if used <= most:
                break
    finally:
        cgroup.write("cgroup.kill", "1")
        finish(process)
    assert after["nr_throttled"] > before["nr_throttled"]
    assert 0 < used <= most


def test_memory_low_and_the_other_limits_are_read_back_as_written(cgroup: Cgroup) -> None:
    for file, value in {
        "memory.low": str(16 * MIB),
        "memory.max": str(64 * MIB),
        "memory.swap.max": "0",
        "memory.oom.group": "1",
        "pids.max": "64",
        "cpu.weight": "250",
        "cpu.max": "50000 100000",
    }.items():
        cgroup.write(file, value)
        assert cgroup.read(file) == value


def test_the_kernel_rounds_memory_down_to_pages(cgroup: Cgroup) -> None:
    page = os.sysconf("SC_PAGE_SIZE")
    cgroup.write("memory.max", str(64 * MIB + page - 1))
    assert cgroup.read("memory.max") == str(64 * MIB)


def test_a_cgroup_with_processes_cannot_enable_controllers_for_children(cgroup: Cgroup) -> None:
    process = cgroup.spawn(EAT.format(mib=1))
    assert line(process) == "full"
    with pytest.raises(OSError, match="busy") as refused:
        cgroup.write("cgroup.subtree_control", "+memory")
    assert refused.value.errno == errno.EBUSY
    assert finish(process)[0] == 0


def test_a_pressure_trigger_is_accepted_per_cgroup(cgroup: Cgroup) -> None:
    fd = os.open(cgroup.path / "memory.pressure", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        os.write(fd, b"some 150000 2000000\0")
        with select.epoll() as epoll:
            epoll.register(fd, select.EPOLLPRI)
            assert epoll.poll(0) == []  # no pressure in an empty cgroup
    finally:
        os.close(fd)
    assert Path("/proc/pressure/memory").read_text().startswith("some avg10=")
