"""The files of one package as a directory tree, before nfpm packs them."""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from . import bytecode, completions, manual, notices, wheels
from .pins import Pin, normalised
from .targets import PYTHONS, Target
from .tree import tree

REPOSITORY = Path(__file__).parents[2]
PACKAGING = REPOSITORY / "packaging"
LIBRARY = "/usr/lib/edge-agent"
DIST_PACKAGES = ("/usr/lib/python3/dist-packages", "/usr/lib/python{0}.{1}/site-packages")
"""Where the device's own packages are: Debian's, and those of distributions with rpm."""

REWRITTEN = frozenset(("zmq",))
"""Packages whose modules need a library that came with the wheel."""


class StageError(Exception):
    """The tree cannot be made; the text is for people."""


def interpreter(python: tuple[int, int]) -> list[str]:
    """A command for a Python of that version: this one, or the one of a Debian 13 tree."""
    if sys.version_info[:2] == python:
        return [sys.executable]
    suite = {(3, 11): "bookworm", (3, 13): "trixie"}[python]
    return ["chroot", str(tree(suite)), "/usr/bin/python3"]


def make(root: Path, target: Target, pins: Sequence[Pin], version: str, epoch: int, cache: Path) -> None:
    """Fill the empty directory ``root``. Raises StageError, WheelError, CompileError, LabError."""
    library = root / LIBRARY.lstrip("/")
    found = _library(library, target, pins, version, cache)
    components = [_component(library, name, paths) for name, paths in sorted(found.items())]
    documents(root, components, version, epoch)


def documents(root: Path, components: Sequence[notices.Component], version: str, epoch: int) -> None:
    """What is for people: the manual, completions, copyright, the changelog and the bill of materials."""
    example = (REPOSITORY / "profiles/example.yaml").read_text()
    for name, text in manual.pages(PACKAGING / "manual", version, epoch, example).items():
        packed(root / "usr/share/man" / f"man{name[-1]}" / f"{name}.gz", text)
    for place, text in completions.scripts().items():
        write(root / place, text)
    doc = root / "usr/share/doc/edge-agent"
    write(doc / "copyright", notices.copyright_file(components))
    write(doc / "edge-agent.cdx.json", notices.sbom(components, version, epoch))
    packed(doc / "changelog.gz", (REPOSITORY / "CHANGELOG.md").read_text())


def _component(library: Path, name: str, paths: Sequence[Path]) -> notices.Component:
    (directory,) = (path for path in library.glob("*.dist-info") if normalised(path.name.partition("-")[0]) == name)
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
    return notices.component(directory, digests, wheels.tops(paths), PACKAGING / "licenses")


def _library(library: Path, target: Target, pins: Sequence[Pin], version: str, cache: Path) -> dict[str, list[Path]]:
    """The program, its libraries and their byte code; distribution -> its wheels."""
    library.mkdir(parents=True)
    shutil.copytree(
        REPOSITORY / "edge_agent", library / "edge_agent", ignore=shutil.ignore_patterns("__pycache__", "py.typed")
    )
    _set_version(library / "edge_agent/__init__.py", version)
    found = wheels.collect(pins, target, cache)
    for paths in found.values():
        wheels.merge(paths, library)
    strip(library)
    for python in PYTHONS:
        bytecode.compile_all(library, LIBRARY, interpreter(python))
    launcher = (PACKAGING / "files/edge-agent").read_text()
    system = DIST_PACKAGES if target.system else ()
    launcher = launcher.replace("@PYTHONS@", repr(PYTHONS)).replace("@SYSTEM@", repr(system))
    write(library / "edge-agent", launcher, 0o755)
    write(library / "first-choice", (PACKAGING / "files/first-choice").read_text(), 0o755)
    return found


def finish(root: Path, epoch: int) -> None:
    """The same modes and times whatever the umask and the clock were, for the same bytes from every build."""
    for path in [root, *root.rglob("*")]:
        if not path.is_symlink():
            executable = path.is_dir() or bool(path.stat().st_mode & 0o100)
            path.chmod(0o755 if executable else 0o644)
        os.utime(path, (epoch, epoch), follow_symlinks=False)


def write(path: Path, text: str, mode: int = 0o644) -> None:
    """A text file and the directories above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def packed(path: Path, text: str) -> None:
    """A text file, compressed by gzip without name and time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode(), 9, mtime=0))


def strip(library: Path) -> None:
    """Take symbols and debugging information out of extension modules, as dh_strip does; half of their size.

    What auditwheel has rewritten is left alone: strip(1) breaks files that patchelf has moved parts of. Such are the
    libraries in NAME.libs and the modules that need them.
    """
    left_alone = REWRITTEN | {directory.name for directory in library.glob("*.libs")}
    modules = [path for path in sorted(library.rglob("*.so")) if path.relative_to(library).parts[0] not in left_alone]
    if not modules:
        return
    argv = ["strip", "--strip-unneeded", "--remove-section=.comment", *map(str, modules)]
    done = subprocess.run(argv, capture_output=True, text=True)
    if done.returncode != 0:
        raise StageError(f"cannot strip: {done.stderr.strip()}; fix: packaging/install")
    for module in modules:
        module.chmod(0o644)


def _set_version(path: Path, version: str) -> None:
    text = path.read_text()
    lines = [f'__version__ = "{version}"' if line.startswith("__version__") else line for line in text.splitlines()]
    path.write_text("\n".join(lines) + "\n")
