"""The memory and wakeup budgets of the README, of the shipped edge profile, measured a minute after its start."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from .harness import node

MIB = 1024  # in KiB, as smaps_rollup counts
WHOLE = 40 * MIB  # agent, identity, storage and node
TOGETHER = 27 * MIB  # the same with mode: embedded
EMBEDDED = """
extends: edge
services:
  identity: {mode: embedded}
  storage: {mode: embedded}
  node: {mode: embedded}
"""
IDLE = """
    deployment: {enforcement: none}
    services:
      a: {command: [/bin/sleep, "1000"]}
      b: {command: [/bin/sleep, "1000"], depends_on: [a]}
      c: {command: [/bin/sleep, "1000"], depends_on: [b]}
"""


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


def test_the_edge_profile_stays_inside_its_memory_and_without_checks_nothing_wakes() -> None:
    """Four agents at once, for a minute: edge, edge sampled, edge in one process, sleeps without health checks."""
    with contextlib.ExitStack() as stack:
        none, sampling, shared, idle = (stack.enter_context(contextlib.contextmanager(node)()) for _ in range(4))
        none.start("--profile", "edge", "--enforcement", "none")
        sampling.start("--profile", "edge", "--enforcement", "sampling")
        shared.start("--config", shared.profile(EMBEDDED), "--enforcement", "none")
        idle.start("--config", idle.profile(IDLE))
        for one in (none, sampling, shared, idle):
            one.until_state("ready")
        agents = {one: one.status()["agent"]["pid"] for one in (none, sampling, shared, idle)}
        time.sleep(1)
        before = switches(agents[idle])
        time.sleep(60)
        assert switches(agents[idle]) == before
        for one, budget, most in ((none, 10, WHOLE), (sampling, 14, WHOLE), (shared, 10, TOGETHER)):
            own = rollup(agents[one])
            whole = own["Pss"] + sum(rollup(pid)["Pss"] for pid in one.pids().values())
            print(
                f"\nresident PSS {own['Pss']} KiB of {budget * MIB} (dirty {own['Private_Dirty']}, RSS {own['Rss']}),"
                f" with its services {whole} KiB of {most}"
            )
            assert own["Pss"] <= budget * MIB
            assert whole <= most
            assert len(list(Path(f"/proc/{agents[one]}/task").iterdir())) == 1
