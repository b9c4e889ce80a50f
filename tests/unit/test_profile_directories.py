"""Directories of the agent, and where shipped profiles are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import edge_agent.profile.directories as under_test
from edge_agent.profile.directories import Directories, find, known_profile_directories, shipped_directories


def test_root() -> None:
    assert find({"HOME": "/root", "XDG_STATE_HOME": "/x"}, 0) == Directories(
        "/etc/edge-agent", "/var/lib/edge-agent", "/run/edge-agent", "/var/log/edge-agent"
    )


def test_an_ordinary_user() -> None:
    home = "/home/u"
    assert find({"HOME": home}, 1000) == Directories(
        f"{home}/.config/edge-agent",
        f"{home}/.local/state/edge-agent",
        f"{home}/.local/state/edge-agent/run",
        f"{home}/.local/state/edge-agent/log",
    )
    given = {"HOME": home, "XDG_STATE_HOME": "/s", "XDG_RUNTIME_DIR": "/run/user/7", "XDG_CONFIG_HOME": "relative"}
    assert find(given, 1000) == Directories(
        f"{home}/.config/edge-agent", "/s/edge-agent", "/run/user/7/edge-agent", "/s/edge-agent/log"
    )


def test_a_user_without_home_or_account() -> None:
    assert find({}, 4_000_000).data == "/.local/state/edge-agent"


def test_variables_win_and_become_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    given = {
        "EDGE_AGENT_DATA_DIR": "data",
        "BLACKHOLE_DATA_DIR": "/old",
        "BLACKHOLE_LOG_DIR": "/old/log",
        "EDGE_AGENT_RUN_DIR": "/r/../run",
        "EDGE_AGENT_CONFIG_DIR": "",
    }
    assert find(given, 0) == Directories("/etc/edge-agent", str(tmp_path / "data"), "/run", "/old/log")


def test_order_of_profile_directories() -> None:
    checkout = Path(__file__).parent.parent.parent
    assert known_profile_directories(Directories("/etc/edge-agent", "", "", "")) == (
        "/etc/edge-agent/profiles",
        "/etc/edge-agent",
        str(checkout / "profiles"),
    )


@pytest.mark.parametrize(
    ("package", "share"),
    [
        ("lib/python3.11/site-packages", "share"),  # a virtual environment, --user
        ("lib/python3/dist-packages", "share"),  # Debian
        ("", "share"),  # --target
    ],
)
def test_shipped_profiles_of_an_installed_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, share: str
) -> None:
    module = tmp_path / package / "edge_agent" / "profile" / "directories.py"
    profiles = tmp_path / share / "edge-agent" / "profiles"
    module.parent.mkdir(parents=True)
    monkeypatch.setattr(under_test, "__file__", str(module))
    assert str(profiles) not in shipped_directories()
    profiles.mkdir(parents=True)
    assert shipped_directories()[0] == str(profiles)


def test_directories_cost_no_heavy_import() -> None:
    program = "import sys, edge_agent.profile.directories; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert "edge_agent.profile.directories" in loaded
    assert not {"pydantic", "yaml", "dataclasses", "typing", "difflib", "asyncio"} & set(loaded)
