"""plan and switch: compiled in front, handed over, followed; bad profiles change nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edge_agent.cli import exits
from edge_agent.codec import unpack_plan
from edge_agent.control.connection import Request

from .fakes import (
    BROKEN,
    TOO_BIG,
    FakeAgent,
    Run,
)


def test_plan_shows_and_changes_nothing(run: Run, profile: Path, home: Path) -> None:
    result = run("plan", "--config", str(profile))
    assert result.code == 0
    assert "first" in result.out
    shown = json.loads(run("plan", "--config", str(profile), "--json").out)
    assert list(shown["services"]) == ["first", "second"]
    assert shown["changes"] is None
    assert list((home / "data").iterdir()) == list((home / "run").iterdir()) == []


def test_plan_shows_the_difference_to_what_runs(run: Run, profile: Path, agent: FakeAgent) -> None:
    shown = json.loads(run("plan", "--config", str(profile), "--json").out)
    assert [(change["name"], change["change"]) for change in shown["changes"]] == [
        ("storage", "stop"),
        ("first", "start"),
        ("second", "start"),
    ]
    assert "against the running profile edge" in run("plan", "--config", str(profile)).out
    assert {verb for verb, _args in agent.asked} == {"plan", "status"}


@pytest.mark.parametrize("verb", [["plan"], [], ["switch"], ["compile", "--output", "out"]])
@pytest.mark.parametrize(
    ("text", "code", "expected"),
    [
        (BROKEN, exits.CONFIGURATION, ["total_memory", "did you mean 'resources'?"]),
        ("services: [", exits.CONFIGURATION, ["p.yaml"]),
        (TOO_BIG, exits.BUDGET, ["first"]),
    ],
)
def test_bad_profiles_change_nothing(
    run: Run, agent: FakeAgent, profile: Path, verb: list[str], text: str, code: int, expected: list[str]
) -> None:
    profile.write_text(text)
    result = run(*verb, "--config", str(profile))
    assert result.code == code
    assert all(word in result.err for word in expected)
    assert all(line.startswith("edge-agent: ") for line in result.err.splitlines())
    assert {asked for asked, _args in agent.asked} <= {"status", "plan"}


def test_nothing_chosen_says_what_to_give(run: Run) -> None:
    result = run()
    assert result.code == exits.CONFIGURATION
    assert "--profile NAME" in result.err


def test_a_switch_is_handed_over_and_followed(run: Run, profile: Path, agent: FakeAgent) -> None:
    def switch(request: Request) -> dict[str, Any]:
        assert [s.name for s in unpack_plan(request.args["plan"]).services] == ["first", "second"]
        return {"text": "switched from edge to p"}

    agent.answers["switch"] = switch
    result = run("--config", str(profile))
    assert result.code == 0
    assert result.out.splitlines()[0].startswith("profile edge -> p")
    assert "stop     storage" in result.out
    assert result.out.endswith("switched from edge to p\n")
    assert json.loads(run("--config", str(profile), "--json").out) == {
        "committed": True,
        "text": "switched from edge to p",
    }


def test_events_are_shown_while_a_switch_goes_on(run: Run, profile: Path, agent: FakeAgent) -> None:
    held: list[Request] = []
    agent.answers["switch"] = lambda request: held.append(request)
    plain = agent.answers["events"]

    def events(request: Request) -> Any:
        if request.args["wait"] == 0:
            return plain(request)
        if not agent.events:
            agent.event("stopped", "storage", "exited with code 0")
            return plain(request)
        held[0].reply({"text": "done"})
        return None

    agent.answers["events"] = events
    result = run("switch", "--config", str(profile))
    assert result.code == 0
    assert "stopped storage: exited with code 0\ndone\n" in result.out


@pytest.mark.parametrize(("code", "expected"), [("refused", 1), ("rolled-back", 1), ("busy", 7), ("denied", 6)])
def test_a_switch_that_is_not_committed_is_not_exit_code_0(
    run: Run, profile: Path, agent: FakeAgent, code: str, expected: int
) -> None:
    agent.answers["switch"] = (code, "storage was not ready in 60 s", "see `edge-agent why storage`")
    result = run("--config", str(profile))
    assert result.code == expected
    assert "storage was not ready" in result.err
    shown = run("switch", "--config", str(profile), "--json")
    assert (shown.code, json.loads(shown.out)["code"]) == (expected, code)


def test_two_profiles_for_a_switch_are_one_too_many(run: Run, agent: FakeAgent) -> None:
    assert run("switch", "edge", "--profile", "minimal").code == exits.USAGE
    assert agent.asked == []
