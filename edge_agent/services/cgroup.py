"""The memory limit this process runs under, from its own cgroup (v2), so that nobody has to tell it.

A limit that is changed while the service runs is written to the cgroup in place; told as an option it would mean a
restart.
"""

from __future__ import annotations

import os


def memory_max(own: str = "/proc/self/cgroup", root: str = "/sys/fs/cgroup") -> int | None:
    """``memory.max`` in bytes; None: no limit, or no unified hierarchy to find it in. cgroups(7), proc(5)."""
    for line in _read(own).splitlines():
        if line.startswith("0::/"):
            names = line[4:].removesuffix(" (deleted)").split("/")
            if ".." in names:  # outside this cgroup namespace, cgroup_namespaces(7)
                return None
            text = _read(os.path.join(root, *names, "memory.max")).strip()
            return int(text) if text.isascii() and text.isdigit() else None  # 'max', or no file
    return None


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
