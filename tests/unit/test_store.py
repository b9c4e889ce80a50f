"""What outlives an agent, and what it makes of files that a crash or a stranger left."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgpack
import pytest

from edge_agent import codec
from edge_agent import model as m
from edge_agent.host.store import LockedError, Store
from edge_agent.lifecycle import READY, Unit

UNIT = Unit(m.Service("web", ("/bin/web",)), READY, 7, 70, 1.0)
PLAN = m.Plan("edge", "/etc/edge.yaml", 100, 1000, 0, 0, (UNIT.service,))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return make(tmp_path)


def make(tmp_path: Path, boot: str = "boot-1") -> Store:
    (tmp_path / "proc/sys/kernel/random").mkdir(parents=True, exist_ok=True)
    (tmp_path / "proc/sys/kernel/random/boot_id").write_text(boot + "\n")
    return Store(str(tmp_path / "run"), str(tmp_path / "data"), str(tmp_path / "proc"))


def test_units_and_the_plan_come_back(store: Store, tmp_path: Path) -> None:
    store.save_unit(UNIT)
    store.commit(PLAN)
    again = make(tmp_path)
    assert again.units() == {"web": UNIT}
    assert again.committed() == PLAN
    assert not again.complaints


def test_records_of_an_earlier_boot_are_not_believed(store: Store, tmp_path: Path) -> None:
    store.save_unit(UNIT)
    store.commit(PLAN)
    rebooted = make(tmp_path, "boot-2")
    assert rebooted.units() == {}
    assert rebooted.committed() == PLAN


@pytest.mark.parametrize("damage", [b"", b"\0" * 10, b"boot-1\n", b"boot-1\n\x92\x01\x90", b"x" * 100_000])
def test_a_torn_or_foreign_record_is_set_aside_and_said(store: Store, tmp_path: Path, damage: bytes) -> None:
    store.save_unit(UNIT)
    path = tmp_path / "run/services/web/unit"
    path.write_bytes(damage)
    again = make(tmp_path)
    assert again.units() == {}
    assert "set aside" in again.complaints[0]
    assert (tmp_path / "run/services/web/unit.bad").read_bytes() == damage


@pytest.mark.parametrize("cut", [0, 1, 10, 50])
def test_a_torn_plan_is_set_aside_and_said(store: Store, tmp_path: Path, cut: int) -> None:
    store.commit(PLAN)
    path = tmp_path / "data/plan"
    path.write_bytes(path.read_bytes()[:cut])
    assert store.committed() is None
    assert "set aside" in store.complaints[0]
    assert not path.exists()


def test_a_record_under_another_name_is_not_believed(store: Store, tmp_path: Path) -> None:
    store.save_unit(UNIT)
    (tmp_path / "run/services/web").rename(tmp_path / "run/services/db")
    assert store.units() == {}
    assert "speaks of 'web'" in store.complaints[0]


def test_a_link_in_the_place_of_a_file_is_not_followed(store: Store, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(codec.pack_plan(PLAN))
    (tmp_path / "data/plan").symlink_to(tmp_path / "elsewhere")
    assert store.committed() is None
    assert store.complaints


def test_dropping_a_unit_leaves_nothing(store: Store, tmp_path: Path) -> None:
    store.save_unit(UNIT)
    os.mkfifo(tmp_path / "run/services/web/output")
    store.drop_unit("web")
    store.drop_unit("web")
    assert not (tmp_path / "run/services/web").exists()
    assert not store.complaints


def bundled(tmp_path: Path, name: str) -> tuple[Unit, Path]:
    """A unit with a directory for data and one in the run directory, both made."""
    paths = tmp_path / "data/services" / name, tmp_path / "run/bundled" / name
    for path in paths:
        path.mkdir(parents=True)
        (path / "file").touch()
    return UNIT._replace(service=m.Service(name, ("/bin/x",), directories=tuple(map(str, paths)))), paths[1]


def test_a_forgotten_unit_leaves_its_data_and_nothing_in_the_run_directory(store: Store, tmp_path: Path) -> None:
    unit, run = bundled(tmp_path, "web")
    store.save_unit(unit)
    store.save_unit(unit._replace(state="stopping"))
    assert (run / "file").exists()
    again = make(tmp_path)  # another agent process, which knows it by its record
    assert again.units() == {"web": unit._replace(state="stopping")}
    again.drop_unit("web")
    assert not (tmp_path / "run/bundled").exists()
    assert (tmp_path / "data/services/web/file").exists()


def test_a_spec_without_them_leaves_nothing_of_the_one_before(store: Store, tmp_path: Path) -> None:
    unit, run = bundled(tmp_path, "web")
    other, run_of_other = bundled(tmp_path, "db")
    store.save_unit(unit)
    store.save_unit(other)
    store.save_unit(unit._replace(service=UNIT.service))
    assert not run.exists()
    assert (run_of_other / "file").exists()


def test_one_agent_by_run_directory(store: Store, tmp_path: Path) -> None:
    store.lock(0)
    with pytest.raises(LockedError, match="another agent uses"):
        make(tmp_path).lock(0)
    store.close(remove=True)
    make(tmp_path).lock(0)


def leave(tmp_path: Path, version: int, unit: tuple[object, ...], plan: tuple[object, ...]) -> None:
    """What an agent of another release has left."""
    (tmp_path / "run/services/web").mkdir(parents=True)
    (tmp_path / "run/services/web/unit").write_bytes(b"boot-1\n" + msgpack.packb((version, unit)))
    (tmp_path / "data").mkdir(exist_ok=True)
    (tmp_path / "data/plan").write_bytes(msgpack.packb((version, plan)))


def test_what_a_newer_release_left_is_taken_as_far_as_it_is_known(store: Store, tmp_path: Path) -> None:
    service: Any = (*UNIT.service, "more")
    leave(tmp_path, m.PLAN_VERSION + 1, (service, *UNIT[1:], 1), (*PLAN._replace(services=(service,)), 1))
    assert store.committed() == PLAN
    assert "known only in part: a newer release wrote it" in store.newer
    assert store.units() == {"web": UNIT}
    assert store.remarks == ["a newer release started web: what it added is not known to this one"]
    assert not store.complaints
    assert (tmp_path / "data/plan").exists()


def test_what_a_newer_release_left_in_another_form_is_set_aside(store: Store, tmp_path: Path) -> None:
    leave(tmp_path, m.PLAN_VERSION + 1, ("web",), ("edge",))
    assert store.committed() is None
    assert store.units() == {}
    assert len(store.complaints) == 2
    assert not store.newer


def test_what_an_older_release_did_not_know_needs_no_restart(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codec, "OLDEST", m.PLAN_VERSION - 1)
    service: Any = UNIT.service[: m.Service._fields.index("directories")]  # it had none yet, nor what came later
    leave(tmp_path, m.PLAN_VERSION - 1, (service, *UNIT[1:]), PLAN._replace(services=(service,)))
    assert store.committed() == PLAN
    assert store.units() == {"web": UNIT}
    assert not store.remarks

    wanted = UNIT.service._replace(directories=("/var/lib/x",))
    store.expect(PLAN._replace(services=(wanted,)))
    committed = store.committed()
    assert committed is not None
    assert committed.services == (wanted,)
    assert store.units()["web"] == UNIT._replace(service=wanted)
    assert store.remarks == ["an older release started web: what it did not know takes effect at a restart"]
