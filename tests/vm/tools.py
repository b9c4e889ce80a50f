"""The host's programs the lab runs. tests/vm/install installs them."""

from __future__ import annotations

import os
import shutil

from .errors import LabError

TOOLS = ("cpio", "mke2fs", "mmdebstrap", "qemu-img", "qemu-system-x86_64", "setpriv", "tar")


def environment() -> dict[str, str]:
    """This process's, with the directory of mke2fs in PATH, which an ordinary user's PATH leaves out."""
    return os.environ | {"PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"}


def missing() -> list[str]:
    """Those of TOOLS that are not here."""
    return [tool for tool in TOOLS if shutil.which(tool, path=environment()["PATH"]) is None]


def require() -> None:
    """LabError that names what is missing."""
    if lacking := missing():
        raise LabError(f"cannot use the virtual machine lab: no {', '.join(lacking)} here; fix: tests/vm/install")
