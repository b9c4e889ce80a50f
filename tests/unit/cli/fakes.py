"""An agent that answers as it is told, on the real server in a thread, for the verbs of the command line."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge_agent.codec import pack_plan, unpack_plan
from edge_agent.control import SOCKET_NAME
from edge_agent.control.connection import Request
from edge_agent.control.server import Server
from edge_agent.host.loop import READ, Loop
from edge_agent.model import Limits, Plan, Service

MIB = 1 << 20
PROFILE = """
deployment: {mode: edge, resources: {total_memory: 200MB, total_cpu: 0.5}}
services:
  first: {command: /bin/sleep 1000, resources: {memory: 10MB, cpu: 0.1}}
  second: {command: /bin/sleep 1000, depends_on: [first]}
"""
BROKEN = """
deployment: {resources: {total_memory: -1}}
services: {first: {command: /bin/sleep 1000, resuorces: {memory: 2 GiBB}}}
"""
TOO_BIG = PROFILE.replace("memory: 10MB", "memory: 9000MB")
NOW = 1_800_000_000.0


def service(**changes: Any) -> dict[str, Any]:
    """One service of a status answer."""
    enforced = {name: {"kind": "enforced", "code": ""} for name in ("memory", "cpu", "pids", "oom_group")}
    return {
        "state": "ready",
        "reason": "",
        "pid": 4242,
        "restarts": 0,
        "attempts": 0,
        "since": NOW - 90,
        "next": None,
        "down": False,
        "importance": 50,
        "essential": False,
        "memory": {"request": 10 * MIB, "limit": 20 * MIB, "used": 5 * MIB},
        "cpu": {"request": 0.1, "limit": 0.5, "used": 0.031},
        "pids": {"limit": 64, "used": 3},
        "enforcement": {**enforced, "swap": {"kind": "unset", "code": ""}, "io": {"kind": "unset", "code": ""}},
        "sandbox": {
            "no_new_privileges": {"kind": "enforced", "code": ""},
            "capabilities": {"kind": "enforced", "code": ""},
            "read_only": {"kind": "unset", "code": ""},
        },
        "last_exit": None,
        "depends_on": [],
        **changes,
    }


def status(**changes: Any) -> dict[str, Any]:
    """A status answer."""
    held = {"kind": "enforced", "code": ""}
    return {
        "profile": "edge",
        "source": "/etc/edge-agent/profiles/edge.yaml",
        "degraded": None,
        "switching": None,
        "stopping": False,
        "enforcement": "cgroup2",
        "agent": {
            "pid": os.getpid(),
            "version": "0.1.0",
            "pss_bytes": 7 * MIB,
            "rss_bytes": 12 * MIB,
            "since": NOW - 7260,
        },
        "budget": {
            "memory": {
                "total": 2048 * MIB,
                "reserve": MIB,
                "requested": 1024 * MIB,
                "used": 100 * MIB,
                "enforcement": held,
            },
            "cpu": {"total": 1.0, "reserve": 0.0, "requested": 0.85, "used": 0.1, "enforcement": held},
        },
        "services": {"storage": service(), "node": service(pid=4343)},
        **changes,
    }


def seen(**changes: Any) -> dict[str, Any]:
    """A status answer with one service."""
    return status(services={"storage": service(**changes)})


def plan(profile: str = "edge", *names: str) -> Plan:
    """A plan of sleepers."""
    services = tuple(
        Service(name, ("/bin/sleep", "60"), limits=Limits(memory_request=MIB)) for name in names or ("storage",)
    )
    return Plan(profile, f"/nowhere/{profile}.yaml", 512 * MIB, 1000, 16 * MIB, 0, services)


class FakeAgent:
    """``answers``: verb -> a result, an exception-like (code, why, fix), or a function of the request."""

    def __init__(self, run_dir: str) -> None:
        Path(run_dir).mkdir(parents=True, exist_ok=True)
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.events: list[dict[str, Any]] = []
        self.answers: dict[str, Any] = {
            "status": status(),
            "plan": {"plan": pack_plan(plan()), "committed": True},
            "start": {},
            "stop": {},
            "restart": {},
            "switch": {"text": "switched"},
            "events": self._events,
        }
        self._loop = Loop()
        self._wake, self._waker = os.pipe()
        self._loop.watch(self._wake, READ, lambda _events: self._loop.stop())
        path = f"{run_dir}/{SOCKET_NAME}"
        self._server = Server(self._loop, path, self._handle, uid=os.geteuid(), gid=None)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def event(self, kind: str, service: str, text: str) -> None:
        """Something has happened."""
        entry = {"seq": len(self.events) + 1, "time": NOW, "kind": kind, "service": service, "text": text}
        self.events.append(entry)

    def stop(self) -> None:
        """End the thread; connections close as an agent's do."""
        os.write(self._waker, b"x")
        self._thread.join(10)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        self._loop.run()
        self._server.close()
        self._loop._epoll.close()
        os.close(self._wake)
        os.close(self._waker)

    def _handle(self, request: Request) -> None:
        self.asked.append((request.verb, request.args))
        answer = self.answers.get(request.verb, ("unknown-verb", "cannot do it", ""))
        if callable(answer):
            answer = answer(request)
        if isinstance(answer, dict):
            request.reply(answer)
        elif answer is not None:
            request.fail(*answer)

    def _events(self, request: Request) -> dict[str, Any]:
        cursor = request.args["cursor"]
        if cursor < 0:
            return {"events": [], "cursor": len(self.events)}
        named = request.args["service"]
        told = [entry for entry in self.events[cursor:] if named in ("", entry["service"])]
        return {"events": told, "cursor": told[-1]["seq"] if told else cursor}


Answer = Callable[[Request], Any]


def in_turn(*answers: Any) -> Answer:
    """Each answer once, the last one for ever."""
    left = list(answers)
    return lambda _request: left.pop(0) if len(left) > 1 else left[0]


class Result:
    """What a command left."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code = code
        self.out = out
        self.err = err


Run = Callable[..., Result]


class Executed(BaseException):
    """Instead of becoming another program."""

    def __init__(self, argv: list[str]) -> None:
        self.argv = argv
        super().__init__(argv)

    def options(self) -> dict[str, str]:
        """The resident's options."""
        words = self.argv[self.argv.index("-c") + 2 :]
        return {key.removeprefix("--"): value for key, value in zip(words[::2], words[1::2], strict=True)}

    def plan(self) -> Plan:
        """What the resident would read from its descriptor, which is closed by that."""
        with os.fdopen(int(self.options()["plan-fd"]), "rb") as file:
            return unpack_plan(file.read())
