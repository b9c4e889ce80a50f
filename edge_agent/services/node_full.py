"""A full node's socket, files, and the way to its ledger and its storage; ``peers.full`` decides."""

from __future__ import annotations

import os
import time

from .. import __version__
from ..peers import frames, full, transport
from ..peers.serving import LEDGER, STORAGE
from .log import WARNING, log
from .membersfile import MembersFile
from .node import aged, named, verifiers
from .nodefiles import Files
from .relay import Relay

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..peers.serving import DeclinedError
    from ..peers.wire import Message
    from .options import Options
    from .requests import Operation, Request
    from .runtime import Runtime

BATCH = 64  # requests read in one turn of the loop


class FullLink:
    """One listening socket that only members can connect to."""

    def __init__(self, runtime: Runtime, options: Options, key: transport.Key) -> None:
        link = options.link
        self._runtime = runtime
        self._members = MembersFile(link.members, [target.key for target in link.peers], runtime.now)
        self._keys = self._members.keys
        others = [target for target in link.peers if target.endpoint]
        news = int.from_bytes(os.urandom(4), "big")
        logs = verifiers(options)
        self._machine = full.Full(named(options), __version__, self._keys, news, logs, others)
        self._files = Files(options.data_dir)
        for found in self._files.evidence(self._machine.verifiers):
            self._machine.restore(found)
        self._relays = {name: Relay(runtime, name, self._told) for name in (LEDGER, STORAGE)}
        endpoint = link.listen or ""
        self._socket = transport.listen_curve(
            runtime.context, runtime.gate, endpoint, key, self._members, "node.peers", frames.MAX_REQUEST
        )
        runtime.watch(self._socket, self._read)
        log("node", f"listens on {endpoint} for {len(self._members.keys)} keys")

    def operations(self) -> Mapping[str, Operation]:
        """What can be asked for."""
        return {"heads": self._heads, "refused": self._refused}

    def deadline(self) -> float | None:
        """When ``tick`` is due."""
        dues = [self._machine.deadline(), *(relay.deadline() for relay in self._relays.values())]
        return min((due for due in dues if due is not None), default=None)

    def tick(self, now: float) -> None:
        """Light nodes that have gone, and services that do not answer."""
        for relay in self._relays.values():
            relay.tick(now)
        self._perform(self._machine.step(full.Tick(), now))

    def close(self) -> None:
        """Stop listening."""
        for relay in self._relays.values():
            relay.close()
        self._runtime.forget(self._socket)

    def counts(self) -> Mapping[str, int]:
        """Answers by operation, and refusals."""
        return self._machine.counts

    def peers(self) -> list[Message]:
        """The light nodes."""
        now = self._runtime.now()
        return [aged(view, now) for view in self._machine.views()]

    def _heads(self, _request: Request) -> Message:
        served = self._machine.served
        if not served.note:
            return {"heads": []}
        away = time.time() - self._runtime.now()
        shown = {"origin": served.origin, "size": served.size, "root": b"", "time": served.at + away}
        return {"heads": [{**shown, "source": LEDGER, "forked": False, "checked": 0}]}

    def _refused(self, _request: Request) -> Message:
        return {"refused": [], "evidence": [each.message() for each in self._machine.evidence.all()]}

    def _read(self) -> None:
        self._members.look()
        if self._members.keys is not self._keys:
            self._keys = self._members.keys
            self._machine.members.replace(self._keys)
        for parts in transport.drain(self._socket, BATCH, 2):
            if len(parts) == 2:
                heard = full.Heard(transport.user(parts[1]), parts[0].bytes, parts[1].bytes)
                self._perform(self._machine.step(heard, self._runtime.now()))

    def _told(self, job: int, result: Message | DeclinedError) -> None:
        self._perform(self._machine.step(full.Told(job, result), self._runtime.now()))

    def _perform(self, actions: Sequence[full.Action]) -> None:
        for action in actions:
            if isinstance(action, full.Send):
                transport.send(self._socket, [action.route, action.data])
            elif isinstance(action, full.Ask):
                self._relays[action.call.service].ask(action.job, action.call.op, action.call.args)
            elif isinstance(action, full.Keep):
                self._files.keep(action.evidence, action.gone)
            else:
                log("node", action.text, *([WARNING] if action.bad else []))
