"""What a package holds, file by file; without installing it."""

from __future__ import annotations

import _imp
import json
import re
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from builder import pins
from builder.stage import PACKAGING
from builder.targets import PYTHONS, SYSTEM_LIBRARIES, TARGETS, Target
from builder.wheels import NOT_INSTALLED

from .archive import entries, field
from .conftest import KINDS, build

Packages = dict[tuple[str, str], Path]

BUDGET = 30_000_000
"""Bytes an installed package may have."""
MAGIC = {(3, 11): (3495).to_bytes(2, "little") + b"\r\n", (3, 13): (3571).to_bytes(2, "little") + b"\r\n"}
"""Lib/importlib/_bootstrap_external.py of each."""
OURS = (
    "/etc/edge-agent/",
    "/usr/bin/edge-agent",
    "/usr/lib/edge-agent/",
    "/usr/lib/systemd/system/edge-agent",
    "/usr/lib/sysusers.d/edge-agent.conf",
    "/usr/lib/tmpfiles.d/edge-agent.conf",
    "/usr/share/bash-completion/completions/edge-agent",
    "/usr/share/doc/edge-agent/",
    "/usr/share/edge-agent/",
    "/usr/share/fish/vendor_completions.d/edge-agent.fish",
    "/usr/share/lintian/overrides/edge-agent",
    "/usr/share/man/man5/edge-agent-profile.5.gz",
    "/usr/share/man/man8/edge-agent.8.gz",
    "/usr/share/zsh/site-functions/_edge-agent",
    "/usr/share/zsh/vendor-completions/_edge-agent",
)
EXECUTABLE = ("/usr/lib/edge-agent/edge-agent", "/usr/lib/edge-agent/first-choice")
PROVIDED = {
    **dict.fromkeys(("libc.so.6", "libm.so.6", "libdl.so.2", "librt.so.1", "libpthread.so.0"), "libc6"),
    **dict.fromkeys(("ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1", "ld-linux-armhf.so.3"), "libc6"),
    "libgcc_s.so.1": "libgcc-s1",
    "libstdc++.so.6": "libstdc++6",
}
"""Library -> the Debian package it is in."""
MACHINES = {"amd64": "X86-64", "arm64": "AArch64", "armhf": "ARM"}

every = pytest.mark.parametrize("kind", KINDS)
everywhere = pytest.mark.parametrize("target", TARGETS, ids=[target.deb for target in TARGETS])


@every
@everywhere
def test_files_are_in_our_places_and_belong_to_root(packages: Packages, target: Target, kind: str) -> None:
    found = entries(packages[target.deb, kind])
    wrong = {}
    for path, entry in found.items():
        is_parent = any(ours.startswith(f"{path}/") for ours in OURS)
        if not (path.startswith(OURS) or is_parent):
            wrong[path] = "not one of our places"
        if (entry.owner, entry.group) != ("root", "root"):
            wrong[path] = f"belongs to {entry.owner}:{entry.group}"
        mode = 0o777 if stat.S_ISLNK(entry.mode) else 0o755 if stat.S_ISDIR(entry.mode) or path in EXECUTABLE else 0o644
        if stat.S_IMODE(entry.mode) != mode:
            wrong[path] = f"has mode {entry.mode:o}"
    assert not wrong
    assert found["/usr/bin/edge-agent"].target == "../lib/edge-agent/edge-agent"
    assert [path for path, entry in found.items() if entry.config] == ["/etc/edge-agent/environment"]


@everywhere
def test_both_formats_hold_the_same(packages: Packages, target: Target) -> None:
    def files(kind: str) -> set[str]:
        found = entries(packages[target.deb, kind])
        plain = {path for path, entry in found.items() if not stat.S_ISDIR(entry.mode)}
        return {path.replace("/zsh/vendor-completions/", "/zsh/site-functions/") for path in plain}

    only_deb = {"/usr/share/lintian/overrides/edge-agent", "/usr/share/doc/edge-agent/changelog.Debian.gz"}
    assert files("deb") - only_deb == files("rpm")


@everywhere
def test_installed_size_is_inside_its_budget(
    packages: Packages, target: Target, record_property: Callable[[str, object], None]
) -> None:
    size = sum(entry.size for entry in entries(packages[target.deb, "deb"]).values())
    record_property("installed_bytes", size)
    assert int(field(packages[target.deb, "deb"], "Installed-Size")) * 1024 == pytest.approx(size, rel=0.03)
    assert size <= BUDGET, f"{size / 1e6:.1f} MB"


@everywhere
def test_nothing_is_inside_that_a_device_never_needs(packages: Packages, target: Target) -> None:
    paths = entries(packages[target.deb, "deb"])
    useless = re.compile(r"(/tests?/|\.(pyi|h|c|pyx|pxd|a|la|exe)$|/RECORD$|/WHEEL$|/INSTALLER$|opt-[12]\.pyc$)")
    assert [path for path in paths if useless.search(path)] == []


@everywhere
def test_byte_code_of_every_source_is_valid_for_each_python(packages: Packages, work: Path, target: Target) -> None:
    """PEP 552: magic number, flags 1 (by hash, not checked), hash of the source."""
    assert packages
    library = work / target.deb / "root/usr/lib/edge-agent"
    sources = sorted(library.rglob("*.py"))
    assert len(sources) > 200
    for source in sources:
        content = source.read_bytes()
        for python in PYTHONS:
            compiled = source.parent / "__pycache__" / f"{source.stem}.cpython-{python[0]}{python[1]}.pyc"
            header = compiled.read_bytes()[:16]
            assert header == MAGIC[python] + (1).to_bytes(4, "little") + source_hash(python, content), compiled
    assert len(list(library.rglob("*.pyc"))) == len(sources) * len(PYTHONS)


def source_hash(python: tuple[int, int], content: bytes) -> bytes:
    """importlib.util.source_hash of that Python: its magic number is the key."""
    return _imp.source_hash(int.from_bytes(MAGIC[python], "little"), content)


@everywhere
def test_libraries_fit_the_machine_and_what_they_need_is_depended_on(
    packages: Packages, work: Path, target: Target
) -> None:
    library = work / target.deb / "root/usr/lib/edge-agent"
    modules = [path for path in library.rglob("*") if ".so" in path.suffixes]
    own = {path.name for path in modules}
    depends = field(packages[target.deb, "deb"], "Depends")
    assert modules
    for module in modules:
        told = subprocess.run(
            ["readelf", "--file-header", "--dynamic", module], capture_output=True, text=True, check=True
        )
        assert MACHINES[target.deb] in next(line for line in told.stdout.splitlines() if "Machine:" in line)
        for needed in re.findall(r"NEEDED.*\[(.*)\]", told.stdout):
            assert needed in own or PROVIDED[needed] in depends, f"{module.name} needs {needed}"


@everywhere
def test_each_compiled_module_is_there_for_each_python(packages: Packages, work: Path, target: Target) -> None:
    """Or once for all of them, by the stable ABI."""
    assert packages
    library = work / target.deb / "root/usr/lib/edge-agent"
    stems: dict[Path, set[str]] = {}
    for path in library.rglob("*.so"):
        name, _, abi = path.name.removesuffix(".so").partition(".")
        stems.setdefault(path.parent / name, set()).add("-".join(abi.split("-")[:2]))
    wanted = {f"cpython-{major}{minor}" for major, minor in PYTHONS}
    for stem, abis in stems.items():
        assert "abi3" in abis or abis == wanted, stem


@everywhere
def test_notices_name_every_distribution_and_its_pinned_hash(packages: Packages, work: Path, target: Target) -> None:
    assert packages
    doc = work / target.deb / "root/usr/share/doc/edge-agent"
    document = json.loads((doc / "edge-agent.cdx.json").read_text())
    pinned = {pin.name: pin for pin in pins.parse((PACKAGING / "requirements.txt").read_text())}
    expected = pinned.keys() - set(NOT_INSTALLED) - set(SYSTEM_LIBRARIES if target.system else ())
    found = {pins.normalised(part["name"]): part for part in document["components"]}
    assert found.keys() == expected
    text = (doc / "copyright").read_text()
    for name, part in found.items():
        assert part["version"] == pinned[name].version
        assert part["licenses"][0]["expression"] not in ("", "unknown")
        assert f"Comment: {part['name']} {part['version']}" in text
        if name != "cgroupspy":  # published as source: pip makes the wheel
            assert all(digest["content"] in pinned[name].line for digest in part["hashes"])


def test_the_same_source_makes_the_same_bytes(packages: Packages, tmp_path: Path) -> None:
    build(tmp_path / "dist", tmp_path / "work", "--architectures", "amd64")
    for kind in KINDS:
        package = packages["amd64", kind]
        assert (tmp_path / "dist" / package.name).read_bytes() == package.read_bytes()
