"""Carry out what the reconciler asks for, and bring back what came of it as events: one queue, one thread."""

from __future__ import annotations

import os
from collections import deque

from ..host import directories, process
from ..host.containment import SAMPLED
from ..host.logs import LogSink
from ..host.loop import HANGUP, READ, URGENT
from ..host.notify import NotifySocket
from ..lifecycle import LIVE, STARTING, Unit
from ..model import (
    Action,
    Commit,
    Emptied,
    Event,
    Executed,
    Exit,
    Exited,
    Kill,
    Launch,
    Launched,
    LaunchFailed,
    Log,
    Note,
    Release,
    Remove,
    Reply,
    Resize,
    Service,
    SetTotal,
    Signal,
    Tick,
    Watch,
)
from ..reconciler import Node, next_deadline, step
from .records import Records
from .watching import Watching

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ..control.connection import Request
    from ..host.containment import Containment, Report
    from ..host.journal import Journal
    from ..host.loop import Loop, Timer
    from ..host.probes import Prober
    from ..host.process import Processes
    from ..host.store import Store
    from .governing import Governing
    from .recovery import Found

COUNTED = ("shed", "squeezed", "frozen")
"""Kinds of events that are counted by service; kills for lack of memory are as well: killed-own, -total, -machine."""

EMPTY_POLL = 0.02
"""Seconds until the next look at a killed service where no descriptor tells that it is empty."""

REMOVE_AGAIN = 0.05
SELDOM = 1.0
"""Seconds that both grow to, so that an uninterruptible sleep of hours costs little."""

ATTACH_AGAIN = 10.0
"""Seconds until the output of an adopted service is tried again."""


class Main:
    """A service's main process, ours or adopted. ``held``: forked and not released yet."""

    __slots__ = ("child", "error_fd", "held", "pid", "pidfd")

    def __init__(self, child: process.Child) -> None:
        self.child = child
        self.pid = child.pid
        self.pidfd = child.pidfd
        self.error_fd = child.error_fd
        self.held = child.release_fd >= 0


class Agent:
    """The node's state, the queue of events, and everything that belongs to a running service.

    ``processes``, ``sink`` and ``notify`` are the doors to the outside that it opens by itself.
    """

    def __init__(
        self,
        loop: Loop,
        store: Store,
        journal: Journal,
        containment: Containment,
        log_dir: str,
        *,
        processes: Processes = process,
        sink: type[LogSink] = LogSink,
        notify: type[NotifySocket] = NotifySocket,
    ) -> None:
        self.loop = loop
        self.store = store
        self.journal = journal
        self.containment = containment
        self.log_dir = log_dir
        self.processes = processes
        self._sink_type = sink
        self._notify_type = notify
        self.node: Node
        self.prober: Prober
        self.governing: Governing
        self.requests: dict[int, Request] = {}
        self.reports: dict[str, Report] = {}
        self.total_report: Report = {}
        self.counts: dict[str, dict[str, int]] = {}  # by service: what has happened how often since this agent began
        self.mains: dict[str, Main] = {}
        self.watching = Watching(self)
        self.done = False
        self.woken: Callable[[], None] = lambda: None  # called after events and output, for those who follow them
        self._logs: dict[str, tuple[Log, LogSink]] = {}
        self._notify: dict[str, NotifySocket] = {}
        self._killing: dict[str, int] = {}  # name -> descriptor that tells when it is empty, or -1
        self._looks: dict[str, Timer] = {}  # by name: the one next try, of whatever is tried again
        self._queue: deque[Event] = deque()
        self._busy = False
        self._timer: Timer | None = None
        self.records = Records(self, self._forget)
        self._perform: dict[type, Callable[[Any], None]] = {
            Launch: self._launch,
            Release: self._release,
            Resize: self._resize,
            SetTotal: self._set_total,
            Watch: lambda action: self.prober.start(action.service, action.ready),
            Signal: self._signal,
            Kill: self._kill,
            Remove: self._remove,
            Commit: self._commit,
            Note: lambda note: self.note(note.kind, note.service, note.text, notable=note.notable),
            Reply: self._reply,
            Exit: self._exit,
        }

    # -- the turn: events in, actions out ------------------------------------------------------------------------------

    def begin(self, node: Node, actions: list[Action], found: Found) -> None:
        """Take over the node that ``boot`` made with what was found, and do its first actions."""
        self.node = node
        self._busy = True
        self.records.found(self.store.names())
        for name in found.empty:
            self._remove_containment(name)
        for name, pidfd in found.pidfds.items():
            unit = node.units[name]
            self._adopt(unit, pidfd)
            if unit.state == STARTING:
                self._queue.append(Executed(name))  # it was released, or it ends by itself and is seen to
        self._carry_out(actions)
        self._drain()

    def hurry(self) -> None:
        """Do not wait for graceful ends: kill what is still to stop."""
        for name, unit in self.node.units.items():
            if unit.state in LIVE:
                self.containment.kill(name)

    def close(self) -> None:
        """Everything is stopped: leave nothing behind in the run directory."""
        self.records.close()
        self.governing.close()
        for timer in self._looks.values():
            timer.cancel()  # what cannot be removed yet, the containment tries once more as it closes
        self._set_timer()

    def emit(self, event: Event) -> None:
        """Feed one event to the reconciler. From within an action it is queued behind it."""
        self._queue.append(event)
        if not self._busy:
            self._drain()

    def note(self, kind: str, service: str, text: str, *, notable: bool = False) -> None:
        """Record an event for people."""
        self.journal.add(kind, service, text, notable=notable)
        if kind in COUNTED and service:
            self.count(service, kind)

    def count(self, service: str, what: str) -> None:
        """One more of something, for those who watch; a service has a handful of them."""
        counts = self.counts.setdefault(service, {})
        counts[what] = counts.get(what, 0) + 1

    def _drain(self) -> None:
        self._busy = True
        while self._queue:
            self.node, actions = step(self.node, self._queue.popleft(), self.loop.now())
            self._carry_out(actions)
        self._busy = False
        self._set_timer()
        self.woken()

    def _carry_out(self, actions: list[Action]) -> None:
        self.records.save()  # first on record, then done: a killed agent's successor knows of every process
        for action in actions:
            self.perform(action)

    def perform(self, action: Action) -> None:
        """Carry out one action."""
        self._perform[type(action)](action)

    def _set_timer(self) -> None:
        due = None if self.done else next_deadline(self.node)
        if self._timer is not None:
            if self._timer.due == due and self._timer.call is not None:
                return
            self._timer.cancel()
            self._timer = None
        if due is not None:
            self._timer = self.loop.at(due, lambda: self.emit(Tick()))

    # -- actions -------------------------------------------------------------------------------------------------------

    def _launch(self, action: Launch) -> None:
        service = action.service
        name = service.name
        try:
            child = self._fork(service)
        except (process.LaunchError, directories.DirectoryError) as error:
            self.emit(LaunchFailed(name, str(error)))
        except OSError as error:
            self.emit(LaunchFailed(name, f"cannot start {name}: {error.strerror or error}"))
        else:
            self._watch_main(name, Main(child))
            self.emit(Launched(name, child.pid, child.started))

    def _fork(self, service: Service) -> process.Child:
        name = service.name
        directories.make(service, self.store.data_dir, self.store.run_dir)
        self._report(name, self.containment.prepare(service))
        self.governing.started(service)
        notify = self._open_notify(service)
        writer = self._sink(service).open_writer()
        try:
            entry = self.containment.entry(name)
            try:
                child = self.processes.launch(
                    service,
                    entry_fd=entry,
                    stdout=writer,
                    env_extra=self.containment.marker(name),
                    notify_path=notify.path if notify is not None else None,
                )
            finally:
                if entry >= 0:
                    os.close(entry)
        finally:
            os.close(writer)
        self.containment.track(name, child.pid, child.started)
        return child

    def _watch_main(self, name: str, main: Main) -> None:
        self.mains[name] = main
        self.loop.watch(main.pidfd, READ, lambda _events: self._ended(name, main))
        if main.error_fd >= 0:
            self.loop.watch(main.error_fd, READ | HANGUP, lambda _events: self._told(name, main))

    def _adopt(self, unit: Unit, pidfd: int) -> None:
        """Watch a process that an earlier agent started."""
        name = unit.service.name
        self.containment.track(name, unit.pid, unit.started)
        self._watch_main(name, Main(process.Child(unit.pid, pidfd, unit.started, -1, -1)))
        self._report(name, self.containment.resize(unit.service))
        self.governing.adopted(unit.service)
        self._attach(name, self.mains[name], first=True)

    def _attach(self, name: str, main: Main, *, first: bool = False) -> None:
        """Take over an adopted service's output, and hear what it says. A full disk is no reason to end it."""
        if self.mains.get(name) is not main:
            return
        service = self.node.units[name].service
        try:
            self._sink(service)
            self._open_notify(service)
        except OSError as error:
            if first:
                self.note("log", name, f"cannot take over its output: {error.strerror}; tried again from time to time")
            self._look(name, ATTACH_AGAIN, lambda: self._attach(name, main))

    def _release(self, action: Release) -> None:
        main = self.mains.get(action.name)
        if main is not None and main.held:
            main.held = False
            self.processes.release(main.child)

    def _told(self, name: str, main: Main) -> None:
        """End of file: the program is being executed. Text: why it could not be."""
        text = self.processes.read_error(main.error_fd)
        if text is not None:
            self._close_error(main)
            self.emit(LaunchFailed(name, text) if text else Executed(name))

    def _close_error(self, main: Main) -> None:
        self.loop.forget(main.error_fd)
        os.close(main.error_fd)
        main.error_fd = -1

    def _ended(self, name: str, main: Main) -> None:
        if main.error_fd >= 0:  # end of file may be its end alone, before it has executed anything: nothing is ready
            text = self.processes.read_error(main.error_fd)
            self._close_error(main)
            if text:
                self.emit(LaunchFailed(name, text))
        status = self.processes.reap(main.pid)
        self.loop.forget(main.pidfd)
        os.close(main.pidfd)
        if main.held:
            main.held = False
            os.close(main.child.release_fd)
        if self.mains.get(name) is main:
            del self.mains[name]
        oom = self.containment.oom_cause(name)
        held = self.governing.peak(name) if oom else 0
        if oom:
            self.count(name, f"killed-{oom}")
        self.emit(Exited(name, main.pid, status, oom))
        self.governing.killed(name, oom, held)
        self._check_empty(name)

    def _resize(self, action: Resize) -> None:
        self._report(action.service.name, self.containment.resize(action.service))
        self.governing.hold(action.service.name)

    def _report(self, name: str, report: Report) -> None:
        self.reports[name] = report
        if any(kind == SAMPLED for kind, _code in report.values()):
            self.watching.begin()

    def _set_total(self, action: SetTotal) -> None:
        self.total_report = self.containment.set_total(action.memory, action.cpu)

    def _signal(self, action: Signal) -> None:
        self.governing.let_go(action.name)
        main = self.mains.get(action.name)
        if main is not None:
            self.processes.send_signal(main.pidfd, action.signum)  # if there is nobody left, its end is on the way

    def _kill(self, action: Kill) -> None:
        name = action.name
        self.prober.stop(name)
        left = self.containment.populated(name)  # mostly nothing: a look costs less than a kill
        if left:
            self.containment.kill(name)
        if name not in self._killing:
            fd = self.containment.watch(name) if left else -1
            self._killing[name] = fd
            if fd >= 0:
                self.loop.watch(fd, URGENT, lambda _events: self._check_empty(name))
        self._check_empty(name)

    def _check_empty(self, name: str) -> None:
        """Report a killed service as empty once its main process is reaped and nothing else is left."""
        fd = self._killing.get(name)
        if fd is None or name in self.mains:
            return  # not being killed, or the end of the main process will bring us back here
        if self.containment.populated(name):
            if fd < 0:
                waited = self.loop.now() - self.node.units[name].since
                self._look(name, min(max(EMPTY_POLL, waited / 4), SELDOM), lambda: self._check_empty(name))
            return
        del self._killing[name]
        if fd >= 0:
            self.loop.forget(fd)
            os.close(fd)
        self.emit(Emptied(name))

    def _remove(self, action: Remove) -> None:
        name = action.name
        self.governing.ended(name)
        notify = self._notify.pop(name, None)
        if notify is not None:
            notify.close()
        self.reports.pop(name, None)
        self._remove_containment(name)

    def _remove_containment(self, name: str, pause: float = REMOVE_AGAIN) -> None:
        unit = self.node.units.get(name)
        if unit is not None and unit.state in LIVE:
            return  # started again meanwhile, in a containment of the same name
        if not self.containment.remove(name):
            self._look(name, pause, lambda: self._remove_containment(name, min(2 * pause, SELDOM)))

    def _look(self, name: str, pause: float, call: Callable[[], None]) -> None:
        """Call later, instead of what was to be called for this service before."""
        earlier = self._looks.get(name)
        if earlier is not None:
            earlier.cancel()

        def look() -> None:
            del self._looks[name]
            call()

        self._looks[name] = self.loop.at(self.loop.now() + pause, look)

    def _commit(self, action: Commit) -> None:
        try:
            self.store.commit(action.plan)
        except OSError as error:
            where = self.store.data_dir
            text = f"cannot keep {action.plan.profile} for the next boot: {error.strerror}; fix: free {where}"
            self.note("degraded", "", text)
            self.node = self.node._replace(degraded=text)

    def _reply(self, action: Reply) -> None:
        request = self.requests.pop(action.request, None)
        if request is None:
            return
        if action.code:
            request.fail(action.code, action.text)
        else:
            request.reply({"text": action.text})

    def _exit(self, _action: Exit) -> None:
        self.done = True
        self.loop.stop()

    # -- what belongs to a service -------------------------------------------------------------------------------------

    def _sink(self, service: Service) -> LogSink:
        log, sink = self._logs.get(service.name, (None, None))
        if sink is None or log != service.log:
            if sink is not None:
                del self._logs[service.name]
                sink.close()
            sink = self._sink_type(self.loop, service, self.store.service_dir(service.name), self.log_dir)
            sink.on_data = self.woken
            if sink.reason:
                self.note("log", service.name, sink.reason)
            self._logs[service.name] = (service.log, sink)
        return sink

    def sink(self, name: str) -> LogSink | None:
        """The log of a service that has been started here."""
        return self._logs.get(name, (None, None))[1]

    def _open_notify(self, service: Service) -> NotifySocket | None:
        if service.health.kind != "sd_notify":
            return None
        notify = self._notify.get(service.name)
        if notify is None:
            path = os.path.join(self.store.service_dir(service.name), "notify")
            os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
            notify = self._notify_type(self.loop, path, service, self.containment, self.prober)
            self._notify[service.name] = notify
        return notify

    def _forget(self, name: str) -> None:
        """The service is no longer part of the node."""
        self.counts.pop(name, None)
        _, sink = self._logs.pop(name, (None, None))
        if sink is not None:
            sink.close()
