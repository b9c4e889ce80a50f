"""Takes what telemetry has gathered, by its local socket. One question at a time; who does not answer is asked anew."""

from __future__ import annotations

import os

from ..peers import transport
from ..peers.wire import PROTOCOL, WireError, pack, unpack
from .log import WARNING, log
from .telemetry_gather import find
from .telemetry_text import MAX_PACKED, unpack_page

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .metrics import Metric
    from .runtime import Runtime

SOCKET = "telemetry.sock"
_LIMIT = MAX_PACKED + 4096  # bytes of an answer


class Source:
    """``take(families)`` is called with each page. ``name``: who asks; ``bundled``: where the services' sockets are."""

    def __init__(self, runtime: Runtime, name: str, bundled: str, take: Callable[[list[Metric]], None]) -> None:
        self._runtime, self._name, self._bundled, self._take = runtime, name, bundled, take
        self._path = ""
        self._socket: transport.Socket | None = None
        self._number = 0
        self._waits = False
        self._said = False

    def ask(self) -> None:
        """For the next page. A connection on which the last question was not answered is given up."""
        path = next((path for path in find(self._bundled) if path.endswith(f"/{SOCKET}")), "")
        if self._socket is not None and (self._waits or path != self._path):
            self._fail(f"telemetry does not answer on {self._path}")
        if not path or not os.access(path, os.W_OK):
            self._fail("there is no telemetry service that may be asked: only what is handed over is kept")
            return
        if self._socket is None:
            try:
                self._socket = transport.connect(self._runtime.context, f"ipc://{path}", _LIMIT)
            except transport.TransportError as error:
                self._fail(str(error))
                return
            self._path = path
            self._runtime.watch(self._socket, self._receive)
        self._number += 1
        self._waits = transport.send(self._socket, [pack({"v": PROTOCOL, "id": self._number, "op": "gathered"})])
        if not self._waits:
            self._fail("telemetry does not read")

    def close(self) -> None:
        """Hang up."""
        if self._socket is not None:
            self._runtime.forget(self._socket)
        self._socket, self._waits = None, False

    def _receive(self) -> None:
        if self._socket is None:
            return
        for parts in transport.drain(self._socket, 4, 1):
            try:
                answer = unpack(parts[0].bytes if parts else b"", _LIMIT)
                page = answer.get("page")
                if answer.get("id") != self._number or not isinstance(page, bytes) or not self._waits:
                    continue  # of a question that was given up; one that is refused is given up by the next
                families = unpack_page(page)
            except WireError as error:
                self._fail(f"the answer of telemetry is {error}")
                return
            self._waits = self._said = False
            self._take(families)

    def _fail(self, why: str) -> None:
        """Say it once until there is an answer."""
        if not self._said:
            self._said = True
            log(self._name, why, WARNING)
        self.close()
