"""The client against servers that are strangers, silent, gone, or say no."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge_agent.control import wire
from edge_agent.control.client import AgentError, Client, NotRunningError

HELLO = wire.pack(wire.hello("9.9.9"))
Serve = Callable[[Callable[[socket.socket], None]], str]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """A server that gives its one connection to a function."""
    threads: list[threading.Thread] = []
    listener = socket.socket(socket.AF_UNIX)

    def start(act: Callable[[socket.socket], None]) -> str:
        path = str(tmp_path / "control")
        listener.bind(path)
        listener.listen()

        def run() -> None:
            sock, _address = listener.accept()
            with sock:
                act(sock)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        threads.append(thread)
        return path

    yield start
    for thread in threads:
        thread.join(10)
    listener.close()


def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(NotRunningError):
        Client(str(tmp_path / "none" / "control"))
    with pytest.raises(NotRunningError):
        Client(str(tmp_path / "control"))
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(tmp_path / "control"))
    with pytest.raises(NotRunningError):
        Client(str(tmp_path / "control"))


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", "protocol"),
        (wire.pack({"id": 1}), "protocol"),
        (wire.pack({"edge_agent": 2, "version": "3.0"}), "protocol"),
        (b"\0\0\0\x05abc", "gone"),
        (b"", "gone"),
    ],
)
def test_strangers_are_refused(serve: Serve, data: bytes, code: str) -> None:
    path = serve(lambda sock: sock.sendall(data))
    with pytest.raises(AgentError) as caught:
        Client(path)
    assert caught.value.code == code


def test_a_silent_server_is_left(serve: Serve) -> None:
    def act(sock: socket.socket) -> None:
        sock.recv(1)

    path = serve(act)
    with pytest.raises(AgentError) as caught:
        Client(path, timeout=0.05)
    assert caught.value.code == "timeout"


def test_a_refusal_of_the_connection_is_told(serve: Serve) -> None:
    refusal = wire.pack(wire.error(0, "permission", "user 7 may not", "use sudo"))
    path = serve(lambda sock: sock.sendall(HELLO + refusal))
    with Client(path) as client, pytest.raises(AgentError, match="user 7 may not; fix: use sudo") as caught:
        client.call("status")
    assert caught.value.code == "permission"


def test_an_answer_that_stays_out(serve: Serve) -> None:
    def act(sock: socket.socket) -> None:
        sock.sendall(HELLO)
        while sock.recv(1000):
            pass

    with Client(serve(act)) as client:
        with pytest.raises(AgentError) as caught:
            client.call("status", timeout=0.05)
        assert caught.value.code == "timeout"


def test_answers_are_told_apart_by_id(serve: Serve) -> None:
    def act(sock: socket.socket) -> None:
        sock.sendall(HELLO)
        decoder = wire.Decoder(wire.PUBLIC_LIMIT)
        requests: list[dict[object, object]] = []
        while len(requests) < 3:
            requests += decoder.feed(sock.recv(1000))
        assert [request["verb"] for request in requests] == ["switch", "events", "status"]
        for ident in (2, 1, 3):
            data = wire.pack(wire.result(ident, {"n": ident}))
            sock.sendall(data[:3])
            sock.sendall(data[3:])

    with Client(serve(act)) as client:
        client.begin("switch")
        client.begin("events")
        assert client.version == "9.9.9"
        assert client.call("status") == {"n": 3}


def test_what_cannot_be_sent_is_an_agent_error(serve: Serve) -> None:
    with Client(serve(lambda sock: sock.sendall(HELLO))) as client, pytest.raises(AgentError, match="longer than"):
        client.call("switch", {"plan": b"x" * (wire.PRIVILEGED_LIMIT + 1)})
