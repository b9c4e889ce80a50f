"""``schedule:`` from a text to the plan; its mistakes are in tests/fixtures/profiles/mistakes.txt."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime

from edge_agent.agent.scheduling import words
from edge_agent.budget import compile_plan
from edge_agent.cli import scheduleview
from edge_agent.cli.compiling import under
from edge_agent.cli.planview import render
from edge_agent.codec import pack_plan, unpack_plan
from edge_agent.enforcement import predict, predict_sandboxes, predict_total
from edge_agent.model import Entry, Plan
from edge_agent.services.options import read

from .profiles import load_text
from .samples import SERVER

DAY = """
services:
  web: {command: web, importance: essential}
  analytics: {command: analytics, depends_on: [web], resources: {memory: 64MB}}
  report: {command: report, restart_policy: on_failure}
schedule:
  - name: night
    from: 22:00
    to: 6:00
    days: [fri, monday]
    time_zone: Europe/Berlin
    services: [analytics]
  - {name: report, cron: "0 2 * *  mon-fri", services: report, misfire_grace: 4h}
  - {name: saving, cron: "30 12 * * *", for: 90m, profile: minimal}
  - {name: weekend, cron: "0 0 * * 6", profile: edge}
"""
NOW = datetime(2026, 11, 24, 12, 45, tzinfo=UTC).timestamp()


def plan(text: str = DAY) -> Plan:
    return compile_plan(load_text(text), SERVER)


def test_entries() -> None:
    assert plan().schedule == (
        Entry("night", begin=1320, end=360, days=(0, 4), zone="Europe/Berlin", services=("analytics",)),
        Entry("report", cron="0 2 * * mon-fri", services=("report",), grace=14_400.0),
        Entry("saving", cron="30 12 * * *", lasts=5400.0, profile="minimal"),
        Entry("weekend", cron="0 0 * * 6", profile="edge"),
    )


def test_what_is_scheduled_sleeps_and_the_rest_does_not() -> None:
    made = plan()
    assert {service.name for service in made.services if service.scheduled} == {"analytics", "report"}
    assert unpack_plan(pack_plan(made)) == made


def test_the_timekeeper_is_told_all_of_it() -> None:
    (keeper,) = (service for service in plan().services if service.name == "timekeeper")
    told = read("timekeeper", dict(keeper.env), 0)
    assert (told.schedule, told.profile, told.control) == (plan().schedule, "p", "/run/edge-agent/control")
    assert told.ignored == ()
    assert (keeper.health.kind, keeper.health.interval, keeper.importance) == ("sd_notify", 0.0, 90)
    assert keeper.limits.memory_request
    assert keeper.limits.memory_limit


def test_there_is_a_timekeeper_only_with_a_schedule_and_its_limits_can_be_others() -> None:
    assert [service.name for service in plan("services: {web: {command: web}}\nschedule: []").services] == ["web"]
    unused = load_text("services: {timekeeper: {}}")
    assert not unused.demands[0].enabled
    assert unused.not_acted_on == ("services.timekeeper (line 1): this profile has no schedule, treated as disabled",)
    own = plan(DAY.replace("services:", "services:\n  timekeeper: {resources: {memory: 100MB}, importance: 60}", 1))
    (keeper,) = (service for service in own.services if service.name == "timekeeper")
    assert (keeper.limits.memory_limit, keeper.importance) == (100_000_000, 60)


def test_a_plan_shows_its_schedule(golden: Callable[[str, str], None]) -> None:
    made = plan()._replace(source="/etc/edge-agent/profiles/p.yaml")
    schedule = scheduleview.render(made.schedule, NOW, lambda _name: UTC)
    golden(
        "planview-schedule.txt",
        render(made, predict(SERVER, made), predict_total(SERVER, made), predict_sandboxes(SERVER, made), schedule),
    )


def test_the_entries_survive_the_way_through_the_status() -> None:
    entries = plan().schedule
    sent = json.loads(json.dumps([entry._asdict() for entry in entries]))
    assert scheduleview.of_status({"schedule": sent}) == list(entries)
    assert scheduleview.of_status({}) == []


def test_in_a_window_the_schedule_and_its_timekeeper_stay_the_same() -> None:
    day, night = (
        load_text(DAY),
        load_text("services: {web: {command: web}, report: {command: r, importance: essential}}"),
    )
    made = compile_plan(under(night, day), SERVER)
    keepers = [[each for each in one.services if each.name == "timekeeper"] for one in (made, plan())]
    assert keepers[0] == keepers[1]
    assert made.schedule == plan().schedule
    assert not any(service.scheduled for service in made.services)  # of its own two, one is essential there
    needs = load_text("services: {web: {command: web, depends_on: analytics}, analytics: {command: a}}")
    assert not any(service.scheduled for service in compile_plan(under(needs, day), SERVER).services)
    own = load_text("services: {s: {command: s}}\nschedule: [{name: a, from: 1:00, to: 2:00, services: s}]")
    assert under(own, day).not_acted_on == ("schedule: this profile's own, while that of p is in force",)
    assert under(own, night).schedule == own.schedule


def test_the_front_end_is_asked_for_the_way_into_a_window_and_back() -> None:
    made = plan()._replace(source="/etc/day.yaml", flags=("--fit",))
    _, _, saving, weekend = made.schedule
    assert words(made, saving, "begin") == ["--profile", "minimal", "--fit", "--schedule=/etc/day.yaml"]
    assert words(made, weekend, "fire") == ["--profile", "edge", "--fit"]
    inside = made._replace(source="/etc/minimal.yaml", flags=("--fit", "--schedule=/etc/day.yaml"))
    assert words(inside, saving, "end") == ["--config", "/etc/day.yaml", "--fit"]
    assert words(inside, None, "end") == ["--config", "/etc/day.yaml", "--fit"]
    assert words(inside, weekend, "fire") == ["--profile", "edge", "--fit"]
