"""One client of the control socket: its requests, its replies, and what it may cost.

Nothing here waits, and nothing is kept without a bound: one incomplete request, ``MAX_PENDING`` requests that wait for
their answers, one unsent reply. What is under way but does not move for ``STALL`` seconds ends the connection.
Resident.
"""

from __future__ import annotations

from collections import deque

from ..host.loop import ERROR, HANGUP, READ, WRITE
from ..records import Record
from . import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Callable
    from typing import Any

    from .server import Server

MAX_PENDING = 4  # requests of one connection that wait for their answers; more are not read until one is given
STALL = 5.0  # seconds for the rest of a request to arrive, or for a reply to be read
CHUNK = 64 * 1024  # bytes of one recv(2)


class Peer(Record):
    """Who is on the other side, as the kernel recorded it at connect(2)."""

    pid: int
    uid: int
    gid: int


class Request:
    """One request. Answer it once, now or later, with ``reply`` or ``fail``; an answer nobody waits for is dropped."""

    __slots__ = ("_connection", "_ident", "args", "peer", "privileged", "verb", "when_closed")

    def __init__(self, connection: Connection, ident: int, verb: str, args: dict[str, Any]) -> None:
        self._connection: Connection | None = connection
        self._ident = ident
        self.verb = verb
        self.args = args
        self.peer = connection.peer
        self.privileged = connection.privileged  # root or the agent's own user
        self.when_closed: Callable[[], None] | None = None  # called when the client goes before the answer came

    @property
    def closed(self) -> bool:
        """Answered, or the client is gone."""
        return self._connection is None

    def reply(self, result: dict[str, Any]) -> None:
        """Answer with what was asked for."""
        self._answer(wire.result(self._ident, result))

    def fail(self, code: str, why: str, fix: str = "") -> None:
        """Answer with an error: ``code`` for programs, ``why`` and ``fix`` for people."""
        self._answer(wire.error(self._ident, code, why, fix))

    def _answer(self, frame: dict[str, Any]) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            data = wire.pack(frame, wire.REPLY_LIMIT)
        except wire.WireError as error:
            data = wire.pack(wire.error(self._ident, "internal", f"the agent's answer {error}"))
        connection.answer(self, data)

    def _drop(self) -> None:
        self._connection = None
        if self.when_closed is not None:
            self.when_closed()


class Connection:
    """One client: a decoder for what comes, a queue of replies, the requests that wait for their answers."""

    def __init__(self, server: Server, sock: _socket.socket, peer: Peer, *, privileged: bool) -> None:
        self._server = server
        self._sock = sock
        self.fd = sock.fileno()
        self.peer = peer
        self.privileged = privileged
        limit = wire.PRIVILEGED_LIMIT if privileged else wire.PUBLIC_LIMIT
        self._decoder = wire.Decoder(limit, requests=True)
        self._pending: list[Request] = []
        self._unsent: deque[memoryview] = deque()
        self._unsent_size = 0
        self._mask: int | None = None
        self._ended = False  # the peer sends no more
        self.closed = False
        self.deadline: float | None = None
        self.used = server.loop.now()

    @property
    def idle(self) -> bool:
        """Nothing is under way: closing it takes nothing from anybody."""
        return not (self._pending or self._unsent or self._decoder.buffered)

    def ready(self, events: int) -> None:
        """The loop's call: one receive or one send, and a place in the queue for the next request."""
        if events & (ERROR | HANGUP) and not self._mask:
            self.close()
            return
        if self._unsent:
            self._flush()
        elif not self._decoder.ready and events & (READ | HANGUP | ERROR):
            self._receive()
        self.settle()
        if self._asks:
            self._server.enqueue(self)

    def send(self, data: bytes) -> None:
        """Send now what the socket takes and keep the rest, never more than one reply above the limit."""
        if self.closed:
            return
        if self._unsent_size + len(data) > wire.REPLY_LIMIT + wire.PUBLIC_LIMIT:
            self.close()  # several big answers came due at once and the peer reads none of them
            return
        self._unsent.append(memoryview(data))
        self._unsent_size += len(data)
        if len(self._unsent) == 1:
            self._flush()

    def answer(self, request: Request, data: bytes) -> None:
        """The answer to one of the pending requests."""
        self._pending.remove(request)
        self.used = self._server.loop.now()
        self.send(data)
        self.settle()

    def close(self) -> None:
        """Close, and tell who works on a request that its client is gone."""
        if self.closed:
            return
        self.closed = True
        self.deadline = None
        self._unsent.clear()
        self._server.forget(self)
        self._sock.close()
        pending, self._pending = self._pending, []
        for request in pending:
            request._drop()

    def _receive(self) -> None:
        try:
            data = self._sock.recv(CHUNK)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.close()
            return
        self.used = self._server.loop.now()
        if data:
            self._decoder.push(data)
        else:
            self._ended = True

    @property
    def _asks(self) -> bool:
        """A request is at hand that may be handled now."""
        may = not (self.closed or self._unsent or len(self._pending) >= MAX_PENDING)
        return may and self._decoder.ready

    def dispatch(self) -> None:
        """The server's call when it is this connection's turn: handle one request."""
        if not self._asks:
            return
        try:
            frame = self._decoder.pop()
            if frame is None:
                return
            self.deadline = None  # this request is complete; the next has its own time
            ident, verb, args = wire.check_request(frame)
        except wire.WireError as error:
            self.send(wire.pack(wire.error(0, "protocol", str(error))))
            self.close()
            return
        request = Request(self, ident, verb, args)
        self._pending.append(request)
        self._server.handler(request)
        self.settle()

    def _flush(self) -> None:
        while self._unsent:
            try:
                sent = self._sock.send(self._unsent[0])
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                self.close()
                return
            self._unsent_size -= sent
            if sent < len(self._unsent[0]):
                self._unsent[0] = self._unsent[0][sent:]
            else:
                self._unsent.popleft()
                self.deadline = None

    def settle(self) -> None:
        """Decide what to wait for next, and until when."""
        if self.closed:
            return
        if self._ended and not (self._pending or self._unsent or self._decoder.ready):
            self.close()
            return
        stalled = bool(self._unsent)
        if self._unsent or self._asks:
            mask = WRITE  # with a request at hand the socket's being writable is the call of the next turn
        elif self._ended or len(self._pending) >= MAX_PENDING:
            mask = 0  # the kernel reports a hang-up all the same
        else:
            mask = READ
            stalled = self._decoder.buffered > 0
        if mask != self._mask:
            self._mask = mask
            self._server.loop.watch(self.fd, mask, self.ready)
        if not stalled:
            self.deadline = None
        elif self.deadline is None:
            self.deadline = self._server.loop.now() + STALL
            self._server.arm(self.deadline)
