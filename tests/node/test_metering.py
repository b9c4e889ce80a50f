"""Telemetry and analytics as real processes beside the services, and the agent, that they measure."""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as prometheus

from edge_agent.control.client import AgentError, Client
from edge_agent.services.client import Analytics, ServiceError, Telemetry, TimedOutError
from edge_agent.services.telemetry_text import unpack_page
from tests.node import harness
from tests.node.bundled import Running, free_port, until

Start = Callable[..., Running]
OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
FAR = 2**40


@pytest.fixture
def start(base: Path) -> Iterator[Start]:
    """``start(name, **options)``: a service process; all are gone at the end of the test."""
    running: list[Running] = []

    def run(name: str, **options: Any) -> Running:
        running.append(Running(name, base, **options))
        return running[-1].ready()

    yield run
    for service in running:
        service.__exit__(None, None, None)


def telemetry(start: Start, base: Path, port: int = 0) -> tuple[Running, str]:
    """The service and its URL."""
    port = port or free_port()
    return start("telemetry", http={"port": port}, status=f"{base}/status"), f"http://127.0.0.1:{port}"


def get(url: str, accept: str = "*/*") -> tuple[int, str, bytes]:
    """Status, type and body."""
    host, _, path = url.removeprefix("http://").partition("/")
    connection = http.client.HTTPConnection(host, timeout=20)
    try:
        connection.request("GET", f"/{path}", headers={"Accept": accept})
        response = connection.getresponse()
        return response.status, response.headers["Content-Type"], response.read()
    finally:
        connection.close()


def scrape(url: str, accept: str = "text/plain") -> dict[str, float]:
    """'name label=value ...' -> number, as an independent parser reads it."""
    _, kind, body = get(f"{url}/metrics", accept)
    text = body.decode()
    families = (openmetrics if kind.startswith("application/openmetrics-text") else prometheus)(text)
    found = {}
    for family in families:
        for sample in family.samples:
            words = [f"{name}={value}" for name, value in sorted(sample.labels.items())]
            found[" ".join([sample.name.removeprefix("edge_agent_"), *words])] = sample.value
    return found


def fresh(url: str) -> dict[str, float]:
    """A page that was gathered after this call."""
    time.sleep(1.05)  # a page is good for a second
    return scrape(url)


def test_a_scrape_shows_every_service_and_both_forms_agree(start: Start, base: Path) -> None:
    storage, identity = start("storage"), start("identity")
    own, url = telemetry(start, base)
    found = scrape(url)
    for service in (storage, identity, own):
        assert found[f"service_up service={service.name}"] == 1
        assert found[f"service_memory_pss_bytes service={service.name}"] > 1024 * 1024
    assert found["up"] == 0, "there is no agent"
    assert set(scrape(url, OPENMETRICS)) == set(found)


def test_promtool_reads_it(start: Start, base: Path) -> None:
    tool = shutil.which("promtool")
    if tool is None:
        pytest.skip("no promtool here: tests/install installs it on Debian")
    start("storage", cache_only=True)
    _, url = telemetry(start, base)
    text = get(f"{url}/metrics")[2]
    done = subprocess.run([tool, "check", "metrics"], input=text, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_a_page_is_good_for_a_second_whoever_asks(start: Start, base: Path) -> None:
    storage = start("storage")
    own, url = telemetry(start, base)
    scrape(url)
    asked = fresh(url)["service_requests_total outcome=answered service=storage"]
    with Telemetry.local(str(own.run)) as client:
        for _ in range(5):
            scrape(url)
            assert unpack_page(client.gathered())
    assert fresh(url)["service_requests_total outcome=answered service=storage"] <= asked + 2
    assert storage.process.poll() is None


def test_a_service_that_hangs_is_waited_for_no_longer_than_a_moment(start: Start, base: Path) -> None:
    storage = start("storage")
    start("identity")
    own, url = telemetry(start, base)
    assert scrape(url)["service_up service=storage"] == 1
    storage.process.send_signal(signal.SIGSTOP)
    before = time.monotonic()
    found = fresh(url)
    assert time.monotonic() - before < 15.0
    assert (found["service_up service=storage"], found["service_up service=identity"]) == (0, 1)
    storage.process.send_signal(signal.SIGCONT)
    assert fresh(url)["service_up service=storage"] == 1
    storage.process.kill()
    storage.process.wait()
    assert fresh(url)["service_up service=storage"] == 0
    start("storage")
    assert fresh(url)["service_up service=storage"] == 1
    assert own.log.read_text().count("cannot gather from") >= 2


def test_it_listens_on_the_loopback_alone_and_wakes_up_for_nobody(start: Start, base: Path) -> None:
    own, url = telemetry(start, base)
    assert [address.split(":")[0] for address in own.listening()] == ["0100007F"]
    assert get(f"{url}/nothing")[0] == 404
    assert get(f"{url}/-/healthy")[0] == 200
    scrape(url)
    time.sleep(0.5)
    before = own.switches()
    time.sleep(3)
    assert own.switches() == before


def test_clients_that_are_slow_or_many_keep_nobody_out(start: Start, base: Path) -> None:
    own, url = telemetry(start, base)
    port = int(url.rpartition(":")[2])
    scrape(url)
    size = own.smaps("Private_Dirty")
    clients = []
    try:
        for number in range(100):
            client = socket.create_connection(("127.0.0.1", port), timeout=20)
            client.sendall(b"GET /metrics HT" if number % 2 else b"")
            clients.append(client)
        assert scrape(url)["service_up service=telemetry"] == 1
        assert len(list(Path(f"/proc/{own.pid}/fd").iterdir())) < 60
    finally:
        for client in clients:
            client.close()
    assert own.smaps("Private_Dirty") - size < 1024 * 1024
    assert fresh(url)["telemetry_connections_cut_total service=telemetry"] >= 80


def test_what_telemetry_gathers_can_be_asked_of_analytics(start: Start, base: Path) -> None:
    start("storage")
    telemetry(start, base)
    service = start("analytics", analytics={"interval": 0.2, "flush": 3600})
    with Analytics.local(str(service.run)) as client:
        until(lambda: client.health()["held"] > 0, "it takes samples")
        (series,) = client.query("edge_agent_service_up", 0, FAR, 60, service="storage")
        assert series["labels"] == {"service": "storage"}
        assert series["kind"] == "gauge"
        assert abs(series["times"][-1] - time.time()) < 120
        assert series["low"][-1] == series["high"][-1] == series["last"][-1] == 1
        assert {"metric": "edge_agent_up", "labels": {}, "kind": "gauge"} in list(client.series())
        assert client.health()["used"] <= client.health()["limit"]


def test_what_is_written_outlives_a_kill_and_what_is_held_an_orderly_end(start: Start, base: Path) -> None:
    options = {"interval": 3600, "flush": 3600}
    service = start("analytics", analytics=options)
    with Analytics.local(str(service.run)) as client:
        client.record("kept", 1.0, room="a")
        client.flush()
        client.record("lost", 1.0)
    service.process.kill()
    service.process.wait()
    service = start("analytics", analytics=options)
    with Analytics.local(str(service.run)) as client:
        (kept,) = client.query("kept", 0, FAR, 60)
        assert (kept["labels"], kept["number"], kept["last"]) == ({"room": "a"}, [1], [1.0])
        assert [part for part in client.query("lost", 0, FAR, 60) if part["times"]] == []
        client.record("held", 2.0)
        client.record("bytes_total", 5, "counter")
    assert service.stop() == 0
    service = start("analytics", analytics=options)
    with Analytics.local(str(service.run)) as client:
        assert client.query("held", 0, FAR, 60)[0]["last"] == [2.0]
        client.record("bytes_total", 12, "counter")
        assert sum(client.query("bytes_total", 0, FAR, 14_400)[0]["total"]) == 7.0, "it went on counting"


def test_a_kill_in_the_middle_of_writing_leaves_a_sound_database(start: Start) -> None:
    for attempt in range(4):
        service = start("analytics", analytics={"interval": 3600, "flush": 3600, "max_bytes": 4 * 1024 * 1024})
        assert "began anew" not in service.log.read_text()
        with Analytics.local(str(service.run)) as client:
            for number in range(300):
                client.record("many", number, number=str(number % 100))
            killer = threading.Timer(0.002 * attempt, service.process.kill)
            killer.start()
            client.timeout = 0.5
            with contextlib.suppress(TimedOutError):  # it may be gone before it answers
                client.flush()
            killer.join()
        service.process.wait()
        assert sum(path.stat().st_size for path in service.data.glob("analytics.db*")) <= 4 * 1024 * 1024


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"metric": "", "from": 0, "to": 1, "step": 60}, "metric"),
        ({"metric": "x", "from": -1, "to": 1, "step": 60}, "from"),
        ({"metric": "x", "from": 0, "to": 2**41, "step": 60}, "to"),
        ({"metric": "x", "from": 0, "to": 1, "step": 0}, "step"),
        ({"metric": "x", "from": 0, "to": 1, "step": 60, "labels": {"a": 1}}, "labels"),
        ({"metric": "x", "from": 0, "to": 1, "step": 60, "after": [1]}, "after"),
    ],
)
def test_a_question_that_is_none_is_refused(start: Start, arguments: dict[str, Any], said: str) -> None:
    service = start("analytics")
    with Analytics.local(str(service.run)) as client, pytest.raises(ServiceError, match=said) as caught:
        client.ask("query", **arguments)
    assert caught.value.code == "bad-request"


# -- with an agent


@pytest.fixture
def node() -> Iterator[harness.Node]:
    """An agent's directories."""
    yield from harness.node()


PROFILE = """
deployment: {{mode: {mode}, resources: {{total_memory: 1GB}}}}
services:
  web: {{command: [sleep, MARK], resources: {{memory: {{request: 16MB, limit: 32MB}}}}}}
  storage: {{cache_only: true, resources: {{memory: {{request: 32MB, limit: 64MB}}}}}}
  telemetry: {{port: {port}}}
  analytics: {{interval: 1s, depends_on: [telemetry]}}
"""


@pytest.mark.parametrize("mode", ["single_node", "development"])
def test_the_agent_runs_both_and_they_show_it(node: harness.Node, mode: str) -> None:
    port = free_port()
    node.start("--config", node.profile(PROFILE.format(mode=mode, port=port).replace("MARK", node.number)))
    node.until_state("ready", "web", "storage", "telemetry", "analytics")
    url = f"http://127.0.0.1:{port}"
    found = scrape(url)
    status = node.status()
    assert found["up"] == 1
    assert found[f"info enforcement={status['enforcement']} profile=test version={status['agent']['version']}"] == 1
    assert found["budget_memory_total_bytes"] == status["budget"]["memory"]["total"]
    assert found["service_ready service=web"] == 1
    assert found["service_memory_request_bytes service=web"] == 16_000_000
    assert found["process_resident_memory_bytes service=orchestrator"] > 4 * 1024 * 1024
    assert found["service_restarts_total service=web"] == 0
    os.kill(status["services"]["web"]["pid"], signal.SIGKILL)
    harness.until(lambda: fresh(url)["service_restarts_total service=web"] == 1, "the restart is seen")
    with Analytics.local(str(node.run_dir / "bundled" / "analytics")) as client:
        until(lambda: bool(client.query("edge_agent_up", 0, FAR, 60)), "analytics has seen the agent")


QUIET = """
deployment: {{enforcement: none}}  # no sampling, whose looks are wakeups as well
services: {{telemetry: {{port: {port}, health: none}}}}
"""


def test_a_scrape_wakes_the_agent_once(node: harness.Node) -> None:
    port = free_port()
    node.start("--config", node.profile(QUIET.format(port=port)))
    node.until_state("ready", "telemetry")
    url = f"http://127.0.0.1:{port}"
    fresh(url)  # connects
    before = fresh(url)["wakeups_total"]
    for _ in range(4):
        assert fresh(url)["wakeups_total"] == (before := before + 1)


def test_the_status_socket_tells_what_goes_on_and_does_nothing(node: harness.Node) -> None:
    node.start("--config", node.profile("services: {web: {command: [sleep, MARK]}}".replace("MARK", node.number)))
    with Client(str(node.run_dir / "status")) as client:
        assert client.call("status")["profile"] == "test"
        assert client.call("events", {"cursor": 0})["events"]
        assert client.call("digest")["sha256"] == sha256((node.data_dir / "plan").read_bytes()).digest()
        for verb in ("stop", "restart", "plan", "logs", "shutdown", "switch", "nonsense"):
            with pytest.raises(AgentError) as caught:
                client.call(verb, {"name": "web"})
            assert caught.value.code == "denied"
    assert (node.run_dir / "status").stat().st_mode & 0o777 == 0o660
    assert node.states()["web"] in ("starting", "ready")


EMBEDDED = """
services:
  identity: {{mode: embedded}}
  telemetry: {{mode: embedded, port: {port}}}
  analytics: {{mode: embedded, interval: 1s}}
"""


def test_they_share_a_process_with_others(node: harness.Node) -> None:
    port = free_port()
    node.start("--config", node.profile(EMBEDDED.format(port=port)))
    until(lambda: set(node.states().values()) == {"ready"}, "one process is ready")
    url = f"http://127.0.0.1:{port}"
    found = scrape(url)
    assert [found[f"service_up service={name}"] for name in ("analytics", "identity", "telemetry")] == [1, 1, 1]
    with Analytics.local(str(node.run_dir / "bundled" / "analytics")) as client:
        until(lambda: bool(client.query("edge_agent_service_up", 0, FAR, 60)), "analytics has asked its neighbour")


def as_somebody(group: int, path: Path) -> str:
    """What a process of user 54322 and this group comes to hear at a socket of the agent."""
    read, write = os.pipe()
    child = os.fork()  # by no program: an interpreter in root's home may not be executed by others
    if child == 0:
        heard = "nothing"
        try:
            os.setgroups([])
            os.setgid(group)
            os.setuid(54_322)
            with Client(str(path)) as client:
                heard = client.call("status")["profile"]
        except AgentError as error:
            heard = error.code
        finally:
            os.write(write, heard.encode())
            os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    heard = os.read(read, 1000).decode()
    os.close(read)
    return heard


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_the_status_socket_is_for_its_group_and_the_control_socket_is_not(node: harness.Node) -> None:
    plan = node.root / "plan"
    profile = node.profile("services: {web: {command: [sleep, MARK]}}".replace("MARK", node.number))
    node.cli("compile", "--config", profile, "--output", plan, check=True)
    node.root.chmod(0o711)
    node.run_plan(plan, status_gid=54_321)
    assert as_somebody(54_321, node.run_dir / "status") == "test"
    assert as_somebody(54_322, node.run_dir / "status") == "permission"
    assert as_somebody(54_321, node.run_dir / "control") == "permission"
