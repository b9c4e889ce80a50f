"""The shipped units in a guest: put there, driven, looked at."""

from __future__ import annotations

import json
import time
from typing import Any

from .lab import Guest

SERVICES = "/sys/fs/cgroup/system.slice/edge-agent-services.service/services"


def install(guest: Guest, **profiles: str) -> None:
    """The units, and profiles by name; ``config`` is the one that runs when nothing else is chosen."""
    guest.check("mkdir -p /etc/edge-agent/profiles")
    for name, text in profiles.items():
        write(guest, f"/etc/edge-agent/{'' if name == 'config' else 'profiles/'}{name}.yaml", text)
    guest.check("ln -sf $(command -v edge-agent) /usr/bin/edge-agent")
    guest.check("cp systemd/*.service /etc/systemd/system/ && systemctl daemon-reload")


def write(guest: Guest, path: str, text: str) -> None:
    """A file with this content."""
    guest.check(["sh", "-c", 'printf %s "$1" >"$2"', "write", text, path])


def status(guest: Guest) -> dict[str, Any]:
    """What the agent says; {} when none answers."""
    result = guest.run(["edge-agent", "status", "--json"], timeout=60)
    answer: dict[str, Any] = json.loads(result.output) if result.code == 0 else {}
    return answer


def until_state(guest: Guest, name: str, state: str) -> dict[str, Any]:
    """The status in which the service is in this state."""
    end = time.monotonic() + 120
    while True:
        answer = status(guest)
        if answer.get("services", {}).get(name, {}).get("state") == state:
            return answer
        assert time.monotonic() < end, f"{name} is not {state}: {answer}\n{journal(guest)}"
        time.sleep(1)


def agent(guest: Guest) -> int:
    """The pid of the agent that is up, 0: there is none."""
    shown = guest.check("systemctl show --property=MainPID,ActiveState edge-agent").split()
    fields = dict(line.split("=") for line in shown)
    return int(fields["MainPID"]) if fields["ActiveState"] == "active" else 0


def until_other_agent(guest: Guest, pid: int) -> int:
    """The pid of the one after ``pid``, once it is up."""
    end = time.monotonic() + 120
    while (now := agent(guest)) in (0, pid):
        assert time.monotonic() < end, journal(guest)
        time.sleep(0.2)
    return now


def journal(guest: Guest) -> str:
    """What systemd and the agent said last."""
    return guest.check("journalctl -u edge-agent -u edge-agent-services -n 60 --no-pager")


def processes(guest: Guest) -> dict[str, list[int]]:
    """Every process of every service, by its cgroup."""
    found = guest.check(f"cd {SERVICES} 2>/dev/null && grep -H . */cgroup.procs || true")
    pids: dict[str, list[int]] = {}
    for line in found.splitlines():
        path, _, pid = line.partition(":")
        pids.setdefault(path.partition("/")[0], []).append(int(pid))
    return pids
