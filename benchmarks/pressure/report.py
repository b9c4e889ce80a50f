"""From what was seen in the guest to tables. Pure: samples in, text out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from ..report import Goal, markdown, number

Samples = Mapping[str, Sequence[Mapping[str, Any]]]
"""Governor -> rounds -> part ('idle' or a kind of hog) -> what was seen, as ``guest.Session`` has it."""

AGENT, DEFAULT, EARLY = "edge-agent", "systemd-oomd", "earlyoom"
FIXED = "edge-agent, fixed"
LENDING = "lending: "
TIMEOUT = 5.0
"""Seconds after which a request has failed."""
BAD = 2.0
"""A request that takes so many times the idle p99 of its round was harmed."""


def percentile(latencies: Sequence[float], share: float) -> float | None:
    """Seconds, by nearest rank; a failed one counts as the longest there is. None of nothing."""
    if not latencies:
        return None
    ranked = sorted(TIMEOUT if latency < 0 else latency for latency in latencies)
    return ranked[min(len(ranked) - 1, int(share * len(ranked)))]


def failed(latencies: Sequence[float]) -> int:
    """How many had no answer."""
    return sum(1 for latency in latencies if latency < 0)


def slowdown(sample: Mapping[str, Any], kind: str) -> float | None:
    """The essential's p99 beside a hog, as a multiple of its p99 in the same round without."""
    idle, during = percentile(sample["idle"]["latencies"], 0.99), percentile(sample[kind]["during"], 0.99)
    return None if not idle or during is None else during / idle


def recovered(sample: Mapping[str, Any], kind: str) -> float | None:
    """Seconds from the hog's start until the last harmed request was over; 0: none was."""
    idle = percentile(sample["idle"]["latencies"], 0.99)
    if idle is None:
        return None
    seen = zip(sample[kind]["due"], sample[kind]["during"], strict=True)
    ends = [due + (TIMEOUT if took < 0 else took) for due, took in seen if took < 0 or took > BAD * idle]
    return max(ends, default=0.0)


def typical(samples: Samples, governor: str, kind: str, what: str) -> float | None:
    """The median over the rounds; None when there is none."""
    found = [_value(sample, kind, what) for sample in samples.get(governor, ()) if kind in sample]
    values = [value for value in found if value is not None]
    return median(values) if values else None


def _value(sample: Mapping[str, Any], kind: str, what: str) -> float | None:
    part = sample[kind]
    if what in ("p50", "p99"):
        latencies = part["latencies"] if kind == "idle" else part["during"]
        return percentile(latencies, float(what[1:]) / 100)
    if what == "after":
        return percentile(part["after"], 0.99)
    if what == "failed":
        return float(failed(part["during"]) + failed(part["after"]))
    if what == "slowdown":
        return slowdown(sample, kind)
    if what == "recovered":
        return recovered(sample, kind)
    if what == "work":
        return float(part["work"]) / sample["idle"]["work"] if sample["idle"]["work"] else None
    value = part[what]
    return None if value is None else float(value)


_ROWS = (
    ("p50", "essential's p50, ms", 1000.0, 0),
    ("p99", "essential's p99, ms", 1000.0, 0),
    ("slowdown", "  times its idle p99", 1.0, 1),
    ("after", "p99 afterwards, ms", 1000.0, 0),
    ("failed", "requests failed", 1.0, 0),
    ("dealt", "hog ended or held, s", 1.0, 1),
    ("recovered", "last harmed request over, s", 1.0, 1),
    ("work", "worker, times idle", 1.0, 2),
    ("wakeups", "governor's wakeups a minute", 1.0, 0),
    ("cpu", "governor's CPU a minute, ms", 1000.0, 0),
)
_AT_REST = ("p50", "p99", "wakeups", "cpu")
_NEVER_DEALT = ("cpu", "io")


def table(samples: Samples, governors: Sequence[str]) -> str:
    """One configuration: a row per measure and hog, a column per governor."""
    kinds = [kind for kind in ("idle", "leak", "memory", "cpu", "io") if _seen(samples, kind)]
    rows = []
    for kind in kinds:
        for what, title, scale, digits in _ROWS:
            if (kind == "idle" and what not in _AT_REST) or (kind in _NEVER_DEALT and what == "dealt"):
                continue
            values = [typical(samples, name, kind, what) for name in governors]
            cells = [_cell(samples, name, value, scale, digits) for name, value in zip(governors, values, strict=True)]
            rows.append([f"{kind}: {title}", *cells])
    return markdown(["", *governors], rows)


def _seen(samples: Samples, kind: str) -> bool:
    rounds = [sample for name, found in samples.items() if not name.startswith(LENDING) for sample in found]
    return any(kind in sample for sample in rounds)


def _cell(samples: Samples, governor: str, value: float | None, scale: float, digits: int) -> str:
    if not samples.get(governor):
        return "not available"
    return "-" if value is None else number(value * scale, digits)


def deeds(samples: Samples, governors: Sequence[str]) -> str:
    """Who was ended or held, by the governors' own words, of the first round."""
    lines = []
    for name in governors:
        for sample in samples.get(name, ())[:1]:
            for kind, part in sample.items():
                done = part.get("done") if isinstance(part, Mapping) else None
                if done:
                    lines.append(f"- {name}, {kind}: {'; '.join(done)}")
    return "\n".join(lines)


def goals(samples: Samples) -> list[Goal]:
    """What issue 4 asks for, of one configuration. Reported, never enforced."""
    found = []
    for kind in ("leak", "memory"):
        if not _seen(samples, kind):
            continue
        ours, theirs = typical(samples, AGENT, kind, "dealt"), typical(samples, DEFAULT, kind, "dealt")
        if samples.get(DEFAULT):
            # One that never acted is counted with the time it was given, which is the least it would have taken.
            theirs = theirs if theirs is not None else typical(samples, DEFAULT, kind, "recovered")
            times = theirs / ours if ours and theirs else None
            found.append(Goal(f"{kind}: dealt with so many times faster than by systemd-oomd", times, least=10.0))
        early = typical(samples, EARLY, kind, "dealt")
        found.append(Goal(f"{kind}: time of earlyoom's", ours / early if ours and early else None, most=1.0))
    for kind, most in (("leak", 1.2), ("memory", 1.2), ("cpu", 1.5), ("io", 1.5)):
        if _seen(samples, kind):
            found.append(
                Goal(f"{kind}: essential's p99, times idle", typical(samples, AGENT, kind, "slowdown"), most=most)
            )
            found.append(Goal(f"{kind}: requests failed", typical(samples, AGENT, kind, "failed"), most=0.0))
    return found


def lending(samples: Samples) -> list[Goal]:
    """The worker beside idle neighbours, and the lender's way back."""
    fixed, lent = (samples.get(LENDING + name, ()) for name in (FIXED, AGENT))
    if not fixed or not lent:
        return []
    gain = median(float(part["work"]) for part in lent) / median(float(part["work"]) for part in fixed)
    back = [float(part["back"]) for part in lent if part.get("back") is not None]
    return [
        Goal("worker beside an idle neighbour: times its throughput under fixed limits", gain, least=1.5),
        Goal("the lender has its request back, s", median(back) if back else None, most=1.0),
    ]
