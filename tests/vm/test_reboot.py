"""The shipped unit on a real systemd: start, switch, a power cut, the next boot."""

from __future__ import annotations

import pytest

from . import shipped
from .lab import Lab
from .shipped import status, until_other_agent, until_state

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
        shipped.install(guest, config=PROFILE, night=NIGHT)
        guest.check("systemctl enable --now edge-agent")
        assert until_state(guest, "steady", "ready")["enforcement"] == "cgroup2"

        # A crash of the agent is no business of its services, and systemd can start the next one beside them.
        before = status(guest)
        guest.check("systemctl kill --signal=KILL --kill-whom=main edge-agent")
        until_other_agent(guest, before["agent"]["pid"])
        assert status(guest)["services"]["steady"]["pid"] == before["services"]["steady"]["pid"]

        guest.check("edge-agent switch night")
        until_state(guest, "greedy", "quarantined")
        assert "said-to-the-journal" in guest.check("journalctl -b -n 200")

        guest.cut_power()
        guest.start()

        after = until_state(guest, "greedy", "quarantined")
        assert after["profile"] == "night"
        assert after["enforcement"] == "cgroup2"
        assert after["services"]["steady"]["state"] == "ready"
        kills = [line for line in guest.check("edge-agent events --service greedy").splitlines() if "oom" in line]
        assert len(kills) == 2, "the one before the power cut, and the one after"
        assert "its own memory limit" in guest.check("edge-agent why greedy")

        guest.check("systemctl stop edge-agent", timeout=180)
        assert guest.run("pgrep -fx '/bin/sleep 1000'").code == 1
        assert guest.run("ls -d /sys/fs/cgroup/system.slice/edge-agent-services.service/services").code != 0

        guest.check("systemctl start edge-agent")
        assert until_state(guest, "steady", "ready")["enforcement"] == "cgroup2"
