"""The one way in which bundled services start, become ready, answer, prove that they are alive, and stop.

One thread, one poll loop. At rest it wakes up for the watchdog and for the service's own deadline only, and not at all
when there is neither. WATCHDOG=1 is sent from this very loop: when a service hangs in its work, it stays out.
"""

from __future__ import annotations

import math
import os
import time

import zmq

from .. import __version__
from ..peers import transport
from . import directory, keyfile, metrics, notify, requests
from .errors import StartError
from .log import DEBUG, log, wanted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ..peers.wire import Message
    from .options import Options
    from .signals import Stop

BATCH = 16  # requests answered before looking at anything else
CURVE_KEY = "curve25519"  # kind of a key file


class Service:
    """What the runtime asks of a service. Subclasses answer ``operations`` and override what they need."""

    name = ""
    request_limit = 64 * 1024  # bytes of one request

    def __init__(self, options: Options) -> None:
        self.options = options

    def open(self, runtime: Runtime) -> None:
        """Acquire what is needed to be ready. Raises StartError."""

    def operations(self) -> Mapping[str, requests.Operation]:
        """What can be asked for, by name; ``health`` and ``metrics`` come from the runtime."""
        raise NotImplementedError

    def details(self) -> Message:
        """What ``health`` says beyond the common part."""
        return {}

    def metrics(self) -> Sequence[metrics.Metric]:
        """What ``metrics`` says beyond the common part."""
        return ()

    def deadline(self) -> float | None:
        """When ``tick`` is due, monotonic seconds; None: never."""
        return None

    def tick(self, now: float) -> None:
        """The deadline has come."""

    def busy(self) -> bool:
        """Is there work to do between requests? The loop then calls ``work`` instead of waiting."""
        return False

    def work(self) -> None:
        """One short slice of it, milliseconds."""

    def close(self) -> None:
        """Let go of everything."""


class Runtime:
    """Runs one service until it is asked to stop. Raises StartError when libzmq cannot authenticate."""

    def __init__(self, service: Service, notifier: notify.Notifier, stop: Stop) -> None:
        self.service = service
        try:
            self.context = transport.context()
        except transport.TransportError as error:
            raise StartError(str(error)) from error
        self.gate = transport.Gate(self.context)
        self.now: Callable[[], float] = time.monotonic
        self._notifier, self._stop = notifier, stop
        self._poller = zmq.Poller()
        self._calls: dict[object, Callable[[], None]] = {}
        self._sockets: list[transport.Socket] = []
        self._operations: dict[str, requests.Operation] = {}
        self._since = self.now()
        self._answered = self._refused = 0
        self._lock = -1
        self._path = os.path.join(service.options.run_dir, f"{service.name}.sock")
        beat = notify.watchdog(os.environ, os.getpid())
        self._beat = beat / 2 if beat else None
        self._beat_due = math.inf

    # -- for services

    def watch(self, socket: transport.Socket | int, call: Callable[[], None]) -> None:
        """Call ``call`` whenever ``socket``, or a descriptor, has something to read."""
        self._calls[socket] = call
        self._poller.register(socket, zmq.POLLIN)

    def forget(self, socket: transport.Socket | int) -> None:
        """Close ``socket``, dropping what it has not sent; a descriptor is left to its owner."""
        if self._calls.pop(socket, None) is not None:
            self._poller.unregister(socket)
        if not isinstance(socket, int):
            socket.close(linger=0)

    def curve_key(self, file: str) -> transport.Key:
        """The CURVE key pair in ``file`` of the service's directory, made at first use. Raises StartError."""
        path = os.path.join(self.service.options.data_dir, file)
        return transport.Key(keyfile.load_or_make(path, CURVE_KEY, 40, transport.new_secret, time.time()).text)

    # -- life

    def run(self) -> None:
        """Start, serve until asked to stop, stop. Raises StartError."""
        try:
            self._open()
            self._notifier.send("READY=1", f"STATUS=answers on {self._path}")
            log(self.service.name, f"ready: {self._path}")
            self._beat_due = self.now() if self._beat else math.inf
            while not self._stop.asked:
                self._turn()
            self._notifier.send("STOPPING=1")
            log(self.service.name, "stopping")
        finally:
            self._close()

    def _open(self) -> None:
        options, service = self.service.options, self.service
        directory.make(options.data_dir)
        self._lock = directory.lock(options.data_dir, service.name)
        try:
            os.makedirs(options.run_dir, mode=0o750, exist_ok=True)  # the agent has made it; by hand it is not there
        except OSError as error:
            raise StartError(f"cannot make {options.run_dir}: {error.strerror}; fix: make it, writable") from error
        self._poller.register(self._stop.fd, zmq.POLLIN)
        self._calls[self._stop.fd] = lambda: None  # the loop looks at stop.asked
        self.watch(self.gate.socket, self._handshakes)
        self._operations = {"health": self._health, "metrics": self._metrics, **service.operations()}
        service.open(self)
        try:
            limit = service.request_limit
            self._serve(transport.listen_local(self.context, self.gate, self._path, "local", limit))
            if options.port is not None:
                key, endpoint = self.curve_key("curve.key"), f"tcp://127.0.0.1:{options.port}"
                clients = options.clients
                self._serve(transport.listen_curve(self.context, self.gate, endpoint, key, clients, "clients", limit))
                log(service.name, f"answers {len(clients)} client keys on {endpoint}; its own key is {key.public}")
        except transport.TransportError as error:
            raise StartError(str(error)) from error

    def _serve(self, socket: transport.Socket) -> None:
        self._sockets.append(socket)
        self.watch(socket, lambda: self._requests(socket))

    def _close(self) -> None:
        self.service.close()
        for socket in [*self._sockets, self.gate.socket]:
            socket.close(linger=0)
        self.context.destroy(linger=0)
        if self._sockets:  # ours, and the lock is still held: libzmq leaves the file
            try:
                os.unlink(self._path)
            except OSError:
                pass
        if self._lock >= 0:
            os.close(self._lock)

    # -- one turn of the loop

    def _turn(self) -> None:
        for socket, _ in self._poller.poll(self._timeout()):
            call = self._calls.get(socket)
            if call is not None:  # an earlier call of this turn may have forgotten it
                call()
        now = self.now()
        deadline = self.service.deadline()
        if deadline is not None and deadline <= now:
            self.service.tick(now)
        if self.service.busy():
            self.service.work()
        if self._beat and self._beat_due <= now:
            self._notifier.send("WATCHDOG=1")
            self._beat_due = now + self._beat

    def _timeout(self) -> int | None:
        if self.service.busy():
            return 0
        deadline = self.service.deadline()
        due = min(self._beat_due, math.inf if deadline is None else deadline)
        return None if due == math.inf else max(0, math.ceil((due - self.now()) * 1000))

    def _handshakes(self) -> None:
        before = self.gate.refused
        self.gate.serve()
        if self.gate.refused > before:
            log(self.service.name, f"refused {self.gate.refused - before} handshakes: not allowed to connect", DEBUG)

    def _requests(self, socket: transport.Socket) -> None:
        for parts in transport.drain(socket, BATCH, 2):
            if len(parts) != 2:
                self._refused += 1  # not of this protocol: no answer
                continue
            route = parts[0].bytes

            def send(data: bytes, route: bytes = route) -> None:
                transport.send(socket, [route, data])

            limit, sender = self.service.request_limit, transport.user(parts[1])
            request = requests.parse(parts[1].bytes, limit, sender, send)
            done = request is not None and requests.perform(request, self._operations)
            self._answered += done
            self._refused += not done
            if wanted(DEBUG):
                asked = "sends what is no request" if request is None else f"asks {request.op[:64]!r}"
                log(self.service.name, f"{sender} {asked}: {'done' if done else 'refused'}", DEBUG)

    def _health(self, _request: requests.Request) -> Message:
        return {
            "name": self.service.name,
            "release": __version__,
            "pid": os.getpid(),
            "uptime": self.now() - self._since,
            "answered": self._answered,
            "refused": self._refused,
            "handshakes_refused": self.gate.refused,
            **self.service.details(),
        }

    def _metrics(self, _request: requests.Request) -> Message:
        asked: metrics.Metric = metrics.Metric(
            "service_requests_total",
            metrics.COUNTER,
            "Messages that asked for something, by what became of them.",
            (({"outcome": "answered"}, self._answered), ({"outcome": "refused"}, self._refused)),
        )
        told = [
            metrics.gauge("service_info", "1; the labels tell.", 1, release=__version__),
            metrics.gauge("service_uptime_seconds", "Time since the service started.", self.now() - self._since),
            asked,
            metrics.counter(
                "service_handshakes_refused_total",
                "Connections that were not let in: a key, a user or a mechanism that is not allowed.",
                self.gate.refused,
            ),
        ]
        pss = metrics.own_pss()
        if pss is not None:
            told.append(metrics.gauge("service_memory_pss_bytes", "Proportional set size of the process.", pss))
        return {"metrics": [*told, *self.service.metrics()]}
