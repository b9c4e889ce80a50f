"""supervisord, circusd, runit and s6, each set up as its manual does, with its default logging and delays."""

from __future__ import annotations

import os
import shlex
import signal
import time
from pathlib import Path

from .candidate import PATH, Candidate


class Supervisord(Candidate):
    """Supervisor 4: one process; ``supervisorctl update`` restarts the programs whose section changed."""

    name = "supervisord"

    def _program(self, program: str) -> str:
        return str(self.cache / "supervisord" / "bin" / program)

    @property
    def _file(self) -> Path:
        return self.rooms.data / "supervisord.conf"

    def configure(self, version: int) -> None:
        run, data = self.rooms.run, self.rooms.data
        lines = [
            "[supervisord]",
            "nodaemon=true",
            "user=root",  # without it supervisord warns about running as root
            f"logfile={data}/supervisord.log",
            f"childlogdir={data}",
            f"pidfile={run}/supervisord.pid",
            "[unix_http_server]",
            f"file={run}/supervisor.sock",
            "[rpcinterface:supervisor]",
            "supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface",
            "[supervisorctl]",
            f"serverurl=unix://{run}/supervisor.sock",
        ]
        for name in self.workload.names():
            lines += [f"[program:{name}]", f"command={shlex.join(self.workload.argv(name, version))}"]
        self.write(self._file, "\n".join(lines) + "\n")

    def start(self) -> list[str]:
        return [self._program("supervisord"), "-c", str(self._file)]

    def switch(self) -> list[str]:
        return [self._program("supervisorctl"), "-c", str(self._file), "update"]

    def status(self) -> list[str]:
        return [self._program("supervisorctl"), "-c", str(self._file), "status"]


class Circusd(Candidate):
    """Circus: one process, ZeroMQ control sockets; ``reloadconfig`` restarts the watchers that changed."""

    name = "circusd"

    def _program(self, program: str) -> str:
        return str(self.cache / "circusd" / "bin" / program)

    @property
    def _file(self) -> Path:
        return self.rooms.data / "circus.ini"

    @property
    def _endpoint(self) -> str:
        return f"ipc://{self.rooms.run}/control"

    def configure(self, version: int) -> None:
        lines = [
            "[circus]",
            f"endpoint = {self._endpoint}",
            f"pubsub_endpoint = ipc://{self.rooms.run}/events",
        ]
        for name in self.workload.names():
            lines += [f"[watcher:{name}]", f"cmd = {shlex.join(self.workload.argv(name, version))}"]
        self.write(self._file, "\n".join(lines) + "\n")

    def start(self) -> list[str]:
        return [self._program("circusd"), str(self._file)]

    def switch(self) -> list[str]:
        return [self._program("circusctl"), "--endpoint", self._endpoint, "reloadconfig"]

    def status(self) -> list[str]:
        return [self._program("circusctl"), "--endpoint", self._endpoint, "status"]


class _ServiceDirectories(Candidate):
    """runit and s6 share the layout: a directory per service with an executable ``run``, below a scanned one."""

    def _directory(self, name: str) -> str:
        return str(self.rooms.run / "service" / name)

    def configure(self, version: int) -> None:
        for name in self.workload.names():
            script = Path(self._directory(name), "run")
            text = f"#!/bin/sh\nexec {shlex.join(self.workload.argv(name, version))}\n"
            if not script.exists() or script.read_text() != text:
                self.write(script, text, mode=0o755)


class Runit(_ServiceDirectories):
    """runsvdir with a runsv per service; nothing watches for changed run scripts, ``sv restart`` names them."""

    name = "runit"
    stop_signal = signal.SIGHUP  # SIGTERM leaves the runsv processes and their services running

    def _program(self, program: str) -> str:
        return str(self.cache / "runit" / "usr" / "bin" / program)

    def environment(self) -> dict[str, str]:
        return super().environment() | {"PATH": f"{self.cache / 'runit' / 'usr' / 'bin'}:{PATH}"}

    def configure(self, version: int) -> None:
        super().configure(version)
        # runsvdir sleeps through the second in which its directory changed; a machine's was made long ago.
        before = time.time() - 60
        os.utime(self.rooms.run / "service", (before, before))

    def start(self) -> list[str]:
        return [self._program("runsvdir"), "-P", str(self.rooms.run / "service")]

    def switch(self) -> list[str]:
        return [self._program("sv"), "restart", *map(self._directory, self.workload.changing())]

    def status(self) -> list[str]:
        return [self._program("sv"), "status", *map(self._directory, self.workload.names())]


class S6(_ServiceDirectories):
    """s6-svscan with an s6-supervise per service; ``s6-svc`` and ``s6-svstat`` take one service at a time."""

    name = "s6"

    def _script(self, names: list[str], *loops: str) -> list[str]:
        directories = shlex.join(map(self._directory, names))
        return [
            "/bin/sh",
            "-e",
            "-c",
            "\n".join(f"for d in {directories}; do {loop}; done" for loop in loops),
        ]

    def start(self) -> list[str]:
        return ["/usr/bin/s6-svscan", str(self.rooms.run / "service")]

    def switch(self) -> list[str]:
        # Down, then up: after `s6-svc -r` s6-supervise waits a second before it starts the program again.
        return self._script(
            self.workload.changing(), "/usr/bin/s6-svc -d $d", "/usr/bin/s6-svc -wd $d; /usr/bin/s6-svc -u $d"
        )

    def status(self) -> list[str]:
        return self._script(self.workload.names(), "/usr/bin/s6-svstat $d")
