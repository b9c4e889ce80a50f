"""One process, one thread, one poll loop, one libzmq context: for one service, or for several that share them.

At rest it wakes up for the watchdog and for the services' own deadlines only, and not at all when there is neither.
WATCHDOG=1 is sent from this very loop: when a service hangs in its work, it stays out.

Services that share a process (``mode: embedded``) share its fate: a defect in one, or one that cannot start, ends all,
and the supervisor starts all again. None of them may wait inside a call for another, which could then never answer.
"""

from __future__ import annotations

import math
import os
import time

import zmq

from ..peers import transport
from . import notify
from .errors import StartError
from .log import DEBUG, log
from .runtime import Runtime, Service

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .signals import Stop

LONGEST_WAIT = 2**31 - 1  # milliseconds, 24 days: zmq_poll takes an int


class Loop:
    """Runs services until it is asked to stop. Raises StartError when libzmq cannot authenticate."""

    def __init__(self, services: Sequence[Service], notifier: notify.Notifier, stop: Stop) -> None:
        try:
            self.context = transport.context()
        except transport.TransportError as error:
            raise StartError(str(error)) from error
        self.now: Callable[[], float] = time.monotonic
        self.gate = transport.Gate(self.context)
        self._notifier, self._stop = notifier, stop
        self._poller = zmq.Poller()
        self._calls: dict[object, Callable[[], None]] = {}
        self._runtimes = [Runtime(service, self) for service in services]
        self._names = "+".join(service.name for service in services)
        beat = notify.watchdog(os.environ, os.getpid())
        self._beat = beat / 2 if beat else None
        self._beat_due = math.inf

    def watch(self, socket: transport.Socket | int, call: Callable[[], None]) -> None:
        """Call ``call`` whenever ``socket``, or a descriptor, has something to read."""
        self._calls[socket] = call
        self._poller.register(socket, zmq.POLLIN)

    def forget(self, socket: transport.Socket | int) -> None:
        """Do not look at it any more."""
        if self._calls.pop(socket, None) is not None:
            self._poller.unregister(socket)

    def run(self) -> None:
        """Start, serve until asked to stop, stop. Raises StartError."""
        try:
            self.watch(self._stop.fd, lambda: None)  # ``turn`` ends, and the loop looks at stop.asked
            self.watch(self.gate.socket, self._handshakes)
            self.watch(self.gate.guard.fd, self.gate.guard.look)
            for runtime in self._runtimes:
                runtime.open()
            paths = ", ".join(runtime.path for runtime in self._runtimes)
            self._notifier.send("READY=1", f"STATUS=answers on {paths}")
            for runtime in self._runtimes:
                log(runtime.service.name, f"ready: {runtime.path}")
            self._beat_due = self.now() if self._beat else math.inf
            while not self._stop.asked:
                self._turn()
            self._notifier.send("STOPPING=1")
            log(self._names, "stopping")
        finally:
            self._close()

    def _close(self) -> None:
        for runtime in reversed(self._runtimes):
            runtime.close()
        self.gate.close()
        self.context.destroy(linger=0)
        for runtime in self._runtimes:
            runtime.unlock()

    def _turn(self) -> None:
        services = [runtime.service for runtime in self._runtimes]
        for socket, _ in self._poller.poll(self._timeout(services)):
            call = self._calls.get(socket)
            if call is not None:  # an earlier call of this turn may have forgotten it
                call()
        now = self.now()
        for service in services:
            deadline = service.deadline()
            if deadline is not None and deadline <= now:
                service.tick(now)
            if service.busy():
                service.work()
        if self._beat and self._beat_due <= now:
            self._notifier.send("WATCHDOG=1")
            self._beat_due = now + self._beat

    def _handshakes(self) -> None:
        before = sum(self.gate.refused.values())
        self.gate.serve()
        refused = sum(self.gate.refused.values()) - before
        if refused:
            log(self._names, f"refused {refused} handshakes: not allowed to connect", DEBUG)

    def _timeout(self, services: list[Service]) -> int | None:
        """Milliseconds until something is due."""
        due = self._beat_due
        for service in services:
            if service.busy():
                return 0
            deadline = service.deadline()
            due = due if deadline is None else min(due, deadline)
        return None if due == math.inf else min(LONGEST_WAIT, max(0, math.ceil((due - self.now()) * 1000)))
