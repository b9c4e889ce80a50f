"""What only a process shows: imports, a broken pipe, Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from edge_agent.cli import exits
from edge_agent.control.connection import Request

from .fakes import (
    FakeAgent,
    Run,
    in_turn,
    seen,
    status,
)


def python(home: Path, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "EDGE_AGENT_RUN_DIR": str(home / "run")}
    return subprocess.run(
        [sys.executable, *words], env=environment, text=True, capture_output=True, timeout=60, check=False, **options
    )


@pytest.mark.parametrize(
    "words", [["status"], ["events"], ["logs", "storage"], ["stop", "storage"], ["why", "storage"]]
)
def test_everyday_verbs_import_nothing_heavy(home: Path, agent: FakeAgent, words: list[str]) -> None:
    agent.answers["logs"] = {"data": b"", "cursor": 0}
    agent.answers["status"] = in_turn(status(), seen(state="off"))
    code = (
        f"import sys; from edge_agent.cli.main import main; code = main({words!r}); "
        "print(sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr); sys.exit(code)"
    )
    done = python(home, "-c", code)
    assert done.returncode == 0
    loaded = set(eval(done.stderr))  # noqa: S307 - a list of names that our own child printed
    assert not loaded & {
        "pydantic",
        "pydantic_settings",
        "yaml",
        "loguru",
        "psutil",
        "asyncio",
        "zmq",
        "subprocess",
        "logging",
    }


def test_a_reader_that_goes_away_is_no_traceback(home: Path, agent: FakeAgent) -> None:
    for number in range(2000):
        agent.event("ready", "storage", f"event {number} " + "x" * 100)
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "edge_agent", "events"],
        env={**os.environ, "EDGE_AGENT_RUN_DIR": str(home / "run")},
        stdout=write,
        stderr=subprocess.PIPE,
        timeout=60,
        check=False,
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (exits.BROKEN_PIPE, b"")


def test_ctrl_c_is_clean(run: Run, agent: FakeAgent) -> None:
    def interrupt(_request: Request) -> None:
        # To the command's thread: sent to the process, it might interrupt only this one. And while it waits: a signal
        # that comes between Python's look for signals and its system call is seen when that returns, as in any program.
        main = threading.main_thread().ident or 0
        threading.Timer(0.3, signal.pthread_kill, (main, signal.SIGINT)).start()

    agent.answers["status"] = interrupt
    result = run("status")
    assert (result.code, result.err) == (exits.INTERRUPTED, "")
