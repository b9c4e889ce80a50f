"""check, and the scope that is asked of systemd."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_agent.cli import check, exits, scope
from edge_agent.cli.context import Context
from edge_agent.demand import Facts
from edge_agent.profile.directories import find

from .fakes import (
    Run,
)

FACTS = Facts(
    memory=1 << 30,
    cpus=2,
    cgroup="unified",
    controllers=("cpu", "io", "memory", "pids"),
    delegated=True,
    cgroup_path="/sys/fs/cgroup/x",
    swap=1 << 20,
    io_device="8:0",
    io_weight=True,
    systemd=True,
)


def test_check_is_0_only_when_all_is_enforced(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from edge_agent.cli import compiling

    monkeypatch.setattr(compiling, "look", lambda _context, _agent: FACTS)
    result = run("check")
    assert (result.code, "fix:" in result.out.partition("\n\n")[2]) == (0, False)
    monkeypatch.setattr(compiling, "look", lambda _context, _agent: FACTS._replace(delegated=False))
    result = run("check")
    assert result.code == exits.FAILED
    assert "Delegate=yes" in result.out
    shown = json.loads(run("check", "--json").out)
    assert (shown["complete"], shown["resources"]["memory"]["kind"]) == (False, "sampled")
    assert run("check", "--enforcement", "none").code == exits.FAILED


def test_check_tells_whether_services_can_have_sandboxes(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from edge_agent.cli import compiling

    for obstacle, said in (("", r"^sandboxes +yes$"), ("no-admin", r"^sandboxes +without .*CAP_SYS_ADMIN.*; fix: ")):
        facts = FACTS._replace(sandbox_obstacle=obstacle)
        monkeypatch.setattr(compiling, "look", lambda _context, _agent, facts=facts: facts)
        assert re.search(said, run("check").out, re.M)


def test_check_judges_every_resource() -> None:
    assert set(check.judge(FACTS, "auto")) == {"memory", "swap", "cpu", "pids", "io", "oom_group"}


def test_a_scope_is_wanted_only_where_it_helps() -> None:
    free = FACTS._replace(delegated=False)
    wanted = {
        "plain": scope.wanted(free, "auto"),
        "delegated": scope.wanted(FACTS, "auto"),
        "no systemd": scope.wanted(free._replace(systemd=False), "auto"),
        "hybrid": scope.wanted(free._replace(cgroup="hybrid"), "auto"),
        "sampling": scope.wanted(free, "sampling"),
    }
    assert [name for name, answer in wanted.items() if answer] == ["plain"]


BUSCTL = """#!/bin/sh
echo "$@" >> {log}
case "$*" in {cases} esac
"""


@pytest.fixture
def busctl(home: Path) -> Callable[[str], tuple[Context, Path]]:
    """A busctl of our own: a context whose PATH holds it, and the file of what it was asked."""

    def make(cases: str) -> tuple[Context, Path]:
        log = home / "asked"
        program = home / "bin" / scope.BUSCTL
        program.parent.mkdir()
        program.write_text(BUSCTL.format(log=log, cases=cases))
        program.chmod(0o755)
        (home / "cgroup").write_text("0::/user.slice")
        environ = {"PATH": str(program.parent), "EDGE_AGENT_RUN_DIR": "/run/edge-agent"}
        return Context("orchestrator", environ, find(environ, 0)), log

    return make


def test_a_scope_is_asked_for_with_delegation(home: Path, busctl: Callable[[str], tuple[Context, Path]]) -> None:
    own = home / "cgroup"
    context, log = busctl(f"*StartTransientUnit*) echo moved > {own};;")
    assert scope.enter(context, own=str(own)) == ""
    asked = log.read_text()
    assert "edge-agent.scope fail 3 Description s edge-agent with /run/edge-agent Delegate b true" in asked
    assert asked.endswith(f"PIDs au 1 {os.getpid()} 0\n")


def test_a_scope_that_is_there_is_joined(home: Path, busctl: Callable[[str], tuple[Context, Path]]) -> None:
    own = home / "cgroup"
    context, log = busctl(f"*StartTransientUnit*) exit 1;; *AttachProcessesToUnit*) echo moved > {own};;")
    assert scope.enter(context, own=str(own)) == ""
    assert f"AttachProcessesToUnit ssau edge-agent.scope /agent 1 {os.getpid()}" in log.read_text()


@pytest.mark.parametrize(
    ("cases", "why"),
    [
        ("*Start*) echo 'Access denied' >&2; exit 1;; *) echo 'no such unit' >&2; exit 1;;", "Access denied"),
        ("*) exit 3;;", "busctl exited with 3"),
        ("*) exit 0;;", "systemd has not started edge-agent.scope"),
    ],
)
def test_why_there_is_no_scope(home: Path, busctl: Callable[[str], tuple[Context, Path]], cases: str, why: str) -> None:
    context, _log = busctl(cases)
    assert why in scope.enter(context, own=str(home / "cgroup"), patience=0.02)


def test_without_busctl_it_is_said(home: Path) -> None:
    assert home.exists()
    context = Context("orchestrator", {"PATH": "/nonexistent"}, find({}, 0))
    assert scope.enter(context) == "busctl is not installed"


def test_every_run_directory_has_its_scope() -> None:
    names = {scope.unit_name(path) for path in ("/run/edge-agent", "/run/user/7/edge-agent", "/tmp/a")}
    assert len(names) == 3
    assert "edge-agent.scope" in names


@pytest.fixture
def hierarchy(tmp_path: Path) -> str:
    """A unified hierarchy: what the system's manager has, and what user 7's."""
    for path, controllers in {"": "cpuset cpu io memory pids", USER: "memory pids"}.items():
        (tmp_path / "cgroup" / path).mkdir(parents=True, exist_ok=True)
        (tmp_path / "cgroup" / path / "cgroup.controllers").write_text(controllers + "\n")
    return str(tmp_path / "cgroup")


USER = "user.slice/user-7.slice/user@7.service"
SHELL = FACTS._replace(delegated=False, controllers=("memory", "pids"), cgroup_path="/sys/fs/cgroup/session-1.scope")


def test_a_scope_has_the_controllers_of_its_manager(hierarchy: str) -> None:
    of_root, of_user, of_nobody = (scope.granted(SHELL, root=hierarchy, uid=uid) for uid in (0, 7, 8))
    assert (of_root.delegated, of_root.controllers) == (True, ("cpuset", "cpu", "io", "memory", "pids"))
    assert (of_user.delegated, of_user.controllers) == (True, ("memory", "pids"))
    assert of_nobody == SHELL


@pytest.fixture
def shell(run: Run, hierarchy: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Commands of a root shell under systemd: nothing is delegated, and a scope would be."""
    from edge_agent.cli import compiling

    monkeypatch.setattr(compiling, "look", lambda _context, _agent: SHELL)
    monkeypatch.setattr(scope, "wanted", WANTED)
    monkeypatch.setattr(scope, "granted", lambda facts: GRANTED(facts, root=hierarchy, uid=0))
    return run


WANTED, GRANTED = scope.wanted, scope.granted


@pytest.mark.parametrize("enforcement", ["auto", "cgroup2"])
def test_a_plan_is_made_for_the_scope_that_a_start_would_get(shell: Run, profile: Path, enforcement: str) -> None:
    words = ("--config", str(profile), "--enforcement", enforcement)
    shown = shell("plan", *words)
    assert (shown.code, shown.err) == (0, "")
    assert "not-delegated" not in shown.out
    assert "not enforced" not in shown.out
    assert "first asks systemd for the delegated cgroup that this assumes" in shown.out
    assert shell("compile", *words, "--output", str(profile.parent / "plan")).code == 0


def test_a_plan_that_shall_not_use_cgroups_says_nothing_of_a_scope(shell: Run, profile: Path) -> None:
    shown = shell("plan", "--config", str(profile), "--enforcement", "sampling")
    assert (shown.code, "systemd" in shown.out) == (0, False)
