"""Ends connections on which bytes arrive but no message does.

libzmq bounds a part (MAXMSGSIZE), and a connection's whole messages (RCVHWM). What a peer has sent of an unfinished
message of many parts it keeps without a bound, and shows to nobody: 200,000 parts of 1,000 bytes passed a limit of
1,024 and took 575 MB. So every accepted connection is looked at whenever bytes arrive on it. What took more of them
since its last message than any message of this protocol has is shut down, shutdown(2): libzmq then sees its end, and
frees all of it.

The descriptors are libzmq's own: its monitor tells which, and each message from which. A number may be another
connection's by the time it is acted on; so it is used on connections of the same listening socket only, and the worst
is a needless reconnection.
"""

from __future__ import annotations

import fcntl
import os
import resource
import select
import socket as sockets
import struct

import zmq

TYPE_CHECKING = False
if TYPE_CHECKING:
    Socket = zmq.Socket[bytes]
    Context = zmq.Context[Socket]

EVENTS = zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED
SPARE = 128  # descriptors for everything but connections
SLACK = 64 * 1024  # bytes: the handshake, a read buffer of libzmq, heartbeats
OVERHEAD = 64  # bytes of CURVE and of framing around a part, RFC 26: 33 and at most 9
TOTAL = 8 << 20  # bytes of unfinished messages, of all connections; in memory they are up to three times that (CURVE)
TURN = 16 * 1024  # bytes that an arrival on a unix socket counts for: no kernel tells how many it was
GROWTH = 8 << 20  # bytes that the process may grow by while one unfinished message arrives on a unix socket
PAGE = resource.getpagesize()
FIONREAD = 0x541B  # ioctl_tcp(2) SIOCINQ: bytes the kernel still holds
INFO_RECEIVED = 128  # offset of tcpi_bytes_received (uint64), linux/tcp.h since 4.1


class _Listener:
    """What is accepted for one listening socket."""

    __slots__ = ("domain", "dropped", "local", "monitor", "open", "tcp")

    def __init__(self, domain: str, monitor: Socket, limit: int, queue: int) -> None:
        self.domain, self.monitor = domain, monitor
        self.tcp = (queue + 2) * (limit + OVERHEAD) + SLACK  # bytes; whole messages that wait are not an offence
        self.local = 4 * limit + 64 * TURN  # of these half are needed when every arrival is of 32 KiB, as libzmq's are
        self.open = self.dropped = 0


class _Connection:
    """``since``: bytes (TCP) when its last message had been seen; None: not looked at since that one."""

    __slots__ = ("listener", "memory", "owed", "since", "tcp")

    def __init__(self, listener: _Listener, tcp: bool) -> None:
        self.listener, self.tcp = listener, tcp
        self.since: int | None = 0
        self.owed = 0  # bytes since its last message
        self.memory = 0  # of the process, at the second arrival since then


class Guard:
    """``fd`` belongs in the poll loop; call ``look`` when it is readable. At rest it never is."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._epoll = select.epoll()
        self.fd = self._epoll.fileno()
        self._listeners: dict[int, _Listener] = {}  # by the descriptor of its monitor
        self._connections: dict[int, _Connection] = {}
        self._owed = 0
        self._memory = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)

    def watch(self, socket: Socket, domain: str, limit: int, queue: int) -> None:
        """Guard what ``socket`` will accept: parts of at most ``limit`` bytes, ``queue`` messages waiting."""
        name = f"inproc://monitor.{domain}"
        socket.monitor(name, EVENTS)
        monitor = self._context.socket(zmq.PAIR)
        monitor.linger = 0
        monitor.rcvhwm = 0  # an event that is lost is a connection that nobody guards
        monitor.connect(name)
        fd = int(monitor.getsockopt(zmq.FD))
        self._listeners[fd] = listener = _Listener(domain, monitor, limit, queue)
        self._epoll.register(fd, select.EPOLLIN)
        self._changes(listener)  # its descriptor speaks only after a read that found nothing, zmq_getsockopt(3) ZMQ_FD

    def close(self) -> None:
        """No connection is looked at any more."""
        for listener in self._listeners.values():
            listener.monitor.close(linger=0)
        self._epoll.close()
        os.close(self._memory)

    def counts(self, domain: str) -> tuple[int, int]:
        """Connections of a domain: open ones, and those that were ended here."""
        found = [listener for listener in self._listeners.values() if listener.domain == domain]
        return sum(each.open for each in found), sum(each.dropped for each in found)

    def look(self) -> None:
        """At what has changed and what has arrived."""
        for fd, _ in self._epoll.poll(0):
            listener = self._listeners.get(fd)
            if listener is not None:
                self._changes(listener)
            elif fd in self._connections:
                self._arrived(fd, self._connections[fd])

    def heard(self, fd: int) -> None:
        """A whole message came by this connection."""
        connection = self._connections.get(fd)
        if connection is not None:
            self._owes(connection, 0)
            connection.since = None

    def drop(self, fd: int) -> None:
        """End this connection, if it is one of ours."""
        connection = self._gone(fd)
        if connection is None:
            return
        connection.listener.dropped += 1
        try:
            held = sockets.socket(fileno=fd)
        except OSError:  # it has just ended by itself
            return
        try:
            held.shutdown(sockets.SHUT_RDWR)
        except OSError:
            pass
        finally:
            held.detach()

    def _changes(self, listener: _Listener) -> None:
        while True:
            try:
                told, endpoint = listener.monitor.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            event, fd = struct.unpack("=Hi", told)  # zmq_socket_monitor(3); zmq.utils.monitor imports asyncio
            self._gone(fd)
            if event == zmq.EVENT_ACCEPTED:
                self._accepted(fd, listener, endpoint)

    def _accepted(self, fd: int, listener: _Listener, endpoint: bytes) -> None:
        if not _is_at(fd, endpoint):  # it has ended, and the number is something else's
            return
        self._connections[fd] = _Connection(listener, endpoint.startswith(b"tcp:"))
        listener.open += 1
        if len(self._connections) > max(SPARE, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - SPARE):
            # libzmq would find no descriptor for the next one, and turn round about it.
            self.drop(fd)
            return
        try:
            self._epoll.register(fd, select.EPOLLIN | select.EPOLLET)
        except FileExistsError:
            self._epoll.modify(fd, select.EPOLLIN | select.EPOLLET)
        except OSError:
            pass  # it has just ended

    def _gone(self, fd: int) -> _Connection | None:
        connection = self._connections.pop(fd, None)
        if connection is not None:
            self._owes(connection, 0)
            connection.listener.open -= 1
        return connection

    def _owes(self, connection: _Connection, owed: int) -> None:
        self._owed += owed - connection.owed
        connection.owed = owed

    def _arrived(self, fd: int, connection: _Connection) -> None:
        listener = connection.listener
        if connection.tcp:
            taken = _taken(fd)
            if connection.since is None:
                connection.since = taken
            self._owes(connection, taken - connection.since)
            excess = connection.owed > listener.tcp
        else:
            self._owes(connection, connection.owed + TURN)
            excess = connection.owed > listener.local or self._grown(connection)
        if excess:
            self.drop(fd)
        while self._owed > TOTAL:  # no single one has too much: the one that has most goes
            self.drop(max(self._connections, key=lambda each: self._connections[each].owed))

    def _grown(self, connection: _Connection) -> bool:
        """Has the process grown by too much since the message began that this connection does not finish?"""
        if connection.owed == TURN:
            return False  # most requests arrive at once
        memory = int(os.pread(self._memory, 64, 0).split()[1]) * PAGE
        if connection.owed == 2 * TURN:
            connection.memory = memory
        return memory - connection.memory > GROWTH


def _is_at(fd: int, endpoint: bytes) -> bool:
    """Is ``fd`` a connection to this endpoint of ours?"""
    try:
        held = sockets.socket(fileno=fd)
    except OSError:
        return False
    try:
        name = held.getsockname()
    except OSError:
        return False
    finally:
        held.detach()
    if isinstance(name, str):
        return f"ipc://{name}".encode() == endpoint
    return isinstance(name, tuple) and endpoint.startswith(b"tcp:") and endpoint.endswith(b":%d" % name[1])


def _taken(fd: int) -> int:
    """Bytes that libzmq has taken from a TCP connection since it began; 0 when it is over."""
    try:
        held = sockets.socket(sockets.AF_INET, sockets.SOCK_STREAM, 0, fileno=fd)
    except OSError:
        return 0
    try:
        info = held.getsockopt(sockets.IPPROTO_TCP, sockets.TCP_INFO, INFO_RECEIVED + 8)
        waiting: int = struct.unpack("i", fcntl.ioctl(fd, FIONREAD, bytes(4)))[0]
        received: int = struct.unpack_from("Q", info, INFO_RECEIVED)[0]
    except (OSError, struct.error):
        return 0
    finally:
        held.detach()
    return received - waiting
