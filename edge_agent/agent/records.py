"""Unit records on disk, kept the same as the node: written before anything is done, and again later if refused."""

from __future__ import annotations

from ..lifecycle import STARTING, Unit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..host.loop import Timer
    from .performer import Agent

AGAIN = 10.0
"""Seconds until what the disk has refused is tried again."""


class Records:
    """``forgotten``: called with the name of a service that is no longer part of the node, before its record goes."""

    def __init__(self, agent: Agent, forgotten: Callable[[str], None]) -> None:
        self._agent = agent
        self._forgotten = forgotten
        self._saved: dict[str, Unit | None] = {}  # as on disk; None: to be written
        self._refused: set[str] = set()
        self._timer: Timer | None = None

    def found(self, names: Iterable[str]) -> None:
        """What an earlier agent left: each is written anew, or dropped with its service."""
        self._saved.update(dict.fromkeys(names))

    @property
    def complete(self) -> bool:
        """Is everything on disk as it is?"""
        return not self._refused

    def save(self) -> None:
        """Write what has changed; drop what is gone."""
        units = self._agent.node.units
        for name, unit in units.items():
            if self._saved.get(name) is unit or (unit.state == STARTING and not unit.pid):
                continue  # what is not forked yet needs no record: it runs nothing before its pid is on one
            self._write(name, unit)
        for name in [name for name in self._saved if name not in units]:
            self._drop(name)

    def close(self) -> None:
        """Everything is stopped: leave nothing behind."""
        for name in list(self._saved):
            self._drop(name)
        if self._timer is not None:
            self._timer.cancel()

    def _write(self, name: str, unit: Unit) -> None:
        store = self._agent.store
        try:
            store.save_unit(unit)
        except OSError as error:
            self._saved[name] = None
            if name not in self._refused:
                self._refused.add(name)
                text = f"cannot write its record: {error.strerror}; fix: free {store.run_dir}"
                self._agent.note("record", name, text)
            if self._timer is None:
                loop = self._agent.loop
                self._timer = loop.at(loop.now() + AGAIN, self._again)
        else:
            self._saved[name] = unit
            self._refused.discard(name)

    def _again(self) -> None:
        self._timer = None
        self.save()

    def _drop(self, name: str) -> None:
        del self._saved[name]
        self._refused.discard(name)
        self._forgotten(name)
        self._agent.store.drop_unit(name)
