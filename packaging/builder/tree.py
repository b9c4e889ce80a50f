"""Small Debian systems as directories, made by mmdebstrap(1) once per recipe and kept in the cache of the machine lab.

The build runs the interpreter of one; tests/packaging installs the packages in copies.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from pathlib import Path

from tests.vm import image, mirror
from tests.vm.errors import LabError

INCLUDE = ("python3", "systemd")
"""On top of what every system has: the package's dependencies."""
UNUSED_FOR = 30 * 24 * 3600
"""Seconds after which a tree of another recipe is removed."""


def tree(
    suite: str, architecture: str = "amd64", include: tuple[str, ...] = INCLUDE, *, configured: bool = True
) -> Path:
    """The root directory of such a system, not to be written to. Raises LabError when it cannot be made.

    One that is not ``configured`` has the files of its packages, whose scripts have not run: enough to run programs of
    another architecture, and a matter of seconds.
    """
    variant = "minbase" if configured else "extract"
    recipe = json.dumps([suite, architecture, sorted(include), variant, "merged-usr", image.DPKG_OPTIONS])
    cache = image.cache_directory()
    final = cache / f"tree-{suite}-{architecture}-{hashlib.sha256(recipe.encode()).hexdigest()[:16]}"
    if not final.is_dir():
        if os.geteuid() != 0:
            raise LabError("cannot make a Debian tree: not root (it holds files of several users); fix: run it as root")
        cache.mkdir(parents=True, exist_ok=True)
        with image.lock(cache / f"{final.name}.lock"):
            if not final.is_dir():
                _remove_unused(cache, time.time())
                _make(final, suite, architecture, include, variant)
    image.touch(final)
    return final


def _make(final: Path, suite: str, architecture: str, include: tuple[str, ...], variant: str) -> None:
    work = Path(tempfile.mkdtemp(prefix=".tree-", dir=final.parent))
    try:
        keyring = mirror.KEYRING if Path(mirror.KEYRING).exists() else ""
        sources = work / "sources.list"
        wanted = mirror.guest_sources(mirror.configured_sources(), suite, keyring)
        if variant == "extract":
            wanted = wanted.splitlines()[0]  # the suite itself: newer files than that are of no use to a test
        sources.write_text(wanted + "\n")
        command = [
            "mmdebstrap",
            "--mode=root",
            "--format=directory",
            f"--variant={variant}",
            f"--architectures={architecture}",
            f"--include={','.join(include)}",
            "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr",  # by itself it does so only for configured ones
            '--aptopt=Acquire::Retries "3"',
            *(f"--aptopt={option}" for option in image.clock_options()),
            *(f"--dpkgopt={option}" for option in image.DPKG_OPTIONS),
            suite,
            str(work / "root"),
            str(sources),
        ]
        log = final.parent / f"{final.name}.log"
        image.execute(command, log, f"make a tree of {suite} for {architecture}", image.proxies())
        (work / "root").rename(final)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _remove_unused(cache: Path, now: float) -> None:
    for entry in cache.glob("tree-*"):
        if entry.is_dir() and now - entry.stat().st_mtime > UNUSED_FOR:
            shutil.rmtree(entry)
