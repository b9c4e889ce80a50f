"""Sandboxes under a real agent: the bundled services in theirs, and what is said of a machine that gives none."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from edge_agent.host import confinement
from edge_agent.model import PROTECTIONS
from edge_agent.services.client import Identity, Storage
from edge_agent.services.client import Node as Link

from .harness import CLI, Node, until

OBSTACLE = confinement.obstacle(Path("/proc/self/status").read_text(), os.uname().release)
able = pytest.mark.skipif(
    bool(OBSTACLE), reason=f"needs an agent that can give services mounts of their own: {OBSTACLE}"
)
ENFORCED = {"kind": "enforced", "code": ""}


@able
def test_the_bundled_services_are_sandboxed_and_work(node: Node) -> None:
    node.start("--profile", "edge")
    node.until_state("ready")
    run = node.run_dir / "bundled"
    with Storage.local(str(run / "storage")) as storage:
        assert storage.get(storage.put(b"x" * 300_000)) == b"x" * 300_000
    with Identity.local(str(run / "identity")) as identity, Link.local(str(run / "node")) as link:
        assert identity.verify(b"x", identity.sign(b"x"))
        assert link.health()["name"] == "node"
    for name, pid in node.pids().items():
        assert node.service(name)["sandbox"] == dict.fromkeys(PROTECTIONS, ENFORCED), name
        assert node.call("logs", name=name)["data"].count(b"not sandboxed") == 0
        root = Path(f"/proc/{pid}/root")
        assert sorted(path.name for path in (root / "home").iterdir()) == []
        assert not (root / "dev/kmsg").exists()
    assert "edge-agent-" not in Path("/proc/self/mountinfo").read_text()
    said = node.cli("status", check=True).stdout
    assert [line.split().count("yes") for line in said.splitlines() if " ready " in line] == [1] * 3


@able
def test_adopted_services_are_still_known_to_be_sandboxed(node: Node) -> None:
    node.start("--config", node.profile("services: {storage: }"))
    node.until_state("ready")
    pid = node.pids()["storage"]
    node.kill()
    node.start()
    node.until_state("ready")
    assert node.pids()["storage"] == pid
    assert set(node.service("storage")["sandbox"]) == set(PROTECTIONS)
    assert node.service("storage")["sandbox"]["read_only"] == ENFORCED


@able
def test_a_switch_of_the_sandbox_restarts_the_service_and_the_plan_says_so(node: Node) -> None:
    text = f"services: {{web: {{command: [/bin/sleep, '{node.number}'], sandbox: WANTED}}}}"
    node.start("--config", node.profile(text.replace("WANTED", "none")))
    node.until_state("ready")
    before = node.pids()["web"]
    assert node.service("web")["sandbox"] == {}
    strict = node.profile(text.replace("WANTED", "strict"), "strict")
    assert "restart  web  sandbox" in node.cli("plan", "--config", strict, check=True).stdout
    node.cli("--config", strict, check=True)
    assert node.pids()["web"] != before
    assert node.service("web")["sandbox"]["private_tmp"] == ENFORCED


@able
def test_a_check_sees_what_its_service_sees(node: Node) -> None:
    """A program as a check, in the mounts of the service: its /tmp is the one with the file in it."""
    profile = """
        services:
          web:
            command: [/bin/sh, -c, "touch /tmp/NUMBER; sleep NUMBER"]
            sandbox: strict
            health: {exec: "test -e /tmp/NUMBER", interval: 100ms, failures: 1}
    """
    node.start("--config", node.profile(profile.replace("NUMBER", node.number)))
    node.until_state("ready")
    assert not Path(f"/tmp/{node.number}").exists()
    inside = Path(f"/proc/{node.pids()['web']}/root/tmp/{node.number}")
    assert inside.exists()
    inside.unlink()
    until(lambda: node.service("web")["restarts"] > 0, "the check fails and the service is started again")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_person_is_told_what_only_root_can_give(node: Node) -> None:
    """Defaults give way and say so; what is written into the profile does not."""
    node.root.chmod(0o777)
    if subprocess.run([*CLI, "help"], user="nobody", extra_groups=[], cwd="/", capture_output=True).returncode:
        pytest.skip("nobody cannot read this installation")
    bundled = node.profile("services: {storage: }")
    asked = node.profile("services: {web: {command: /bin/sleep 1000, sandbox: strict}}", "asked")

    def as_nobody(*words: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*CLI, *map(str, words)], env=node.environment, user="nobody", group="nogroup", extra_groups=[],
            cwd="/", capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    said = " ".join(as_nobody("plan", "--config", bundled).stdout.split())
    assert "read only, private tmp, private devices, protect home: not enforced" in said
    assert "because the agent does not run as root (the service runs without it); fix: run the agent as root" in said
    refused = as_nobody("plan", "--config", asked)
    assert refused.returncode != 0
    assert "cannot sandbox web as asked" in refused.stderr

    output = (node.root / "output").open("ab")
    with output:
        node.process = subprocess.Popen(
            [*CLI, "--config", str(bundled)], env=node.environment, stdout=output, stderr=output,
            stdin=subprocess.DEVNULL, user="nobody", group="nogroup", extra_groups=[], cwd="/",
        )  # fmt: skip
    until(node.answers, "the agent answers")
    node.until_state("ready")
    sandbox = node.service("storage")["sandbox"]
    assert sandbox["no_new_privileges"] == sandbox["capabilities"] == ENFORCED
    assert sandbox["read_only"] == {"kind": "not enforced", "code": "no-root"}
    assert b"not sandboxed as it should be: cannot leave" in node.call("logs", name="storage")["data"]
