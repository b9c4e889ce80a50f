"""Tests of this directory need root on a kernel with unified cgroups v2: tests/vm/test_guest.py runs them on one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from .cgroups import Cgroup


def missing() -> str:
    """What this machine lacks, '' when nothing."""
    if os.geteuid() != 0:
        return "root"
    if not Path("/sys/fs/cgroup/cgroup.controllers").exists():
        return "a unified cgroup2 hierarchy"
    if "LAB_CGROUP" not in os.environ:
        return "LAB_CGROUP, an empty cgroup made for tests"
    return ""


@pytest.fixture(autouse=True, scope="session")
def real_kernel() -> None:
    """Skips every test here on a machine that is not fit for it; in the virtual machine that is a failure instead."""
    if lack := missing():
        if os.environ.get("LAB_GUEST"):
            pytest.fail(f"cannot run the guest's tests: the guest lacks {lack}")
        pytest.skip(f"needs {lack}; tests/vm/test_guest.py runs it in the virtual machine")


@pytest.fixture
def cgroup(request: pytest.FixtureRequest) -> Iterator[Cgroup]:
    """A fresh cgroup with every controller, gone with everything in it after the test."""
    made = Cgroup(Path(os.environ["LAB_CGROUP"]) / request.node.name.replace("/", "_"))
    made.path.mkdir()
    try:
        yield made
    finally:
        made.remove()
