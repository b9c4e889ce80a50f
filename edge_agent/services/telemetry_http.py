"""As much of HTTP/1.1 (RFC 9112) as a scrape needs: GET and HEAD, one request a connection, nothing without a bound.

``http.server`` costs 3 MiB of memory and a thread for each client, and waits for slow ones for ever. Here all
connections are one descriptor for the service's loop: an epoll(7) of their own. A request has READ seconds to be
complete, its answer WRITE seconds to be read; of more than MOST connections the oldest that has not yet asked is cut.
"""

from __future__ import annotations

import select
import socket

from ..records import Record
from .errors import StartError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

MOST = 16  # connections
MAX_HEAD = 8192  # bytes of a request line and its fields
READ = 5.0  # seconds
WRITE = 10.0  # seconds
AGAIN = 1.0  # seconds until the next accept(2) when descriptors have run out
BACKLOG = 16
CHUNK = 4096

REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    431: "Request Header Fields Too Large",
    503: "Service Unavailable",
    505: "HTTP Version Not Supported",
}


class HttpError(ValueError):
    """The bytes are no request that is answered here. ``status`` is what the client is told."""

    def __init__(self, status: int) -> None:
        super().__init__(f"{status} {REASONS[status]}")
        self.status = status


class Ask(Record):
    """What a client wants."""

    method: str  # GET | HEAD
    path: str  # without the query
    accept: str  # every Accept field, joined


def parse(data: bytes) -> Ask | None:
    """The request whose head is in ``data``; None while its end is missing. Raises HttpError."""
    end, gap = data.find(b"\r\n\r\n"), 4
    if end < 0:
        end, gap = data.find(b"\n\n"), 2  # RFC 9112, 2.2: a recipient may take a single line feed
    if end < 0 or end + gap > MAX_HEAD:
        if len(data) >= MAX_HEAD:
            raise HttpError(431)
        return None
    try:
        first, *fields = (line.rstrip("\r") for line in data[:end].decode("ascii").split("\n"))
    except UnicodeDecodeError:
        raise HttpError(400) from None
    words = first.split(" ")
    if len(words) != 3 or not words[1].startswith("/") or not first.isprintable():
        raise HttpError(400)
    if not words[2].startswith("HTTP/1."):
        raise HttpError(505)
    if words[0] not in ("GET", "HEAD"):
        raise HttpError(405)
    accepts = []
    for field in fields:
        name, colon, value = field.partition(":")
        if not colon or not name or name != name.strip():
            raise HttpError(400)
        if name.lower() == "accept":
            accepts.append(value.strip())
    return Ask(words[0], words[1].partition("?")[0], ",".join(accepts))


def answer(status: int, kind: str, body: bytes, *, head: bool = False) -> bytes:
    """A whole response, after which the connection ends. ``head``: the request was HEAD, so the body stays here."""
    lines = [
        f"HTTP/1.1 {status} {REASONS[status]}",
        f"Content-Type: {kind}; charset=utf-8",
        f"Content-Length: {len(body)}",
        "Connection: close",
        "X-Content-Type-Options: nosniff",
    ]
    if status == 405:
        lines.append("Allow: GET, HEAD")
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + (b"" if head else body)


def refusal(status: int) -> bytes:
    """A response that says no."""
    return answer(status, "text/plain", f"{status} {REASONS[status]}\n".encode())


class _Connection:
    """One client. ``due``: when it is cut."""

    __slots__ = ("asked", "data", "due", "left", "socket")

    def __init__(self, sock: socket.socket, due: float) -> None:
        self.socket, self.due = sock, due
        self.data = bytearray()
        self.left: memoryview | None = None
        self.asked = False


class Http:
    """Listens; ``handler(ask, reply)`` is called with each request and calls ``reply`` once, now or later.

    ``fd`` belongs into the loop; call ``ready`` when it is readable, and ``tick`` at ``deadline``. Raises StartError.
    """

    def __init__(
        self, address: str, port: int, handler: Callable[[Ask, Callable[[bytes], None]], None], now: Callable[[], float]
    ) -> None:
        self._handler, self._now = handler, now
        self.cut = 0  # connections that were too slow or too many
        self.refused = 0  # requests that were none
        self._listener = _listen(address, port)
        self.port: int = self._listener.getsockname()[1]
        self._connections: dict[int, _Connection] = {}
        self._epoll = select.epoll()
        self._epoll.register(self._listener.fileno(), select.EPOLLIN)
        self._resume: float | None = None
        self.fd = self._epoll.fileno()

    def ready(self) -> None:
        """Something has happened on the listening socket or a connection."""
        for fd, _events in self._epoll.poll(0):
            connection = self._connections.get(fd)
            if fd == self._listener.fileno():
                self._accept()
            elif connection is not None:
                try:
                    if connection.left is not None:
                        self._write(connection)
                    else:
                        self._read(connection)
                except (BlockingIOError, InterruptedError):
                    pass
                except OSError:
                    self._end(connection)

    def deadline(self) -> float | None:
        """When the slowest is to be cut, or the listener tried again."""
        due = [connection.due for connection in self._connections.values()]
        if self._resume is not None:
            due.append(self._resume)
        return min(due, default=None)

    def tick(self, now: float) -> None:
        """Cut who is too slow."""
        for connection in list(self._connections.values()):
            if connection.due <= now:
                self.cut += 1
                self._end(connection)
        if self._resume is not None and self._resume <= now:
            self._resume = None
            self._epoll.register(self._listener.fileno(), select.EPOLLIN)

    def close(self) -> None:
        """No more clients."""
        for connection in list(self._connections.values()):
            self._end(connection)
        self._listener.close()
        self._epoll.close()

    def _accept(self) -> None:
        for _ in range(MOST):
            try:
                sock, _address = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:  # out of descriptors or memory: the listener stays ready, and watching on would spin
                self._epoll.unregister(self._listener.fileno())
                self._resume = self._now() + AGAIN
                return
            sock.setblocking(False)
            if not self._room():
                self.cut += 1
                sock.close()
                continue
            self._connections[sock.fileno()] = _Connection(sock, self._now() + READ)
            self._epoll.register(sock.fileno(), select.EPOLLIN)

    def _room(self) -> bool:
        if len(self._connections) < MOST:
            return True
        idle = [each for each in self._connections.values() if not each.asked]
        if not idle:
            return False
        self.cut += 1
        self._end(min(idle, key=lambda each: each.due))
        return True

    def _read(self, connection: _Connection) -> None:
        data = b"" if connection.asked else connection.socket.recv(CHUNK)
        if not data:  # it has hung up
            self._end(connection)
            return
        connection.data += data
        try:
            ask = parse(bytes(connection.data))
        except HttpError as error:
            self.refused += 1
            connection.asked = True
            self._reply(connection, refusal(error.status))
            return
        if ask is None:
            return
        connection.asked = True
        connection.due = self._now() + WRITE
        self._epoll.modify(connection.socket.fileno(), 0)  # a hang-up is reported all the same
        self._handler(ask, lambda data: self._reply(connection, data))

    def _reply(self, connection: _Connection, data: bytes) -> None:
        fd = connection.socket.fileno()
        if fd < 0:
            return  # gone, or cut
        connection.left = memoryview(data)
        connection.due = self._now() + WRITE
        self._epoll.modify(fd, select.EPOLLOUT)

    def _write(self, connection: _Connection) -> None:
        left = connection.left
        assert left is not None  # noqa: S101 - the caller has looked; for the type checker
        connection.left = left[connection.socket.send(left) :]
        if not connection.left:
            connection.socket.shutdown(socket.SHUT_WR)
            self._end(connection)

    def _end(self, connection: _Connection) -> None:
        fd = connection.socket.fileno()
        if self._connections.pop(fd, None) is not None:
            self._epoll.unregister(fd)
            connection.socket.close()


def _listen(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, port))
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise StartError(
            f"cannot listen on {address} port {port}: {error.strerror}; "
            "fix: another port, or end what uses it (ss -ltnp)"
        ) from error
    return sock
