"""Limits to files, files to reports: the pure part, and the containment over directories that pose as cgroups."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.host import limits as held
from edge_agent.host.cgroup import CgroupContainment
from edge_agent.host.cgroupfs import Cgroup
from edge_agent.host.containment import ENFORCED, NOT_ENFORCED, SAMPLED, UNSET
from edge_agent.model import RESOURCES, Limits, Service

MIB = 1 << 20
FULL = Limits(
    memory_request=16 * MIB,
    memory_limit=64 * MIB,
    swap_limit=0,
    cpu_request=200,
    cpu_limit=1500,
    pids_limit=64,
    io_weight=300,
    io_read_bps=MIB,
    io_write_bps=None,
)
IO = held.Io("8:0", "io_weight")
KERNEL_DEFAULTS = {
    "cpu.max": "max 100000\n",
    "cpu.weight": "100\n",
    "memory.low": "0\n",
    "memory.max": "max\n",
    "memory.oom.group": "0\n",
    "memory.swap.max": "max\n",
    "pids.max": "max\n",
    "cgroup.procs": "",
    "cgroup.events": "populated 0\nfrozen 0\n",
    "memory.events": "oom 0\noom_kill 0\noom_group_kill 0\n",
    "memory.events.local": "oom 0\noom_kill 0\noom_group_kill 0\n",
}


def test_every_file_of_a_full_set_of_limits() -> None:
    wanted = {setting.attribute: setting.value for setting in held.settings(FULL, IO, 4)}
    assert wanted == {
        "memory_max": 64 * MIB,
        "memory_low": 16 * MIB,
        "memory_swap_max": 0,
        "memory_oom_group": True,
        "pids_max": 64,
        "cpu_weight": 200,
        "cpu_max": 1500,
        "io_weight": 300,
        "io_max": {"8:0": {"rbps": MIB, "wbps": None}},
    }


def test_without_limits_only_the_group_kill_and_the_weight_are_asked() -> None:
    asked = [setting.attribute for setting in held.settings(Limits(), IO, 4) if setting.asked]
    assert asked == ["memory_oom_group", "cpu_weight"]


def test_memory_high_is_never_set() -> None:
    """Without swap it is a livelock: the process is stuck and never killed."""
    assert not any("high" in setting.attribute for setting in held.settings(FULL, IO, 4))


@given(st.integers(1, 10_000), st.integers(1, 10_000), st.integers(1, 10))
def test_weights_keep_the_proportion_of_requests(one: int, two: int, cpus: int) -> None:
    assert held.cpu_weight(one, cpus) * two == held.cpu_weight(two, cpus) * one


@given(st.integers(0, 10**7), st.integers(1, 512))
def test_weights_are_the_kernels(request: int, cpus: int) -> None:
    assert 1 <= held.cpu_weight(request, cpus) <= 10_000


def test_weights_of_a_large_machine_keep_the_proportion() -> None:
    assert held.cpu_weight(40_000, 64) == pytest.approx(40 * held.cpu_weight(1000, 64), rel=0.01)


@pytest.mark.parametrize(("weight", "expected"), [(1, 1), (100, 100), (10_000, 1000), (5050, 550)])
def test_bfq_weight(weight: int, expected: int) -> None:
    assert held.bfq_weight(weight) == expected


def test_sizes_are_whole_pages() -> None:
    assert held.pages(held.PAGE * 3 + 1) == held.PAGE * 3
    assert held.pages(0) == 0


class TestReport:
    def test_names_every_resource_in_order(self) -> None:
        assert tuple(held.report(FULL, {}, {}, IO, sampled=True)) == RESOURCES

    def test_all_enforced(self) -> None:
        assert set(held.report(FULL, {}, {}, IO, sampled=True).values()) == {(ENFORCED, "")}

    def test_all_unset_but_the_group_kill(self) -> None:
        report = held.report(Limits(), {}, {}, IO, sampled=True)
        assert report.pop("oom_group") == (ENFORCED, "")
        assert set(report.values()) == {(UNSET, "")}

    def test_a_missing_controller_is_sampled_where_that_is_possible(self) -> None:
        report = held.report(FULL, {}, {"memory": "memory-disabled"}, IO, sampled=True)
        assert report["memory"] == (SAMPLED, "memory-disabled")
        assert report["swap"] == (NOT_ENFORCED, "memory-disabled")
        assert report["oom_group"] == (NOT_ENFORCED, "memory-disabled")
        assert report["cpu"] == (ENFORCED, "")
        report = held.report(FULL, {}, {"memory": "no-controller"}, IO, sampled=False)
        assert report["memory"] == (NOT_ENFORCED, "no-controller")

    def test_a_refusal_is_named(self) -> None:
        report = held.report(FULL, {"cpu": "refused:EINVAL"}, {}, IO, sampled=True)
        assert report["cpu"] == (NOT_ENFORCED, "refused:EINVAL")

    def test_io_without_a_disk_or_a_weighing_scheduler(self) -> None:
        assert held.report(FULL, {}, {}, held.Io(), sampled=True)["io"] == (NOT_ENFORCED, "no-device")
        weight = Limits(io_weight=10)
        assert held.report(weight, {}, {}, held.Io("8:0"), sampled=True)["io"] == (NOT_ENFORCED, "no-io-weight")


class Posing(CgroupContainment):
    """New cgroups come with the kernel's files. Truncating, as a kernel file is replaced and not overwritten."""

    def prepare(self, service: Service) -> dict[str, tuple[str, str]]:
        for name in self._services.children():
            _empty(Path(self.path, "services", name))
        return super().prepare(service)


def _empty(path: Path) -> None:
    for file in path.iterdir():
        file.unlink()


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    make = Cgroup.make

    def make_with_files(self: Cgroup, name: str) -> Cgroup:
        made = make(self, name)
        path = Path(f"/proc/self/fd/{made.fd}").readlink()
        for file, text in KERNEL_DEFAULTS.items():
            if not (path / file).exists():
                (path / file).write_text(text, encoding="ascii")
        (path / "cgroup.subtree_control").touch()
        (path / "cgroup.controllers").write_text("cpu memory pids\n", encoding="ascii")
        return made

    def write(self: Cgroup, filename: bytes, value: object) -> None:
        path = Path(f"/proc/self/fd/{self.fd}").readlink() / filename.decode()
        if not path.exists():
            raise FileNotFoundError(2, "No such file or directory", str(path))
        path.write_text(f"{value}\n", encoding="ascii")

    monkeypatch.setattr(Cgroup, "make", make_with_files)
    monkeypatch.setattr(Cgroup, "set_property", write)
    (tmp_path / "cgroup.controllers").write_text("cpu memory pids\n", encoding="ascii")
    (tmp_path / "cgroup.subtree_control").touch()
    return tmp_path


def test_prepare_writes_reads_back_and_reports(root: Path) -> None:
    containment = Posing(str(root))
    containment.open()
    assert containment.missing == {"io": "no-controller"}
    report = containment.prepare(Service("one", ("/bin/true",), limits=FULL))
    assert report["io"] == (NOT_ENFORCED, "no-controller")
    for resource in ("memory", "swap", "cpu", "pids", "oom_group"):
        assert report[resource] == (ENFORCED, "")
    files = root / "services" / "one"
    assert (files / "memory.max").read_text(encoding="ascii") == f"{64 * MIB}\n"
    assert (files / "memory.swap.max").read_text(encoding="ascii") == "0\n"
    assert not (root / "memory.max").exists(), "the unit's own attributes are systemd's"


def test_a_file_that_does_not_keep_its_value_is_not_enforced(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    containment = Posing(str(root))
    containment.open()
    monkeypatch.setattr(Cgroup, "set_property", lambda *_: None)
    report = containment.prepare(Service("one", ("/bin/true",), limits=FULL))
    for resource in ("memory", "swap", "cpu", "pids", "oom_group"):
        assert report[resource] == (NOT_ENFORCED, "readback")


def test_a_missing_swap_file_is_said(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(KERNEL_DEFAULTS, "memory.swap.max")
    containment = Posing(str(root))
    containment.open()
    report = containment.prepare(Service("one", ("/bin/true",), limits=FULL))
    assert report["swap"] == (NOT_ENFORCED, "refused:ENOENT")
    assert report["memory"] == (ENFORCED, "")
    report = containment.resize(Service("one", ("/bin/true",)))
    assert report["swap"] == (UNSET, "")


def test_a_raspberry_pi_as_it_comes(root: Path, tmp_path: Path) -> None:
    (root / "cgroup.controllers").write_text("cpuset cpu io pids\n", encoding="ascii")
    proc = tmp_path / "proc"
    proc.mkdir()
    (proc / "cmdline").write_text("coherent_pool=1M cgroup_disable=memory root=/dev/mmcblk0p2\n", encoding="ascii")
    containment = Posing(str(root), proc=str(proc))
    containment.open()
    assert containment.missing == {"memory": "memory-disabled"}
    assert containment.set_total(MIB, 1000) == {"memory": (SAMPLED, "memory-disabled"), "cpu": (ENFORCED, "")}


def test_a_guarantee_goes_down_before_the_limit(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    containment = Posing(str(root))
    containment.open()
    service = Service("one", ("/bin/true",), limits=FULL)
    containment.prepare(service)
    written: list[str] = []
    write = Cgroup.set_property

    def record(self: Cgroup, filename: bytes, value: object) -> None:
        written.append(filename.decode())
        write(self, filename, value)

    monkeypatch.setattr(Cgroup, "set_property", record)
    smaller = service._replace(limits=Limits(memory_request=MIB, memory_limit=2 * MIB))
    containment.resize(smaller)
    assert written.index("memory.low") < written.index("memory.max")
    written.clear()
    containment.resize(service)
    assert written.index("memory.max") < written.index("memory.low")


@pytest.mark.parametrize(
    ("grown", "expected"),
    [
        ({}, ""),
        ({"kills": 1}, "machine"),
        ({"kills": 1, "total": 1}, "total"),
        ({"kills": 1, "oom": 1}, "own"),
        ({"kills": 1, "oom": 1, "total": 1}, "own"),
        ({"total": 1}, ""),
        ({"oom": 1}, ""),
    ],
)
def test_attribution(root: Path, grown: dict[str, int], expected: str) -> None:
    containment = Posing(str(root))
    containment.open()
    containment.prepare(Service("one", ("/bin/true",)))
    _set_counts(root, "one", **grown)
    assert containment.oom_cause("one") == expected
    assert containment.oom_cause("one") == ""


def test_an_incident_of_the_total_does_not_explain_a_later_kill_of_another(root: Path) -> None:
    containment = Posing(str(root))
    containment.open()
    for name in ("one", "two", "three"):
        containment.prepare(Service(name, ("/bin/true",)))
    _set_counts(root, "one", kills=1, total=1)
    _set_counts(root, "two", kills=1, total=1)  # both victims of the same incident
    assert containment.oom_cause("one") == "total"
    assert containment.oom_cause("two") == "total"
    _set_counts(root, "three", kills=1, total=1)
    assert containment.oom_cause("three") == "machine"


def _set_counts(root: Path, name: str, *, oom: int = 0, kills: int = 0, total: int = 0) -> None:
    own = f"oom {oom}\noom_kill {kills}\noom_group_kill 0\n"
    (root / "services" / name / "memory.events").write_text(own, encoding="ascii")
    (root / "services" / "memory.events.local").write_text(f"oom {total}\noom_kill 0\n", encoding="ascii")
