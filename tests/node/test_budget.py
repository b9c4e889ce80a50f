"""The memory and wakeup budgets of the README, of the shipped edge profile, measured a minute after its start."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from .harness import Node

MIB = 1024  # in KiB, as smaps_rollup counts
BUDGET = {"none": 10 * MIB, "sampling": 14 * MIB}
WHOLE = 45 * MIB


def rollup(pid: int) -> dict[str, int]:
    """KiB by field of smaps_rollup."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {line.split(":")[0]: int(line.split()[1]) for line in lines}


def switches(pid: int) -> int:
    """Voluntary context switches of every thread: each is a wakeup that was waited for."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        lines = (task / "status").read_text().splitlines()
        total += int(next(line.split()[1] for line in lines if line.startswith("voluntary_ctxt")))
    return total


@pytest.mark.parametrize("enforcement", ["none", "sampling"])
def test_the_edge_profile_stays_inside_its_memory(node: Node, enforcement: str) -> None:
    node.start("--profile", "edge", "--enforcement", enforcement)
    node.until_state("ready")
    pids = node.pids()
    agent = node.status()["agent"]["pid"]
    time.sleep(60)
    own = rollup(agent)
    whole = own["Pss"] + sum(rollup(pid)["Pss"] for pid in pids.values())
    print(
        f"\n{enforcement}: resident PSS {own['Pss']} KiB (Private_Dirty {own['Private_Dirty']}, RSS {own['Rss']}), "
        f"with its services {whole} KiB"
    )
    assert own["Pss"] <= BUDGET[enforcement]
    assert whole <= WHOLE
    assert len(list(Path(f"/proc/{agent}/task").iterdir())) == 1


def test_without_health_checks_a_minute_passes_without_a_wakeup(node: Node) -> None:
    profile = node.profile("""
        deployment: {enforcement: none}
        services:
          a: {command: [/bin/sleep, "1000"]}
          b: {command: [/bin/sleep, "1000"], depends_on: [a]}
          c: {command: [/bin/sleep, "1000"], depends_on: [b]}
    """)
    node.start("--config", profile)
    node.until_state("ready")
    agent = node.status()["agent"]["pid"]
    time.sleep(1)
    before = switches(agent)
    time.sleep(60)
    assert switches(agent) - before == 0
