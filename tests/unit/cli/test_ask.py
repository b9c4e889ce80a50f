"""start, stop, restart: waiting for the state, refusals, time-outs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from edge_agent.cli import ask, exits

from .fakes import (
    FakeAgent,
    Run,
    in_turn,
    seen,
    service,
)


@pytest.mark.parametrize(
    ("verb", "states"),
    [
        ("start", [{"state": "off", "pid": None}, {"state": "starting"}, {"state": "ready"}]),
        ("start", [{"state": "quarantined"}, {"state": "backoff"}, {"state": "ready"}]),
        ("stop", [{"state": "ready"}, {"state": "stopping"}, {"state": "killing"}, {"state": "off", "pid": None}]),
        (
            "restart",
            [{"pid": 1}, {"pid": 1}, {"state": "stopping", "pid": 1}, {"state": "starting", "pid": 2}, {"pid": 2}],
        ),
    ],
)
def test_verbs_wait_until_the_state_is_reached(
    run: Run, agent: FakeAgent, verb: str, states: list[dict[str, Any]]
) -> None:
    agent.answers["status"] = in_turn(*(seen(**state) for state in states))
    result = run(verb, "storage")
    assert result.code == 0
    assert result.out.startswith(f"storage is {states[-1].get('state', 'ready')}")
    assert (verb, {"name": "storage"}) in agent.asked


def test_a_start_that_ends_in_quarantine_fails(run: Run, agent: FakeAgent) -> None:
    states = [{"state": "off"}, {"state": "starting"}, {"state": "quarantined", "reason": "5 failures"}]
    agent.answers["status"] = in_turn(*(seen(**state) for state in states))
    result = run("start", "storage")
    assert result.code == exits.FAILED
    assert "quarantined (5 failures)" in result.err
    assert "edge-agent why storage" in result.err


def test_a_state_not_reached_in_time_is_exit_code_8(run: Run, agent: FakeAgent) -> None:
    agent.answers["status"] = seen(state="starting")
    result = run("start", "storage", "--timeout", "0.01")
    assert result.code == exits.TIMEOUT
    assert "starting after 0.01 s" in result.err


def test_no_wait_and_json(run: Run, agent: FakeAgent) -> None:
    agent.answers["status"] = seen(state="starting")
    result = run("restart", "storage", "--no-wait", "--json")
    assert result.code == 0
    assert json.loads(result.out)["storage"]["state"] == "starting"


@pytest.mark.parametrize(
    ("code", "expected"),
    [("refused", 1), ("denied", 6), ("permission", 6), ("busy", 7), ("unknown", 1), ("something-new", 1)],
)
def test_the_agents_refusals_have_exit_codes(run: Run, agent: FakeAgent, code: str, expected: int) -> None:
    agent.answers["start"] = (code, "cannot start storage: no room", "stop node")
    result = run("start", "storage")
    assert result.code == expected
    assert result.err == "edge-agent: cannot start storage: no room; fix: stop node\n"


def test_reached_by_verb() -> None:
    before = service(pid=1)
    assert not ask.reached("restart", before, service(pid=1))
    assert ask.reached("restart", before, service(pid=2))
    assert ask.reached("restart", service(pid=None, state="off"), service(pid=2))
    assert not ask.reached("stop", before, service(state="killing"))
    assert ask.reached("start", before, service(state="completed", pid=None))
