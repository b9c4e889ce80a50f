"""The shipped unit on a real systemd: start, switch, a power cut, the next boot."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from .lab import Guest, Lab

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


def status(guest: Guest) -> dict[str, Any]:
    result = guest.run(["edge-agent", "status", "--json"], timeout=60)
    answer: dict[str, Any] = json.loads(result.output) if result.code == 0 else {}
    return answer


def until_state(guest: Guest, name: str, state: str) -> dict[str, Any]:
    end = time.monotonic() + 120
    while True:
        answer = status(guest)
        if answer.get("services", {}).get(name, {}).get("state") == state:
            return answer
        assert time.monotonic() < end, (
            f"{name} is not {state}: {answer}\n{guest.check('journalctl -u edge-agent -n 30')}"
        )
        time.sleep(1)


def until_other_agent(guest: Guest, pid: int) -> None:
    end = time.monotonic() + 120
    while status(guest).get("agent", {}).get("pid", pid) == pid:
        assert time.monotonic() < end, guest.check("journalctl -u edge-agent -n 30")
        time.sleep(1)


def test_choice_and_evidence_survive_a_power_cut(lab_tools: None) -> None:
    with Lab(memory_mib=1024, persistent=True).boot() as guest:
        guest.check("mkdir -p /etc/edge-agent/profiles")
        for path, text in (("config.yaml", PROFILE), ("profiles/night.yaml", NIGHT)):
            guest.check(["sh", "-c", 'printf %s "$1" >/etc/edge-agent/"$2"', "write", text, path])
        guest.check("ln -sf $(command -v edge-agent) /usr/bin/edge-agent")
        guest.check("cp systemd/*.service /etc/systemd/system/ && systemctl enable --now edge-agent")
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
