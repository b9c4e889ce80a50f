"""What runs our modules: the package's launcher where it lies beside us, else this interpreter."""

from __future__ import annotations

import sys
from pathlib import Path

from edge_agent.host.interpreter import LAUNCHER, interpreter


def test_a_checkout_and_a_wheel_run_by_this_interpreter(tmp_path: Path) -> None:
    assert interpreter() == sys.executable
    assert interpreter(str(tmp_path)) == sys.executable


def test_a_package_runs_by_its_launcher(tmp_path: Path) -> None:
    (tmp_path / LAUNCHER).touch()
    assert interpreter(str(tmp_path)) == str(tmp_path / "edge-agent")


def test_a_directory_of_that_name_is_no_launcher(tmp_path: Path) -> None:
    (tmp_path / LAUNCHER).mkdir()
    assert interpreter(str(tmp_path)) == sys.executable
