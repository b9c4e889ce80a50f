"""What is packed comes back; whatever else is given is refused with the one declared error."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent import codec
from edge_agent import model as m
from edge_agent.lifecycle import READY, Unit

WEB = m.Service(
    "web",
    ("/bin/web", "-p", "80"),
    env=(("A", "1"), ("B", "ü")),
    depends_on=("db",),
    limits=m.Limits(memory_request=5, memory_limit=10, cpu_request=250),
    health=m.Health("exec", argv=("/bin/true",)),
    ioprio=(2, 4),
    rlimits=((7, 1024, -1),),
)
DB: Any = m.Service("db", ("/bin/db",))
PLAN: Any = m.Plan("edge", "/etc/edge.yaml", 100, 1000, 10, 0, (DB, WEB), notes=("said",))


def test_a_plan_comes_back() -> None:
    assert codec.unpack_plan(codec.pack_plan(PLAN)) == PLAN


def test_a_unit_comes_back() -> None:
    unit = Unit(WEB, READY, 7, 70, 1.5, None, 2.5, 1, 0, "off", down=True, reason="why")
    assert codec.unpack(codec.pack(unit), "Unit") == unit


@pytest.mark.parametrize(
    ("plan", "why"),
    [
        (PLAN._replace(memory_total=14), "requests and reserve take 15 bytes of 14"),
        (PLAN._replace(cpu_total=249), "250 milli-cores of 249"),
        (PLAN._replace(services=(WEB, DB)), "depends on 'db'"),
        (PLAN._replace(services=(DB, DB)), "there twice"),
        (PLAN._replace(services=(DB._replace(name="../../etc"),)), "is not a name"),
        (PLAN._replace(services=(DB._replace(name=""),)), "is not a name"),
        (PLAN._replace(services=(DB._replace(argv=()),)), "no command"),
        (PLAN._replace(services=(DB._replace(argv=("sh",)),)), "absolute path"),
        (PLAN._replace(services=(DB._replace(argv=("/bin/a\0b",)),)), "no command"),
        (PLAN._replace(services=(DB._replace(env=(("A=B", "1"),)),)), "environment"),
        (PLAN._replace(services=(DB._replace(limits=m.Limits(memory_request=-5)),)), "negative"),
        (PLAN._replace(memory_reserve=-1), "negative"),
        (PLAN._replace(memory_total="2GB"), "Plan.memory_total: '2GB' is not int"),
        (PLAN._replace(memory_total=True), "True is not int"),
        (PLAN._replace(switch_timeout=float("nan")), "out of range"),
        (PLAN._replace(switch_timeout=float("inf")), "out of range"),
        (PLAN._replace(services=(DB[:-1],)), "fields instead of"),
        (PLAN._replace(services=(DB._replace(ioprio=(1, 2, 3)),)), "3 items instead of 2"),
    ],
)
def test_a_plan_that_cannot_be_run_is_refused(plan: Any, why: str) -> None:
    with pytest.raises(codec.PlanError, match=why.replace("(", r"\(").replace("[", r"\[")):
        codec.unpack_plan(codec.pack(plan))


def test_other_versions_are_refused_by_name() -> None:
    with pytest.raises(codec.PlanError, match="version 999"):
        codec.unpack_plan(msgpack.packb((999, PLAN)))


def test_size_is_bounded() -> None:
    with pytest.raises(codec.PlanError, match="more than"):
        codec.unpack_plan(b"\0" * (codec.MAX_BYTES + 1))
    with pytest.raises(codec.PlanError, match="fewer or shorter"):
        codec.pack_plan(PLAN._replace(notes=("x" * codec.MAX_BYTES,)))


@given(st.binary(max_size=200))
def test_noise_is_refused(data: bytes) -> None:
    with pytest.raises(codec.PlanError):
        codec.unpack_plan(data)


@given(st.integers(0, 10_000), st.integers(0, 255), st.integers(0, 10_000))
def test_damaged_plans_are_refused_or_are_plans(position: int, byte: int, cut: int) -> None:
    data = bytearray(codec.pack_plan(PLAN))
    data[position % len(data)] = byte
    del data[len(data) - cut % 8 :]
    try:
        plan = codec.unpack_plan(bytes(data))
    except codec.PlanError:
        return
    assert codec.unpack_plan(codec.pack_plan(plan)) == plan


@pytest.mark.parametrize("name", ["a", "web-1", "0", "a_b", "x" * 63])
def test_legal_names(name: str) -> None:
    assert codec.legal_name(name)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "A", "-a", "_a", "x" * 64, "a b", "a\0", "ü"])
def test_illegal_names(name: str) -> None:
    assert not codec.legal_name(name)
