"""Every field of Service is classified: a new one fails here until someone decides what changing it costs."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from edge_agent.changes import IN_PLACE, needs_resize, needs_restart
from edge_agent.model import Health, Limits, Log, Restart, Sandbox, Service

OLD = Service(name="web", argv=("/bin/web",))

RESTARTS: dict[str, Any] = {
    "name": "web2",
    "argv": ("/bin/web", "-v"),
    "env": (("A", "1"),),
    "cwd": "/srv",
    "uid": 1000,
    "gid": 1000,
    "groups": (4,),
    "nice": 5,
    "ioprio": (2, 7),
    "scheduler": (3, 0),
    "rlimits": ((7, 1024, 1024),),
    "directories": ("/var/lib/edge-agent/services/web",),
    "log": Log(kind="disk"),
    "sandbox": Sandbox(no_new_privileges=True),
}
STAYS: dict[str, Any] = {
    "depends_on": ("db",),
    "importance": 100,
    "limits": Limits(memory_limit=1),
    "health": Health(kind="tcp", port=80),
    "restart": Restart(max_attempts=1),
    "stop_signal": int(signal.SIGINT),
    "stop_timeout": 1.0,
    "start_timeout": 1.0,
    "oom_score_adj": 100,
    "freezable": True,
}


def test_every_field_is_classified_once() -> None:
    assert set(RESTARTS) | set(STAYS) == set(Service._fields)
    assert not set(RESTARTS) & set(STAYS)
    assert set(IN_PLACE) == set(STAYS)


@pytest.mark.parametrize("field", RESTARTS)
def test_what_is_fixed_at_the_start_needs_a_restart(field: str) -> None:
    new = OLD._replace(**{field: RESTARTS[field]})
    assert needs_restart(OLD, new)
    assert needs_restart(new, OLD)
    assert not needs_resize(OLD, new)


@pytest.mark.parametrize("field", STAYS)
def test_what_can_move_under_a_process_does_not(field: str) -> None:
    new = OLD._replace(**{field: STAYS[field]})
    assert not needs_restart(OLD, new)
    assert needs_resize(OLD, new) == (field in ("limits", "oom_score_adj"))


def test_the_bound_of_a_log_moves_and_its_place_does_not() -> None:
    larger = OLD._replace(log=Log(max_bytes=1 << 20))
    assert not needs_restart(OLD, larger)
    assert needs_restart(OLD, larger._replace(log=Log(kind="none", max_bytes=1 << 20)))


def test_a_health_check_moves_but_what_the_environment_says_of_it_does_not() -> None:
    speaks = OLD._replace(health=Health(kind="sd_notify", interval=10.0))
    assert needs_restart(OLD, speaks)
    assert needs_restart(speaks, OLD)
    assert needs_restart(speaks, OLD._replace(health=Health(kind="sd_notify", interval=5.0)))
    assert not needs_restart(speaks, OLD._replace(health=Health(kind="sd_notify", interval=10.0, failures=5)))
    assert not needs_restart(OLD._replace(health=Health("tcp", interval=1.0)), OLD)


def test_the_same_spec_needs_nothing() -> None:
    assert not needs_restart(OLD, Service(name="web", argv=("/bin/web",)))
    assert not needs_resize(OLD, Service(name="web", argv=("/bin/web",)))


def test_both_at_once_are_both_said() -> None:
    new = OLD._replace(nice=1, limits=Limits(cpu_limit=500))
    assert needs_restart(OLD, new)
    assert needs_resize(OLD, new)
