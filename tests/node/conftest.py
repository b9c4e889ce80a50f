"""Fixtures of the tests that run a real agent."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from . import harness


@pytest.fixture
def base() -> Iterator[Path]:
    """A short directory: the path of a unix socket has at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="ea-", dir="/tmp") as directory:
        yield Path(directory)


@pytest.fixture
def node() -> Iterator[harness.Node]:
    """An agent's directories; the agent itself is started by the test."""
    yield from harness.node()
