"""How long planning takes by the number of services: the whole command, and its parts inside one process."""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

from .report import markdown, number

SIZES = (10, 100, 1000)
PARTS = {
    "command": "`edge-agent plan`, all of it, ms",
    "load": "read and validate the profile, ms",
    "compile": "budget and order, ms",
    "pack": "pack the plan, ms",
    "unpack": "unpack it, as the resident does, ms",
}
_COST = Path(__file__).parent / "plan_cost.py"

Times = dict[int, dict[str, list[float]]]
"""Number of services -> part -> seconds."""


def profile(services: int) -> str:
    """A profile of chains of ten: each service depends on the one before, asks for something, is checked over TCP."""
    lines = [
        "deployment:",
        "  mode: edge",
        "  enforcement: none",
        "services:",
    ]
    for number_ in range(services):
        lines += [
            f"  svc{number_:04d}:",
            '    command: ["/bin/sleep", "infinity"]',
            f"    environment: {{INDEX: '{number_}', DATA: /var/lib/svc{number_:04d}}}",
            "    restart_policy: {max_attempts: 3, delay: 2s}",
            f"    health: {{tcp: {20000 + number_}, interval: 30s}}",
            "    resources: {memory: {request: 64KiB, limit: 64MiB}, cpu: {limit: 0.5}, pids: 20}",
        ]
        if number_ % 10:
            lines.append(f"    depends_on: [svc{number_ - 1:04d}]")
    return "\n".join(lines) + "\n"


def measure(cache: Path, environment: Mapping[str, str], repetitions: int, sizes: Sequence[int] = SIZES) -> Times:
    """Seconds for every size and part, ``repetitions`` values each. Raises RuntimeError with edge-agent's message."""
    bin_ = cache / "agent" / "bin"
    times: Times = {size: {part: [] for part in PARTS} for size in sizes}
    with tempfile.TemporaryDirectory(prefix="bench.") as directory:
        places = {f"EDGE_AGENT_{name}_DIR": f"{directory}/{name}" for name in ("CONFIG", "DATA", "LOG", "RUN")}
        environment = {**environment, **places}
        files = {size: Path(directory, f"{size}.yaml") for size in sizes}
        for size, file in files.items():
            file.write_text(profile(size))
        for _ in range(repetitions):
            for size, file in files.items():
                began = time.monotonic()
                _run([str(bin_ / "edge-agent"), "plan", "--config", str(file)], environment)
                times[size]["command"].append(time.monotonic() - began)
                parts = json.loads(_run([str(bin_ / "python"), "-I", str(_COST), str(file)], environment))
                for part, seconds in parts.items():
                    times[size][part].append(seconds)
    return times


def _run(argv: list[str], environment: Mapping[str, str]) -> str:
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False, timeout=120)
    if done.returncode != 0:
        raise RuntimeError(f"cannot plan: exit code {done.returncode}: {done.stderr.strip()[-800:]}")
    return done.stdout


def table(times: Times) -> str:
    """Medians in milliseconds by number of services."""
    rows = [
        [
            title,
            *(number(median(times[size][part]) * 1000, 2) if times[size][part] else "-" for size in times),
        ]
        for part, title in PARTS.items()
    ]
    return markdown(["planning, by number of services", *(f"{size:,}" for size in times)], rows)
