"""The memory limit a service finds for itself, as the kernel's files say it."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_agent.services.cgroup import memory_max

PATH = "system.slice/edge-agent-services.service/services/storage"


def limit(tmp_path: Path, own: str, value: str | None = "536870912\n", at: str = PATH) -> int | None:
    """What is found by a process whose /proc/self/cgroup is ``own``, when ``at`` has that memory.max."""
    directory = tmp_path / "cgroup" / at
    directory.mkdir(parents=True, exist_ok=True)
    if value is not None:
        (directory / "memory.max").write_text(value)
    (tmp_path / "own").write_text(own)
    return memory_max(str(tmp_path / "own"), str(tmp_path / "cgroup"))


def test_it_is_that_of_the_own_cgroup(tmp_path: Path) -> None:
    (tmp_path / "cgroup" / PATH).mkdir(parents=True)
    (tmp_path / "cgroup" / PATH / "../memory.max").write_text("1\n")
    assert limit(tmp_path, f"0::/{PATH}\n") == 512 * 1024**2


def test_of_a_container_it_is_that_of_its_root(tmp_path: Path) -> None:
    assert limit(tmp_path, "0::/\n", at="") == 512 * 1024**2


@pytest.mark.parametrize("value", ["max\n", "", "nonsense\n", "-1\n", None])
def test_without_a_limit_there_is_none(tmp_path: Path, value: str | None) -> None:
    assert limit(tmp_path, f"0::/{PATH}\n", value) is None


@pytest.mark.parametrize(
    "own", ["", f"9:memory:/{PATH}\n1:name=systemd:/{PATH}\n", f"0::/../{PATH}\n", "0::", "0::x\n"]
)
def test_without_a_unified_hierarchy_there_is_none(tmp_path: Path, own: str) -> None:
    assert limit(tmp_path, own) is None
    assert memory_max("/nonexistent", str(tmp_path / "cgroup")) is None


def test_beside_version_1_the_entry_of_version_2_counts(tmp_path: Path) -> None:
    assert limit(tmp_path, f"9:memory:/elsewhere\n0::/{PATH} (deleted)\n") == 512 * 1024**2
