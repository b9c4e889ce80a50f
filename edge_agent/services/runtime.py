"""The one way in which bundled services open, answer, tell how they are, and close. ``loop`` turns them."""

from __future__ import annotations

import os
import pwd
import time

from .. import __version__, callers
from ..peers import transport
from . import directory, enrolment, keyfile, metrics, rates, requests
from .errors import RefusedError, StartError
from .log import DEBUG, WARNING, log, wanted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ..peers.wire import Message
    from .loop import Loop
    from .options import Options

BATCH = 16  # requests answered before looking at anything else
CURVE_KEY = "curve25519"  # kind of a key file


class Service:
    """What the runtime asks of a service. Subclasses answer ``operations`` and override what they need."""

    name = ""
    request_limit = 64 * 1024  # bytes of one request
    rate = (
        rates.Rate()
    )  # of each client of the port; on the local socket, whose clients are let in by their group, none

    def __init__(self, options: Options) -> None:
        self.options = options

    def open(self, runtime: Runtime) -> None:
        """Acquire what is needed to be ready. Raises StartError."""

    def operations(self) -> Mapping[str, requests.Operation]:
        """What can be asked for, by name; ``health``, ``metrics`` and ``rekey`` come from the runtime."""
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
    """One service on its loop."""

    def __init__(self, service: Service, loop: Loop) -> None:
        self.service = service
        self.context, self.gate, self.now = loop.context, loop.gate, loop.now
        self.path = os.path.join(service.options.run_dir, f"{service.name}.sock")
        self._loop = loop
        self._domains: tuple[str, ...] = ()
        self._sockets: list[transport.Socket] = []
        self._operations: dict[str, requests.Operation] = {}
        self._since = self.now()
        self._answered = self._refused = 0
        self._rates = rates.Rates(service.rate)
        self._lock = -1
        self.curve_keys: dict[str, tuple[str, str]] = {}  # file -> public key and the next one, Z85

    # -- for services

    def watch(self, socket: transport.Socket | int, call: Callable[[], None]) -> None:
        """Call ``call`` whenever ``socket``, or a descriptor, has something to read."""
        self._loop.watch(socket, call)

    def unwatch(self, descriptor: int) -> None:
        """Do not look at it any more; its owner closes it."""
        self._loop.forget(descriptor)

    def forget(self, socket: transport.Socket | int) -> None:
        """Close ``socket``, dropping what it has not sent; a descriptor is left to its owner."""
        self._loop.forget(socket)
        if not isinstance(socket, int):
            socket.close(linger=0)

    def curve_key(self, file: str) -> transport.Key:
        """The CURVE key pair in ``file`` of the service's directory, made at first use. Raises StartError.

        It and the one that ``rekey`` puts in its place are told to identity, for the node's document.
        """
        path = os.path.join(self.service.options.data_dir, file)
        pair = keyfile.load_pair(path, CURVE_KEY, 40, transport.new_secret, time.time())
        key, after = (transport.Key(each.text) for each in pair)
        self.curve_keys[path] = (key.public, after.public)
        enrolment.announce(self, self.curve_keys[path])
        return key

    # -- for the loop

    def open(self) -> None:
        """Become ready. Raises StartError."""
        options, service = self.service.options, self.service
        directory.make(options.data_dir)
        self._lock = directory.lock(options.data_dir, service.name)
        try:
            os.makedirs(options.run_dir, mode=0o750, exist_ok=True)  # the agent has made it; by hand it is not there
        except OSError as error:
            raise StartError(f"cannot make {options.run_dir}: {error.strerror}; fix: make it, writable") from error
        common = {"health": self._health, "metrics": self._metrics, "rekey": self._rekey}
        self._operations = {**common, **service.operations()}
        others = self.gate.domains()
        service.open(self)
        try:
            self._listen(service.name, service.request_limit)
        except transport.TransportError as error:
            raise StartError(str(error)) from error
        self._domains = tuple(self.gate.domains() - others)

    def _listen(self, name: str, limit: int) -> None:
        options = self.service.options
        self._serve(transport.listen_local(self.context, self.gate, self.path, f"{name}.local", limit))
        if options.port is not None:
            key, endpoint, clients = self.curve_key("curve.key"), f"tcp://127.0.0.1:{options.port}", options.clients
            domain = f"{name}.clients"
            socket = transport.listen_curve(self.context, self.gate, endpoint, key, clients, domain, limit)
            self.gate.restrict(domain, lambda user: self._rates.welcome(user, self.now()))
            self._serve(socket, self._rates)
            log(name, f"answers {len(clients)} client keys on {endpoint}; its own key is {key.public}")

    def _serve(self, socket: transport.Socket, bounded: rates.Rates | None = None) -> None:
        self._sockets.append(socket)
        self.watch(socket, lambda: self._requests(socket, bounded))

    def close(self) -> None:
        """Let go of all but the lock."""
        self.service.close()
        for socket in self._sockets:
            self.forget(socket)

    def unlock(self) -> None:
        """Let the next one in, once nothing of this one is left."""
        if self._sockets:  # ours, and the lock is still held: libzmq leaves the file
            try:
                os.unlink(self.path)
            except OSError:
                pass
        if self._lock >= 0:
            os.close(self._lock)

    # -- requests

    def _requests(self, socket: transport.Socket, bounded: rates.Rates | None) -> None:
        for parts in transport.drain(socket, BATCH, 2):
            if len(parts) != 2:
                self._refused += 1  # not of this protocol: no answer
                continue
            route, data, sender = parts[0].bytes, parts[1].bytes, transport.user(parts[1])
            admitted = bounded.admit(sender, len(data), self.now()) if bounded else rates.OK
            if admitted == rates.CUT:
                self._refused += 1
                self.gate.guard.drop(transport.connection(parts[1]))
                log(self.service.name, f"{sender} is cut off for {rates.PAUSE:g} s: over its rate", WARNING)
                continue

            def send(data: bytes, route: bytes = route) -> None:
                transport.send(socket, [route, data])

            request = requests.parse(data, self.service.request_limit, sender, send)
            if request is None:
                done = False
            elif admitted == rates.BUSY:
                request.fail(RefusedError("busy", "more requests or bytes than this peer may send", "wait, then ask"))
                done = False
            elif not self._may_ask(sender, request.op):
                request.fail(RefusedError("denied", f"{sender} may not ask for {request.op[:64]!r}", "ask as root"))
                done = False
            else:
                done = requests.perform(request, self._operations)
            self._answered += done
            self._refused += not done
            if wanted(DEBUG):
                asked = "sends what is no request" if request is None else f"asks {request.op[:64]!r}"
                log(self.service.name, f"{sender} {asked}: {'done' if done else 'refused'}", DEBUG)

    def _may_ask(self, sender: str, op: str) -> bool:
        """Another service of this node may ask for what ``callers`` says; people whom the socket lets in, for all."""
        uid = sender.removeprefix("uid:")
        if uid == sender or int(uid) in (0, os.geteuid()):
            return True
        try:
            user = pwd.getpwuid(int(uid)).pw_name
        except KeyError:
            return True
        return callers.may_ask(user, self.service.name, op)

    def _handshakes_refused(self) -> int:
        return sum(self.gate.refused[domain] for domain in self._domains)

    def _health(self, _request: requests.Request) -> Message:
        return {
            "name": self.service.name,
            "release": __version__,
            "pid": os.getpid(),
            "uptime": self.now() - self._since,
            "answered": self._answered,
            "refused": self._refused,
            "handshakes_refused": self._handshakes_refused(),
            **self.service.details(),
        }

    def _rekey(self, request: requests.Request) -> Message:
        """The announced CURVE key takes the place of the present one, from the next start on."""
        if request.user not in ("uid:0", f"uid:{os.geteuid()}"):
            raise RefusedError("denied", f"{request.user} may not change keys", "be root")
        if not self.curve_keys:
            raise RefusedError("unknown-key", f"{self.service.name} has no CURVE key", "a service with a port, or node")
        for path in self.curve_keys:
            keyfile.advance(path)
        keys = [after for _key, after in self.curve_keys.values()]
        self.curve_keys.clear()  # until the next start: a second call would find no announced key
        log(self.service.name, "its next CURVE key takes effect when it is started again")
        return {"keys": keys}

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
                self._handshakes_refused(),
            ),
        ]
        counts = [self.gate.guard.counts(domain) for domain in self._domains]
        told += [
            metrics.gauge("service_connections", "Connections that are open.", sum(each[0] for each in counts)),
            metrics.counter(
                "service_connections_dropped_total",
                "Connections that were ended: over their rate, or bytes without a message.",
                sum(each[1] for each in counts),
            ),
        ]
        pss = metrics.own_pss()
        if pss is not None:
            told.append(metrics.gauge("service_memory_pss_bytes", "Proportional set size of the process.", pss))
        return {"metrics": [*told, *self.service.metrics()]}
