"""The resident's control socket: who may connect, how much of the agent's time and memory a connection may take.

Nothing here waits. Each turn of the loop handles one request, the connections in rotation, so a flood of requests
delays neither other clients for long nor the services. At rest there is no timer; one exists only while some request
is incomplete or some reply unread. Peers are known by SO_PEERCRED and SO_PEERGROUPS (unix(7), socket(7)): the kernel's
word from the moment of connect(2), so no recycled pid can deceive.

``_socket`` is what ``socket`` wraps; the wrapper imports enum and selectors, 0.6 MiB the resident does without.
"""

from __future__ import annotations

import _socket
import os
import struct
from collections import deque

from .. import __version__
from ..host.loop import READ, Loop
from . import wire
from .connection import Connection, Peer, Request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

MAX_CONNECTIONS = 32
MAX_PUBLIC = 24  # of them for peers who are not privileged, so that root always gets in
RETRY = 1.0  # seconds until the next accept(2) when descriptors or memory have run out

SO_PEERGROUPS = 59  # asm-generic/socket.h, Linux 4.13; Python has no name for it
_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid
_GROUPS_SIZE = 1024  # bytes, the most Python's getsockopt asks for: 256 groups


class Server:
    """Listens at ``path`` (mode 0660, group ``gid``) and calls ``handler`` with each request.

    root, ``uid`` (the agent's own) and members of ``gid`` may connect. Raises OSError when it cannot listen; a socket
    that an earlier agent left at ``path`` is replaced, so the caller makes sure that no other agent is alive.
    """

    def __init__(
        self,
        loop: Loop,
        path: str,
        handler: Callable[[Request], None],
        *,
        uid: int,
        gid: int | None,
        version: str = __version__,
    ) -> None:
        self.loop = loop
        self.path = path
        self.handler = handler
        self._uid = uid
        self._gid = gid
        self._hello = wire.pack(wire.hello(version))
        self._connections: dict[int, Connection] = {}
        self._timer_set = False
        self._queue: deque[Connection] = deque()
        self._turn = -1
        self._sock = _listen(path, gid)
        self._inode = os.stat(path).st_ino
        self.loop.watch(self._sock.fileno(), READ, self._accept)

    def close(self) -> None:
        """Close every connection and remove the socket, unless another agent has put its own there."""
        self.loop.forget(self._sock.fileno())
        self._sock.close()
        for connection in list(self._connections.values()):
            connection.close()
        try:
            if os.stat(self.path).st_ino == self._inode:
                os.unlink(self.path)
        except OSError:
            pass  # removed with its directory; what matters is that nobody answers

    def forget(self, connection: Connection) -> None:
        """A connection is closing."""
        self.loop.forget(connection.fd)
        self._connections.pop(connection.fd, None)
        if connection in self._queue:
            self._queue.remove(connection)

    def enqueue(self, connection: Connection) -> None:
        """A connection has a request at hand: the first in the queue is handled, once a turn of the loop.

        The queue makes the rotation: epoll reports descriptors that stay ready in the same order every time.
        """
        if connection not in self._queue:
            self._queue.append(connection)
        if self._turn != self.loop.wakeups:
            self._turn = self.loop.wakeups
            self._queue.popleft().dispatch()

    def arm(self, due: float) -> None:
        """A connection has a deadline: look at all of them then. One timer, whatever the number of connections."""
        if not self._timer_set:
            self._timer_set = True
            self.loop.at(due, self._sweep)

    def _sweep(self) -> None:
        self._timer_set = False
        now = self.loop.now()
        for connection in list(self._connections.values()):
            if connection.deadline is not None and connection.deadline <= now:
                connection.close()
        later = [c.deadline for c in self._connections.values() if c.deadline is not None]
        if later:
            self.arm(min(later))

    def _accept(self, _events: int) -> None:
        for _ in range(MAX_CONNECTIONS):  # many at once: a backlog that is full turns clients away
            try:
                fd, _address = _accept(self._sock)
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:  # EMFILE, ENFILE, ENOBUFS, ENOMEM: the listener stays ready, and watching on would spin
                self.loop.forget(self._sock.fileno())
                self.loop.at(self.loop.now() + RETRY, self._resume)
                return
            self._admit(_socket.socket(fileno=fd))

    def _admit(self, sock: _socket.socket) -> None:
        sock.setblocking(False)
        try:
            credentials = sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, _CREDENTIALS.size)
            peer = Peer(*_CREDENTIALS.unpack(credentials))
            privileged = peer.uid in (0, self._uid)
            refusal = self._refusal(sock, peer, privileged=privileged)
            if refusal is not None:
                sock.send(self._hello + wire.pack(refusal))
                sock.close()
                return
        except OSError:  # the peer is gone already
            sock.close()
            return
        connection = Connection(self, sock, peer, privileged=privileged)
        self._connections[connection.fd] = connection
        connection.send(self._hello)
        connection.settle()

    def _resume(self) -> None:
        if self._sock.fileno() >= 0:
            self.loop.watch(self._sock.fileno(), READ, self._accept)

    def _refusal(self, sock: _socket.socket, peer: Peer, *, privileged: bool) -> dict[str, Any] | None:
        if not privileged and not self._member(sock, peer):
            return wire.error(0, "permission", f"user {peer.uid} may not control this agent", self._advice())
        if not self._room(privileged=privileged):
            return wire.error(0, "busy", f"{len(self._connections)} clients are connected", "try again later")
        return None

    def _advice(self) -> str:
        group = "" if self._gid is None else f", or be a member of group {self._gid}"
        return f"use sudo{group}"

    def _member(self, sock: _socket.socket, peer: Peer) -> bool:
        if self._gid is None:
            return False
        if peer.gid == self._gid:
            return True
        try:
            groups = sock.getsockopt(_socket.SOL_SOCKET, SO_PEERGROUPS, _GROUPS_SIZE)
        except OSError:  # too old a kernel, or more groups than fit
            return False
        return self._gid in struct.unpack(f"={len(groups) // 4}I", groups)

    def _room(self, *, privileged: bool) -> bool:
        """Whether one more connection fits, after closing the longest idle of those it competes with."""
        rivals = [c for c in self._connections.values() if privileged or not c.privileged]
        if len(self._connections) < MAX_CONNECTIONS and (privileged or len(rivals) < MAX_PUBLIC):
            return True
        idle = [c for c in rivals if c.idle]
        if not idle:
            return False
        min(idle, key=lambda c: c.used).close()
        return True


def _accept(sock: _socket.socket) -> tuple[int, object]:
    return sock._accept()  # type: ignore[attr-defined,no-any-return]  # what socket.socket.accept calls; typeshed omits it


def _listen(path: str, gid: int | None) -> _socket.socket:
    """A listening socket at ``path``, moved into place complete: nobody sees it with other rights."""
    directory = os.open(os.path.dirname(path) or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_NONBLOCK | _socket.SOCK_CLOEXEC)
    name = os.path.basename(path)
    fresh = f".{name}.{os.getpid()}"
    try:
        _remove(fresh, directory)
        before = os.umask(0o177)
        try:
            sock.bind(f"/proc/self/fd/{directory}/{fresh}")  # the path may be longer than sun_path's 108 bytes
        finally:
            os.umask(before)
        if gid is not None:
            os.chown(fresh, -1, gid, dir_fd=directory, follow_symlinks=False)
        os.chmod(fresh, 0o660, dir_fd=directory)
        sock.listen(MAX_CONNECTIONS)
        os.rename(fresh, name, src_dir_fd=directory, dst_dir_fd=directory)
    except OSError:
        sock.close()
        _remove(fresh, directory)
        raise
    finally:
        os.close(directory)
    return sock


def _remove(name: str, directory: int) -> None:
    try:
        os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        pass
