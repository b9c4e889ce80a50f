"""Fixtures of the tests that run a real agent."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from . import harness


@pytest.fixture
def node() -> Iterator[harness.Node]:
    """An agent's directories; the agent itself is started by the test."""
    yield from harness.node()
