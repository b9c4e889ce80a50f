"""A short form of `make powercuts`: some cuts in every run, at other moments each time."""

from __future__ import annotations

import os
import time

import pytest

from . import powercuts

pytestmark = pytest.mark.vm

CUTS = int(os.environ.get("EDGE_AGENT_TEST_CUTS", "2"))
SEED = int(os.environ.get("EDGE_AGENT_TEST_SEED", time.time_ns() % 1_000_000))
EVENT = '{"seq": 4, "kind": "switched", "text": "x"}'


def test_after_a_power_cut_the_node_is_what_it_had_acknowledged(lab_tools: None) -> None:
    powercuts.run(CUTS, SEED)  # prints the seed, which a failure shows


def test_what_the_guest_had_told_ends_where_its_power_was_cut() -> None:
    told = powercuts.told(f"ASK 3\nDONE 3\n{EVENT}\nASK 4\n", 2)
    assert (told.done, told.asked, [event["seq"] for event in told.events]) == (3, 4, [4])
    assert powercuts.told("ASK 3\nDON", 2)[:2] == (2, 3)
    assert powercuts.told("ASK 3\nDONE 3\nASK 4\nDONE 4", 2)[:2] == (3, 4)
    assert powercuts.told(EVENT[:-3], 2) == powercuts.Seen(2, 2, ())
