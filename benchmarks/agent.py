"""edge-agent itself: started from a compiled plan, from the command line, and with the sampling fallback."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from .candidate import Candidate, Rooms, Workload
from .report import COMMAND_LINE, PLAN, SAMPLING


def profile_text(commands: dict[str, tuple[str, ...]], enforcement: str) -> str:
    """A profile that runs these commands, everything else left to its default."""
    lines = ["deployment:", "  mode: edge", f"  enforcement: {enforcement}", "services:"]
    for name, argv in commands.items():
        lines += [f"  {name}:", f"    command: {json.dumps(list(argv))}"]
    return "\n".join(lines) + "\n"


class CommandLine(Candidate):
    """``edge-agent --config FILE``: the profile is compiled, then the resident replaces the front end."""

    name = COMMAND_LINE
    enforcement = "none"  # as the peers, which limit nothing
    interpreter = "python-command-line"

    def __init__(self, cache: Path, rooms: Rooms, workload: Workload) -> None:
        super().__init__(cache, rooms, workload)
        programs = cache / "agent" / "bin"
        self.program = [str(programs / self.interpreter), str(programs / "edge-agent")]
        self.file = rooms.data / "bench.yaml"

    def environment(self) -> dict[str, str]:
        run, data = str(self.rooms.run), str(self.rooms.data)
        return super().environment() | {
            "EDGE_AGENT_RUN_DIR": f"{run}/edge-agent",
            "EDGE_AGENT_DATA_DIR": f"{data}/state",
            "EDGE_AGENT_LOG_DIR": f"{data}/log",
            "EDGE_AGENT_CONFIG_DIR": f"{data}/etc",
        }

    def configure(self, version: int) -> None:
        commands = {name: self.workload.argv(name, version) for name in self.workload.names()}
        self.write(self.file, profile_text(commands, self.enforcement))

    def start(self) -> list[str]:
        return [*self.program, "--config", str(self.file)]

    def switch(self) -> list[str]:
        return [*self.program, "--config", str(self.file)]

    def status(self) -> list[str]:
        return [*self.program, "status"]


class FromPlan(CommandLine):
    """``edge-agent --plan FILE``: the profile was compiled beforehand, as at every boot after the first."""

    name = PLAN
    interpreter = "python-plan"

    @property
    def _plan(self) -> str:
        return str(self.rooms.data / "bench.plan")

    def configure(self, version: int) -> None:
        super().configure(version)
        subprocess.run(
            [*self.program, "compile", "--config", str(self.file), "--output", self._plan],
            env=self.environment(),
            stdout=subprocess.DEVNULL,
            check=True,
        )

    def start(self) -> list[str]:
        return [*self.program, "--plan", self._plan]

    def switch(self) -> list[str]:
        return [*self.program, "--plan", self._plan]


class Sampling(CommandLine):
    """Without a v2 memory controller: psutil is loaded, and every service is measured now and then."""

    name = SAMPLING
    enforcement = "sampling"
    interpreter = "python-sampling"
