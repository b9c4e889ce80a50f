"""A real agent with directories of its own, driven by its own command line and control socket."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from edge_agent.cli.resident import command
from edge_agent.control.client import AgentError, Client, NotRunningError
from edge_agent.host.process import start_time

_numbers = itertools.count()
PATIENCE = 30.0  # seconds until a test gives up; nothing is asserted about how long things take
EDGE_AGENT = Path(sys.executable).parent / "edge-agent"
CLI = [str(EDGE_AGENT)] if EDGE_AGENT.exists() else [sys.executable, "-m", "edge_agent"]


def until(condition: Callable[[], Any], what: str, patience: float = PATIENCE) -> Any:
    """Look until it is true; the value. For processes and kernels there is no clock to hand in."""
    end = time.monotonic() + patience
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {patience:g} s: {what}")
        time.sleep(0.01)


def alive(pid: int, started: int | None = None) -> bool:
    """A process that is not a zombie, and the one that started then."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX" and (started is None or start_time(pid) == started)


def with_argument(mark: str) -> list[int]:
    """Living processes that have ``mark`` as one of their arguments."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if mark.encode() in words and alive(int(entry.name)):
                found.append(int(entry.name))
    return sorted(found)


class Node:
    """One agent. ``start`` runs it by ``edge-agent``, ``run_plan`` the resident directly from a compiled plan."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.mark = f"mark-{os.getpid()}-{root.name}"
        self.number = str(10_000_000 + next(_numbers) * 100_000 + os.getpid())  # seconds for a sleep like no other
        self.run_dir, self.data_dir, self.log_dir = root / "run", root / "data", root / "log"
        self.process: subprocess.Popen[bytes] | None = None
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("EDGE_AGENT_", "BLACKHOLE_"))},
            "EDGE_AGENT_RUN_DIR": str(self.run_dir),
            "EDGE_AGENT_DATA_DIR": str(self.data_dir),
            "EDGE_AGENT_LOG_DIR": str(self.log_dir),
            "EDGE_AGENT_CONFIG_DIR": str(root / "etc"),
        }

    # -- the agent -----------------------------------------------------------------------------------------------------

    def profile(self, text: str, name: str = "test") -> Path:
        """Write a profile; ``MARK`` in it becomes an argument unique to this node."""
        path = self.root / f"{name}.yaml"
        path.write_text(textwrap.dedent(text).replace("MARK", self.mark))
        return path

    def cli(self, *words: str | Path, check: bool = False, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Run one command to its end."""
        done = subprocess.run(
            [*CLI, *map(str, words)],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        assert not check or done.returncode == 0, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def start(self, *words: str | Path) -> None:
        """Start the agent in the foreground of a process of ours, and wait until it answers."""
        self._spawn([*CLI, *map(str, words)])

    def run_plan(self, plan: Path, cgroup: Path | None = None, *, status_gid: int | None = None) -> None:
        """Start the resident alone, as its front end would execute it, in ``cgroup`` if one is given."""
        directories = ["--run-dir", self.run_dir, "--data-dir", self.data_dir, "--log-dir", self.log_dir]
        group = [] if status_gid is None else ["--status-gid", str(status_gid)]
        self._spawn(command(["--plan", str(plan), *map(str, directories), *group]), cgroup)

    def _spawn(self, argv: list[str], cgroup: Path | None = None) -> None:
        def join() -> None:
            if cgroup is not None:
                (cgroup / "cgroup.procs").write_text("0")

        output = (self.root / "output").open("ab")
        with output:
            self.process = subprocess.Popen(
                argv, env=self.environment, stdout=output, stderr=output, stdin=subprocess.DEVNULL, preexec_fn=join
            )
        until(self.answers, "the agent answers", 3 * PATIENCE)

    def services_cgroup(self) -> Path:
        """The directory that carries the total, by what the kernel says of the agent."""
        agent = self.status()["agent"]["pid"]
        own = Path(f"/proc/{agent}/cgroup").read_text().strip().removeprefix("0::")
        assert own.endswith("/agent")
        return Path("/sys/fs/cgroup" + own).parent / "services"

    def answers(self) -> bool:
        """Whether an agent answers now."""
        assert self.process is not None
        assert self.process.poll() is None, f"it ended with {self.process.returncode}:\n{self.output()}"
        try:
            return bool(self.status())
        except (NotRunningError, AgentError):
            return False

    def output(self) -> str:
        """What it has printed."""
        return (self.root / "output").read_text()

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(PATIENCE)

    def stop(self, signum: int = signal.SIGTERM) -> int:
        """Ask it to stop everything; its exit code."""
        assert self.process is not None
        self.process.send_signal(signum)
        return self.process.wait(PATIENCE)

    def close(self) -> None:
        """End whatever a test has left."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.kill()
        for pid in with_argument(self.mark) + with_argument(self.number):
            os.kill(pid, signal.SIGKILL)

    # -- what it says --------------------------------------------------------------------------------------------------

    def call(self, verb: str, **args: Any) -> dict[str, Any]:
        with Client(str(self.run_dir / "control")) as client:
            return client.call(verb, args, timeout=PATIENCE)

    def status(self) -> dict[str, Any]:
        return self.call("status")

    def service(self, name: str) -> dict[str, Any]:
        entry: dict[str, Any] = self.status()["services"][name]
        return entry

    def states(self) -> dict[str, str]:
        return {name: entry["state"] for name, entry in self.status()["services"].items()}

    def pids(self) -> dict[str, int]:
        return {name: entry["pid"] for name, entry in self.status()["services"].items() if entry["pid"]}

    def until_state(self, state: str, *names: str, patience: float = PATIENCE) -> None:
        """Wait until all of them, or every service, are in this state."""

        def reached() -> bool:
            states = self.states()
            return all(states.get(name) == state for name in names or states)

        until(reached, f"{names or 'all'} {state}", patience)

    def events(self, kind: str = "", service: str = "") -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        cursor = 0
        while True:
            answer = self.call("events", cursor=cursor, service=service)
            if not answer["events"]:
                return found
            found += [event for event in answer["events"] if not kind or event["kind"] == kind]
            cursor = answer["cursor"]


def node() -> Iterator[Node]:
    """A fixture's body. The directory is one that services of other users can reach, as /run is; pytest's are not."""
    root = Path(tempfile.mkdtemp(prefix="edge-agent-test-"))
    root.chmod(0o755)
    made = Node(root)
    try:
        yield made
    finally:
        made.close()
        shutil.rmtree(root)
