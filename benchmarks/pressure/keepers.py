"""The governors that are compared: how each has the three services run, in the guest. Each is told the same numbers."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from abc import ABC, abstractmethod
from pathlib import Path

HERE = Path(__file__).parent
RUN = Path("/run/bench")
DISK = Path("/srv/bench")
UNITS = Path("/run/systemd/system")
NAMES = ("essential", "worker", "hog")

TOTAL, TOTAL_CPU = 280, 1.9
"""MiB, cores: of the three together, where there is a total."""
SHARES = {"essential": (64, 0.8), "worker": (64, 0.6), "hog": (96, 0.5)}
"""MiB, cores: the fixed limits, or the requests of those that may borrow."""


def command(name: str) -> list[str]:
    """The service's command line."""
    return ["/usr/bin/python3", "-S", str(HERE / "load.py"), name, str(RUN)]


def run(*words: str, check: bool = True) -> str:
    """A command's output."""
    return subprocess.run(words, check=check, capture_output=True, text=True, timeout=120).stdout


class Keeper(ABC):
    """One governor with the three services."""

    name: str
    needs_psi = False

    @abstractmethod
    def start(self) -> None:
        """Run the three."""

    @abstractmethod
    def stop(self) -> None:
        """End them, leave nothing."""

    def governor(self) -> int:
        """The pid of the process that watches; 0 for the kernel alone."""
        return 0

    @abstractmethod
    def ends(self) -> list[tuple[float, str]]:
        """What has been done to whom so far: (monotonic seconds, what)."""

    @abstractmethod
    def cgroup(self, name: str) -> Path:
        """Where a service is."""

    def held(self) -> bool:
        """Whether the hog is held, though it lives."""
        with contextlib.suppress(OSError):
            return (self.cgroup("hog") / "cgroup.freeze").read_text().strip() == "1"
        return False


class Units(Keeper):
    """systemd units in one slice, without limits."""

    name = "no limits"
    slice_lines: tuple[str, ...] = ()
    limited = False
    service = ""  # the governor's unit

    def start(self) -> None:
        self._write("bench.slice", "[Slice]\n" + "\n".join(self.slice_lines))
        for name in NAMES:
            lines = [f"ExecStart={' '.join(command(name))}", "Slice=bench.slice", "Restart=always", "RestartSec=1"]
            if self.limited:
                memory, cpu = SHARES[name]
                lines += [f"MemoryMax={memory}M", f"CPUQuota={cpu:.0%}"]
            self._write(f"bench-{name}.service", "[Unit]\nStartLimitIntervalSec=0\n[Service]\n" + "\n".join(lines))
        run("systemctl", "daemon-reload")
        if self.service:
            run("systemctl", "start", self.service)
        run("systemctl", "start", *(f"bench-{name}.service" for name in NAMES))

    def stop(self) -> None:
        run("systemctl", "stop", *(f"bench-{name}.service" for name in NAMES), "bench.slice", check=False)
        if self.service:
            run("systemctl", "stop", self.service, check=False)
        for path in UNITS.glob("bench*"):
            path.unlink()
        run("systemctl", "daemon-reload")

    def governor(self) -> int:
        if not self.service:
            return 0
        return int(run("systemctl", "show", "--value", "-p", "MainPID", self.service))

    def ends(self) -> list[tuple[float, str]]:
        # A kill of one of its processes does not end a unit, so who did what is in the log.
        words = "Killed process|Killed /|sending SIG|Scheduled restart"
        log = run("journalctl", "-b", "-o", "short-monotonic", "--no-hostname", "-g", words, check=False)
        lines = (line.removeprefix("[").partition("] ") for line in log.splitlines() if line.startswith("["))
        return [(float(at), text) for at, _, text in lines]

    def cgroup(self, name: str) -> Path:
        return Path(f"/sys/fs/cgroup/bench.slice/bench-{name}.service")

    @staticmethod
    def _write(name: str, text: str) -> None:
        UNITS.mkdir(parents=True, exist_ok=True)
        (UNITS / name).write_text(text + "\n")


class Limits(Units):
    """The same with fixed limits."""

    name = "systemd limits"
    slice_lines = (f"MemoryMax={TOTAL}M", f"CPUQuota={TOTAL_CPU:.0%}")
    limited = True


class Oomd(Units):
    """systemd-oomd, which watches the slice: 60 % over 30 s."""

    name = "systemd-oomd"
    needs_psi = True
    service = "systemd-oomd.service"
    slice_lines: tuple[str, ...] = ("ManagedOOMMemoryPressure=kill", "ManagedOOMSwap=kill")
    settings = ""

    def start(self) -> None:
        directory = Path("/run/systemd/oomd.conf.d")
        directory.mkdir(exist_ok=True)
        (directory / "bench.conf").write_text(f"[OOM]\n{self.settings}\n")
        super().start()


class TunedOomd(Oomd):
    """As quick as it can be set: 10 % over 1 s."""

    name = "systemd-oomd, tuned"
    slice_lines = (*Oomd.slice_lines, "ManagedOOMMemoryPressureLimit=10%")
    settings = "DefaultMemoryPressureDurationSec=1s"


class Earlyoom(Units):
    """earlyoom as Debian starts it."""

    name = "earlyoom"
    service = "earlyoom.service"


class EdgeAgent(Keeper):
    """edge-agent: the fixed limits of the others are its requests, and each may borrow up to the total."""

    name = "edge-agent"
    importance = {"essential": "essential", "worker": "normal", "hog": "heavy"}  # noqa: RUF012
    lends = True

    def start(self) -> None:
        services = {}
        for name in NAMES:
            memory, cpu = SHARES[name]
            limit = (TOTAL, TOTAL_CPU) if self.lends else (memory, cpu)
            services[name] = {
                "command": command(name),
                "importance": self.importance[name],
                "resources": {
                    "memory": {"request": f"{memory}MiB", "limit": f"{limit[0]}MiB"},
                    "cpu": {"request": cpu, "limit": limit[1]},
                },
                "restart_policy": {"max_attempts": 20, "delay": "1s"},
            }
        total = {"total_memory": f"{TOTAL + 16}MiB", "total_cpu": TOTAL_CPU}
        profile = RUN / "bench.yaml"
        profile.write_text(json.dumps({"deployment": {"resources": total}, "services": services}))
        variables = {"EDGE_AGENT_DATA_DIR": DISK / "agent", "EDGE_AGENT_RUN_DIR": RUN / "agent"}
        variables |= {"EDGE_AGENT_LOG_DIR": RUN / "log", "EDGE_AGENT_CONFIG_DIR": RUN / "etc"}
        setenv = [f"--setenv={key}={value}" for key, value in variables.items()]
        self._environment = os.environ | {key: str(value) for key, value in variables.items()}
        agent = ["/usr/local/bin/edge-agent", "--config", str(profile)]
        run("systemd-run", "--unit=bench-agent", "-p", "Delegate=yes", *setenv, *agent)
        end = time.monotonic() + 60
        while not all((self.cgroup(name) / "cgroup.procs").exists() for name in NAMES):
            if time.monotonic() > end:
                raise RuntimeError(run("journalctl", "-u", "bench-agent", "-n", "20"))
            time.sleep(0.2)

    def stop(self) -> None:
        run("systemctl", "stop", "bench-agent.service", check=False)

    def governor(self) -> int:
        return int(run("systemctl", "show", "--value", "-p", "MainPID", "bench-agent.service"))

    def ends(self) -> list[tuple[float, str]]:
        done = subprocess.run(
            ["edge-agent", "events", "--json"],
            env=self._environment, capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        kinds = ("oom", "shed", "frozen", "squeezed", "relaxed", "thawed", "returns", "helpless", "unhealthy")
        found = [json.loads(line) for line in done.stdout.splitlines()]
        booted = time.time() - time.monotonic()
        return [(e["time"] - booted, f"{e['service']} {e['kind']}: {e['text']}") for e in found if e["kind"] in kinds]

    def cgroup(self, name: str) -> Path:
        return Path(f"/sys/fs/cgroup/system.slice/bench-agent.service/services/{name}")


class FixedEdgeAgent(EdgeAgent):
    """The same with limits at the requests: nothing is lent."""

    name = "edge-agent, fixed"
    lends = False


KEEPERS: tuple[type[Keeper], ...] = (Units, Limits, Oomd, TunedOomd, Earlyoom, EdgeAgent)
