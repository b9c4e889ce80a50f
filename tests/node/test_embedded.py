"""Several bundled services in one process (``mode: embedded``): the same code, sockets and answers."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from edge_agent.peers import transport
from edge_agent.services.client import Client, Identity, Storage, TimedOutError
from edge_agent.services.client import Node as Link
from tests.node.bundled import Running, free_port, until
from tests.node.harness import Node

CLIENTS: dict[str, type[Client]] = {"identity": Identity, "storage": Storage, "node": Link}
ALL = "+".join(CLIENTS)


def test_each_answers_on_its_own_socket_and_all_stop_together(base: Path) -> None:
    with Running(ALL, base, identity={"node_id": "together"}) as service:
        service.ready()
        for name, client in CLIENTS.items():
            with client.local(str(service.runs[name])) as asked:
                health = asked.health()
                assert (health["name"], health["pid"]) == (name, service.pid)
        with Storage.local(str(service.runs["storage"])) as storage:
            assert storage.get(storage.put(b"kept")) == b"kept"
        with Identity.local(str(service.runs["identity"])) as identity:
            assert identity.health()["node_id"] == "together"
            assert identity.health()["answered"] == 3  # its own: two of health, and node enrols its key
            assert identity.verify(b"x", identity.sign(b"x"))
        assert service.stop() == 0
        assert not any((run / f"{name}.sock").exists() for name, run in service.runs.items())


def test_together_they_never_wake_up_at_rest_and_have_one_thread_of_ours(base: Path) -> None:
    with Running(ALL, base) as service:
        service.ready()
        time.sleep(0.5)
        before = service.switches()
        time.sleep(3)
        assert service.switches() == before
        names = {(task / "comm").read_text() for task in Path(f"/proc/{service.pid}/task").iterdir()}
        assert len(names) == 3  # ours, and of one libzmq context its reaper and its one I/O thread


def test_who_may_use_one_port_may_not_use_the_other(base: Path) -> None:
    """One libzmq context has one handler of handshakes: each socket must be asked about in its own domain."""
    signer, keeper = (transport.Key(transport.new_secret()) for _ in range(2))
    identity = {"port": free_port(), "clients": [signer.public]}
    storage = {"port": free_port(), "clients": [keeper.public]}
    with Running("identity+storage", base, identity=identity, storage=storage) as service:
        service.ready()
        lines = [line for line in service.log.read_text().splitlines() if "its own key is" in line]
        keys = {line.partition(":")[0]: line.rsplit(" ", 1)[1] for line in lines}
        for own, stranger, kind, port in (
            (signer, keeper, Identity, identity["port"]),
            (keeper, signer, Storage, storage["port"]),
        ):
            endpoint, server = f"tcp://127.0.0.1:{port}", keys[kind.service]
            with kind(endpoint, (own, server)) as client:
                assert client.health()["handshakes_refused"] == 0
            with kind(endpoint, (stranger, server), 1) as client, pytest.raises(TimedOutError):
                client.health()
            with kind(endpoint, (own, server)) as client:
                assert client.health()["handshakes_refused"] == 1


def test_one_that_cannot_start_is_named_and_nothing_is_left_open(base: Path) -> None:
    with Running("identity", base) as alone:
        alone.ready()
        with Running("storage+identity", base) as service:
            assert service.process.wait(20) == 78
            assert "identity" in service.log.read_text()
            assert f"process {alone.pid} uses" in service.log.read_text()
        assert not (base / "run/storage/storage.sock").exists()
        with Identity.local(str(alone.run)) as client:
            assert client.health()["pid"] == alone.pid


def test_under_an_agent_they_are_one_service_and_come_back_together(node: Node) -> None:
    services = "{identity: {mode: embedded}, storage: {mode: embedded, depends_on: identity}, node: {mode: embedded}}"
    fast = "restart_policy: {delay: 100ms}"
    node.start("--config", node.profile(f"services: {services.replace('mode: embedded', f'mode: embedded, {fast}')}"))
    node.until_state("ready")
    (pid,) = set(node.pids().values())
    assert list(node.pids()) == ["embedded"]
    run = node.run_dir / "bundled"
    assert {path.parent.name for path in run.glob("*/*.sock")} == set(CLIENTS)
    with Storage.local(str(run / "storage")) as storage:
        key = storage.put(b"kept")
    os.kill(pid, signal.SIGKILL)
    until(lambda: node.pids().get("embedded") not in (None, pid), "a new process")
    node.until_state("ready")
    for name, client in CLIENTS.items():
        with client.local(str(run / name)) as asked:
            assert asked.health()["pid"] == node.pids()["embedded"]
    with Storage.local(str(run / "storage")) as storage:
        assert storage.get(key) == b"kept"
