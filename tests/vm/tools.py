"""The host's programs the lab runs. tests/vm/install installs them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from .errors import LabError
from .target import Target

TOOLS = ("cpio", "mke2fs", "mmdebstrap", "qemu-img", "setpriv", "tar")
EMULATOR = Path("/proc/sys/fs/binfmt_misc/qemu-aarch64")
"""The kernel runs programs of arm64 by QEMU, admin-guide/binfmt-misc.rst: for installing Debian's packages."""


def environment() -> dict[str, str]:
    """This process's, with the directory of mke2fs in PATH, which an ordinary user's PATH leaves out."""
    return os.environ | {"PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"}


def missing(target: Target) -> list[str]:
    """Those of the tools for guests of this kind that are not here."""
    wanted = (*TOOLS, target.board.program)
    lacking = [tool for tool in wanted if shutil.which(tool, path=environment()["PATH"]) is None]
    if target.architecture == "arm64" and os.uname().machine != "aarch64" and not EMULATOR.exists():
        lacking.append(str(EMULATOR))
    return lacking


def require(target: Target) -> None:
    """LabError that names what is missing."""
    if lacking := missing(target):
        fix = "tests/vm/install" + ("" if target.architecture == "amd64" else f" {target.architecture}")
        raise LabError(f"cannot use the virtual machine lab: no {', '.join(lacking)} here; fix: {fix}")
