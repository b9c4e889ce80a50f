"""What a service measures, in the terms of Prometheus' text format, to be gathered from its socket.

    metrics {} -> {metrics: [[name, kind, help, [[{label: text}, number], ...]], ...]}

Nothing is measured or stored for it between two questions: counters are those the service keeps anyway, and the price
of the memory's size (the kernel walks every page table) is paid when somebody asks. No label names the service or the
node: who asks knows whom.
"""

from __future__ import annotations

from ..records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    Sample = tuple[Mapping[str, str], float]

COUNTER, GAUGE = "counter", "gauge"
ROLLUP = "/proc/self/smaps_rollup"


class Metric(Record):
    """One family: https://prometheus.io/docs/instrumenting/exposition_formats."""

    name: str  # [a-z_]+, with the unit at its end; a counter ends in _total
    kind: str  # COUNTER | GAUGE
    help: str
    samples: tuple[Sample, ...]  # labels by name, value


def counter(name: str, about: str, value: float, **labels: str) -> Metric:
    """A family of one sample that only grows while the service runs."""
    return Metric(name, COUNTER, about, ((labels, value),))


def gauge(name: str, about: str, value: float, **labels: str) -> Metric:
    """A family of one sample that goes up and down."""
    return Metric(name, GAUGE, about, ((labels, value),))


def own_pss(path: str = ROLLUP) -> int | None:
    """Proportional set size of this process in bytes, proc(5); None where the kernel does not tell."""
    try:
        with open(path, encoding="ascii") as file:
            for line in file:
                if line.startswith("Pss:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None
