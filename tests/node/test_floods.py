"""Floods by peers that were let in, against a real limit of memory: the service stays inside, others are answered."""

from __future__ import annotations

import contextlib
import resource
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edge_agent.peers import transport
from edge_agent.services.client import Client, Identity, Node, ServiceError, Storage, TimedOutError
from edge_agent.services.rates import PAUSE
from tests.node.bundled import Running, free_port, until

MIB = 1 << 20
ROOM = 64 * MIB  # address space above what a service has when it is ready; malloc fails beyond, and libzmq aborts
SECONDS = 6.0

RAW = """
import os, socket, struct, sys, time
path, seconds, size = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
greeting = bytes.fromhex("ff00000000000000017f0301") + b"NULL".ljust(20, bytes(1)) + bytes(32)  # ZMTP 3.1, RFC 37
ready = b"\\x05READY\\x0bSocket-Type" + struct.pack(">I", 6) + b"DEALER"
part = (b"\\x01" + bytes([size]) if size < 256 else b"\\x03" + struct.pack(">Q", size)) + bytes(size)
end = time.monotonic() + seconds
while time.monotonic() < end:
    try:
        with socket.socket(socket.AF_UNIX) as one:
            one.connect(path)
            one.sendall(greeting)
            one.sendall(b"\\x04" + bytes([len(ready)]) + ready)
            many = part * (65536 // len(part) + 1)
            while time.monotonic() < end:
                one.sendall(many)
    except OSError:
        time.sleep(0.01)
os._exit(0)
"""
CURVE = """
import os, sys, time, zmq
endpoint, seconds, size, parts = sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), 80_000_000 // int(sys.argv[3])
context = zmq.Context()
socket = context.socket(zmq.DEALER)
socket.linger = 0
socket.sndhwm = 1
socket.curve_serverkey, socket.curve_publickey, socket.curve_secretkey = (key.encode() for key in sys.argv[4:])
socket.connect(endpoint)
end, message = time.monotonic() + seconds, [bytes(size)] * min(parts, 500_000)
while time.monotonic() < end:
    try:
        socket.send_multipart(message, zmq.NOBLOCK)  # libzmq sends whole messages only, so it has one of them ready
    except zmq.Again:
        time.sleep(0.001)
os._exit(0)
"""


def confine(service: Running) -> None:
    """From now on it gets ROOM and no more: setrlimit(2), RLIMIT_AS."""
    for line in Path(f"/proc/{service.pid}/status").read_text().splitlines():
        if line.startswith("VmSize:"):
            limit = int(line.split()[1]) * 1024 + ROOM
            resource.prlimit(service.pid, resource.RLIMIT_AS, (limit, limit))


def server_key(service: Running) -> str:
    return service.log.read_text().split("its own key is ")[1].split()[0]


def flooded(service: Running, neighbour: Client, program: str, endpoint: str, size: int, *curve: str) -> float:
    """Flood ``endpoint`` with parts of ``size`` bytes while ``neighbour`` asks; its longest wait in seconds."""
    argv = [sys.executable, "-c", program, endpoint, str(SECONDS), str(size), *curve]
    longest, peak = 0.0, 0
    neighbour.health()  # connected before
    with subprocess.Popen(argv) as flood:
        try:
            while flood.poll() is None:
                asked = time.monotonic()
                neighbour.health()
                longest = max(longest, time.monotonic() - asked)
                peak = max(peak, service.smaps("Rss"))
                time.sleep(0.02)
        finally:
            flood.kill()
    print(f"{service.name} parts of {size}: peak {peak / MIB:.1f} MiB RSS, longest wait {longest:.3f} s", end=" ")
    print(f"{dropped(neighbour):g} connections dropped")
    return longest


def dropped(client: Client) -> float:
    """Connections of this service that were ended for it."""
    (samples,) = [family[3] for family in client.metrics() if family[0] == "service_connections_dropped_total"]
    value: float = samples[0][1]
    return value


@pytest.mark.parametrize("size", [1, 200, 60_000])
def test_parts_without_end_on_a_unix_socket(base: Path, size: int) -> None:
    with Running("storage", base) as service:
        service.ready()
        confine(service)
        with Storage.local(str(service.run), timeout=20) as client:
            key = client.put(bytes(300_000))
            assert flooded(service, client, RAW, f"{service.run}/storage.sock", size) < 5
            assert client.get(key) == bytes(300_000)
            assert dropped(client) >= 1


@pytest.mark.parametrize("size", [1, 1000, 60_000])
def test_parts_without_end_by_an_allowed_key(base: Path, size: int) -> None:
    hostile, honest = transport.Key(transport.new_secret()), transport.Key(transport.new_secret())
    port = free_port()
    with Running("identity", base, port=port, clients=[hostile.public, honest.public]) as service:
        service.ready()
        confine(service)
        endpoint, server = f"tcp://127.0.0.1:{port}", server_key(service)
        with Identity(endpoint, (honest, server), 20) as client:
            assert flooded(service, client, CURVE, endpoint, size, server, hostile.public, hostile.secret) < 5
            assert client.verify(b"x", client.sign(b"x"))
            assert dropped(client) >= 1


def test_parts_without_end_at_a_full_node(base: Path) -> None:
    """The listening socket of another room is guarded as well."""
    hostile = transport.Key(transport.new_secret())
    port = free_port()
    link = {"mode": "full", "listen": f"tcp://127.0.0.1:{port}", "peers": [{"key": hostile.public}]}
    with Running("node", base, p2p=link) as service:
        service.ready()
        confine(service)
        with Node.local(str(service.run), timeout=20) as client:
            curve = (client.key(), hostile.public, hostile.secret)
            assert flooded(service, client, CURVE, f"tcp://127.0.0.1:{port}", 200, *curve) < 5
            assert dropped(client) >= 1


def asked(client: Client) -> str:
    """One request: '', the code of its refusal, or 'cut off'."""
    try:
        client.health()
    except ServiceError as error:
        return error.code
    except TimedOutError:
        return "cut off"
    return ""


def test_whole_requests_without_end_are_busy_then_cut_off_and_a_neighbour_does_not_notice(base: Path) -> None:
    hostile, honest = transport.Key(transport.new_secret()), transport.Key(transport.new_secret())
    port = free_port()
    with Running("identity", base, port=port, clients=[hostile.public, honest.public]) as service:
        service.ready()
        endpoint, server = f"tcp://127.0.0.1:{port}", server_key(service)
        with Identity(endpoint, (honest, server), 20) as client, Identity(endpoint, (hostile, server), 2) as flood:
            codes = [code for code in iter(lambda: asked(flood), "cut off") if code]
            assert set(codes) == {"busy"}
            assert client.health()["refused"] >= len(codes)
            with Identity(endpoint, (hostile, server), 1) as again, pytest.raises(TimedOutError):
                again.health()
            assert client.verify(b"x", client.sign(b"x"))
            cut = time.monotonic()

            def back() -> bool:
                with Identity(endpoint, (hostile, server), 1) as again:
                    return asked(again) == ""

            until(back, "let in again")
            assert time.monotonic() - cut <= PAUSE + 5


def test_a_large_honest_request_is_no_flood(base: Path) -> None:
    """Pieces as large as they may be, one after the other and without waiting, on both kinds of socket."""
    key = transport.Key(transport.new_secret())
    port = free_port()
    with Running("storage", base, port=port, clients=[key.public]) as service:
        service.ready()
        data = bytes(512 * 1024)
        with (
            Storage.local(str(service.run), 20) as local,
            Storage(f"tcp://127.0.0.1:{port}", (key, server_key(service)), 20) as remote,
        ):
            for client in (local, remote):
                blob = client.put_stream((data for _ in range(40)), 40 * len(data))
                assert sum(len(piece) for piece in client.get_stream(blob)) == 40 * len(data)
            assert dropped(local) == 0


def test_connections_that_say_nothing_do_not_use_up_the_descriptors(base: Path) -> None:
    """Without a bound of our own libzmq finds none for the next one, and turns round about it."""
    with Running("identity", base) as service:
        service.ready()
        resource.prlimit(service.pid, resource.RLIMIT_NOFILE, (300, 300))
        with Identity.local(str(service.run), 20) as client, contextlib.ExitStack() as stack:
            client.health()
            path = str(service.run / "identity.sock")
            for _ in range(600):
                idle = stack.enter_context(socket.socket(socket.AF_UNIX))
                with contextlib.suppress(BlockingIOError, ConnectionError):
                    idle.setblocking(False)
                    idle.connect(path)
                if len(list(Path(f"/proc/{service.pid}/fd").iterdir())) > 250:
                    time.sleep(0.01)
            assert client.verify(b"x", client.sign(b"x"))
            assert dropped(client) > 0
            assert len(list(Path(f"/proc/{service.pid}/fd").iterdir())) < 300
        with Identity.local(str(service.run), 20) as client:
            assert client.health()["pid"] == service.pid
