"""The front end's side of the control socket: one request, one answer, in this thread.

``_socket`` is what ``socket`` wraps; the wrapper imports enum and selectors, 5 ms of a command.
"""

from __future__ import annotations

import _socket
import os
import struct
import time

from . import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any

TIMEOUT = 10.0  # seconds for an answer that the agent gives at once
_CHUNK = 256 * 1024
_TIMEVAL = struct.Struct("ll")  # struct timeval


class NotRunningError(Exception):
    """No agent listens at the socket."""


class AgentError(Exception):
    """The agent, or the way to it, said no. ``code`` is for programs, ``why`` and ``fix`` for people."""

    def __init__(self, code: str, why: str, fix: str = "") -> None:
        super().__init__(f"{why}; fix: {fix}" if fix else why)
        self.code = code
        self.why = why
        self.fix = fix


class Client:
    """A connection to the agent whose socket is ``path``.

    Raises NotRunningError when nobody listens there, AgentError with code 'permission', 'protocol', 'timeout' or 'gone'
    when it cannot be talked to.
    """

    def __init__(self, path: str, timeout: float = TIMEOUT) -> None:
        self.path = path
        self._ident = 0
        self._decoder = wire.Decoder(wire.REPLY_LIMIT)
        self._frames: list[dict[Any, Any]] = []
        self._sock = _connect(path, timeout)
        try:
            self.version = wire.check_hello(self._receive(time.monotonic() + timeout))
        except wire.WireError as error:
            self.close()
            raise AgentError("protocol", str(error), "use the edge-agent of the same release") from None
        except BaseException:
            self.close()
            raise

    def call(self, verb: str, args: dict[str, Any] | None = None, timeout: float | None = TIMEOUT) -> dict[str, Any]:
        """The result of ``verb``, waiting for it ``timeout`` seconds (None: for ever). Raises AgentError."""
        until = None if timeout is None else time.monotonic() + timeout
        ident = self.begin(verb, args, timeout)
        while True:
            left = None if until is None else until - time.monotonic()
            answered, result, error = self.next(left)
            if answered == ident:
                if error is not None:
                    raise error
                return result

    def begin(self, verb: str, args: dict[str, Any] | None = None, timeout: float | None = TIMEOUT) -> int:
        """Send a request and return its id; its answer comes from ``next``. Raises AgentError."""
        self._ident += 1
        try:
            frame = wire.pack(wire.request(self._ident, verb, args or {}))
        except wire.WireError as error:
            raise AgentError("protocol", f"the request {error}") from None
        self._send(frame, None if timeout is None else time.monotonic() + timeout)
        return self._ident

    def next(self, timeout: float | None = TIMEOUT) -> tuple[int, dict[str, Any], AgentError | None]:
        """(id, result, error) of the answer that comes next, of whichever request. Raises AgentError."""
        until = None if timeout is None else time.monotonic() + timeout
        try:
            ident, result, failure = wire.check_response(self._receive(until))
        except wire.WireError as error:
            raise AgentError("protocol", str(error)) from None
        if result is not None:
            return ident, result, None
        if ident == 0:  # about the connection, not about one request
            raise AgentError(*failure)
        return ident, {}, AgentError(*failure)

    def wait(self, seconds: float) -> bool:
        """Whether an answer has come within that time, which ``next`` then returns at once. Raises AgentError."""
        try:
            self._fill(time.monotonic() + seconds)
        except TimeoutError:
            return False
        except wire.WireError as error:
            raise AgentError("protocol", str(error)) from None
        return True

    def close(self) -> None:
        """Hang up."""
        self._sock.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _send(self, frame: bytes, until: float | None) -> None:
        try:
            self._set_timeout(until)
            self._sock.sendall(frame)
        except TimeoutError:
            raise AgentError("timeout", "the agent does not read the request") from None
        except (BrokenPipeError, ConnectionResetError):
            pass  # it hung up; what it said before tells why
        except OSError as error:
            raise AgentError("gone", f"the connection broke: {error.strerror}") from None

    def _receive(self, until: float | None) -> dict[Any, Any]:
        try:
            self._fill(until)
        except TimeoutError:
            raise AgentError("timeout", "the agent has not answered in time") from None
        return self._frames.pop(0)

    def _fill(self, until: float | None) -> None:
        while not self._frames:
            try:
                self._set_timeout(until)
                data = self._sock.recv(_CHUNK)
            except TimeoutError:
                raise
            except OSError as error:
                raise AgentError("gone", f"the connection broke: {error.strerror}") from None
            if not data:
                raise AgentError("gone", "the agent closed the connection")
            self._frames = self._decoder.feed(data)

    def _set_timeout(self, until: float | None) -> None:
        left = None if until is None else until - time.monotonic()
        if left is not None and left <= 0:
            raise TimeoutError
        self._sock.settimeout(left)


def _connect(path: str, timeout: float) -> _socket.socket:
    parent, name = os.path.split(path)
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    # A socket that does not block gets EAGAIN at once when many others are connecting; SO_SNDTIMEO waits (unix(7)).
    sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_SNDTIMEO, _TIMEVAL.pack(int(timeout), int(timeout % 1 * 1e6)))
    directory = -1
    try:
        directory = os.open(parent or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        sock.connect(f"/proc/self/fd/{directory}/{name}")  # the path may be longer than sun_path's 108 bytes
    except OSError as error:
        sock.close()
        if isinstance(error, FileNotFoundError | NotADirectoryError | ConnectionRefusedError):
            raise NotRunningError(path) from None
        if isinstance(error, PermissionError):
            raise AgentError("permission", f"{path} may not be opened by user {os.getuid()}", "use sudo") from None
        if isinstance(error, BlockingIOError):
            raise AgentError("timeout", "the agent does not accept the connection") from None
        raise AgentError("gone", f"{path}: {error.strerror}") from None
    finally:
        if directory >= 0:
            os.close(directory)
    return sock
