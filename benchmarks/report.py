"""From samples to tables. Pure: numbers in, text out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

Samples = Mapping[str, Mapping[str, Sequence[float]]]
"""Candidate -> measure -> values: bytes, seconds or counts."""

PLAN = "edge-agent, plan"
COMMAND_LINE = "edge-agent, command line"
SAMPLING = "edge-agent, sampling"
PEERS = ("s6", "runit", "circusd", "supervisord")


@dataclass(frozen=True)
class Measure:
    """A row. ``scale`` turns a sample into what is printed."""

    key: str
    title: str
    scale: float = 1.0
    digits: int = 0


_MIB = 1 / (1 << 20)
_MS = 1000.0

MEASURES = (
    Measure("pss", "PSS, 2 s after start, MiB", _MIB, 1),
    Measure("rss", "RSS, 2 s after start, MiB", _MIB, 1),
    Measure("private_dirty", "Private_Dirty, 2 s after start, MiB", _MIB, 1),
    Measure("rested_pss", "PSS after the rest, MiB", _MIB, 1),
    Measure("rested_rss", "RSS after the rest, MiB", _MIB, 1),
    Measure("rested_private_dirty", "Private_Dirty after the rest, MiB", _MIB, 1),
    Measure("processes", "supervisor processes"),
    Measure("threads", "threads"),
    Measure("wakeups", "voluntary wakeups a minute at rest", 1, 1),
    Measure("cpu", "CPU a minute at rest, ms", _MS, 2),
    Measure("start", "execution to 20 running, ms", _MS, 1),
    Measure("start_cpu", "CPU of that, children included, ms", _MS, 1),
    Measure("stop", "stop-all, ms", _MS, 1),
    Measure("cycle", "stop-all and start-all, ms", _MS, 1),
    Measure("cycle_gap", "  of that, something is down, ms", _MS, 1),
    Measure("switch", "switch, 5 of 20 change: done, ms", _MS, 1),
    Measure("switch_gap", "  of that, something is down, ms", _MS, 1),
    Measure("switch_returned", "switch: command returned, ms", _MS, 1),
    Measure("kept", "switch: PIDs kept of 15"),
    Measure("status", "status command, ms", _MS, 1),
)
_RATIOS = (
    "pss",
    "rss",
    "wakeups",
    "cpu",
    "start",
    "start_cpu",
    "stop",
    "cycle",
    "cycle_gap",
    "switch",
    "switch_gap",
    "status",
)


def number(value: float, digits: int) -> str:
    """A number with thousands separated and the sign of a rounded zero left out."""
    return f"{value + 0.0:,.{digits}f}"


def cell(values: Sequence[float], measure: Measure) -> str:
    """Median, and the range when the values differ as printed; a dash without values."""
    if not values:
        return "-"
    shown = [number(value * measure.scale, measure.digits) for value in (median(values), min(values), max(values))]
    return shown[0] if shown[1] == shown[2] else f"{shown[0]} ({shown[1]}-{shown[2]})"


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """An aligned Markdown table; the first column is text, the others are numbers."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        first = cells[0].ljust(widths[0])
        others = (text.rjust(width) for text, width in zip(cells[1:], widths[1:], strict=True))
        return "| " + " | ".join((first, *others)) + " |"

    ruler = "|" + "|".join("-" * (width + 1) + ("-" if not n else ":") for n, width in enumerate(widths)) + "|"
    return "\n".join((line(header), ruler, *map(line, rows)))


def _values(samples: Samples, candidate: str, key: str) -> Sequence[float]:
    return samples.get(candidate, {}).get(key, ())


def table(samples: Samples, candidates: Sequence[str]) -> str:
    """Every measure by candidate: median (min-max)."""
    rows = [
        [measure.title, *(cell(_values(samples, name, measure.key), measure) for name in candidates)]
        for measure in MEASURES
    ]
    return markdown(["", *candidates], rows)


def ratio(samples: Samples, key: str, over: str, under: str) -> float | None:
    """Median of ``over`` divided by median of ``under``; None when either is missing or the divisor is 0."""
    above, below = _values(samples, over, key), _values(samples, under, key)
    if not above or not below or median(below) == 0:
        return None
    return median(above) / median(below)


def ratios(samples: Samples, ours: Sequence[str], peers: Sequence[str] = PEERS) -> str:
    """edge-agent's medians divided by the peers' (below 1: edge-agent needs less)."""
    titles = {measure.key: measure.title.partition(",")[0] for measure in MEASURES}
    titles |= {
        "switch": "switch",
        "cycle_gap": "  of that, something is down",
        "switch_gap": "  of that, something is down",
    }
    pairs = [(mine, peer) for mine in ours for peer in peers]
    rows = []
    for key in _RATIOS:
        quotients = [ratio(samples, key, mine, peer) for mine, peer in pairs]
        rows.append([titles[key], *("-" if value is None else number(value, 2) for value in quotients)])
    header = [f"{mine.removeprefix('edge-agent, ')} / {peer}" for mine, peer in pairs]
    return markdown(["edge-agent", *header], rows)


@dataclass(frozen=True)
class Goal:
    """What issue 2 asks for, and what this run gave; ``value`` is None when it was not measured."""

    text: str
    value: float | None
    most: float | None = None
    least: float | None = None

    @property
    def met(self) -> bool | None:
        if self.value is None:
            return None
        if self.most is not None and self.value > self.most:
            return False
        return self.least is None or self.value >= self.least


def _typical(samples: Samples, candidate: str, key: str) -> float | None:
    values = _values(samples, candidate, key)
    return median(values) if values else None


def _gain(samples: Samples, candidate: str, kind: str = "") -> float | None:
    """How many times faster a switch is than the same candidate's stop-all and start-all; ``kind`` _gap: the outage."""
    cycle, switch = _typical(samples, candidate, f"cycle{kind}"), _typical(samples, candidate, f"switch{kind}")
    return cycle / switch if cycle is not None and switch else None


def goals(samples: Samples) -> list[Goal]:
    """The project's own goals. Reported, never enforced: a busy machine misses them without a fault."""
    found = [
        Goal("start from a compiled plan / s6", ratio(samples, "start", PLAN, "s6"), most=3),
        Goal("start from a compiled plan / circusd", ratio(samples, "start", PLAN, "circusd"), most=0.5),
        Goal(
            "start from the command line / supervisord",
            ratio(samples, "start", COMMAND_LINE, "supervisord"),
            1,
        ),
        Goal("stop-all / s6", ratio(samples, "stop", PLAN, "s6"), most=3),
        Goal("switch from a compiled plan, times faster than stop-all/start-all", _gain(samples, PLAN), least=5),
        Goal(
            "switch from the command line, times faster than stop-all/start-all",
            _gain(samples, COMMAND_LINE),
            least=5,
        ),
        Goal("outage of a switch, times shorter than of stop-all/start-all", _gain(samples, PLAN, "_gap"), least=5),
        Goal("PIDs kept by a switch", _typical(samples, COMMAND_LINE, "kept"), least=15),
    ]
    for name, mib in ((PLAN, 10), (SAMPLING, 14)):
        pss = _typical(samples, name, "rested_pss")
        found.append(Goal(f"PSS at rest, {name}, MiB", None if pss is None else pss * _MIB, most=mib))
    found += [
        Goal(f"wakeups a minute, {name}", _typical(samples, name, "wakeups"), most=0) for name in (PLAN, COMMAND_LINE)
    ]
    return found


def goal_table(found: Sequence[Goal]) -> str:
    """The goals with what was measured."""
    words = {True: "met", False: "missed", None: "not measured"}
    rows = []
    for goal in found:
        bound = f"≤ {goal.most:g}" if goal.most is not None else f"≥ {goal.least:g}"
        rows.append([goal.text, bound, "-" if goal.value is None else number(goal.value, 2), words[goal.met]])
    return markdown(["goal", "bound", "measured", ""], rows)
