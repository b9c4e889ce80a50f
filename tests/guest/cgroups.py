"""Cgroups and processes for tests on a real kernel, by plain files: no part of edge-agent checks itself."""

from __future__ import annotations

import select
import subprocess
import sys
import time
from pathlib import Path

DEADLINE = 30.0  # seconds; generous, as the kernel is emulated and its host may be busy

EAT = """
import sys
taken = []
while sum(map(len, taken)) < {mib} << 20:
    taken.append(b"x" * (1 << 20))
print("full", flush=True)
sys.stdin.read()
"""
"""A Python program that takes memory a MiB at a time, says so, and keeps it until its standard input ends."""


class Cgroup:
    """A cgroup v2 directory that the test owns."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def child(self, name: str) -> Cgroup:
        """A new cgroup below this one, with this one's controllers enabled for it."""
        controllers = self.read("cgroup.controllers").split()
        self.write("cgroup.subtree_control", " ".join(f"+{controller}" for controller in controllers))
        made = Cgroup(self.path / name)
        made.path.mkdir()
        return made

    def read(self, file: str) -> str:
        return (self.path / file).read_text().strip()

    def write(self, file: str, value: str) -> None:
        (self.path / file).write_text(value)

    def flat(self, file: str) -> dict[str, int]:
        """A flat-keyed file such as memory.events."""
        return {key: int(value) for key, value in (line.split() for line in self.read(file).splitlines())}

    @property
    def populated(self) -> bool:
        return self.flat("cgroup.events")["populated"] == 1

    def spawn(self, code: str) -> subprocess.Popen[str]:
        """A Python program that is in this cgroup before its first instruction, with pipes at its ends."""
        procs = self.path / "cgroup.procs"
        return subprocess.Popen(
            [sys.executable, "-S", "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: procs.write_text("0") and None,
        )

    def wait_empty(self) -> None:
        """Wait for ``populated 0`` as cgroup-v2.rst says: POLLPRI on cgroup.events. TimeoutError after DEADLINE."""
        deadline = time.monotonic() + DEADLINE
        with (self.path / "cgroup.events").open() as events:
            poll = select.poll()
            poll.register(events, select.POLLPRI)
            while True:
                events.seek(0)
                if "populated 0" in events.read():
                    return
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError(f"{self.path} is not empty: {self.read('cgroup.procs').split()}")
                poll.poll(left * 1000)

    def remove(self) -> None:
        """Kill all that is in it, then remove it and everything below."""
        self.write("cgroup.kill", "1")
        self.wait_empty()
        for directory in sorted(self.path.rglob("*/"), reverse=True):
            if directory.is_dir():
                directory.rmdir()
        self.path.rmdir()


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Wait for a spawned program: (code, standard output, standard error)."""
    output, errors = process.communicate(timeout=DEADLINE)
    return process.returncode, output, errors


def line(process: subprocess.Popen[str]) -> str:
    """The next line a spawned program writes, '' at its end."""
    assert process.stdout is not None
    return process.stdout.readline().strip()
