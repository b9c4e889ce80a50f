"""A Raspberry Pi OS as it comes: no memory controller, no PSI. What is not held is never called held; and the way out.

The lab hands the kernel its command line directly, so the words that ``check --fix`` wrote go to the next guest's.
A Raspberry Pi's own kernel also knows ``cgroup_enable=``, which Debian's does not: here it is the word taken out that
has the effect, there the one put in.
"""

from __future__ import annotations

import json
import re

import pytest

from .lab import Lab
from .node import Node

pytestmark = pytest.mark.vm

STOCK = "cgroup_disable=memory psi=0"
HELD_BY_MEMORY = {"memory", "swap", "oom_group"}
PROFILE = """
deployment: {resources: {total_memory: 300MiB, total_cpu: 1.0}}
services:
  steady: {command: [/bin/sleep, "1000"], importance: essential, resources: {memory: 20MiB, swap: 0, cpu: 0.2, pids: 9}}
"""
GREEDY = (
    PROFILE
    + """
  greedy:
    command: [/usr/bin/python3, -S, -c, "x = b'x' * (100 << 20); import time; time.sleep(1000)"]
    resources: {memory: 40MiB, swap: 0}
    restart_policy: {max_attempts: 0}
"""
)


def start(node: Node, profile: str) -> None:
    node.write("/etc/edge-agent/config.yaml", profile)
    node.install_tree()
    node.systemctl("start")


def test_what_a_stock_pi_cannot_hold_is_said_and_one_line_away(lab_tools: None) -> None:
    with Lab(append=STOCK).boot() as guest:
        node = Node(guest)
        start(node, PROFILE)
        status = node.until_states(steady="ready")

        # What it says is what the kernel has.
        pid = status["services"]["steady"]["pid"]
        files = set(guest.check(["ls", node.cgroup(pid)]).split())
        assert "pids.max" in files
        assert not {name for name in files if name.startswith("memory.")} - {"memory.pressure"}
        for report in (
            status["services"]["steady"]["enforcement"],
            {"memory": status["budget"]["memory"]["enforcement"]},
        ):
            for resource in HELD_BY_MEMORY & set(report):
                assert report[resource]["kind"] in ("sampled", "not enforced"), resource
                assert report[resource]["code"] == "memory-disabled"
        assert status["services"]["steady"]["enforcement"]["cpu"]["kind"] == "enforced"
        assert node.read(pid, "cpu.max") == "20000 100000"
        assert node.read(pid, "pids.max") == "9"

        # Every screen says so, and names the line.
        for command in ("status", "plan --config /etc/edge-agent/config.yaml", "check"):
            shown = guest.run(f"edge-agent {command}", timeout=120).output
            said = " ".join(shown.split())
            assert "append cgroup_enable=memory to the one line of /boot/firmware/cmdline.txt" in said, command
            for clause in re.split(r";|\n|\s{2,}", shown):
                if re.search(r"(?<!not )\benforced\b", clause):
                    assert not re.search(r"memory|swap|oom", clause), (command, clause)
            assert command != "check" or "fix: psi=1 on the kernel command line" in said
        checked = guest.run("edge-agent check --json", timeout=120)
        answer = json.loads(checked.output)
        assert checked.code == 1
        assert not answer["complete"]
        assert not answer["facts"]["psi"]
        assert {name for name, part in answer["resources"].items() if part["kind"] == "enforced"} <= {
            "cpu",
            "pids",
            "io",
        }
        plan = json.loads(guest.check("edge-agent plan --json --config /etc/edge-agent/config.yaml", timeout=120))
        assert "enforced" not in {
            plan["services"]["steady"]["enforcement"][resource]["kind"] for resource in HELD_BY_MEMORY
        }

        # The fix asks, and there is nobody to ask; then it is told not to.
        node.write("/boot/copy/cmdline.txt", f"fsck.repair=yes {STOCK} rootwait\n")
        fix = "edge-agent check --fix --cmdline /boot/copy/cmdline.txt"
        refused = guest.run(fix, timeout=120)
        assert refused.code == 1
        assert "no terminal to ask; fix: give --yes" in refused.output
        assert guest.check("cat /boot/copy/cmdline.txt") == f"fsck.repair=yes {STOCK} rootwait\n"
        assert "a reboot is needed" in guest.check(f"{fix} --yes", timeout=120)
        line = guest.check("cat /boot/copy/cmdline.txt")
        assert line == "fsck.repair=yes rootwait cgroup_enable=memory psi=1\n"
        assert guest.check("cat /boot/copy/cmdline.txt.bak") == f"fsck.repair=yes {STOCK} rootwait\n"

    with Lab(append=line.strip()).boot() as guest:
        node = Node(guest)
        start(node, GREEDY)
        status = node.until_states(steady="ready", greedy="quarantined")
        for resource in ("memory", "cpu", "pids", "oom_group"):
            assert status["services"]["steady"]["enforcement"][resource] == {"kind": "enforced", "code": ""}
        assert status["budget"]["memory"]["enforcement"]["kind"] == "enforced"
        assert node.read(status["services"]["steady"]["pid"], "memory.max") == str(20 << 20)
        assert "its own memory limit" in status["services"]["greedy"]["last_exit"]["text"]
        assert json.loads(guest.run("edge-agent check --json", timeout=120).output)["facts"]["psi"]
