"""The guest's second disk: the project's tree, the Python packages it needs, and the runner. No network in the guest."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

from .errors import LabError
from .image import make_ext4

PROJECT = Path(__file__).resolve().parents[2]
GUEST_PYTHON = (3, 11)
TEST_PACKAGES = ["pytest", "hypothesis"]
RUNNER = ["__init__.py", "vm/__init__.py", "vm/channel.py", "vm/runner.py"]
SLACK = 256 << 20
"""Bytes left free on the disk: tests write caches beside themselves. The image is sparse."""


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


def needed_distributions(roots: list[str]) -> dict[str, metadata.Distribution]:
    """The installed distributions that ``roots`` (requirement strings) need, with all they need themselves, by name."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

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
            raise LabError(
                f"cannot hand {name} to the guest: {sys.executable} does not have it; "
                "fix: run the lab with the Python of the project's environment (make .venv/.test)"
            ) from None
        for text in found[name].requires or []:
            further = Requirement(text)
            if further.marker is None or any(further.marker.evaluate({"extra": extra}) for extra in extras):
                waiting.append(further)
    return found


def project_requirements(project: Path) -> list[str]:
    """``project.dependencies`` of pyproject.toml."""
    with (project / "pyproject.toml").open("rb") as file:
        return [str(text) for text in tomllib.load(file)["project"]["dependencies"]]


def copy_packages(project: Path, target: Path) -> None:
    """Copy the files of every needed distribution out of the running interpreter's environment.

    LabError when their compiled parts would not load in the guest.
    """
    if sys.version_info[:2] != GUEST_PYTHON or "x86_64" not in sys.implementation._multiarch:
        raise LabError(
            f"cannot hand Python packages to the guest: they are for Python {sys.version_info[0]}.{sys.version_info[1]} "
            f"on {sys.implementation._multiarch}, the guest has 3.11 on x86_64; fix: make the environment with that Python"
        )
    for distribution in needed_distributions(project_requirements(project) + TEST_PACKAGES).values():
        for file in distribution.files or []:
            if file.parts[0] == "..":  # scripts
                continue
            destination = target / file
            destination.parent.mkdir(parents=True, exist_ok=True)
            source = Path(str(file.locate()))
            if source.exists():
                shutil.copy2(source, destination)


def make_payload(project: Path, work: Path) -> Path:
    """``payload.img`` in ``work``, with ``src``, ``site`` and ``lab``."""
    tree = work / "payload"
    copy_tree(project, tree / "src")
    copy_packages(project, tree / "site")
    for name in RUNNER:
        destination = tree / "lab/tests" / name
        destination.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(PROJECT / "tests" / name, destination)
    size = sum(path.lstat().st_size + 4096 for path in tree.rglob("*"))
    image = work / "payload.img"
    make_ext4(tree, image, f"{(size * 5 // 4 + SLACK) >> 10}k")
    shutil.rmtree(tree)
    return image
