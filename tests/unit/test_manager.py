"""What the service manager is told, and what is made of its answer."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from edge_agent.host import manager
from edge_agent.host.loop import Loop

AGENT, HOME = "edge-agent.service", "edge-agent-services.service"


@pytest.mark.parametrize(
    ("path", "unit"),
    [
        ("/sys/fs/cgroup/system.slice/edge-agent-services.service", HOME),
        ("0::/system.slice/edge-agent.service/agent\n", AGENT),
        ("/user.slice/user-1.slice/user@1.service/app.slice/edge-agent.service", AGENT),
        ("/sys/fs/cgroup/system.slice/edge-agent.scope", ""),
        ("0::/\n", ""),
        ("", ""),
    ],
)
def test_the_unit_of_a_path(path: str, unit: str) -> None:
    assert manager.unit_of(path) == unit


@pytest.mark.parametrize(
    ("lines", "unit"),
    [
        ("0::/system.slice/edge-agent.service\n", AGENT),
        ("4:memory:/system.slice/other.service\n1:name=systemd:/system.slice/edge-agent.service\n0::/\n", AGENT),
        ("0::/user.slice/session-1.scope\n", ""),
    ],
)
def test_the_unit_of_this_process(tmp_path: Path, lines: str, unit: str) -> None:
    (tmp_path / "cgroup").write_text(lines)
    told = {"NOTIFY_SOCKET": "/run/systemd/notify"}
    assert manager.own_unit(told, str(tmp_path / "cgroup")) == unit
    assert manager.own_unit({}, str(tmp_path / "cgroup")) == "", "started by a person in a unit's cgroup"
    assert manager.own_unit(told, str(tmp_path / "none")) == ""


@pytest.mark.parametrize(
    ("answer", "home", "alone"),
    [
        ("process\n7 edge-agent.service restart running\n", HOME, True),
        ("control-group\n7 edge-agent.service restart running\n", HOME, True),
        ("process\n7 edge-agent.service restart running\n8 edge-agent-services.service start waiting\n", HOME, True),
        ("process\n7 edge-agent.service restart running\n8 edge-agent-services.service restart waiting\n", HOME, False),
        ("process\n7 edge-agent.service restart running\n8 edge-agent-services.service stop waiting\n", HOME, False),
        ("process\n7 edge-agent.service stop running\n", HOME, False),
        ("process\n7 edge-agent.service stop running\n8 edge-agent-services.service stop waiting\n", HOME, False),
        ("process\n7 edge-agent.service start waiting\n", HOME, False),
        ("process\n", HOME, False),
        ("", HOME, False),
        ("process\nNo jobs running.\n", HOME, False),
        ("process\n7 other.service restart running\n", HOME, False),
        ("process\n7 edge-agent.service restart running\n", "", True),
        ("process\n7 edge-agent.service restart running\n", AGENT, True),
        ("none\n7 edge-agent.service restart running\n", AGENT, True),
        ("control-group\n7 edge-agent.service restart running\n", AGENT, False),
        ("mixed\n7 edge-agent.service restart running\n", AGENT, False),
    ],
)
def test_a_restart_of_the_agent_alone(answer: str, home: str, *, alone: bool) -> None:
    assert manager.restarts_alone(answer, AGENT, home) is alone


def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str) -> bool:
    """What comes of a manager that answers by this shell script."""
    program = tmp_path / "systemctl"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    loop = Loop()
    answers: list[bool] = []
    manager.ask(loop, AGENT, HOME, answers.append)
    before = len(list(Path("/proc/self/fd").iterdir()))
    while not answers:
        loop.turn(10.0)
    assert len(list(Path("/proc/self/fd").iterdir())) < before, "its descriptors are closed"
    return answers[0]


def test_the_question_is_one_that_systemctl_understands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    words = tmp_path / "words"
    script = f'echo "$@" >>{words}\ncase $1 in show) echo process;; *) echo 7 {AGENT} restart running;; esac'
    assert asked(monkeypatch, tmp_path, script) is True
    show, jobs = words.read_text().splitlines()
    assert show == f"show --property=KillMode --value -- {AGENT}"
    assert jobs == f"list-jobs --plain --full --no-legend --no-pager -- {AGENT} {HOME}"


def test_no_answer_is_not_a_restart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    right = f"echo 7 {AGENT} restart running"
    assert asked(monkeypatch, tmp_path, "exit 1") is False
    assert asked(monkeypatch, tmp_path, f"{right}; [ $1 = show ]") is False, "the second question failed"
    monkeypatch.setattr(manager, "PATIENCE", 0.05)
    assert asked(monkeypatch, tmp_path, f"{right}; exec sleep 1000") is False
    monkeypatch.setattr(manager, "SHELL", str(tmp_path / "none"))
    answers: list[bool] = []
    manager.ask(Loop(), AGENT, HOME, answers.append)
    assert answers == [False]


@pytest.mark.parametrize("abstract", [True, False])
def test_words_reach_the_manager(tmp_path: Path, *, abstract: bool) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind("\0" + path if abstract else path)
        manager.tell("READY=1", {"NOTIFY_SOCKET": ("@" if abstract else "") + path})
        assert sock.recv(100) == b"READY=1"


@pytest.mark.parametrize("address", [None, "", "relative", "/nowhere/at/all"])
def test_without_a_manager_there_is_silence(address: str | None) -> None:
    manager.tell("READY=1", {} if address is None else {"NOTIFY_SOCKET": address})


def test_the_watchdog_is_fed_by_the_loop_twice_in_its_time(tmp_path: Path) -> None:
    now = [100.0]
    loop = Loop(lambda: now[0])
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        sock.bind(str(tmp_path / "notify"))
        words = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "120000000"}
        assert manager.watchdog(loop, words) == 60.0
        assert sock.recv(100) == b"WATCHDOG=1"
        for due in (160.0, 220.0):
            now[0] = due - 0.5
            loop.turn(0.0)
            with pytest.raises(BlockingIOError):
                sock.recv(100)
            now[0] = due
            loop.turn(0.0)
            assert sock.recv(100) == b"WATCHDOG=1"


@pytest.mark.parametrize(
    "words",
    [{}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "soon"}, {"WATCHDOG_USEC": "5000000", "WATCHDOG_PID": "1"}],
)
def test_nobody_who_expects_nothing_is_told(words: dict[str, str]) -> None:
    loop = Loop()
    assert manager.watchdog(loop, words) == 0.0
    assert loop._timeout(None) is None, "no timer, no wakeup"
