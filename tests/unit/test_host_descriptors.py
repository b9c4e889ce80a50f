"""Files of cgroup v2, on a directory that poses as one; the contents are a kernel's (6.1)."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.host.cgroupfs import Cgroup
from edge_agent.host.descriptors import CpuMax, FlatKeyed, IntFile, MaxFile, NestedKeyed, Pressure, Weight, Words

CONTENTS = {
    "cgroup.controllers": "cpu io memory pids\n",
    "cgroup.events": "populated 1\nfrozen 0\n",
    "cgroup.freeze": "0\n",
    "cgroup.kill": "",
    "cgroup.procs": "12\n7\n",
    "cgroup.subtree_control": "",
    "memory.current": "4096\n",
    "memory.low": "0\n",
    "memory.max": "max\n",
    "memory.oom.group": "0\n",
    "memory.events": "low 0\nhigh 0\nmax 12\noom 1\noom_kill 2\noom_group_kill 1\n",
    "memory.pressure": (
        "some avg10=1.50 avg60=0.20 avg300=0.00 total=31337\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=9\n"
    ),
    "cpu.max": "max 100000\n",
    "cpu.stat": "usage_usec 1500\nuser_usec 1000\nsystem_usec 500\n",
    "cpu.weight": "100\n",
    "io.weight": "default 100\n8:0 50\n",
    "io.max": "8:16 rbps=2097152 wbps=max riops=max wiops=120\n",
    "pids.max": "max\n",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in CONTENTS.items():
        (tmp_path / name).write_text(text, encoding="ascii")
    return tmp_path


@pytest.fixture
def cgroup(folder: Path) -> Cgroup:
    return Cgroup(str(folder))


def test_reading(cgroup: Cgroup) -> None:
    assert cgroup.controllers == ["cpu", "io", "memory", "pids"]
    assert cgroup.subtree_control == []
    assert cgroup.events == {"populated": 1, "frozen": 0}
    assert cgroup.freeze is False
    assert cgroup.memory_current == 4096
    assert cgroup.memory_max is None
    assert cgroup.memory_events["oom_group_kill"] == 1
    assert cgroup.memory_pressure["some"] == {"avg10": 1.5, "avg60": 0.2, "avg300": 0.0, "total": 31337.0}
    assert cgroup.cpu_max is None
    assert cgroup.cpu_stat["usage_usec"] == 1500
    assert cgroup.cpu_weight == 100
    assert cgroup.io_weight == 100
    assert cgroup.io_max == {"8:16": {"rbps": 2097152, "wbps": None, "riops": None, "wiops": 120}}


def test_writing(cgroup: Cgroup, folder: Path) -> None:
    cgroup.memory_max = 8192
    assert (folder / "memory.max").read_text(encoding="ascii").startswith("8192")
    cgroup.cpu_max = 250
    assert (folder / "cpu.max").read_text(encoding="ascii").startswith("25000 100000")
    assert cgroup.cpu_max == 250
    cgroup.memory_oom_group = True
    assert cgroup.memory_oom_group is True
    cgroup.kill_all = True
    assert (folder / "cgroup.kill").read_text(encoding="ascii") == "1"
    cgroup.io_max = {"8:0": {"rbps": 5, "wbps": None}}
    assert (folder / "io.max").read_text(encoding="ascii").startswith("8:0 rbps=5 wbps=max")


def test_what_may_not_be_done(cgroup: Cgroup) -> None:
    with pytest.raises(RuntimeError, match="writeonly"):
        _ = cgroup.kill_all
    with pytest.raises(RuntimeError, match="readonly"):
        cgroup.events = {}


def test_a_missing_file_is_an_oserror(cgroup: Cgroup, folder: Path) -> None:
    (folder / "memory.max").unlink()
    with pytest.raises(FileNotFoundError):
        _ = cgroup.memory_max
    with pytest.raises(FileNotFoundError):
        cgroup.memory_max = 1
    assert not (folder / "memory.max").exists(), "a write must not make a file"


@given(st.one_of(st.none(), st.integers(min_value=0, max_value=2**63 - 1)))
def test_max_round_trip(value: int | None) -> None:
    file = MaxFile("memory.max")
    assert file.sanitize_get(str(file.sanitize_set(value)) + "\n") == value


@given(st.one_of(st.none(), st.integers(min_value=1, max_value=1024 * 1000)))
def test_cpu_max_round_trip_and_least_quota(value: int | None) -> None:
    file = CpuMax("cpu.max")
    text = file.sanitize_set(value)
    assert file.sanitize_get(text + "\n") == value
    quota, period = text.split()
    assert 1000 <= int(period) <= 1_000_000
    assert quota == "max" or int(quota) >= 1000


@given(
    st.dictionaries(
        st.from_regex(r"[0-9]{1,3}:[0-9]{1,3}", fullmatch=True),
        st.dictionaries(
            st.sampled_from(["rbps", "wbps", "riops", "wiops"]), st.one_of(st.none(), st.integers(1, 2**60)), min_size=1
        ),
        max_size=3,
    )
)
def test_nested_round_trip(value: dict[str, dict[str, int | None]]) -> None:
    file = NestedKeyed("io.max")
    assert file.sanitize_get(file.sanitize_set(value)) == value


@pytest.mark.parametrize("file", [IntFile("x"), MaxFile("x"), CpuMax("x"), FlatKeyed("x"), Pressure("x"), Weight("x")])
@given(text=st.text(alphabet="ab1 =\n", min_size=1, max_size=20))
def test_foreign_content_is_a_value_error_or_a_value(file: IntFile, text: str) -> None:
    with contextlib.suppress(ValueError):
        file.sanitize_get(text)


def test_filename_is_bytes_whatever_was_given() -> None:
    assert Words("cgroup.controllers").filename == b"cgroup.controllers"


def test_scans_take_gone_as_an_answer(cgroup: Cgroup, folder: Path) -> None:
    assert cgroup.procs() == [12, 7]
    (folder / "cgroup.procs").unlink()
    assert cgroup.procs() == []
    assert cgroup.populated()
    (folder / "cgroup.events").write_text("populated 0\nfrozen 0\n", encoding="ascii")
    assert not cgroup.populated()
    assert cgroup.child("none") is None
    cgroup.close()
    cgroup.close()
    assert cgroup.children() == []


def test_a_symlink_is_not_a_cgroup(cgroup: Cgroup, folder: Path) -> None:
    (folder / "link").symlink_to("/tmp")
    assert cgroup.child("link") is None
    assert cgroup.children() == []


def test_enable_leaves_alone_what_is_enabled(cgroup: Cgroup, folder: Path) -> None:
    control = folder / "cgroup.subtree_control"
    cgroup.enable("memory")
    assert control.read_text(encoding="ascii") == "+memory"
    control.write_text("cpu memory\n", encoding="ascii")
    cgroup.enable("cpu")
    assert control.read_text(encoding="ascii") == "cpu memory\n"
    cgroup.disable("cpu")
    assert control.read_text(encoding="ascii").startswith("-cpu")
