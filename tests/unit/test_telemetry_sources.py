"""The agent's status and the kernel's files as metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.services import telemetry_agent, telemetry_machine
from edge_agent.services.metrics import Metric
from edge_agent.services.telemetry_gather import find, service_of
from edge_agent.services.telemetry_text import OPENMETRICS, Page, render
from tests.unit.test_telemetry_text import read

STATUS: dict[str, Any] = {
    "profile": "edge",
    "degraded": None,
    "switching": None,
    "enforcement": "cgroup2",
    "agent": {"pid": 7, "version": "1.2.3", "pss_bytes": 8_000_000, "wakeups": 42, "since": 1e9},
    "budget": {
        "memory": {"total": 2000, "goal": 2000, "reserve": 100, "requested": 600, "used": None},
        "cpu": {"total": 1.0, "goal": 1.0, "reserve": 0.05, "requested": 0.5, "used": 0.125},
    },
    "governor": {"held": [{"resource": "memory", "service": "batch", "level": "shed", "since": 1.0}]},
    "services": {
        "storage": {
            "state": "ready",
            "pid": 9,
            "restarts": 3,
            "importance": 50,
            "counts": {"killed-own": 2, "shed": 1},
            "memory": {"request": 300, "limit": 900, "used": 500},
            "cpu": {"request": 0.25, "limit": None, "used": 0.01},
            "pids": {"limit": 32, "used": 4},
            "enforcement": {"memory": {"kind": "enforced", "code": ""}},
        },
        "batch": {"state": "off", "pid": 0, "memory": {"request": 300, "limit": 900, "used": None}},
    },
}


def flat(metrics: list[Metric]) -> dict[str, float]:
    """'name label=value ...' -> number."""
    found = {}
    for metric in metrics:
        for labels, value in metric.samples:
            words = [f"{name}={text}" for name, text in sorted(labels.items())]
            found[" ".join([metric.name.removeprefix("edge_agent_"), *words])] = value
    return found


def test_a_status_in_numbers() -> None:
    found = flat(telemetry_agent.metrics(STATUS))
    assert found["info enforcement=cgroup2 profile=edge version=1.2.3"] == 1
    assert found["memory_pss_bytes"] == 8_000_000
    assert found["wakeups_total"] == 42
    assert (found["degraded"], found["switching"]) == (0, 0)
    assert found["budget_memory_requested_bytes"] == 600
    assert found["budget_cpu_used_cores"] == 0.125
    assert "budget_memory_used_bytes" not in found, "what is not known is not 0"
    assert found["service_state service=storage state=ready"] == 1
    assert (found["service_ready service=storage"], found["service_ready service=batch"]) == (1, 0)
    assert found["service_memory_loan_bytes service=storage"] == 200
    assert found["service_restarts_total service=storage"] == 3
    assert found["service_sheds_total service=storage"] == 1
    assert found["service_oom_kills_total level=own service=storage"] == 2
    assert found["service_oom_kills_total level=machine service=storage"] == 0
    assert "service_cpu_limit_cores service=storage" not in found
    assert found["service_withheld level=shed resource=memory service=batch"] == 1
    assert found["service_enforcement kind=enforced resource=memory service=storage"] == 1
    assert telemetry_agent.processes(STATUS) == {"orchestrator": 7, "storage": 9}


def test_the_text_of_a_status_is_read_by_another_parser() -> None:
    page = Page()
    for metric in telemetry_agent.metrics(STATUS):
        page.add(metric)
    assert not page.dropped
    read(render(page, OPENMETRICS), OPENMETRICS)


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)


@settings(deadline=None)
@given(st.data())
def test_a_status_of_another_release_raises_nothing(data: st.DataObject) -> None:
    status = {key: data.draw(st.just(value) | ANY) for key, value in STATUS.items()}
    status["services"] = data.draw(st.dictionaries(st.text(max_size=5), ANY) | ANY)
    page = Page()
    for metric in telemetry_agent.metrics(status):
        page.add(metric)
    telemetry_agent.processes(status)
    read(render(page, OPENMETRICS), OPENMETRICS)


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """proc(5) and cgroups(7) of a machine with one service in a cgroup of its own, and one without."""
    for name, content in {
        "stat": "cpu  1 2 3\nbtime 1700000000\n",
        "meminfo": "MemTotal:  1000 kB\nMemFree: 1 kB\nMemAvailable:  600 kB\n",
        "pressure/memory": "some avg10=1.00 avg60=0.00 avg300=0.00 total=2500000\nfull avg10=0.00 total=1000000\n",
        "9/stat": "9 (a ) b) S 1 9 9 0 -1 4194304 0 0 0 0 150 50 0 0 20 0 1 0 5000 1048576 256 0\n",
        "9/cgroup": "0::/edge/services/storage\n",
        "cg/edge/services/storage/memory.pressure": "some avg10=0.00 total=500000\n",
        "cg/edge/services/storage/cpu.stat": "usage_usec 2500000\nuser_usec 1\n",
        "8/stat": "8 (x) S 1 9 9 0 -1 4194304 0 0 0 0 1 1 0 0 20 0 1 0 5000 1048576 256 0\n",
        "8/cgroup": "0::/user.slice\n",
        "7/stat": "",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return tmp_path


def test_the_machine_and_processes_in_numbers(proc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sysconf", {"SC_CLK_TCK": 100, "SC_PAGESIZE": 4096}.__getitem__)
    found = flat(telemetry_machine.machine(str(proc)))
    assert found["machine_memory_total_bytes"] == 1_024_000
    assert found["machine_memory_available_bytes"] == 614_400
    assert found["machine_pressure_seconds_total kind=some resource=memory"] == 2.5
    found = flat(telemetry_machine.processes({"storage": 9, "web": 8, "gone": 7}, str(proc), f"{proc}/cg"))
    assert found["process_cpu_seconds_total service=storage"] == 2.0
    assert found["process_start_time_seconds service=storage"] == 1_700_000_050
    assert found["process_virtual_memory_bytes service=storage"] == 1_048_576
    assert found["process_resident_memory_bytes service=storage"] == 1_048_576
    assert found["service_cpu_seconds_total service=storage"] == 2.5
    assert found["service_pressure_seconds_total kind=some resource=memory service=storage"] == 0.5
    assert "service_cpu_seconds_total service=web" not in found, "its cgroup is that of others as well"
    assert not any("gone" in name for name in found)


def test_a_kernel_that_tells_nothing_makes_no_metrics(tmp_path: Path) -> None:
    assert telemetry_machine.machine(str(tmp_path)) == []
    assert telemetry_machine.processes({"a": 1}, str(tmp_path), str(tmp_path)) == []


def test_services_are_found_by_their_sockets(tmp_path: Path) -> None:
    for name in ("storage/storage.sock", "cache/storage.sock", "node/else", "b c/x.sock", "z/a.sock", "z/b.sock"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = find(str(tmp_path))
    assert [path.removeprefix(f"{tmp_path}/") for path in found] == [
        "cache/storage.sock",
        "storage/storage.sock",
        "z/a.sock",
    ]
    assert [service_of(path) for path in found] == ["cache", "storage", "z"]
    assert find(str(tmp_path / "none")) == []
