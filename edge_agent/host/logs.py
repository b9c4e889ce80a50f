"""Output of services: a pipe with a name per service, drained into a log of bounded size.

The service holds its end of the FIFO read-write and so does the agent. Nobody's death then gives the service SIGPIPE
or the agent a permanent hang-up, a later agent opens the same FIFO and goes on, and what is written in between waits in
the pipe (64 KiB, then the writer waits too). A quiet service costs no wakeup.

The log itself is in ``segments``.
"""

from __future__ import annotations

import errno
import os
import socket
import stat

from . import loop as loops
from .segments import Segments

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..model import Service

CHUNK = 64 * 1024  # bytes per callback: what a pipe holds
BURST = 8  # callbacks at once before a busy pipe is read at intervals
INTERVAL = 1 / 16  # seconds between reads of a busy pipe: with CHUNK, 1 MiB/s
JOURNAL = "/run/systemd/journal/stdout"


class LogSink:
    """Where one service's output goes, by its ``log`` setting. ``on_data``: called after something was added.

    ``folder``: the service's own in the run directory, writable by the agent alone; it holds the pipe, and the log if
    that is kept in memory. ``log_dir``: for logs on disk.
    ``kind`` is what is in force, ``reason`` why it is not what was asked for ('' when it is). ``lost`` counts bytes
    that the file system would not take.
    """

    def __init__(self, loop: loops.Loop, service: Service, folder: str, log_dir: str, journal: str = JOURNAL) -> None:
        self.on_data: Callable[[], None] | None = None
        self.log = service.log
        self.kind = service.log.kind
        self.reason = ""
        self.lost = 0
        self._loop = loop
        self._name = service.name
        self._owner = (-1 if service.uid is None else service.uid, -1 if service.gid is None else service.gid)
        self._journal = journal
        self._folder = folder
        self._reader = -1
        self._bursts = 0
        self._last = 0.0
        self._timer: loops.Timer | None = None
        self._log: Segments | None = None
        if self.kind == "journal" and not _is_socket(journal):
            self._fall_back(f"there is no journal at {journal}")
        if self.kind in ("memory", "disk"):
            self._start(log_dir)

    def open_writer(self) -> int:
        """A descriptor for the service's standard output and error; the caller closes it. Raises OSError."""
        if self.kind == "journal":
            try:
                return self._connect_journal()
            except OSError as error:
                self._fall_back(f"the journal refused a stream ({error.strerror})")
        if self.kind == "none":
            return os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        if self._reader < 0:
            self._start("")
        # Not the agent's own descriptor: that one does not block, and the service's must.
        return os.open(f"/proc/self/fd/{self._reader}", os.O_RDWR | os.O_CLOEXEC)

    def read(self, cursor: int, limit: int) -> tuple[bytes, int]:
        """At most ``limit`` bytes from ``cursor`` on, and the cursor behind them.

        A cursor older than what is kept, or from a log that is no more, starts at the oldest byte; -1 starts ``limit``
        bytes before the end.
        """
        return (b"", max(cursor, 0)) if self._log is None else self._log.read(cursor, limit)

    @property
    def end(self) -> int:
        """The cursor behind the last byte."""
        return 0 if self._log is None else self._log.end

    def drain(self) -> None:
        """Take over what the pipe holds now: after the last process has gone, or before closing."""
        if self._reader >= 0:
            self._move()

    def close(self) -> None:
        """Let go. Pipe and log stay for the next agent."""
        if self._timer is not None:
            self._timer.cancel()
        if self._reader >= 0:
            self._loop.forget(self._reader)
            self._move()
            os.close(self._reader)
            self._reader = -1
        if self._log is not None:
            self._log.close()

    # -- pipe ----------------------------------------------------------------------------------------------------------

    def _start(self, log_dir: str) -> None:
        os.makedirs(self._folder, 0o755, exist_ok=True)
        base = log_dir if self.kind == "disk" else self._folder
        os.makedirs(base, 0o755, exist_ok=True)
        log = Segments(os.path.join(base, f"{self._name}.log"), self.log.max_bytes)
        try:
            self._reader = self._open_pipe()
        except OSError:
            log.close()
            raise
        self._log = log
        self._loop.watch(self._reader, loops.READ, self._readable)

    def _open_pipe(self) -> int:
        """The folder is the agent's alone, so nobody can put something else in the pipe's place meanwhile."""
        path = os.path.join(self._folder, "output")
        for _ in range(2):
            try:
                os.mkfifo(path, 0o600)
            except FileExistsError:
                pass
            fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
            if stat.S_ISFIFO(os.fstat(fd).st_mode):
                try:
                    if os.geteuid() == 0:
                        os.fchown(fd, *self._owner)  # so that the service may open /dev/stdout anew
                except OSError:
                    os.close(fd)
                    raise
                return fd
            os.close(fd)
            os.unlink(path)
        raise OSError(errno.EEXIST, "something else is in the pipe's place", path)

    def _readable(self, events: int) -> None:  # noqa: ARG002 - the loop's
        now = self._loop.now()
        if now - self._last > 1.0:
            self._bursts = 0
        self._last = now
        self._bursts += 1
        if self._move() and self._bursts >= BURST:
            # A flood is read at intervals: it costs the agent 16 wakeups a second, not one per line.
            self._loop.forget(self._reader)
            self._timer = self._loop.at(now + INTERVAL, self._resume)

    def _resume(self) -> None:
        self._timer = None
        if self._move():
            self._timer = self._loop.at(self._loop.now() + INTERVAL, self._resume)
        else:
            self._bursts = 0
            self._loop.watch(self._reader, loops.READ, self._readable)

    def _move(self) -> int:
        """Pipe to log, one chunk; the number of bytes."""
        try:
            data = os.read(self._reader, CHUNK)
        except OSError:  # EAGAIN
            return 0
        if self._log is not None:
            self.lost += len(data) - self._log.append(data)
        if self.on_data is not None:
            self.on_data()
        return len(data)

    # -- journal -------------------------------------------------------------------------------------------------------

    def _fall_back(self, why: str) -> None:
        self.kind = "memory"
        self.reason = f"{why}; the output is kept in memory instead"

    def _connect_journal(self) -> int:
        """A stream as sd_journal_stream_fd(3) opens it: identifier, unit, priority, four flags, one line each."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
            stream.settimeout(0.5)  # of a stuck journal; the socket is given away blocking
            stream.connect(self._journal)
            stream.shutdown(socket.SHUT_RD)
            stream.sendall(f"{self._name}\n\n6\n1\n0\n0\n0\n".encode())
            stream.settimeout(None)
            return stream.detach()


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        return False
