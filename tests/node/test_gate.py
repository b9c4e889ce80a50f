"""Who is let in, and who is not: real sockets, each refusal beside the naive socket that would have let the peer in."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq

from edge_agent.peers import transport
from tests.node.bundled import free_port

Dealer = zmq.Socket[bytes]
Configure = Callable[[Dealer], None]
WAIT = 0.7  # seconds for what must not happen; what happens is waited for no longer than it takes
SERVER, KNOWN, UNKNOWN = (transport.Key(transport.new_secret()) for _ in range(3))


class Door:
    """A listening socket, its gate, and the clients of one test."""

    def __init__(self, directory: str) -> None:
        self.context, self.clients = transport.context(), zmq.Context()
        self.gate = transport.Gate(self.context)
        self.endpoint = f"tcp://127.0.0.1:{free_port()}"
        self.path = f"{directory}/s.sock"
        self.keys = {KNOWN.public}
        self.answering = True
        self.sockets: list[transport.Socket] = []  # open until the end of the test

    def close(self) -> None:
        for socket in self.sockets:
            socket.close(linger=0)
        self.clients.destroy(linger=0)
        self.gate.close()
        self.context.destroy(linger=0)

    def forget_the_gate(self) -> None:
        """From now on nobody answers handshakes."""
        self.gate.socket.unbind(transport.ZAP_ENDPOINT)
        self.answering = False

    def curve(self) -> transport.Socket:
        keys = frozenset(self.keys)
        return self.kept(
            transport.listen_curve(self.context, self.gate, self.endpoint, SERVER, keys, "x.clients", 1000)
        )

    def kept(self, socket: transport.Socket) -> transport.Socket:
        self.sockets.append(socket)
        return socket

    def local(self) -> transport.Socket:
        self.endpoint = f"ipc://{self.path}"
        return self.kept(transport.listen_local(self.context, self.gate, self.path, "x.local", 1000))

    def naive(self, *, domain: str = "", enforce: bool = False) -> transport.Socket:
        """A CURVE server as most examples have it."""
        socket = self.context.socket(zmq.ROUTER)
        socket.curve_server = True
        socket.curve_secretkey = SERVER.secret.encode()
        if domain:
            socket.setsockopt_string(zmq.ZAP_DOMAIN, domain)
        socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, int(enforce))
        socket.bind(self.endpoint)
        return self.kept(socket)

    def lets_in(self, socket: transport.Socket, configure: Configure) -> bool:
        """Does a message of such a client arrive?"""
        client: Dealer = self.clients.socket(zmq.DEALER)
        client.linger = 0
        configure(client)
        client.connect(self.endpoint)
        client.send(b"hello")
        poller = zmq.Poller()
        poller.register(socket, zmq.POLLIN)
        if self.answering:
            poller.register(self.gate.socket, zmq.POLLIN)
        end = time.monotonic() + WAIT
        try:
            while (rest := end - time.monotonic()) > 0:
                ready = dict(poller.poll(int(rest * 1000) + 1))
                if self.gate.socket in ready:
                    self.gate.serve()
                if socket in ready:
                    return transport.receive(socket, 2) is not None
        finally:
            client.close(linger=0)
        return False


@pytest.fixture
def door() -> Iterator[Door]:
    with tempfile.TemporaryDirectory(prefix="ea-", dir="/tmp") as directory:
        made = Door(directory)
        yield made
        made.close()


def by_key(own: transport.Key, server: str = SERVER.public) -> Configure:
    def configure(client: Dealer) -> None:
        client.curve_serverkey = server.encode()
        client.curve_publickey, client.curve_secretkey = own.public.encode(), own.secret.encode()

    return configure


def by_null(_client: Dealer) -> None:
    pass


def by_password(client: Dealer) -> None:
    client.plain_username, client.plain_password = b"admin", b"admin"


# -- a port


def test_a_known_key_is_let_in(door: Door) -> None:
    assert door.lets_in(door.curve(), by_key(KNOWN))
    assert door.gate.refused == {"x.clients": 0}


@pytest.mark.parametrize(
    ("configure", "asked"),
    [
        (by_key(UNKNOWN), 1),
        (by_key(KNOWN, UNKNOWN.public), 0),  # another server than it believes: the handshake ends before any question
        (by_null, 0),
        (by_password, 0),
    ],
    ids=["unknown key", "wrong server key", "NULL", "PLAIN"],
)
def test_nobody_else_is(door: Door, configure: Configure, asked: int) -> None:
    socket = door.curve()
    assert not door.lets_in(socket, configure)
    assert (door.gate.refused["x.clients"] >= 1) == bool(asked)
    assert door.lets_in(socket, by_key(KNOWN))  # and it goes on


def test_who_may_not_come_now_is_refused_and_let_in_again_later(door: Door) -> None:
    socket = door.curve()
    banned = {KNOWN.public}
    door.gate.restrict("x.clients", lambda user: user not in banned)
    assert not door.lets_in(socket, by_key(KNOWN))
    banned.clear()
    assert door.lets_in(socket, by_key(KNOWN))
    assert not door.lets_in(socket, by_key(UNKNOWN))  # a restriction lets nobody in


def test_a_revoked_key_is_refused_from_the_next_handshake_on(door: Door) -> None:
    door.gate.rule("x.changing", transport.allow_keys(door.keys))  # any container will do
    socket = door.naive(domain="x.changing", enforce=True)
    assert door.lets_in(socket, by_key(KNOWN))
    door.keys.clear()
    assert not door.lets_in(socket, by_key(KNOWN))


# -- set up wrongly: libzmq fails open, this does not


def test_without_anybody_who_authenticates_nobody_is_let_in(door: Door) -> None:
    door.forget_the_gate()
    assert not door.lets_in(door.curve(), by_key(KNOWN))


@pytest.mark.parametrize("domain", ["", "x.clients"])
def test_a_naive_socket_lets_everybody_in_then(door: Door, domain: str) -> None:
    """What the test above would see without ZAP_ENFORCE_DOMAIN."""
    door.forget_the_gate()
    assert door.lets_in(door.naive(domain=domain), by_key(UNKNOWN))


def test_a_socket_of_no_domain_is_of_nobody(door: Door) -> None:
    door.gate.rule("x.clients", transport.allow_keys(frozenset({KNOWN.public})))
    assert not door.lets_in(door.naive(), by_key(KNOWN))
    assert door.gate.refused[""] >= 1


def test_a_domain_without_a_rule_lets_nobody_in(door: Door) -> None:
    assert not door.lets_in(door.naive(domain="of nobody", enforce=True), by_key(KNOWN))
    assert door.gate.refused["of nobody"] >= 1


@pytest.mark.parametrize("domain", ["", "x.clients"])
def test_an_empty_domain_and_one_that_is_taken_make_no_socket(door: Door, domain: str) -> None:
    door.curve()
    with pytest.raises(transport.TransportError, match="empty or taken"):
        transport.listen_local(door.context, door.gate, door.path, domain, 1000)
    assert not Path(door.path).exists()


def test_without_curve_in_libzmq_there_is_no_context(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zmq, "has", lambda _capability: False)
    with pytest.raises(transport.TransportError, match="without CURVE"):
        transport.context()


# -- a unix socket


def test_our_own_user_is_let_in(door: Door) -> None:
    assert door.lets_in(door.local(), by_null)


@pytest.mark.parametrize("configure", [by_key(KNOWN), by_password], ids=["CURVE", "PLAIN"])
def test_another_mechanism_than_the_sockets_own_is_refused(door: Door, configure: Configure) -> None:
    assert not door.lets_in(door.local(), configure)


def test_on_a_unix_socket_without_anybody_who_authenticates_nobody_is_let_in(door: Door) -> None:
    door.forget_the_gate()
    assert not door.lets_in(door.local(), by_null)


def test_a_rule_for_unix_sockets_lets_nobody_in_by_tcp(door: Door) -> None:
    """An address without credentials at its end is of no local user."""
    door.gate.rule("x.misused", transport.allow_local(0, 0, lambda _pid: frozenset()))
    socket = door.kept(door.context.socket(zmq.ROUTER))
    socket.setsockopt_string(zmq.ZAP_DOMAIN, "x.misused")
    socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
    socket.bind(door.endpoint)
    assert not door.lets_in(socket, by_null)
