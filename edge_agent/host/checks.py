"""One look at a service's health: tcp, http or exec. Nothing here waits; the answer comes by callback.

A check calls ``done`` once, from the loop: with '' when healthy, else with why not. After ``cancel`` it does not.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import sys

from . import process
from .confinement import has_mounts
from .loop import READ, WRITE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from ..model import Service
    from .containment import Containment
    from .loop import Loop

    Done = Callable[[str], None]

    class Check(Protocol):
        """A look under way."""

        def cancel(self) -> None:
            """Give it up, and let go of everything it holds."""


STATUS_LINE = 1024  # bytes of an HTTP answer that are looked at


def start(loop: Loop, containment: Containment, service: Service, done: Done) -> Check:
    """Begin a check of the service's kind of health. Raises OSError when it fails at once."""
    if service.health.kind == "exec":
        return ExecCheck(loop, containment, service, done)
    return ConnectCheck(loop, service, done)


class ConnectCheck:
    """tcp: healthy when the port accepts a connection. http: when GET is answered by a 2xx or 3xx status."""

    def __init__(self, loop: Loop, service: Service, done: Done) -> None:
        health = service.health
        self._loop = loop
        self._done = done
        self._where = f"{health.host}:{health.port}"
        self._request = b""
        if health.kind == "http":
            # HTTP/1.0, RFC 1945: the server closes the connection, and sends no chunks.
            lines = (f"GET {health.path} HTTP/1.0", f"Host: {self._where}", "User-Agent: edge-agent", "", "")
            self._request = "\r\n".join(lines).encode()
        self._answer = b""
        self._socket = _connect(health.host, health.port)
        loop.watch(self._socket.fileno(), WRITE, self._connected)

    def cancel(self) -> None:
        """Drop the connection."""
        if self._socket.fileno() >= 0:
            self._loop.forget(self._socket.fileno())
            self._socket.close()

    def _finish(self, reason: str) -> None:
        self.cancel()
        self._done(reason)

    def _connected(self, events: int) -> None:  # noqa: ARG002 - the loop's
        code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        # On a loopback address the kernel may pick the very port that is looked for, and connect it to itself.
        if code == 0 and self._socket.getsockname() == self._socket.getpeername():
            code = errno.ECONNREFUSED
        if code:
            self._finish(f"cannot connect to {self._where}: {os.strerror(code)}")
        elif not self._request:
            self._finish("")
        else:
            try:
                self._socket.send(self._request)  # a few hundred bytes into an empty buffer: taken whole
            except OSError as error:
                self._finish(f"{self._where} does not take a request: {error.strerror}")
                return
            self._loop.watch(self._socket.fileno(), READ, self._answered)

    def _answered(self, events: int) -> None:  # noqa: ARG002 - the loop's
        try:
            data = self._socket.recv(STATUS_LINE)
        except BlockingIOError:
            return
        except OSError as error:
            self._finish(f"{self._where} does not answer: {error.strerror}")
            return
        self._answer += data
        if b"\n" in self._answer or not data or len(self._answer) >= STATUS_LINE:
            self._finish(judge_status(self._where, self._answer))


def _oldest(pids: list[int]) -> int:
    """The main process, by its start, as numbers come around; 0: there is none."""
    return min(pids, key=lambda pid: (process.start_time(pid) or sys.maxsize, pid), default=0)


class ExecCheck:
    """Healthy when a program, started inside the service's containment with its attributes, ends with exit code 0.

    In a sandbox it shares the mounts of the main process: the /tmp it looks into is the service's own.
    """

    def __init__(self, loop: Loop, containment: Containment, service: Service, done: Done) -> None:
        self._loop = loop
        self._done = done
        self._program = service.health.argv[0] if service.health.argv else ""
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        entry = -1
        try:
            entry = containment.entry(service.name)
            marker = containment.marker(service.name)
            probe = service._replace(argv=service.health.argv)
            beside = _oldest(containment.members(service.name)) if has_mounts(service.sandbox) else 0
            child = process.launch(probe, entry_fd=entry, stdout=null, env_extra=marker, beside=beside)
        except process.LaunchError as error:
            raise OSError(errno.EAGAIN, str(error)) from None
        finally:
            for fd in (null, entry):
                if fd >= 0:
                    os.close(fd)
        containment.track(service.name, child.pid, child.started)
        self._pid, self._pidfd, self._error_fd = child.pid, child.pidfd, child.error_fd
        process.release(child)
        loop.watch(self._pidfd, READ, self._ended)

    def cancel(self) -> None:
        """Kill it with all of its session, and collect it."""
        if self._pidfd < 0:
            return
        try:
            os.killpg(self._pid, signal.SIGKILL)  # its own session; not collected yet, so the number is still its own
        except ProcessLookupError:
            pass
        try:
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)  # before setsid it is not a group yet
        except ProcessLookupError:
            pass
        self._collect_later()

    def _ended(self, events: int) -> None:  # noqa: ARG002 - the loop's
        failure = process.read_error(self._error_fd)
        status = process.reap(self._pid)
        self._let_go()
        if failure:
            self._done(failure)
        elif status == 0:
            self._done("")
        else:
            how = (
                "ended in an unknown way"
                if status is None
                else f"exit code {status}"
                if status > 0
                else f"signal {-status}"
            )
            self._done(f"{self._program}: {how}")

    def _collect_later(self) -> None:
        """Once it is dead it is collected; nobody asks for its answer any more."""
        pid, pidfd, error_fd = self._pid, self._pidfd, self._error_fd
        self._pidfd = self._error_fd = -1

        def collect(events: int) -> None:  # noqa: ARG001 - the loop's
            process.reap(pid)
            self._loop.forget(pidfd)
            os.close(pidfd)
            os.close(error_fd)

        self._loop.watch(pidfd, READ, collect)

    def _let_go(self) -> None:
        self._loop.forget(self._pidfd)
        os.close(self._pidfd)
        os.close(self._error_fd)
        self._pidfd = self._error_fd = -1


def judge_status(where: str, answer: bytes) -> str:
    """'' for a 2xx or 3xx status line, RFC 9112 section 4; else what is wrong."""
    line = answer.split(b"\n", 1)[0].strip()
    words = line.split(None, 2)
    if len(words) >= 2 and words[0].startswith(b"HTTP/") and len(words[1]) == 3 and words[1].isdigit():
        code = int(words[1])
        return "" if 200 <= code < 400 else f"{where} answers HTTP status {code}"
    said = "".join(letter if letter.isprintable() else "?" for letter in line[:40].decode(errors="replace"))
    return f"{where} does not speak HTTP: {said!r}" if said else f"{where} closed the connection without an answer"


def _connect(host: str, port: int) -> socket.socket:
    """Begin to connect. Raises OSError. Only addresses: a name would have to be looked up, and that waits."""
    host = {"localhost": "127.0.0.1"}.get(host, host)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    where = f"cannot connect to {host}:{port}"
    try:
        socket.inet_pton(family, host)
    except OSError:
        raise OSError(errno.EINVAL, f"{where}: not an IP address; fix: write one as the check's host") from None
    connection = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    code = connection.connect_ex((host, port))
    if code not in (0, errno.EINPROGRESS):
        connection.close()
        raise OSError(code, f"{where}: {os.strerror(code)}")
    return connection
