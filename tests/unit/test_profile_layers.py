"""Flags, variables, file, remote source, defaults: who wins, and what the message says about the loser's mistake."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edge_agent.demand import Amount, Profile
from edge_agent.profile import ProfileError, load

from .profiles import HOME, FakeSystem, load_text, problems


def options(profile: Profile, name: str) -> dict[str, object]:
    env = next(dict(each.service.env) for each in profile.demands if each.service.name == name)
    made = json.loads(env["EDGE_AGENT_SERVICE_OPTIONS"])
    assert isinstance(made, dict)
    return made


FROM_FILE = "deployment: {node_id: file}\n"
REMOTE = {"deployment": {"node_id": "remote"}}
OLD = {"BLACKHOLE_NODE_ID": "old variable"}
NEW = {"EDGE_AGENT_NODE_ID": "variable"}


@pytest.mark.parametrize(
    ("flag", "environ", "text", "remote", "winner"),
    [
        ("flag", OLD | NEW, FROM_FILE, REMOTE, "flag"),
        (None, OLD | NEW, FROM_FILE, REMOTE, "variable"),
        (None, OLD, FROM_FILE, REMOTE, "old variable"),
        (None, {}, FROM_FILE, REMOTE, "file"),
        (None, {}, "", REMOTE, "remote"),
        (None, {}, "", {}, None),
    ],
)
def test_precedence(
    flag: str | None,
    environ: dict[str, str],
    text: str,
    remote: dict[str, object],
    winner: str | None,
    tmp_path: Path,
) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(text + "services: {identity: }\n")
    profile = load(
        config=str(path),
        name=None,
        flags={"node_id": flag},
        environ=environ,
        directories=HOME,
        system=FakeSystem(),
        remote=lambda: remote,
    )
    assert options(profile, "identity")["node_id"] == winner


def test_layers_are_merged_key_by_key() -> None:
    profile = load_text(
        "deployment: {mode: distributed, resources: {total_memory: 1GB}}\nservices: {node: }",
        environ={"EDGE_AGENT_DEPLOYMENT__RESOURCES__TOTAL_CPU": "0.5"},
        flags={"deployment.resources.agent_memory": "20MB", "total_memory": "2GB"},
    )
    assert (profile.mode, profile.memory_total, profile.cpu_total, profile.memory_reserve) == (
        "distributed", Amount(2 * 10**9), Amount(500), 20_000_000,
    )  # fmt: skip


@pytest.mark.parametrize("prefix", ["EDGE_AGENT_", "BLACKHOLE_"])
def test_the_variables_of_the_seed(prefix: str) -> None:
    given = {
        "CONFIG": "/etc/blackhole/config.yaml",
        "DATA_DIR": "/var/lib/blackhole",
        "LOG_DIR": "/var/log/blackhole",
        "NODE_ID": "node-001",
        "CLUSTER_NAME": "production",
        "IDENTITY_PORT": "60001",
        "STORAGE_PORT": "60002",
        "LEDGER_PORT": "60003",
        "TLS_CERT": "/etc/blackhole/certs/server.crt",
        "TLS_KEY": "/etc/blackhole/certs/server.key",
        "CA_CERT": "/etc/blackhole/certs/ca.crt",
        "VERSION": "v1.0.0",
    }
    environ = {prefix + name: value for name, value in given.items()}
    profile = load_text("services: {identity: , storage: }", environ=environ)
    assert options(profile, "identity")["port"] == 60001
    assert options(profile, "storage")["port"] == 60002
    assert options(profile, "storage")["node_id"] == "node-001"
    assert options(profile, "storage")["cluster_name"] == "production"
    assert profile.not_acted_on == (
        f"security.tls_cert ({prefix}TLS_CERT)",
        f"security.tls_key ({prefix}TLS_KEY)",
        f"security.ca_cert ({prefix}CA_CERT)",
        f"{prefix}LEDGER_PORT (no service ledger in this profile)",
        f"{prefix}VERSION (the version is that of the program)",
    )


def test_only_a_profile_or_a_variable_gives_a_port() -> None:
    """Two agents on one machine would collide on any port that nobody chose."""
    text = "services: {identity: , storage: {port: 7}, more: {bundled: storage}, node: {p2p: light}}"
    environ = {"EDGE_AGENT_IDENTITY_PORT": "60001", "BLACKHOLE_STORAGE_PORT": "60002"}
    silent, told = load_text(text), load_text(text, environ=environ)
    names = ("identity", "storage", "more", "node")
    assert [options(silent, name)["port"] for name in names] == [None, 7, None, None]
    assert [options(told, name)["port"] for name in names] == [60001, 60002, None, None]
    assert not silent.not_acted_on


def test_any_setting_has_a_variable() -> None:
    environ = {
        "EDGE_AGENT_SERVICES__MY_WORKER__RESOURCES": "{memory: 64MB}",
        "EDGE_AGENT_SERVICES__MY_WORKER__ENVIRONMENT__LEVEL": "low",
        "EDGE_AGENT_SERVICES__MY_WORKER__NICE": "5",
        "EDGE_AGENT_DEPLOYMENT__ENFORCEMENT": "none",
    }
    profile = load_text("services: {my-worker: {command: x, nice: 1}}", environ=environ)
    (demand,) = profile.demands
    assert demand.memory_limit == Amount(64_000_000)
    assert dict(demand.service.env)["LEVEL"] == "low"
    assert (demand.service.nice, profile.enforcement) == (5, "none")


def test_messages_name_the_variable_or_the_flag() -> None:
    text = "deployment: {mode: edge, enforcement: none}\nservices: {storage: {port: 5}}"
    environ = {
        "BLACKHOLE_STORAGE_PORT": "many",
        "EDGE_AGENT_DEPLOYMENT__MODE": "egde",
        "EDGE_AGENT_DEPLOYMENT__MOOD": "x",
        "EDGE_AGENT_SERVICES__STORAGE__RESOURCES": "{memory: [",
    }
    flags = {"enforcement": "full", "deployment.switch_timeout": "soon"}
    assert [message.split("; fix:")[0] for message in problems(text, flags, environ)] == [
        "--enforcement: deployment.enforcement: 'full': unknown enforcement",
        "--set deployment.switch_timeout: deployment.switch_timeout: 'soon': cannot read duration: it is not a number",
        "BLACKHOLE_STORAGE_PORT: services.storage.port: 'many': cannot read port: it is not a whole number",
        "EDGE_AGENT_DEPLOYMENT__MODE: deployment.mode: 'egde': unknown mode",
        "EDGE_AGENT_DEPLOYMENT__MOOD: deployment.mood: unknown key",
        "EDGE_AGENT_SERVICES__STORAGE__RESOURCES: not valid YAML: a value is missing inside brackets",
    ]


def test_unknown_variables_are_said_and_empty_ones_are_not_set() -> None:
    environ = {"EDGE_AGENT_NODEID": "x", "EDGE_AGENT_NODE_ID": "", "BLACKHOLE_OTHER": "y", "PATH": "/bin"}
    assert load_text("services: {node: }", environ=environ).not_acted_on == (
        "BLACKHOLE_OTHER (unknown variable)",
        "EDGE_AGENT_NODEID (unknown variable; did you mean EDGE_AGENT_NODE_ID?)",
    )


def test_dev() -> None:
    text = "services: {identity: , s: {command: x}}"
    assert load_text(text, flags={"dev": False}).not_acted_on == ()
    profile = load_text(text, flags={"dev": True, "enforcement": None})
    assert profile.not_acted_on == ("development.hot_reload (--dev)",)
    levels = [dict(each.service.env).get("EDGE_AGENT_LOG_LEVEL") for each in profile.demands]
    assert levels == ["DEBUG", None]


def test_a_mistake_of_the_remote_source() -> None:
    with pytest.raises(ProfileError) as caught:
        load(
            config=None, name="edge", flags={}, environ={}, directories=HOME, system=FakeSystem(),
            remote=lambda: {"services": {"node": {"nice": 30, "depends_on": ["nobody"]}}},
        )  # fmt: skip
    assert [each.text().split(":")[0] for each in caught.value.problems] == ["remote source"] * 2
