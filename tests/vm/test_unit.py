"""The shipped units on a real systemd: what keeps services, what stops them, in which order, and how soon."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from . import shipped
from .lab import Guest, Lab
from .shipped import processes, status, until_other_agent, until_state

pytestmark = pytest.mark.vm

TRIES = int(os.environ.get("EDGE_AGENT_TEST_RESTARTS", "3"))  # the promise is about 20

TOLD = """\
trap 'echo "$1" >>/var/lib/told; sync; exit 0' TERM
while :; do sleep 1000 & wait $!; done
"""
PROFILE = """
deployment:
  resources: {total_memory: 300MiB, total_cpu: 1.0}
services:
  base: {command: [/bin/sh, /root/told, base], importance: essential, resources: {memory: 20MiB}}
  middle: {command: [/bin/sh, /root/told, middle], depends_on: [base], resources: {memory: 20MiB}}
  top: {command: [/bin/sh, /root/told, top], depends_on: [middle], resources: {memory: 20MiB}}
"""
REVERSE = ["top", "middle", "base"]


@pytest.fixture(scope="module")
def node(lab_tools: None) -> Iterator[Guest]:
    """A guest that has the units, and the profile running."""
    with Lab(memory_mib=1024, persistent=True).boot() as guest:
        shipped.write(guest, "/root/told", TOLD)
        shipped.install(guest, config=PROFILE)
        guest.check("systemctl enable --now edge-agent", timeout=120)
        until_state(guest, "top", "ready")
        yield guest


@pytest.fixture
def running(node: Guest) -> Guest:
    """The same, with every service up and nothing told to them yet."""
    node.check("systemctl start edge-agent; rm -f /var/lib/told", timeout=120)
    until_state(node, "top", "ready")
    return node


def told(guest: Guest) -> list[str]:
    """Which services got their stop signal, in order."""
    return guest.check("cat /var/lib/told 2>/dev/null || true").split()


def kept(guest: Guest, before: dict[str, list[int]]) -> None:
    """Every process is the one it was, and the agent of now holds them all."""
    assert processes(guest) == before, shipped.journal(guest)
    answer = status(guest)["services"]
    assert answer.keys() == before.keys()
    for name, entry in answer.items():
        assert (entry["state"], entry["restarts"]) == ("ready", 0)
        assert entry["pid"] in before[name]
    assert not told(guest)


def all_of(guest: Guest) -> dict[str, list[int]]:
    """The processes of every service; none is missing."""
    found = processes(guest)
    assert sorted(found) == sorted(REVERSE)
    return found


def test_restart_keeps_every_service(running: Guest) -> None:
    before, agent = all_of(running), shipped.agent(running)
    for _ in range(TRIES):
        running.check("systemctl restart edge-agent", timeout=120)
        assert shipped.agent(running) not in (0, agent)
        agent = shipped.agent(running)
        assert processes(running) == before, shipped.journal(running)
    kept(running, before)


def test_crash_keeps_every_service(running: Guest) -> None:
    before, agent = all_of(running), shipped.agent(running)
    for _ in range(TRIES):
        running.check("systemctl kill --signal=KILL --kill-whom=main edge-agent")
        agent = until_other_agent(running, agent)
        assert processes(running) == before, shipped.journal(running)
    kept(running, before)


def test_stop_stops_in_reverse_order_and_leaves_nothing(running: Guest) -> None:
    running.check("systemctl stop edge-agent", timeout=180)
    assert told(running) == REVERSE
    assert not processes(running)
    assert running.run("systemctl is-active edge-agent-services").output.strip() == "inactive"
