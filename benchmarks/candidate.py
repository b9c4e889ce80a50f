"""What the harness asks of a supervisor under test, and the children every one of them gets."""

from __future__ import annotations

import signal
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

SLEEP = "/bin/sleep"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

Argv = tuple[str, ...]


@dataclass(frozen=True)
class Workload:
    """``count`` services that sleep for ever; version 1 differs from version 0 in the last ``changed`` of them.

    ``marker`` (digits) makes the command lines ours alone: sleep(1) adds its arguments up, and infinity plus any
    number is infinity.
    """

    marker: int
    count: int = 20
    changed: int = 5

    def names(self) -> list[str]:
        """In order of start."""
        return [f"svc{number:02d}" for number in range(1, self.count + 1)]

    def changing(self) -> list[str]:
        """The services that differ between the versions."""
        return self.names()[self.count - self.changed :]

    def argv(self, name: str, version: int) -> Argv:
        """The command line of a service."""
        kind = version if name in self.changing() else 0
        return (SLEEP, "infinity", f"{self.marker}{kind}{name.removeprefix('svc')}")

    def children(self, version: int) -> dict[Argv, str]:
        """Every command line of a version, with its service's name."""
        return {self.argv(name, version): name for name in self.names()}

    def owns(self, argv: Argv) -> bool:
        """Whether a process with this command line is one of the children, of either version."""
        return argv in self.children(0) or argv in self.children(1)


@dataclass(frozen=True)
class Rooms:
    """Where a candidate keeps its files: ``run`` in memory, ``data`` on disk, as /run and /var would be."""

    run: Path
    data: Path


class Candidate(ABC):
    """One supervisor with one configuration. The harness starts the command, and stops it with ``stop_signal``."""

    name: str
    stop_signal = signal.SIGTERM

    def __init__(self, cache: Path, rooms: Rooms, workload: Workload) -> None:
        self.cache = cache  # what benchmarks/install made
        self.rooms = rooms
        self.workload = workload

    @abstractmethod
    def configure(self, version: int) -> None:
        """Write the configuration. Never timed."""

    @abstractmethod
    def start(self) -> list[str]:
        """The command that becomes the supervisor and stays in the foreground."""

    @abstractmethod
    def switch(self) -> list[str]:
        """With version 1 configured and version 0 running: the supervisor's own way to change only what differs."""

    @abstractmethod
    def status(self) -> list[str]:
        """The command a person types to see every service."""

    def environment(self) -> dict[str, str]:
        """A clean one: PYTHONDONTWRITEBYTECODE from a shell would make every Python start compile itself."""
        return {"PATH": PATH, "HOME": str(self.rooms.data), "LANG": "C.UTF-8"}

    def write(self, path: Path, text: str, *, mode: int = 0o644) -> None:
        """Replace a file in one step, so that a running supervisor never reads half of it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(f".{path.name}.new")
        new.write_text(text)
        new.chmod(mode)
        new.replace(path)
