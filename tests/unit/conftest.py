"""Golden files: expected output kept in tests/golden, compared byte for byte.

After a change that is meant to alter them: ``EDGE_AGENT_UPDATE_GOLDEN=1 pytest tests/unit``, then read the diff.
A run that rewrites a file fails, so nothing is ever accepted silently; the next run without the variable passes.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

GOLDEN = Path(__file__).parent.parent / "golden"
UPDATE = "EDGE_AGENT_UPDATE_GOLDEN"


@pytest.fixture
def golden() -> Callable[[str, str], None]:
    """``golden(name, actual)`` asserts that ``actual`` is the content of tests/golden/<name>."""

    def check(name: str, actual: str) -> None:
        path = GOLDEN / name
        expected = path.read_text(encoding="utf-8") if path.exists() else None
        if os.environ.get(UPDATE) == "1" and expected != actual:
            path.write_text(actual, encoding="utf-8")
            pytest.fail(f"{path.name} rewritten: read the difference, then run again without {UPDATE}")
        assert expected is not None, f"no golden file {path.name}; make it with {UPDATE}=1"
        assert actual == expected

    return check
