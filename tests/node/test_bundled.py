"""The bundled services as real processes, on the loopback and unix sockets only."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
import zmq

from edge_agent.peers import transport
from edge_agent.peers.wire import MAX_BEAT, Beat, pack, pack_beat
from edge_agent.services.client import (
    Client,
    Identity,
    Ledger,
    Node,
    ServiceError,
    Storage,
    TimedOutError,
    UnreachableError,
)
from tests.node.bundled import PATIENCE, Running, free_port, until

NAMES = ("identity", "storage", "node", "ledger")
CLIENTS: dict[str, type[Client]] = {"identity": Identity, "storage": Storage, "node": Node, "ledger": Ledger}
ALONE: dict[str, dict[str, Any]] = {"ledger": {"record": False}}  # what it is told where no agent runs beside it

Start = Callable[..., Running]
Dealer = zmq.Socket[bytes]


@pytest.fixture
def start(base: Path) -> Iterator[Start]:
    """``start(name, **options)``: a service process; all are gone at the end of the test."""
    running: list[Running] = []

    def run(name: str, *, at: Path = base, **options: Any) -> Running:
        running.append(Running(name, at, **ALONE.get(name, {}), **options))
        return running[-1]

    yield run
    for service in running:
        service.__exit__(None, None, None)


# -- every service: start, health, stop


@pytest.mark.parametrize("name", NAMES)
def test_it_becomes_ready_answers_health_and_stops(start: Start, name: str) -> None:
    service = start(name).ready()
    with CLIENTS[name].local(str(service.run)) as client:
        health = client.health()
    assert (health["name"], health["pid"]) == (name, service.pid)
    socket_file = service.run / f"{name}.sock"
    assert socket_file.stat().st_mode & 0o777 == 0o660
    assert service.data.stat().st_mode & 0o777 == 0o700
    service.process.send_signal(signal.SIGTERM)
    assert service.notified("STOPPING=1")
    assert service.process.wait(10) == 0
    assert not socket_file.exists()


@pytest.mark.parametrize("name", NAMES)
def test_it_tells_what_it_measures(start: Start, name: str) -> None:
    service = start(name).ready()
    with CLIENTS[name].local(str(service.run)) as client:
        client.health()
        with pytest.raises(ServiceError):
            client.ask("nothing")
        families = {name: samples for name, _, _, samples in client.metrics()}
    assert families["service_requests_total"][:2] == [[{"outcome": "answered"}, 1], [{"outcome": "refused"}, 1]]
    assert 0 <= families["service_uptime_seconds"][0][1] < PATIENCE
    assert families["service_handshakes_refused_total"] == [[{}, 0]]
    told = families["service_memory_pss_bytes"][0][1]
    assert abs(told - service.smaps("Pss")) < 2 * 1024 * 1024


@pytest.mark.parametrize("name", NAMES)
def test_an_interrupt_stops_it_without_a_traceback(start: Start, name: str) -> None:
    service = start(name).ready()
    assert service.stop(signal.SIGINT) == 0
    assert "Traceback" not in service.log.read_text()


def test_the_watchdog_is_fed_by_the_loop_that_does_the_work(start: Start) -> None:
    service = start("identity", environ={"WATCHDOG_USEC": "400000"}).ready()
    assert all(service.notified("WATCHDOG=1", 5) for _ in range(3))
    service.process.send_signal(signal.SIGSTOP)  # a hung loop
    while service.notified("WATCHDOG=1", 0.05):
        pass  # what was sent before
    assert not service.notified("WATCHDOG=1", 0.8)
    service.process.send_signal(signal.SIGCONT)
    assert service.notified("WATCHDOG=1", 5)


@pytest.mark.parametrize("name", NAMES)
def test_at_rest_it_never_wakes_up(start: Start, name: str) -> None:
    service = start(name).ready()
    time.sleep(0.5)  # whatever follows a start
    before = service.switches()
    time.sleep(3)
    assert service.switches() == before


@pytest.mark.parametrize(
    ("arguments", "options", "code", "said"),
    [
        ([], "{}", 2, "NAME is missing"),
        (["api_gateway"], "{}", 2, "identity, storage, node, ledger"),
        (["identity"], "{", 78, "not JSON"),
        (["identity"], '{"port": 0}', 78, "port is not a whole number"),
        (["node"], '{"p2p": {"mode": "full"}}', 78, "listen is missing"),
        (["identity"], '{"run_dir": "/tmp/%s"}' % ("x" * 120), 78, "longer than 107 bytes"),
    ],
)
def test_what_cannot_start_says_why_and_exits(
    base: Path, arguments: list[str], options: str, code: int, said: str
) -> None:
    environ = {
        "EDGE_AGENT_DATA_DIR": f"{base}/d",
        "EDGE_AGENT_RUN_DIR": f"{base}/r",
        "EDGE_AGENT_SERVICE_OPTIONS": options,
    }
    argv = [sys.executable, "-m", "edge_agent.services", *arguments]
    done = subprocess.run(argv, env=environ, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == code
    assert said in done.stderr
    assert "; fix: " in done.stderr
    assert "Traceback" not in done.stderr
    Path("/tmp/" + "x" * 120).rmdir() if "x" * 120 in options else None


def test_a_second_instance_is_refused_and_the_first_goes_on(start: Start) -> None:
    first = start("storage").ready()
    second = start("storage")
    assert second.process.wait(20) == 78
    assert f"process {first.pid} uses" in second.log.read_text()
    with Storage.local(str(first.run)) as client:
        assert client.health()["pid"] == first.pid


def test_after_a_kill_the_next_one_takes_over_the_socket(start: Start) -> None:
    first = start("identity").ready()
    first.process.kill()
    first.process.wait()
    second = start("identity").ready()
    with Identity.local(str(second.run)) as client:
        assert client.health()["pid"] == second.pid


def test_a_reader_of_its_log_that_is_gone_does_not_end_it(base: Path) -> None:
    read, write = os.pipe()
    environ = {"EDGE_AGENT_DATA_DIR": f"{base}/d", "EDGE_AGENT_RUN_DIR": f"{base}/r", "PATH": os.environ["PATH"]}
    argv = [sys.executable, "-m", "edge_agent.services", "storage"]
    process = subprocess.Popen(argv, env=environ, stderr=write)
    try:
        os.close(write)
        os.close(read)  # before its first line
        path = base / "r/bundled/storage"
        until(lambda: (path / "storage.sock").exists() or process.poll() is not None, "the socket")
        with Storage.local(str(path)) as client:
            assert client.health()["pid"] == process.pid
        process.terminate()
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()


# -- hostile clients


@pytest.fixture
def dealer() -> Iterator[Dealer]:
    """A socket without the care that the project's own code takes."""
    context: zmq.Context[Dealer] = zmq.Context()
    socket = context.socket(zmq.DEALER)
    yield socket
    socket.close(linger=0)
    context.destroy(linger=0)


def hostile(dealer: Dealer, service: Running) -> None:
    dealer.connect(f"ipc://{service.run}/{service.name}.sock")


@pytest.mark.parametrize("name", NAMES)
def test_hostile_frames_are_answered_or_dropped_and_others_are_served(dealer: Dealer, start: Start, name: str) -> None:
    service = start(name).ready()
    hostile(dealer, service)
    good = pack({"v": 1, "id": 5, "op": "health"})
    for parts in (
        [b""],
        [b"\xc1"],
        [good[:-1]],
        [good + b"x"],
        [b"\xdf\xff\xff\xff\xff"],
        [b"\x91" * 3000],
        [good, good],
        [b"", good],
        [b"x"] * 1000,
    ):
        dealer.send_multipart(parts)
    dealer.send(good)
    codes = []
    while dealer.poll(5000):
        answer = transport.receive(dealer, 1)
        assert answer
        told = msgpack.unpackb(answer[0].bytes)
        if told["ok"]:
            break
        codes.append(told["error"]["code"])
    assert codes == ["malformed"] * 6  # a message of several parts is of no protocol: no answer
    assert told["refused"] == 9


@pytest.mark.parametrize("name", NAMES)
def test_a_part_above_the_limit_ends_its_connection_only(dealer: Dealer, start: Start, name: str) -> None:
    service = start(name).ready()
    hostile(dealer, service)
    dealer.send(bytes(2 * 1024 * 1024))
    assert not dealer.poll(500)
    with CLIENTS[name].local(str(service.run)) as client:
        assert client.health()["refused"] == 0  # it never arrived


def test_bytes_that_are_not_zmtp_do_not_matter(start: Start) -> None:
    service = start("identity").ready()
    for data in (
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xff" * 5000,
        bytes(5000),
        b"\xff\x00\x00\x00\x00\x00\x00\x00\x01\x7f\x03",
    ):
        with socket.socket(socket.AF_UNIX) as raw:
            raw.connect(str(service.run / "identity.sock"))
            raw.sendall(data)
    with Identity.local(str(service.run)) as client:
        assert client.health()["pid"] == service.pid


def test_a_client_that_never_reads_costs_nothing_but_its_own_answers(dealer: Dealer, start: Start) -> None:
    service = start("storage").ready()
    with Storage.local(str(service.run)) as client:
        key = client.put(bytes(400_000))
    hostile(dealer, service)
    dealer.set_hwm(2000)
    before = service.smaps("Pss")
    for number in range(500):
        dealer.send(pack({"v": 1, "id": number + 1, "op": "get", "hash": key, "length": 400_000}))
    with Storage.local(str(service.run), timeout=20) as client:
        assert client.get(key) == bytes(400_000)
    assert service.smaps("Pss") - before < 40 * 1024 * 1024  # 500 answers would be 200 MB


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user")
def test_another_user_is_refused_by_the_file_and_by_the_handshake(start: Start, base: Path) -> None:
    service = start("identity").ready()
    base.chmod(0o755)
    (service.run / "identity.sock").chmod(0o666)  # as if the first barrier were gone
    asking = (
        "import os, sys\nos.setgroups([]); os.setgid(12345); os.setuid(12345)\n"
        "from edge_agent.services.client import Identity, TimedOutError\n"
        "try: Identity.local(sys.argv[1], timeout=1.5).health()\n"
        "except TimedOutError: sys.exit(42)\n"
    )
    environ = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "PYTHONDONTWRITEBYTECODE": "1"}
    argv = [sys.executable, "-c", asking, str(service.run)]
    assert subprocess.run(argv, env=environ, timeout=20, check=False).returncode == 42
    with Identity.local(str(service.run)) as client:
        assert client.health()["handshakes_refused"] >= 1


@pytest.mark.skipif(os.geteuid() != 0, reason="needs other users")
def test_a_member_of_its_group_may_call_a_service_of_another_user(start: Start, base: Path) -> None:
    """What the profile gives to the services that call others."""
    base.chmod(0o755)
    service = start("storage", user=54321).ready()
    asking = (
        "import os, sys\nos.setgroups([int(group) for group in sys.argv[2:]]); os.setgid(54322); os.setuid(54322)\n"
        "from edge_agent.services.client import Storage, UnreachableError\n"
        "try: Storage.local(sys.argv[1], timeout=5).health()\n"
        "except UnreachableError: sys.exit(42)\n"
    )
    environ = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "PYTHONDONTWRITEBYTECODE": "1"}
    argv = [sys.executable, "-c", asking, str(service.run)]
    assert subprocess.run([*argv, "54321"], env=environ, timeout=20, check=False).returncode == 0
    assert subprocess.run([*argv, "54323"], env=environ, timeout=20, check=False).returncode == 42
    assert subprocess.run(argv, env=environ, timeout=20, check=False).returncode == 42


def test_a_client_is_told_what_is_in_the_way(base: Path) -> None:
    with pytest.raises(UnreachableError, match="no socket"):
        Identity.local(str(base))


# -- the port: CURVE and an allow-list, or nothing


def curve_client(port: int, own: transport.Key, server: str, timeout: float = 5.0) -> Identity:
    return Identity(f"tcp://127.0.0.1:{port}", (own, server), timeout)


def test_on_the_port_only_allowed_keys_are_served(dealer: Dealer, start: Start) -> None:
    allowed, unknown = transport.Key(transport.new_secret()), transport.Key(transport.new_secret())
    port = free_port()
    service = start("identity", port=port, clients=[allowed.public]).ready()
    line = next(line for line in service.log.read_text().splitlines() if "its own key is" in line)
    server = line.rsplit(" ", 1)[1]
    with curve_client(port, allowed, server) as client:
        assert client.verify(b"x", client.sign(b"x"))
    with curve_client(port, unknown, server, 1) as client, pytest.raises(TimedOutError):
        client.health()
    with curve_client(port, allowed, unknown.public, 1) as client, pytest.raises(TimedOutError):
        client.health()  # the wrong server key
    with Identity(f"tcp://127.0.0.1:{port}", None, 1) as client, pytest.raises(TimedOutError):
        client.health()  # NULL
    dealer.plain_username, dealer.plain_password = b"admin", b"admin"
    dealer.connect(f"tcp://127.0.0.1:{port}")
    dealer.send(pack({"v": 1, "id": 1, "op": "health"}))
    assert not dealer.poll(1000)
    with curve_client(port, allowed, server) as client:
        assert client.health()["answered"] == 2  # sign and verify: nobody else got through
    assert service.listening() == [f"0100007F:{port:04X}"]


def test_without_allowed_keys_the_port_serves_nobody(start: Start) -> None:
    port = free_port()
    service = start("identity", port=port).ready()
    server = service.log.read_text().split("its own key is ")[1].split()[0]
    with curve_client(port, transport.Key(transport.new_secret()), server, 1) as client, pytest.raises(TimedOutError):
        client.health()


def test_a_port_in_use_is_said(start: Start) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        service = start("identity", port=holder.getsockname()[1])
        assert service.process.wait(20) == 78
    assert "cannot listen on tcp://127.0.0.1" in service.log.read_text()


# -- identity


def test_the_key_survives_a_restart_and_a_kill(start: Start) -> None:
    keys = set()
    for end in (signal.SIGTERM, signal.SIGKILL, signal.SIGTERM):
        service = start("identity").ready()
        with Identity.local(str(service.run)) as client:
            document = client.public()
            keys.add((document["ed25519"], document["node_id"], document["created"]))
        service.stop(end)
    assert len(keys) == 1
    assert (service.data / "identity.key").stat().st_mode & 0o777 == 0o600


def test_a_key_that_others_can_read_is_refused_with_the_command_that_helps(start: Start) -> None:
    service = start("identity").ready()
    service.stop()
    key = service.data / "identity.key"
    key.chmod(0o640)
    again = start("identity")
    assert again.process.wait(20) == 78
    assert f"fix: chmod 600 {key}" in again.log.read_text()
    key.chmod(0o600)
    assert start("identity").ready().stop() == 0


# -- storage


def test_a_blob_larger_than_a_message_goes_in_and_out_and_survives_a_kill(start: Start) -> None:
    data = os.urandom(5_000_000)
    service = start("storage").ready()
    with Storage.local(str(service.run)) as client:
        key = client.put(data)
        service.process.kill()  # after the acknowledgement: nothing may be lost
    service.process.wait()
    again = start("storage").ready()
    with Storage.local(str(again.run)) as client:
        assert client.get(key) == data
        assert list(client.hashes()) == [key]
        assert client.delete(key)
        assert not client.has(key)


def test_memory_stays_small_while_a_blob_streams_through(start: Start) -> None:
    size = 64 * 1024 * 1024
    service = start("storage").ready()
    piece = os.urandom(256 * 1024)
    with Storage.local(str(service.run), timeout=20) as client:
        key = client.put_stream((piece for _ in range(size // len(piece))), size)
        assert sum(len(part) for part in client.get_stream(key)) == size
    for line in Path(f"/proc/{service.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            assert int(line.split()[1]) < 40 * 1024, line


@pytest.mark.parametrize("moment", range(6))
def test_a_kill_in_the_middle_of_a_put_leaves_no_half_blob(start: Start, moment: int) -> None:
    pieces = [os.urandom(200_000) for _ in range(5)]
    whole = hashlib.sha256(b"".join(pieces)).digest()
    service = start("storage").ready()
    acknowledged = False

    def feed() -> Iterator[bytes]:
        for number, piece in enumerate(pieces):
            if number == moment:
                service.process.kill()
                service.process.wait()
            yield piece

    with Storage.local(str(service.run), timeout=1) as client:
        try:
            client.put_stream(feed(), 1_000_000)
            acknowledged = True
        except TimedOutError:
            pass
        if service.process.poll() is None:
            service.process.kill()
            service.process.wait()
    assert acknowledged == (moment == 5)
    again = start("storage").ready()
    with Storage.local(str(again.run)) as client:
        assert list(client.hashes()) == ([whole] if acknowledged else [])
        assert client.has(whole) == acknowledged
    assert list((again.data / "blobs/uploads").iterdir()) == []


def test_a_cache_holds_its_bound_on_disk_while_clients_write(start: Start) -> None:
    service = start("storage", cache_only=True, cache_bytes=1_000_000).ready()
    with Storage.local(str(service.run)) as client:
        assert client.health()["limit"] == 1_000_000
        for number in range(40):
            client.put(os.urandom(100_000 + number))
            kept = sum(path.stat().st_blocks * 512 for path in service.data.rglob("*") if path.is_file())
            assert kept <= 1_000_000 + 4096  # the lock file
        with pytest.raises(ServiceError) as caught:
            client.put(bytes(1_000_001))
        assert caught.value.code == "too-large"
        assert client.health()["blobs"] == 9


def test_a_damaged_blob_is_found_and_reported(start: Start) -> None:
    service = start("storage").ready()
    with Storage.local(str(service.run)) as client:
        key = client.put(os.urandom(50_000))
        path = service.data / "blobs" / key.hex()[:2] / key.hex()[2:]
        path.write_bytes(b"x" * 50_000)
        with pytest.raises(ServiceError) as caught:
            client.get(key)
        assert caught.value.code == "corrupt"
        assert client.health()["corrupt"] == 1
    assert "is corrupt" in service.log.read_text()


# -- node


def keys_of(start: Start, base: Path, *names: str) -> list[str]:
    """Make a node key in each of these directories; the public ones."""
    public = []
    for name in names:
        service = start("node", at=base / name).ready()
        with Node.local(str(service.run)) as client:
            public.append(client.key())
        service.stop()
    return public


@pytest.fixture
def pair(start: Start, base: Path) -> tuple[str, str, int]:
    """Public keys of a full and a light node, and a port for the full one."""
    for name in ("full", "light"):
        (base / name).mkdir()
    full, light = keys_of(start, base, "full", "light")
    return full, light, free_port()


def full_node(start: Start, base: Path, port: int, *keys: str) -> Running:
    link = {"mode": "full", "listen": f"tcp://127.0.0.1:{port}", "peers": [{"key": key} for key in keys]}
    return start("node", at=base / "full", node_id="hub", p2p=link).ready()


def light_node(start: Start, base: Path, port: int, key: str) -> Running:
    link = {"mode": "light", "peers": [{"endpoint": f"tcp://127.0.0.1:{port}", "key": key}], "heartbeat": 0.3}
    return start("node", at=base / "light", node_id="edge", p2p=link).ready()


def state(service: Running) -> dict[str, Any]:
    with Node.local(str(service.run)) as client:
        (peer,) = client.peers()["peers"]
        return dict(peer)


def test_a_light_and_a_full_node_see_each_other_lose_each_other_and_meet_again(
    start: Start, base: Path, pair: tuple[str, str, int]
) -> None:
    full_key, light_key, port = pair
    full, light = full_node(start, base, port, light_key), light_node(start, base, port, full_key)
    until(lambda: state(light)["state"] == "up" and state(full)["state"] == "up", "up")
    assert state(light)["node"] == "hub"
    assert 0 < state(light)["rtt"] < 5
    assert state(full)["node"] == "edge"
    assert light.listening() == []
    assert full.listening() == [f"0100007F:{port:04X}"]
    full.process.kill()
    full.process.wait()
    until(lambda: state(light)["state"] != "up", "the loss seen")
    full = full_node(start, base, port, light_key)
    until(lambda: state(light)["state"] == "up", "up again")
    light.process.kill()
    until(lambda: state(full)["state"] == "down", "the light node down")


def test_a_node_that_stops_answering_but_keeps_its_connection_is_down(
    start: Start, base: Path, pair: tuple[str, str, int]
) -> None:
    full_key, light_key, port = pair
    full, light = full_node(start, base, port, light_key), light_node(start, base, port, full_key)
    until(lambda: state(light)["state"] == "up", "up")
    full.process.send_signal(signal.SIGSTOP)
    until(lambda: state(light)["state"] != "up", "the silence seen")
    full.process.send_signal(signal.SIGCONT)
    until(lambda: state(light)["state"] == "up", "up again")


def test_a_light_node_whose_key_is_not_configured_is_refused(
    start: Start, base: Path, pair: tuple[str, str, int]
) -> None:
    full_key, _, port = pair
    full = full_node(start, base, port, transport.Key(transport.new_secret()).public)
    light = light_node(start, base, port, full_key)
    until(lambda: state(light)["failures"] >= 2, "two attempts")
    assert state(full)["state"] == "never"
    with Node.local(str(full.run)) as client:
        assert client.health()["handshakes_refused"] >= 1


def test_a_full_node_with_another_key_than_configured_is_not_believed(
    start: Start, base: Path, pair: tuple[str, str, int]
) -> None:
    _, light_key, port = pair
    full = full_node(start, base, port, light_key)
    light = light_node(start, base, port, transport.Key(transport.new_secret()).public)
    until(lambda: state(light)["failures"] >= 2, "two attempts")
    assert state(full)["state"] == "never"
    assert state(light)["node"] == ""


@pytest.mark.parametrize("mechanism", ["NULL", "PLAIN", "missing key"])
def test_a_downgrade_or_a_missing_key_is_refused(
    dealer: Dealer, start: Start, base: Path, pair: tuple[str, str, int], mechanism: str
) -> None:
    full_key, light_key, port = pair
    full = full_node(start, base, port, light_key)
    if mechanism == "PLAIN":
        dealer.plain_username, dealer.plain_password = b"light", b"light"
    elif mechanism == "missing key":
        anyone = transport.Key(transport.new_secret())  # CURVE needs some key: one nobody knows
        dealer.curve_serverkey = full_key.encode()
        dealer.curve_publickey, dealer.curve_secretkey = anyone.public.encode(), anyone.secret.encode()
    dealer.connect(f"tcp://127.0.0.1:{port}")
    dealer.send(pack_beat(Beat("intruder", "0.1.0", 1, 1.0)))
    assert not dealer.poll(1000)
    assert state(full)["state"] == "never"


def test_an_allowed_peer_that_sends_garbage_is_counted_and_harms_nobody(
    dealer: Dealer, start: Start, base: Path, pair: tuple[str, str, int]
) -> None:
    full_key, light_key, port = pair
    hostile_key = transport.Key(transport.new_secret())
    full = full_node(start, base, port, light_key, hostile_key.public)
    dealer.curve_serverkey = full_key.encode()
    dealer.curve_publickey, dealer.curve_secretkey = hostile_key.public.encode(), hostile_key.secret.encode()
    dealer.connect(f"tcp://127.0.0.1:{port}")
    for parts in ([b"\xc1"], [b""], [b"x"] * 300, [pack_beat(Beat("n", "r", 1, 1.0))[:-1]], [bytes(MAX_BEAT + 1)]):
        dealer.send_multipart(parts)
    light = light_node(start, base, port, full_key)
    until(lambda: state(light)["state"] == "up", "up")
    with Node.local(str(full.run)) as client:
        views = {view["key"]: view for view in client.peers()["peers"]}
    assert views[hostile_key.public]["refused"] >= 3
    assert views[light_key]["state"] == "up"


def test_a_light_node_without_any_peer_is_ready_and_wakes_never(start: Start) -> None:
    service = start("node", p2p={"mode": "light"}).ready()
    with Node.local(str(service.run)) as client:
        assert client.peers()["peers"] == []


# -- what they weigh


def test_the_three_of_the_edge_profile_fit_into_their_part_of_the_budget(start: Start) -> None:
    """Agent and three services have 45 MiB together, the agent 10 of them."""
    link = {
        "mode": "light",
        "peers": [{"endpoint": "tcp://127.0.0.1:9", "key": "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"}],
    }
    services = [start("identity"), start("storage", cache_only=True), start("node", p2p=link)]
    times = []
    for service in services:
        service.ready()
        times.append(time.monotonic() - service.started)
        with CLIENTS[service.name].local(str(service.run)) as client:
            client.health()
    weights = {service.name: service.smaps("Pss") / 2**20 for service in services}
    print({name: round(weight, 2) for name, weight in weights.items()}, [round(seconds, 2) for seconds in times])
    assert sum(weights.values()) <= 35, weights
    for service in services:
        assert len(list(Path(f"/proc/{service.pid}/task").iterdir())) == 3  # its own, and libzmq's two
