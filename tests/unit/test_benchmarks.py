"""The benchmark's pure parts: what /proc and the kernel's events say, the children, the tables."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import agent, observe, peers, plans, processes, report
from benchmarks.candidate import Rooms, Workload
from benchmarks.report import COMMAND_LINE, MEASURES, PLAN, Goal, Measure

ROLLUP = """55d1c7400000-7ffd1b5f4000 ---p 00000000 00:00 0                          [rollup]
Rss:                8944 kB
Pss:                6021 kB
Pss_Anon:           2600 kB
Private_Dirty:      2612 kB
THPeligible:           0
"""


def test_rollup_is_read_in_bytes() -> None:
    found = processes.parse_rollup(ROLLUP)
    assert found == {"Rss": 8944 << 10, "Pss": 6021 << 10, "Pss_Anon": 2600 << 10, "Private_Dirty": 2612 << 10}


def test_parent_of_a_process_with_a_hostile_name() -> None:
    assert processes.parse_parent("71 (a) S 1 (b) S 42 71 71 0 -1 4194560") == 42


def test_voluntary_switches_only() -> None:
    status = "Name:\tx\nvoluntary_ctxt_switches:\t12\nnonvoluntary_ctxt_switches:\t7\n"
    assert processes.parse_voluntary(status) == 12
    with pytest.raises(ValueError, match="no voluntary_ctxt_switches"):
        processes.parse_voluntary("Name:\tx\n")


def test_descendants_without_siblings() -> None:
    assert processes.descends({2: 1, 3: 2, 4: 3, 5: 1, 1: 0}, 2) == {2, 3, 4}


@given(st.dictionaries(st.integers(0, 20), st.integers(0, 20)), st.integers(0, 20))
def test_descendants_end_on_any_map(parents: dict[int, int], root: int) -> None:
    found = processes.descends(parents, root)
    assert root in found
    assert all(parents[pid] in found for pid in found - {root})


def _event(what: int, pid: int, tgid: int, nanoseconds: int) -> bytes:
    return bytes(36) + struct.pack("=IIQIIII", what, 0, nanoseconds, pid, tgid, 0, 0)


def test_exec_and_exit_of_processes_but_not_of_threads() -> None:
    assert observe.parse_event(_event(observe.EVENT_EXEC, 7, 7, 1_500_000_000)) == (observe.EVENT_EXEC, 7, 1.5)
    assert observe.parse_event(_event(observe.EVENT_EXIT, 7, 7, 2_000_000_000)) == (observe.EVENT_EXIT, 7, 2.0)
    assert observe.parse_event(_event(observe.EVENT_EXIT, 8, 7, 1)) is None
    assert observe.parse_event(_event(0x1, 7, 7, 1)) is None


@given(st.binary(max_size=80))
def test_any_datagram_is_an_event_or_none(datagram: bytes) -> None:
    event = observe.parse_event(datagram)
    assert event is None or event[0] in (observe.EVENT_EXEC, observe.EVENT_EXIT)


def test_versions_differ_in_the_last_services_only() -> None:
    workload = Workload(5000, count=20, changed=5)
    first, second = workload.children(0), workload.children(1)
    assert len(first) == len(second) == 20
    same = {name for argv, name in first.items() if second.get(argv) == name}
    assert same == set(workload.names()[:15])
    assert all(workload.owns(argv) for argv in (*first, *second))


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_workloads_with_other_markers_share_no_command_line(one: int, other: int) -> None:
    first, second = Workload(10**6 + one), Workload(10**6 + other)
    shared = (first.children(0) | first.children(1)).keys() & (second.children(0) | second.children(1)).keys()
    assert bool(shared) == (one == other)


@pytest.fixture
def rooms(tmp_path: Path) -> Rooms:
    return Rooms(tmp_path / "run", tmp_path / "data")


def test_run_scripts_change_only_where_the_version_does(rooms: Rooms) -> None:
    candidate = peers.S6(Path("/cache"), rooms, Workload(5000))
    candidate.configure(0)
    scripts = {path.parent.name: path for path in (rooms.run / "service").glob("*/run")}
    before = {name: (path.stat().st_ino, path.read_text()) for name, path in scripts.items()}
    candidate.configure(1)
    after = {name: (path.stat().st_ino, path.read_text()) for name, path in scripts.items()}
    assert {name for name in after if after[name] != before[name]} == set(candidate.workload.changing())
    assert all(path.stat().st_mode & 0o111 for path in scripts.values())


@pytest.mark.parametrize("kind", [peers.S6, peers.Runit])
def test_service_directories_are_switched_by_name(kind: type[peers.S6 | peers.Runit], rooms: Rooms) -> None:
    candidate = kind(Path("/cache"), rooms, Workload(5000))
    words = " ".join(candidate.switch())
    assert all(f"/{name}" in words for name in candidate.workload.changing())
    assert not any(f"/{name}" in words for name in candidate.workload.names()[:15])


@pytest.mark.parametrize(("kind", "file"), [(peers.Supervisord, "supervisord.conf"), (peers.Circusd, "circus.ini")])
def test_ini_files_hold_every_child(kind: type[peers.Supervisord | peers.Circusd], file: str, rooms: Rooms) -> None:
    candidate = kind(Path("/cache"), rooms, Workload(5000))
    for version in (0, 1):
        candidate.configure(version)
        lines = (rooms.data / file).read_text().splitlines()
        commands = [
            line.partition("=")[2].strip() for line in lines if line.split("=")[0].strip() in ("cmd", "command")
        ]
        assert commands == [" ".join(argv) for argv in candidate.workload.children(version)]


def test_the_profile_holds_every_child(rooms: Rooms) -> None:
    candidate = agent.CommandLine(Path("/cache"), rooms, Workload(5000))
    candidate.configure(1)
    written = yaml.safe_load(candidate.file.read_text())
    assert written["deployment"]["enforcement"] == "none"
    commands = {tuple(service["command"]): name for name, service in written["services"].items()}
    assert commands == candidate.workload.children(1)


def test_planning_profiles_have_the_size_they_name() -> None:
    written = yaml.safe_load(plans.profile(25))
    assert len(written["services"]) == 25
    known = set(written["services"])
    assert all(set(service.get("depends_on", ())) <= known for service in written["services"].values())


MS = Measure("start", "start, ms", 1000.0, 1)


def test_cells_show_the_median_and_the_range() -> None:
    assert report.cell([0.043, 0.041, 0.055], MS) == "43.0 (41.0-55.0)"
    assert report.cell([0.0430, 0.04301], MS) == "43.0"
    assert report.cell([], MS) == "-"
    assert report.cell([-0.0], Measure("wakeups", "wakeups", 1, 1)) == "0.0"


def test_markdown_lines_up() -> None:
    lines = report.markdown(["", "a"], [["first", "1"], ["x", "1,000"]]).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[1] == "|-------|------:|"


def test_the_table_has_a_row_for_every_measure() -> None:
    lines = report.table({"s6": {"start": [0.043]}}, ["s6", "runit"]).splitlines()
    assert len(lines) == 2 + len(MEASURES)
    [row] = [line for line in lines if "20 running" in line]
    assert [cell.strip() for cell in row.split("|")[2:4]] == ["43.0", "-"]


SAMPLES = {
    PLAN: {"start": [0.09, 0.1, 0.2], "stop": [0.02], "cycle": [0.12], "switch": [0.02], "wakeups": [0.0]},
    COMMAND_LINE: {"start": [0.5], "kept": [15.0], "wakeups": [1.0], "cycle": [0.5], "switch": [0.3]},
    "s6": {"start": [0.05], "stop": [0.01], "wakeups": [0.0]},
    "supervisord": {"start": [1.2]},
}


def test_ratios_are_of_medians_and_never_divide_by_zero() -> None:
    assert report.ratio(SAMPLES, "start", PLAN, "s6") == pytest.approx(2.0)
    assert report.ratio(SAMPLES, "wakeups", PLAN, "s6") is None
    assert report.ratio(SAMPLES, "start", PLAN, "circusd") is None
    assert "2.00" in report.ratios(SAMPLES, [PLAN], ["s6"])


def test_goals_are_met_missed_or_not_measured() -> None:
    found = {goal.text: goal.met for goal in report.goals(SAMPLES)}
    assert found["start from a compiled plan / s6"] is True
    assert found["start from a compiled plan / circusd"] is None
    assert found["start from the command line / supervisord"] is True
    assert found["switch from a compiled plan, times faster than stop-all/start-all"] is True
    assert found["switch from the command line, times faster than stop-all/start-all"] is False
    assert found[f"wakeups a minute, {COMMAND_LINE}"] is False
    assert "missed" in report.goal_table(report.goals(SAMPLES))


def test_bounds_include_their_value() -> None:
    assert Goal("x", 3.0, most=3).met is True
    assert Goal("x", 15.0, least=15).met is True
    assert Goal("x", 14.0, least=15).met is False
