"""A light node's sockets, files and clients; ``peers.light`` decides."""

from __future__ import annotations

import math
import os
import time

from .. import __version__
from ..peers import events, frames, inquiries, light, transport
from ..peers.inquiries import UnfitError
from .agentstatus import AgentStatus
from .errors import RefusedError
from .log import WARNING, log
from .node import aged, named, verifiers
from .nodefiles import Files
from .requests import Request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ..peers.heads import Log
    from ..peers.status import Status
    from ..peers.wire import Message
    from .options import Options
    from .requests import Operation
    from .runtime import Runtime

BATCH = 64  # answers read in one turn of the loop
FIXES = {
    "offline": "see `edge-agent peers`; it is tried again",
    "no-head": "wait for a full peer to show one",
    "unknown-log": "give its key: p2p.logs",
    "forked": "see `edge-agent peers`; pin another key once it is clear what happened",
    "unknown-outcome": "ask `includes` before it is sent again",
}


def _chance() -> float:
    return int.from_bytes(os.urandom(4), "big") / 2**32


class LightLink:
    """One socket per full peer while it is up or being tried."""

    def __init__(self, runtime: Runtime, options: Options, key: transport.Key) -> None:
        link = options.link
        self._runtime, self._key, self._targets = runtime, key, link.peers
        self._sockets: dict[int, transport.Socket] = {}
        self._agent = AgentStatus(options.status)
        self._own: Status = {"node": named(options), "release": __version__, "every": max(1, math.ceil(link.heartbeat))}
        self._machine = light.Light(link.peers, link.heartbeat, _chance, dict(self._own), verifiers(options))
        beliefs = self._machine.beliefs
        self._files = Files(options.data_dir)
        self._files.restore_heads(beliefs.logs.values())
        for found in self._files.evidence(beliefs.verifiers):
            beliefs.restore(found)

    def operations(self) -> Mapping[str, Operation]:
        """What can be asked for."""
        return {
            "heads": self._heads,
            "refused": self._refused,
            "fetch": self._fetch,
            "entries": self._entries,
            "includes": self._includes,
            "submit": self._submit,
        }

    def deadline(self) -> float | None:
        """When ``tick`` is due."""
        return self._machine.deadline()

    def tick(self, now: float) -> None:
        """Beats, attempts, and what has run out of time. The agent is asked how it is when that is to be told."""
        if self._machine.beats(now):
            self._machine.status = {**self._own, **self._agent.read(now)}
        self._perform(self._machine.step(events.Tick(), now))

    def close(self) -> None:
        """Drop all connections."""
        for socket in self._sockets.values():
            self._runtime.forget(socket)
        self._sockets.clear()

    def counts(self) -> Mapping[str, int]:
        """Answers that held, by operation, and refusals."""
        return self._machine.counts

    def peers(self) -> list[Message]:
        """The full peers."""
        now = self._runtime.now()
        return [
            aged(view, now) | {"until": None if view.until is None else view.until - now}
            for view in self._machine.views()
        ]

    # -- what is asked for

    def _heads(self, _request: Request) -> Message:
        away = time.time() - self._runtime.now()
        shown = []
        for each in self._machine.beliefs.logs.values():
            view = each.view()
            shown.append(
                {
                    "origin": view.origin,
                    "size": view.size,
                    "root": view.root,
                    "time": None if view.seen is None else view.seen + away,
                    "source": view.source,
                    "forked": view.forked,
                    "checked": view.checked,
                }
            )
        return {"heads": shown}

    def _refused(self, _request: Request) -> Message:
        now = self._runtime.now()
        told = [
            {"age": now - each.at, "endpoint": each.endpoint, "code": each.code, "why": each.why}
            for each in self._machine.refused
        ]
        return {"refused": told, "evidence": [each.message() for each in self._machine.beliefs.evidence.all()]}

    def _fetch(self, request: Request) -> None:
        digest = request.exact("hash", frames.HASH)
        offset = request.whole("offset", 0, frames.MAX_INT)
        length = request.whole("length", 1, frames.MAX_PIECE)
        transfers, now = self._machine.transfers, self._runtime.now()
        self._ask(lambda: transfers.fetch(request, request.user, digest, offset, length, now))

    def _entries(self, request: Request) -> None:
        found = self._log(request)
        start = request.whole("start", 0, frames.MAX_INT)
        most = request.whole("most", 1, frames.MAX_INT)
        self._ask(lambda: inquiries.entries(request, found, start, most))

    def _includes(self, request: Request) -> None:
        found, leaf = self._log(request), request.exact("hash", frames.HASH)
        self._ask(lambda: inquiries.includes(request, found, leaf))

    def _submit(self, request: Request) -> None:
        found, entry = self._log(request), request.data("entry", frames.MAX_ENTRY)
        self._ask(lambda: inquiries.submit(request, found, entry))

    def _log(self, request: Request) -> Log:
        origin = request.message.get("origin")
        found = self._machine.beliefs.logs.get(origin) if isinstance(origin, str) else None
        if found is None:
            raise RefusedError("unknown-log", "the key of that log is not pinned here", FIXES["unknown-log"])
        return found

    def _ask(self, make: Callable[[], inquiries.Inquiry]) -> None:
        try:
            inquiry = make()
        except UnfitError as error:
            raise RefusedError(error.code, error.why, FIXES.get(error.code, "")) from error
        self._perform(self._machine.step(events.Asked(inquiry), self._runtime.now()))

    # -- what is to be done

    def _perform(self, actions: Sequence[events.Action]) -> None:
        for action in actions:
            if isinstance(action, events.Open):
                self._open(action.peer)
            elif isinstance(action, events.Close):
                if action.peer in self._sockets:
                    self._runtime.forget(self._sockets.pop(action.peer))
            elif isinstance(action, events.Send):
                if action.peer in self._sockets:
                    transport.send(self._sockets[action.peer], [action.data])
            elif isinstance(action, events.Save):
                self._files.save_head(action.origin, action.note)
            elif isinstance(action, events.Keep):
                self._files.keep(action.evidence, action.gone)
            elif isinstance(action, events.Note):
                log("node", action.text, *([WARNING] if action.bad else []))
            else:
                self._answer(action)

    def _answer(self, action: events.Done | events.Failed) -> None:
        request = action.token
        if not isinstance(request, Request):
            return
        if isinstance(action, events.Done):
            request.reply({**action.result, "peer": self._machine.endpoint(action.peer)})
        else:
            request.fail(RefusedError(action.code, action.why, FIXES.get(action.code, "")))

    def _open(self, peer: int) -> None:
        target = self._targets[peer]
        try:
            curve = (self._key, target.key)
            socket = transport.connect(self._runtime.context, target.endpoint, frames.MAX_ANSWER, curve)
        except transport.TransportError as error:
            log("node", str(error), WARNING)  # the machine finds no answer and tries again later
            return
        self._sockets[peer] = socket
        self._runtime.watch(socket, lambda: self._read(peer, socket))

    def _read(self, peer: int, socket: transport.Socket) -> None:
        for parts in transport.drain(socket, BATCH, 1):
            data = parts[0].bytes if parts else b""  # of several parts: refused like any other garbage
            self._perform(self._machine.step(events.Heard(peer, data), self._runtime.now()))
            if self._sockets.get(peer) is not socket:
                return
