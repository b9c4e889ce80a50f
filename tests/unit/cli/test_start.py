"""Becoming the resident, and what a boot does with a broken profile."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edge_agent.cli import compiling, exits
from edge_agent.codec import pack_plan, unpack_plan

from .fakes import (
    BROKEN,
    PROFILE,
    TOO_BIG,
    Executed,
    FakeAgent,
    Run,
    plan,
)


@pytest.mark.usefixtures("execute")
def test_without_an_agent_the_resident_is_executed(run: Run, profile: Path, home: Path) -> None:
    with pytest.raises(Executed) as caught:
        run("--config", str(profile), "--enforcement", "sampling", "--control-group", "0")
    argv, options = caught.value.argv, caught.value.options()
    assert argv[:4] == [sys.executable, "-I", "-S", "-c"]
    options.pop("io-device", "")
    assert os.get_inheritable(int(options.pop("plan-fd")))
    assert [s.name for s in caught.value.plan().services] == ["first", "second"]
    assert options == {
        "run-dir": str(home / "run"),
        "data-dir": str(home / "data"),
        "log-dir": str(home / "log"),
        "enforcement": "sampling",
        "control-gid": "0",
    }


def test_the_boot_line_finds_the_libraries_without_site(home: Path) -> None:
    assert home.exists()
    from edge_agent.cli import resident

    argv = resident.command([])
    check_ = argv[4].split("; from ")[0] + "; import msgpack, cgroupspy.interfaces, edge_agent.model, edge_agent.codec"
    subprocess.run([*argv[:4], check_], check=True, cwd="/")


@pytest.mark.usefixtures("execute")
@pytest.mark.parametrize("text", [BROKEN, TOO_BIG, None])
def test_a_broken_profile_at_boot_runs_the_last_known_good_plan(
    run: Run,
    profile: Path,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    text: str | None,
) -> None:
    good = plan("p", "kept")._replace(source=str(profile))
    (home / "data" / "plan").write_bytes(pack_plan(good))
    profile.unlink() if text is None else profile.write_text(text)
    for variables in ({}, {"EDGE_AGENT_CONFIG": str(profile)}, {"BLACKHOLE_CONFIG": str(profile)}):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(Executed) as caught:
            run()
        options = caught.value.options()
        assert caught.value.plan() == good
        assert str(profile) in options["degraded"]
    typed = run("--config", str(profile))
    assert typed.code in (exits.CONFIGURATION, exits.BUDGET)


@pytest.mark.usefixtures("execute")
def test_our_own_mistake_at_boot_does_not_keep_a_device_dark(
    run: Run, profile: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compile_selection(*_: object) -> None:
        raise ZeroDivisionError("of all things")

    monkeypatch.setattr(compiling, "compile_selection", compile_selection)
    good = plan("p", "kept")._replace(source=str(profile))
    (home / "data" / "plan").write_bytes(pack_plan(good))
    with pytest.raises(Executed) as caught:
        run()
    assert caught.value.plan() == good
    assert "ZeroDivisionError: of all things" in caught.value.options()["degraded"]
    with pytest.raises(ZeroDivisionError):
        run("--config", str(profile))


def test_a_broken_profile_at_boot_without_a_plan_is_an_error(
    run: Run, profile: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile.write_text(BROKEN)
    monkeypatch.setenv("EDGE_AGENT_CONFIG", str(profile))
    assert run().code == exits.CONFIGURATION


@pytest.mark.usefixtures("execute")
def test_the_last_choice_is_compiled_anew(run: Run, profile: Path, home: Path) -> None:
    old = plan("p", "gone")._replace(source=str(profile))
    (home / "data" / "plan").write_bytes(pack_plan(old))
    with pytest.raises(Executed) as caught:
        run()
    assert [s.name for s in caught.value.plan().services] == ["first", "second"]
    assert "degraded" not in caught.value.options()


@pytest.mark.usefixtures("execute")
def test_a_torn_choice_is_no_choice(run: Run, home: Path) -> None:
    (home / "data" / "plan").write_bytes(pack_plan(plan())[:-3])
    assert run().code == exits.CONFIGURATION
    (home / "config" / "config.yaml").write_text(PROFILE)
    with pytest.raises(Executed):
        run()


@pytest.mark.usefixtures("execute")
def test_an_unknown_control_group(run: Run, profile: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = run("--config", str(profile), "--control-group", "no-such-group-here")
    assert result.code == exits.CONFIGURATION
    assert "addgroup" in result.err
    monkeypatch.setenv("EDGE_AGENT_CONTROL_GROUP", "no-such-group-here")
    with pytest.raises(Executed) as caught:  # at boot the services matter more
        run("--config", str(profile))
    assert "control-gid" not in caught.value.options()


@pytest.mark.usefixtures("execute")
def test_a_bad_plan_file_is_an_error_even_with_a_last_known_good_plan(run: Run, home: Path) -> None:
    (home / "data" / "plan").write_bytes(pack_plan(plan()))
    (home / "a.plan").write_bytes(b"torn")
    result = run("--verbose", "--plan", str(home / "a.plan"))
    assert result.code == exits.CONFIGURATION
    assert "the plan is not usable" in result.err


@pytest.mark.usefixtures("execute")
def test_compile_and_start_from_the_plan(run: Run, profile: Path, home: Path) -> None:
    target = home / "a.plan"
    assert run("compile", "--config", str(profile), "--output", str(target)).code == 0
    assert target.stat().st_mode & 0o777 == 0o600
    assert [s.name for s in unpack_plan(target.read_bytes()).services] == ["first", "second"]
    with pytest.raises(Executed) as caught:
        run("--plan", str(target))
    given = caught.value.options().get("plan")
    if given is None:  # the long way, taken where systemd could give a cgroup
        assert pack_plan(caught.value.plan()) == target.read_bytes()
    else:
        assert given == str(target)


def test_a_plan_file_switches_a_running_agent(run: Run, home: Path, agent: FakeAgent) -> None:
    (home / "a.plan").write_bytes(pack_plan(plan("other", "storage")))
    assert run("--plan", str(home / "a.plan")).code == 0
    assert "switch" in [verb for verb, _args in agent.asked]
    (home / "a.plan").write_bytes(b"torn")
    assert run("--plan", str(home / "a.plan")).code == exits.CONFIGURATION
    assert run("--plan", str(home / "none.plan")).code == exits.FAILED


@pytest.mark.usefixtures("execute")
def test_a_bundled_service_is_executed(run: Run) -> None:
    with pytest.raises(Executed) as caught:
        run("service", "--name", "storage")
    assert caught.value.argv == [sys.executable, "-m", "edge_agent.services", "storage"]
