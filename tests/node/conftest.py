"""Fixtures of the tests that run a real agent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from . import harness


@pytest.fixture
def node(tmp_path: Path) -> Iterator[harness.Node]:
    """An agent's directories; the agent itself is started by the test."""
    yield from harness.node(tmp_path)
