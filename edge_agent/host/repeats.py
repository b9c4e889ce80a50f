"""Which events are worth a write to the disk when they come again and again: flash wears. Pure, time is an input."""

from __future__ import annotations

REPEATING = ("exit", "oom", "launch-failed", "unhealthy", "over-limit")
"""Kinds that a service can bring about by itself, as often as it likes."""
GAP = 600.0
LONGEST_GAP = 3600.0  # seconds, both
RUNS = 64
"""Different events of which repetitions are known; the one longest without any is forgotten for a new one."""


class _Run:
    """Repetitions of one event. ``left_out``: since it was last written."""

    __slots__ = ("gap", "latest", "left_out", "written")

    def __init__(self, now: float) -> None:
        self.written = self.latest = now
        self.gap = GAP
        self.left_out = 0


class Repeats:
    """Which of the same events are worth a write: the first, then one after GAP, twice GAP, ... seconds, LONGEST_GAP.

    A service that crashes every minute is written 3 times in the first hour and once an hour then. One that was
    quiet for as long as its gap begins anew. A power cut loses how often what is on disk has come again, no more.
    """

    def __init__(self) -> None:
        self._runs: dict[tuple[str, str, str], _Run] = {}  # the latest last

    def due(self, kind: str, service: str, text: str, now: float) -> int:
        """-1: not to be written now. Otherwise how many like it were left out since the last that was."""
        run = self._runs.get(_likeness(kind, service, text))
        if run is None or kind not in REPEATING:
            return 0
        if now - run.written < run.gap:
            run.left_out += 1
            run.latest = now
            return -1
        return run.left_out

    def written(self, kind: str, service: str, text: str, now: float) -> None:
        """It is on disk."""
        if kind not in REPEATING:
            return
        likeness = _likeness(kind, service, text)
        run = self._runs.pop(likeness, None)
        if run is None or now - run.latest >= run.gap:
            run = _Run(now)
        else:
            run.gap = min(2 * run.gap, LONGEST_GAP)
            run.written = run.latest = now
            run.left_out = 0
        self._runs[likeness] = run
        if len(self._runs) > RUNS:
            del self._runs[next(iter(self._runs))]


def _likeness(kind: str, service: str, text: str) -> tuple[str, str, str]:
    """Events that are the same to a person. Measurements may differ; the code or signal of an exit is what it is."""
    return kind, service, text if kind == "exit" else "".join(c for c in text if not c.isdigit())
