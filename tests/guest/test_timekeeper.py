"""The clock of a machine of its own is set under the timekeeper: it notices at once, without polling."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from tests.node import harness
from tests.node.harness import Node, until

LONG = os.environ.get("EDGE_AGENT_TEST_CLOCK")
"""With it the clock is set twice more, which takes minutes."""
PROFILE = """
    services:
      web: {command: [/bin/sleep, "1000"]}
      heavy: {command: [/bin/sleep, "1000"]}
      report: {command: [/bin/true], restart_policy: on_failure}
    schedule:
      - {name: night, from: "22:00", to: "06:00", time_zone: UTC, services: heavy}
      - {name: report, cron: "0 2 * * *", time_zone: UTC, services: report}
"""


@pytest.fixture
def node() -> Iterator[Node]:
    yield from harness.node()


@pytest.fixture
def clock() -> Iterator[None]:
    """The clock is right again afterwards, for the tests that follow."""
    away = time.time() - time.monotonic()
    yield
    time.clock_settime(time.CLOCK_REALTIME, time.monotonic() + away)


def set_to(text: str) -> None:
    time.clock_settime(time.CLOCK_REALTIME, datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


def test_a_clock_that_is_set_is_noticed_at_once(node: Node, clock: None) -> None:
    def told(text: str) -> bool:
        return any(text in event["text"] for event in node.events("schedule"))

    set_to("1970-01-02T00:00:00")  # clock_settime(2): not before the machine was switched on
    node.start("--config", node.profile(PROFILE))
    until(lambda: told("before this program was made: nothing is due until it is set"), "its doubt", 90)
    assert node.states()["heavy"] == "off"

    set_to("2027-01-15T12:00:00")
    until(lambda: told("the schedule goes by it"), "its belief", 90)
    assert node.states()["heavy"] == "off"

    time.sleep(61)  # it looks at a clock that is set again and again once a minute
    set_to("2027-01-15T22:30:00")
    node.until_state("ready", "heavy", patience=90)
    if not LONG:
        return

    time.sleep(61)
    set_to("2027-01-16T02:20:00")
    until(lambda: told("was missed at 2027-01-16 02:00: the clock was set forward by"), "what was missed", 90)
    node.until_state("completed", "report", patience=90)

    time.sleep(61)
    set_to("2037-01-16T12:00:00")
    node.until_state("off", "heavy", patience=90)
    events = len(node.events("schedule"))
    time.sleep(5)
    assert len(node.events("schedule")) == events  # ten years, and no storm
