"""What the timekeeper may ask for: the entries of the plan in force, by name, and nothing else.

It says which entry begins, ends or is due and why; what that means is read from the plan here. A switch is compiled by
the front end, as a reload is, in a process that is not the timekeeper's: the switch may end the timekeeper.
"""

from __future__ import annotations

from ..model import Wake

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..control.connection import Request
    from ..model import Entry, Plan
    from .performer import Agent

FLAG = "--schedule="
"""The front end's flag that keeps the schedule of the profile in that file in force."""
LONGEST = 500
NONE, RUNNING, DONE, FAILED = "", "running", "done", "failed"
"""What has come of the last switch that was asked for."""


class Scheduling:
    """The verb ``scheduled`` {does: begin | end | fire | note | look, entry, text}.

    ``front_end(words, why, done)`` runs the front end and calls ``done`` with why it failed, '' if not.
    """

    def __init__(self, agent: Agent, front_end: Callable[[list[str], str, Callable[[str], None]], None]) -> None:
        self._agent = agent
        self._front_end = front_end
        self._switch = NONE

    def __call__(self, request: Request) -> None:
        """Answered at once; what comes of a switch is told by events, and when it looks again."""
        if request.args["does"] == "look":
            request.reply({"profile": self._agent.node.plan.profile, "switch": self._switch})
            return
        does, name, text = (str(request.args[key]) for key in ("does", "entry", "text"))
        text = text[:LONGEST]
        plan = self._agent.node.plan
        entry = next((entry for entry in plan.schedule if entry.name == name), None)
        if does not in ("begin", "end", "fire", "note"):
            request.fail("bad-request", f"cannot do {does!r:.40}: it is nothing that a schedule does")
        elif does == "note":
            self._agent.note("schedule", "", text, notable=True)
            request.reply({})
        elif entry is None and (name or does != "end"):
            request.fail("unknown", f"cannot do {name!r:.80}: the plan in force has no such entry")
        elif entry is not None and entry.services:
            for service in entry.services:
                self._agent.emit(Wake(service, does != "end", text))
            request.reply({})
        elif self._switch == RUNNING:
            request.fail("busy", "cannot switch: the switch before is under way", "try again later")
        else:
            self._switch = RUNNING
            self._agent.note("schedule", "", text, notable=True)
            self._front_end(words(plan, entry, does), text, self._ended)
            request.reply({})

    def _ended(self, failure: str) -> None:
        self._switch = FAILED if failure else DONE


def words(plan: Plan, entry: Entry | None, does: str) -> list[str]:
    """The front end's command for a switch: into a window's profile and back the schedule stays the same one."""
    home = next((flag.removeprefix(FLAG) for flag in plan.flags if flag.startswith(FLAG)), plan.source)
    flags = [flag for flag in plan.flags if not flag.startswith(FLAG)]
    if does == "end" or entry is None:
        return ["--config", home, *flags]
    return ["--profile", entry.profile, *flags, *([FLAG + home] if entry.is_window else [])]
