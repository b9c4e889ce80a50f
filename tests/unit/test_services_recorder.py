"""The recorder and an agent of the test: what becomes an entry, and what happens when the agent is away."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import pytest

from edge_agent.control.client import AgentError, NotRunningError
from edge_agent.services import recorder
from edge_agent.services.recorder import FIRST, LAST, WAIT, Recorder


class Agent:
    """An agent, its events, and the one client that it may have."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.plan, self.profile, self.committed = b"plan one", "edge", True
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.up = True
        self.waiting = False
        self.answers: list[dict[str, Any]] = []  # to what has waited

    def happened(self, kind: str, text: str = "", *, kept: bool = True, service: str = "") -> None:
        seq = len(self.events) + 1
        event = {"seq": seq, "time": 1.7e9 + seq, "kind": kind, "service": service, "text": text, "kept": kept}
        self.events.append(event)
        if self.waiting:
            self.answers.append({"events": [event], "cursor": seq})
            self.waiting = False

    def answer(self, verb: str, args: dict[str, Any]) -> dict[str, Any]:
        self.asked.append((verb, args))
        if not self.up:
            raise AgentError("gone", "the agent closed the connection")
        if verb == "events":
            found = [each for each in self.events if each["seq"] > args["cursor"]][:2]
            return {"events": found, "cursor": found[-1]["seq"] if found else args["cursor"]}
        if verb == "digest":
            return {"sha256": sha256(self.plan).digest(), "committed": self.committed}
        return {"profile": self.profile}


class FakeClient:
    """``control.client.Client`` of that agent."""

    agent: Agent

    def __init__(self, path: str, _timeout: float) -> None:
        if not self.agent.up:
            raise NotRunningError(path)

    def call(self, verb: str, args: dict[str, Any], _timeout: float) -> dict[str, Any]:
        return self.agent.answer(verb, args)

    def begin(self, verb: str, args: dict[str, Any], _timeout: float) -> int:
        found = self.agent.answer(verb, args)
        assert not found["events"], "taken before"
        self.agent.waiting = True
        return 1

    def wait(self, _seconds: float) -> bool:
        if not self.agent.up:
            raise AgentError("gone", "the agent closed the connection")
        return bool(self.agent.answers)

    def next(self, _timeout: float) -> tuple[int, dict[str, Any], None]:
        return 1, self.agent.answers.pop(0), None

    def fileno(self) -> int:
        return 7

    def close(self) -> None:
        self.agent.waiting = False


class Rig:
    """A recorder, its agent and its log."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.agent = FakeClient.agent = Agent()
        monkeypatch.setattr(recorder, "Client", FakeClient)
        self.entries: list[dict[str, Any]] = []
        self.raw: list[bytes] = []
        self.full = False
        self.watched: dict[int, Callable[[], None]] = {}
        self.recorder = Recorder("/run/control", self._append, self.watched.__setitem__, self.watched.__delitem__)

    def _append(self, entry: bytes) -> bool:
        if self.full:
            return False
        if entry not in self.raw:
            self.raw.append(entry)
            self.entries.append(json.loads(entry))
        return True

    def readable(self) -> None:
        (call,) = self.watched.values()
        call()

    def told(self) -> list[str]:
        return [str(each.get("text", each.get("name"))) for each in self.entries]


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Rig:
    return Rig(monkeypatch)


def test_what_was_kept_and_the_plan_are_recorded(rig: Rig) -> None:
    rig.agent.happened("switched", "to edge")
    rig.agent.happened("ready", "not worth a write", kept=False, service="web")
    rig.agent.happened("oom", "killed", service="web")
    rig.recorder.tick(0.0)
    assert rig.told() == ["to edge", "killed", "edge"]
    assert rig.entries[1] == {
        "edge-agent": "event", "seq": 3, "time": 1.7e9 + 3, "kind": "oom", "service": "web", "text": "killed",
    }  # fmt: skip
    assert rig.entries[2]["sha256"] == sha256(b"plan one").hexdigest()
    assert (rig.entries[2]["seq"], rig.entries[2]["time"]) == (1, 1.7e9 + 1)
    assert rig.raw[1] == json.dumps(rig.entries[1], sort_keys=True, separators=(",", ":")).encode()
    assert rig.recorder.due == math.inf, "the agent wakes it up"
    assert rig.agent.asked[-1] == ("events", {"cursor": 3, "wait": WAIT})


def test_what_happens_later_is_recorded_when_it_happens(rig: Rig) -> None:
    rig.recorder.tick(0.0)
    assert rig.told() == ["edge"]
    rig.agent.happened("oom", "killed", service="web")
    rig.readable()
    assert rig.told() == ["edge", "killed"]
    rig.agent.plan, rig.agent.profile = b"plan two", "minimal"
    rig.agent.happened("switched", "to minimal")
    rig.readable()
    assert rig.told() == ["edge", "killed", "to minimal", "minimal"]
    assert rig.entries[3]["sha256"] != rig.entries[0]["sha256"]


def test_a_plan_is_recorded_once_it_is_committed(rig: Rig) -> None:
    rig.agent.committed = False
    rig.recorder.tick(0.0)
    assert rig.told() == []
    rig.agent.committed = True
    rig.agent.happened("switched", "to edge")
    rig.readable()
    assert rig.told() == ["to edge", "edge"]


def test_a_new_agent_is_asked_from_the_beginning_and_nothing_is_recorded_twice(rig: Rig) -> None:
    rig.agent.happened("switched", "to edge")
    rig.recorder.tick(0.0)
    before = list(rig.raw)
    rig.agent.up = False
    rig.readable()
    assert rig.recorder.due == 0.0
    assert not rig.watched
    rig.recorder.tick(10.0)
    assert rig.recorder.due == 10.0 + FIRST
    rig.agent.up = True
    rig.agent.happened("oom", "killed meanwhile")
    rig.recorder.tick(10.0 + FIRST)
    assert rig.raw[: len(before)] == before
    assert rig.told() == ["to edge", "edge", "killed meanwhile"]


def test_without_an_agent_it_asks_more_and_more_rarely(rig: Rig) -> None:
    rig.agent.up = False
    now, pauses = 0.0, []
    for _ in range(10):
        rig.recorder.tick(now)
        pauses.append(rig.recorder.due - now)
        now = rig.recorder.due
    assert pauses[:3] == [FIRST, 2 * FIRST, 4 * FIRST]
    assert pauses[-1] == LAST
    rig.agent.up = True


def test_a_log_that_takes_nothing_now_is_given_it_later(rig: Rig) -> None:
    rig.agent.happened("oom", "killed")
    rig.full = True
    rig.recorder.tick(0.0)
    assert rig.told() == []
    assert rig.recorder.due == FIRST
    rig.full = False
    rig.recorder.tick(FIRST)
    assert rig.told() == ["killed", "edge"]
    rig.full = True
    rig.agent.happened("oom", "again")
    rig.readable()
    assert rig.recorder.due == 0.0
    rig.full = False
    rig.recorder.tick(1.0)
    assert rig.told() == ["killed", "edge", "again"]


def test_what_the_log_has_lost_is_given_again(rig: Rig) -> None:
    rig.agent.happened("oom", "killed")
    rig.recorder.tick(0.0)
    rig.raw.clear()
    rig.recorder.again(60.0)
    assert (rig.recorder.due, rig.watched) == (60.0, {})
    rig.agent.up = True
    rig.recorder.tick(60.0)
    assert [json.loads(each).get("text", "plan") for each in rig.raw] == ["killed"]
