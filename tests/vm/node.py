"""An edge-agent under systemd in a guest, as a test on the host sees it: installed from the tree, asked, waited for."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from .lab import Guest

SYSTEMCTL = """
timeout 150 systemctl $* && exit
echo "systemctl $* ended with $?; jobs and processes, and what was said:"
systemctl list-jobs --no-pager; ps -eo pid,ppid,stat,etimes,wchan:20,args --ppid 2 -N; journalctl -b -n 60 --no-pager
exit 1
"""
"""The job of a unit, waited for; and what went on, if it fails or does not come to an end."""

PATIENCE = 180.0
"""Seconds until what should happen has happened: an emulated guest on a busy host is slow."""


class Node:
    """The agent of one guest."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest

    def write(self, path: str, text: str) -> None:
        """A file in the guest, its directory made."""
        script = 'mkdir -p "$(dirname "$1")" && printf %s "$2" >"$1"'
        self.guest.check(["sh", "-c", script, "write", path, text])

    def install_tree(self) -> None:
        """The units of the project's tree, as the package would put them."""
        self.guest.check(
            "ln -sf $(command -v edge-agent) /usr/bin/edge-agent; cp systemd/*.service /etc/systemd/system/"
        )

    def systemctl(self, verb: str, unit: str = "edge-agent") -> None:
        """LabError with what went on when it fails or takes too long."""
        self.guest.check(["sh", "-c", SYSTEMCTL, "systemctl", *verb.split(), unit], timeout=200)

    def status(self) -> dict[str, Any]:
        """``status --json``; {} while no agent answers."""
        result = self.guest.run(["edge-agent", "status", "--json"], timeout=120)
        answer: dict[str, Any] = json.loads(result.output) if result.code == 0 else {}
        return answer

    def until(self, good: Callable[[dict[str, Any]], bool], what: str, patience: float = PATIENCE) -> dict[str, Any]:
        """The first status that is good. AssertionError with the agent's last words when none comes."""
        end = time.monotonic() + patience
        while not good(answer := self.status()):
            if time.monotonic() > end:
                journal = self.guest.run("journalctl -u edge-agent -n 40 --no-pager").output
                raise AssertionError(f"{what}: it is not so: {answer}\n{journal}")
            time.sleep(0.5)
        return answer

    def until_states(self, **states: str) -> dict[str, Any]:
        """Wait until each of these services is in its state."""

        def good(answer: dict[str, Any]) -> bool:
            services = answer.get("services", {})
            return all(services.get(name, {}).get("state") == state for name, state in states.items())

        return self.until(good, f"{states}")

    def until_ready(self, patience: float = PATIENCE) -> dict[str, Any]:
        """Wait until every service is ready, and there is one."""

        def good(answer: dict[str, Any]) -> bool:
            services = answer.get("services", {})
            return bool(services) and all(entry["state"] == "ready" for entry in services.values())

        return self.until(good, "every service is ready", patience)

    def cgroup(self, pid: int) -> str:
        """The directory of the process's cgroup."""
        return "/sys/fs/cgroup" + self.guest.check(f"cat /proc/{pid}/cgroup").strip().removeprefix("0::")

    def read(self, pid: int, file: str) -> str:
        """A file of the process's cgroup."""
        return self.guest.check(["cat", f"{self.cgroup(pid)}/{file}"]).strip()


def pids(status: dict[str, Any]) -> dict[str, int]:
    """Of the services."""
    return {name: entry["pid"] for name, entry in status.get("services", {}).items()}
