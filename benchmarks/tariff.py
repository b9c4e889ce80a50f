"""What importing one module costs a bare interpreter (``python -I -S``): memory of the process, and time.

ARCHITECTURE.md bans modules from the resident agent by these numbers.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from .report import markdown, number

ROOT = Path(__file__).parent.parent
PYTHON = ROOT / ".cache/bench/agent/bin/python"

MODULES: tuple[tuple[str, ...], ...] = (
    (),
    ("typing",),
    ("collections",),
    ("dataclasses",),
    ("enum",),
    ("re",),
    ("logging",),
    ("json",),
    ("selectors",),
    ("select", "errno", "struct", "fcntl", "resource"),
    ("signal",),
    ("socket",),
    ("selectors", "signal", "socket"),
    ("_signal", "_socket", "select"),
    ("subprocess",),
    ("pathlib",),
    ("msgpack",),
    ("cgroupspy.interfaces",),
    ("cgroupspy.controllers",),
    ("psutil",),
    ("asyncio",),
    ("yaml",),
    ("zmq",),
    ("nacl.signing",),
    ("pydantic",),
    ("pydantic_settings",),
    ("loguru",),
    ("apscheduler.triggers.cron",),
    ("edge_agent.model",),
    ("edge_agent.agent.start",),
)

# Opened before the imports and read after them by plain system calls, so that reading costs the same each time.
_PROBE = """
import os, sys, time
sys.path.append({site!r})
began = time.perf_counter_ns()
for name in {modules!r}:
    try:
        __import__(name)
    except ModuleNotFoundError as error:
        sys.exit("missing " + str(error.name))
took = time.perf_counter_ns() - began
with open("/proc/self/smaps_rollup", "rb") as rollup:
    text = rollup.read()
found = dict(line.split(b":") for line in text.splitlines()[1:])
print([took] + [int(found[key].split()[0]) for key in (b"Pss", b"Rss", b"Private_Dirty")])
"""

Cost = tuple[float, float, float, float]
"""Milliseconds, PSS, RSS, Private_Dirty in MiB."""


def measure(python: Path, site: Path, modules: Sequence[str]) -> Cost | None:
    """One process that imports ``modules`` in this order; None when one is not installed."""
    done = subprocess.run(
        [str(python), "-I", "-S", "-c", _PROBE.format(site=str(site), modules=tuple(modules))],
        env={"LANG": "C.UTF-8"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    if done.returncode == 1 and done.stderr.startswith("missing "):
        return None
    if done.returncode != 0:
        raise RuntimeError(f"cannot import {', '.join(modules)}: {done.stderr.strip()[-400:]}")
    nanoseconds, pss, rss, dirty = json.loads(done.stdout)
    return nanoseconds / 1e6, pss / 1024, rss / 1024, dirty / 1024


def costs(python: Path, repetitions: int) -> dict[str, Cost | None]:
    """Medians by module, one discarded run first (it compiles bytecode and fills the page cache)."""
    [site] = (python.parent.parent / "lib").glob("python3*/site-packages")
    found: dict[str, Cost | None] = {}
    for modules in MODULES:
        name = " ".join(modules) or "nothing"
        runs = [measure(python, site, modules) for _ in range(repetitions + 1)][1:]
        kept = [run for run in runs if run is not None]
        if kept:
            time, pss, rss, dirty = (median(values) for values in zip(*kept, strict=True))
            found[name] = (time, pss, rss, dirty)
        else:
            found[name] = None
    return found


def table(found: dict[str, Cost | None]) -> str:
    """The tariff, with the difference to the bare interpreter."""
    bare = found["nothing"]
    rows = []
    for name, cost in found.items():
        if cost is None or bare is None:
            rows.append([name, *["not installed"] + ["-"] * 4])
            continue
        time, pss, rss, dirty = cost
        rows.append(
            [
                name,
                number(pss, 1),
                f"+{number(pss - bare[1], 1)}",
                number(rss, 1),
                number(dirty, 1),
                number(time, 1),
            ]
        )
    header = ["imports", "PSS, MiB", "more than nothing", "RSS, MiB", "Private_Dirty, MiB", "import, ms"]
    return markdown(header, rows)


def main() -> int:
    """``benchmarks/imports``."""
    parser = argparse.ArgumentParser(prog="benchmarks/imports", description=__doc__)
    parser.add_argument("--python", type=Path, default=PYTHON, help="interpreter of a virtual environment")
    parser.add_argument("--repetitions", type=int, default=3)
    arguments = parser.parse_args()
    if not arguments.python.exists():
        print(f"cannot measure: {arguments.python} is missing; fix: benchmarks/install", file=sys.stderr)
        return 1
    print(table(costs(arguments.python, arguments.repetitions)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
