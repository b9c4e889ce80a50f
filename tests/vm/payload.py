"""What the guest gets besides its root: a disk with the project's tree and our runner, and one with Python packages.

The guest needs no network for that: its Python has the same ABI as the one that runs the lab.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from .errors import LabError
from .image import make_ext4, touch
from .target import Target

PROJECT = Path(__file__).resolve().parents[2]
COMMAND = '#!/bin/sh\nexec /usr/bin/python3 -m edge_agent "$@"\n'
TEST_PACKAGES = ["pytest", "hypothesis"]
RUNNER = ["__init__.py", "vm/__init__.py", "vm/channel.py", "vm/runner.py"]
SLACK = 256 << 20  # bytes left free on a disk


def tracked(project: Path) -> list[str]:
    """The project's files: what git tracks, and what it would not ignore."""
    listing = ["git", "-C", str(project), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(listing, capture_output=True, text=True)
    if done.returncode != 0:
        raise LabError(f"cannot list the project's files: {done.stderr.strip()}; fix: use a git checkout")
    return sorted({name for name in done.stdout.split("\0") if name})


def copy_tree(project: Path, target: Path) -> None:
    """Copy the project's files. One that vanishes meanwhile, or is deleted and not yet committed, is left out."""
    for name in tracked(project):
        destination = target / name
        destination.parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copy2(project / name, destination, follow_symlinks=False)
        except (FileNotFoundError, IsADirectoryError):
            continue


def not_installed(name: str) -> LabError:
    """The sentence for a package that the running interpreter lacks."""
    return LabError(
        f"cannot hand {name} to the guest: {sys.executable} does not have it; "
        "fix: run the lab with the Python of the project's environment (make .venv/.test)"
    )


def needed_distributions(roots: list[str]) -> dict[str, metadata.Distribution]:
    """The installed distributions that ``roots`` (requirement strings) need, with all they need themselves, by name."""
    try:
        from packaging.requirements import Requirement
        from packaging.utils import canonicalize_name
    except ImportError:
        raise not_installed("packaging") from None
    found: dict[str, metadata.Distribution] = {}
    waiting = [Requirement(root) for root in roots]
    while waiting:
        requirement = waiting.pop()
        extras = ["", *requirement.extras]
        name = canonicalize_name(requirement.name)
        if name in found:
            continue
        try:
            found[name] = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            raise not_installed(name) from None
        for text in found[name].requires or []:
            further = Requirement(text)
            if further.marker is None or any(further.marker.evaluate({"extra": extra}) for extra in extras):
                waiting.append(further)
    return found


def project_requirements(project: Path) -> list[str]:
    """``project.dependencies`` of pyproject.toml."""
    with (project / "pyproject.toml").open("rb") as file:
        return [str(text) for text in tomllib.load(file)["project"]["dependencies"]]


def check_abi(target: Target) -> None:
    """LabError when compiled packages of the running interpreter would not load in the guest."""
    here = (sys.version_info[:2], platform.machine(), sys.implementation.name)
    machine = {"amd64": "x86_64", "arm64": "aarch64"}[target.architecture]
    if here != (target.python, machine, "cpython"):
        version = ".".join(map(str, target.python))
        raise LabError(
            f"cannot hand Python packages to the guest: it has CPython {version} on {machine}, and they are for "
            f"{sys.version.split()[0]} on {platform.machine()}; fix: boot it without the project (project=None), "
            f"or make the environment with the Python of Debian {target.suite}"
        )


def copy_packages(distributions: Iterable[metadata.Distribution], target: Path) -> None:
    """Copy the files of the distributions. Modification times are kept, so their compiled bytecode stays valid."""
    for distribution in distributions:
        for file in distribution.files or []:
            source = Path(str(file.locate()))
            if file.parts[0] == ".." or not source.exists():  # scripts; and what pip lists without having it
                continue
            destination = target / file
            destination.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, destination)


def packages_disk(project: Path, target: Target, cache: Path, work: Path) -> Path:
    """An ext4 image of the needed Python packages: made once per set of versions, in ``cache``.

    Where the cache is another user's it is made in ``work``, for this guest alone.
    """
    check_abi(target)
    distributions = needed_distributions(project_requirements(project) + TEST_PACKAGES)
    names = "\n".join(f"{name}=={found.version}" for name, found in sorted(distributions.items()))
    final = cache / f"site-{hashlib.sha256(names.encode()).hexdigest()[:16]}.img"
    if not final.exists():
        if not os.access(cache, os.W_OK):
            final = work / final.name
        with tempfile.TemporaryDirectory(prefix=".site-", dir=final.parent) as directory:
            tree, image = Path(directory) / "site", Path(directory) / final.name
            copy_packages(distributions.values(), tree)
            make_ext4(tree, image, disk_size(tree))
            image.rename(final)
    touch(final)
    return final


def project_disk(project: Path | None, work: Path) -> Path:
    """An ext4 image in ``work`` of our runner and the project's tree, if there is to be one; made for every guest."""
    tree = work / "project"
    (tree / "lab").mkdir(parents=True)
    if project is not None:
        (tree / "site").mkdir()  # where the packages are mounted
        copy_tree(project, tree / "src")
        (tree / "bin").mkdir()
        (tree / "bin/edge-agent").write_text(COMMAND)
        (tree / "bin/edge-agent").chmod(0o755)
    for name in RUNNER:
        destination = tree / "lab/tests" / name
        destination.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(PROJECT / "tests" / name, destination)
    image = work / "project.img"
    make_ext4(tree, image, disk_size(tree))
    shutil.rmtree(tree)
    return image


def disk_size(tree: Path) -> str:
    """Room for the tree and for what tests write beside it, as mke2fs takes it. The image is sparse."""
    used = sum(path.lstat().st_size + 4096 for path in tree.rglob("*"))
    return f"{(used * 5 // 4 + SLACK) >> 10}k"
