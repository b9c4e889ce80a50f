"""What this machine is and what it can enforce. Front end only: it imports psutil.

Every place it looks at is a parameter. Nothing here raises for a missing file: that is an answer.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable

import psutil

from ..demand import Facts
from ..records import Record
from . import confinement
from .hierarchy import Hierarchy, find, memory_disabled, read_mounts, read_text

CGROUP_ROOT_VARIABLE = "EDGE_AGENT_CGROUP_ROOT"
"""Names a directory of a v2 hierarchy in which the agent shall make its cgroups, whatever else the machine has."""


class Machine(Record):
    """The sizes of the machine."""

    memory: int  # bytes of RAM
    cpus: int  # online
    swap: int  # bytes


def measure() -> Machine:
    """The sizes of this machine, by psutil."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # psutil warns where /proc/vmstat has no swap counters
        swap = psutil.swap_memory().total
    return Machine(psutil.virtual_memory().total, psutil.cpu_count() or 1, swap)


def gather(
    *,
    data_dir: str = "/var/lib/edge-agent",
    pid: int | None = None,
    override: str | None = None,
    cgroup_root: str = "/sys/fs/cgroup",
    proc: str = "/proc",
    sys: str = "/sys",
    run: str = "/run",
    machine: Callable[[], Machine] = measure,
    get_mark: Callable[[str, str], bytes] = os.getxattr,
    access: Callable[[str, int], bool] | None = None,
    device_of: Callable[[str], int] | None = None,
) -> Facts:
    """Look at the machine. It takes a few milliseconds and changes nothing.

    ``data_dir``: where services keep data; it need not exist yet. ``pid``: of the resident agent when one runs, as
    its cgroup matters and not this command's. ``override``: a cgroup v2 directory to use; None takes
    EDGE_AGENT_CGROUP_ROOT from the environment.
    """
    place = find(
        cgroup_root=cgroup_root,
        proc=proc,
        run=run,
        pid=pid,
        override=os.environ.get(CGROUP_ROOT_VARIABLE, "") if override is None else override,
        get_mark=get_mark,
        access=access,
    )
    sizes = machine()
    process, release = f"{proc}/{pid or 'self'}", read_text(f"{proc}/sys/kernel/osrelease").strip()
    device, scheduler = _disk(data_dir, sys, f"{proc}/self", device_of or _device_of)
    return Facts(
        memory=min([sizes.memory, *_memory_bounds(place)]),
        cpus=sizes.cpus,
        swap=sizes.swap,
        swap_kind=_swap_kind(read_text(f"{proc}/swaps")),
        cgroup=place.kind,
        controllers=place.controllers,
        delegated=place.delegated,
        cgroup_path=place.path,
        memory_disabled_on_cmdline=memory_disabled(read_text(f"{proc}/cmdline")),
        psi=bool(read_text(f"{proc}/pressure/memory")),  # there but unreadable (EOPNOTSUPP) without psi=1
        io_weight=_io_weight(place, device, scheduler),
        io_device=device,
        systemd=os.path.isdir(f"{run}/systemd/system"),
        root=os.geteuid() == 0,
        sandbox_obstacle=confinement.obstacle(read_text(f"{process}/status"), release),
        kernel=release,
    )


def _swap_kind(swaps: str) -> str:
    """From /proc/swaps, proc_swaps(5). With zram and a disk: zram, as it is used first and takes RAM."""
    names = [line.split()[0] for line in swaps.splitlines()[1:] if line.strip()]
    if not names:
        return "none"
    return "zram" if any(os.path.basename(name).startswith("zram") for name in names) else "disk"


def _memory_bounds(place: Hierarchy) -> list[int]:
    """memory.max of the agent's directory and of all above it: in a container these are the machine."""
    bounds = []
    path = place.path
    while path:
        value = read_text(f"{path}/memory.max").strip()
        if value.isdecimal():
            bounds.append(int(value))
        if path == place.top or path == os.path.dirname(path):
            break
        path = os.path.dirname(path)
    return bounds


def _device_of(path: str) -> int:
    return os.stat(path).st_dev


def _disk(path: str, sys: str, process: str, device_of: Callable[[str], int]) -> tuple[str, str]:
    """'major:minor' of the whole disk below ``path``, and its I/O scheduler; '' where there is none to name.

    io.max takes whole disks, not partitions. A filesystem with an anonymous device number (btrfs) is followed to the
    device it was mounted from; one without a device (tmpfs, overlay, nfs) has none.
    """
    while not os.path.exists(path) and os.path.dirname(path) != path:
        path = os.path.dirname(path)
    try:
        number = device_of(path)
    except OSError:
        return "", ""
    device = f"{os.major(number)}:{os.minor(number)}"
    if os.major(number) == 0:
        sources = [mount.source for mount in read_mounts(process) if mount.device == device]
        try:
            number = os.stat(sources[-1]).st_rdev if sources and sources[-1].startswith("/dev/") else 0
        except OSError:
            number = 0
        if not number:
            return "", ""
        device = f"{os.major(number)}:{os.minor(number)}"
    entry = os.path.realpath(f"{sys}/dev/block/{device}")
    if os.path.exists(f"{entry}/partition"):
        entry = os.path.dirname(entry)
    whole = read_text(f"{entry}/dev").strip()
    return whole, read_text(f"{entry}/queue/scheduler") if whole else ""


def _io_weight(place: Hierarchy, device: str, scheduler: str) -> bool:
    """Whether io.weight would have an effect on the disk: io.cost is on for it, or BFQ schedules it.

    Who may use the controller is another question (``controllers``); in the scope a start gets it is answered anew.
    The file alone says nothing: kernels with io.cost built in have it while io.cost is off, which is the default
    (cgroup-v2 documentation, io.cost.qos).
    """
    if "[bfq]" in scheduler:
        return True
    for line in read_text(f"{place.top}/io.cost.qos").splitlines():
        fields = line.split()
        if fields and fields[0] == device and "enable=1" in fields[1:]:
            return True
    return False
