"""The ZeroMQ Authentication Protocol (ZMTP RFC 27): who asks to connect, and the answer. Pure.

libzmq asks over inproc://zeromq.zap.01 for every handshake of a socket with a named domain. It fails open in three
ways (a CURVE server without a handler, with an empty domain, with a domain but no handler): ``transport`` therefore
names a domain, enforces it, and never makes a socket without a handler.
"""

from __future__ import annotations

from ..records import Record

VERSION = b"1.0"
KEY_BYTES = 32
_KEY_TEXT = 40  # characters, ZeroMQ RFC 32
_Z85 = frozenset("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#")


class ZapError(Exception):
    """Not a request of RFC 27 for a mechanism this project uses."""


class Query(Record):
    """One handshake that waits for an answer."""

    request: bytes
    domain: str
    address: str  # of the peer; for ipc libzmq appends ':uid:gid:pid' (SO_PEERCRED, unix(7))
    mechanism: str  # NULL | CURVE; any other is refused while parsing
    key: bytes  # CURVE: the peer's public key, 32 bytes, proven by the handshake; NULL: empty


class Credentials(Record):
    """Who is at the other end of a unix socket."""

    uid: int
    gid: int
    pid: int


def is_key(text: str) -> bool:
    """Does ``text`` have the form of a CURVE key in Z85 (ZeroMQ RFC 32)?"""
    return len(text) == _KEY_TEXT and _Z85.issuperset(text)


def parse(parts: list[bytes]) -> Query:
    """The query in the parts after the envelope (RFC 27, 'request'). Raises ZapError."""
    if len(parts) < 6 or parts[0] != VERSION:
        raise ZapError("not a ZAP 1.0 request")
    _, request, domain, address, _, mechanism, *credentials = parts
    if mechanism == b"NULL" and not credentials:
        key = b""
    elif mechanism == b"CURVE" and len(credentials) == 1 and len(credentials[0]) == KEY_BYTES:
        key = credentials[0]
    else:
        raise ZapError("mechanism is neither NULL nor CURVE")
    return Query(
        request,
        domain.decode("utf-8", "replace"),
        address.decode("utf-8", "replace"),
        mechanism.decode(),
        key,
    )


def answer(request: bytes, user: str | None) -> list[bytes]:
    """The reply: let in, and known to the receiving socket as ``user`` (metadata 'User-Id'); None: refused."""
    if user is None:
        return [VERSION, request, b"400", b"refused", b"", b""]
    return [VERSION, request, b"200", b"OK", user.encode(), b""]


def credentials(address: str) -> Credentials | None:
    """What libzmq appends to the address of an ipc peer; None when it is not there."""
    numbers = address.rsplit(":", 3)[1:]
    if len(numbers) != 3 or not all(number.isascii() and number.isdigit() for number in numbers):
        return None
    uid, gid, pid = (int(number) for number in numbers)
    return Credentials(uid, gid, pid)


def may_connect(peer: Credentials, groups: frozenset[int], uid: int, gid: int) -> bool:
    """May a process with these credentials and supplementary groups call a service that runs as ``uid`` and ``gid``?

    root, the service's own user, and members of the service's group may: the same as the socket's mode 0660 says.
    """
    return peer.uid in (0, uid) or peer.gid == gid or gid in groups
