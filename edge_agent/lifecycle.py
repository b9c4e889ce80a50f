"""One service's life: a total table (state, event) -> effect, pure.

``advance(unit, event, now)`` looks its effect up by the names of the state and the event, so no pair is ever
unconsidered; what a pair ignores, it ignores by name. The diagram in ARCHITECTURE.md is generated from TABLE.
"""

from __future__ import annotations

from binascii import crc32

from .model import (
    UNLIMITED,
    Action,
    Emptied,
    Executed,
    Exited,
    Kill,
    Launch,
    Launched,
    LaunchFailed,
    Note,
    OverLimit,
    Ready,
    Release,
    Remove,
    Service,
    Signal,
    Unhealthy,
    Watch,
)
from .records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

KILL_AGAIN = 5.0
"""Seconds after which a kill that left processes (in uninterruptible sleep, say) is repeated."""

OFF, WAITING, STARTING, READY, STOPPING, KILLING, BACKOFF, QUARANTINED, COMPLETED = STATES = (
    "off",
    "waiting",
    "starting",
    "ready",
    "stopping",
    "killing",
    "backoff",
    "quarantined",
    "completed",
)
SHED_GRACE = 2.0
"""Seconds that a service which is shed has at most to end by itself: others wait for its memory."""

LIVE = frozenset((STARTING, READY, STOPPING, KILLING))
"""States in which processes may exist."""

HOLDING = LIVE | {BACKOFF}
"""States in which the service's request is part of the budget. Quarantine frees it; back-off keeps its place."""

UP = frozenset((READY, COMPLETED))
"""States that satisfy a ``depends_on``."""


class Unit(Record):
    """One service on this node. Times are monotonic seconds; the whole record is what a restarted agent reads back."""

    service: Service  # the spec in force; the goal may differ
    state: str = OFF
    pid: int = 0
    started: int = 0  # the process's start, clock ticks: with the pid its identity
    since: float = 0.0  # of the state
    deadline: float | None = None  # when the state runs out
    ready_at: float | None = None
    restarts: int = 0  # in all
    attempts: int = 0  # in a row, without a healthy stretch
    then: str = OFF  # what follows ``killing``
    down: bool = False  # stopped by a person: stays so until started by one
    reason: str = ""  # why it is in this state, for people
    last_exit: str = ""
    last_exit_at: float = 0.0
    shed: str = ""  # why it is kept from running though its profile has it
    awake: bool = False  # asked for by the schedule, or by a person: counts for a scheduled service only


class Start(Record):
    """Dependencies are up and there is room: run it. At rest after a failure: try again from the beginning."""


class Stop(Record):
    """Bring it down gracefully."""


class Deadline(Record):
    """The state has run out."""


if TYPE_CHECKING:
    Effect = Callable[[Unit, Any, float], tuple[Unit, tuple[Action, ...]]]


class Rule(Record):
    """An effect, and the states it may lead to: for the diagram, and held by the tests."""

    effect: Effect
    to: tuple[str, ...]


def advance(unit: Unit, event: object, now: float) -> tuple[Unit, tuple[Action, ...]]:
    """Apply one event at monotonic ``now``. Raises KeyError only for an event type that is not in EVENTS."""
    rule = TABLE[unit.state][EVENTS[type(event)]]
    after, actions = rule.effect(unit, event, now)
    if after.state != unit.state:
        after = after._replace(since=now)
    return after, actions


def describe_exit(status: int | None, oom: str, service: Service) -> str:
    """How a main process ended, as a phrase. ``status`` as in ``Exited``."""
    if oom:
        limit = service.limits.memory_limit
        level = {
            "own": f"its own memory limit of {limit} bytes" if limit else "its own memory limit",
            "total": "the total memory limit of all services",
            "machine": "the machine's memory",
        }[oom]
        return f"killed for lack of memory: {level} was reached"
    if status is None:
        return "ended while no agent was its parent, exit status unknown"
    return f"killed by signal {-status}" if status < 0 else f"exited with code {status}"


def backoff_delay(unit: Unit) -> float:
    """Seconds before the next start: delay * factor^attempts, capped, with jitter: fixed by unit, spread over units."""
    policy = unit.service.restart
    try:
        grown = policy.delay * policy.factor**unit.attempts
    except OverflowError:
        grown = policy.max_delay
    # The process's start tick is randomness from outside that is already part of the state: no generator is needed.
    spread = crc32(b"%s %d %d" % (unit.service.name.encode(), unit.started, unit.restarts)) / 0xFFFFFFFF
    return min(grown, policy.max_delay) * (1.0 + policy.jitter * (2.0 * spread - 1.0))


def _ignore(unit: Unit, _event: object, _now: float) -> tuple[Unit, tuple[Action, ...]]:
    return unit, ()


def _start(unit: Unit, _event: object, now: float) -> tuple[Unit, tuple[Action, ...]]:
    service = unit.service
    begun = unit._replace(
        state=STARTING, pid=0, started=0, ready_at=None, then=OFF, reason="", deadline=now + service.start_timeout
    )
    return begun, (Launch(service),)


def _again(unit: Unit, _event: object, _now: float) -> tuple[Unit, tuple[Action, ...]]:
    return unit._replace(state=WAITING, attempts=0, deadline=None, reason=""), ()


def _launched(unit: Unit, event: Launched, _now: float) -> tuple[Unit, tuple[Action, ...]]:
    return unit._replace(pid=event.pid, started=event.started), (Release(unit.service.name),)


def _launched_late(unit: Unit, event: Launched, now: float) -> tuple[Unit, tuple[Action, ...]]:
    """It was told to stop while being forked: it is never released, so it has not run an instruction of its program."""
    return _kill(unit._replace(pid=event.pid, started=event.started), event, now)


def _executed(unit: Unit, event: Executed, now: float) -> tuple[Unit, tuple[Action, ...]]:
    if unit.service.health.kind:
        return unit, (Watch(unit.service, ready=False),)
    return _ready(unit, event, now)


def _ready(unit: Unit, _event: object, now: float) -> tuple[Unit, tuple[Action, ...]]:
    service = unit.service
    actions: tuple[Action, ...] = (Note("ready", service.name, f"ready after {now - unit.since:.2f} s"),)
    if service.health.kind:
        actions += (Watch(service, ready=True),)
    return unit._replace(state=READY, ready_at=now, deadline=None, reason=""), actions


def _stop(unit: Unit, _event: object, now: float) -> tuple[Unit, tuple[Action, ...]]:
    grace = min(unit.service.stop_timeout, SHED_GRACE) if unit.shed else unit.service.stop_timeout
    stopping = unit._replace(state=STOPPING, then=OFF, deadline=now + grace, reason="")
    return stopping, (Signal(unit.service.name, unit.service.stop_signal),) if unit.pid else ()


def _rest(unit: Unit, _event: object, _now: float) -> tuple[Unit, tuple[Action, ...]]:
    return unit._replace(state=OFF, deadline=None, reason=""), ()


def _then_off(unit: Unit, _event: object, _now: float) -> tuple[Unit, tuple[Action, ...]]:
    return unit._replace(then=OFF), ()


def _kill(unit: Unit, _event: object, now: float) -> tuple[Unit, tuple[Action, ...]]:
    return unit._replace(state=KILLING, deadline=now + KILL_AGAIN), (Kill(unit.service.name),)


def _ended(unit: Unit, event: Exited, now: float) -> tuple[Unit, tuple[Action, ...]]:
    """The main process is gone: clear what it left behind, and settle what comes next."""
    if event.pid != unit.pid:
        return unit, ()  # a process of an earlier generation
    how = describe_exit(event.status, event.oom, unit.service)
    clean = event.status == 0 and not event.oom
    unit = _after_end(unit._replace(last_exit=how, last_exit_at=now), how, now, clean=clean)
    killing, kill = _kill(unit, event, now)
    note = _oom(unit, how) if event.oom else Note("exit", unit.service.name, how, notable=not clean)
    return killing, (note, *kill)


def _ended_while_stopping(unit: Unit, event: Exited, now: float) -> tuple[Unit, tuple[Action, ...]]:
    if event.pid != unit.pid:
        return unit, ()
    how = describe_exit(event.status, event.oom, unit.service)
    if event.oom or unit.then == OFF:  # else the reason for which it was stopped says more than the signal we sent
        unit = unit._replace(last_exit=how, last_exit_at=now)
    killing, kill = _kill(unit, event, now)
    note = _oom(unit, how) if event.oom else Note("stopped", unit.service.name, how)
    return killing, (note, *kill)


def _ended_while_killed(unit: Unit, event: Exited, now: float) -> tuple[Unit, tuple[Action, ...]]:
    """As expected, and what comes next is settled; but it may have been for lack of memory, which is to be told."""
    if event.pid != unit.pid or not event.oom:
        return unit, ()
    how = describe_exit(event.status, event.oom, unit.service)
    return unit._replace(last_exit=how, last_exit_at=now), (_oom(unit, how),)


def _oom(unit: Unit, how: str) -> Note:
    return Note("oom", unit.service.name, how, notable=True)


def _launch_failed(unit: Unit, event: LaunchFailed, now: float) -> tuple[Unit, tuple[Action, ...]]:
    unit = _after_end(unit._replace(last_exit=event.reason, last_exit_at=now), event.reason, now, clean=False)
    killing, kill = _kill(unit, event, now)
    return killing, (Note("launch-failed", unit.service.name, event.reason, notable=True), *kill)


def _unhealthy(unit: Unit, event: Unhealthy | OverLimit, now: float) -> tuple[Unit, tuple[Action, ...]]:
    kind = "over-limit" if isinstance(event, OverLimit) else "unhealthy"
    return _give_up(unit, kind, event.reason, now)


def _not_ready(unit: Unit, _event: object, now: float) -> tuple[Unit, tuple[Action, ...]]:
    return _give_up(unit, "not-ready", f"not ready within {unit.service.start_timeout:g} s", now)


def _give_up(unit: Unit, kind: str, reason: str, now: float) -> tuple[Unit, tuple[Action, ...]]:
    then = _after_end(unit._replace(last_exit=reason, last_exit_at=now), reason, now, clean=False)
    stopping, signals = _stop(then, None, now)
    stopping = stopping._replace(then=then.then, reason=then.reason, attempts=then.attempts)
    return stopping, (Note(kind, unit.service.name, reason, notable=True), *signals)


def _after_end(unit: Unit, why: str, now: float, *, clean: bool) -> Unit:
    """Restart policy: what follows once nothing is left of it."""
    policy = unit.service.restart
    if policy.condition == "never" or (policy.condition == "on_failure" and clean):
        return unit._replace(then=COMPLETED if clean else QUARANTINED, reason=why)
    steady = unit.ready_at is not None and now - unit.ready_at >= policy.reset_after
    attempts = 0 if steady else unit.attempts
    if policy.max_attempts != UNLIMITED and attempts >= policy.max_attempts:
        return unit._replace(
            then=QUARANTINED, attempts=attempts, reason=f"{why}; gave up after {attempts} restarts in a row"
        )
    return unit._replace(then=BACKOFF, attempts=attempts, reason=why)


def _emptied(unit: Unit, _event: object, now: float) -> tuple[Unit, tuple[Action, ...]]:
    name = unit.service.name
    rest = unit._replace(state=unit.then, pid=0, deadline=None, ready_at=None)
    if unit.then == BACKOFF:
        delay = backoff_delay(unit)
        rest = rest._replace(deadline=now + delay, restarts=unit.restarts + 1, attempts=unit.attempts + 1)
        return rest, (Remove(name), Note("backoff", name, f"{unit.reason}; next start in {delay:.1f} s"))
    if unit.then == QUARANTINED:
        return rest, (Remove(name), Note("quarantined", name, unit.reason, notable=True))
    return rest._replace(reason="" if unit.then == OFF else unit.reason), (Remove(name),)


def _due(unit: Unit, _event: object, _now: float) -> tuple[Unit, tuple[Action, ...]]:
    return unit._replace(state=WAITING, deadline=None), ()


EVENTS: dict[type, str] = {
    Start: "start",
    Stop: "stop",
    Launched: "launched",
    LaunchFailed: "launch_failed",
    Executed: "executed",
    Ready: "ready",
    Unhealthy: "unhealthy",
    OverLimit: "unhealthy",
    Exited: "exited",
    Emptied: "emptied",
    Deadline: "deadline",
}
"""Event types by the name they have in TABLE."""

_NO = Rule(_ignore, ())
_REST = Rule(_rest, (OFF,))
_AGAIN = Rule(_again, (WAITING,))
_LATE = {
    "launched": _NO,
    "launch_failed": _NO,
    "executed": _NO,
    "ready": _NO,
    "unhealthy": _NO,
    "exited": _NO,
    "emptied": _NO,
}
"""What may still arrive of a generation that is over."""

TABLE: dict[str, dict[str, Rule]] = {
    OFF: {**_LATE, "start": Rule(_start, (STARTING,)), "stop": _NO, "deadline": _NO},
    WAITING: {**_LATE, "start": Rule(_start, (STARTING,)), "stop": _REST, "deadline": _NO},
    STARTING: {
        "start": _NO,
        "stop": Rule(_stop, (STOPPING,)),
        "launched": Rule(_launched, (STARTING,)),
        "launch_failed": Rule(_launch_failed, (KILLING,)),
        "executed": Rule(_executed, (STARTING, READY)),
        "ready": Rule(_ready, (READY,)),
        "unhealthy": Rule(_unhealthy, (STOPPING,)),
        "exited": Rule(_ended, (STARTING, KILLING)),
        "emptied": _NO,
        "deadline": Rule(_not_ready, (STOPPING,)),
    },
    READY: {
        "start": _NO,
        "stop": Rule(_stop, (STOPPING,)),
        "launched": _NO,
        "launch_failed": _NO,
        "executed": _NO,
        "ready": _NO,
        "unhealthy": Rule(_unhealthy, (STOPPING,)),
        "exited": Rule(_ended, (READY, KILLING)),
        "emptied": _NO,
        "deadline": _NO,
    },
    STOPPING: {
        "start": _NO,
        "stop": Rule(_then_off, (STOPPING,)),
        "launched": Rule(_launched_late, (KILLING,)),
        "launch_failed": Rule(_kill, (KILLING,)),
        "executed": _NO,
        "ready": _NO,
        "unhealthy": _NO,
        "exited": Rule(_ended_while_stopping, (STOPPING, KILLING)),
        "emptied": _NO,
        "deadline": Rule(_kill, (KILLING,)),
    },
    KILLING: {
        "start": _NO,
        "stop": Rule(_then_off, (KILLING,)),
        "launched": Rule(_launched_late, (KILLING,)),
        "launch_failed": _NO,
        "executed": _NO,
        "ready": _NO,
        "unhealthy": _NO,
        "exited": Rule(_ended_while_killed, (KILLING,)),
        "emptied": Rule(_emptied, (OFF, BACKOFF, QUARANTINED, COMPLETED)),
        "deadline": Rule(_kill, (KILLING,)),
    },
    BACKOFF: {**_LATE, "start": _AGAIN, "stop": _REST, "deadline": Rule(_due, (WAITING,))},
    QUARANTINED: {**_LATE, "start": _AGAIN, "stop": _REST, "deadline": _NO},
    COMPLETED: {**_LATE, "start": _AGAIN, "stop": _REST, "deadline": _NO},
}


def diagram() -> str:
    """TABLE as a Mermaid state diagram; ``tests/unit/test_lifecycle.py`` holds ARCHITECTURE.md to it."""
    lines = ["stateDiagram-v2", f"    [*] --> {OFF}"]
    for state, row in TABLE.items():
        for target in STATES:
            labels = [event for event, rule in row.items() if target in rule.to and (target != state)]
            if labels:
                lines.append(f"    {state} --> {target}: {', '.join(labels)}")
    return "\n".join(lines) + "\n"
