"""Hand a plan to the running agent and follow the switch to its end.

Light on purpose, as it is most of what a switch to a compiled plan costs; what shows the difference is imported while
the agent is at work.
"""

from __future__ import annotations

from ..control.client import TIMEOUT, AgentError
from . import exits
from .context import complain, say, show_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..control.client import Client
    from .context import Context

WAIT = 30.0  # seconds of one question for events; the agent answers at once when there is something
PAUSE = 0.1  # seconds between an answer and the next question


def hand_over(context: Context, client: Client, data: bytes) -> int:
    """Give the packed plan to the agent and follow. 0 only when it was committed. Raises AgentError, PlanError."""
    running = client.begin("plan")
    cursor = client.begin("events", {"cursor": -1, "wait": 0, "service": ""})
    switch = client.begin("switch", {"plan": data})  # sent at once: the agent works while this process gets ready
    first = {}
    for _ in (running, cursor):
        ident, answer, error = client.next()
        if error is not None:
            raise error
        first[ident] = answer
    try:
        if not context.json:
            _show_difference(first[running]["plan"], data)
        answer = _follow(context, client, switch, first[cursor]["cursor"])
    except KeyboardInterrupt:
        complain(["the agent goes on with the switch; see `edge-agent status`"])
        raise
    except AgentError as error:
        if not context.json:
            raise
        show_json({"committed": False, "code": error.code, "why": error.why, "fix": error.fix})
        return exits.BY_CODE.get(error.code, exits.FAILED)
    text = str(answer.get("text", ""))
    if context.json:
        show_json({"committed": True, "text": text})
    else:
        say(text or "the plan is in force")
    return exits.OK


def _show_difference(running: bytes, wanted: bytes) -> None:
    """What the switch does. A plan that cannot be read is refused by the agent as well: PlanError says it first."""
    from ..codec import unpack_plan
    from .plandiff import render_diff

    old, new = unpack_plan(running), unpack_plan(wanted)
    lines = [f"profile {old.profile} -> {new.profile} ({new.source})", *render_diff(old, new).splitlines()]
    say(*lines, *(f"note: {note}" for note in new.notes))


def _follow(context: Context, client: Client, switch: int, cursor: int) -> dict[str, Any]:
    """What the agent says at the end of the switch, its events shown meanwhile. Raises AgentError.

    However long the switch takes, the agent answers the question for events; silence means that it is stuck. Between
    two questions it is left to its work for a moment, of which most switches do not need more.
    """
    while True:
        if not client.wait(PAUSE):
            client.begin("events", {"cursor": cursor, "wait": WAIT, "service": ""})
        ident, answer, error = client.next(WAIT + TIMEOUT)
        if ident == switch:
            _show_events(context, client.call("events", {"cursor": cursor, "wait": 0, "service": ""}))
        if error is not None:
            raise error
        if ident == switch:
            return answer
        _show_events(context, answer)
        cursor = answer["cursor"]


def _show_events(context: Context, answer: dict[str, Any]) -> None:
    if answer["events"] and not context.json:
        from ..text import event

        say(*(event(entry) for entry in answer["events"]))
