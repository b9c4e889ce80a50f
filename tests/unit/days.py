"""Three days of a small board, as a written trace: ``python -m tests.unit.days > days.trace``.

Nights are idle but for one heavy analytics job from two to three; a working day has bursts of the worker, an upload
every half hour, and telemetry that goes along. Once a day the importer leaks until it is in the way. The indexer is a
repeat offender: whenever it runs it takes what there is.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from random import Random
from typing import Any

MIB = 1 << 20
HOUR = 3600
DAYS = 3
HEADER: dict[str, Any] = {
    "edge-agent-trace": 1,
    "kind": "written",
    "machine": 1024 * MIB,
    "cpus": 4,
    "disk": 20 * MIB,
    "system": 150 * MIB,
}
PROFILE = "deployment: {mode: edge, resources: {total_memory: 800MiB, total_cpu: 4.0}}\nservices:\n" + "".join(
    f"  {name}: {{command: /bin/true, importance: {importance}, depends_on: [{needs}], "
    f"resources: {{memory: {{request: {request}MiB, limit: {limit}MiB}}, cpu: {{request: {cpu}}}}}, "
    f"freeze: {str(name == 'upload').lower()}}}\n"
    for name, importance, needs, request, limit, cpu in (
        ("broker", "essential", "", 60, 120, 0.3),
        ("web", "essential", "broker", 100, 200, 1.0),
        ("worker", "normal", "", 120, 400, 0.6),
        ("importer", 40, "", 60, 600, 0.2),
        ("upload", 30, "", 40, 300, 0.1),
        ("indexer", 20, "", 50, 700, 0.1),
        ("telemetry", "heavy", "", 20, 60, 0.1),
        ("analytics", "heavy", "", 80, 600, 0.2),
    )
)

Event = tuple[float, str, dict[str, int]]


def want(memory: int = 0, cpu: int = 0, io: int = 0, grows: int = 0) -> dict[str, int]:
    """MiB, milli-cores, MiB/s, KiB/s; what is 0 is left out."""
    found = {"memory": memory * MIB, "cpu": cpu, "io": io * MIB, "grows": grows * 1024}
    return {key: value for key, value in found.items() if value}


def day(start: float, random: Random) -> Iterator[Event]:
    """One day from midnight on."""
    yield start, "broker", want(50, 30)
    yield start, "web", want(70, 20)
    yield start, "worker", want(60, 5)
    yield start, "telemetry", want(15, 10)
    for name in ("importer", "upload", "indexer", "analytics"):
        yield start, name, want(10)
    yield start + 2 * HOUR, "analytics", want(520, 4000, 15)
    yield start + 3 * HOUR, "analytics", want(10)
    for half_hour in range(16, 40):
        at = start + half_hour * HOUR / 2
        yield at, "web", want(random.randint(75, 95), random.randint(200, 700))
        yield at + random.randint(60, 600), "worker", want(random.randint(150, 350), random.randint(300, 2500))
        yield at + random.randint(900, 1500), "worker", want(90, 50)
        yield at + 300, "upload", want(random.randint(60, 200), 100, random.randint(5, 40))
        yield at + 420, "upload", want(10)
    leak = start + random.randint(9, 15) * HOUR
    yield leak, "importer", want(80, 100, grows=random.randint(120, 300))
    yield leak + 2 * HOUR, "importer", want(10)
    for hour in (9, 10, 11, 16, 17):
        at = start + hour * HOUR + random.randint(0, 600)
        yield at, "indexer", want(680, 1500, 10)
        yield at + 20 * 60, "indexer", want(10)
    yield start + 20 * HOUR, "web", want(70, 20)


def lines(seed: int = 4) -> Iterator[str]:
    """The trace."""
    random = Random(seed)
    events = sorted(event for number in range(DAYS) for event in day(number * 24 * HOUR, random))
    yield json.dumps(HEADER)
    grouped: dict[float, dict[str, Any]] = {}
    for at, name, wants in events:
        grouped.setdefault(at, {})[name] = wants
    for at, together in grouped.items():
        yield json.dumps({"at": at, "wants": together})
    yield json.dumps({"at": DAYS * 24 * HOUR})


if __name__ == "__main__":
    sys.stdout.writelines(line + "\n" for line in lines())
