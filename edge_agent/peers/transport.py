"""The only door to ZeroMQ: sockets that cannot be made without authentication, and the handler that authenticates.

Everything runs on the caller's thread and in its poll loop, the ZAP handler included: pyzmq's ThreadAuthenticator would
cost a thread, and asyncio's its import (facts: 19 MiB).
"""

from __future__ import annotations

import os

import zmq
from zmq.utils import z85

from . import zap
from .guard import Guard

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator

    Socket = zmq.Socket[bytes]
    Context = zmq.Context[Socket]

ZAP_ENDPOINT = "inproc://zeromq.zap.01"
QUEUE = 10  # messages waiting per connection and direction
HANDSHAKE_MS = 10_000
SILENT_CONNECTION_MS = 60_000  # TCP_USER_TIMEOUT, tcp(7): unacknowledged data ends the connection
SUN_PATH = 107  # bytes, unix(7)


class TransportError(Exception):
    """A socket cannot be made; the text is for people."""


class Key:
    """A CURVE key pair (ZMTP RFC 26). ``public`` and ``secret`` are Z85 text, 40 characters each."""

    __slots__ = ("public", "secret")

    def __init__(self, secret: str) -> None:
        self.secret = secret
        self.public = zmq.curve_public(secret.encode()).decode()


def new_secret() -> str:
    """A fresh CURVE secret key from the operating system's randomness, as Z85."""
    return zmq.curve_keypair()[1].decode()


def context() -> Context:
    """A context with one I/O thread. Raises TransportError when this libzmq has no CURVE."""
    if not zmq.has("curve"):
        raise TransportError(
            "cannot authenticate peers: this libzmq was built without CURVE; fix: install pyzmq from PyPI"
        )
    made: Context = zmq.Context(io_threads=1)
    made.set(zmq.MAX_SOCKETS, 256)
    return made


class Listener(zmq.Socket[bytes]):
    """A listening socket, whose connections are guarded."""

    guard: Guard | None = None


class Gate:
    """Answers every handshake of the context's listening sockets; what no rule lets in is refused.

    ``socket`` belongs in the poll loop, and so does ``guard.fd``; call ``serve`` and ``guard.look`` when they are
    readable.
    """

    def __init__(self, context: Context) -> None:
        self._rules: dict[str, Callable[[zap.Query], str | None]] = {}
        self.refused: dict[str, int] = {}  # handshakes, by domain
        self.guard = Guard(context)
        self.socket = context.socket(zmq.ROUTER)
        self.socket.linger = 0
        self.socket.bind(ZAP_ENDPOINT)

    def rule(self, domain: str, rule: Callable[[zap.Query], str | None]) -> None:
        """Let ``rule`` decide for ``domain``: the name by which the peer is known from now on, or None to refuse it.

        Raises TransportError for an empty domain, which libzmq does not ask about, and for one that has a rule: two
        sockets of one domain would let in each other's peers.
        """
        if not domain or domain in self._rules:
            raise TransportError(f"cannot authenticate peers: domain {domain!r} is empty or taken; fix: another name")
        self._rules[domain], self.refused[domain] = rule, 0

    def restrict(self, domain: str, welcome: Callable[[str], bool]) -> None:
        """Of those whom the domain's rule lets in, only whoever is ``welcome`` now."""
        rule = self._rules[domain]

        def both(query: zap.Query) -> str | None:
            user = rule(query)
            return user if user is not None and welcome(user) else None

        self._rules[domain] = both

    def close(self) -> None:
        """After its sockets."""
        self.socket.close(linger=0)
        self.guard.close()

    def domains(self) -> set[str]:
        """Those that have a rule."""
        return set(self._rules)

    def serve(self) -> None:
        """Answer what waits."""
        while (parts := receive(self.socket, 16)) is not None:
            envelope, request = [frame.bytes for frame in parts[:2]], [frame.bytes for frame in parts[2:]]
            try:
                query = zap.parse(request)
            except zap.ZapError:
                user, number = None, request[1] if len(request) > 1 else b""
                domain = request[2].decode("utf-8", "replace") if len(request) > 2 else ""  # our socket's
            else:
                domain, number = query.domain, query.request
                rule = self._rules.get(domain)
                user = rule(query) if rule else None
            if user is None:
                self.refused[domain] = self.refused.get(domain, 0) + 1
            send(self.socket, [*envelope, *zap.answer(number, user)])


def allow_keys(keys: Container[str]) -> Callable[[zap.Query], str | None]:
    """A rule that lets in the CURVE public keys of ``keys`` (Z85); a peer is known by its key."""

    def rule(query: zap.Query) -> str | None:
        key = z85.encode(query.key).decode() if query.mechanism == "CURVE" else ""
        return key if key in keys else None

    return rule


def allow_local(uid: int, gid: int, groups_of: Callable[[int], frozenset[int]]) -> Callable[[zap.Query], str | None]:
    """A rule for a unix socket: root, ``uid`` and members of ``gid``; a peer is known as 'uid:N'."""

    def rule(query: zap.Query) -> str | None:
        peer = zap.credentials(query.address) if query.mechanism == "NULL" else None
        if peer is None or not zap.may_connect(peer, groups_of(peer.pid), uid, gid):
            return None
        return f"uid:{peer.uid}"

    return rule


def groups_of(pid: int) -> frozenset[int]:
    """Supplementary groups of a process (proc(5)); none when it is gone."""
    try:
        with open(f"/proc/{pid}/status", "rb") as status:
            for line in status:
                if line.startswith(b"Groups:"):
                    return frozenset(int(group) for group in line.split()[1:])
    except OSError:
        pass
    return frozenset()


def _listener(context: Context, gate: Gate, domain: str, rule: Callable[[zap.Query], str | None], limit: int) -> Socket:
    gate.rule(domain, rule)
    socket = context.socket(zmq.ROUTER, socket_class=Listener)
    socket.guard = gate.guard
    gate.guard.watch(socket, domain, limit, QUEUE)
    socket.linger = 0
    socket.set_hwm(QUEUE)
    socket.setsockopt(zmq.ROUTER_MANDATORY, 1)  # an unreachable peer is an error here, not silence
    socket.setsockopt(zmq.MAXMSGSIZE, limit)
    socket.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
    socket.setsockopt_string(zmq.ZAP_DOMAIN, domain)
    socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
    return socket


def listen_curve(
    context: Context, gate: Gate, endpoint: str, key: Key, keys: Container[str], domain: str, limit: int
) -> Socket:
    """A ROUTER on ``endpoint`` for owners of ``keys`` only; parts above ``limit`` bytes end their connection.

    Raises TransportError when the endpoint cannot be bound.
    """
    socket = _listener(context, gate, domain, allow_keys(keys), limit)
    socket.curve_server = True
    socket.curve_secretkey = key.secret.encode()
    socket.setsockopt(zmq.TCP_MAXRT, SILENT_CONNECTION_MS)
    socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
    return _bind(socket, endpoint)


def listen_local(context: Context, gate: Gate, path: str, domain: str, limit: int) -> Socket:
    """A ROUTER on a unix socket of mode 0660, for this user, its group and root. Raises TransportError."""
    if len(os.fsencode(path)) > SUN_PATH:
        raise TransportError(
            f"cannot listen on {path}: longer than {SUN_PATH} bytes; fix: a shorter EDGE_AGENT_RUN_DIR"
        )
    socket = _listener(context, gate, domain, allow_local(os.geteuid(), os.getegid(), groups_of), limit)
    before = os.umask(0o117)
    try:
        return _bind(socket, f"ipc://{path}")
    finally:
        os.umask(before)


def _bind(socket: Socket, endpoint: str) -> Socket:
    try:
        socket.bind(endpoint)
    except zmq.ZMQError as error:
        socket.close(linger=0)
        raise TransportError(
            f"cannot listen on {endpoint}: {error.strerror}; fix: choose another port, or end what uses it (ss -ltnp)"
        ) from error
    return socket


def connect(context: Context, endpoint: str, limit: int, curve: tuple[Key, str] | None = None) -> Socket:
    """A DEALER for one attempt: CURVE with (own key, the server's public key as Z85), or None for ipc.

    It does not reconnect, and what is sent before the handshake waits, at most QUEUE messages; closing forgets all.
    Raises TransportError for an endpoint that is none.
    """
    socket = context.socket(zmq.DEALER)
    socket.linger = 0
    socket.set_hwm(QUEUE)
    socket.setsockopt(zmq.MAXMSGSIZE, limit)
    socket.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
    socket.setsockopt(zmq.RECONNECT_IVL, -1)
    if curve:
        key, server = curve
        socket.curve_serverkey = server.encode()
        socket.curve_publickey = key.public.encode()
        socket.curve_secretkey = key.secret.encode()
        socket.setsockopt(zmq.TCP_MAXRT, SILENT_CONNECTION_MS)
    try:
        socket.connect(endpoint)
    except zmq.ZMQError as error:
        socket.close(linger=0)
        raise TransportError(f"cannot connect to {endpoint}: {error.strerror}") from error
    return socket


def receive(socket: Socket, most: int) -> list[zmq.Frame] | None:
    """One message of at most ``most`` parts; None when none waits. Of a longer one every part is read and dropped: [].

    libzmq has the whole message in memory by then, whatever its number of parts; ``guard`` bounds it.
    """
    try:
        parts = [socket.recv(zmq.NOBLOCK, copy=False)]
        while socket.rcvmore:
            part = socket.recv(zmq.NOBLOCK, copy=False)
            if len(parts) <= most:
                parts.append(part)
    except zmq.Again:
        return None
    if isinstance(socket, Listener) and socket.guard is not None:
        socket.guard.heard(connection(parts[-1]))
    return parts if len(parts) <= most else []


def user(frame: zmq.Frame) -> str:
    """By which name the Gate let the sender of this frame in."""
    return str(frame.get("User-Id"))


def connection(frame: zmq.Frame) -> int:
    """The descriptor of the connection by which this frame came, for ``Guard.drop``."""
    return frame.get(zmq.SRCFD)


def send(socket: Socket, parts: list[bytes]) -> bool:
    """Send without waiting; False when the peer is gone or does not read.

    libzmq learns only now and then, once a millisecond or so, what its I/O thread has taken out of the queue, and may
    call one full that is empty: an answer to somebody who asks quickly would be lost. Reading EVENTS makes it learn.
    """
    for last in (False, True):
        try:
            socket.send_multipart(parts, zmq.NOBLOCK)
        except zmq.ZMQError as error:
            if error.errno == zmq.EHOSTUNREACH:
                return False
            if error.errno != zmq.EAGAIN:
                raise
            if not last:
                socket.getsockopt(zmq.EVENTS)
        else:
            return True
    return False


def drain(socket: Socket, most: int, parts: int) -> Iterator[list[zmq.Frame]]:
    """At most ``most`` waiting messages as by ``receive``, so that one busy peer does not hold the loop."""
    for _ in range(most):
        message = receive(socket, parts)
        if message is None:
            return
        yield message
