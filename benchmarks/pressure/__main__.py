"""``python -m benchmarks.pressure``: boots the guests, prints the tables, writes the results."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from tests.vm import tools
from tests.vm.errors import LabError
from tests.vm.image import make_ext4
from tests.vm.lab import Lab
from tests.vm.target import Target

from ..report import goal_table
from . import report
from .keepers import KEEPERS, SHARES, TOTAL, TOTAL_CPU

ROOT = Path(__file__).parent.parent.parent
RESULTS = ROOT / "benchmarks/results"
TARGET = Target(extra=("systemd-oomd", "earlyoom"))
MEMORY, ZRAM = 512, 256  # MiB
DISK = "throttling.bps-total=20000000,throttling.iops-total=500"
"""What a good SD card gives, bytes and operations a second."""
PATIENCE = 3600.0


class Setting(NamedTuple):
    """One guest."""

    name: str
    append: str
    arguments: tuple[str, ...]


ALL = "leak,memory,cpu,io"
SETTINGS = (
    Setting("PSI, no swap", "psi=1", ("--kinds", ALL)),
    Setting("PSI, zram", "psi=1", ("--kinds", "memory", "--zram", str(ZRAM))),
    Setting("no PSI, no swap", "psi=0", ("--kinds", "memory")),
    Setting("no PSI, zram", "psi=0", ("--kinds", "memory", "--zram", str(ZRAM))),
    Setting("lending", "psi=1", ("--only", "nobody", "--lending")),
)


def measure(setting: Setting, rounds: int, only: list[str], kinds: str) -> dict[str, Any]:
    """Boot, run, bring back."""
    with tempfile.TemporaryDirectory(prefix="bench-pressure-") as work:
        empty, disk, results = Path(work) / "empty", Path(work) / "disk.img", Path(work) / "results"
        empty.mkdir()
        make_ext4(empty, disk, "1G")
        drive = ("-drive", f"if=virtio,format=raw,cache=none,file={disk},{DISK}")
        lab = Lab(target=TARGET, memory_mib=MEMORY, append=setting.append, qemu_options=drive)
        arguments = [*setting.arguments, "--rounds", str(rounds), *(word for name in only for word in ("--only", name))]
        arguments += ["--kinds", kinds] if kinds else []
        command = ["python3", "-m", "benchmarks.pressure.guest", *arguments]
        done = lab.run(command, timeout=PATIENCE, results=results, echo=sys.stderr.buffer)
        path = results / "pressure.json"
        if done.code != 0 or not path.exists():
            raise LabError(f"cannot measure with {setting.name}: code {done.code}")
        found: dict[str, Any] = json.loads(path.read_text())
        return found


def main() -> int:
    """Run, print, write JSON."""
    names = [kind.name for kind in KEEPERS]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pressure", description="Governors under pressure.")
    parser.add_argument("--rounds", type=int, default=1, help="of every governor, interleaved (1)")
    parser.add_argument("--only", action="append", default=[], choices=names, help="a governor; repeatable")
    parser.add_argument("--setting", action="append", type=int, choices=range(len(SETTINGS)), help="0 to 4; repeatable")
    parser.add_argument("--kinds", default="", help=f"of hogs, instead of those of the setting ({ALL})")
    parser.add_argument("--keep", action="store_true", help="keep the result as benchmarks/results/pressure-DATE.json")
    options = parser.parse_args()
    governors = [name for name in names if not options.only or name in options.only]
    loads: dict[str, tuple[float, float]] = {}
    samples: dict[str, dict[str, Any]] = {}
    try:
        tools.require(TARGET)
        for number in options.setting if options.setting is not None else range(len(SETTINGS)):
            setting, begun, before = SETTINGS[number], time.monotonic(), os.getloadavg()[0]
            print(f"{setting.name}", file=sys.stderr, flush=True)
            samples[setting.name] = found = measure(setting, options.rounds, options.only, options.kinds)
            loads[setting.name] = (before, os.getloadavg()[0])
            show(setting, found, governors, loads[setting.name], time.monotonic() - begun)
            write(samples, loads, options.rounds, keep=options.keep)
    except LabError as error:
        print(error, file=sys.stderr)
        return 125
    return 0


def write(
    samples: dict[str, dict[str, Any]], loads: dict[str, tuple[float, float]], rounds: int, *, keep: bool
) -> None:
    """What there is so far, with every sample."""
    today = datetime.datetime.now(datetime.UTC)
    result = {
        "date": today.isoformat(timespec="seconds"),
        "machine": {"guest_memory_mib": MEMORY, "guest_cpus": 2, "zram_mib": ZRAM, "disk": DISK, "load": loads},
        "commit": _said("git", "describe", "--always", "--dirty", "--abbrev=12"),
        "settings": {"total_mib": TOTAL, "total_cpu": TOTAL_CPU, "shares": SHARES, "rounds": rounds},
        "samples": samples,
    }
    text = json.dumps(result) + "\n"
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "latest-pressure.json").write_text(text)
    if keep:
        (RESULTS / f"pressure-{today.date()}.json").write_text(text)


def show(setting: Setting, found: dict[str, Any], governors: list[str], load: tuple[float, float], took: float) -> None:
    """The tables of one setting."""
    guest = f"emulated guest of {MEMORY} MiB and 2 processors"
    print(
        f"\n{setting.name}: {guest}, {took / 60:.0f} min, load of the host {load[0]:.1f} before, {load[1]:.1f} after\n"
    )
    print(report.table(found, governors) + "\n")
    print(goal_table([*report.goals(found), *report.lending(found)]) + "\n")
    print(report.deeds(found, governors), flush=True)


def _said(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=False, cwd=ROOT).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
