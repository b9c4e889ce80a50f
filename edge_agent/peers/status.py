"""The status of a light node: a small flat map, sent as differences (PROTOCOL.md section 3). Pure."""

from __future__ import annotations

from .wire import MAX_INTERVAL, MAX_NAME, MAX_RELEASE, WireError, pack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

Status = dict[str, "int | str | bool"]
Change = dict[str, "int | str | bool | None"]

MAX_KEYS = 32
MAX_KEY = 32  # characters
MAX_TEXT = 64  # characters
MAX_BYTES = 2048  # packed
MAX_NUMBER = 2**62
UNREADY = 16  # services named one by one
READY = ("ready", "completed")
STEPS = {"memory": 5, "cpu": 10}  # percent by which a value has to move before it is told anew


def difference(old: Status, new: Status) -> Change:
    """What makes ``new`` of ``old``; None takes a key away."""
    changed: Change = {key: value for key, value in new.items() if key not in old or old[key] != value}
    return changed | {key: None for key in old if key not in new}


def apply(old: Status, change: object) -> Status:
    """``old`` with a received change. Raises WireError when the change, or what comes of it, is not a status."""
    if not isinstance(change, dict) or len(change) > 2 * MAX_KEYS:
        raise WireError("set is not a map of a status")
    for key, value in change.items():
        _check(key, value)
    made: Status = dict(old)
    for key, value in change.items():
        if value is None:
            made.pop(key, None)
        else:
            made[key] = value
    if len(made) > MAX_KEYS:
        raise WireError(f"a status of more than {MAX_KEYS} keys")
    if len(pack(made)) > MAX_BYTES:
        raise WireError(f"a status of more than {MAX_BYTES} bytes")
    return made


def check_first(status: Status) -> None:
    """Raises WireError unless a first beat's status has what it must have."""
    for key, most in (("node", MAX_NAME), ("release", MAX_RELEASE)):
        value = status.get(key)
        if not isinstance(value, str) or not 0 < len(value) <= most:
            raise WireError(f"{key} is not 1 to {most} characters")
    every = status.get("every")
    if type(every) is not int or not 1 <= every <= MAX_INTERVAL:
        raise WireError("every is not a whole number of seconds up to a day")


def _check(key: object, value: object) -> None:
    if not isinstance(key, str) or not 0 < len(key) <= MAX_KEY or not key.isprintable():
        raise WireError("a key of a status is not short text")
    if value is None or isinstance(value, bool):
        return
    if isinstance(value, str) and len(value) <= MAX_TEXT and value.isprintable():
        return
    if isinstance(value, int) and 0 <= value <= MAX_NUMBER:
        return
    raise WireError("a value of a status is neither short text nor a whole number nor a truth value")


def of_agent(answer: Mapping[str, Any], before: Status) -> Status:
    """The part of a status that comes from the agent's answer to ``status``; ``before`` is what was told last.

    An agent of another release may answer differently: what is not understood is left out, not an error.
    """
    made: Status = {}
    profile = answer.get("profile")
    if isinstance(profile, str) and profile:
        made["profile"] = "".join(letter for letter in profile if letter.isprintable())[:MAX_TEXT]
    if answer.get("degraded"):
        made["degraded"] = True
    budget = answer.get("budget")
    for key, step in STEPS.items():
        percent = _percent(budget.get(key) if isinstance(budget, dict) else None)
        if percent is not None:
            told = before.get(key)
            keep = type(told) is int and abs(told - percent) < step
            made[key] = told if keep and told is not None else percent
    services = answer.get("services")
    if isinstance(services, dict):
        made |= _services(services)
    return made


def _percent(part: Any) -> int | None:
    if not isinstance(part, dict):
        return None
    used, total = part.get("used"), part.get("total")
    if not isinstance(used, int | float) or not isinstance(total, int | float) or not total > 0 or not used >= 0:
        return None
    return round(min(100 * used / total, 1000))


def _services(services: Mapping[object, object]) -> Status:
    made: Status = {"of": len(services), "up": 0}
    unready: Status = {}
    for name, service in services.items():
        state = service.get("state") if isinstance(service, dict) else None
        if state in READY:
            made["up"] = int(made["up"]) + 1
        elif isinstance(name, str) and isinstance(state, str) and len(unready) < UNREADY:
            key = f"s.{name}"
            if len(key) <= MAX_KEY and len(state) <= MAX_TEXT and key.isprintable() and state.isprintable():
                unready[key] = state
    return made | unready
