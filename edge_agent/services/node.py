"""The node's link to others over CURVE. A light node only connects out, a full node only listens.

    peers   {}  -> {mode, peers: [...], counts: {what: times}}
                   light: {endpoint, key, state, node, release, age, rtt, failures, refused, why, until}
                   full: {key, state, node, release, age, refused, version, status}; times in seconds or nil
    key     {}  -> {public}             this node's CURVE key (Z85), to be configured at its peers
    heads   {}  -> {heads: [{origin, size, root, time, source, forked, checked}]}    time: unix seconds or nil
    refused {}  -> {refused: [{age, endpoint, code, why}], evidence: [{origin, kind, held, shown}]}

and a light node

    fetch    {hash, offset, length}  -> {data, size, peer}    in order from offset 0; the last only with the right hash
    entries  {origin, start, most}   -> {entries, size, peer} each proved under the held head of ``size`` entries
    includes {origin, hash}          -> {index, size, peer}   ``hash``: of a leaf, RFC 9162
    submit   {origin, entry}         -> {index, size, peer}   a promise; ``includes`` proves it

Beyond the codes of ``requests``: offline, timeout, no-head, forked, unknown-log, not-found, unavailable,
unknown-outcome, and what a peer has lied about last: wrong-blob, wrong-entry, replay. What is decided is in ``peers``;
here sockets follow.
"""

from __future__ import annotations

import os

from ..notes import NoteError, Verifier
from ..peers import transport
from ..peers.frames import MAX_REQUEST
from ..peers.wire import MAX_NAME
from .errors import StartError
from .log import log
from .metrics import COUNTER, GAUGE, Metric
from .runtime import Service

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Protocol

    from ..peers import members, session
    from ..peers.wire import Message
    from .options import Options
    from .requests import Operation, Request
    from .runtime import Runtime

    class Link(Protocol):
        """What a light and a full node have in common."""

        def operations(self) -> Mapping[str, Operation]: ...
        def deadline(self) -> float | None: ...
        def tick(self, now: float) -> None: ...
        def peers(self) -> list[Message]: ...
        def counts(self) -> Mapping[str, int]: ...
        def close(self) -> None: ...


FULL = ("heads", "refused")
LIGHT = (*FULL, "fetch", "entries", "includes", "submit")


def aged(view: members.View | session.View, now: float) -> Message:
    """A view as an answer has it: how long ago the peer was heard of, in place of a moment on this machine's clock."""
    entry: Message = dict(zip(view._fields, view, strict=True))
    seen = entry.pop("last_seen")
    return entry | {"age": None if seen is None else now - seen}


def named(options: Options) -> str:
    """The name that this node gives itself."""
    host = "".join(letter for letter in os.uname().nodename if letter.isprintable())[:MAX_NAME]
    return options.node_id or host or "unnamed"


def verifiers(options: Options) -> list[Verifier]:
    """The keys of the logs that are believed. Raises StartError."""
    try:
        return [Verifier.parse(vkey) for vkey in options.link.logs]
    except NoteError as error:
        raise StartError(f"cannot use p2p.logs: {error}; fix: NAME+HASH+KEY, as the log shows it") from error


class Node(Service):
    """The service."""

    name = "node"
    request_limit = MAX_REQUEST

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self._link: Link | None = None
        self._public = ""

    def open(self, runtime: Runtime) -> None:
        """Load the CURVE key, or make it; then connect, or listen."""
        key = runtime.curve_key("node.key")
        self._public = key.public
        log(self.name, f"public key {key.public}")
        try:
            self._link = _link(runtime, self.options, key)
        except transport.TransportError as error:
            raise StartError(str(error)) from error

    def operations(self) -> Mapping[str, Operation]:
        """peers, key, and those of the link, which comes with ``open``."""

        def of_link(name: str) -> Operation:
            return lambda request: self._link.operations()[name](request) if self._link else None

        names = FULL if self.options.link.mode == "full" else LIGHT
        return {"peers": self._peers, "key": self._key, **{name: of_link(name) for name in names}}

    def details(self) -> Message:
        """How the node is linked."""
        states = [peer["state"] for peer in self._link.peers()] if self._link else []
        return {
            "mode": self.options.link.mode,
            "node_id": named(self.options),
            "up": states.count("up"),
            "peers": len(states),
        }

    def metrics(self) -> Sequence[Metric]:
        """Peers by state, and what was checked and refused."""
        if self._link is None:
            return ()
        states = [str(peer["state"]) for peer in self._link.peers()]
        by_state = tuple(({"state": state}, float(states.count(state))) for state in sorted(set(states)))
        by_what = tuple(({"what": what}, float(times)) for what, times in sorted(self._link.counts().items()))
        return (
            Metric("node_peers", GAUGE, "Other nodes, by how they are seen from here.", by_state),
            Metric("node_exchanges_total", COUNTER, "Answers that held, or were given, and refusals.", by_what),
        )

    def deadline(self) -> float | None:
        """The next beat, retry or expiry."""
        return self._link.deadline() if self._link else None

    def tick(self, now: float) -> None:
        """It has come."""
        if self._link:
            self._link.tick(now)

    def close(self) -> None:
        """Drop all connections."""
        if self._link:
            self._link.close()

    def _peers(self, _request: Request) -> Message:
        link = self._link
        peers, counts = (link.peers(), dict(link.counts())) if link else ([], {})
        return {"mode": self.options.link.mode, "peers": peers, "counts": counts}

    def _key(self, _request: Request) -> Message:
        return {"public": self._public}


def _link(runtime: Runtime, options: Options, key: transport.Key) -> Link:
    """Only one of the two is imported: each costs memory."""
    if options.link.mode == "full":
        from .node_full import FullLink

        return FullLink(runtime, options, key)
    from .node_light import LightLink

    return LightLink(runtime, options, key)
