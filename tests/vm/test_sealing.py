"""Keys that only this machine can open: a credential that systemd unseals, for a service that the agent starts."""

from __future__ import annotations

import json
from typing import Any

import pytest

from .lab import Lab
from .node import Node

pytestmark = pytest.mark.vm

PROFILE = """
deployment: {resources: {total_memory: 300MiB, total_cpu: 1.0}}
services:
  identity: {restart_policy: {max_attempts: 1, delay: 1s}}
  other: {command: [/bin/sleep, infinity], resources: {memory: 10MiB}}
"""
CREDENTIAL = "/etc/credstore.encrypted/edge-agent.identity"
SEAL = f"""
mkdir -p -m 700 {CREDENTIAL.rpartition("/")[0]}
head -c 32 /dev/urandom | systemd-creds encrypt --name=edge-agent.identity - {CREDENTIAL}
systemctl enable --now edge-agent-credentials
edge-agent restart identity
"""
KEYS = "/var/lib/edge-agent/services/identity"


def shown(node: Node) -> dict[str, Any]:
    """What ``edge-agent identity`` says."""
    answer: dict[str, Any] = json.loads(node.guest.check(["edge-agent", "identity", "--json"], timeout=120))
    return answer


def test_keys_are_sealed_survive_a_reboot_and_are_missed_when_the_credential_is(lab_tools: None) -> None:
    with Lab(persistent=True).boot() as guest:
        node = Node(guest)
        node.write("/etc/edge-agent/config.yaml", PROFILE)
        node.install_tree()
        guest.check("useradd --system --no-create-home edge-agent-identity && systemctl enable edge-agent")
        node.systemctl("start")
        node.until_states(identity="ready")
        plain = shown(node)
        assert plain["sealed"] is False
        assert plain["credential"] == "/run/edge-agent/credentials/identity"
        guest.check(SEAL, timeout=200)
        sealed = shown(node)
        assert sealed["sealed"] is True
        assert sealed["document"] == plain["document"]
        pid = node.status()["services"]["identity"]["pid"]
        assert guest.check(f"stat -c %U /proc/{pid} {KEYS}/identity.key").split() == ["edge-agent-identity"] * 2
        assert guest.check(f"grep -c ^ed25519-sealed {KEYS}/identity.key {KEYS}/identity-next.key").count(":1") == 2

        guest.reboot()
        node.until_states(identity="ready")
        assert shown(node)["document"] == plain["document"], "the same keys, opened at boot"
        guest.check(f"rm {CREDENTIAL}; systemctl stop edge-agent-credentials")
        guest.run("edge-agent restart identity --no-wait", timeout=60)
        node.until_states(identity="quarantined", other="ready")
        log = guest.check("edge-agent logs identity", timeout=60)
        assert "it is sealed, and there is no credential /run/edge-agent/credentials/identity; fix: " in log
