"""The governor's senses, by files made up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edge_agent.host.senses import CgroupSenses, MachineSenses
from edge_agent.model import Limits, Service

MEMINFO = "MemTotal: 1000 kB\nMemFree: 1 kB\nMemAvailable: 300 kB\nSwapFree: 0 kB\n"


class Containment:
    """What the senses ask of one."""

    def __init__(self, device: str = "8:0", missing: dict[str, str] | None = None) -> None:
        self.io_device, self.missing, self.found = device, missing or {}, Cgroup()

    def cgroup(self, name: str | None) -> Any:
        return self.found


class Cgroup:
    """Remembers what was written."""

    def __init__(self) -> None:
        self.cpu_max: int | None = -1
        self.io_max: dict[str, dict[str, int | None]] = {}


def machine(tmp_path: Path, *, psi: bool) -> tuple[str, str]:
    proc, block = tmp_path / "proc", tmp_path / "sys/dev/block/8:0"
    block.mkdir(parents=True)
    (block / "stat").write_text(f"{' '.join(map(str, range(9)))} 1234 11 0 0 0 0\n")
    (proc / "pressure").mkdir(parents=True)
    (proc / "meminfo").write_text(MEMINFO)
    if psi:
        (proc / "pressure/memory").write_text("some avg10=0 total=7\nfull avg10=0 total=5\n")
    return str(proc), str(tmp_path / "sys")


@pytest.mark.parametrize(("psi", "busy"), [(False, 1_234_000), (True, 0)])
def test_the_disks_busy_time_is_read_where_stalls_are_not_measured(tmp_path: Path, psi: bool, busy: int) -> None:
    containment: Any = Containment()
    found = CgroupSenses(containment, *machine(tmp_path, psi=psi)).machine()
    assert (found.disk, found.available, found.memory) == (busy, 300 << 10, 1000 << 10)
    containment.io_device = ""
    assert CgroupSenses(containment, str(tmp_path / "proc"), str(tmp_path / "sys")).machine().disk == 0


def test_what_cannot_be_held_is_known_with_the_reason(tmp_path: Path) -> None:
    proc, sys = machine(tmp_path, psi=True)
    containment: Any = Containment("", {"cpu": "refused:EBUSY", "pids": "absent"})
    senses = CgroupSenses(containment, proc, sys)
    assert senses.unheld == {
        "cpu": "no cpu controller (refused:EBUSY)",
        "io": "the data directory is on no disk that io.max could name",
    }
    containment.missing["io"] = "absent"
    assert senses.unheld["io"] == "no io controller (absent)"
    assert MachineSenses(proc).unheld == {}


def test_one_resource_is_given_back_and_the_other_stays_held(tmp_path: Path) -> None:
    containment: Any = Containment()
    senses, cgroup = CgroupSenses(containment, *machine(tmp_path, psi=True)), containment.found
    service = Service("web", ("/bin/x",), limits=Limits(cpu_limit=700, io_write_bps=5))
    senses.squeeze("web", "cpu", 300, swap=False)
    senses.squeeze("web", "io", 1000, swap=False)
    senses.relax(service, "cpu")
    assert (cgroup.cpu_max, cgroup.io_max) == (700, {"8:0": {"rbps": 1000, "wbps": 1000}})
    senses.relax(service, "io")
    assert cgroup.io_max == {"8:0": {"rbps": None, "wbps": 5}}
