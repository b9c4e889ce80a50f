"""A trace recorded from a real agent, ended in each way, and simulated."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

from .harness import CLI, Node, until

PROFILE = """
    deployment: {enforcement: sampling, resources: {total_memory: 200MB, total_cpu: 1.0}}
    services:
      a: {command: [/bin/sh, -c, "sleep 1000; :", MARK], importance: essential, resources: {memory: {request: 10MB}}}
      b: {command: [/bin/sh, -c, "sleep 1000; :", MARK], depends_on: [a], importance: heavy}
"""


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_record_is_a_trace_that_can_be_simulated(node: Node) -> None:
    profile = node.profile(PROFILE)
    node.start("--config", profile)
    node.until_state("ready")
    before = node.status()["governor"]
    path = node.root / "out.trace"
    node.cli("record", "--output", path, "--for", "500ms", "--interval", "100ms", check=True)
    header, *looks = lines(path)
    assert (header["edge-agent-trace"], header["kind"], header["profile"]) == (1, "recorded", "test")
    assert len(looks) == 5
    assert {name for look in looks for name in look["loads"]} == {"a", "b"}  # type: ignore[attr-defined]
    assert node.status()["governor"] == before == {"held": [], "next": before["next"]}
    told = json.loads(node.cli("simulate", profile, path, "--json", check=True).stdout)
    assert (told["kind"], told["looks"], told["unknown"]) == ("recorded", 5, [])
    again = node.cli("record", "--output", path)
    assert again.returncode == 1
    assert again.stderr == f"edge-agent: cannot record: {path} exists; fix: remove it, or name another\n"
    assert len(lines(path)) == 6, "what was there stays"


def test_ctrl_c_and_the_agents_end_leave_whole_lines(node: Node) -> None:
    node.start("--config", node.profile(PROFILE))
    node.until_state("ready")
    interrupted, ended = node.root / "interrupted.trace", node.root / "ended.trace"
    recorders = [
        subprocess.Popen([*CLI, "record", "--output", str(path), "--interval", "100ms"], env=node.environment)
        for path in (interrupted, ended)
    ]
    try:
        until(lambda: all(path.exists() and len(lines(path)) > 2 for path in (interrupted, ended)), "three lines")
        recorders[0].send_signal(signal.SIGINT)
        assert recorders[0].wait(30) == 0
        assert node.stop() == 0
        assert recorders[1].wait(30) == 0
    finally:
        for recorder in recorders:
            recorder.kill()
            recorder.wait(30)
    assert all(len(lines(path)) >= 3 for path in (interrupted, ended))
