"""The command line: what is understood, refused, documented."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from edge_agent import __version__
from edge_agent.cli import exits
from edge_agent.cli.parsing import VERBS

from .fakes import (
    FakeAgent,
    Run,
)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["statsu"], "did you mean 'status'?"),
        (["qqq"], "see `edge-agent help`"),
        (["status", "--jsno"], "did you mean '--json'?"),
        (["--profil", "edge"], "did you mean '--profile'?"),
        (["--profile"], "expected one argument"),
        (["--profile", "a", "--config", "b"], "not allowed with"),
        (["start"], "SERVICE"),
        (["start", "a", "--timeout", "nan"], "time-out"),
        (["start", "a", "--timeout", "-1"], "time-out"),
        (["start", "a", "b"], "'b' is not expected"),
        (["logs", "a", "-n", "-5"], "-n"),
        (["--enforcement", "maybe"], "invalid choice"),
        (["service"], "--name"),
        (["help", "statsu"], "did you mean 'status'?"),
    ],
)
def test_wrong_words_are_exit_code_2(run: Run, words: list[str], expected: str) -> None:
    result = run(*words)
    assert result.code == exits.USAGE
    assert expected in result.err
    assert re.match(r"edge-agent: cannot [^\n]+; fix: [^\n]+\n$", result.err)
    assert result.out == ""


def test_version_and_help(run: Run) -> None:
    assert run("--version").out == f"edge-agent {__version__}\n"
    for words in (["--help"], ["help"]):
        result = run(*words)
        assert result.code == 0
        assert all(verb in result.out for verb in VERBS if verb != "orchestrator")
    for verb in VERBS:
        assert run("help", verb).code == 0
        assert run("help", verb).out == run(verb, "--help").out


def test_every_exit_code_is_documented_once(run: Run) -> None:
    codes = {value for name, value in vars(exits).items() if name.isupper() and isinstance(value, int)}
    assert codes == set(exits.MEANING)
    assert set(exits.BY_CODE.values()) < codes
    shown = run("help", "exits").out
    assert all(f"{code:<4} {meaning}" in shown for code, meaning in exits.MEANING.items())


@pytest.mark.parametrize(
    "words",
    [["status"], ["why", "a"], ["events"], ["logs", "a"], ["start", "a"], ["reload"], ["shutdown"], ["switch", "edge"]],
)
def test_without_an_agent_it_is_exit_code_3(run: Run, home: Path, words: list[str]) -> None:
    result = run(*words)
    assert result.code == exits.NO_AGENT
    assert str(home / "run") in result.err
    assert "; fix: " in result.err


def test_options_may_stand_before_the_verb(
    run: Run, agent: FakeAgent, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGE_AGENT_RUN_DIR", "/nonexistent")
    assert run("--run-dir", str(home / "run"), "--json", "status").code == 0
    assert run("status").code == exits.NO_AGENT
    assert [verb for verb, _args in agent.asked] == ["status"]
