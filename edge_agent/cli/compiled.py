"""``edge-agent --plan FILE``, the short way: a compiled plan to a new resident, or to the agent that runs."""

from __future__ import annotations

import os

from ..profile.directories import variable
from . import resident
from .handover import hand_over

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from .context import Context

_TAKEN = ("--plan", "--run-dir", "--data-dir", "--log-dir", "--config-dir", "--enforcement")


class Options:
    """What argparse would have made of the words: the directories for ``context.make``, and these two."""

    def __init__(self, given: dict[str, str]) -> None:
        self.plan = given.pop("--plan")
        self.enforcement = given.pop("--enforcement", None)
        for name, value in given.items():
            setattr(self, name.removeprefix("--").replace("-", "_"), value)


def options(words: Sequence[str]) -> Options | None:
    """The options, or None when there are others, for which the long way must be taken."""
    given: dict[str, str] = {}
    rest = iter(words)
    for word in rest:
        name, equals, value = word.partition("=")
        if name not in _TAKEN or name in given:
            return None
        given[name] = value if equals else next(rest, "")
    return Options(given) if all(given.values()) and "--plan" in given else None


def run(context: Context, options: Options) -> int | None:
    """Switch, or become the resident. None when a cgroup must be had first, or the control socket has a group."""
    client = context.connect_if_running()
    if client is not None:
        with client:
            return hand_over(context, client, read_plan(options.plan))
    place = resident.cgroup_place(options.enforcement or "auto", context.environ)
    if place is None or variable(context.environ, "CONTROL_GROUP")[0]:
        return None
    device = ""
    if place:
        from ..host.facts import gather  # some 20 ms, needed only where io.max can be written

        device = gather(data_dir=context.directories.data).io_device
    arguments = ["--plan", os.path.abspath(options.plan)]
    resident.execute(
        context.directories, arguments, enforcement=options.enforcement, cgroup_path=place, io_device=device
    )
    return None


def read_plan(path: str) -> bytes:
    """A compiled plan as it is in its file."""
    with open(path, "rb") as file:
        return file.read()
