"""tests/vm/install against stand-ins for the machine's programs."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from .target import BOARDS
from .tools import TOOLS as COMMON

TOOLS = (*COMMON, BOARDS["amd64"].program)
ARM64 = (BOARDS["arm64"].program, "qemu-aarch64-static", "update-binfmts", "arch-test")
INSTALL = Path(__file__).with_name("install")


class Host:
    """A PATH on which only some programs exist; apt-get writes down how it was called."""

    def __init__(self, directory: Path, uid: int) -> None:
        self.bin = directory / "bin"
        self.bin.mkdir()
        self.calls = directory / "calls"
        self.calls.touch()
        self.add("id", f"echo {uid}")

    def add(self, name: str, script: str = ":") -> None:
        (self.bin / name).write_text(f"#!/bin/sh\n{script}\n")
        (self.bin / name).chmod(0o755)

    def add_apt(self, script: str = ":") -> None:
        self.add("apt-get", f'echo "$*" >>{self.calls}\n{script}')

    def install(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = ["/bin/sh", str(INSTALL), *words]
        return subprocess.run(command, env={"PATH": str(self.bin)}, capture_output=True, text=True)


@pytest.fixture
def root(tmp_path: Path) -> Host:
    return Host(tmp_path, 0)


def test_nothing_is_done_when_everything_is_there(root: Host) -> None:
    for tool in TOOLS:
        root.add(tool)
    root.add_apt("exit 1")
    if not Path("/usr/share/keyrings/debian-archive-keyring.gpg").exists():
        pytest.skip("this machine lacks Debian's keyring, which the script would install")
    done = root.install()
    assert (done.returncode, done.stdout, done.stderr, root.calls.read_text()) == (0, "", "", "")


def test_what_is_missing_is_installed_and_nothing_else(root: Host) -> None:
    for tool in set(TOOLS) - {"qemu-img", "mmdebstrap"}:
        root.add(tool)
    root.add_apt()
    assert root.install().returncode == 0
    (call,) = root.calls.read_text().splitlines()
    assert call.startswith("install --yes ")
    assert " qemu-utils mmdebstrap" in call
    assert "qemu-system" not in call


def test_another_architecture_is_prepared_only_when_asked_for(root: Host) -> None:
    for tool in TOOLS:
        root.add(tool)
    root.add("uname", "echo aarch64")
    root.add_apt()
    assert root.install("arm64").returncode == 0
    (call,) = root.calls.read_text().splitlines()
    assert call.endswith(" qemu-system-arm"), "an arm64 host runs its programs by itself"
    root.add("uname", "echo x86_64")
    root.calls.write_text("")
    root.add("update-binfmts", f'echo "$*" >>{root.calls}')
    root.add("mount")
    assert root.install("arm64").returncode == 0
    call, *then = root.calls.read_text().splitlines()
    assert call.endswith(" qemu-system-arm qemu-user-static arch-test")
    assert then in ([], ["--enable qemu-aarch64"]), "it is on already, or switched on"


def test_an_unknown_architecture_is_refused(root: Host) -> None:
    done = root.install("vax")
    assert done.returncode == 2
    assert "no machine of vax; fix: arm64" in done.stderr


def test_the_package_lists_are_updated_when_the_first_attempt_fails(root: Host) -> None:
    root.add_apt(f"case $1 in update) : >{root.bin}/updated ;; *) [ -e {root.bin}/updated ] ;; esac")
    done = root.install()
    assert done.returncode == 0, done.stderr
    assert [call.split()[0] for call in root.calls.read_text().splitlines()] == ["install", "update", "install"]


def test_a_failure_of_apt_is_a_failure(root: Host) -> None:
    root.add_apt("echo no such mirror >&2; exit 100")
    done = root.install()
    assert done.returncode != 0
    assert "no such mirror" in done.stderr


def test_without_root_it_says_what_to_install(tmp_path: Path) -> None:
    user = Host(tmp_path, 1000)
    user.add_apt()
    done = user.install()
    assert done.returncode == 1
    assert "not root; fix: sudo apt-get install qemu-system-x86 qemu-utils mmdebstrap" in done.stderr
    assert user.calls.read_text() == ""


def test_without_apt_it_says_what_to_install(root: Host) -> None:
    done = root.install()
    assert done.returncode == 1
    assert "no apt-get; fix: install by hand: qemu-system-x86" in done.stderr
