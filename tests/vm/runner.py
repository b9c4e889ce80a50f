"""Runs in the guest as root: executes the host's commands one after another. Standard library only.

It sets up three cgroups in its own (delegated) one: ``runner`` for itself, ``command`` for what it runs, and ``tests``,
empty and with every controller enabled, in which tests may make cgroups: its path is LAB_CGROUP.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import sys
from collections import deque
from pathlib import Path
from typing import Any

from .channel import EXIT, HELLO, PORT_NAME, RUN, STDERR, STDIN, STDOUT, Decoder, frame, frames

CGROUPS = Path("/sys/fs/cgroup")
ENVIRONMENT = {
    "LAB_GUEST": "1",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "LOGNAME": "root",
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "SHELL": "/bin/sh",
    "TERM": "dumb",
    "USER": "root",
}
CHUNK = 64 * 1024


def open_port() -> int:
    """The virtio-serial port by its name; udev's link is not there without udev."""
    for port in Path("/sys/class/virtio-ports").iterdir():
        name = port / "name"
        if name.exists() and name.read_text().strip() == PORT_NAME:
            return os.open(f"/dev/{port.name}", os.O_RDWR | os.O_CLOEXEC)
    raise FileNotFoundError(f"cannot reach the host: no virtio-serial port is named {PORT_NAME}")


def enable_controllers(cgroup: Path) -> None:
    """Every controller the cgroup has, for its children; what the kernel refuses is left out."""
    for controller in (cgroup / "cgroup.controllers").read_text().split():
        try:
            (cgroup / "cgroup.subtree_control").write_text(f"+{controller}")
        except OSError as error:
            print(f"runner: controller {controller} stays off in {cgroup}: {error}", file=sys.stderr)


def set_up_cgroups() -> Path:
    """Returns the unit's cgroup, now split into runner, command and tests."""
    own = Path("/proc/self/cgroup").read_text().strip().removeprefix("0::/")
    unit = CGROUPS / own
    for name in ("runner", "command", "tests"):
        (unit / name).mkdir(exist_ok=True)
    (unit / "runner/cgroup.procs").write_text("0")
    enable_controllers(unit)
    enable_controllers(unit / "tests")
    return unit


class Host:
    """The other end of the port: frames in, frames out."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.waiting: deque[tuple[bytes, bytes]] = deque()  # received and not yet acted on
        self._decoder = Decoder()

    def receive(self) -> None:
        """Block for more frames. EOFError when the host has gone."""
        data = os.read(self.port, CHUNK)
        if not data:
            raise EOFError("the host has gone")
        self.waiting.extend(self._decoder.feed(data))

    def send(self, data: bytes) -> None:
        """Block until the host has taken all of it: it always reads."""
        view = memoryview(data)
        while view:
            view = view[os.write(self.port, view) :]


class Command:
    """One running command: its pipes and its pidfd in one selector with the host's port."""

    def __init__(self, host: Host, request: dict[str, Any], unit: Path) -> None:
        self.host = host
        self.pending = bytearray()  # for the command's standard input
        self.input_ended = False
        procs = os.open(unit / "command/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)

        def enter() -> None:
            os.write(procs, b"0")
            Path("/proc/self/oom_score_adj").write_text("0")

        try:
            self.process = subprocess.Popen(
                request["argv"],
                env=ENVIRONMENT | {"LAB_CGROUP": str(unit / "tests")} | request["env"],
                cwd=request["cwd"],
                stdin=subprocess.PIPE if request["stdin"] else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT if request["merge"] else subprocess.PIPE,
                start_new_session=True,
                preexec_fn=enter,  # this process has one thread
            )
        finally:
            os.close(procs)
        self.outputs = {
            pipe.fileno(): kind
            for pipe, kind in ((self.process.stdout, STDOUT), (self.process.stderr, STDERR))
            if pipe is not None
        }
        self.pidfd = os.pidfd_open(self.process.pid)
        self.selector = selectors.DefaultSelector()
        for fd in (*self.outputs, self.pidfd, host.port):
            self.selector.register(fd, selectors.EVENT_READ)
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe is not None:
                os.set_blocking(pipe.fileno(), False)

    def run(self) -> int:
        """Serve the pipes until the main process ends; its exit code, or minus the signal."""
        while True:
            self.take_input()
            for key, _ in self.selector.select():
                if key.fd == self.pidfd:
                    return self.finish()
                if key.fd == self.host.port:
                    self.host.receive()
                elif key.fd in self.outputs:
                    self.pass_output(key.fd)
                else:
                    self.write_input()

    def pass_output(self, fd: int) -> None:
        """Hand one chunk to the host."""
        try:
            data = os.read(fd, CHUNK)
        except BlockingIOError:
            return
        self.host.send(frames(self.outputs[fd], data))
        if not data:
            self.selector.unregister(fd)
            del self.outputs[fd]

    def take_input(self) -> None:
        """Move what the host has sent to the pending input."""
        stdin = self.process.stdin
        while self.host.waiting:
            kind, body = self.host.waiting.popleft()
            if kind == STDIN and stdin is not None and not stdin.closed:
                self.pending += body
                self.input_ended = self.input_ended or not body
                if stdin.fileno() not in self.selector.get_map():
                    self.selector.register(stdin.fileno(), selectors.EVENT_WRITE)

    def write_input(self) -> None:
        """Give the command what fits of its pending input."""
        stdin = self.process.stdin
        if stdin is None or stdin.closed:
            return
        try:
            if self.pending:
                del self.pending[: os.write(stdin.fileno(), self.pending)]
        except BrokenPipeError:
            self.pending.clear()
            self.input_ended = True
        if not self.pending:
            self.selector.unregister(stdin.fileno())
            if self.input_ended:
                stdin.close()

    def finish(self) -> int:
        """Pass on what the pipes still hold, at most one chunk each: that is a pipe's capacity, pipe(7).

        A process left in the background may keep the pipes open; it is not waited for.
        """
        code = self.process.wait()
        for fd in list(self.outputs):
            self.pass_output(fd)
        self.selector.close()
        os.close(self.pidfd)
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()
        return code


def run(host: Host, request: dict[str, Any], unit: Path) -> int:
    """Run one command to its end; 127 when it cannot be started, as a shell says it."""
    try:
        command = Command(host, request, unit)
    except OSError as error:
        host.send(frames(STDOUT, f"cannot run {request['argv'][0]}: {error.strerror}\n".encode()))
        return 127
    return command.run()


def serve(host: Host, unit: Path) -> None:
    """Run commands, one at a time, until the host closes the channel."""
    while True:
        while not host.waiting:
            host.receive()
        kind, body = host.waiting.popleft()
        if kind == RUN:
            host.send(frame(EXIT, json.dumps({"code": run(host, json.loads(body), unit)}).encode()))


def main() -> None:
    """Say hello, then serve."""
    Path("/proc/self/oom_score_adj").write_text("-900")
    host = Host(open_port())
    unit = set_up_cgroups()
    host.send(frame(HELLO, json.dumps({"kernel": os.uname().release, "cgroup": str(unit)}).encode()))
    with contextlib.suppress(EOFError):
        serve(host, unit)


if __name__ == "__main__":
    main()
