"""The options of the bundled services, and what each is told: one JSON object in EDGE_AGENT_SERVICE_OPTIONS."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Any, ClassVar

from pydantic import model_validator

from ..demand import Amount
from ..notes import NoteError, Verifier
from . import readers
from .checks import Health
from .problems import ReadError
from .readers import AbsolutePath, Before, Flag, Port, Reader, Whole
from .section import Section
from .service import MemoryAmounts, Resources, Service
from .tree import Leaf

HERE = frozenset(("identity", "storage", "node", "ledger", "telemetry", "analytics", "timekeeper"))
"""Programs of this release. The others of ``service.DEFAULT_IMPORTANCE`` are known names without a program yet."""
P2P_PORT = 4001
SCRAPE_PORT = 9090
LEAST_KEPT = 4 << 20  # bytes; ``services.options`` has the same
MIB = 1 << 20

_ENDPOINT = re.compile(r"tcp://(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9*._-]+):([0-9]{1,5})")
_Z85 = re.compile(r"[0-9A-Za-z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}")


def _endpoint(value: object) -> str:
    written = readers.text(value)
    match = _ENDPOINT.fullmatch(written)
    if match is None or not 1 <= int(match[1]) <= 65535:
        raise ReadError("cannot read endpoint", "write tcp://HOST:PORT")
    return written


def _z85_key(value: object) -> str:
    """A CURVE public key, https://rfc.zeromq.org/spec/32: 32 bytes in 40 characters."""
    written = readers.text(value)
    if not _Z85.fullmatch(written):
        raise ReadError("not a CURVE public key", "write the 40 characters of Z85 that the peer shows; quote them")
    return written


Endpoint = Annotated[str, Reader(_endpoint)]


Key = Annotated[str, Reader(_z85_key)]
Keys = Annotated[tuple[Key, ...], Before(readers.as_list)]


def _vkey(value: object) -> str:
    """A verifier key, https://c2sp.org/signed-note."""
    try:
        return Verifier.parse(readers.text(value)).vkey()
    except NoteError as error:
        raise ReadError(f"not a verifier key: {error}", "write the NAME+HASH+KEY that its owner shows") from None


VerifierKey = Annotated[str, Reader(_vkey)]
VerifierKeys = Annotated[tuple[VerifierKey, ...], Before(readers.as_list)]


class Peer(Section):
    """A light node connects to the endpoint; a full one lets the key connect, and needs no endpoint."""

    endpoint: Endpoint | None = None
    key: Key


class P2p(Section):
    """A light node only connects out; a full one only listens. Short form: the mode."""

    needs_value: ClassVar[bool] = True
    mode: Annotated[str, Reader(readers.choice("mode", "light", "full"))] = "light"
    listen: Endpoint | None = None
    peers: Annotated[tuple[Peer, ...], Before(readers.as_list)] = ()
    heartbeat_interval: Annotated[float, Reader(readers.duration(1.0))] = 60.0
    logs: VerifierKeys = ()
    members: AbsolutePath | None = None

    @classmethod
    def short(cls, leaf: Leaf) -> dict[str, object]:
        """The mode alone."""
        return {"mode": leaf}

    @model_validator(mode="after")
    def _direction(self) -> P2p:
        if self.mode == "light" and self.listen is not None:
            raise ReadError("a light node does not listen", "remove listen, or use mode: full")
        if self.mode == "light" and any(peer.endpoint is None for peer in self.peers):
            raise ReadError("a light node needs the endpoint of every peer", "add endpoint: tcp://HOST:PORT to each")
        if len({peer.key for peer in self.peers}) != len(self.peers):
            raise ReadError("two peers have the same key", "remove one of them")
        if len({log.partition("+")[0] for log in self.logs}) != len(self.logs):
            raise ReadError("two logs have the same name", "remove one of them")
        if self.mode == "light" and self.members is not None:
            raise ReadError("a light node has no members", "remove members, or use mode: full")
        return self

    def told(self, port: int | None) -> dict[str, Any]:
        """As the node service reads it. ``port`` is where a full node listens unless ``listen`` says otherwise."""
        listen = self.listen or (f"tcp://0.0.0.0:{port or P2P_PORT}" if self.mode == "full" else None)
        peers = [{"endpoint": peer.endpoint or "", "key": peer.key} for peer in self.peers]
        told = {"mode": self.mode, "listen": listen, "peers": peers, "heartbeat": self.heartbeat_interval}
        return told | {"logs": list(self.logs), "members": self.members}


class Later(Service):
    """A bundled service without a program in this release."""

    port: Port | None = None


class Identity(Service):
    """Keeps a key; signs and verifies.

    Without ``port`` it is on its unix socket alone: agents beside each other on one machine have nothing to collide on.
    """

    port: Port | None = None
    clients: Keys = ()

    def options(self) -> dict[str, Any]:
        """The port, if there is one, and the CURVE keys that may use it."""
        return {"port": self.port, "clients": self.clients}


class Storage(Service):
    """Keeps blobs by their content."""

    port: Port | None = None
    clients: Keys = ()
    cache_only: Flag = False
    cache_size: Annotated[int, Reader(readers.size(low=1))] | None = None
    read_through: Flag | None = None
    scrub_interval: Annotated[float, Reader(readers.duration(0.0, 366 * 86_400.0))] = 7 * 86_400.0
    scrub_rate: Annotated[int, Reader(readers.size(64 * 1024, 2**40))] = 4 * MIB
    blob_replicas: Annotated[int, Reader(readers.whole(1, 255, "replicas"))] = 1

    def options(self) -> dict[str, Any]:
        """Port, its clients, and the cache's bound in bytes; without one the service chooses by its cgroup.

        ``read_through`` is None where that depends on whether there is a node service to ask.
        """
        cache = {"cache_only": self.cache_only, "cache_bytes": self.cache_size, "read_through": self.read_through}
        scrub = {
            "scrub_interval": self.scrub_interval,
            "scrub_rate": self.scrub_rate,
            "blob_replicas": self.blob_replicas,
        }
        return {"port": self.port, "clients": self.clients} | cache | scrub


class Node(Service):
    """Holds the link to other nodes."""

    port: Port | None = None
    p2p: P2p = P2p()

    @model_validator(mode="after")
    def _port(self) -> Node:
        if self.port is not None and (self.p2p.mode == "light" or self.p2p.listen is not None):
            raise ReadError(
                "port is not used: the node " + ("is light" if self.p2p.mode == "light" else "has p2p.listen"),
                "remove port",
            )
        return self

    def options(self) -> dict[str, Any]:
        """The link. ``port`` is part of ``listen`` here."""
        return {"p2p": self.p2p.told(self.port)}


def _origin(value: object) -> str:
    written = readers.text(value)
    try:
        return Verifier.of(written, bytes(32)).name
    except NoteError as error:
        raise ReadError(f"not a name for a log: {error}", "write one like example.com/log") from None


class Ledger(Service):
    """Keeps a log that cannot be changed unnoticed."""

    port: Port | None = None
    clients: Keys = ()
    origin: Annotated[str, Reader(_origin)] | None = None
    record: Flag = True
    witnesses: VerifierKeys = ()
    quorum: Whole = 0

    @model_validator(mode="after")
    def _quorum(self) -> Ledger:
        if self.quorum > len(self.witnesses):
            raise ReadError(f"quorum is more than the {len(self.witnesses)} witnesses", "lower it, or add witnesses")
        return self

    def options(self) -> dict[str, Any]:
        """Port, its clients, the log's name, whether the agent's events are entries, and who witnesses it."""
        log = {"origin": self.origin, "record": self.record, "witnesses": self.witnesses, "quorum": self.quorum}
        return {"port": self.port, "clients": self.clients} | log


def _ip_address(value: object) -> str:
    written = readers.text(value)
    try:
        return str(ipaddress.ip_address(written))
    except ValueError:
        raise ReadError("not an IP address", "write 127.0.0.1, or 0.0.0.0 for everybody") from None


class Telemetry(Service):
    """Gathers metrics of all services and of the agent, for Prometheus to fetch.

    What it shows tells a lot of a node, to everybody who reaches the port; by default that is this machine.
    """

    port: Port = SCRAPE_PORT
    address: Annotated[str, Reader(_ip_address)] = "127.0.0.1"
    resources: Resources = Resources.model_construct(
        memory=MemoryAmounts.model_construct(request=Amount(16 * MIB), limit=Amount(48 * MIB)), pids=16
    )

    def options(self) -> dict[str, Any]:
        """Where it is scraped; ``port`` is not one for CURVE here."""
        return {"http": {"address": self.address, "port": self.port}}


class Analytics(Service):
    """Keeps what telemetry gathers, in buckets of time, and answers questions about it."""

    port: Port | None = None
    clients: Keys = ()
    interval: Annotated[float, Reader(readers.duration(1.0))] = 60.0
    flush_interval: Annotated[float, Reader(readers.duration(1.0))] = 600.0
    max_size: Annotated[int, Reader(readers.size(low=LEAST_KEPT))] = 64 * MIB
    resources: Resources = Resources.model_construct(
        memory=MemoryAmounts.model_construct(request=Amount(20 * MIB), limit=Amount(64 * MIB)), pids=16
    )

    def options(self) -> dict[str, Any]:
        """How often, how seldom on disk, and how much of it."""
        keeping = {"interval": self.interval, "flush": self.flush_interval, "max_bytes": self.max_size}
        return {"port": self.port, "clients": self.clients, "analytics": keeping}


class Timekeeper(Service):
    """Keeps the schedule. A profile that has one need not name it; it does so to give it other limits.

    It wakes up when something is due and not in between, so it is not asked for signs of life either: every wait of
    its loop is bounded, and an end is seen at once.
    """

    health: Health | None = Health.model_construct(interval=0.0)
    resources: Resources = Resources.model_construct(
        memory=MemoryAmounts.model_construct(request=Amount(20 * MIB), limit=Amount(48 * MIB)), pids=16
    )
