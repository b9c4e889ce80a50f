"""What a service is told: right values come through, every wrong one is named."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.model import Entry
from edge_agent.peers.session import Target
from edge_agent.profile.directories import find
from edge_agent.services.errors import StartError
from edge_agent.services.options import VARIABLE, Exporter, Keeping, Link, Options, read

KEY = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"
PEER = {"endpoint": "tcp://10.0.0.1:4001", "key": KEY}


def told(service: str = "storage", /, **given: Any) -> Options:
    return read(service, {VARIABLE: json.dumps(given)}, 0)


def test_without_the_variable_root_gets_the_system_directories() -> None:
    options = read("identity", {}, 0)
    assert options.data_dir == "/var/lib/edge-agent/services/identity"
    assert options.run_dir == "/run/edge-agent/bundled/identity"
    assert (options.port, options.cache_bytes, options.link) == (None, None, Link())


def test_without_root_the_directories_are_those_of_xdg() -> None:
    options = read("identity", {"HOME": "/home/me", "XDG_RUNTIME_DIR": "/run/user/7"}, 7)
    assert options.data_dir == "/home/me/.local/state/edge-agent/services/identity"
    assert options.run_dir == "/run/user/7/edge-agent/bundled/identity"


def test_the_directories_of_several_agents_differ_by_environment() -> None:
    options = read("node", {"EDGE_AGENT_DATA_DIR": "/d", "EDGE_AGENT_RUN_DIR": "/r"}, 0)
    assert (options.data_dir, options.run_dir) == ("/d/services/node", "/r/bundled/node")


@pytest.mark.parametrize("uid", [0, 7, 4_000_000])
@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"HOME": "/home/me"},
        {"HOME": "relative", "XDG_STATE_HOME": "relative", "XDG_RUNTIME_DIR": "relative"},
        {"HOME": "/home/me", "XDG_STATE_HOME": "/s", "XDG_RUNTIME_DIR": "/run/user/7"},
        {"HOME": "/home/me", "EDGE_AGENT_DATA_DIR": "", "BLACKHOLE_DATA_DIR": "/old", "EDGE_AGENT_RUN_DIR": "/r/../x"},
    ],
)
def test_by_hand_it_uses_what_an_agent_of_that_user_gives_it(environ: dict[str, str], uid: int) -> None:
    agents = find(environ, uid)
    options = read("storage", environ, uid)
    assert options.data_dir == f"{agents.data}/services/storage"
    assert options.run_dir == f"{agents.run}/bundled/storage"


def test_everything_of_the_contract_is_read() -> None:
    options = told(
        "node",
        name="node",
        data_dir="/data",
        run_dir="/run/x",
        port=50_002,
        clients=[KEY],
        cache_only=True,
        cache_bytes=1000,
        read_through=True,
        scrub_interval=3600,
        scrub_rate=1_000_000,
        blob_replicas=3,
        node_id="node-001",
        cluster_name="production",
        p2p={"mode": "full", "listen": "tcp://0.0.0.0:4001", "peers": [{"key": KEY}], "heartbeat": 5},
        http={"address": "::1", "port": 9100},
        status="/run/x/status",
        analytics={"interval": 10, "flush": 60.5, "max_bytes": 2**23},
        control="/run/x/control",
        profile="day",
        schedule=[{"name": "night", "begin": 1320, "end": 360, "days": [0, 4], "services": ["storage"], "grace": 60}],
    )
    assert options == Options(
        name="node",
        data_dir="/data",
        run_dir="/run/x",
        port=50_002,
        clients=frozenset([KEY]),
        node_id="node-001",
        cluster_name="production",
        cache_only=True,
        cache_bytes=1000,
        read_through=True,
        scrub_interval=3600.0,
        scrub_rate=1_000_000,
        blob_replicas=3,
        link=Link("full", "tcp://0.0.0.0:4001", (Target("", KEY),), 5.0),
        control="/run/x/control",
        profile="day",
        schedule=(Entry("night", begin=1320, end=360, days=(0, 4), services=("storage",), grace=60.0),),
        http=Exporter("::1", 9100),
        status="/run/x/status",
        keeping=Keeping(10.0, 60.5, 2**23),
    )


def test_nil_means_absent() -> None:
    given = dict.fromkeys(["port", "cache_bytes", "node_id", "p2p", "clients"])
    assert told(**given) == told()


def test_other_keys_are_ignored_and_known() -> None:
    assert told(replicas=3, placement="any").ignored == ("placement", "replicas")


@pytest.mark.parametrize(
    ("given", "where"),
    [
        ({"name": "identity"}, "name"),
        ({"control": "run/control"}, "control"),
        ({"schedule": {}}, "schedule"),
        ({"schedule": [{"cron": "* * * * *"}]}, "schedule[0]"),
        ({"schedule": [{"name": "a", "when": 1}]}, "schedule[0]"),
        ({"schedule": [{"name": "a", "begin": "22:00"}]}, "schedule[0].begin"),
        ({"port": 0}, "port"),
        ({"port": 65_536}, "port"),
        ({"port": "50001"}, "port"),
        ({"port": True}, "port"),
        ({"cache_only": 1}, "cache_only"),
        ({"cache_bytes": -1}, "cache_bytes"),
        ({"cache_bytes": 1.5}, "cache_bytes"),
        ({"read_through": "yes"}, "read_through"),
        ({"scrub_interval": -1}, "scrub_interval"),
        ({"scrub_interval": True}, "scrub_interval"),
        ({"scrub_interval": 1e300}, "scrub_interval"),
        ({"scrub_rate": 0}, "scrub_rate"),
        ({"blob_replicas": 256}, "blob_replicas"),
        ({"data_dir": "relative"}, "data_dir"),
        ({"run_dir": "/a\0b"}, "run_dir"),
        ({"node_id": "a\nb"}, "node_id"),
        ({"node_id": "n" * 65}, "node_id"),
        ({"clients": ["short"]}, "clients"),
        ({"clients": KEY}, "clients"),
        ({"p2p": "light"}, "p2p"),
        ({"p2p": {"mode": "heavy"}}, "p2p.mode"),
        ({"p2p": {"mode": "full"}}, "p2p.listen"),
        ({"p2p": {"listen": "udp://x"}}, "p2p.listen"),
        ({"p2p": {"heartbeat": 0}}, "p2p.heartbeat"),
        ({"p2p": {"heartbeat": "30s"}}, "p2p.heartbeat"),
        ({"http": 9090}, "http"),
        ({"http": {"address": "localhost"}}, "http.address"),
        ({"http": {"address": "a\0b"}}, "http.address"),
        ({"http": {"port": -1}}, "http.port"),
        ({"status": "status"}, "status"),
        ({"analytics": []}, "analytics"),
        ({"analytics": {"interval": 0}}, "analytics.interval"),
        ({"analytics": {"flush": "10m"}}, "analytics.flush"),
        ({"analytics": {"max_bytes": 2**20}}, "analytics.max_bytes"),
        ({"p2p": {"peers": {}}}, "p2p.peers"),
        ({"p2p": {"peers": ["x"]}}, "p2p.peers[0]"),
        ({"p2p": {"peers": [PEER, PEER]}}, "p2p.peers"),
        ({"p2p": {"peers": [PEER | {"key": "é" * 40}]}}, "p2p.peers[0].key"),
        ({"p2p": {"peers": [{"key": KEY}]}}, "p2p.peers[0].endpoint"),
        ({"p2p": {"peers": [PEER | {"endpoint": "ipc:///x"}]}}, "p2p.peers[0].endpoint"),
    ],
)
def test_a_wrong_value_is_named(given: dict[str, Any], where: str) -> None:
    with pytest.raises(StartError) as caught:
        told(**given)
    assert f"{where} " in str(caught.value)
    assert "; fix: " in str(caught.value)


def test_all_wrong_values_are_named_at_once() -> None:
    with pytest.raises(StartError) as caught:
        told(port=0, cache_only="yes", p2p={"mode": "x", "heartbeat": -1})
    assert all(key in str(caught.value) for key in ("port", "cache_only", "p2p.mode", "p2p.heartbeat"))


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"a":' * 20_000])
def test_what_is_no_json_object_is_an_error(text: str) -> None:
    with pytest.raises(StartError):
        read("storage", {VARIABLE: text}, 0)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["mode", "peers", "key", "x"]), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*Options._fields, "p2p", "analytics"]), JSON))
def test_any_json_is_read_or_refused(given: dict[str, Any]) -> None:
    try:
        options = told(**given)
    except StartError:
        return
    assert options.name == "storage"
    assert options.cache_bytes is None or options.cache_bytes > 0
