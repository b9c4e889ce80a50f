"""What services say by sd_notify(3): one datagram socket per service, in its folder of the run directory.

Anybody who may write to the socket can put anything into it: datagrams are bounded, descriptors sent along are closed,
and only words of a process inside the service's containment count, by the pid the kernel vouches for (SCM_CREDENTIALS,
unix(7)). MAINPID and everything else not named here is ignored.
"""

from __future__ import annotations

import os
import socket
import struct

from .loop import READ

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from ..model import Service
    from .containment import Containment
    from .loop import Loop

    class Listener(Protocol):
        """Who wants to know; ``probes.Prober`` is one."""

        def said(self, name: str, words: dict[str, str]) -> None:
            """Service ``name`` sent these assignments."""


DATAGRAM = 4096  # bytes; systemd itself takes no more
BATCH = 16  # datagrams per callback: a flood must not keep the loop from its other work
KNOWN = ("READY", "STATUS", "STOPPING", "WATCHDOG")
STATUS_BYTES = 256
_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid
_DESCRIPTORS = 64 * 4  # ancillary room for SCM_RIGHTS; the kernel closes what does not fit


class NotifySocket:
    """Bound to ``path`` as long as it is open. Raises OSError when it cannot be."""

    def __init__(self, loop: Loop, path: str, service: Service, containment: Containment, listener: Listener) -> None:
        self.path = path
        self._loop = loop
        self._name = service.name
        self._containment = containment
        self._listener = listener
        try:
            os.unlink(path)  # an earlier agent's; whoever holds that one open sends to nobody
        except FileNotFoundError:
            pass
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            mask = os.umask(0o177)
            try:
                self._socket.bind(path)
            finally:
                os.umask(mask)
            if os.geteuid() == 0:
                uid, gid = service.uid, service.gid
                os.chown(path, -1 if uid is None else uid, -1 if gid is None else gid, follow_symlinks=False)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        except OSError:
            self._socket.close()
            raise
        loop.watch(self._socket.fileno(), READ, self._readable)

    def close(self) -> None:
        """Stop listening and take the socket away."""
        if self._socket.fileno() >= 0:
            self._loop.forget(self._socket.fileno())
            self._socket.close()
            try:
                os.unlink(self.path)
            except OSError:
                pass

    def _readable(self, events: int) -> None:  # noqa: ARG002 - the loop's
        for _ in range(BATCH):
            if self._socket.fileno() < 0:  # the listener has closed it
                return
            try:
                data, ancillary, flags, _ = self._socket.recvmsg(
                    DATAGRAM, socket.CMSG_SPACE(_CREDENTIALS.size) + socket.CMSG_SPACE(_DESCRIPTORS), FLAGS
                )
            except OSError:  # EAGAIN
                return
            sender = _sender(ancillary)
            words = {} if flags & socket.MSG_TRUNC else parse(data)
            if words and sender > 0 and self._containment.owns(self._name, sender):
                self._listener.said(self._name, words)


FLAGS = socket.MSG_CMSG_CLOEXEC


def parse(data: bytes) -> dict[str, str]:
    """The assignments known here, printable and bounded; whatever else was sent is left out."""
    words = {}
    for line in data.split(b"\n"):
        key, separator, value = line.partition(b"=")
        name = key.decode("ascii", "replace")
        if separator and name in KNOWN:
            text = value[:STATUS_BYTES].decode(errors="replace")
            words[name] = "".join(letter if letter.isprintable() else "?" for letter in text)
    return words


def _sender(ancillary: list[tuple[int, int, bytes]]) -> int:
    """The pid the kernel vouches for, 0: none. Closes descriptors that came along (a BARRIER waits for just that)."""
    pid = 0
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            for (fd,) in struct.iter_unpack("i", data[: len(data) - len(data) % 4]):
                os.close(fd)
        elif level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS and len(data) >= _CREDENTIALS.size:
            pid = _CREDENTIALS.unpack_from(data)[0]
    return pid
