"""Fixtures: the same tests over the fake, the process tree and, where there are any, real cgroups."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.places import FakePlaces, Place, RealPlaces, cgroup_places, new_cgroup, tree_places, why_no_cgroup


def _real(kind: str, tmp: Path) -> Iterator[RealPlaces]:
    if kind == "tree":
        places = tree_places(tmp)
        yield places
        places.close()
        return
    reason = why_no_cgroup()
    if reason:
        pytest.skip(reason)
    root = new_cgroup()
    places = cgroup_places(root)
    yield places
    places.close()
    assert [entry.name for entry in root.iterdir() if entry.is_dir()] == [], "a cgroup was left behind"
    root.rmdir()


@pytest.fixture(params=["fake", "tree", "cgroup2"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """A host with nothing on it."""
    if request.param == "fake":
        yield FakePlaces()
    else:
        yield from _real(request.param, tmp_path)


@pytest.fixture(params=["tree", "cgroup2"])
def real(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RealPlaces]:
    """The same, with real processes only."""
    yield from _real(request.param, tmp_path)


@pytest.fixture
def cgroups(tmp_path: Path) -> Iterator[RealPlaces]:
    """Real cgroups, or the test is skipped."""
    yield from _real("cgroup2", tmp_path)
