"""Fixtures: directories of their own, a command to run, an agent that answers as told."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.cli import scope
from edge_agent.cli.main import main

from .fakes import (
    PROFILE,
    Executed,
    FakeAgent,
    Result,
    Run,
)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Directories of their own, and no variables of the machine's."""
    for name in list(os.environ):
        if name.startswith(("EDGE_AGENT_", "BLACKHOLE_")):
            monkeypatch.delenv(name)
    for name in ("RUN", "DATA", "LOG", "CONFIG"):
        (tmp_path / name.lower()).mkdir()
        monkeypatch.setenv(f"EDGE_AGENT_{name}_DIR", str(tmp_path / name.lower()))
    monkeypatch.setattr(scope, "wanted", lambda *_: False)
    return tmp_path


@pytest.fixture
def run(home: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> Run:
    assert home.exists()

    def call(*words: str) -> Result:
        code = main(words)
        out, err = capfdbinary.readouterr()
        return Result(code, out.decode("utf-8", "replace"), err.decode())

    return call


@pytest.fixture
def agent(home: Path) -> Iterator[FakeAgent]:
    made = FakeAgent(str(home / "run"))
    yield made
    made.stop()


@pytest.fixture
def profile(home: Path) -> Path:
    path = home / "p.yaml"
    path.write_text(PROFILE)
    return path


@pytest.fixture
def execute(monkeypatch: pytest.MonkeyPatch) -> None:
    def execv(_path: str, argv: list[str], _env: object = None) -> None:
        raise Executed(argv)

    monkeypatch.setattr(os, "execv", execv)
    monkeypatch.setattr(os, "execve", execv)
