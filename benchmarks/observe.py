"""When did a program start running, when did it end: seconds on the monotonic clock.

The kernel's process-event connector stamps each exec and exit itself, so the harness sleeps meanwhile and takes no
CPU from what it measures. It needs root in the first namespaces; elsewhere /proc is polled every millisecond, which
costs the candidates some of one CPU. Source: include/uapi/linux/cn_proc.h, Documentation/driver-api/connector.rst.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Mapping
from types import TracebackType

from . import processes

EVENT_EXEC = 0x00000002
EVENT_EXIT = 0x80000000
_NETLINK_CONNECTOR = 11
_CN_IDX_PROC = 1
_LISTEN, _IGNORE = 1, 2
_HEADERS = 16 + 20  # nlmsghdr and cn_msg
_EVENT = struct.Struct("=IIQIIII")  # what, cpu, nanoseconds, pid, tgid, and for exit: code, signal
_RECEIVE_BUFFER = 4 << 20
_SO_RCVBUFFORCE = 33
_NAP = 0.004  # seconds between two looks at the queue of events; their times do not depend on it
_POLL = 0.001

Argv = tuple[str, ...]


class ObservationError(Exception):
    """What was waited for did not happen in time, or the kernel dropped events."""


def parse_event(datagram: bytes) -> tuple[int, int, float] | None:
    """(EVENT_EXEC or EVENT_EXIT, PID, seconds) of one connector datagram; None for other events and threads."""
    if len(datagram) < _HEADERS + _EVENT.size:
        return None
    what, _cpu, nanoseconds, pid, tgid, _, _ = _EVENT.unpack_from(datagram, _HEADERS)
    if what not in (EVENT_EXEC, EVENT_EXIT) or pid != tgid:
        return None
    return what, pid, nanoseconds / 1e9


class Events:
    """Process events from the kernel."""

    name = "kernel events"

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _NETLINK_CONNECTOR)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER)
            self._socket.bind((0, _CN_IDX_PROC))
            self._control(_LISTEN)
        except OSError:
            self._socket.close()
            raise
        self._executed: dict[int, float] = {}
        self._exited: dict[int, float] = {}

    def _control(self, operation: int) -> None:
        message = struct.pack("=IIIIHHI", _CN_IDX_PROC, 1, 0, 0, 4, 0, operation)
        self._socket.send(struct.pack("=IHHII", 16 + len(message), 3, 0, 0, 0) + message)

    def close(self) -> None:
        self._control(_IGNORE)
        self._socket.close()

    def _drain(self) -> None:
        while True:
            try:
                event = parse_event(self._socket.recv(4096, socket.MSG_DONTWAIT))
            except BlockingIOError:
                return
            except OSError as error:
                raise ObservationError(f"cannot follow process events: {error.strerror}") from error
            if event is not None:
                what, pid, when = event
                (self._executed if what == EVENT_EXEC else self._exited)[pid] = when

    def forget(self) -> None:
        """Start afresh: what happened before is of no interest, and PIDs come back."""
        self._drain()
        self._executed.clear()
        self._exited.clear()

    def running(self, wanted: Mapping[Argv, str], timeout: float) -> dict[str, tuple[int, float]]:
        """Name -> (PID, when it executed) once every wanted command line runs. Counts from the last forget()."""
        deadline = time.monotonic() + timeout
        found: dict[str, int] = {}
        looked_at: dict[int, float] = {}
        while len(found) < len(wanted):
            time.sleep(_NAP)
            self._drain()
            for pid, when in self._executed.items():
                if looked_at.get(pid) != when:
                    looked_at[pid] = when
                    name = wanted.get(processes.argv(pid))
                    if name is not None:
                        found[name] = pid
            if time.monotonic() > deadline:
                raise ObservationError(f"{len(found)} of {len(wanted)} children ran within {timeout:.0f} s")
        self._drain()  # a command line may have been read before the event of its exec
        return {name: (pid, self._executed[pid]) for name, pid in found.items()}

    def gone(self, pids: set[int], timeout: float) -> dict[int, float]:
        """PID -> when it ended, once all have. They must have been alive at the last forget()."""
        deadline = time.monotonic() + timeout
        while True:
            self._drain()
            left = pids - self._exited.keys()
            if not left:
                return {pid: self._exited[pid] for pid in pids}
            if time.monotonic() > deadline:
                raise ObservationError(f"{len(left)} of {len(pids)} processes did not end within {timeout:.0f} s")
            time.sleep(_NAP)


class Polling:
    """The same from /proc, a millisecond late at most, when the kernel's events are not to be had."""

    name = "polling /proc"

    def __init__(self) -> None:
        self._old: set[int] = set()

    def close(self) -> None:
        pass

    def forget(self) -> None:
        """Start afresh: what runs now is of no interest to running()."""
        self._old = set(processes.pids())

    def running(self, wanted: Mapping[Argv, str], timeout: float) -> dict[str, tuple[int, float]]:
        """As Events.running()."""
        deadline = time.monotonic() + timeout
        found: dict[str, tuple[int, float]] = {}
        settled: set[int] = set()
        while len(found) < len(wanted):
            for pid in processes.pids():
                if pid in self._old or pid in settled:
                    continue
                name = wanted.get(processes.argv(pid))
                if name is not None:
                    settled.add(pid)
                    found[name] = (pid, time.monotonic())
            if time.monotonic() > deadline:
                raise ObservationError(f"{len(found)} of {len(wanted)} children ran within {timeout:.0f} s")
            time.sleep(_POLL)
        return found

    def gone(self, pids: set[int], timeout: float) -> dict[int, float]:
        """As Events.gone(); a zombie has ended."""
        deadline = time.monotonic() + timeout
        ended: dict[int, float] = {}
        while len(ended) < len(pids):
            for pid in pids - ended.keys():
                if not processes.argv(pid):
                    ended[pid] = time.monotonic()
            if time.monotonic() > deadline:
                missing = len(pids) - len(ended)
                raise ObservationError(f"{missing} of {len(pids)} processes did not end within {timeout:.0f} s")
            time.sleep(_POLL)
        return ended


Observer = Events | Polling


class Observing:
    """``with Observing() as observer``: kernel events where allowed, else polling."""

    def __enter__(self) -> Observer:
        self._observer = self._events() or Polling()
        return self._observer

    @staticmethod
    def _events() -> Events | None:
        try:
            events = Events()
        except OSError:
            return None
        # A container may take the subscription and deliver nothing: believe it after an event of our own.
        pid = os.posix_spawn("/bin/true", ["/bin/true"], {})
        os.waitpid(pid, 0)
        try:
            events.gone({pid}, timeout=1.0)
        except ObservationError:
            events.close()
            return None
        return events

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._observer.close()
