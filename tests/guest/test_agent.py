"""The agent on a real kernel: what the plan says is what the kernel does."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.node import harness
from tests.node.harness import Node, alive, until, with_argument

MIB = 1 << 20
PAGE = os.sysconf("SC_PAGE_SIZE")  # the kernel keeps limits in whole pages
SPIN = "[/usr/bin/taskset, -c, '0', /bin/sh, -c, 'while :; do :; done', MARK]"
"""Always wants the first core. (An affinity of the agent would not do: entering its scope's cpuset resets it.)"""


@pytest.fixture
def node() -> Iterator[Node]:
    yield from harness.node()


def eat(mib: int) -> str:
    """A command that takes so many MiB a MiB at a time, and keeps them."""
    program = f"x = []\\nwhile len(x) < {mib}: x.append(bytearray(b'x') * (1 << 20))\\nimport time; time.sleep(1000)"
    return f'[/usr/bin/python3, -S, -c, "{program}", MARK]'


def flat(path: Path) -> dict[str, int]:
    return {key: int(value) for key, value in (line.split() for line in path.read_text().splitlines())}


def rollup(pid: int) -> dict[str, int]:
    """KiB by field of smaps_rollup."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {line.split(":")[0]: int(line.split()[1]) for line in lines}


def test_the_edge_profile_is_enforced_small_and_leaves_nothing(node: Node) -> None:
    node.start("--profile", "edge")
    node.until_state("ready", patience=90)
    begun = time.monotonic()
    status = node.status()
    assert status["enforcement"] == "cgroup2"
    for name, entry in status["services"].items():
        for resource in ("memory", "cpu", "pids", "oom_group"):
            assert entry["enforcement"][resource] == {"kind": "enforced", "code": ""}, (name, resource)
    top = node.services_cgroup()
    assert (
        int((top / "memory.max").read_text()) == (2_000_000_000 - status["budget"]["memory"]["reserve"]) // PAGE * PAGE
    )
    assert (top / "cpu.max").read_text().split() == ["100000", "100000"]
    assert (top / "storage/memory.max").read_text().strip() == str(512_000_000 // PAGE * PAGE)
    for name, pid in node.pids().items():
        assert Path(f"/proc/{pid}/cgroup").read_text().strip().endswith(f"/services/{name}")

    # The memory budgets of the README, a minute after the start.
    until(lambda: time.monotonic() - begun > 60, "a minute", 90)
    agent = status["agent"]["pid"]
    assert len(list(Path(f"/proc/{agent}/task").iterdir())) == 1
    own = rollup(agent)
    total = own["Pss"] + sum(rollup(pid)["Pss"] for pid in node.pids().values())
    print(
        f"\nresident: PSS {own['Pss']} KiB, private dirty {own['Private_Dirty']}, RSS {own['Rss']}; edge: {total} KiB"
    )
    assert own["Pss"] <= 10 * 1024
    assert total <= 45 * 1024

    node.stop(signal.SIGINT)
    assert not top.parent.exists() or not top.exists()


def test_over_its_own_limit_it_is_killed_alone_and_named(node: Node) -> None:
    node.start(
        "--config",
        node.profile(f"""
            services:
              greedy:
                command: {eat(100)}
                resources: {{memory: 40MiB, swap: 0}}
                restart_policy: {{max_attempts: 0}}
              modest: {{command: [/bin/sleep, "1000"], resources: {{memory: 40MiB}}}}
        """),
    )
    node.until_state("quarantined", "greedy")
    assert "its own memory limit" in node.service("greedy")["last_exit"]["text"]
    assert node.states()["modest"] == "ready"
    assert node.events("oom", "greedy")
    assert "its own memory limit" in node.cli("why", "greedy", check=True).stdout
    node.stop()
    node.start()
    assert any("its own memory limit" in event["text"] for event in node.events("oom", "greedy")), "kept"


def test_the_total_holds_against_services_that_together_ask_for_more(node: Node) -> None:
    node.start(
        "--config",
        node.profile(f"""
            deployment: {{resources: {{total_memory: 160MiB, total_cpu: 1.0}}}}
            services:
              one:
                command: {eat(120)}
                importance: heavy
                resources: {{memory: {{request: 10MiB, limit: 140MiB}}, swap: 0}}
                restart_policy: {{max_attempts: 0}}
              two:
                command: {eat(100)}
                importance: essential
                resources: {{memory: {{request: 110MiB, limit: 140MiB}}, swap: 0}}
                restart_policy: {{max_attempts: 0}}
        """),
    )
    top = node.services_cgroup()
    until(lambda: node.events("oom"), "one is killed for the total", 120)
    assert "the total memory limit" in node.events("oom")[0]["text"]
    assert int((top / "memory.peak").read_text()) <= 160 * MIB
    assert len([state for state in node.states().values() if state == "quarantined"]) == 1, "and one alone"
    assert node.states()["two"] == "ready", "the more important one, within its request, stays"


def test_a_kill_for_the_machines_memory_is_told_from_a_limit(node: Node) -> None:
    """By SysRq f, which has the kernel do what it does when the machine has no memory left, without the minutes of
    thrashing before (admin-guide/sysrq.rst). The victim is the service, as the least important and the largest.
    """
    node.start(
        "--config",
        node.profile(f"""
            services:
              victim:
                command: {eat(60)}
                importance: heavy
                resources: {{memory: {{request: 1MiB, limit: 200MiB}}, swap: 0}}
                restart_policy: {{max_attempts: 0}}
              other: {{command: [/bin/sleep, "1000"]}}
        """),
    )
    top = node.services_cgroup()
    until(lambda: int((top / "victim/memory.current").read_text()) > 60 * MIB, "it is large")
    Path("/proc/sysrq-trigger").write_text("f")
    node.until_state("quarantined", "victim")
    assert "the machine's memory" in node.service("victim")["last_exit"]["text"]
    assert node.states()["other"] == "ready"


def shares(node: Node, *names: str, seconds: float = 6.0) -> list[float]:
    """Cores each of them uses, over some seconds."""
    top = node.services_cgroup()

    def used() -> list[int]:
        return [flat(top / name / "cpu.stat")["usage_usec"] for name in names]

    before, begun = used(), time.monotonic()
    until(lambda: time.monotonic() - begun > seconds, "the measurement")
    after, lasted = used(), time.monotonic() - begun
    return [(b - a) / 1e6 / lasted for a, b in zip(before, after, strict=True)]


BUSY = 4
"""Measurements of which one must be right: the emulated processor stands still when the host is busy."""


def test_cpu_limits_bite(node: Node) -> None:
    node.start(
        "--config",
        node.profile(f"""
            services:
              a: {{command: {SPIN}, resources: {{cpu: 0.1}}}}
              b: {{command: {SPIN}, resources: {{cpu: 0.25}}}}
        """),
    )
    for _ in range(BUSY):
        a, b = shares(node, "a", "b")
        if [a, b] == pytest.approx([0.1, 0.25], rel=0.1):
            break
    assert [a, b] == pytest.approx([0.1, 0.25], rel=0.1)


def test_cpu_weights_share_what_is_contended(node: Node) -> None:
    node.start(
        "--config",
        node.profile(f"""
            services:
              a: {{command: {SPIN}, resources: {{cpu: {{request: 0.2, limit: 1.0}}}}}}
              b: {{command: {SPIN}, resources: {{cpu: {{request: 0.6, limit: 1.0}}}}}}
        """),
    )
    a, b = shares(node, "a", "b")
    assert b / a == pytest.approx(3.0, rel=0.1)


def test_the_cpu_total_holds(node: Node) -> None:
    node.start(
        "--config",
        node.profile(f"""
            deployment: {{resources: {{total_memory: 200MiB, total_cpu: 0.3}}}}
            services:
              a: {{command: {SPIN}, resources: {{cpu: {{request: 0.1}}}}}}
              b: {{command: {SPIN}, resources: {{cpu: {{request: 0.1}}}}}}
        """),
    )
    assert sum(shares(node, "a", "b")) == pytest.approx(0.3, rel=0.1)


def test_a_fork_bomb_is_held_and_the_agent_answers(node: Node) -> None:
    node.start(
        "--config",
        node.profile("""
            services:
              bomb:
                command:
                  [/usr/bin/python3, -S, -c, "import os\\nwhile 1:\\n try: os.fork()\\n except OSError: pass", MARK]
                resources: {pids: 100, memory: 200MiB, cpu: 0.5}
                importance: heavy
              other: {command: [/bin/sleep, "1000"]}
        """),
    )
    top = node.services_cgroup()
    until(lambda: flat(top / "bomb/pids.events")["max"] > 0, "it has reached its limit")
    assert int((top / "bomb/pids.current").read_text()) <= 100
    answers = []
    for _ in range(5):
        begun = time.monotonic()
        assert node.states()["other"] == "ready"
        answers.append(time.monotonic() - begun)
    assert sorted(answers)[2] < 1.0, answers
    node.cli("stop", "bomb", check=True)
    assert not with_argument(node.mark)
    assert not (top / "bomb").exists()


def test_no_instruction_runs_outside_the_cgroup(node: Node) -> None:
    node.start(
        "--config",
        node.profile("""
            services:
              probe: {command: [/bin/cat, /proc/self/cgroup], restart_policy: {condition: never}}
        """),
    )
    until(lambda: node.call("logs", name="probe")["data"], "it has said where it is")
    assert node.call("logs", name="probe")["data"].decode().strip().endswith("/services/probe")


def test_limits_change_in_place_by_a_switch(node: Node) -> None:
    text = "services: {{a: {{command: [/bin/sleep, '1000'], resources: {{memory: {0}MiB, cpu: {1}, pids: {2}}}}}}}"
    node.start("--config", node.profile(text.format(40, 0.2, 20), "small"))
    node.until_state("ready")
    pid, top = node.pids()["a"], node.services_cgroup()
    node.cli("--config", node.profile(text.format(80, 0.4, 30), "large"), check=True)
    assert node.pids()["a"] == pid
    assert (top / "a/memory.max").read_text().strip() == str(80 * MIB)
    assert (top / "a/memory.low").read_text().strip() == str(80 * MIB)
    assert (top / "a/cpu.max").read_text().split()[0] == "40000"
    assert (top / "a/pids.max").read_text().strip() == "30"


def test_a_daemon_that_leaves_its_session_is_stopped_with_its_service(node: Node) -> None:
    node.start(
        "--config",
        node.profile("""
            services:
              daemon:
                command: [/bin/sh, -c, "env -i setsid sh -c 'env -i setsid sleep 1000 & sleep 0.1' & exec sleep 1000"]
        """),
    )
    node.until_state("ready")
    top = node.services_cgroup()
    members = until(lambda: (pids := (top / "daemon/cgroup.procs").read_text().split())[1:] and pids, "it has forked")
    assert node.stop() == 0
    assert not any(alive(int(pid)) for pid in members)
    assert not top.exists()
