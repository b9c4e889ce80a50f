"""``benchmarks/run``: one run, one table."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from itertools import count
from pathlib import Path

from . import agent, peers, plans, report
from .candidate import PATH, Candidate, Rooms, Workload
from .measure import Make, MeasureError, repetition, rest
from .observe import Observer, Observing

ROOT = Path(__file__).parent.parent
CACHE = ROOT / ".cache" / "bench"
RESULTS = Path(__file__).parent / "results"

TIMED: tuple[type[Candidate], ...] = (
    agent.FromPlan,
    agent.CommandLine,
    peers.S6,
    peers.Runit,
    peers.Circusd,
    peers.Supervisord,
)
RESTING: tuple[type[Candidate], ...] = (*TIMED, agent.Sampling)

Collected = dict[str, dict[str, list[float]]]


def _make(kind: type[Candidate], rooms: Rooms, workload: Workload) -> Candidate:
    return kind(CACHE, rooms, workload)


def _said(argv: list[str]) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=ROOT)
    return done.stdout.strip()


def _line(path: str, start: str) -> str:
    """The value of the first line of a /proc file that starts so."""
    for line in Path(path).read_text().splitlines():
        if line.startswith(start):
            return line.partition(":")[2].strip()
    return ""


def _first(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def machine(observer: Observer) -> dict[str, object]:
    """What a reader needs to judge the numbers."""
    scheme = "/sys/kernel/mm/damon/admin/kdamonds/0/contexts/0/schemes/0/action"
    return {
        "kernel": platform.release(),
        "cpu": _line("/proc/cpuinfo", "model name") or platform.machine(),
        "cpus": os.cpu_count(),
        "memory_kib": int(_line("/proc/meminfo", "MemTotal").split()[0]),
        "system": _line_of_release(),
        "python": _said([str(CACHE / "agent/bin/python"), "--version"]),
        "times_from": observer.name,
        "reclaims_idle_memory": _first(scheme) == "pageout",
        "load_before": os.getloadavg()[0],
    }


def _line_of_release() -> str:
    return platform.freedesktop_os_release().get("PRETTY_NAME", "")


def versions() -> dict[str, str]:
    """What was compared."""
    show = "import importlib.metadata as m; print(m.version({!r}))"
    [runit] = [deb.name.split("_")[1] for deb in (CACHE / "deb").glob("runit_*.deb")][:1] or ["?"]
    return {
        "edge-agent": _said([str(CACHE / "agent/bin/python"), "-c", show.format("edge-agent")]),
        "commit": _said(["git", "describe", "--always", "--dirty", "--abbrev=12"]),
        "supervisord": _said([str(CACHE / "supervisord/bin/python"), "-c", show.format("supervisor")]),
        "circusd": _said([str(CACHE / "circusd/bin/python"), "-c", show.format("circus")]),
        "s6": _said(["dpkg-query", "-W", "-f", "${Version}", "s6"]),
        "runit": runit,
    }


def _arguments() -> argparse.Namespace:
    names = [kind.name for kind in RESTING]
    parser = argparse.ArgumentParser(prog="benchmarks/run", description="Compare edge-agent with its peers.")
    parser.add_argument("--quick", action="store_true", help="2 repetitions, 10 s at rest")
    parser.add_argument("--repetitions", type=int, help="of every candidate, interleaved (5)")
    parser.add_argument("--rest", type=float, metavar="SECONDS", help="at rest; 0 leaves it out (60)")
    parser.add_argument("--only", action="append", metavar="NAME", help=f"one of {', '.join(names)}; repeatable")
    parser.add_argument("--no-plans", action="store_true", help="leave the planning times out")
    parser.add_argument("--keep", action="store_true", help="keep the result as benchmarks/results/DATE.json")
    arguments = parser.parse_args()
    if unknown := set(arguments.only or ()) - set(names):
        parser.error(f"unknown candidate: {', '.join(sorted(unknown))}; one of {', '.join(names)}")
    if arguments.repetitions is None:
        arguments.repetitions = 2 if arguments.quick else 5
    if arguments.rest is None:
        arguments.rest = 10.0 if arguments.quick else 60.0
    return arguments


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _timings(
    kinds: list[type[Candidate]],
    rounds: int,
    observer: Observer,
    markers: Iterator[int],
    failures: dict[str, str],
) -> Collected:
    """Every candidate in turn, ``rounds`` times over; one that fails is left out from then on."""
    samples: Collected = {}
    for number in range(rounds + 1):  # the first round fills caches and is thrown away
        for kind in kinds:
            if kind.name in failures:
                continue
            _say(f"{'warm-up' if not number else f'round {number} of {rounds}'}: {kind.name}")
            try:
                found = repetition(partial(_make, kind), observer, Workload(next(markers)))
            except (MeasureError, OSError, subprocess.SubprocessError) as error:
                failures[kind.name] = str(error)
                _say(f"  failed: {error}")
                continue
            for key, values in found.items() if number else ():
                samples.setdefault(kind.name, {}).setdefault(key, []).extend(values)
    return samples


def main() -> int:
    """Run, print, write JSON."""
    arguments = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwinds, so that what was started is ended
    began = time.monotonic()
    markers = count(random.randrange(1_000, 9_000) * 1_000)  # noqa: S311 only to tell runs apart
    only = set(arguments.only or [kind.name for kind in RESTING])
    failures: dict[str, str] = {}
    with Observing() as observer:
        about = machine(observer)
        samples = _timings(
            [kind for kind in TIMED if kind.name in only], arguments.repetitions, observer, markers, failures
        )
        if arguments.rest:
            _say(f"all of them at rest for {arguments.rest:.0f} s")
            makes: dict[str, Make] = {
                kind.name: partial(_make, kind) for kind in RESTING if kind.name in only - failures.keys()
            }
            for name, sample in rest(makes, observer, Workload(next(markers)), arguments.rest, failures).items():
                for key, value in sample.items():
                    samples.setdefault(name, {}).setdefault(key, []).append(value)
    planning: plans.Times = {}
    if not arguments.no_plans:
        _say("planning")
        try:
            planning = plans.measure(CACHE, {"PATH": PATH, "HOME": "/root", "LANG": "C.UTF-8"}, arguments.repetitions)
        except (RuntimeError, OSError, subprocess.SubprocessError) as error:
            failures["planning"] = str(error)
    about["load_after"] = os.getloadavg()[0]
    _print(samples, planning, failures, about, arguments, time.monotonic() - began)
    result = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": about,
        "versions": versions(),
        "settings": {"repetitions": arguments.repetitions, "rest_seconds": arguments.rest},
        "samples": samples,
        "planning": planning,
        "failures": failures,
    }
    text = json.dumps(result, indent=1) + "\n"
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "latest.json").write_text(text)
    if arguments.keep:
        (RESULTS / f"{datetime.datetime.now(datetime.UTC).date()}.json").write_text(text)
    return 0


def _print(
    samples: Collected,
    planning: plans.Times,
    failures: dict[str, str],
    about: dict[str, object],
    arguments: argparse.Namespace,
    took: float,
) -> None:
    order = [kind.name for kind in RESTING if kind.name in samples]
    print(f"{about['system']}, Linux {about['kernel']}, {about['cpus']} x {about['cpu']}, {about['python']}")
    print(f"{', '.join(f'{name} {version}' for name, version in versions().items())}")
    print(
        f"median (min-max) of {arguments.repetitions} interleaved rounds, {arguments.rest:.0f} s at rest; "
        f"times from {about['times_from']}; {took / 60:.1f} min, "
        f"load {about['load_before']:.1f} before, {about['load_after']:.1f} after\n"
    )
    print(report.table(samples, order) + "\n")
    ours = [name for name in (report.PLAN, report.COMMAND_LINE) if name in samples]
    if ours:
        print(report.ratios(samples, ours) + "\n")
        print(report.goal_table(report.goals(samples)) + "\n")
    if planning:
        print(plans.table(planning) + "\n")
    for name, why in failures.items():
        print(f"failed: {name}: {why}\n")


if __name__ == "__main__":
    sys.exit(main())
