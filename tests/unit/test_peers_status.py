"""The status of a light node: differences, and what the agent's answer becomes."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from edge_agent.peers import status

KEY = st.text(alphabet="abc.", min_size=1, max_size=3)
VALUE = st.one_of(st.booleans(), st.integers(0, 3), st.text(alphabet="xyz", max_size=3))
STATUS = st.dictionaries(KEY, VALUE, max_size=8)


@given(STATUS, STATUS)
def test_a_difference_makes_the_one_of_the_other(old: status.Status, new: status.Status) -> None:
    made = status.apply(old, status.difference(old, new))
    assert made == new
    assert status.difference(new, new) == {}


def agent(memory: float = 40, cpu: float = 0.5, **states: str) -> dict[str, Any]:
    return {
        "profile": "edge",
        "degraded": None,
        "budget": {"memory": {"used": memory, "total": 100}, "cpu": {"used": cpu, "total": 1.0}},
        "services": {name: {"state": state} for name, state in states.items()},
    }


def test_the_agents_answer_becomes_a_few_small_values() -> None:
    made = status.of_agent(agent(a="ready", b="completed", c="backoff"), {})
    assert made == {"profile": "edge", "memory": 40, "cpu": 50, "of": 3, "up": 2, "s.c": "backoff"}
    assert status.of_agent(agent() | {"degraded": "why"}, {})["degraded"] is True


def test_a_small_move_is_not_told() -> None:
    told = status.of_agent(agent(40, 0.5), {})
    assert status.of_agent(agent(44, 0.59), told) == told
    assert status.of_agent(agent(45, 0.5), told)["memory"] == 45
    assert status.of_agent(agent(40, 0.4), told)["cpu"] == 40


def test_thirty_services_in_trouble_still_fit() -> None:
    many: dict[str, Any] = {f"a-service-with-a-longish-name-{number}"[:30]: "quarantined" for number in range(30)}
    made = status.of_agent(agent(**many), {})
    whole = {"node": "n" * 64, "release": "r" * 32, "every": 60, **made}
    assert status.apply({}, whole) == whole


def test_an_answer_of_another_release_is_no_error() -> None:
    for answer in ({}, {"budget": 3, "services": [1], "profile": 7}, {"budget": {"memory": {"used": "x", "total": 0}}}):
        status.of_agent(answer, {})
