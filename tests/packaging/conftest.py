"""The packages of this source, built once for all tests, and trees to install them in."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from builder.stage import REPOSITORY
from builder.targets import TARGETS
from builder.tree import tree

from edge_agent import __version__

from .roots import Root

NEWER = "99.0.0"
KINDS = ("deb", "rpm")


def build(output: Path, work: Path, *words: str) -> None:
    """As ``make packages`` does it."""
    argv = [sys.executable, "-m", "builder", "--output", str(output), "--work", str(work), *words]
    environment = os.environ | {"PYTHONPATH": "packaging"}
    done = subprocess.run(argv, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stdout + done.stderr


def names(version: str) -> dict[tuple[str, str], str]:
    """(architecture, format) -> file name."""
    debs = {(target.deb, "deb"): f"edge-agent_{version}-1_{target.deb}.deb" for target in TARGETS}
    return debs | {(target.deb, "rpm"): f"edge-agent-{version}-1.{target.rpm}.rpm" for target in TARGETS}


@pytest.fixture(scope="session")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the packages are staged: ARCHITECTURE/root."""
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="session")
def packages(work: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    """(architecture, format) -> package, for all of them."""
    output = tmp_path_factory.mktemp("dist")
    build(output, work)
    return {key: output / name for key, name in names(__version__).items()}


@pytest.fixture(scope="session")
def newer(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Format -> package for amd64 of a later version."""
    output = tmp_path_factory.mktemp("newer")
    build(output, tmp_path_factory.mktemp("work-newer"), "--version", NEWER, "--architectures", "amd64")
    return {kind: output / names(NEWER)["amd64", kind] for kind in KINDS}


@pytest.fixture(params=["bookworm", "trixie"])
def debian(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Root]:
    """A small Debian system of its own."""
    with Root(tree(request.param), tmp_path) as root:
        yield root


@pytest.fixture
def bookworm(tmp_path: Path) -> Iterator[Root]:
    """A small Debian 12 system of its own."""
    with Root(tree("bookworm"), tmp_path) as root:
        yield root
