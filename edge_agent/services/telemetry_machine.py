"""What everybody may read of the machine and of processes: proc(5) and cgroups(7). Nobody is woken for it.

Names of processes' metrics are those of every Prometheus client library
(https://prometheus.io/docs/instrumenting/writing_clientlibs/#process-metrics).
"""

from __future__ import annotations

import os

from .metrics import COUNTER, GAUGE, Metric
from .telemetry_text import PREFIX

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    Samples = list[tuple[dict[str, str], float]]

RESOURCES = ("cpu", "memory", "io")
_WAITS = "Time in which some task, or all of them at once, waited for the resource: PSI."


def machine(proc: str = "/proc") -> list[Metric]:
    """Memory and stalls of the machine. A file that is not there makes no metric."""
    found = []
    for key, name in (("MemTotal", "memory_total_bytes"), ("MemAvailable", "memory_available_bytes")):
        value = _meminfo(_read(f"{proc}/meminfo"), key)
        if value is not None:
            found.append(Metric(f"{PREFIX}machine_{name}", GAUGE, f"{key} of proc_meminfo(5).", (({}, value),)))
    waits: Samples = []
    for resource in RESOURCES:
        waits += _stalls(f"{proc}/pressure/{resource}", {"resource": resource})
    return [*found, *_family("machine_pressure_seconds_total", COUNTER, _WAITS, waits)]


def processes(pids: Mapping[str, int], proc: str = "/proc", cgroups: str = "/sys/fs/cgroup") -> list[Metric]:
    """Of each main process its size, processor time and start; of each service's cgroup its stalls and time."""
    booted = _number(_field(_read(f"{proc}/stat"), "btime"))
    ticks, page = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGESIZE")
    seconds: Samples = []
    starts: Samples = []
    resident: Samples = []
    virtual: Samples = []
    waits: Samples = []
    used: Samples = []
    for name, pid in pids.items():
        labels = {"service": name}
        fields = _read(f"{proc}/{pid}/stat").rpartition(")")[2].split()  # the name may hold anything
        if len(fields) < 22:
            continue  # it has ended
        seconds.append((labels, (int(fields[11]) + int(fields[12])) / ticks))
        starts.append((labels, booted + int(fields[19]) / ticks))
        virtual.append((labels, int(fields[20])))
        resident.append((labels, int(fields[21]) * page))
        place = _cgroup(_read(f"{proc}/{pid}/cgroup"))
        if not place.endswith(f"/{name}"):
            continue  # no cgroup of its own: the numbers would be those of others
        for resource in RESOURCES:
            waits += _stalls(f"{cgroups}{place}/{resource}.pressure", {"resource": resource, **labels})
        micros = _field(_read(f"{cgroups}{place}/cpu.stat"), "usage_usec")
        if micros:
            used.append((labels, _number(micros) / 1e6))
    return [
        *_family("process_resident_memory_bytes", GAUGE, "Resident memory size in bytes.", resident, ""),
        *_family("process_virtual_memory_bytes", GAUGE, "Virtual memory size in bytes.", virtual, ""),
        *_family("process_cpu_seconds_total", COUNTER, "Total user and system CPU time.", seconds, ""),
        *_family("process_start_time_seconds", GAUGE, "Start time since unix epoch.", starts, ""),
        *_family("service_cpu_seconds_total", COUNTER, "Processor time of all its processes.", used),
        *_family("service_pressure_seconds_total", COUNTER, _WAITS, waits),
    ]


def _family(name: str, kind: str, about: str, samples: Samples, prefix: str = PREFIX) -> list[Metric]:
    return [Metric(prefix + name, kind, about, tuple(samples))] if samples else []


def _stalls(path: str, labels: dict[str, str]) -> Samples:
    """'some avg10=0.00 avg60=0.00 avg300=0.00 total=0' and the same of 'full', in microseconds."""
    found: Samples = []
    for line in _read(path).splitlines():
        kind, _, rest = line.partition(" ")
        total = rest.rpartition("total=")[2]
        if kind in ("some", "full") and total.isdecimal():
            found.append(({"kind": kind, **labels}, int(total) / 1e6))
    return found


def _meminfo(text: str, key: str) -> int | None:
    words = _field(text, f"{key}:").split()
    return int(words[0]) * 1024 if words and words[0].isdecimal() else None


def _field(text: str, key: str) -> str:
    """What follows ``key`` and a space on the first line that begins so."""
    for line in text.splitlines():
        if line.startswith(f"{key} "):
            return line[len(key) + 1 :].strip()
    return ""


def _number(text: str) -> int:
    return int(text) if text.isdecimal() else 0


def _cgroup(text: str) -> str:
    """The path in the unified hierarchy; '' when there is none, or it is outside of what is seen here."""
    for line in text.splitlines():
        if line.startswith("0::/") and "/.." not in line:
            return line[3:]
    return ""


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(65_536)
    except OSError:
        return ""
