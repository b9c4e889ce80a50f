"""The .deb on a device: installed by dpkg without a network, started by systemd, upgraded, removed.

EDGE_AGENT_TEST_MACHINES names the machines (``make pi``: bookworm-arm64 trixie-arm64), EDGE_AGENT_TEST_RESTARTS how
often each of the things that must keep services is tried. The guests have Debian's packages, our runner and nothing of
the project: all there is comes out of the package. They have the memory of a Raspberry Pi of 1 GB.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from edge_agent import __version__

from . import tools
from .lab import Guest, Lab
from .node import PATIENCE, Node, pids
from .payload import PROJECT
from .target import Target, parse

pytestmark = pytest.mark.vm

MACHINES = [parse(word) for word in os.environ.get("EDGE_AGENT_TEST_MACHINES", "bookworm-amd64").split()]
TRIES = int(os.environ.get("EDGE_AGENT_TEST_RESTARTS", "1"))  # the promise is about 20
NEWER = f"{__version__}.99"
DPKG = 300.0  # seconds

GREEDY = """
extends: edge
services:
  greedy:
    command: [/usr/bin/python3, -S, -c, "x = b'x' * (100 << 20); import time; time.sleep(1000)"]
    resources: {memory: 40MiB, swap: 0, cpu: {request: 0, limit: 0.1}}
    restart_policy: {max_attempts: 0}
"""
METERED = """
extends: edge
services:
  ledger: {resources: {memory: 32MiB}}
  telemetry: {enabled: true}
  analytics: {enabled: true, interval: 2s, depends_on: [telemetry]}
"""
SCRAPE = """
import urllib.request
print(urllib.request.urlopen("http://127.0.0.1:9090/metrics", timeout=60).read().decode())
"""
HELD = {"memory": "enforced", "cpu": "enforced", "pids": "enforced", "oom_group": "enforced"}
TREE = (
    "find / -xdev -path /root -prune -o -path /tmp -prune -o -path /var/tmp -prune -o -path /var/cache -prune "
    "-o -path /var/lib/dpkg -prune -o -path /var/lib/systemd -prune -o -path '/var/log/*' -prune -o -print"
)
ACCOUNTS = {f"/etc/{name}-" for name in ("passwd", "group", "shadow", "gshadow")} | {"/etc/.pwd.lock"}
"""The tools for accounts leave these; the accounts themselves stay, locked."""


class Device(NamedTuple):
    """A guest into which the package was installed."""

    guest: Guest
    node: Node
    before: set[str]  # every path there was

    def install(self, version: str) -> None:
        """By dpkg, of this version."""
        self.guest.check(f"dpkg -i /root/packages/edge-agent_{version}-*.deb", timeout=DPKG)

    def prefer(self, profile: str) -> dict[str, int]:
        """Have the device run the profile; the pids once all is ready."""
        self.guest.check(f"edge-agent --profile {profile}", timeout=180)
        status = self.node.until_ready()
        assert status["profile"] == profile
        return pids(status)


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with this version's and a newer one's .deb of every machine: EDGE_AGENT_PACKAGES, or made here."""
    given = os.environ.get("EDGE_AGENT_PACKAGES")
    if given:
        return Path(given)
    output = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "builder", "--output", str(output), "--work", str(tmp_path_factory.mktemp("work"))]
    build += ["--architectures", *sorted({machine.architecture for machine in MACHINES})]
    environment = os.environ | {"PYTHONPATH": str(PROJECT / "packaging")}
    for version in (__version__, NEWER):
        done = subprocess.run([*build, "--version", version], cwd=PROJECT, env=environment, capture_output=True)
        assert done.returncode == 0, done.stderr.decode(errors="replace")[-4000:]
    return output


@pytest.fixture(scope="module", params=MACHINES, ids=str)
def device(
    request: pytest.FixtureRequest, lab_tools: None, packages: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Device]:
    """A device that runs the edge profile, by the package."""
    target: Target = request.param
    tools.require(target)
    bring = tmp_path_factory.mktemp("bring")
    for version in (__version__, NEWER):
        (deb,) = packages.glob(f"edge-agent_{version}-*_{target.architecture}.deb")
        shutil.copy(deb, bring)
    with Lab(None, target=target, persistent=True).boot() as guest:
        before = set(guest.check(TREE).splitlines())
        guest.push(bring, "/root/packages")
        made = Device(guest, Node(guest), before)
        made.install(__version__)
        made.node.until_ready()
        made.prefer("edge")
        yield made


def until_another_agent(device: Device, pid: int) -> None:
    """Wait for the agent after that one."""
    device.node.until(lambda status: status.get("agent", {}).get("pid", pid) != pid, "there is another agent")


def assert_kept(device: Device, before: dict[str, int]) -> None:
    """Every service is the process it was, and was never restarted."""
    status = device.node.until_ready()
    said = "edge-agent events | tail -n 30; journalctl -u 'edge-agent*' -n 40 --no-pager"
    assert pids(status) == before, device.guest.run(said).output
    assert {entry["restarts"] for entry in status["services"].values()} == {0}


def assert_held(device: Device) -> None:
    """The limits of each service are the kernel's, and are what the kernel has."""
    status = device.node.until_ready()
    assert status["enforcement"] == "cgroup2"
    for name, entry in status["services"].items():
        assert {resource: entry["enforcement"][resource]["kind"] for resource in HELD} == HELD, name
        limits = (device.node.read(entry["pid"], file) for file in ("memory.max", "cpu.max"))
        page = int(device.guest.check("getconf PAGE_SIZE"))
        cores = f"{round(entry['cpu']['limit'] * 100_000)} 100000"
        assert list(limits) == [str(entry["memory"]["limit"] // page * page), cores], name


def test_systemd_has_started_it_and_will_again(device: Device) -> None:
    shown = device.guest.check(
        "systemctl is-active edge-agent; systemctl is-enabled edge-agent; readlink -f $(command -v edge-agent)"
    )
    assert shown.split() == ["active", "enabled", "/usr/lib/edge-agent/edge-agent"]
    status = device.node.status()
    assert status["agent"]["version"] == __version__
    assert set(status["services"]) == {"identity", "node", "storage"}
    assert all(status["services"][name]["essential"] for name in ("identity", "node"))
    for name, entry in status["services"].items():
        assert device.guest.check(["stat", "-c", "%U", f"/proc/{entry['pid']}"]).strip() == f"edge-agent-{name}"
    assert_held(device)


def test_over_its_limit_a_service_is_killed_alone_and_named(device: Device) -> None:
    before = device.prefer("edge")
    device.node.write("/etc/edge-agent/profiles/greedy.yaml", GREEDY)
    device.guest.check("edge-agent switch greedy", timeout=180)
    status = device.node.until_states(greedy="quarantined")
    assert "its own memory limit" in status["services"]["greedy"]["last_exit"]["text"]
    assert "its own memory limit" in device.guest.check("edge-agent why greedy", timeout=60)
    others = {name: pid for name, pid in pids(status).items() if name != "greedy"}
    assert others == before
    assert device.prefer("edge") == before
    device.guest.check("rm /etc/edge-agent/profiles/greedy.yaml")  # whoever wrote a profile removes it, no package does


def test_ledger_and_the_heavy_two_see_everything_as_users_who_may_do_nothing(device: Device) -> None:
    before = device.prefer("edge")
    del before["node"]  # it gets the group of the ledger, which it may then ask, and so starts anew
    device.node.write("/etc/edge-agent/profiles/metered.yaml", METERED)
    found = device.prefer("metered")
    assert {name: found[name] for name in before} == before
    for name in ("ledger", "telemetry", "analytics"):
        assert device.guest.check(["stat", "-c", "%U", f"/proc/{found[name]}"]).strip() == f"edge-agent-{name}"
    wanted = ["edge_agent_up 1", 'edge_agent_analytics_samples_total{service="analytics"}']
    for name in found:
        wanted += [
            f'edge_agent_service_up{{service="{name}"}} 1',
            f'edge_agent_service_cpu_seconds_total{{service="{name}"}} ',
            f'edge_agent_service_pressure_seconds_total{{kind="some",resource="memory",service="{name}"}} ',
        ]

    def missing() -> list[str]:
        page = device.guest.check(["python3", "-c", SCRAPE])
        return [each for each in wanted if f"\n{each}" not in page]

    end = time.monotonic() + PATIENCE
    while missing() and time.monotonic() < end:
        time.sleep(2)
    said = [device.guest.run(["edge-agent", "logs", name]).output for name in ("ledger", "telemetry", "analytics")]
    assert (missing(), said) == ([], said)
    series = device.guest.check(["python3", "-c", SCRAPE]).partition("edge_agent_analytics_series{")[2]
    assert int(series.partition("} ")[2].split()[0]) > 100, "telemetry lets analytics in"
    entries = device.guest.check(["python3", "-c", SCRAPE]).partition("edge_agent_ledger_entries{")[2]
    assert int(entries.partition("} ")[2].split()[0]) >= 1, f"the log has the profile that was applied: {said[0]}"
    after = device.prefer("edge")
    assert {name: after[name] for name in before} == before
    device.guest.check("rm /etc/edge-agent/profiles/metered.yaml")


@pytest.mark.parametrize("profile", ["edge", "minimal"])
def test_a_reboot_changes_nothing(device: Device, profile: str) -> None:
    if profile == "edge" and TRIES < 2:
        pytest.skip("the short form reboots once; `make pi` does both")
    device.prefer(profile)
    services = set(device.node.status()["services"])
    device.guest.reboot()
    status = device.node.until_ready(patience=300)
    assert (status["profile"], set(status["services"]), status["degraded"]) == (profile, services, None)
    assert_held(device)


def test_a_restart_keeps_every_service(device: Device) -> None:
    before = device.prefer("minimal")
    for _ in range(TRIES):
        device.node.systemctl("restart")
        assert_kept(device, before)


def test_a_kill_keeps_every_service(device: Device) -> None:
    before = device.prefer("minimal")
    for _ in range(TRIES):
        pid = device.node.status()["agent"]["pid"]
        device.guest.check("systemctl kill --signal=KILL --kill-whom=main edge-agent")
        until_another_agent(device, pid)
        assert_kept(device, before)


def test_an_upgrade_and_the_way_back_keep_every_service(device: Device) -> None:
    before = device.prefer("minimal")
    for left in reversed(range(TRIES)):
        for version in (NEWER, __version__):
            if version == __version__ and left == 0:
                # On the last way back there is a plan of a release to come: the second byte of a msgpack array.
                device.guest.check(
                    "printf '\\177' | dd of=/var/lib/edge-agent/plan bs=1 seek=1 conv=notrunc status=none"
                )
            device.install(version)
            assert_kept(device, before)
            assert device.node.status()["agent"]["version"] == version
    said = device.guest.check("edge-agent events; journalctl -u edge-agent --no-pager -n 40", timeout=60)
    assert "a newer release wrote it" in said, "a downgrade says what it cannot read"
    assert device.node.status()["profile"] == "minimal", "and goes on"


def test_removal_stops_the_services_and_purging_leaves_nothing(device: Device) -> None:
    before = device.prefer("edge")
    device.guest.check("dpkg -r edge-agent", timeout=DPKG)
    for name, pid in before.items():
        assert device.guest.run(f"test -e /proc/{pid}").code == 1, f"{name} runs on"
    assert device.guest.run("ls -d /sys/fs/cgroup/system.slice/edge-agent*[!b].service").code != 0
    assert device.guest.check("ls /etc/edge-agent/environment /var/lib/edge-agent/plan")
    device.guest.check("dpkg -P edge-agent", timeout=DPKG)
    assert set(device.guest.check(TREE).splitlines()) - device.before <= ACCOUNTS
    assert device.guest.run("dpkg -s edge-agent").code != 0
    shown = json.loads(device.guest.check("systemctl list-unit-files --output=json"))
    assert not [unit for unit in shown if unit["unit_file"].startswith("edge-agent") and "lab" not in unit["unit_file"]]
