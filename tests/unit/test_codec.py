"""What is packed comes back; whatever else is given is refused with the one declared error."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent import codec
from edge_agent import model as m
from edge_agent.lifecycle import READY, Unit

from .conftest import GOLDEN, UPDATE

RECORDS = Path(__file__).parent.parent / "fixtures/records"
"""``plan-N`` and ``unit-N``: what a release whose PLAN_VERSION was N has written."""

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


@pytest.mark.parametrize("version", [0, 1, -3, True, "2", None, 2.0])
def test_versions_that_never_were_are_refused(version: object) -> None:
    with pytest.raises(codec.PlanError, match="is none that this release reads"):
        codec.unpack_plan(msgpack.packb((version, PLAN)))


def shape() -> str:
    """Every record that is written, field by field: what PLAN_VERSION is the version of."""
    lines = []
    for name, record in codec._RECORDS.items():
        lines += [name, *(f"  {field}: {kind}" for field, kind in record.__annotations__.items())]
    return "\n".join(lines) + "\n"


def blocks(text: str) -> dict[str, list[str]]:
    """Record -> its fields."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.startswith(" "):
            found[list(found)[-1]].append(line)
        else:
            found[line] = []
    return found


SAMPLE_WEB = m.Service(
    "web",
    ("/bin/web", "-p", "80"),
    env=(("A", "1"), ("B", "ü")),
    cwd="/srv",
    uid=33,
    gid=33,
    groups=(4, 33),
    depends_on=("db",),
    importance=100,
    limits=m.Limits(5 << 20, 10 << 20, 0, 250, 500, 32, 200, 1 << 20, 2 << 20),
    health=m.Health("exec", "::1", 80, "/live", ("/bin/true",), 5.0, 1.5, 4),
    restart=m.Restart("on_failure", 7, 0.5, 3.0, 30.0, 0.2, 90.0),
    log=m.Log("disk", 65536),
    stop_signal=2,
    stop_timeout=4.5,
    start_timeout=20.0,
    nice=5,
    ioprio=(2, 4),
    scheduler=(1, 10),
    oom_score_adj=300,
    rlimits=((7, 1024, -1),),
    directories=("/var/lib/edge-agent/services/web",),
)
SAMPLE_PLAN: Any = m.Plan(
    "edge",
    "/etc/edge-agent/profiles/edge.yaml",
    100 << 20,
    1000,
    16 << 20,
    50,
    (m.Service("db", ("/bin/db",)), SAMPLE_WEB),
    "cgroup2",
    45.0,
    ("said",),
    ("--fit",),
)
SAMPLE_UNIT: Any = Unit(SAMPLE_WEB, "ready", 7, 70, 1.5, 9.0, 2.5, 3, 1, "backoff", True, "why", "exit code 1", 0.5)
"""A value other than the default for every field there is. What a later version adds goes to the end."""


def test_records_of_a_version_have_one_shape_and_one_form(golden: Callable[[str, str], None]) -> None:
    """A changed record raises PLAN_VERSION, and leaves what the new one writes."""
    golden(f"records-{m.PLAN_VERSION}.txt", shape())
    for kind, record in (("plan", SAMPLE_PLAN), ("unit", SAMPLE_UNIT)):
        path = RECORDS / f"{kind}-{m.PLAN_VERSION}"
        if not path.exists() and os.environ.get(UPDATE) == "1":
            path.write_bytes(codec.pack(record))
            pytest.fail(f"{path.name} written: it is never changed again")
        assert path.read_bytes() == codec.pack(record)


def test_every_version_is_a_beginning_of_this_one() -> None:
    now = blocks(shape())
    for version in range(codec.OLDEST, m.PLAN_VERSION + 1):
        for name, fields in blocks((GOLDEN / f"records-{version}.txt").read_text()).items():
            assert now[name][: len(fields)] == fields
            record = codec._RECORDS[name]
            assert set(list(record.__annotations__)[len(fields) :]) <= set(record._field_defaults)


@pytest.mark.parametrize("version", range(codec.OLDEST, m.PLAN_VERSION + 1))
def test_what_earlier_releases_wrote_is_read(version: int) -> None:
    plan = codec.unpack_plan((RECORDS / f"plan-{version}").read_bytes())
    db, web = plan.services
    assert (plan.profile, plan.source, plan.flags) == ("edge", "/etc/edge-agent/profiles/edge.yaml", ("--fit",))
    assert db == m.Service("db", ("/bin/db",))
    assert web.limits == m.Limits(5 << 20, 10 << 20, 0, 250, 500, 32, 200, 1 << 20, 2 << 20)
    assert (web.groups, web.rlimits, web.ioprio, web.stop_signal) == ((4, 33), ((7, 1024, -1),), (2, 4), 2)
    assert web.directories == ("/var/lib/edge-agent/services/web",)

    unit = codec.unpack((RECORDS / f"unit-{version}").read_bytes(), "Unit")
    assert unit.service == web
    assert (unit.state, unit.pid, unit.started, unit.restarts, unit.down) == ("ready", 7, 70, 3, True)
    assert (unit.last_exit, unit.last_exit_at) == ("exit code 1", 0.5)


KNEW = m.Service._fields.index("directories")
"""Fields of a release that had no ``directories`` yet, nor what came after them."""
OLD_WEB = WEB._replace(directories=("/gone",))[:KNEW]
OLD_PLAN = (m.PLAN_VERSION - 1, PLAN._replace(services=(DB[:KNEW], OLD_WEB)))


@pytest.fixture
def _later(monkeypatch: pytest.MonkeyPatch) -> None:
    """This release comes after one whose services had no ``directories``."""
    monkeypatch.setattr(codec, "OLDEST", m.PLAN_VERSION - 1)


@pytest.mark.usefixtures("_later")
def test_an_older_record_gets_the_defaults_of_what_it_lacks() -> None:
    assert codec.unpack_plan(msgpack.packb(OLD_PLAN)).services == (DB, WEB)


@pytest.mark.usefixtures("_later")
def test_or_what_its_reader_says_and_nothing_else_of_it() -> None:
    like = {"web": WEB._replace(directories=("/new",), nice=7)}
    services = codec.unpack_plan(msgpack.packb(OLD_PLAN), like).services
    assert services == (DB, WEB._replace(directories=("/new",)))


@pytest.mark.usefixtures("_later")
def test_an_older_record_lacks_no_field_that_was_always_there() -> None:
    plan = (m.PLAN_VERSION - 1, PLAN._replace(services=(("db",),)))
    with pytest.raises(codec.PlanError, match="1 fields instead of"):
        codec.unpack_plan(msgpack.packb(plan))


NEW_PLAN: Any = (m.PLAN_VERSION + 1, (*PLAN._replace(services=((*DB, "more"), WEB)), 1, "more"))


def test_a_newer_record_is_refused_by_name_or_read_as_far_as_it_is_known() -> None:
    data = msgpack.packb(NEW_PLAN)
    with pytest.raises(codec.NewerError, match=f"version {m.PLAN_VERSION + 1}"):
        codec.unpack_plan(data)
    assert codec.unpack_plan(data, newer=True) == PLAN
    with pytest.raises(codec.PlanError, match="fields instead of"):
        codec.unpack_plan(msgpack.packb((m.PLAN_VERSION, NEW_PLAN[1])), newer=True)


def test_the_choice_is_read_from_a_plan_that_cannot_be() -> None:
    plan = list(NEW_PLAN[1])
    plan[6] = "another form of services"
    data = msgpack.packb((m.PLAN_VERSION + 1, plan))
    with pytest.raises(codec.PlanError):
        codec.unpack_plan(data, newer=True)
    assert codec.unpack_choice(data) == (PLAN.source, PLAN.flags)


@pytest.mark.parametrize("plan", [7, (), ("edge",), ("edge", 5, *PLAN[2:]), (*PLAN[:-1], "flags")])
def test_a_choice_that_is_none_is_refused(plan: object) -> None:
    with pytest.raises(codec.PlanError):
        codec.unpack_choice(msgpack.packb((m.PLAN_VERSION, plan)))


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
