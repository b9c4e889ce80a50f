"""Requests to another service of this machine, without waiting for it: the caller's loop goes on meanwhile."""

from __future__ import annotations

import os

from ..peers import frames, transport
from ..peers.serving import DeclinedError
from ..peers.wire import PROTOCOL, WireError, pack, unpack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..peers.wire import Message
    from .runtime import Runtime

ANSWER_WITHIN = 5.0  # seconds
BATCH = 64


class Relay:
    """The way to the service ``name``. ``done(token, result)`` is called once for each ``ask``, even from in it."""

    def __init__(
        self,
        runtime: Runtime,
        name: str,
        done: Callable[[int, Message | DeclinedError], None],
        within: float = ANSWER_WITHIN,
    ) -> None:
        self._runtime, self._name, self._done, self._within = runtime, name, done, within
        directory = os.path.dirname(runtime.service.options.run_dir)
        self._path = os.path.join(directory, name, f"{name}.sock")
        self._socket: transport.Socket | None = None
        self._file: tuple[int, int] | None = None  # which socket file it is connected to
        self._last = 0
        self._waiting: dict[int, tuple[int, float]] = {}  # id -> token, until when

    def deadline(self) -> float | None:
        """When ``tick`` is due; None: never. Requests are in order, and so are their times."""
        return next(iter(self._waiting.values()))[1] if self._waiting else None

    def tick(self, now: float) -> None:
        """Give up what has not been answered."""
        late = [number for number, (_, until) in self._waiting.items() if until <= now]
        for number in late:
            self._fail(number, f"{self._name} has not answered in {self._within:g} s")

    def close(self) -> None:
        """Let go of the connection; nobody is told any more."""
        self._waiting.clear()
        self._disconnect()

    def ask(self, token: int, op: str, args: Message) -> None:
        """One request."""
        self._last += 1
        self._waiting[self._last] = (token, self._runtime.now() + self._within)
        why = self._connect()
        data = pack({"v": PROTOCOL, "id": self._last, "op": op, **args})
        if self._socket is None:
            self._fail(self._last, why)
        elif not transport.send(self._socket, [data]):
            self._fail(self._last, f"{self._name} does not read")

    def _connect(self) -> str:
        """Connect to the service that is there now; why that cannot be, or ''."""
        try:
            found = os.stat(self._path)
        except OSError:
            self._disconnect()
            return f"{self._name} does not run here"
        file = (found.st_ino, found.st_ctime_ns)
        if self._socket is not None and file == self._file:
            return ""
        self._disconnect()
        try:
            socket = transport.connect(self._runtime.context, f"ipc://{self._path}", frames.MAX_ANSWER)
        except transport.TransportError as error:
            return str(error)
        self._socket, self._file = socket, file
        self._runtime.watch(socket, lambda: self._read(socket))
        return ""

    def _disconnect(self) -> None:
        if self._socket is not None:
            self._runtime.forget(self._socket)
        self._socket = None

    def _read(self, socket: transport.Socket) -> None:
        for parts in transport.drain(socket, BATCH, 1):
            try:
                answer = unpack(parts[0].bytes if parts else b"", frames.MAX_ANSWER)
            except WireError:
                continue  # nobody is told by it: the request runs out of time
            waiting = self._waiting.pop(answer.get("id", 0), None)
            if waiting is None:
                continue
            self._done(waiting[0], answer if answer.get("ok") is True else _declined(answer))

    def _fail(self, number: int, why: str) -> None:
        token, _ = self._waiting.pop(number)
        self._done(token, DeclinedError("unavailable", why))


def _declined(answer: Message) -> DeclinedError:
    error = answer.get("error")
    error = error if isinstance(error, dict) else {}
    return DeclinedError(str(error.get("code", "failed")), str(error.get("why", "")))
