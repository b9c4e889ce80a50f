"""Sandboxes on a real kernel with real users: who the bundled services run as, and who pays for a private /tmp."""

from __future__ import annotations

import pwd
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge_agent.model import PROTECTIONS
from edge_agent.services.client import Identity, Storage
from tests.node import harness
from tests.node.harness import Node, until

NAMES = ("identity", "storage", "node")
MIB = 1 << 20


@pytest.fixture
def node() -> Iterator[Node]:
    yield from harness.node()


@pytest.fixture
def make_users() -> Iterator[Callable[[], dict[str, int]]]:
    """Makes the system users that the packages have, and tells their numbers; they are gone after the test."""
    made: dict[str, int] = {}

    def make() -> dict[str, int]:
        for name in NAMES:
            subprocess.run(["useradd", "--system", "--no-create-home", f"edge-agent-{name}"], check=True)
            made[name] = pwd.getpwnam(f"edge-agent-{name}").pw_uid
        return made

    yield make
    for name in made:
        subprocess.run(["userdel", f"edge-agent-{name}"], check=True)


def uid(pid: int) -> int:
    return Path(f"/proc/{pid}").stat().st_uid


def test_they_run_as_users_of_their_own_and_keep_what_they_had_as_root(
    node: Node, make_users: Callable[[], dict[str, int]]
) -> None:
    node.start("--profile", "edge")
    node.until_state("ready", patience=90)
    assert {uid(pid) for pid in node.pids().values()} == {0}
    assert "run as root, whom a sandbox holds less well" in " ".join(node.cli("plan").stdout.split())
    with Identity.local(str(node.run_dir / "bundled/identity"), timeout=30) as identity:
        key = identity.public()["ed25519"]
    with Storage.local(str(node.run_dir / "bundled/storage"), timeout=30) as storage:
        blob = storage.put(b"x" * 100_000)

    users = make_users()
    node.cli("--profile", "edge", check=True, timeout=300)
    assert {name: uid(pid) for name, pid in node.pids().items()} == users
    with Identity.local(str(node.run_dir / "bundled/identity"), timeout=30) as identity:
        assert identity.public()["ed25519"] == key
    with Storage.local(str(node.run_dir / "bundled/storage"), timeout=30) as storage:
        assert storage.get(blob) == b"x" * 100_000
    for name in NAMES:
        assert {part["kind"] for part in node.service(name)["sandbox"].values()} == {"enforced"}
        assert tuple(node.service(name)["sandbox"]) == PROTECTIONS
        assert node.service(name)["enforcement"]["memory"]["kind"] == "enforced"
    assert "run as root" not in node.cli("plan").stdout
    assert node.stop() == 0


def test_a_private_tmp_is_paid_for_by_the_service(node: Node) -> None:
    program = "open('/tmp/x', 'wb').write(bytes(8 << 20)); import time; print('written', flush=True); time.sleep(1000)"
    node.start(
        "--config",
        node.profile(f"""
            services:
              web:
                command: [/usr/bin/python3, -S, -c, "{program}", MARK]
                user: nobody
                sandbox: strict
                resources: {{memory: 64MiB}}
        """),
    )
    until(lambda: b"written" in node.call("logs", name="web")["data"], "it has written", 60)
    group = node.services_cgroup() / "web"
    shmem = next(line for line in (group / "memory.stat").read_text().splitlines() if line.startswith("shmem "))
    assert int(shmem.split()[1]) >= 8 * MIB
    assert int((group / "memory.current").read_text()) >= 8 * MIB
    assert not Path("/tmp/x").exists()
    assert node.stop() == 0
