"""From text to a Profile: every key of a service, and every mistake with its message."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable

import pytest

from edge_agent.changes import needs_restart
from edge_agent.demand import Amount
from edge_agent.model import HEAVY, UNLIMITED, Health, Limits, Log, Restart

from .profiles import FIXTURES, cases, load_text, problems, service


def test_a_service_that_says_nothing() -> None:
    demand = service("")
    made = demand.service
    assert made.argv == ("/usr/bin/run",)
    assert dict(made.env) == {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG": "C.UTF-8",
        "HOME": "/root",
    }
    assert (made.uid, made.gid, made.groups, made.cwd) == (None, None, (), "/")
    assert made.limits == Limits()
    assert made.health == Health()
    assert made.restart == Restart()
    assert made.log == Log()
    assert (made.importance, made.oom_score_adj, made.nice, made.ioprio, made.scheduler) == (50, 250, 0, None, None)
    assert (demand.enabled, demand.bundled, demand.line) == (True, False, 1)
    assert demand.memory_request is demand.memory_limit is demand.cpu_request is demand.swap_limit is None


def test_memory_and_cpu() -> None:
    short = service("resources: {memory: 256MB, cpu: 0.25}")
    assert short.memory_request == short.memory_limit == Amount(256_000_000)
    assert short.cpu_request == short.cpu_limit == Amount(250)
    long = service("resources: {memory: {request: 128Mi, limit: 50%}, cpu: {request: 100m}, swap: 0}")
    assert (long.memory_request, long.memory_limit) == (Amount(128 * 1024**2), Amount(share=0.5))
    assert (long.cpu_request, long.cpu_limit) == (Amount(100), None)
    assert long.swap_limit == Amount(0)
    assert service("resources: {memory: {request: 0, limit: 1GB}}").memory_request == Amount(0)


def test_pids_and_io() -> None:
    limits = service("resources: {pids: 16, io: {weight: 50, read_bps: 1MB, write_bps: 2MB}}").service.limits
    assert limits == Limits(pids_limit=16, io_weight=50, io_read_bps=10**6, io_write_bps=2 * 10**6)


HEALTH = {
    "http: {port: 80, path: /ok, host: '::1'}": Health("http", "::1", 80, "/ok"),
    "http: 'http://localhost:8080/a?b=c'": Health("http", "127.0.0.1", 8080, "/a?b=c"),
    "http: 'http://[::1]'": Health("http", "::1", 80, "/"),
    "tcp: 1883": Health("tcp", port=1883),
    "tcp: 10.0.0.1:22": Health("tcp", "10.0.0.1", 22),
    "tcp: '[::1]:22'": Health("tcp", "::1", 22),
    "tcp: {port: 5, host: localhost}": Health("tcp", port=5),
    "exec: check --now": Health("exec", argv=("/usr/bin/check", "--now")),
    "exec: [/bin/check, a b]": Health("exec", argv=("/bin/check", "a b")),
    "sd_notify: true": Health("sd_notify"),
    "tcp: 5, interval: 1m, timeout: 500ms, failures: 9": Health("tcp", port=5, interval=60, timeout=0.5, failures=9),
    "tcp: 5, retries: 4, interval: 0": Health("tcp", port=5, failures=4, interval=0),
}


@pytest.mark.parametrize("keys", HEALTH)
def test_health(keys: str) -> None:
    assert service("health: {" + keys + "}").service.health == HEALTH[keys]


@pytest.mark.parametrize(
    ("short", "kind"),
    [("sd_notify", "sd_notify"), ("none", ""), ("'http://127.0.0.1:80/'", "http"), ("'tcp://127.0.0.1:80'", "tcp")],
)
def test_short_health(short: str, kind: str) -> None:
    assert service("health: " + short).service.health.kind == kind


def test_default_health_interval_is_the_orchestrators() -> None:
    profile = load_text(
        "orchestrator: {health_check_interval: 7s}\nservices: {identity: , node: {health: {interval: 3s}}}"
    )
    assert [each.service.health for each in profile.demands] == [
        Health("sd_notify", interval=7),
        Health("sd_notify", interval=3),
    ]


def test_restart_policy() -> None:
    text = "condition: on-failure, max_attempts: unlimited, delay: 2s, backoff: 1.5, max_delay: 5m, jitter: 20%"
    assert service("restart_policy: {" + text + ", reset_after: 1h}").service.restart == Restart(
        "on_failure", UNLIMITED, 2, 1.5, 300, 0.2, 3600
    )
    assert service("restart_policy: never").service.restart == Restart("never")
    assert service("restart_policy: {delay: 2m}").service.restart == Restart(delay=120, max_delay=120)


def test_process_attributes() -> None:
    made = service(
        "nice: -5, io_priority: 3, scheduler: SCHED_BATCH, oom_score_adj: -100, stop_signal: INT, stop_timeout: 0, "
        "start_timeout: 5s, importance: heavy, freeze: true, log: {kind: disk, max_size: 1MiB}, "
        "rlimits: {nofile: 1024, core: unlimited, RLIMIT_STACK: {soft: 8MiB, hard: unlimited}}"
    ).service
    assert (made.nice, made.ioprio, made.scheduler, made.oom_score_adj) == (-5, (2, 3), (3, 0), -100)
    assert (made.stop_signal, made.stop_timeout, made.start_timeout) == (signal.SIGINT, 0.0, 5.0)
    assert (made.importance, made.freezable, made.log) == (0, True, Log("disk", 1024**2))
    assert made.rlimits == ((3, 8 * 1024**2, -1), (4, -1, -1), (7, 1024, 1024))


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("idle", (3, 0)),
        ("realtime", (1, 4)),
        ("best-effort", (2, 4)),
        ("0", (2, 0)),
        ("{class: realtime, level: 7}", (1, 7)),
    ],
)
def test_io_priority(written: str, expected: tuple[int, int]) -> None:
    assert service(f"io_priority: {written}").service.ioprio == expected


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("SCHED_NORMAL", (0, 0)),
        ("SCHED_OTHER", (0, 0)),
        ("idle", (5, 0)),
        ("{policy: SCHED_FIFO, priority: 10}", (1, 10)),
        ("{policy: rr, priority: 99}", (2, 99)),
    ],
)
def test_scheduler(written: str, expected: tuple[int, int]) -> None:
    assert service(f"scheduler: {written}").service.scheduler == expected


@pytest.mark.parametrize(
    ("written", "expected"),
    [("SIGTERM", 15), ("term", 15), ("2", 2), ("SIGRTMIN+3", signal.SIGRTMIN + 3), ("SIGRTMIN", signal.SIGRTMIN)],
)
def test_stop_signal(written: str, expected: int) -> None:
    assert service(f"stop_signal: {written}").service.stop_signal == expected


@pytest.mark.parametrize(
    ("written", "value", "oom"), [("essential", 100, 0), ("normal", 50, 250), ("heavy", 0, 500), ("80", 80, 100)]
)
def test_importance_decides_who_is_killed_first(written: str, value: int, oom: int) -> None:
    made = service(f"importance: {written}").service
    assert (made.importance, made.oom_score_adj) == (value, oom)


def test_defaults_of_all_services() -> None:
    profile = load_text(
        "performance: {subprocess: {nice_value: 3, io_priority: 4, scheduler: SCHED_IDLE}}\n"
        "services: {a: {command: x}, b: {command: x, nice: 0, io_priority: 1, scheduler: SCHED_OTHER}}"
    )
    assert [(each.service.nice, each.service.ioprio, each.service.scheduler) for each in profile.demands] == [
        (3, (2, 4), (5, 0)),
        (0, (2, 1), (0, 0)),
    ]


def test_commands() -> None:
    assert service("").service.argv[0] == "/usr/bin/run"
    texts = {
        "sh -c 'echo a b'": ("/usr/bin/sh", "-c", "echo a b"),
        "[/bin/x, '', \"a b\"]": ("/bin/x", "", "a b"),
        "./x": ("/opt/./x",),
    }
    for written, expected in texts.items():
        text = json.dumps(written) if not written.startswith("[") else written
        demand = load_text(f"services: {{s: {{command: {text}, working_directory: /opt}}}}").demands[0]
        assert demand.service.argv == expected
        assert demand.service.cwd == "/opt"


def test_user_and_group() -> None:
    made = service("user: redis, group: video").service
    assert (made.uid, made.gid, made.groups) == (101, 44, (7,))
    assert dict(made.env)["HOME"] == "/home/redis"
    assert dict(made.env)["USER"] == dict(made.env)["LOGNAME"] == "redis"
    assert service("user: 1234, group: 5").service[4:7] == (1234, 5, ())
    only_group = service("group: video").service
    assert (only_group.uid, only_group.gid) == (None, 44)


def test_environment_of_a_service() -> None:
    environ = {"HOST": "h", "EMPTY": ""}
    written = (
        "environment: {A: 1.10, B: yes, C: '${HOST}:${PORT:-80}', D: '$$x $y', E: '${EMPTY:-d}', F: '${EMPTY}', G: ''}"
    )
    env = dict(service(written, environ=environ).service.env)
    assert {key: env[key] for key in "ABCDEFG"} == {
        "A": "1.10", "B": "yes", "C": "h:80", "D": "$x $y", "E": "d", "F": "", "G": "",
    }  # fmt: skip
    assert dict(service("environment: [A=b=c, D=]").service.env).items() >= {"A": "b=c", "D": ""}.items()
    assert "HOST" not in env


def test_a_bundled_service_is_told_its_options() -> None:
    profile = load_text(
        "deployment: {node_id: node-001, cluster_name: c}\n"
        "development: {debug_logging: true}\n"
        "services: {storage: {cache_only: true, cache_size: 10MB, resources: {memory: 512MB}}}"
    )
    demand = profile.demands[0]
    assert demand.bundled
    assert demand.service.argv == ("/usr/bin/python3", "-m", "edge_agent.services", "storage")
    env = dict(demand.service.env)
    assert env["EDGE_AGENT_LOG_LEVEL"] == "DEBUG"
    assert json.loads(env["EDGE_AGENT_SERVICE_OPTIONS"]) == {
        "name": "storage",
        "data_dir": "/var/lib/edge-agent/services/storage",
        "run_dir": "/run/edge-agent/bundled/storage",
        "port": None,
        "clients": [],
        "cache_only": True,
        "cache_bytes": 10_000_000,
        "read_through": False,
        "scrub_interval": 604_800.0,
        "scrub_rate": 4 << 20,
        "blob_replicas": 1,
        "p2p": {"mode": "light", "listen": None, "peers": [], "heartbeat": 60.0, "logs": [], "members": None},
        "node_id": "node-001",
        "cluster_name": "c",
    }


@pytest.mark.parametrize(
    ("storage", "node", "reads"),
    [
        ("cache_only: true", "p2p: light", True),
        ("cache_only: true", "p2p: light, enabled: false", False),
        ("cache_only: true", "p2p: full", False),
        ("cache_only: false", "p2p: light", False),
        ("read_through: false, cache_only: true", "p2p: light", False),
        ("read_through: true", "p2p: full", True),
    ],
)
def test_a_cache_reads_through_where_a_light_node_can_be_asked(storage: str, node: str, reads: bool) -> None:
    profile = load_text(f"services: {{storage: {{{storage}}}, node: {{{node}}}}}")
    env = {demand.service.name: dict(demand.service.env) for demand in profile.demands}["storage"]
    assert json.loads(env["EDGE_AGENT_SERVICE_OPTIONS"])["read_through"] is reads


def test_storage_is_told_about_scrubs_and_replicas() -> None:
    text = "services: {storage: {scrub_interval: 30d, scrub_rate: 1MiB, blob_replicas: 3}}"
    told = json.loads(dict(load_text(text).demands[0].service.env)["EDGE_AGENT_SERVICE_OPTIONS"])
    assert (told["scrub_interval"], told["scrub_rate"], told["blob_replicas"]) == (30 * 86_400, 1 << 20, 3)


def test_a_change_of_limits_does_not_restart_a_bundled_service() -> None:
    small, large = (
        load_text(f"services: {{storage: {{cache_only: true, resources: {{memory: {size}, cpu: 0.{size[0]}}}}}}}")
        for size in ("128MB", "512MB")
    )
    assert small.demands[0].memory_limit != large.demands[0].memory_limit
    assert not needs_restart(small.demands[0].service, large.demands[0].service)


KEY = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"


def test_the_node_service_is_told_its_link() -> None:
    def link(keys: str) -> object:
        env = load_text("services: {node: {" + keys + "}}").demands[0].service.env
        return json.loads(dict(env)["EDGE_AGENT_SERVICE_OPTIONS"])["p2p"]

    peer = f"{{endpoint: 'tcp://h.example:4001', key: '{KEY}'}}"
    assert link(f"p2p: {{peers: [{peer}], heartbeat_interval: 5s}}") == {
        "mode": "light",
        "listen": None,
        "peers": [{"endpoint": "tcp://h.example:4001", "key": KEY}],
        "heartbeat": 5.0,
        "logs": [],
        "members": None,
    }
    rest = {"heartbeat": 60.0, "logs": [], "members": None}
    assert link("p2p: full") == {"mode": "full", "listen": "tcp://0.0.0.0:4001", "peers": [], **rest}
    assert link(f"port: 5000, p2p: {{mode: full, peers: [{{key: '{KEY}'}}]}}") == {
        "mode": "full",
        "listen": "tcp://0.0.0.0:5000",
        "peers": [{"endpoint": "", "key": KEY}],
        **rest,
    }


def test_the_node_service_is_told_the_logs_it_believes_and_who_may_connect() -> None:
    vkey = "log.example+1cc758f9+AYqI4910CfGV/VLbLTy6XXLKZwm/HZQSG/N0iAG0D29c"
    env = (
        load_text(f"services: {{node: {{p2p: {{mode: full, logs: {vkey}, members: /etc/m}}}}}}").demands[0].service.env
    )
    told = json.loads(dict(env)["EDGE_AGENT_SERVICE_OPTIONS"])
    assert (told["p2p"]["logs"], told["p2p"]["members"]) == ([vkey], "/etc/m")
    assert told["status"] == "/run/edge-agent/status"
    for written, why in (
        ("{logs: nonsense}", "not a verifier key"),
        (f"{{logs: [{vkey}, {vkey}]}}", "two logs have the same name"),
        ("{members: /etc/m}", "a light node has no members"),
        ("{mode: full, members: m}", "absolute"),
    ):
        assert any(why in problem for problem in problems(f"services: {{node: {{p2p: {written}}}}}")), written


def test_a_bundled_service_under_another_name() -> None:
    demand = load_text("services: {blobs: {bundled: storage, cache_only: true}}").demands[0]
    assert demand.service.argv[-1] == "storage"
    options = json.loads(dict(demand.service.env)["EDGE_AGENT_SERVICE_OPTIONS"])
    assert options["name"] == "storage"
    own = ("/var/lib/edge-agent/services/blobs", "/run/edge-agent/bundled/blobs")
    assert (options["data_dir"], options["run_dir"]) == demand.service.directories == own


def test_a_command_takes_the_name_of_a_bundled_service() -> None:
    demand = load_text("services: {storage: {command: run}}").demands[0]
    assert not demand.bundled
    assert demand.service.directories == ()
    assert demand.service.argv == ("/usr/bin/run",)


def test_a_disabled_service_asks_nothing_of_the_machine() -> None:
    asks = "command: nonsuch, user: mickey, working_directory: /nonsuch, environment: {A: '${B}'}"
    demand = load_text("services: {s: {enabled: false, " + asks + "}}").demands[0]
    assert not demand.enabled
    assert demand.service.argv == ("nonsuch",)


def test_services_of_later_releases_are_off_and_said() -> None:
    profile = load_text(
        "services:\n  api_gateway: {port: 5}\n  telemetry: {enabled: false}\n  web: {command: [run], mode: embedded}\n"
    )
    assert [each.enabled for each in profile.demands] == [False, False, True]
    assert profile.not_acted_on == (
        "services.api_gateway (line 2): not part of this release yet, treated as disabled",
        "services.web.mode (line 4): runs as a subprocess",
    )


METERING = """
extends: {}
services:
  telemetry: {{enabled: true, address: "::1", port: 9100}}
  analytics: {{enabled: true, interval: 10s, flush_interval: 1h, max_size: 8MiB}}
"""


@pytest.mark.parametrize("profile", ["single-node", "development"])
def test_the_heavy_two_can_be_switched_on(profile: str) -> None:
    demands = {demand.service.name: demand for demand in load_text(METERING.format(profile)).demands}
    telemetry, analytics = demands["telemetry"], demands["analytics"]
    assert telemetry.enabled
    assert analytics.enabled
    assert telemetry.service.importance == analytics.service.importance == HEAVY
    told = json.loads(dict(telemetry.service.env)["EDGE_AGENT_SERVICE_OPTIONS"])
    assert (told["http"], told["port"]) == ({"address": "::1", "port": 9100}, None)
    assert told["status"].endswith("/status")
    told = json.loads(dict(analytics.service.env)["EDGE_AGENT_SERVICE_OPTIONS"])
    assert told["analytics"] == {"interval": 10.0, "flush": 3600.0, "max_bytes": 8 << 20}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("telemetry: {address: localhost}", "not an IP address"),
        ("analytics: {max_size: 1MB}", "less than 4194304 bytes"),
        ("analytics: {interval: 100ms}", "less than 1s"),
        ("telemetry: {interval: 1s}", "interval"),
    ],
)
def test_what_the_heavy_two_cannot_be_told(text: str, why: str) -> None:
    (said,) = problems(f"services: {{{text}}}")
    assert why in str(said)


def test_what_asks_for_what_happens_anyway_is_not_reported() -> None:
    text = (
        "orchestrator: {subprocess_management: true}\ndevelopment: {hot_reload: false}\nservices: {node: {replicas: 1}}"
    )
    assert load_text(text).not_acted_on == ()
    text = (
        "orchestrator: {subprocess_management: false}\n"
        "development: {hot_reload: true}\n"
        "services: {node: {replicas: 2, placement: any}}"
    )
    assert load_text(text).not_acted_on == (
        "orchestrator.subprocess_management (line 1)",
        "services.node.placement (line 3)",
        "services.node.replicas (line 3)",
        "development.hot_reload (line 2)",
    )


def test_deployment() -> None:
    profile = load_text(
        "deployment:\n  mode: single-node\n  enforcement: sampling\n  switch_timeout: 5s\n"
        "  resources: {total_memory: 80%, total_cpu: 1.5, agent_memory: 16MiB, os_memory: 10%}\nservices: {}"
    )
    assert profile[2:] == (
        "single_node", (), Amount(share=0.8), Amount(1500), 16 * 1024**2, Amount(share=0.1), "sampling", 5.0,
        ("services: this profile has none, nothing will run",), (), (),
    )  # fmt: skip


def test_depends_on_may_be_one_name_and_is_kept_once() -> None:
    profile = load_text(
        "services: {a: {command: x}, b: {command: x, depends_on: a}, c: {command: x, depends_on: [b, a, b]}}"
    )
    assert [each.service.depends_on for each in profile.demands] == [(), ("a",), ("b", "a")]


@pytest.mark.parametrize(("text", "message"), cases("mistakes.txt"))
def test_a_mistake_gets_one_message(text: str, message: str) -> None:
    assert problems(text) == [message]


def test_all_mistakes_at_once_in_the_order_of_the_file(golden: Callable[[str, str], None]) -> None:
    text = (FIXTURES / "all-mistakes.yaml").read_text()
    found = problems(text, environ={"EDGE_AGENT_IDENTITY_PORT": "many"}, flags={"enforcement": "full"})
    golden("profile-all-mistakes.txt", "\n".join(found) + "\n")
