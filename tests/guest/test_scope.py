"""An agent started by a person on real systemd: it gets a delegated scope, and the next one finds what lives in it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_agent.cli.scope import unit_name

DEADLINE = 120.0  # seconds; compiling a profile takes 10 on an emulated processor
PROFILE = """
deployment: {mode: edge, resources: {total_memory: 300MB, total_cpu: 0.5}}
services:
  first: {command: /bin/sleep 1000, resources: {memory: 10MB, cpu: 0.1, pids: 10}}
  second: {command: /bin/sleep 1000, depends_on: [first]}
"""


class Node:
    """One agent at a time, in directories of its own."""

    def __init__(self, directory: Path) -> None:
        self.run_dir = directory / "run"
        self.profile = directory / "p.yaml"
        self.profile.write_text(PROFILE)
        self.unit = Path("/sys/fs/cgroup/system.slice") / unit_name(str(self.run_dir))
        self.environment = {**os.environ, "HOME": str(directory)}
        for name in ("run", "data", "log", "config"):
            self.environment[f"EDGE_AGENT_{name.upper()}_DIR"] = str(directory / name)
        self.agents: list[subprocess.Popen[bytes]] = []

    def start(self, *words: str) -> int:
        """Start an agent and wait until all services are ready; its process id."""
        command = [sys.executable, "-m", "edge_agent", *words]
        self.agents.append(subprocess.Popen(command, env=self.environment))
        self.until(lambda: self.ready() == {"first", "second"})
        return self.agents[-1].pid

    def call(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "edge_agent", *words]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)

    def status(self) -> dict[str, Any]:
        done = self.call("status", "--json")
        return dict(json.loads(done.stdout)) if done.returncode == 0 else {"services": {}}

    def ready(self) -> set[str]:
        return {name for name, service in self.status()["services"].items() if service["state"] == "ready"}

    def pids(self) -> dict[str, int]:
        return {name: service["pid"] for name, service in self.status()["services"].items()}

    def until(self, condition: Any) -> None:
        end = time.monotonic() + DEADLINE
        while not condition():
            assert time.monotonic() < end, self.call("status").stderr
            time.sleep(0.2)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path)
    yield made
    made.call("shutdown", "--timeout", "30")
    for agent in made.agents:
        agent.kill()
        agent.wait()


def test_a_person_gets_enforcement_and_the_next_agent_the_same_scope(node: Node) -> None:
    agent = node.start("--config", str(node.profile))
    status = node.status()
    assert status["enforcement"] == "cgroup2"
    assert status["services"]["first"]["enforcement"]["memory"]["kind"] == "enforced"
    assert Path(f"/proc/{agent}/cgroup").read_text() == f"0::/system.slice/{node.unit.name}/agent\n"
    assert (node.unit / "services/first/memory.max").read_text() == f"{10_000_000 // 4096 * 4096}\n"
    before = node.pids()

    os.kill(agent, signal.SIGKILL)
    node.agents[-1].wait()
    agent = node.start()
    assert node.pids() == before
    assert Path(f"/proc/{agent}/cgroup").read_text() == f"0::/system.slice/{node.unit.name}/agent\n"

    assert node.call("shutdown").returncode == 0
    assert node.agents[-1].wait(30) == 0
    node.until(lambda: not node.unit.exists())
    assert not any(Path(f"/proc/{pid}").exists() for pid in before.values())
