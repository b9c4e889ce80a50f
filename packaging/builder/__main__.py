"""``python -m builder``: the .deb and the .rpm of every architecture into dist/. ``make packages`` calls it."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import yaml

from edge_agent import __version__
from tests.vm.errors import LabError
from tests.vm.image import cache_directory

from . import notices, pins, stage
from .bytecode import CompileError
from .stage import PACKAGING, REPOSITORY, StageError
from .targets import TARGETS, Target, dependencies
from .wheels import WheelError

FORMATS = ("deb", "rpm")


def main(words: Sequence[str]) -> int:
    """Make the packages; 0, or 1 with a sentence on standard error."""
    parser = argparse.ArgumentParser(prog="python -m builder", description="Make the packages.")
    parser.add_argument("--version", default=__version__)
    parser.add_argument("--output", type=Path, default=REPOSITORY / "dist", metavar="DIR")
    parser.add_argument("--work", type=Path, default=REPOSITORY / "build/package", metavar="DIR")
    parser.add_argument("--architectures", nargs="*", default=[], metavar="ARCH", help="of Debian; left out: all")
    options = parser.parse_args(words)
    if not re.fullmatch(r"[0-9]+(\.[0-9]+)*(~[a-z0-9.]+)?", options.version):
        parser.error(f"{options.version!r} is not a version: 1.2.3, or 1.2.3~rc1 for what comes before it")
    targets = [target for target in TARGETS if target.deb in (options.architectures or [each.deb for each in TARGETS])]
    try:
        for target in targets:
            began = time.monotonic()
            for package in make(target, options.version, options.output.resolve(), options.work.resolve() / target.deb):
                size = package.stat().st_size / 1e6
                sys.stdout.write(f"{package}  {size:.1f} MB\n")
            sys.stdout.write(f"{target.deb}: {time.monotonic() - began:.1f} s\n")
            sys.stdout.flush()
    except (CompileError, LabError, StageError, WheelError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def make(target: Target, version: str, output: Path, work: Path) -> list[Path]:
    """The packages of one architecture. ``work`` is removed first."""
    shutil.rmtree(work, ignore_errors=True)
    (work / "root").mkdir(parents=True)
    epoch = source_date_epoch()
    requirements = pins.parse((PACKAGING / "requirements.txt").read_text())
    stage.make(work / "root", target, requirements, version, epoch, cache_directory() / "wheels")
    stage.finish(work / "root", epoch)
    for name in ("packaging", "systemd", "profiles"):
        (work / name).symlink_to(REPOSITORY / name)
    maintainer = yaml.safe_load((PACKAGING / "nfpm.yaml").read_text())["maintainer"]
    stage.write(work / "changelog.yaml", notices.changelog(version, maintainer, epoch))
    output.mkdir(parents=True, exist_ok=True)
    return [_pack(target, version, kind, work, output, epoch) for kind in FORMATS]


def source_date_epoch() -> int:
    """SOURCE_DATE_EPOCH, else the time of the last commit; https://reproducible-builds.org/specs/source-date-epoch."""
    given = os.environ.get("SOURCE_DATE_EPOCH")
    if given:
        return int(given)
    argv = ["git", "log", "-1", "--format=%ct"]
    done = subprocess.run(argv, cwd=REPOSITORY, capture_output=True, text=True)
    if done.returncode != 0:
        raise StageError("cannot date the packages: no git history here; fix: set SOURCE_DATE_EPOCH")
    return int(done.stdout)


def _pack(target: Target, version: str, kind: str, work: Path, output: Path, epoch: int) -> Path:
    name = f"edge-agent_{version}-1_{target.deb}.deb" if kind == "deb" else f"edge-agent-{version}-1.{target.rpm}.rpm"
    environment = {
        "VERSION": version,
        "ELF": target.elf,
        "ARCH": target.go,
        "SOURCE_DATE_EPOCH": str(epoch),
        "PATH": os.environ.get("PATH", ""),
        **dependencies(target, kind),
    }
    argv = [str(Path(sys.executable).with_name("nfpm")), "package"]
    argv += ["--config", str(PACKAGING / "nfpm.yaml"), "--packager", kind, "--target", str(output / name)]
    done = subprocess.run(argv, env=environment, cwd=work, capture_output=True, text=True)
    if done.returncode != 0:
        raise StageError(f"cannot make {name}: nfpm says: {(done.stdout + done.stderr).strip()[-1500:]}")
    return output / name


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
