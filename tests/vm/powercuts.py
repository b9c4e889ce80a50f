"""Cut a node's power at random moments, and look at it after each boot: ``python -m tests.vm.powercuts --count 50``.

While the guest is up its node works: a service crashes all the time, profiles are switched one after the other, events
are written. The host is told of every step as it happens, so at the cut it knows what had been acknowledged. After the
boot there must be the profile last acknowledged, or the one that was just asked for; its essentials; every event that
had been shown and is written at once; the same key; nothing set aside. A cut is SIGKILL to QEMU: what it loses is in
README.md. The moments come from a seed, which is printed.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import random
import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from .errors import LabError, LabTimeoutError
from .lab import Guest, Lab
from .node import Node

PROFILES = 7
"""So many that the one asked for can be told from the ones before."""

LATEST = 20.0
"""Seconds of work before the last moment of a cut; a switch takes one or two."""

ON_THE_WAY_UP = 0.2
"""Share of the cuts that come while the machine boots; UP: seconds in which one of them comes."""
UP = 20.0

PROFILE = """
deployment: {{resources: {{total_memory: 500MiB, total_cpu: 1.0}}}}
services:
  identity: {{resources: {{memory: 100MiB, cpu: 0.2}}}}
  steady: {{command: [/bin/sleep, "1000"], importance: essential, resources: {{memory: 20MiB}}}}
  crasher:
    command: [/bin/sh, -c, "sleep 0.7; exit 3"]
    resources: {{memory: 20MiB}}
    restart_policy: {{max_attempts: unlimited, delay: 0.1s, backoff: 1}}
  only-{number}: {{command: [/bin/sleep, "1000"], importance: essential, resources: {{memory: 20MiB}}}}
"""

# Steps are told before and after; between two of them there is time in which nothing is asked for.
WORK = f"""
edge-agent events --follow --json &
n=$1
while :; do
    n=$(( (n + 1) % {PROFILES} ))
    echo "ASK $n"
    edge-agent switch "p$n" >/dev/null || exit 1
    echo "DONE $n"
    sleep "$(( $(od -An -N1 -tu1 /dev/urandom) % 3 ))"
done
"""
KEY = "sha256sum /var/lib/edge-agent/services/identity/identity.key"
TRACES = "find /var/lib/edge-agent -name '*.bad'; dmesg | grep -iE 'ext4.*(error|corrupt)'; true"
AT_ONCE = ("switched", "rolled-back", "degraded", "quarantined", "oom")
"""Kinds of events that are on the disk before anybody sees them."""


class Seen(NamedTuple):
    """What the guest had told until its power was cut."""

    done: int  # the profile last acknowledged
    asked: int  # the one last asked for
    events: tuple[dict[str, Any], ...]


def told(output: str, before: int) -> Seen:
    """From the guest's output, the last line of which may be cut short."""
    done = asked = before
    events = []
    for line in output.splitlines(keepends=True):
        word, _, rest = line.partition(" ")
        if not line.endswith("\n"):
            break
        if word == "ASK":
            asked = int(rest)
        elif word == "DONE":
            done = int(rest)
        elif line.startswith("{"):
            events.append(json.loads(line))
    return Seen(done, asked, tuple(events))


class Ordeal:
    """One guest with a disk of its own, cut again and again."""

    def __init__(self, guest: Guest, moments: random.Random) -> None:
        self.guest = guest
        self.node = Node(guest)
        self.moments = moments
        self.seen = Seen(0, 0, ())
        self.key = ""
        self.switches = 0

    def prepare(self) -> None:
        """The node's first start, in peace."""
        for number in range(PROFILES):
            self.node.write(f"/etc/edge-agent/profiles/p{number}.yaml", PROFILE.format(number=number))
        self.node.write("/root/work", WORK)
        self.guest.check("ln -s profiles/p0.yaml /etc/edge-agent/config.yaml")
        self.node.install_tree()
        self.node.systemctl("enable --now")
        self.guest.check("sync")
        self.key = self.look()

    def look(self) -> str:
        """Is all well after a boot? The node's key."""
        allowed = {f"only-{self.seen.done}", f"only-{self.seen.asked}"}
        self.node.systemctl("start")  # waits until it is up, and asks for nothing more

        def good(status: dict[str, Any]) -> bool:
            services = status.get("services", {})
            essential = {name for name, entry in services.items() if entry["essential"]}
            return (
                {"identity", "steady"} < essential
                and len(allowed & essential) == 1
                and not status["switching"]
                and all(services[name]["state"] == "ready" for name in essential)
            )

        status = self.node.until(good, f"one of {sorted(allowed)} with its essentials")
        assert not status["degraded"], status["degraded"]
        (only,) = allowed & set(status["services"])
        number = int(only.removeprefix("only-"))
        traces = self.guest.check(TRACES)
        assert not traces, f"torn state: {traces}"
        lines = self.guest.check("edge-agent events --json", timeout=120).splitlines()
        kept = {(event["seq"], event["kind"], event["text"]) for event in map(json.loads, lines)}
        written = [event for event in self.seen.events if event["kind"] in AT_ONCE]
        for event in written[-5:]:
            assert (event["seq"], event["kind"], event["text"]) in kept, f"lost: {event}; kept: {lines}"
        self.seen = Seen(number, number, ())
        return self.guest.check(KEY)

    def cut(self) -> str:
        """One cut, one boot, one look. What happened, for people."""
        if self.moments.random() < ON_THE_WAY_UP:
            what = self._cut_boot(self.moments.uniform(1, UP))
        else:
            what = self._cut_work(self.moments.uniform(0.2, LATEST))
        done, asked = self.seen.done, self.seen.asked
        self.guest.start()
        assert self.look() == self.key, "the node has another key"
        return f"{what}: p{done} acknowledged, p{asked} asked for, p{self.seen.done} came back"

    def _cut_boot(self, after: float) -> str:
        """The next boot is cut; the shutdown before it was in order."""
        self.guest.power_off()
        with contextlib.suppress(LabError):
            self.guest.start(cut_after=after)
            self.node.until(lambda _status: False, "cut", patience=UP + 60)
        return f"cut {after:4.1f} s after power-on"

    def _cut_work(self, after: float) -> str:
        heard = io.BytesIO()
        self.guest.cut_power(after=after)
        try:
            done = self.guest.run(["/bin/sh", "/root/work", str(self.seen.done)], timeout=LATEST + 60, echo=heard)
        except LabTimeoutError:
            raise
        except LabError:
            self.seen = told(heard.getvalue().decode(), self.seen.done)
            self.switches += sum(event["kind"] == "switched" for event in self.seen.events)
            when = "in a switch" if self.seen.asked != self.seen.done else "between switches"
            return f"cut {after:4.1f} s into the work, {when}"
        raise AssertionError(f"a switch failed: {done.code}\n{done.output[-3000:]}")


def run(count: int, seed: int) -> None:
    """So many cuts. AssertionError at the first boot that is not good."""
    print(f"seed {seed}", flush=True)
    with Lab(persistent=True).boot() as guest:
        ordeal = Ordeal(guest, random.Random(seed))
        ordeal.prepare()
        begun = time.monotonic()
        for number in range(1, count + 1):
            print(f"{number:3} {ordeal.cut()} ({time.monotonic() - begun:.0f} s)", flush=True)
        print(f"{count} power cuts, {count} good boots, {ordeal.switches} switches")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 1 at the first boot that is not good."""
    parser = argparse.ArgumentParser(prog="python -m tests.vm.powercuts", description="Cut a node's power, again.")
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000, help="of the moments (the clock)")
    options = parser.parse_args(arguments)
    try:
        run(options.count, options.seed)
    except (AssertionError, LabError) as error:
        print(f"a bad boot: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
