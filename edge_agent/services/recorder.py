"""What the agent did, as entries of the log: profiles applied, by their digest, and the events that it keeps on disk.

It follows the agent's events over its status socket, which tells and does nothing else, and asks again when that is
gone; at rest nothing wakes up. An entry is JSON with sorted keys. The same event makes the same bytes, so what is in
the log is found there by its hash and not recorded again, whoever was started anew meanwhile.

    {"edge-agent": "event", "seq": 7, "time": 1700000000.5, "kind": "oom", "service": "web", "text": "..."}
    {"edge-agent": "profile", "name": "edge", "sha256": "...", "seq": 9, "time": 1700000002.0}

``sha256`` is that of the compiled plan, the file ``plan`` in the agent's data directory; ``seq`` and ``time`` are those
of the latest event that told of a change of it.
"""

from __future__ import annotations

import json
import math

from ..control.client import AgentError, Client, NotRunningError
from .log import WARNING, log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

ANSWER = 1.0  # seconds for an answer that the agent gives at once
WAIT = 3600.0  # seconds that it holds back the answer while nothing happens
FIRST, LAST = 0.5, 60.0  # seconds until the next attempt to reach it
AT_HAND = 0.001  # seconds, of what the kernel says is there to read
_CHANGES = frozenset(("switched", "rolled-back", "agent", "degraded"))  # kinds after which the plan may be another


class Recorder:
    """``append(entry)`` gives an entry to the log, which drops what it has; False: not now, it will be asked again.

    ``watch(fd, call)`` and ``forget(fd)``: the loop's. Call ``tick`` at ``due``.
    """

    def __init__(
        self,
        path: str,
        append: Callable[[bytes], bool],
        watch: Callable[[int, Callable[[], None]], None],
        forget: Callable[[int], None],
    ) -> None:
        self._path = path
        self._append, self._watch, self._forget = append, watch, forget
        self._client: Client | None = None
        self._cursor = 0
        self._latest: tuple[int, float] = (0, 0.0)
        self._plan = b""  # digest of the one recorded last
        self._pause = FIRST
        self.due: float = 0.0  # monotonic seconds; inf: the agent's answer comes first
        self.recorded = 0

    @property
    def connected(self) -> bool:
        """Does it follow the agent's events?"""
        return self._client is not None

    def tick(self, now: float) -> None:
        """Connect, and take what happened meanwhile."""
        try:
            self._connect()
            if self._take():
                self._pause, self.due = FIRST, math.inf
                return
        except (AgentError, NotRunningError) as error:
            self._failed(error)
        self.due = now + self._pause
        self._pause = min(2 * self._pause, LAST)

    def again(self, due: float) -> None:
        """The log has lost what it was given: begin anew, at ``due``."""
        self.close()
        self.due = due

    def close(self) -> None:
        """Hang up."""
        if self._client is not None:
            self._forget(self._client.fileno())
            self._client.close()
            self._client = None

    def _connect(self) -> None:
        if self._client is None:
            client = Client(self._path, ANSWER)
            self._client, self._cursor = client, 0
            self._watch(client.fileno(), self._readable)

    def _take(self) -> bool:
        """Record what there is, then ask to be told of more; False when the log does not take it now."""
        client = self._client
        assert client is not None  # noqa: S101
        while True:
            told = client.call("events", {"cursor": self._cursor}, ANSWER)
            if not all(map(self._event, told["events"])):
                return False
            if not told["events"]:
                break
        if not self._applied(client):
            return False
        client.begin("events", {"cursor": self._cursor, "wait": WAIT}, ANSWER)
        return True

    def _readable(self) -> None:
        client = self._client
        if client is None:
            return
        try:
            if not client.wait(AT_HAND):
                return
            _ident, told, error = client.next(ANSWER)
            if error is not None:
                raise error
            if all(map(self._event, told["events"])) and self._take():
                return
            self.due = 0.0  # the log was full
        except AgentError as error:
            self._failed(error)
            self.due = 0.0

    def _event(self, event: dict[str, Any]) -> bool:
        given = {key: event[key] for key in ("seq", "time", "kind", "service", "text")}
        if event["kept"] and not self._record({"edge-agent": "event", **given}):
            return False
        self._cursor = event["seq"]
        if event["kind"] in _CHANGES:
            self._plan, self._latest = b"", (event["seq"], event["time"])
        return True

    def _applied(self, client: Client) -> bool:
        """Record the plan in force, unless it is the one recorded last."""
        if self._plan:
            return True
        told = client.call("digest", {}, ANSWER)
        digest: bytes = told["sha256"]
        if not told["committed"]:
            return True  # a switch is under way; its end is an event
        name = client.call("status", {}, ANSWER)["profile"]
        seq, time = self._latest
        entry = {"edge-agent": "profile", "name": name, "sha256": digest.hex(), "seq": seq, "time": time}
        if not self._record(entry):
            return False
        self._plan = digest
        return True

    def _record(self, entry: dict[str, object]) -> bool:
        data = json.dumps(entry, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        if not self._append(data.encode("utf-8", "backslashreplace")):
            return False
        self.recorded += 1
        return True

    def _failed(self, error: Exception) -> None:
        if self._client is not None or self._pause == FIRST:
            fix = "none, it is tried again"
            if isinstance(error, AgentError) and error.code == "permission":
                fix = "let the ledger's user into the socket's group (edge-agent-telemetry), or write record: false"
            why = error.why if isinstance(error, AgentError) else f"none listens at {error}"
            log("ledger", f"does not follow the agent's events: {why}; fix: {fix}", WARNING)
        self.close()
