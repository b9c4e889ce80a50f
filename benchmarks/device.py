"""The installed package on a Pi-class machine, in QEMU: ``python -m benchmarks.device bookworm-arm64 --packages dist``.

What is measured is in README.md. The guest reboots once, so that nothing is the first time.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.vm.errors import LabError
from tests.vm.lab import Guest, Lab
from tests.vm.node import Node, pids
from tests.vm.target import Target, parse

RESULTS = Path(__file__).parent / "results"
REST = 60.0  # seconds from the agent's start to the reading of its memory
MEMORY_MIB = 1024


def rollup(guest: Guest, pid: int) -> dict[str, int]:
    """Bytes by field, of smaps_rollup: proc_pid_smaps(5)."""
    lines = guest.check(f"cat /proc/{pid}/smaps_rollup").splitlines()[1:]
    return {line.split(":")[0].lower(): int(line.split()[1]) * 1024 for line in lines}


def times(guest: Guest) -> dict[str, float]:
    """Seconds since the kernel's start of this boot."""
    now, up = guest.check("date +%s.%N; cut -d' ' -f1 /proc/uptime").split()
    booted = float(now) - float(up)  # nothing sets the guest's clock later
    events = [json.loads(line) for line in guest.check("edge-agent events --json", timeout=120).splitlines()]
    begun = max(index for index, event in enumerate(events) if "starts with profile" in event["text"])
    status = Node(guest).status()["services"]
    ready = {event["service"]: event["time"] - booted for event in events[begun:] if event["kind"] == "ready"}
    essential = {name: ready[name] for name, entry in status.items() if entry["essential"]}
    show = "systemctl show -P"  # microseconds since the kernel's start
    shown = guest.check(f"{show} InactiveExitTimestampMonotonic edge-agent; {show} FinishTimestampMonotonic")
    unit, whole = (int(line) / 1e6 for line in shown.split())
    return {
        "unit_started": unit,
        "resident_started": events[begun]["time"] - booted,
        "essentials_ready": max(essential.values()),
        "whole_boot": whole,
    }


def measure(target: Target, packages: Path, profile: str) -> dict[str, Any]:
    """One device, installed, rebooted, at rest. LabError when it does not come that far."""
    (deb,) = sorted(packages.glob(f"edge-agent_*_{target.architecture}.deb"))[:1]
    with Lab(None, target=target, memory_mib=MEMORY_MIB, persistent=True).boot() as guest:
        with tempfile.TemporaryDirectory() as bring:
            shutil.copy(deb, bring)
            guest.push(Path(bring), "/root/packages")
        guest.check("dpkg -i /root/packages/*.deb", timeout=300)
        node = Node(guest)
        node.until_ready()
        guest.check(f"edge-agent --profile {profile}", timeout=180)
        guest.reboot()
        begun = time.monotonic()
        status = node.until_ready(patience=300)
        boot = times(guest)
        age = float(guest.check("cut -d' ' -f1 /proc/uptime")) - boot["resident_started"]
        time.sleep(max(0.0, REST - age))
        agent = status["agent"]["pid"]
        services = {name: rollup(guest, pid) for name, pid in pids(status).items()}
        return {
            "target": str(target),
            "package": deb.name,
            "profile": profile,
            "memory_mib": MEMORY_MIB,
            "kernel": guest.check("uname -r").strip(),
            "python": guest.check("python3 --version").strip(),
            "systemd": guest.check("systemctl --version").split()[1],
            "installed_kib": int(guest.check("dpkg-query -f '${Installed-Size}' -W edge-agent")),
            "boot_seconds": boot,
            "resident": rollup(guest, agent),
            "resident_cpu_seconds": cpu(guest, agent),
            "services": services,
            "host_load": os.getloadavg()[0],
            "host_seconds": time.monotonic() - begun,
        }


def cpu(guest: Guest, pid: int) -> float:
    """Of the process so far, its own; from proc_pid_stat(5), in ticks of 1/100 s."""
    fields = guest.check(f"cat /proc/{pid}/stat").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def row(found: dict[str, Any]) -> str:
    """A line of the table."""
    mib = 1 << 20
    resident, boot = found["resident"], found["boot_seconds"]
    everything = resident["pss"] + sum(part["pss"] for part in found["services"].values())
    return (
        f"{found['target']:<15} {resident['pss'] / mib:9.1f} {resident['rss'] / mib:7.1f} "
        f"{resident['private_dirty'] / mib:7.1f} {everything / mib:12.1f} {boot['unit_started']:8.1f} "
        f"{boot['essentials_ready']:9.1f} {boot['whole_boot']:6.1f}"
    )


HEAD = """\
machine          resident     RSS private   + services     unit essentials  whole
                      PSS           dirty          PSS  started     ready    boot
                      MiB     MiB     MiB          MiB        s         s      s"""


def keep(found: dict[str, Any]) -> None:
    """Write it into the day's file, over what the same machine has there."""
    path = RESULTS / f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}-device.json"
    kept = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(kept | {found["target"]: found}, indent=1) + "\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.device", description="The package on a device.")
    parser.add_argument("targets", nargs="+", type=parse, metavar="SUITE-ARCHITECTURE")
    parser.add_argument("--packages", type=Path, required=True, metavar="DIR", help="where the .deb is")
    parser.add_argument("--profile", default="edge")
    parser.add_argument("--keep", action="store_true", help="write into results/DATE-device.json")
    options = parser.parse_args(arguments)
    print(HEAD)
    for target in options.targets:
        try:
            found = measure(target, options.packages, options.profile)
        except LabError as error:
            print(error, file=sys.stderr)
            return 1
        print(row(found), flush=True)
        if options.keep:
            keep(found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
