"""The node's link to others: heartbeats over CURVE. A light node only connects out, a full node only listens.

    peers {}  -> {mode, peers: [...]}   light: {endpoint, key, state, node, release, age, rtt, failures, refused}
                                        full: {key, state, node, release, age, refused}; ages in seconds or nil
    key   {}  -> {public}               this node's CURVE key (Z85), to be configured at its peers

What is decided is in ``peers.light`` and ``peers.full``; here the sockets follow.
"""

from __future__ import annotations

import os

from .. import __version__
from ..peers import full, light, transport
from ..peers.wire import MAX_BEAT, MAX_NAME
from .errors import StartError
from .log import WARNING, log
from .runtime import Service

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..peers.wire import Message
    from .options import Options
    from .requests import Operation, Request
    from .runtime import Runtime

BATCH = 64  # beats read in one turn of the loop


def _chance() -> float:
    return int.from_bytes(os.urandom(4), "big") / 2**32


def _name(options: Options) -> str:
    host = "".join(letter for letter in os.uname().nodename if letter.isprintable())[:MAX_NAME]
    return options.node_id or host or "unnamed"


class Node(Service):
    """The service."""

    name = "node"
    request_limit = 4096

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self._link: _LightLink | _FullLink
        self._public = ""

    def open(self, runtime: Runtime) -> None:
        """Load the CURVE key, or make it; then connect, or listen."""
        key = runtime.curve_key("node.key")
        self._public = key.public
        log(self.name, f"public key {key.public}")
        try:
            self._link = (_FullLink if self.options.link.mode == "full" else _LightLink)(runtime, self.options, key)
        except transport.TransportError as error:
            raise StartError(str(error)) from error

    def operations(self) -> Mapping[str, Operation]:
        """peers, key."""
        return {"peers": self._peers, "key": self._key}

    def details(self) -> Message:
        """How the node is linked."""
        states = [peer["state"] for peer in self._link.peers()]
        return {
            "mode": self.options.link.mode,
            "node_id": _name(self.options),
            "up": states.count("up"),
            "peers": len(states),
        }

    def deadline(self) -> float | None:
        """The next beat, retry or expiry."""
        return self._link.machine.deadline()

    def tick(self, now: float) -> None:
        """It has come."""
        self._link.tick(now)

    def _peers(self, _request: Request) -> Message:
        return {"mode": self.options.link.mode, "peers": self._link.peers()}

    def _key(self, _request: Request) -> Message:
        return {"public": self._public}


def _age(now: float, last_seen: float | None) -> float | None:
    return None if last_seen is None else now - last_seen


class _LightLink:
    """One socket per full peer while it is up or being tried."""

    def __init__(self, runtime: Runtime, options: Options, key: transport.Key) -> None:
        link = options.link
        self._runtime, self._key, self._targets = runtime, key, link.peers
        self._sockets: dict[int, transport.Socket] = {}
        self.machine = light.Light(_name(options), __version__, link.peers, link.heartbeat, _chance)

    def tick(self, now: float) -> None:
        self._perform(self.machine.step(light.Tick(), now))

    def peers(self) -> list[Message]:
        now = self._runtime.now()
        return [
            {
                "endpoint": view.endpoint,
                "key": view.key,
                "state": view.state,
                "node": view.node,
                "release": view.release,
                "age": _age(now, view.last_seen),
                "rtt": view.rtt,
                "failures": view.failures,
                "refused": view.refused,
            }
            for view in self.machine.views()
        ]

    def _perform(self, actions: Sequence[light.Action]) -> None:
        for action in actions:
            if isinstance(action, light.Open):
                self._open(action.peer)
            elif isinstance(action, light.Close):
                if action.peer in self._sockets:
                    self._runtime.forget(self._sockets.pop(action.peer))
            elif isinstance(action, light.Send):
                if action.peer in self._sockets:
                    transport.send(self._sockets[action.peer], [action.data])
            else:
                log("node", action.text)

    def _open(self, peer: int) -> None:
        target = self._targets[peer]
        try:
            curve = (self._key, target.key)
            socket = transport.connect(self._runtime.context, target.endpoint, MAX_BEAT, curve)
        except transport.TransportError as error:
            log("node", str(error), WARNING)  # the machine finds no echo and tries again later
            return
        self._sockets[peer] = socket
        self._runtime.watch(socket, lambda: self._read(peer, socket))

    def _read(self, peer: int, socket: transport.Socket) -> None:
        for parts in transport.drain(socket, BATCH, 1):
            data = parts[0].bytes if parts else b""  # of several parts: refused like any other garbage
            self._perform(self.machine.step(light.Heard(peer, data), self._runtime.now()))
            if self._sockets.get(peer) is not socket:
                return


class _FullLink:
    """One listening socket that only configured keys can connect to."""

    def __init__(self, runtime: Runtime, options: Options, key: transport.Key) -> None:
        link = options.link
        keys = [target.key for target in link.peers]
        self._runtime = runtime
        self.machine = full.Full(_name(options), __version__, keys)
        endpoint = link.listen or ""
        self._socket = transport.listen_curve(
            runtime.context, runtime.gate, endpoint, key, frozenset(keys), "peers", MAX_BEAT
        )
        runtime.watch(self._socket, self._read)
        log("node", f"listens on {endpoint} for {len(keys)} keys")

    def tick(self, now: float) -> None:
        self._perform(self.machine.step(light.Tick(), now))

    def peers(self) -> list[Message]:
        now = self._runtime.now()
        return [
            {
                "key": view.key,
                "state": view.state,
                "node": view.node,
                "release": view.release,
                "age": _age(now, view.last_seen),
                "refused": view.refused,
            }
            for view in self.machine.views()
        ]

    def _read(self) -> None:
        for parts in transport.drain(self._socket, BATCH, 2):
            if len(parts) == 2:
                heard = full.Heard(transport.user(parts[1]), parts[0].bytes, parts[1].bytes)
                self._perform(self.machine.step(heard, self._runtime.now()))

    def _perform(self, actions: Sequence[full.Send | light.Note]) -> None:
        for action in actions:
            if isinstance(action, full.Send):
                transport.send(self._socket, [action.route, action.data])
            else:
                log("node", action.text)
