"""Traces as text: what is read, what is written, and what is wrong with a line."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent import trace
from edge_agent.looks import Load, Look, Machine, Raw, Reading, between
from edge_agent.trace import Header, Line, TraceError, Want, header_line, look_line

RECORDED: dict[str, Any] = {"edge-agent-trace": 1, "kind": "recorded", "machine": 1000, "cpus": 4}
WRITTEN: dict[str, Any] = {**RECORDED, "kind": "written"}
LOOK = Look(1.5, 0.25, 0.125, 300, 800, 400, 1000, True, False, {"web": Load(60, 120, 7, 0.5, 0.25, 1.0, 3)})


def lines(*values: Any) -> list[bytes]:
    return [value if isinstance(value, bytes) else json.dumps(value).encode() for value in values]


def parse(*values: Any) -> list[Look] | list[Line]:
    header, rest = trace.read(lines(*values))
    return list(trace.looks(rest, header)) if header.kind == trace.RECORDED else list(trace.written(rest, ["web"]))


def test_looks_survive_being_written_and_read() -> None:
    header = Header(trace.RECORDED, 1000, 4)
    text = [header_line(header, profile="edge").encode(), look_line(LOOK).encode()]
    assert all(line.endswith(b"\n") and line.count(b"\n") == 1 for line in text)
    found, rest = trace.read(text)
    assert found == header
    assert list(trace.looks(rest, found)) == [LOOK]


SHARE = st.floats(0, 1)
BYTES = st.integers(0, 2**40)
LOADS = st.builds(Load, BYTES, BYTES, BYTES, SHARE, SHARE, SHARE, BYTES)
LOOKS = st.builds(
    Look,
    st.floats(0, 1e6),
    SHARE,
    SHARE,
    BYTES,
    BYTES,
    BYTES,
    st.just(2**40),
    st.booleans(),
    st.booleans(),
    st.dictionaries(st.text(max_size=8), LOADS, max_size=3),
    SHARE,
)


@given(LOOKS)
def test_any_look_survives_but_for_rounding(look: Look) -> None:
    header, rest = trace.read([header_line(Header(trace.RECORDED, 2**40, 1)).encode(), look_line(look).encode()])
    (found,) = trace.looks(rest, header)
    assert found._replace(at=0, some=0, full=0, loads={}, disk=0) == look._replace(
        at=0, some=0, full=0, loads={}, disk=0
    )
    assert {name: load.memory for name, load in found.loads.items()} == {
        name: load.memory for name, load in look.loads.items()
    }


def test_a_written_trace() -> None:
    found = parse(
        {**WRITTEN, "machine": 1e9, "swap": 2e8, "disk": 2e7, "system": 1.5e8, "psi": False},
        {"at": 0, "wants": {"web": {"memory": 6e7, "cpu": 200, "io": 1, "grows": 2}}},
        {"at": 0.5, "wants": {"web": {}}, "system": 5},
        {"at": 60},
    )
    assert found == [
        Line(0.0, {"web": Want(60_000_000, 200, 1, 2)}, None),
        Line(0.5, {"web": Want()}, 5),
        Line(60.0, {}, None),
    ]


A_LOOK = json.loads(look_line(LOOK))


@pytest.mark.parametrize(
    ("values", "line", "why"),
    [
        ((), 1, "it is not JSON"),
        ((b"\xff\xfe",), 1, "it is not JSON"),
        ((b"[" * 100_000,), 1, "it is not JSON"),
        (([],), 1, "it is not a JSON object"),
        (({"kind": "written"},), 1, "it is not a trace of edge-agent"),
        (({**WRITTEN, "edge-agent-trace": 2},), 1, "its version is 2"),
        (({**WRITTEN, "edge-agent-trace": True},), 1, "its version is True"),
        (({**WRITTEN, "kind": "dreamt"},), 1, "its kind is 'dreamt'"),
        (({**WRITTEN, "machine": 0},), 1, "machine is 0"),
        (({"edge-agent-trace": 1, "kind": "written"},), 1, "machine is missing"),
        (({**WRITTEN, "cpus": "4"},), 1, "cpus is '4'"),
        (({**WRITTEN, "psi": 1},), 1, "psi is 1"),
        (({**WRITTEN, "speed": 1},), 1, "nothing is called 'speed' here"),
        ((WRITTEN, {}), 2, "at is missing"),
        ((WRITTEN, {"at": True}), 2, "at is True"),
        ((WRITTEN, {"at": -1}), 2, "at is -1"),
        ((WRITTEN, b'{"at": NaN}'), 2, "at is nan"),
        ((WRITTEN, b'{"at": 1e999}'), 2, "at is inf"),
        ((WRITTEN, {"at": 5}, {"at": 4}), 3, "at is 4, before the 5 of an earlier line"),
        ((WRITTEN, {"at": 5, "wants": []}), 2, "wants is not a JSON object"),
        ((WRITTEN, {"at": 5, "wants": {"web": 3}}), 2, "wants.web is not a JSON object"),
        ((WRITTEN, {"at": 5, "wants": {"wbe": {}}}), 2, "the profile has no service 'wbe'"),
        ((WRITTEN, {"at": 5, "wants": {"web": {"memry": 3}}}), 2, "wants.web: nothing is called 'memry' here"),
        ((WRITTEN, {"at": 5, "wants": {"web": {"memory": -3}}}), 2, "wants.web: memory is -3"),
        ((WRITTEN, {"at": 5, "wnats": {}}), 2, "nothing is called 'wnats' here"),
        ((WRITTEN, {"at": 0}, b"", {"at": 1}), 3, "it is not JSON"),
        ((WRITTEN, b'{"at": 0, "x": "' + b"x" * trace.LONGEST_LINE + b'"}'), 2, "the trace is too large"),
        ((RECORDED, {"at": 0}), 2, "some is missing"),
        ((RECORDED, {**A_LOOK, "some": 1.01}), 2, "some is 1.01"),
        ((RECORDED, {**A_LOOK, "loads": {"web": {"memory": 1}}}), 2, "loads.web: cpu is missing"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(values: Any, line: int, why: str) -> None:
    with pytest.raises(TraceError) as caught:
        parse(*values)
    assert caught.value.line == line
    assert caught.value.why.startswith(why)
    assert caught.value.fix


def test_a_trace_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace, "MOST_LINES", 2)
    assert len(parse(WRITTEN, {"at": 1})) == 1
    with pytest.raises(TraceError, match="line 3: the trace is too large"):
        parse(WRITTEN, {"at": 1}, {"at": 2})


@given(st.lists(st.binary(max_size=60), max_size=4))
def test_whatever_the_bytes_nothing_else_is_raised(junk: list[bytes]) -> None:
    for first in (RECORDED, WRITTEN):
        with pytest.raises(TraceError):
            parse(first, *junk, b"{")


# -- two readings ------------------------------------------------------------------------------------------------------


def test_a_look_is_the_difference_of_two_readings() -> None:
    machine = Machine(1_000_000, 500_000, 400, 1000, 64 << 20)
    before = Reading(10.0, machine, Raw(500, 100, 10, 10), {"web": Raw(50, 0, 5, 0, 100, 7, 1000, 9)}, 900, True)
    after = Reading(
        10.5,
        machine._replace(memory_some=1_100_000, memory_full=525_000),
        Raw(600, 150, 150_010, 100_010),
        {"web": Raw(60, 0, 50_005, 0, 250_100, 125_007, 1500, 500_009), "new": Raw(5, 0, 9, 9, 9, 9, 9, 9)},
        900,
        True,
    )
    assert between(before, after) == Look(
        10.5,
        some=0.0,  # of all services, and of the machine with much available: no news beside those of each
        full=0.2,
        free=450,
        total=900,
        available=400,
        machine=1000,
        swap=True,
        psi=True,
        loads={"web": Load(60, 500, 1000, 0.1, 0.25, 1.0), "new": Load(5)},
    )


@pytest.mark.parametrize(("available", "some", "full"), [(100, 0.0, 0.0), (99, 0.4, 0.2)])
def test_the_machines_stalls_count_where_little_is_available(available: int, some: float, full: float) -> None:
    before = Reading(10.0, Machine(0, 0, available, 1000), Raw(), {}, 900, True)
    after = Reading(10.5, Machine(200_000, 100_000, available, 1000), Raw(memory_some=500_000), {}, 900, True)
    look = between(before, after)
    assert (look.some, look.full) == (some, full)
    assert between(before._replace(all=None), after._replace(all=None)).some == 0.4, "or where nothing else is known"


def test_what_its_own_limits_did_to_a_service_is_told_from_what_others_did() -> None:
    before = Reading(10.0, services={"web": Raw(cpu_some=10, limited=7, throttled=10)}, psi=True)
    after = Reading(10.5, services={"web": Raw(cpu_some=400_010, limited=9, throttled=300_010)}, psi=True)
    assert between(before, after).loads == {"web": Load(cpu_wait=0.2, limited=2)}
    new = between(before._replace(services={}), after)
    assert new.loads == {"web": Load(limited=9)}, "what is new has met it since it was started"
    late = after._replace(at=20.0)
    assert between(before, late).loads == {"web": Load(limited=2)}, "however long ago"


@pytest.mark.parametrize("elapsed", [0.0, 0.049, 2.0, 3600.0])
def test_readings_too_close_or_too_far_apart_give_no_shares(elapsed: float) -> None:
    before = Reading(10.0, Machine(), Raw(), {"web": Raw()}, 900, True)
    after = Reading(
        10.0 + elapsed, Machine(9**9, 9**9), Raw(5, 0, 9**9, 9**9), {"web": Raw(5, 0, *[9**9] * 6)}, 900, True
    )
    look = between(before, after)
    assert (look.some, look.full, look.free, look.loads) == (0.0, 0.0, 895, {"web": Load(5)})


def test_without_psi_usage_and_the_disk_are_means_of_a_longer_time() -> None:
    before = Reading(10.0, Machine(memory=1000, disk=5), None, {"web": Raw(io=0)}, 900)
    after = Reading(20.0, Machine(memory=1000, disk=9_000_005), None, {"web": Raw(io=50)}, 900)
    look = between(before, after)
    assert (look.disk, look.loads["web"].io) == (0.9, 5)
    assert between(before, after._replace(at=25.0)).disk == 0.0, "but not of any"
    assert between(Reading(10.0), after).disk == 0.0, "nor where it was not read before"


def test_who_is_only_sampled_is_counted_by_its_samples() -> None:
    """Without a memory controller the cgroup of all knows nothing of memory."""
    reading = Reading(10.0, Machine(), Raw(cpu=5), {"web": Raw(memory=300)}, 900)
    assert between(reading, reading).free == 600


def test_counters_that_go_back_and_shares_over_one_are_bounded() -> None:
    before = Reading(0.0, Machine(memory_some=9**9), None, {"web": Raw(1, 0, 9**9, 0, 9**9, 0, 9**9)}, 10, True)
    after = Reading(1.0, Machine(memory_full=9**9), None, {"web": Raw(20, 0, 0, 0, 0, 9**9)}, 10, True)
    look = between(before, after)
    assert (look.some, look.full, look.free) == (0.0, 1.0, 0)
    assert look.loads == {"web": Load(20, cpu_wait=1.0)}
