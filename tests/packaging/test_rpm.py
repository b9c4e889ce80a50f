"""rpm in a clean root: Debian's files, an empty database, and a stand-in for what a distribution with rpm provides."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from builder.tree import tree

from edge_agent import __version__

from .conftest import NEWER
from .roots import Root, differences
from .test_install import ACCOUNTS, SERVICE, SERVICES, USERS

Packages = dict[tuple[str, str], Path]

PROVIDED = ("python3 = 3.11.2", "glibc = 2.36", "libgcc_s.so.1()(64bit)", "libstdc++.so.6()(64bit)", "systemd = 252")
RELOAD = "systemctl daemon-reload"


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package without files that provides what the tree has as Debian packages."""
    directory = tmp_path_factory.mktemp("stand-in")
    provides = "".join(f"  - {each}\n" for each in PROVIDED)
    described = f"name: debian-tree\narch: all\nversion: 1.0.0\nprovides:\n{provides}"
    (directory / "nfpm.yaml").write_text(described)
    argv = [str(Path(sys.executable).with_name("nfpm")), "package", "--config", "nfpm.yaml"]
    argv += ["--packager", "rpm", "--target", "it.rpm"]
    subprocess.run(argv, cwd=directory, check=True, capture_output=True)
    return directory / "it.rpm"


@pytest.fixture
def clean(stand_in: Path, tmp_path: Path) -> Iterator[Root]:
    """A root with nothing but the stand-in in its database."""
    with Root(tree("bookworm"), tmp_path) as root:
        for section in ("man5", "man8"):  # Debian's tree is without manuals; elsewhere they are of package filesystem
            (root.path / "usr/share/man" / section).mkdir(parents=True, exist_ok=True)
        rpm(root, "--initdb")
        rpm(root, "--install", root.put(stand_in))
        yield root


def rpm(root: Root, *words: str, check: bool = True) -> str:
    """Debian's rpm on the root; scriptlets run in it, by chroot(2)."""
    inside = [f"{{root}}{word}" if word.startswith("/tmp/") else word for word in words]
    return root.run_outside("rpm", "--root", "{root}", "--dbpath", "/var/lib/rpm", *inside, check=check)


def test_it_does_not_install_without_what_it_requires(packages: Packages, tmp_path: Path) -> None:
    with Root(tree("bookworm"), tmp_path) as root:
        rpm(root, "--initdb")
        said = rpm(root, "--install", root.put(packages["amd64", "rpm"]), check=False)
        for required in ("python3 >= 3.11", "glibc >= 2.34", "systemd"):
            assert f"{required} is needed by edge-agent-{__version__}-1.x86_64" in said


def test_it_installs_runs_and_leaves_nothing(clean: Root, packages: Packages) -> None:
    before = clean.listing()
    said = rpm(clean, "--install", clean.put(packages["amd64", "rpm"]))
    assert "warning" not in said, said
    assert (clean.path / "etc/systemd/system/multi-user.target.wants/edge-agent.service").is_symlink()
    accounts = (clean.path / "etc/passwd").read_text()
    assert all(f"\n{user}:x:" in accounts for user in USERS)
    assert "\nextends: edge\n" in (clean.path / "etc/edge-agent/config.yaml").read_text()
    assert clean.run("edge-agent", "--version").strip() == f"edge-agent {__version__}"
    assert "profile config (/etc/edge-agent/config.yaml)" in clean.run("edge-agent", "plan")
    for name in SERVICES:
        assert f"{name}: ready" in clean.run("sh", "-c", SERVICE, "sh", name)
    assert rpm(clean, "--verify", "edge-agent") == ""
    rpm(clean, "--erase", "edge-agent")
    left = {path for path in differences(before, clean.listing()) if not ACCOUNTS.fullmatch(path)}
    # rpm has no purge: what the agent kept, and a configuration that it did not bring, stay with their owner.
    kept = ("/var/lib/edge-agent", "/var/log/edge-agent", "/etc/edge-agent", "/etc/edge-agent/config.yaml")
    assert {path for path in left if not path.startswith("/var/lib/edge-agent/")} <= set(kept)
    clean.run("rm", "-r", "/etc/edge-agent", "/var/lib/edge-agent", "/var/log/edge-agent")
    assert {path for path in differences(before, clean.listing()) if not ACCOUNTS.fullmatch(path)} == set()


def test_an_upgrade_restarts_the_agent_alone(clean: Root, packages: Packages, newer: dict[str, Path]) -> None:
    clean.pretend_systemd("systemctl")
    enable = "systemctl --no-reload enable edge-agent.service"
    rpm(clean, "--install", clean.put(packages["amd64", "rpm"]))
    assert clean.calls() == [enable, RELOAD, "systemctl start edge-agent.service"]
    (clean.path / "etc/edge-agent/environment").write_text("EDGE_AGENT_NODE_ID=kitchen\n")
    rpm(clean, "--upgrade", clean.put(newer["rpm"]))
    assert clean.calls() == [RELOAD, "systemctl try-restart edge-agent.service"]
    assert clean.run("edge-agent", "--version").strip() == f"edge-agent {NEWER}"
    assert (clean.path / "etc/edge-agent/environment").read_text() == "EDGE_AGENT_NODE_ID=kitchen\n"
    rpm(clean, "--upgrade", "--oldpackage", clean.put(packages["amd64", "rpm"]))
    assert clean.calls() == [RELOAD, "systemctl try-restart edge-agent.service"]
    rpm(clean, "--erase", "edge-agent")
    stop = "systemctl stop edge-agent.service edge-agent-services.service"
    assert clean.calls() == [stop, "systemctl --no-reload disable edge-agent.service", RELOAD]
    assert (clean.path / "etc/edge-agent/environment.rpmsave").exists()
