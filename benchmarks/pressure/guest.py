"""In the guest: one configuration, every governor in turn, and what was seen as JSON in $LAB_RESULTS."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from . import client
from .keepers import DISK, KEEPERS, RUN, SHARES, EdgeAgent, FixedEdgeAgent, Keeper
from .load import WORKERS

RATE = 20.0  # requests a second
IDLE = 12.0  # seconds of each part
SETTLE = 4.0
AFTER = 5.0
SHARED = 10.0  # seconds of a hog that no memory governor is for
WINDOW = 0.2  # seconds over which the lender's share is measured
LONGEST = {"leak": 60.0, "memory": 60.0, "cpu": SHARED, "io": SHARED}
Sample = dict[str, object]


def work() -> int:
    """What the worker has done so far."""
    counts = (RUN / "work").read_bytes()
    return sum(int.from_bytes(counts[8 * number :][:8], "little") for number in range(WORKERS))


def activity(pid: int) -> tuple[int, float]:
    """(voluntary context switches, seconds on a CPU) of all threads of a process."""
    wakeups, seconds = 0, 0.0
    for task in Path(f"/proc/{pid}/task").iterdir() if pid else ():
        for line in (task / "status").read_text().splitlines():
            if line.startswith("voluntary_ctxt_switches:"):
                wakeups += int(line.split()[1])
        seconds += int((task / "schedstat").read_text().split()[0]) / 1e9
    return wakeups, seconds


def stalled(path: Path) -> float:
    """Seconds some task has stalled, of a pressure file; 0 without PSI."""
    with contextlib.suppress(OSError, IndexError):
        return int(path.read_text().splitlines()[0].rpartition("total=")[2]) / 1e6
    return 0.0


class Session:
    """One governor, its services and the client."""

    def __init__(self, keeper: Keeper) -> None:
        self.keeper = keeper

    def __enter__(self) -> Session:
        RUN.mkdir(exist_ok=True)
        for name in ("work", "begun", "requests"):
            (RUN / name).unlink(missing_ok=True)
        self.say("")
        if not (RUN / "disk").is_symlink():
            (RUN / "disk").symlink_to(DISK)
        subprocess.run(["sh", "-c", "sync; echo 3 >/proc/sys/vm/drop_caches"], check=True)
        self.keeper.start()
        output = (RUN / "requests").open("w")
        with output:
            argv = ["/usr/bin/python3", "-m", "benchmarks.pressure.client", str(RATE)]
            self._client = subprocess.Popen(argv, stdout=output)
        self._until_answered()
        return self

    def __exit__(self, *_: object) -> None:
        self._client.kill()
        self._client.wait()
        self.keeper.stop()
        for left in (DISK / "records", *DISK.glob("flood.*")):
            left.unlink(missing_ok=True)

    def quiet(self) -> None:
        """No more requests: the essential is an idle neighbour, too."""
        self._client.kill()
        self._client.wait()

    def _until_answered(self) -> None:
        end = time.monotonic() + 60
        while not any(latency >= 0 for _, latency in self.requests()[-20:]):
            if time.monotonic() > end:
                raise RuntimeError(f"{self.keeper.name}: the essential does not answer")
            time.sleep(0.2)

    def say(self, kind: str) -> None:
        """Tell the hog what to do from now on; '' nothing."""
        (RUN / ".phase").write_text(f"{time.monotonic_ns()} {kind}")
        (RUN / ".phase").rename(RUN / "phase")

    def requests(self, begin: float = 0.0, end: float = 1e18) -> list[tuple[float, float]]:
        """(when due, latency or -1) of those due in a time."""
        lines = (RUN / "requests").read_text().splitlines()[:-1]
        found = [(float(due), float(latency)) for due, latency in (line.split() for line in lines)]
        return [pair for pair in found if begin <= pair[0] < end]

    def idle(self) -> Sample:
        """Nothing happens."""
        time.sleep(SETTLE)
        pid = self.keeper.governor()
        (switches, seconds), before, begun = activity(pid), work(), time.monotonic()
        time.sleep(IDLE)
        took = time.monotonic() - begun
        (switches_after, seconds_after), done = activity(pid), work() - before
        return {
            "latencies": [latency for _, latency in self.requests(begun, begun + took - 1)],
            "work": done / took,
            "wakeups": (switches_after - switches) * 60 / took if pid else None,
            "cpu": (seconds_after - seconds) * 60 / took if pid else None,
        }

    def hogs(self) -> list[int]:
        """Processes that do what the phase says: those of the hog without its main one, which leads its session."""
        found = []
        with contextlib.suppress(OSError):
            for word in (self.keeper.cgroup("hog") / "cgroup.procs").read_text().split():
                with contextlib.suppress(OSError):
                    if os.getpgid(int(word)) != os.getsid(int(word)):
                        found.append(int(word))
        return found

    def _seen(self, begun: float) -> tuple[float, ...]:
        """(seconds, MiB the hog holds, seconds the essential stalled of memory, cpu, io so far)."""
        place = self.keeper.cgroup("essential")
        stalls = [stalled(place / f"{resource}.pressure") for resource in ("memory", "cpu", "io")]
        return (round(time.monotonic() - begun, 2), self._memory() >> 20, *stalls)

    def phase(self, kind: str) -> Sample:
        """One hog: until it is dealt with, or it has had its time."""
        while self.hogs():
            time.sleep(0.1)
        until = time.monotonic() + 90  # one that was shed may take its time to return
        while not (self.keeper.cgroup("hog") / "cgroup.procs").exists() and time.monotonic() < until:
            time.sleep(0.2)
        pid = self.keeper.governor()
        (switches, seconds), before = activity(pid), work()
        begun = time.monotonic()
        self.say(kind)
        limit, dealt, seen, peak = begun + LONGEST[kind], None, False, 0
        series = [self._seen(begun)]
        while time.monotonic() < limit and dealt is None:
            time.sleep(0.05)
            series.append(self._seen(begun))
            if kind in ("cpu", "io"):
                continue
            found = self.hogs()
            seen = seen or bool(found)
            held = self._memory()
            peak = max(peak, held)
            if seen and (not found or self.keeper.held() or (peak > 64 << 20 and held < peak // 2)):
                dealt = time.monotonic() - begun
        if dealt is not None:
            time.sleep(SETTLE)
        ended = time.monotonic()
        done = work() - before
        (switches_after, seconds_after) = activity(pid)
        self.say("")
        time.sleep(AFTER)
        after = time.monotonic()
        time.sleep(client.TIMEOUT if dealt is None else 1)  # those still on their way are failures by then
        during = self.requests(begun, ended)
        return {
            "during": [latency for _, latency in during],
            "after": [latency for _, latency in self.requests(ended + 1, after)],
            "due": [due - begun for due, _ in during],
            "dealt": dealt,
            "work": done / (ended - begun),
            "wakeups": (switches_after - switches) * 60 / (ended - begun) if pid else None,
            "cpu": (seconds_after - seconds) * 60 / (ended - begun) if pid else None,
            "series": series,
            "done": [f"{at - begun:.1f} s {text}" for at, text in self.keeper.ends() if at >= begun],
        }

    def _memory(self) -> int:
        """Bytes that the hog holds, swap included."""
        total = 0
        for name in ("memory.current", "memory.swap.current"):
            with contextlib.suppress(OSError):
                total += int((self.keeper.cgroup("hog") / name).read_text())
        return total


def lending(kind: type[EdgeAgent]) -> Sample:
    """The worker's throughput beside neighbours at rest; then one of them wants its request of cpu, and more."""
    with Session(kind()) as session:
        session.quiet()
        found = session.idle()
        stat, wanted = session.keeper.cgroup("hog") / "cpu.stat", 0.95 * SHARES["hog"][1]
        begun = time.monotonic()
        session.say("cpu")
        seen: list[tuple[float, float]] = []
        while time.monotonic() - begun < SHARED:
            usage = int(stat.read_text().split()[1]) / 1e6
            seen.append((time.monotonic(), usage))
            earlier = [pair for pair in seen if seen[-1][0] - pair[0] >= WINDOW]
            if earlier and (usage - earlier[-1][1]) / (seen[-1][0] - earlier[-1][0]) >= wanted:
                found["back"] = seen[-1][0] - begun
                break
            time.sleep(0.02)
        session.say("")
        return found


def swap(size: int) -> None:
    """Compressed memory as swap, MiB."""
    subprocess.run(["modprobe", "zram"], check=True)
    Path("/sys/block/zram0/disksize").write_text(f"{size}M")
    subprocess.run(["mkswap", "--quiet", "/dev/zram0"], check=True)
    subprocess.run(["swapon", "/dev/zram0"], check=True)


def main() -> None:
    """One configuration."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--disk", default="/dev/vdd")
    parser.add_argument("--zram", type=int, default=0, metavar="MIB")
    parser.add_argument("--kinds", default="leak,memory,cpu,io")
    parser.add_argument("--only", action="append")
    parser.add_argument("--lending", action="store_true")
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    client.lock_and_raise()
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    subprocess.run(["systemctl", "stop", "systemd-oomd.service", "systemd-oomd.socket", "earlyoom.service"], check=True)
    DISK.mkdir(exist_ok=True)
    subprocess.run(["mount", options.disk, str(DISK)], check=True)
    if options.zram:
        swap(options.zram)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    psi = Path("/proc/pressure/memory").exists()
    results: dict[str, list[Sample]] = {}
    into = Path(os.environ["LAB_RESULTS"]) / "pressure.json"
    for _ in range(options.rounds):
        for kind in KEEPERS:
            if options.only and kind.name not in options.only:
                continue
            if kind.needs_psi and not psi:
                continue
            print(f"  {kind.name}", flush=True)
            try:
                with Session(kind()) as session:
                    sample: Sample = {"idle": session.idle()}
                    for hog in options.kinds.split(","):
                        sample[hog] = found = session.phase(hog)
                        print(f"    {hog}: {found['dealt']}, {found['done']}", flush=True)
            except (OSError, RuntimeError, subprocess.SubprocessError) as error:
                sample = {"failure": repr(error)}
                print(f"    failed: {error}", flush=True)
            results.setdefault(kind.name, []).append(sample)
            into.write_text(json.dumps(results))
        if options.lending:
            for agent in (FixedEdgeAgent, EdgeAgent):
                print(f"  lending: {agent.name}", flush=True)
                results.setdefault(f"lending: {agent.name}", []).append(lending(agent))
    into.write_text(json.dumps(results))


if __name__ == "__main__":
    main()
