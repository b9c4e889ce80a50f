"""The shipped example with the real programs, from Debian."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from .harness import Node, alive, until


@pytest.mark.skipif(os.geteuid() != 0, reason="its services have users of their own, which takes root")
@pytest.mark.skipif(
    not (shutil.which("mosquitto", path="/usr/sbin:/usr/bin") and shutil.which("redis-server")),
    reason="mosquitto and redis-server are not installed; `sh tests/install` does it",
)
def test_ordinary_programs_run_under_one_budget(node: Node) -> None:
    node.start("--profile", "example")
    node.until_state("ready")
    until(lambda: b"round" in node.call("logs", name="worker")["data"], "the worker counts in redis")
    pids = node.pids()
    order = [event["service"] for event in node.events("ready")]
    assert order[-1] == "worker", "it depends on the others"
    for name, pid in pids.items():
        assert Path(f"/proc/{pid}").stat().st_uid != 0, name
    assert node.stop() == 0
    assert not any(alive(pid) for pid in pids.values())
