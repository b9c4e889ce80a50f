"""The table is total and true to its diagram; restart policy by example."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent import lifecycle as life
from edge_agent import model as m
from edge_agent.lifecycle import Unit, advance

SERVICE = m.Service("web", ("/bin/web",), restart=m.Restart(max_attempts=2, delay=1.0, factor=2.0, jitter=0.0))
SAMPLES: dict[type, object] = {
    life.Start: life.Start(),
    life.Stop: life.Stop(),
    life.Deadline: life.Deadline(),
    m.Launched: m.Launched("web", 7, 70),
    m.LaunchFailed: m.LaunchFailed("web", "cannot fork"),
    m.Executed: m.Executed("web"),
    m.Ready: m.Ready("web"),
    m.Unhealthy: m.Unhealthy("web", "3 probes failed"),
    m.OverLimit: m.OverLimit("web", "300 of 256 MiB"),
    m.Exited: m.Exited("web", 7, 1),
    m.Emptied: m.Emptied("web"),
}


def unit(state: str, **changes: object) -> Unit:
    return Unit(SERVICE, state, pid=7 if state in life.LIVE else 0, started=70)._replace(**changes)  # type: ignore[arg-type]


def test_every_state_answers_every_event() -> None:
    assert set(life.TABLE) == set(life.STATES)
    for state, row in life.TABLE.items():
        assert set(row) == set(life.EVENTS.values()), state


@pytest.mark.parametrize("state", life.STATES)
@pytest.mark.parametrize("event", SAMPLES.values(), ids=lambda event: type(event).__name__)
@pytest.mark.parametrize("then", [life.OFF, life.BACKOFF, life.QUARANTINED, life.COMPLETED])
def test_effects_lead_only_where_the_table_says(state: str, event: object, then: str) -> None:
    after, _ = advance(unit(state, then=then), event, 100.0)
    rule = life.TABLE[state][life.EVENTS[type(event)]]
    assert after.state in (rule.to or (state,))


def test_the_diagram_in_the_architecture_is_the_table() -> None:
    text = (Path(__file__).parents[2] / "ARCHITECTURE.md").read_text()
    assert life.diagram() in text, "run: python -c 'from edge_agent.lifecycle import diagram; print(diagram())'"


def test_ready_once_executed_without_a_health_check() -> None:
    starting, actions = advance(unit(life.WAITING), life.Start(), 10.0)
    assert actions == (m.Launch(SERVICE),)
    starting, actions = advance(starting, m.Launched("web", 7, 70), 10.0)
    assert actions == (m.Release("web"),)
    ready, _ = advance(starting, m.Executed("web"), 10.5)
    assert (ready.state, ready.ready_at, ready.deadline) == (life.READY, 10.5, None)


def test_with_a_health_check_ready_comes_from_the_check() -> None:
    checked = SERVICE._replace(health=m.Health("tcp", port=80))
    starting = Unit(checked, life.STARTING, 7, 70, deadline=70.0)
    starting, actions = advance(starting, m.Executed("web"), 10.0)
    assert (starting.state, actions) == (life.STARTING, (m.Watch(checked, ready=False),))
    stopping, actions = advance(starting, life.Deadline(), 70.0)
    assert (stopping.state, stopping.then) == (life.STOPPING, life.BACKOFF)
    assert m.Signal("web", 15) in actions


def crash(one: Unit, now: float) -> Unit:
    one, actions = advance(one, m.Exited("web", 7, 1), now)
    assert m.Kill("web") in actions, "leftovers are killed before anything else"
    one, actions = advance(one, m.Emptied("web"), now)
    assert m.Remove("web") in actions
    return one


def test_attempts_grow_the_delay_then_quarantine() -> None:
    one = unit(life.READY, ready_at=0.0)
    delays = []
    for _ in range(2):
        one = crash(one, 10.0)
        assert one.state == life.BACKOFF
        assert one.deadline is not None
        delays.append(one.deadline - 10.0)
        one = one._replace(state=life.READY, pid=7, ready_at=9.0)
    assert delays == [1.0, 2.0]
    one = crash(one, 10.0)
    assert (one.state, one.deadline) == (life.QUARANTINED, None)
    assert "gave up after 2 restarts" in one.reason


def test_a_healthy_stretch_forgets_attempts() -> None:
    one = crash(unit(life.READY, ready_at=0.0, attempts=2), 60.0)
    assert (one.state, one.attempts) == (life.BACKOFF, 1)


@pytest.mark.parametrize(
    ("condition", "status", "state"),
    [
        ("always", 0, life.BACKOFF),
        ("on_failure", 0, life.COMPLETED),
        ("on_failure", 1, life.BACKOFF),
        ("never", 0, life.COMPLETED),
        ("never", -9, life.QUARANTINED),
    ],
)
def test_restart_conditions(condition: str, status: int, state: str) -> None:
    service = SERVICE._replace(restart=SERVICE.restart._replace(condition=condition))
    one, _ = advance(Unit(service, life.READY, 7, 70, ready_at=0.0), m.Exited("web", 7, status), 1.0)
    one, _ = advance(one, m.Emptied("web"), 1.0)
    assert one.state == state


def test_being_killed_for_memory_is_a_failure_whatever_the_status() -> None:
    service = SERVICE._replace(restart=m.Restart(condition="on_failure"), limits=m.Limits(memory_limit=256 << 20))
    one, actions = advance(Unit(service, life.READY, 7, 70), m.Exited("web", 7, 0, "own"), 1.0)
    assert one.then == life.BACKOFF
    assert any(
        isinstance(action, m.Note) and action.notable and "own memory limit" in action.text for action in actions
    )


def test_the_end_of_an_earlier_process_says_nothing() -> None:
    one = unit(life.READY)
    assert advance(one, m.Exited("web", 6, 1), 1.0) == (one, ())


def test_told_to_stop_while_being_forked_it_is_never_released() -> None:
    one, actions = advance(Unit(SERVICE, life.STARTING), life.Stop(), 1.0)
    assert not actions
    one, actions = advance(one, m.Launched("web", 7, 70), 1.0)
    assert actions == (m.Kill("web"),)


def test_a_stop_that_takes_too_long_becomes_a_kill_that_is_repeated() -> None:
    one, actions = advance(unit(life.READY), life.Stop(), 1.0)
    assert one.deadline == 11.0
    for _ in range(2):
        assert one.deadline is not None
        one, actions = advance(one, life.Deadline(), one.deadline)
        assert actions == (m.Kill("web"),)


@given(
    st.integers(0, 10_000), st.floats(0, 1e6), st.floats(1, 100), st.floats(0, 1e6), st.floats(0, 1), st.integers(0, 99)
)
def test_delays_are_bounded(
    attempts: int, delay: float, factor: float, ceiling: float, jitter: float, seed: int
) -> None:
    policy = m.Restart(delay=delay, factor=factor, max_delay=ceiling, jitter=jitter)
    one = Unit(SERVICE._replace(restart=policy), life.KILLING, started=seed, attempts=attempts)
    assert 0 <= life.backoff_delay(one) <= ceiling * (1 + jitter) * (1 + 1e-9)


def test_jitter_spreads_services_apart() -> None:
    spread = {
        round(life.backoff_delay(Unit(SERVICE._replace(name=f"s{i}", restart=m.Restart(jitter=0.5)))), 4)
        for i in range(50)
    }
    assert len(spread) > 40
