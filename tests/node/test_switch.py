"""Switching a running node: in place where it can be, back where it must."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from .harness import Node, alive, until

DAY = """
    services:
      keep: {command: [/bin/sleep, "1000"], resources: {memory: 20MB}}
      grow: {command: [/bin/sleep, "1000"], resources: {memory: 20MB}}
      gone: {command: [/bin/sleep, "1000"], resources: {memory: 20MB}}
      changed: {command: [/bin/sleep, "1000"], resources: {memory: 20MB}}
"""
NIGHT = """
    services:
      keep: {command: [/bin/sleep, "1000"], resources: {memory: 20MB}}
      grow: {command: [/bin/sleep, "1000"], resources: {memory: 40MB}}
      changed: {command: [/bin/sleep, "2000"], resources: {memory: 20MB}}
      new: {command: [/bin/sleep, "1000"], resources: {memory: 20MB}}
"""


def test_a_switch_changes_what_differs_and_nothing_else(node: Node) -> None:
    node.start("--config", node.profile(DAY, "day"))
    node.until_state("ready")
    before = node.pids()
    done = node.cli("--config", node.profile(NIGHT, "night"), check=True)
    assert "switched from day to night" in done.stdout
    after = node.pids()
    assert {name: after[name] for name in ("keep", "grow")} == {name: before[name] for name in ("keep", "grow")}
    assert after["changed"] != before["changed"]
    assert set(after) == {"keep", "grow", "changed", "new"}
    assert node.service("grow")["memory"]["limit"] == 40_000_000
    assert not alive(before["gone"])


def test_the_choice_survives_a_restart(node: Node) -> None:
    node.start("--config", node.profile(DAY, "day"))
    node.cli("--config", node.profile(NIGHT, "night"), check=True)
    assert node.stop() == 0
    node.start()
    assert node.status()["profile"] == "night"


def test_an_essential_that_never_gets_ready_rolls_back(node: Node) -> None:
    node.start("--config", node.profile(DAY, "day"))
    node.until_state("ready")
    before = node.pids()
    bad = node.profile(
        """
        deployment: {switch_timeout: 2s}
        services:
          keep: {command: [/bin/sleep, "1000"], resources: {memory: 20MB}}
          core: {command: [/bin/sleep, "1000"], importance: essential, health: {tcp: 1, interval: 1s}}
        """,
        "bad",
    )
    done = node.cli("--config", bad)
    assert done.returncode == 1
    assert "core is starting after 2 s; rolled back to day" in done.stdout + done.stderr
    node.until_state("ready")
    status = node.status()
    assert (status["profile"], status["degraded"]) == ("day", None)
    assert set(status["services"]) == set(before)
    assert node.pids()["keep"] == before["keep"]
    node.stop()
    node.start()
    assert node.status()["profile"] == "day"


@pytest.mark.parametrize(
    ("text", "code", "why"),
    [
        ("services: {a: {comand: /bin/true}}", 4, "command"),
        ("services: {a: {command: /nonexistent/x}}", 4, "/nonexistent/x"),
        ("services: {a: {command: [/bin/sleep, '1'], resources: {memory: -1}}}", 4, "negative"),
        ("services: {a: {command: [/bin/sleep, '1'], resources: {memory: 1e99}}}", 4, "1e99"),
        ("services: {a: {command: [/bin/sleep, '1'], resources: {memory: 2 GiBB}}}", 4, "GiB"),
        (
            "services: {a: {command: /bin/true, depends_on: [b]}, b: {command: /bin/true, depends_on: [a]}}",
            4,
            "a -> b -> a",
        ),
        ("services: {a: {command: [/bin/sleep, '1'], resources: {memory: 900TB}}}", 5, "a"),
        ("x: &x [a,a,a,a,a,a,a,a,a,a]\n", 4, ""),
    ],
)
def test_bad_input_is_refused_and_the_running_plan_stays(node: Node, text: str, code: int, why: str) -> None:
    node.start("--config", node.profile(DAY, "day"))
    node.until_state("ready")
    before = node.pids()
    done = node.cli("--config", node.profile(text, "bad"))
    assert done.returncode == code, done.stderr
    assert why in done.stderr
    assert "Traceback" not in done.stderr
    assert node.pids() == before
    assert node.status()["profile"] == "day"


def test_files_that_cannot_be_read_are_refused(node: Node, tmp_path: Path) -> None:
    huge = tmp_path / "huge.yaml"
    huge.write_text("# " + "x" * 100 + "\n" + "a: 1\n" * 2_500_000)
    bomb = tmp_path / "bomb.yaml"
    levels = "\n".join(f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 10)}]" for i in range(1, 30))
    bomb.write_text(f"l0: &l0 [x]\n{levels}\nservices: {{}}\n")
    for path in (huge, bomb, tmp_path, tmp_path / "missing.yaml"):
        done = node.cli("--config", path, timeout=20)
        assert done.returncode == 4, (path, done.stderr)
        assert done.stderr.startswith("edge-agent: ") or str(path) in done.stderr
        assert "Traceback" not in done.stderr


def test_a_broken_profile_at_boot_runs_the_last_good_plan_degraded(node: Node) -> None:
    path = node.profile(DAY, "day")
    node.start("--config", path)
    node.until_state("ready")
    node.stop()
    path.write_text("services: {a: {comand: x}}")
    node.start()
    node.until_state("ready")
    status = node.status()
    assert status["profile"] == "day"
    assert "comand" in status["degraded"]
    assert node.cli("--config", path).returncode == 4, "a person who types it gets the errors"


def test_a_profile_whose_essential_fails_at_boot_gives_way_to_the_last_good_one(node: Node) -> None:
    path = node.profile(DAY, "day")
    node.start("--config", path)
    node.until_state("ready")
    node.stop()
    node.profile(
        """
        services:
          core: {command: /bin/false, importance: essential, health: {tcp: 1}, restart_policy: {max_attempts: 0}}
        """,
        "day",
    )
    node.start()
    until(lambda: node.status()["degraded"], "it says so")
    node.until_state("ready")
    assert set(node.states()) == {"keep", "grow", "gone", "changed"}


def test_sighup_reloads(node: Node) -> None:
    node.start("--config", node.profile(DAY, "day"))
    node.until_state("ready")
    before = node.pids()
    node.profile(NIGHT, "day")
    assert node.process is not None
    node.process.send_signal(signal.SIGHUP)
    until(
        lambda: set(node.states()) == {"keep", "grow", "changed", "new"} and not node.status()["switching"], "reloaded"
    )
    assert node.pids()["keep"] == before["keep"]
    (node.root / "day.yaml").write_text("services: [")
    node.process.send_signal(signal.SIGHUP)
    until(lambda: node.events("reload-failed"), "the error is an event")
    assert node.pids()["keep"] == before["keep"]


def test_re_executing_keeps_pid_and_services(node: Node) -> None:
    node.start("--config", node.profile(DAY, "day"))
    node.until_state("ready")
    before, agent = node.pids(), node.status()["agent"]["pid"]
    assert node.process is not None
    node.process.send_signal(signal.SIGUSR2)
    until(lambda: node.answers() and node.events("adoption"), "it is a new program in the same process")
    assert node.pids() == before
    assert node.status()["agent"]["pid"] == agent
    os.kill(before["keep"], signal.SIGKILL)
    until(lambda: node.service("keep")["last_exit"], "children are still children")
    assert node.service("keep")["last_exit"]["text"] == "killed by signal 9"


def test_a_second_agent_for_the_same_directory_is_a_switch_not_an_agent(node: Node) -> None:
    path = node.profile(DAY, "day")
    node.start("--config", path)
    node.until_state("ready")
    before = node.pids()
    done = node.cli("--config", path)
    assert done.returncode == 0
    assert node.pids() == before


def test_a_choice_is_kept_with_its_flags(node: Node) -> None:
    """What was fitted, or not enforced, by a flag is so after a reload and at the next boot."""
    path = node.profile(
        """
        deployment: {resources: {total_memory: 100MB}}
        services:
          core: {command: [/bin/sleep, "1000"], importance: essential, resources: {memory: 50MB}}
          extra: {command: [/bin/sleep, "1000"], importance: heavy, resources: {memory: 60MB}}
        """
    )
    assert node.cli("--config", path).returncode == 5
    node.start("--config", path, "--fit", "--enforcement", "none")
    node.until_state("ready", "core")
    node.cli("reload", check=True)
    until(lambda: len(node.events("switched")) == 1, "reloaded")
    assert node.states() == {"core": "ready"}
    node.stop()
    node.start()
    node.until_state("ready", "core")
    status = node.status()
    assert (set(status["services"]), status["enforcement"], status["degraded"]) == ({"core"}, "none", None)
