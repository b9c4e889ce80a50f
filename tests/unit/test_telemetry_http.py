"""Requests of scrapers: what is one, and what every other sequence of bytes is told."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import pytest

from edge_agent.services.errors import StartError
from edge_agent.services.telemetry_http import MAX_HEAD, MOST, READ, WRITE, Ask, Http, HttpError, answer, parse, refusal

GET = b"GET /metrics?x=1 HTTP/1.1\r\nHost: localhost:9090\r\nAccept: text/plain\r\naccept:*/*;q=0.1\r\n\r\n"


def test_a_request_is_read_once_it_is_complete() -> None:
    assert parse(GET) == Ask("GET", "/metrics", "text/plain,*/*;q=0.1")
    assert all(parse(GET[:length]) is None for length in range(len(GET)))
    assert parse(b"HEAD / HTTP/1.0\n\n") == Ask("HEAD", "/", "")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\r\n\r\n", 400),
        (b"GET /metrics\r\n\r\n", 400),
        (b"GET http://h/metrics HTTP/1.1\r\n\r\n", 400),
        (b"GET  / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n folded: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost : x\r\n\r\n", 400),
        (b"GET /\xff HTTP/1.1\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\n\n", 400),
        (b"POST /metrics HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", 405),
        (b"GET / HTTP/2.0\r\n\r\n", 505),
        (b"GET / " + b"x" * MAX_HEAD, 431),
        (b"GET / HTTP/1.1\r\nA: " + b"x" * MAX_HEAD + b"\r\n\r\n", 431),
    ],
)
def test_what_is_no_request_here_is_told_so(data: bytes, status: int) -> None:
    with pytest.raises(HttpError) as caught:
        parse(data)
    assert caught.value.status == status


def test_a_head_has_no_body_and_the_length_of_one() -> None:
    assert answer(200, "text/plain", b"12345").endswith(b"\r\n\r\n12345")
    headed = answer(200, "text/plain", b"12345", head=True)
    assert headed.endswith(b"\r\n\r\n")
    assert b"Content-Length: 5\r\n" in headed
    assert b"\r\nAllow: GET, HEAD\r\n" in refusal(405)


class Rig:
    """A listener on the loopback with a clock in the test's hand."""

    def __init__(self) -> None:
        self.time = 100.0
        self.asks: list[tuple[Ask, Callable[[bytes], None]]] = []
        self.http = Http("127.0.0.1", 0, lambda ask, reply: self.asks.append((ask, reply)), lambda: self.time)
        self.clients: list[socket.socket] = []

    def client(self, data: bytes = b"") -> socket.socket:
        made = socket.create_connection(("127.0.0.1", self.http.port), timeout=5)
        self.clients.append(made)
        made.sendall(data)
        self.http.ready()
        self.http.ready()
        return made

    def pass_time(self, seconds: float) -> None:
        self.time += seconds
        due = self.http.deadline()
        if due is not None and due <= self.time:
            self.http.tick(self.time)


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    yield made
    made.http.close()
    for client in made.clients:
        client.close()


def closed(client: socket.socket) -> bool:
    client.settimeout(0.2)
    try:
        return client.recv(1) == b""
    except TimeoutError:
        return False
    except ConnectionResetError:
        return True


def test_an_answer_comes_when_it_is_there_and_ends_the_connection(rig: Rig) -> None:
    client = rig.client(GET)
    ((ask, reply),) = rig.asks
    assert ask.path == "/metrics"
    assert rig.http.deadline() == rig.time + WRITE
    reply(b"the answer")
    rig.http.ready()
    assert client.recv(100) == b"the answer"
    assert closed(client)
    assert rig.http.deadline() is None, "at rest there is no timer"
    reply(b"again")  # nobody is there, and nothing happens


def test_a_request_that_is_none_is_refused(rig: Rig) -> None:
    client = rig.client(b"PUT / HTTP/1.1\r\n\r\n")
    rig.http.ready()
    assert client.recv(100).startswith(b"HTTP/1.1 405 ")
    assert (rig.http.refused, rig.asks) == (1, [])


def test_who_asks_too_slowly_is_cut_whatever_it_sends(rig: Rig) -> None:
    client = rig.client(GET[:10])
    for byte in GET[10:14]:
        rig.pass_time(READ / 5)
        client.sendall(bytes([byte]))
        rig.http.ready()
    assert not closed(client)
    rig.pass_time(READ / 5)
    assert closed(client)
    assert rig.http.cut == 1


def test_who_does_not_read_is_cut(rig: Rig) -> None:
    client = rig.client(GET)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    rig.asks[0][1](b"x" * 50_000_000)
    rig.http.ready()
    rig.pass_time(WRITE)
    assert rig.http.cut == 1
    assert rig.http.deadline() is None


def test_who_hangs_up_while_it_waits_is_forgotten(rig: Rig) -> None:
    client = rig.client(GET + b"more that nobody reads")
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()
    rig.http.ready()
    assert rig.http.deadline() is None
    assert len(rig.asks) == 1


def test_of_too_many_the_oldest_that_has_not_asked_gives_way(rig: Rig) -> None:
    idle = []
    for _ in range(MOST):
        rig.time += 0.001
        idle.append(rig.client())
    asking = rig.client(GET)
    assert [ask.path for ask, _reply in rig.asks] == ["/metrics"]
    assert closed(idle[0])
    assert not closed(idle[1])
    assert not closed(asking)
    assert rig.http.cut == 1


def test_when_all_wait_for_an_answer_the_newest_is_cut(rig: Rig) -> None:
    for _ in range(MOST):
        rig.client(GET)
    late = rig.client(GET)
    assert closed(late)
    assert len(rig.asks) == MOST


def test_a_port_in_use_is_said() -> None:
    first = Http("127.0.0.1", 0, lambda _ask, _reply: None, lambda: 0.0)
    with pytest.raises(StartError, match=rf"cannot listen on 127.0.0.1 port {first.port}: .*; fix: another port"):
        Http("127.0.0.1", first.port, lambda _ask, _reply: None, lambda: 0.0)
    first.close()
