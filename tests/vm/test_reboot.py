"""The shipped unit on a real systemd: start, switch, a power cut, the next boot."""

from __future__ import annotations

import pytest

from .lab import Lab
from .node import Node

pytestmark = pytest.mark.vm

PROFILE = """
deployment:
  resources: {total_memory: 300MiB, total_cpu: 1.0}
services:
  steady: {command: [/bin/sleep, "1000"], importance: essential, resources: {memory: 20MiB}}
"""
NIGHT = (
    PROFILE
    + """
  greedy:
    command: [/usr/bin/python3, -S, -c, "x = b'x' * (100 << 20); import time; time.sleep(1000)"]
    resources: {memory: 40MiB, swap: 0}
    restart_policy: {max_attempts: 0}
  talker: {command: [/bin/sh, -c, "echo said-to-the-journal; exec sleep 1000"], log: {kind: journal}}
"""
)


def test_choice_and_evidence_survive_a_power_cut(lab_tools: None) -> None:
    with Lab(memory_mib=1024, persistent=True).boot() as guest:
        node = Node(guest)
        node.write("/etc/edge-agent/config.yaml", PROFILE)
        node.write("/etc/edge-agent/profiles/night.yaml", NIGHT)
        node.install_tree()
        node.systemctl("enable --now")
        assert node.until_states(steady="ready")["enforcement"] == "cgroup2"

        guest.check("edge-agent switch night")
        node.until_states(greedy="quarantined")
        assert "said-to-the-journal" in guest.check("journalctl -b -n 200")

        guest.cut_power()
        guest.start()

        after = node.until_states(greedy="quarantined", steady="ready")
        assert after["profile"] == "night"
        assert after["enforcement"] == "cgroup2"
        services = "/sys/fs/cgroup/system.slice/edge-agent-services.service/services"
        assert node.cgroup(after["services"]["steady"]["pid"]) == f"{services}/steady"
        kills = [line for line in guest.check("edge-agent events --service greedy").splitlines() if "oom" in line]
        assert len(kills) == 2, "the one before the power cut, and the one after"
        assert "its own memory limit" in guest.check("edge-agent why greedy")

        node.systemctl("stop")
        assert guest.run("pgrep -fx '/bin/sleep 1000'").code == 1
        assert guest.run(f"ls -d {services}").code != 0

        node.systemctl("start")
        assert node.until_states(steady="ready")["enforcement"] == "cgroup2"
