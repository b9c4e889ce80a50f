"""Bundled services under a real agent: their directories, their users, and what is left when it stops."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from edge_agent.services.client import Identity, Storage

from .harness import Node, until


def as_nobody() -> str:
    """Why a bundled service cannot run as nobody here; '' when it can."""
    if os.geteuid() != 0:
        return "only root starts services as another user"
    argv = [sys.executable, "-c", "import edge_agent.services.runtime"]
    done = subprocess.run(argv, user="nobody", group=NOBODY[1], extra_groups=[], cwd="/", capture_output=True)
    return "" if done.returncode == 0 else "nobody cannot read this installation"


NOBODY = pwd.getpwnam("nobody")[2:4]


def owner(path: Path) -> tuple[int, int]:
    status = path.lstat()
    return status.st_uid, status.st_gid


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o7777


def users_of(pid: int) -> list[str]:
    """Real, effective, saved and file-system user, proc(5)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line for line in lines if line.startswith("Uid:")).split()[1:]


def test_the_edge_profile_runs_and_an_interrupt_leaves_nothing_in_the_run_directory(node: Node) -> None:
    node.start("--profile", "edge")
    node.until_state("ready", "identity", "storage", "node")
    with Identity.local(str(node.run_dir / "bundled/identity")) as identity:
        key = identity.public()["ed25519"]
    assert node.stop() == 0
    assert not node.run_dir.exists() or list(node.run_dir.iterdir()) == []
    node.start("--profile", "edge")
    node.until_state("ready", "identity")
    with Identity.local(str(node.run_dir / "bundled/identity")) as identity:
        assert identity.public()["ed25519"] == key, "data outlives the agent"


def test_a_service_that_leaves_the_profile_leaves_the_run_directory_and_keeps_its_data(node: Node) -> None:
    web = f"web: {{command: [/bin/sleep, '{node.number}']}}"
    node.start("--config", node.profile(f"services: {{storage: , {web}}}"))
    node.until_state("ready")
    assert (node.run_dir / "bundled/storage/storage.sock").exists()
    rest = node.profile(f"services: {{{web}}}", "rest")
    node.cli("--config", rest, check=True)
    assert not (node.run_dir / "bundled").exists()
    assert (node.data_dir / "services/storage").is_dir()


def test_services_of_another_user_own_their_directories(node: Node) -> None:
    if why := as_nobody():
        pytest.skip(why)
    profile = "services: {identity: {USER}, storage: {USER}}"
    node.start("--config", node.profile(profile.replace("USER", "user: nobody")))
    node.until_state("ready")
    key = node.data_dir / "services/identity/identity.key"
    first = key.read_text()
    for name in ("identity", "storage"):
        assert users_of(node.pids()[name]) == [str(NOBODY[0])] * 4
        data, run = node.data_dir / "services" / name, node.run_dir / "bundled" / name
        assert [owner(data), mode(data)] == [NOBODY, 0o700]
        assert [owner(run), mode(run)] == [NOBODY, 0o750]
        assert owner(data.parent) == owner(run.parent) == (0, 0)
    assert [owner(key), mode(key)] == [NOBODY, 0o600]
    with Storage.local(str(node.run_dir / "bundled/storage")) as storage:
        blob = storage.put(b"x" * 100_000)

    node.cli("--config", node.profile(profile.replace("USER", "nice: 1"), "as-root"), check=True)
    assert users_of(node.pids()["identity"]) == ["0"] * 4
    assert [owner(key), key.read_text()] == [(0, 0), first]
    with Storage.local(str(node.run_dir / "bundled/storage")) as storage:
        assert storage.get(blob) == b"x" * 100_000

    node.cli("--config", node.root / "test.yaml", check=True)
    assert [owner(key), key.read_text()] == [NOBODY, first]
    with Storage.local(str(node.run_dir / "bundled/storage")) as storage:
        assert storage.get(blob) == b"x" * 100_000


def test_what_is_in_the_way_of_a_directory_is_said(node: Node) -> None:
    (node.data_dir / "services").mkdir(parents=True)
    (node.data_dir / "services/storage").symlink_to("/etc")
    node.start("--config", node.profile("services: {storage: {restart_policy: {max_attempts: 0}}}"))
    node.until_state("quarantined", "storage")
    assert "cannot make" in node.service("storage")["reason"]
    assert "fix: move away" in node.cli("why", "storage", check=True).stdout


def test_debug_logging_reaches_a_bundled_service(node: Node) -> None:
    profile = node.profile("services: {storage: }")
    node.start("--config", profile)
    node.until_state("ready")
    assert b"debug: " not in node.call("logs", name="storage")["data"]
    node.cli("--config", profile, "--dev", check=True)
    with Storage.local(str(node.run_dir / "bundled/storage")) as storage:
        storage.put(b"x")
    said = f"storage: debug: uid:{os.geteuid()} asks 'commit': done\n"
    until(lambda: said.encode() in node.call("logs", name="storage")["data"], "it says what it was asked")
