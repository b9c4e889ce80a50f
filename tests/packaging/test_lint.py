"""lintian and rpmlint find nothing that packaging/overrides does not give a reason for."""

from __future__ import annotations

import subprocess
from pathlib import Path

from builder.stage import PACKAGING

Packages = dict[tuple[str, str], Path]


def test_lintian_has_nothing_to_say(packages: Packages) -> None:
    debs = [str(path) for (_, kind), path in packages.items() if kind == "deb"]
    argv = ["lintian", "--allow-root", "--tag-display-limit=0", "--fail-on=error,warning", *debs]
    done = subprocess.run(argv, capture_output=True, text=True)
    said = [line for line in done.stdout.splitlines() if not line.startswith("N:")]
    assert said == [], done.stdout
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_override_of_lintian_is_unused(packages: Packages) -> None:
    argv = ["lintian", "--allow-root", "--tag-display-limit=0", "--show-overrides", str(packages["amd64", "deb"])]
    done = subprocess.run(argv, capture_output=True, text=True)
    used = {line.split()[2] for line in done.stdout.splitlines() if line.startswith("O:")}
    lines = (PACKAGING / "overrides/lintian").read_text().splitlines()
    assert used == {line.split()[1] for line in lines if not line.startswith("#")}
    assert all(before.startswith(("#", "edge-agent:")) for before in lines)


def test_rpmlint_has_nothing_to_say(packages: Packages) -> None:
    rpms = [str(path) for (_, kind), path in packages.items() if kind == "rpm"]
    argv = ["rpmlint", "--config", str(PACKAGING / "overrides/rpmlint.toml"), *rpms]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert "3 packages and 0 specfiles checked; 0 errors, 0 warnings" in done.stdout, done.stdout
    assert done.returncode == 0
