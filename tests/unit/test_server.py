"""The control socket against clients that are slow, silent, hostile, many, or not allowed. Time is an input."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import stat
import struct
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge_agent.control import connection, server, wire
from edge_agent.control.connection import Request
from edge_agent.control.server import Server
from edge_agent.host.loop import Loop

NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="connecting as another user needs root")


def keep(_request: Request) -> None:
    """A handler that answers later, or never."""


class Rig:
    """A server on a loop with a clock of its own, driven by turns that never wait."""

    def __init__(self, directory: str, gid: int | None = None) -> None:
        self.clock = 1000.0
        self.loop = Loop(now=lambda: self.clock)
        self.path = f"{directory}/control.sock"
        self.requests: list[Request] = []
        self.handler: Callable[[Request], None] = lambda request: request.reply({"verb": request.verb})
        self.server = Server(self.loop, self.path, self._handle, uid=os.geteuid(), gid=gid, version="9.9.9")
        self.clients: list[socket.socket] = []

    def _handle(self, request: Request) -> None:
        self.requests.append(request)
        self.handler(request)

    def connect(self) -> Peer:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(0)
        self.clients.append(sock)
        with contextlib.suppress(BlockingIOError):
            sock.connect(self.path)
        return Peer(self, sock)

    def turns(self, count: int = 20) -> None:
        for _ in range(count):
            self.loop.turn(0)

    def quiet(self) -> bool:
        """Whether the loop would now sleep: no descriptor is ready, so an endless turn would not return."""
        before = self.loop.wakeups
        poller = select.epoll.fromfd(os.dup(self.loop._epoll.fileno()))
        try:
            return not poller.poll(0) and self.loop.wakeups == before
        finally:
            poller.close()

    def sleeps_for_ever(self) -> bool:
        return self.loop._timeout(None) is None

    def close(self) -> None:
        for sock in self.clients:
            sock.close()
        self.server.close()
        self.loop._epoll.close()


class Peer:
    """A client that sends any bytes and reads when told."""

    def __init__(self, rig: Rig, sock: socket.socket) -> None:
        self.rig = rig
        self.sock = sock
        self.decoder = wire.Decoder(2**32)
        self.closed = False

    def send(self, data: bytes) -> int:
        sent = self.sock.send(data)
        self.rig.turns()
        return sent

    def ask(self, verb: str = "status", ident: int = 1, **args: object) -> None:
        self.send(wire.pack(wire.request(ident, verb, args)))

    def read(self, amount: int = 2**24) -> list[dict[object, object]]:
        """Frames that have come; notices the end of the stream."""
        frames: list[dict[object, object]] = []
        self.rig.turns(5)
        while amount > 0:
            try:
                data = self.sock.recv(min(amount, 2**16))
            except BlockingIOError:
                break
            except ConnectionResetError:
                data = b""
            if not data:
                self.closed = True
                break
            amount -= len(data)
            frames += self.decoder.feed(data)
            self.rig.turns(5)
        return frames


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(str(tmp_path))
    yield made
    made.close()


@pytest.fixture
def open_directory() -> Iterator[str]:
    """A directory that other users reach, as /run/edge-agent is."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        yield directory


@contextlib.contextmanager
def user(uid: int, gid: int, groups: list[int]) -> Iterator[None]:
    """Connect as somebody else: the kernel records the effective ids."""
    before = os.getgroups()
    os.setgroups(groups)
    os.setegid(gid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(before)


def test_hello_request_reply(rig: Rig) -> None:
    peer = rig.connect()
    assert peer.read() == [{"edge_agent": 1, "version": "9.9.9"}]
    peer.ask("status", 7, deep=True)
    assert peer.read() == [{"id": 7, "ok": True, "result": {"verb": "status"}}]
    request = rig.requests[0]
    assert (request.verb, request.args, request.privileged, request.closed) == ("status", {"deep": True}, True, True)
    assert (request.peer.pid, request.peer.uid) == (os.getpid(), os.geteuid())
    assert rig.quiet()
    assert rig.sleeps_for_ever()


def test_a_request_in_single_bytes(rig: Rig) -> None:
    peer = rig.connect()
    for byte in wire.pack(wire.request(1, "status", {})):
        peer.send(bytes((byte,)))
    assert len(peer.read()) == 2
    assert rig.quiet()


def test_failures_carry_code_why_and_fix(rig: Rig) -> None:
    rig.handler = lambda request: request.fail("busy", "a switch is under way", "wait")
    peer = rig.connect()
    peer.ask()
    assert peer.read()[1] == wire.error(1, "busy", "a switch is under way", "wait")


def test_many_requests_at_once_are_answered_one_per_turn(rig: Rig) -> None:
    peer = rig.connect()
    rig.turns()
    peer.sock.send(b"".join(wire.pack(wire.request(i, "status", {})) for i in range(100)))
    before = len(rig.requests)
    rig.turns(10)
    assert 0 < len(rig.requests) - before <= 10
    rig.turns(100)
    assert [frame["id"] for frame in peer.read()[1:]] == list(range(100))
    assert rig.quiet()


def test_a_flood_delays_others_by_one_request_of_each(rig: Rig) -> None:
    flooders = [rig.connect() for _ in range(10)]
    rig.turns()
    for peer in flooders:
        peer.sock.send(b"".join(wire.pack(wire.request(i, "status", {})) for i in range(50)))
    rig.turns(30)
    honest = rig.connect()
    honest.sock.send(wire.pack(wire.request(1, "plan", {})))
    before = len(rig.requests)
    while "plan" not in [request.verb for request in rig.requests]:
        rig.turns(1)
    assert len(rig.requests) - before <= len(flooders) + 4  # and the turns to accept and to read
    rig.turns(500)
    assert len(rig.requests) == 501
    assert rig.quiet()


def test_a_queued_connection_may_vanish(rig: Rig) -> None:
    peers = [rig.connect() for _ in range(5)]
    rig.turns()
    for peer in peers:
        peer.sock.send(wire.pack(wire.request(1, "status", {})) * 5)
    rig.turns(2)
    for peer in peers[:4]:
        peer.sock.close()
    rig.turns(50)
    assert len(peers[4].read()) == 6
    assert rig.quiet()


def test_late_answers_come_in_any_order(rig: Rig) -> None:
    rig.handler = keep
    peer = rig.connect()
    peer.ask("events", 1)
    peer.ask("logs", 2)
    rig.requests[1].reply({"n": 2})
    rig.requests[0].reply({"n": 1})
    rig.requests[0].reply({"n": "twice"})
    assert [frame["id"] for frame in peer.read()[1:]] == [2, 1]
    assert rig.quiet()


def test_pending_requests_are_bounded_and_the_rest_is_not_read(rig: Rig) -> None:
    rig.handler = keep
    peer = rig.connect()
    peer.send(b"".join(wire.pack(wire.request(i, "events", {})) for i in range(20)))
    rig.turns(50)
    assert len(rig.requests) == connection.MAX_PENDING
    assert rig.quiet()
    assert rig.sleeps_for_ever()
    rig.requests[0].reply({})
    rig.turns(50)
    assert len(rig.requests) == connection.MAX_PENDING + 1
    for _ in range(20):
        for request in list(rig.requests):
            request.reply({})
        rig.turns(5)
    assert len(rig.requests) == 20


def test_a_client_that_goes_is_told_to_who_works_for_it(rig: Rig) -> None:
    gone = []
    rig.handler = lambda request: setattr(request, "when_closed", lambda: gone.append(request))
    peer = rig.connect()
    peer.ask("events")
    request = rig.requests[0]
    open_before = not request.closed
    peer.sock.close()
    rig.turns()
    assert (open_before, rig.requests[0].closed) == (True, True)
    assert gone == [rig.requests[0]]
    rig.requests[0].reply({})
    assert rig.quiet()


def test_half_closed_clients_get_their_answer(rig: Rig) -> None:
    rig.handler = keep
    peer = rig.connect()
    peer.ask("events")
    peer.sock.shutdown(socket.SHUT_WR)
    rig.turns()
    assert rig.quiet()
    rig.requests[0].reply({"late": True})
    assert peer.read()[1]["result"] == {"late": True}
    assert peer.read() == []
    assert peer.closed
    assert rig.quiet()


def test_half_closed_clients_that_vanish_are_noticed(rig: Rig) -> None:
    rig.handler = keep
    peer = rig.connect()
    peer.ask("events")
    peer.sock.shutdown(socket.SHUT_WR)
    rig.turns()
    peer.sock.close()
    rig.turns()
    assert rig.requests[0].closed
    assert rig.quiet()


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xff\xff\xff\xff",
        b"\x00\x00\x00\x00",
        struct.pack(">I", 5) + b"\xdd\xff\xff\xff\xff",
        struct.pack(">I", 1) + b"\x80",
        wire.pack({"id": 1, "verb": "status", "args": {"a": "b"}, "x": 1}),
    ],
)
def test_garbage_gets_one_error_and_the_door(rig: Rig, data: bytes) -> None:
    peer = rig.connect()
    peer.send(data)
    frames = peer.read()
    assert [frame.get("error", {}).get("code") for frame in frames[1:]] == ["protocol"]  # type: ignore[attr-defined]
    assert peer.closed
    assert rig.requests == []
    other = rig.connect()
    other.ask()
    assert len(other.read()) == 2


def test_a_truncated_request_is_closed_after_the_stall_time(rig: Rig) -> None:
    peer = rig.connect()
    peer.send(wire.pack(wire.request(1, "status", {}))[:-1])
    assert not rig.sleeps_for_ever()
    assert rig.quiet()
    rig.clock += connection.STALL - 0.1
    rig.turns()
    peer.read()
    closed_early = peer.closed
    rig.clock += 0.2
    peer.read()
    assert (closed_early, peer.closed) == (False, True)
    assert rig.sleeps_for_ever()
    assert rig.requests == []


def test_a_slow_drip_does_not_win_time(rig: Rig) -> None:
    peer = rig.connect()
    for byte in wire.pack(wire.request(1, "status", {"a": "x" * 100})):
        if not peer.closed:
            with contextlib.suppress(BrokenPipeError):
                peer.send(bytes((byte,)))
            rig.clock += 1.0
            peer.read()
    assert peer.closed
    assert rig.requests == []


def test_a_steady_client_is_not_taken_for_a_slow_one(rig: Rig) -> None:
    """Requests whose ends never meet the ends of the pieces they come in."""
    peer = rig.connect()
    stream = b"".join(wire.pack(wire.request(i, "status", {})) for i in range(40))
    for start in range(0, len(stream), 30):
        peer.send(stream[start : start + 30])
        rig.clock += 1.0
    assert len(peer.read()) == 41


def test_silent_clients_cost_no_timer(rig: Rig) -> None:
    peers = [rig.connect() for _ in range(10)]
    rig.turns()
    assert rig.sleeps_for_ever()
    rig.clock += 1e6
    rig.turns()
    assert all(peer.read() and not peer.closed for peer in peers)
    assert rig.quiet()


def test_an_unread_reply_is_bounded_and_closed(rig: Rig) -> None:
    big = b"x" * (wire.REPLY_LIMIT - 1000)
    rig.handler = lambda request: request.reply({"data": big})
    peer = rig.connect()
    frames = b"".join(wire.pack(wire.request(i, "logs", {})) for i in range(50))
    peer.send(frames)
    rig.turns(100)
    assert len(rig.requests) == 1  # nothing more is read or answered while a reply waits
    assert rig.quiet()
    rig.clock += connection.STALL + 0.1
    rig.turns()
    assert rig.server._connections == {}
    assert rig.sleeps_for_ever()
    assert rig.quiet()


def test_a_big_reply_reaches_a_reader(rig: Rig) -> None:
    big = bytes(range(256)) * 8192
    rig.handler = lambda request: request.reply({"data": big})
    peer = rig.connect()
    peer.ask("logs")
    peer.ask("logs", 2)
    frames = peer.read()
    assert [frame.get("result") for frame in frames[1:]] == [{"data": big}] * 2
    assert rig.quiet()
    rig.clock += connection.STALL + 1
    rig.turns()
    assert rig.sleeps_for_ever()
    assert not peer.closed


def test_a_reply_above_the_limit_is_an_error(rig: Rig) -> None:
    rig.handler = lambda request: request.reply({"data": b"x" * (wire.REPLY_LIMIT + 1)})
    peer = rig.connect()
    peer.ask("logs")
    assert peer.read()[1]["error"]["code"] == "internal"  # type: ignore[index]


def test_several_big_answers_due_at_once_end_the_connection(rig: Rig) -> None:
    rig.handler = keep
    peer = rig.connect()
    for ident in range(3):
        peer.ask("logs", ident)
    for request in list(rig.requests):
        request.reply({"data": b"x" * (2 * 1024 * 1024)})
    rig.turns()
    assert rig.server._connections == {}


def test_a_hundred_connections(rig: Rig) -> None:
    """More than fit: the longest idle make room, and the last to come is served."""
    peers = []
    for _ in range(100):
        peers.append(rig.connect())
        rig.clock += 0.01
        rig.turns(2)
    assert len(rig.server._connections) == server.MAX_CONNECTIONS
    peers[-1].ask()
    assert len(peers[-1].read()) == 2
    for peer in peers:
        peer.read()
    assert sum(not peer.closed for peer in peers) == server.MAX_CONNECTIONS
    assert rig.quiet()
    assert rig.sleeps_for_ever()


def test_busy_connections_are_not_closed_for_new_ones(rig: Rig) -> None:
    rig.handler = keep
    for _ in range(server.MAX_CONNECTIONS):
        rig.connect().ask("events")
    late = rig.connect()
    frames = late.read()
    assert frames[1]["error"]["code"] == "busy"  # type: ignore[index]
    assert late.closed
    assert len(rig.requests) == server.MAX_CONNECTIONS
    assert not any(request.closed for request in rig.requests)


def test_running_out_of_descriptors_pauses_accepting(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(_sock: object) -> tuple[int, object]:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(server, "_accept", exhausted)
        peer = rig.connect()
        rig.turns(3)
        assert rig.quiet()  # no spinning on a listener that stays ready
    rig.clock += server.RETRY
    rig.turns()
    assert len(peer.read()) == 1


def test_the_socket_is_private_from_its_first_moment(rig: Rig) -> None:
    status = Path(rig.path).stat()
    assert stat.S_IMODE(status.st_mode) == 0o660
    assert [path.name for path in Path(rig.path).parent.iterdir()] == ["control.sock"]


def test_a_stale_socket_is_replaced_and_a_foreign_one_left(tmp_path: Path) -> None:
    first = Rig(str(tmp_path))
    second = Rig(str(tmp_path))
    second.connect().ask()
    assert len(second.requests) == 1
    first.close()
    assert Path(second.path).exists()
    second.close()
    assert not Path(second.path).exists()


def test_a_path_longer_than_a_socket_address(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 120)
    deep.mkdir()
    made = Server(Loop(), f"{deep}/control.sock", keep, uid=0, gid=None)
    assert (deep / "control.sock").is_socket()
    made.close()


def test_a_missing_directory_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Server(Loop(), f"{tmp_path}/none/control.sock", keep, uid=0, gid=None)


@as_root
@pytest.mark.parametrize(
    ("gid", "groups", "admitted"), [(4242, [], True), (1, [7, 4242, 9], True), (1, [7, 9], False), (NOBODY, [], False)]
)
def test_members_of_the_group_are_admitted(open_directory: str, gid: int, groups: list[int], admitted: bool) -> None:
    rig = Rig(open_directory, gid=4242)
    try:
        assert Path(rig.path).stat().st_gid == 4242
        Path(rig.path).chmod(0o666)  # past the file mode, to see the second check
        with user(NOBODY, gid, groups):
            peer = rig.connect()
        peer.ask("status") if admitted else rig.turns()
        frames = peer.read()
        if admitted:
            assert len(frames) == 2
            assert not rig.requests[0].privileged
            assert rig.requests[0].peer.uid == NOBODY
        else:
            assert frames[1]["error"]["code"] == "permission"  # type: ignore[index]
            assert peer.closed
            assert rig.requests == []
    finally:
        rig.close()


@as_root
def test_the_public_has_smaller_frames_and_leaves_room_for_root(open_directory: str) -> None:
    rig = Rig(open_directory, gid=4242)
    rig.handler = keep
    try:
        with user(NOBODY, 4242, []):
            peers = [rig.connect() for _ in range(server.MAX_PUBLIC)]
        for peer in peers:
            peer.ask("events")
        with user(NOBODY, 4242, []):
            late = rig.connect()
        assert late.read()[1]["error"]["code"] == "busy"  # type: ignore[index]
        root = rig.connect()
        root.ask("events")
        assert len(rig.requests) == server.MAX_PUBLIC + 1
        peers[0].sock.send(struct.pack(">I", wire.PUBLIC_LIMIT + 1))
        peers[0].read()
        assert peers[0].closed
        root.sock.send(struct.pack(">I", wire.PUBLIC_LIMIT + 1))
        root.read()
        assert not root.closed
    finally:
        rig.close()
