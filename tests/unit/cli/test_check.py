"""check, and the scope that is asked of systemd."""

from __future__ import annotations

import json

import pytest

from edge_agent.cli import check, exits, scope
from edge_agent.demand import Facts

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
