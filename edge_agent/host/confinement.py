"""What of a sandbox a process really has, read back from the kernel, and what stands in the way of having it.

The agent asks when a person asks for the status, so nothing of it is kept: it is true of adopted services as well.
Codes, as in enforcement reports: 'no-root', 'no-admin' (root without CAP_SYS_ADMIN, as in a container), 'old-kernel',
and 'started-without' where none of them explains it. Obeys the resident import rule.
"""

from __future__ import annotations

import os

from ..model import PROTECTIONS
from .containment import ENFORCED, NOT_ENFORCED, UNSET
from .hierarchy import read_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..model import Sandbox
    from .containment import Report

TMP_PLACES = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108 - mount points
HOME_PLACES = ("/home", "/root", "/run/user")
TMP, HOME, DEVICES = "edge-agent-tmp", "edge-agent-home", "edge-agent-dev"
"""Sources of our mounts, as /proc/PID/mountinfo shows them."""

CAP_SYS_ADMIN = 21
OLDEST_KERNEL = (5, 12)  # mount_setattr(2)


def obstacle(status: str, release: str) -> str:
    """Why a process cannot give a child mounts of its own; '': nothing is known to stand in the way.

    ``status``: its /proc/PID/status; '' tells nothing. ``release``: of the kernel, uname(2).
    """
    fields = _fields(status)
    if status and not int(fields.get("CapEff", "0"), 16) >> CAP_SYS_ADMIN & 1:
        return "no-admin" if fields.get("Uid", "").split()[1:2] == ["0"] else "no-root"
    return "old-kernel" if _version(release) < OLDEST_KERNEL else ""


def report(sandbox: Sandbox, pid: int, proc: str = "/proc") -> Report:
    """For each of PROTECTIONS whether the process has it: (kind, code). {} when there is no such process."""
    status, mounts = read_text(f"{proc}/{pid}/status"), read_text(f"{proc}/{pid}/mountinfo")
    if not status:
        return {}
    missing = obstacle(read_text(f"{proc}/self/status"), os.uname().release) or "started-without"
    found: Report = {}
    for name in PROTECTIONS:
        if not asked(sandbox, name):
            found[name] = UNSET, ""
        elif _has(sandbox, name, _fields(status), mounts):
            found[name] = ENFORCED, ""
        else:
            found[name] = NOT_ENFORCED, missing
    return found


def asked(sandbox: Sandbox, name: str) -> bool:
    """Is this one of PROTECTIONS asked for?"""
    return sandbox.capabilities is not None if name == "capabilities" else bool(getattr(sandbox, name))


def has_mounts(sandbox: Sandbox) -> bool:
    """Does it take mounts of its own?"""
    return sandbox.read_only or sandbox.private_tmp or sandbox.private_devices or sandbox.protect_home


def _has(sandbox: Sandbox, name: str, fields: dict[str, str], mounts: str) -> bool:
    sealed = fields.get("NoNewPrivs") == "1"
    if name == "no_new_privileges":
        return sealed
    if name == "capabilities":
        kept = sum(1 << number for number in sandbox.capabilities or ())
        held = [int(fields.get(key, "0"), 16) & ~kept for key in ("CapInh", "CapPrm", "CapAmb", "CapBnd")]
        return not any(held[:3]) and (sealed or not held[3])  # sealed, it gains nothing from the bounding set
    own = [_mount(line) for line in mounts.splitlines()]
    if name == "read_only":  # of all mounts it is /proc that is read-only nowhere else
        return all(any(at == place and only for at, _, only in own) for place in ("/", "/proc"))
    source = {"private_tmp": TMP, "private_devices": DEVICES, "protect_home": HOME}[name]
    return any(one == source for _, one, _ in own)


def _mount(line: str) -> tuple[str, str, bool]:
    """Mount point, source, read-only: proc_pid_mountinfo(5)."""
    left, _, right = line.partition(" - ")
    fields, names = left.split(), right.split()
    if len(fields) < 6 or len(names) < 2:
        return "", "", False
    return fields[4], names[1], "ro" in fields[5].split(",")


def _fields(status: str) -> dict[str, str]:
    pairs = (line.partition(":") for line in status.splitlines())
    return {key: value.strip() for key, _, value in pairs}


def _version(release: str) -> tuple[int, int]:
    numbers = release.split("-")[0].split(".")[:2]
    if len(numbers) < 2 or not all(number.isascii() and number.isdigit() for number in numbers):
        return OLDEST_KERNEL  # unheard of: the kernel itself will say
    return int(numbers[0]), int(numbers[1])
