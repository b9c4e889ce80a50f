"""Starts bundled services as the agent does: their command, their options, a notification socket, a process each."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from edge_agent.services.options import VARIABLE

PATIENCE = 20.0  # seconds; a loaded machine, never waited for in full when things work


def free_port() -> int:
    """A TCP port of the loopback that was free just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for ``condition``; fail saying ``what`` did not happen."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.02)


class Running:
    """One service process, of one service or of several. Leaving the context kills it if it still runs.

    ``options``: of the service; of several, what each is told by its name. ``user``: whom it runs as, and its group.
    ``before``: words before its command.
    """

    def __init__(
        self,
        name: str,
        base: Path,
        *,
        environ: dict[str, str] | None = None,
        user: int | None = None,
        before: Sequence[str] = (),
        **options: Any,
    ) -> None:
        self.name, names = name, name.split("+")
        self.data, self.run = base / "data" / name, base / "run" / name
        self.runs = {each: base / "run" / each for each in names}
        told: dict[str, Any] = {}
        for each, run in self.runs.items():
            run.mkdir(parents=True, exist_ok=True)
            own = options if len(names) == 1 else options.get(each, {})
            told[each] = {"name": each, "data_dir": str(base / "data" / each), "run_dir": str(run), **own}
            if user is not None:  # as the agent makes them
                for place, mode in ((run, 0o750), (base / "data" / each, 0o700)):
                    place.mkdir(parents=True, exist_ok=True)
                    os.chown(place, user, user)
                    place.chmod(mode)
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        path = base / f"notify-{name}-{os.urandom(4).hex()}"
        self._notify.bind(str(path))
        if user is not None:
            os.chown(path, user, user)
        self.started = time.monotonic()
        with (base / f"{name}.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*before, sys.executable, "-m", "edge_agent.services", *names],
                env={
                    "PATH": os.environ["PATH"],
                    "NOTIFY_SOCKET": str(path),
                    VARIABLE: json.dumps(told if len(names) > 1 else told[name]),
                }
                | (environ or {}),
                cwd="/",
                user=user,
                group=user,
                extra_groups=None if user is None else [],
                stdin=subprocess.DEVNULL,
                stderr=log,
                stdout=log,
            )
        self.log = base / f"{name}.log"

    @property
    def pid(self) -> int:
        return self.process.pid

    def notified(self, wanted: str, seconds: float = PATIENCE) -> bool:
        """Does a message with this line arrive in time?"""
        deadline = time.monotonic() + seconds
        while (rest := deadline - time.monotonic()) > 0:
            if not select.select([self._notify], [], [], min(rest, 0.2))[0]:
                if self.process.poll() is not None:
                    return False
                continue
            if wanted in self._notify.recv(4096).decode().split("\n"):
                return True
        return False

    def ready(self) -> Self:
        """Wait until it says so."""
        assert self.notified("READY=1"), f"{self.name} did not become ready: {self.log.read_text()}"
        return self

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to stop; its exit code."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._notify.close()

    def smaps(self, field: str) -> int:
        """A field of /proc/PID/smaps_rollup, bytes."""
        for line in Path(f"/proc/{self.pid}/smaps_rollup").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
        raise AssertionError(field)

    def switches(self) -> int:
        """How often its threads gave up the processor of their own will, since they started: their wakeups."""
        total = 0
        for task in Path(f"/proc/{self.pid}/task").iterdir():
            for line in (task / "status").read_text().splitlines():
                if line.startswith("voluntary_ctxt_switches:"):
                    total += int(line.split()[1])
        return total

    def listening(self) -> list[str]:
        """Local addresses of its listening TCP sockets, as /proc/net/tcp and tcp6 write them."""
        inodes = set()
        for link in Path(f"/proc/{self.pid}/fd").iterdir():
            try:
                target = str(link.readlink())
            except FileNotFoundError:
                continue
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
        found = []
        for table in ("tcp", "tcp6"):
            for line in Path(f"/proc/{self.pid}/net/{table}").read_text().splitlines()[1:]:
                columns = line.split()
                if columns[3] == "0A" and columns[9] in inodes:  # 0A: TCP_LISTEN
                    found.append(columns[1])
        return found
