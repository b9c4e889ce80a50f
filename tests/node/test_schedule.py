"""A real agent and the real timekeeper. The clock is the machine's, so entries are open, or due, as they are read."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from edge_agent.control.client import AgentError

from .bundled import PATIENCE
from .harness import Node, alive, until

SLEEP = "[/bin/sleep, '1000']"


def profile(node: Node, name: str, text: str) -> None:
    """A profile that ``--profile NAME`` finds."""
    directory = node.root / "etc" / "profiles"
    directory.mkdir(parents=True, exist_ok=True)
    node.profile(text, name).rename(directory / f"{name}.yaml")


DAY = f"""
    services:
      web: {{command: {SLEEP}}}
      heavy: {{command: {SLEEP}}}
      later: {{command: {SLEEP}}}
    schedule:
      - {{name: now, from: "00:00", to: "24:00", services: heavy}}
      - {{name: seldom, cron: "0 0 29 2 *", for: 1h, services: later}}
"""


def test_inside_its_window_a_service_runs_and_outside_it_sleeps(node: Node) -> None:
    profile(node, "day", DAY)
    node.start("--profile", "day")
    node.until_state("ready", "web", "heavy", "timekeeper")
    assert node.states()["later"] == "off"
    (event,) = node.events("schedule")
    assert (event["service"], event["text"].partition(" is open")[0]) == ("heavy", "schedule now: window 00:00-24:00")
    story = node.cli("why", "later", check=True).stdout
    assert "It sleeps until the schedule asks for it, or a person starts it." in story
    assert "Schedule seldom, cron 0 0 29 2 * for 1 h: begins 20" in story
    assert "ends 20" in node.cli("status", check=True).stdout
    node.cli("start", "later", check=True)
    node.until_state("ready", "later")


def test_at_rest_the_timekeeper_does_not_wake_up(node: Node) -> None:
    profile(node, "day", DAY)
    node.start("--profile", "day")
    node.until_state("ready", "web", "heavy", "timekeeper")
    pid = node.pids()["timekeeper"]

    def switches() -> int:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith("voluntary"))

    def calm() -> bool:
        before = switches()
        time.sleep(1.0)
        return switches() == before

    until(calm, "a second without a wakeup")


def test_what_a_person_stops_stays_stopped_over_a_restart_of_the_timekeeper(node: Node) -> None:
    profile(node, "day", DAY)
    node.start("--profile", "day")
    node.until_state("ready", "web", "heavy", "timekeeper")
    node.cli("stop", "heavy", check=True)
    node.until_state("off", "heavy")
    before = node.pids()["timekeeper"]
    os.kill(before, signal.SIGKILL)
    until(lambda: node.pids().get("timekeeper", before) != before, "a new timekeeper")
    node.until_state("ready", "timekeeper")
    assert node.states()["heavy"] == "off"


def test_a_new_agent_is_asked_again_by_the_same_timekeeper(node: Node) -> None:
    profile(node, "day", DAY)
    node.start("--profile", "day")
    node.until_state("ready", "web", "heavy", "timekeeper")
    before = node.pids()
    node.kill()
    for record in (node.run_dir / "services" / "heavy").glob("*"):
        if record.is_file():
            record.unlink()  # the new agent knows it by its process alone, not that it is awake
    node.start()
    node.until_state("ready", "web", "heavy", "timekeeper", patience=2 * PATIENCE)
    assert node.pids()["timekeeper"] == before["timekeeper"]


SWITCHES = f"""
    services:
      web: {{command: {SLEEP}, importance: essential}}
      daily: {{command: {SLEEP}}}
    schedule:
      - {{name: saving, from: "00:00", to: "24:00", profile: night}}
"""
NIGHT = f"""
    services:
      web: {{command: {SLEEP}, importance: essential}}
      nightly: {{command: {SLEEP}}}
"""


def test_a_window_switches_and_keeps_its_timekeeper_and_a_person_has_the_last_word(node: Node) -> None:
    profile(node, "day", SWITCHES)
    profile(node, "night", NIGHT)
    node.start("--profile", "day")
    until(lambda: node.events("switched"), "the switch")
    assert set(node.states()) == {"web", "nightly", "timekeeper"}
    before = node.pids()
    assert "switches to night and back" in node.cli("status", check=True).stdout
    node.cli("reload", check=True)
    until(lambda: len(node.events("switched")) == 2, "the reload")
    assert node.pids() == before  # in the window, and after a reload in it, the schedule is that of the day
    node.cli("--profile", "day", check=True)
    until(lambda: len(node.events("switched")) == 3, "the way back")
    assert node.status()["profile"] == "day"
    assert node.pids()["timekeeper"] == before["timekeeper"]
    assert alive(before["web"])


def test_the_window_that_is_gone_leads_home(node: Node) -> None:
    profile(node, "day", SWITCHES)
    profile(node, "night", NIGHT)
    node.start("--profile", "day")
    until(lambda: node.events("switched"), "the switch")
    profile(node, "day", SWITCHES.replace('from: "00:00", to: "24:00"', 'cron: "0 0 29 2 *", for: 1h'))
    node.cli("reload", check=True)
    until(lambda: node.status()["profile"] == "day" and not node.status()["switching"], "the way home")
    assert any("no window" in each["text"] or "ends" in each["text"] for each in node.events("schedule"))


def test_a_switch_that_cannot_be_is_told_before_and_when_it_is_due(node: Node) -> None:
    profile(node, "day", SWITCHES)
    profile(node, "night", NIGHT.replace("nightly: {", "nightly: {resources: {memory: 900GB}, "))
    planned = node.cli("plan", "--profile", "day", check=True).stdout
    assert "schedule saving: profile night would be refused now: cannot admit profile 'night'" in planned.replace(
        "\n  ", " "
    )
    node.start("--profile", "day")
    (event,) = until(lambda: node.events("schedule-failed"), "the refusal")
    assert "cannot admit profile 'night'" in event["text"]
    assert node.status()["profile"] == "day"


def test_the_agent_does_for_a_timekeeper_what_its_plan_says_and_no_more(node: Node) -> None:
    profile(node, "day", DAY)
    node.start("--profile", "day")
    node.until_state("ready", "web", "heavy", "timekeeper")
    asked = {"does": "fire", "text": "?"}
    for entry in ("nonsuch", "", "web"):
        with pytest.raises(AgentError, match="has no such entry"):
            node.call("scheduled", entry=entry, **asked)
    assert node.states()["later"] == "off"


def test_without_a_schedule_there_is_no_timekeeper(node: Node) -> None:
    profile(node, "plain", NIGHT)
    node.start("--profile", "plain")
    node.until_state("ready")
    assert set(node.states()) == {"web", "nightly"}
