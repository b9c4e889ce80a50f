"""Gentle to flash: nothing is written at rest, little under churn; and a root that cannot be written is no obstacle.

Bytes are those of the block layer (Documentation/block/stat.rst), the file system's journal and metadata included, in a
guest in which nothing else writes: the runner alone is there besides the agent.
"""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from edge_agent.host.repeats import Repeats

from .lab import Guest, Lab
from .node import Node, pids

pytestmark = pytest.mark.vm

AT_REST = 20.0  # seconds
BUDGET = 100_000  # bytes an hour, with a crash a minute
VICTIMS = 5
PROFILE = (
    "deployment: {resources: {total_memory: 300MiB, total_cpu: 1.0}}\n"
    "services:\n"
    "  steady: {command: [/bin/sleep, '10000'], importance: essential}\n"
) + "".join(
    f"  victim-{number}: {{command: [/bin/sleep, '10000'], restart_policy: {{delay: 1h, max_delay: 1h}}}}\n"
    for number in range(VICTIMS)
)


AGENT = "EDGE_AGENT_CGROUP_ROOT=$LAB_CGROUP setsid edge-agent"
"""In a cgroup of its own: in the runner's it would hand controllers down, and no command could run there any more."""


def start(guest: Guest, config: str) -> dict[str, Any]:
    guest.check(f"{AGENT} --config {config} >/run/said 2>&1 &")
    status = Node(guest).until_ready()
    assert status["services"], guest.check("cat /run/said")
    return status


def written(guest: Guest) -> int:
    """Bytes that went to the disk so far. Everything dirty goes there first, metadata to its place as well."""
    return 512 * int(guest.check("sync; sleep 0.5; sync; cat /sys/block/vda/stat").split()[6])


def asked_to_write(guest: Guest, pid: int) -> int:
    """Bytes that the process has made dirty on disks, proc_pid_io(5)."""
    lines = dict(line.split(": ") for line in guest.check(f"cat /proc/{pid}/io").splitlines())
    return int(lines["write_bytes"])


def writes_an_hour() -> int:
    """Of one service that crashes every minute, in its worst hour: the rule itself is asked, for a day."""
    repeats, moments = Repeats(), []
    for minute in range(24 * 60):
        if repeats.due("exit", "victim", "killed by signal 9", 60.0 * minute) >= 0:
            repeats.written("exit", "victim", "killed by signal 9", 60.0 * minute)
            moments.append(minute)
    return max(sum(first <= minute < first + 60 for minute in moments) for first in moments)


def test_flash_is_spared_and_a_read_only_root_is_enough(lab_tools: None) -> None:
    with Lab(kernel_only=True).boot() as guest:
        node = Node(guest)
        node.write("/etc/edge-agent/config.yaml", PROFILE)
        node.write("/etc/edge-agent/profiles/other.yaml", PROFILE.replace("victim-0", "another"))
        status = start(guest, "/etc/edge-agent/config.yaml")
        agent, victims = status["agent"]["pid"], pids(status)

        disk, own = written(guest), asked_to_write(guest, agent)
        time.sleep(AT_REST)
        at_rest = written(guest) - disk
        assert (at_rest, asked_to_write(guest, agent) - own) == (0, 0), "bytes written at rest"

        costs = []
        for number in range(VICTIMS):
            disk = written(guest)
            guest.check(f"kill -9 {victims[f'victim-{number}']}")
            node.until_states(**{f"victim-{number}": "backoff"})
            costs.append(written(guest) - disk)
        hourly = costs[0] + max(costs[1:]) * (writes_an_hour() - 1)  # the first one makes the file
        print(
            f"\nat rest {at_rest} bytes in {AT_REST:.0f} s; a new event {costs} bytes; "
            f"a crash a minute {writes_an_hour()} writes, {hourly} bytes an hour"
        )
        assert min(costs) > 0, "an event that is not written at once"
        assert hourly <= BUDGET

        # The same again costs nothing now, whatever it is that crashes.
        disk = written(guest)
        guest.check("edge-agent restart victim-0", timeout=60)
        again = node.until_states(**{"victim-0": "ready"})
        guest.check(f"kill -9 {again['services']['victim-0']['pid']}")
        node.until_states(**{"victim-0": "backoff"})
        assert written(guest) - disk == 0

        # A root that cannot be written, and /var in memory.
        guest.check("edge-agent shutdown", timeout=120)
        guest.check("mount -t tmpfs tmpfs /var && mkdir -p /var/lib /var/log && mount -o remount,ro /")
        assert guest.run("touch /etc/edge-agent/x").code != 0
        status = start(guest, "/etc/edge-agent/config.yaml")
        victims = pids(status)
        guest.check("edge-agent switch other", timeout=120)
        guest.check(f"kill -9 {victims['victim-1']}")
        node.until_states(**{"victim-1": "backoff", "another": "ready"})
        guest.check(f"kill -9 {status['agent']['pid']}")
        time.sleep(1)
        guest.check(f"{AGENT} >/run/said 2>&1 &")
        after = node.until_states(another="ready")
        assert (after["profile"], after["degraded"]) == ("other", None)
        assert after["services"]["steady"]["pid"] == status["services"]["steady"]["pid"]
        kinds = [json.loads(line)["kind"] for line in guest.check("edge-agent events --json", timeout=60).splitlines()]
        assert {"switched", "exit"} <= set(kinds)
