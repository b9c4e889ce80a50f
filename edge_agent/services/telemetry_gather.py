"""Asks every service of this node and the agent, all at once, and waits for none of them longer than PATIENCE.

The agent is asked for one ``status`` by a connection that is kept: a gathering wakes it once. Services are found by
their sockets, so one that is added is seen without a restart. What does not answer is missing, and ``up`` says so.
"""

from __future__ import annotations

import os

import zmq

from ..control.client import AgentError, Client, NotRunningError
from ..peers import transport
from ..peers.wire import PROTOCOL, WireError, pack, unpack
from . import telemetry_agent, telemetry_machine
from .log import WARNING, log
from .metrics import GAUGE, Metric
from .telemetry_text import PREFIX, Page

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .runtime import Runtime

PATIENCE = 2.0  # seconds for an answer
CONNECT = 0.5  # seconds for the agent to say hello; it does so at once
AWAY = 5.0  # seconds until an agent that could not be reached is tried again
MAX_SOURCES = 64  # services asked
MAX_ANSWER = 256 * 1024  # bytes of one answer
_ITEMS = 16_384  # values in one answer
_PIECE = 0.02  # seconds for the rest of an answer whose beginning is here


class Gather:
    """``begin`` calls ``done(page)`` once, from the service's loop. ``name``: the service that gathers."""

    def __init__(self, runtime: Runtime, name: str, bundled: str, status: str) -> None:
        self._runtime, self._name, self._bundled, self._status = runtime, name, bundled, status
        self._links: dict[str, transport.Socket] = {}  # by the path of the service's socket
        self._found: list[str] = []
        self._agent: Client | None = None
        self._agent_again = 0.0
        self._waiting: set[str] = set()
        self._failed: set[str] = set()  # said, and not yet heard of again
        self._answers: dict[str, list[Any]] = {}
        self._told: dict[str, Any] = {}
        self._number = 0
        self._due: float | None = None
        self._done: Callable[[Page], None] = lambda _page: None

    @property
    def running(self) -> bool:
        """Answers are awaited."""
        return self._due is not None

    def begin(self, done: Callable[[Page], None]) -> None:
        """Ask everybody."""
        now = self._runtime.now()
        self._done, self._due = done, now + PATIENCE
        self._number += 1
        self._answers, self._told = {}, {}
        self._found = find(self._bundled)
        for path in set(self._links) - set(self._found):
            self._drop(path)
        self._failed &= {*self._found, self._status}
        self._waiting = {path for path in self._found if self._ask(path)}
        if self._ask_agent(now):
            self._waiting.add(self._status)
        self._look()

    def deadline(self) -> float | None:
        """When it is waited no longer."""
        return self._due

    def tick(self, now: float) -> None:
        """It may have come."""
        if self._due is not None and self._due <= now:
            for path in sorted(self._waiting):
                self._fail(path, f"no answer in {PATIENCE:g} s")
            self._look()

    def close(self) -> None:
        """Hang up everywhere."""
        for path in list(self._links):
            self._drop(path)
        self._hang_up()

    # -- services

    def _ask(self, path: str) -> bool:
        """Send the request, by a new connection when the one there is has gone."""
        if not os.access(path, os.W_OK):
            self._fail(path, "no permission; fix: let its user into the group of the service")
            return False
        message = pack({"v": PROTOCOL, "id": self._number, "op": "metrics"})
        for _ in range(2):
            socket = self._links.get(path)
            if socket is None:
                try:
                    socket = transport.connect(self._runtime.context, f"ipc://{path}", MAX_ANSWER)
                except (transport.TransportError, zmq.ZMQError) as error:
                    self._fail(path, str(error))
                    return False
                self._links[path] = socket
                self._runtime.watch(socket, lambda: self._receive(path))
            if transport.send(socket, [message]):
                return True
            self._drop(path)
        self._fail(path, "it does not read")
        return False

    def _receive(self, path: str) -> None:
        socket = self._links.get(path)
        if socket is None:
            return
        for parts in transport.drain(socket, 4, 1):
            try:
                answer = unpack(parts[0].bytes if parts else b"", MAX_ANSWER, _ITEMS)
            except WireError as error:
                self._fail(path, f"its answer is {error}")
                break
            if answer.get("id") != self._number or path not in self._waiting:
                continue  # of a gathering that is over
            given = answer.get("metrics")
            if answer.get("ok") is not True or not isinstance(given, list):
                self._fail(path, "it refuses to tell its metrics")
                break
            self._answers[path] = given
            self._waiting.discard(path)
            self._failed.discard(path)
        self._look()

    def _drop(self, path: str) -> None:
        socket = self._links.pop(path, None)
        if socket is not None:
            self._runtime.forget(socket)

    # -- the agent

    def _ask_agent(self, now: float) -> bool:
        if self._agent is None and now < self._agent_again:
            return False
        for _ in range(2):
            try:
                if self._agent is None:
                    self._agent = Client(self._status, CONNECT)
                    self._runtime.watch(self._agent.fileno(), self._agent_answers)
                self._agent.begin("status", timeout=CONNECT)
            except NotRunningError:
                self._fail(self._status, "nobody listens there")
                break
            except AgentError as error:
                self._fail(self._status, str(error))
                if error.code != "gone":
                    break
            else:
                return True
        self._agent_again = now + AWAY
        return False

    def _agent_answers(self) -> None:
        client = self._agent
        if client is None:
            return
        try:
            if client.wait(_PIECE):
                _ident, told, failure = client.next(_PIECE)
                if failure is not None:
                    raise failure
                if self._status in self._waiting:
                    self._told = told
                    self._waiting.discard(self._status)
                    self._failed.discard(self._status)
        except AgentError as error:
            self._fail(self._status, str(error))
        self._look()

    def _hang_up(self) -> None:
        if self._agent is not None:
            self._runtime.forget(self._agent.fileno())
            self._agent.close()
            self._agent = None

    # -- the end

    def _fail(self, path: str, why: str) -> None:
        """Say it once until it answers again, and begin with a new connection next time."""
        if path not in self._failed:
            self._failed.add(path)
            log(self._name, f"cannot gather from {path}: {why}", WARNING)
        self._waiting.discard(path)
        if path == self._status:
            self._hang_up()
        else:
            self._drop(path)

    def _look(self) -> None:
        if self._due is None or self._waiting:
            return
        self._due = None
        self._done(self._page())
        self._answers, self._told = {}, {}

    def _page(self) -> Page:
        page = Page()
        page.add(Metric(f"{PREFIX}up", GAUGE, "1: the agent tells its status.", (({}, int(bool(self._told))),)))
        up = tuple(({"service": service_of(path)}, int(path in self._answers)) for path in self._found)
        page.add(Metric(f"{PREFIX}service_up", GAUGE, "1: the bundled service tells its metrics.", up))
        for metric in telemetry_machine.machine():
            page.add(metric)
        if self._told:
            pids = telemetry_agent.processes(self._told)
            for metric in (*telemetry_agent.metrics(self._told), *telemetry_machine.processes(pids)):
                page.add(metric, telemetry_agent.ORCHESTRATOR)
        for path, given in sorted(self._answers.items()):
            page.add_sent(given, service_of(path))
        dropped = tuple(({"source": source}, count) for source, count in sorted(page.dropped.items()))
        page.add(Metric(f"{PREFIX}scrape_samples_dropped", GAUGE, "Samples over a bound, or not well formed.", dropped))
        return page


def find(bundled: str) -> list[str]:
    """Sockets of bundled services: DIRECTORY/SERVICE/PROGRAM.sock, at most one of a service, MAX_SOURCES of all."""
    found = []
    for name in sorted(_names(bundled)):
        sockets = sorted(each for each in _names(f"{bundled}/{name}") if each.endswith(".sock"))
        if sockets and _is_service(name):
            found.append(f"{bundled}/{name}/{sockets[0]}")
    return found[:MAX_SOURCES]


def service_of(path: str) -> str:
    """The service whose socket that is."""
    return path.split("/")[-2]


def _is_service(name: str) -> bool:
    return len(name) <= 63 and name.isascii() and name.replace("_", "").replace("-", "").isalnum()


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []
