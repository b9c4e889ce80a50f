"""Wheels for another machine, by pip and with pinned hashes, and the one directory they make together.

The wheels of one release for two Pythons have the same files except for extension modules, whose names carry the ABI
(PEP 3149). So both go into one directory, and each interpreter finds its own there.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from .pins import Pin, without
from .targets import PYTHONS, Target

FROM_SOURCE = ("cgroupspy",)
"""Pure distributions that are published as source only; pip makes their wheel."""

NOT_INSTALLED = ("pycparser",)
"""Distributions that only what we leave out would use: cffi reads C with it."""

UNUSED = (
    "annotated_types/test_cases.py",
    "apscheduler/executors",  # the timekeeper uses triggers, in a loop of its own
    "apscheduler/jobstores",
    "apscheduler/schedulers",
    "cffi",  # only its backend is used at run time: _cffi_backend
    "dotenv/cli.py",
    "psutil/tests",
    "psutil/_psbsd.py",
    "psutil/_psosx.py",
    "psutil/_pssunos.py",
    "psutil/_pswindows.py",
    "psutil/_psaix.py",
    "pydantic/color.py",
    "pydantic/experimental",
    "pydantic/mypy.py",
    "pydantic/v1",  # pydantic 1 for those who still use it
    "zmq/_future.py",
    "zmq/asyncio.py",
    "zmq/auth",
    "zmq/backend/cffi",  # for PyPy
    "zmq/devices",
    "zmq/tests",
    "zmq/log",
    "zmq/green",
    "zmq/eventloop",
    "zmq/ssh",
)
"""Files and directories below the import directory that a device never imports; tests/packaging imports the rest."""
UNUSED_SUFFIXES = (".pyi", ".pyx", ".pxd", ".pxi", ".h", ".c", ".typed", ".exe", ".pth")
KEPT_OF_DIST_INFO = ("METADATA", "LICENSE", "LICENCE", "COPYING", "NOTICE", "AUTHORS", "licenses")


class WheelError(Exception):
    """The wheels cannot be had or do not go together; the text is for people."""


def wanted(name: str) -> bool:
    """Whether the file ``name`` of a wheel is installed."""
    path = PurePosixPath(name)
    if path.suffix in UNUSED_SUFFIXES or any(path.is_relative_to(unused) for unused in UNUSED):
        return False
    top = path.parts[0]
    if top.endswith(".dist-info"):
        return len(path.parts) > 1 and path.parts[1].startswith(KEPT_OF_DIST_INFO)
    return not top.endswith(".data")


def collect(pins: Sequence[Pin], target: Target, cache: Path) -> dict[str, list[Path]]:
    """Distribution -> its wheels, one or one per Python. They are downloaded once per set of pins. WheelError."""
    pins = without(pins, (*target.system, *NOT_INSTALLED))
    found: dict[str, list[Path]] = {}
    for python in PYTHONS:
        for pin in pins:
            wheel = _wheel(pin, target, python, cache)
            if wheel not in found.setdefault(pin.name, []):
                found[pin.name].append(wheel)
    return found


def merge(wheels: Iterable[Path], directory: Path) -> None:
    """Put what is wanted of ``wheels`` into ``directory``. WheelError when two have different files of one name."""
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if name.endswith("/") or not wanted(name):
                    continue
                path, content = directory / name, archive.read(name)
                if path.name == "METADATA":  # what follows the headers is the project's README
                    content = content.partition(b"\n\n")[0] + b"\n"
                if path.exists() and path.read_bytes() != content:
                    raise WheelError(f"cannot put {wheel.name} beside the others: its {name} is another; fix: the pins")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)


def tops(wheels: Iterable[Path]) -> set[str]:
    """Files and directories (with a ``*`` for what is in them) that ``wheels`` have in the import directory."""
    found = set()
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            for name in filter(wanted, archive.namelist()):
                top, slash, _ = name.partition("/")
                found.add(f"{top}/*" if slash else top)
    return found


def _wheel(pin: Pin, target: Target, python: tuple[int, int], cache: Path) -> Path:
    pure = pin.name in FROM_SOURCE
    place = "any" if pure else f"{target.wheel}-cp{python[0]}{python[1]}"
    key = hashlib.sha256(pin.line.encode()).hexdigest()[:12]
    directory = cache / f"{pin.name}-{pin.version}-{place}-{key}"
    if not directory.is_dir():
        work = cache / f".{directory.name}.{os.getpid()}"
        work.mkdir(parents=True)
        try:
            (work / "requirements.txt").write_text(pin.line + "\n")
            _pip(_make_wheel() if pure else _download(target, python), work, pin)
            work.rename(directory)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    (wheel,) = directory.glob("*.whl")
    return wheel if pure or "-none-any" not in wheel.name else _shared(wheel, cache)


def _shared(wheel: Path, cache: Path) -> Path:
    """The same file under one path for all targets and Pythons."""
    path = cache / wheel.name
    if not path.exists():
        part = cache / f".{wheel.name}.{os.getpid()}"
        shutil.copy(wheel, part)
        part.rename(path)
    return path


def _make_wheel() -> list[str]:
    return ["wheel", "--no-build-isolation", "--wheel-dir", "."]


def _download(target: Target, python: tuple[int, int]) -> list[str]:
    version = f"{python[0]}{python[1]}"
    words = ["download", "--only-binary=:all:", "--dest", ".", "--implementation=cp", f"--python-version={version}"]
    words += [f"--abi={abi}" for abi in (f"cp{version}", "abi3", "none")]
    return words + [f"--platform={platform}" for platform in target.platforms]


def _pip(words: list[str], directory: Path, pin: Pin) -> None:
    common = ["--quiet", "--no-deps", "--require-hashes", "--requirement=requirements.txt"]
    argv = [sys.executable, "-m", "pip", *words, *common]
    done = subprocess.run(argv, cwd=directory, capture_output=True, text=True)
    if done.returncode != 0:
        raise WheelError(f"cannot get {pin.name} {pin.version}: pip says: {done.stderr.strip()[-1500:]}")
