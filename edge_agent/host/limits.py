"""From limits to settings of cgroup files, and from written settings to an enforcement report; nearly all pure."""

from __future__ import annotations

import errno
import os

from ..records import Record
from .containment import ENFORCED, NOT_ENFORCED, SAMPLED, UNSET

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..model import Limits
    from .cgroupfs import Cgroup
    from .containment import Report

CONTROLLERS = ("cpu", "io", "memory", "pids")
CONTROLLER = {"memory": "memory", "swap": "memory", "oom_group": "memory", "cpu": "cpu", "pids": "pids", "io": "io"}
"""Which controller holds a resource."""

PAGE = os.sysconf("SC_PAGE_SIZE")  # 16 KiB on a Raspberry Pi 5
LEAST_WEIGHT = 10
"""cpu.weight without a request, as much as a hundredth of a core: it lives, and takes little of a guarantee."""


class Setting(Record):
    """One file to write: the attribute of Cgroup, the value, and what must be read back."""

    resource: str
    attribute: str
    value: Any
    expected: Any
    asked: bool  # False: the kernel's default, which a new cgroup has anyway


class Io(Record):
    """What io limits act on."""

    device: str = ""  # 'major:minor' of the disk with the services' data
    weight: str = ""  # attribute of Cgroup by which weights have an effect on that disk: io_weight, io_bfq_weight; ''


def settings(limits: Limits, io: Io, cpus: int) -> list[Setting]:
    """Every file of a service's cgroup that its limits speak of, growing order: the limit before the guarantee."""
    swap, pids = limits.swap_limit, limits.pids_limit
    found = [
        _memory("memory", "memory_max", limits.memory_limit),
        Setting("memory", "memory_low", limits.memory_request, pages(limits.memory_request), limits.memory_request > 0),
        _memory("swap", "memory_swap_max", swap),
        Setting("oom_group", "memory_oom_group", True, True, True),
        Setting("pids", "pids_max", pids, pids, pids is not None),
        _plain("cpu", "cpu_weight", cpu_weight(limits.cpu_request, cpus)),
        Setting("cpu", "cpu_max", limits.cpu_limit, limits.cpu_limit, limits.cpu_limit is not None),
    ]
    if io.weight:
        weight = 100 if limits.io_weight is None else limits.io_weight
        value = bfq_weight(weight) if io.weight == "io_bfq_weight" else weight
        found.append(Setting("io", io.weight, value, value, limits.io_weight is not None))
    if io.device:
        rates = {"rbps": limits.io_read_bps, "wbps": limits.io_write_bps}
        asked = rates != {"rbps": None, "wbps": None}
        found.append(Setting("io", "io_max", {io.device: rates}, {io.device: rates}, asked))
    return found


def total_settings(memory: int, cpu: int) -> list[Setting]:
    """The same for the total on all services: bytes, milli-cores."""
    return [_memory("memory", "memory_max", memory), Setting("cpu", "cpu_max", cpu, cpu, True)]


def pages(size: int) -> int:
    """What the kernel makes of a size: whole pages, rounded down."""
    return size // PAGE * PAGE


def cpu_weight(request: int, cpus: int) -> int:
    """cpu.weight, 1 to 10000, in proportion to the request in milli-cores, also on machines of more than ten cores."""
    scale = max(1, -(-cpus // 10))
    return min(10_000, max(1, (request + scale // 2) // scale)) if request > 0 else LEAST_WEIGHT


def bfq_weight(weight: int) -> int:
    """io.weight (1 to 10000, default 100) on BFQ's scale (1 to 1000, default 100); as systemd maps it."""
    return weight if weight <= 100 else 100 + (weight - 100) * 900 // 9900


def apply(cgroup: Cgroup, wanted: list[Setting], *, fresh: bool) -> dict[str, str]:
    """Write and read back; resource -> what went wrong first, nothing for those that hold.

    ``fresh``: the cgroup is new and holds the kernel's defaults, which are not written again.
    """
    failed: dict[str, str] = {}
    for setting in wanted:
        if fresh and not setting.asked:
            continue
        code = _write(cgroup, setting)
        if code and setting.asked:
            failed.setdefault(setting.resource, code)
    return failed


def shrinking(cgroup: Cgroup, limits: Limits) -> bool:
    """Does the guarantee go down? Then it goes before the limit, so that it never is above it."""
    try:
        return limits.memory_request < cgroup.memory_low
    except (OSError, ValueError):
        return False


def report(limits: Limits, failed: dict[str, str], missing: dict[str, str], io: Io, *, sampled: bool) -> Report:
    """The enforcement report of a service. ``missing``: controllers that are not there, with the code why."""
    rates = limits.io_read_bps is not None or limits.io_write_bps is not None
    asked = {
        "memory": limits.memory_limit is not None,
        "swap": limits.swap_limit is not None,
        "cpu": limits.cpu_limit is not None or limits.cpu_request > 0,
        "pids": limits.pids_limit is not None,
        "io": limits.io_weight is not None or rates,
        "oom_group": True,
    }
    if rates and not io.device:
        failed = {"io": "no-device", **failed}
    elif limits.io_weight is not None and not io.weight:
        failed = {"io": "no-io-weight", **failed}
    return {
        resource: judge(resource, failed, missing, sampled=sampled) if asked[resource] else (UNSET, "")
        for resource in asked
    }


def judge(resource: str, failed: dict[str, str], missing: dict[str, str], *, sampled: bool) -> tuple[str, str]:
    """(kind, code) of one resource for which a limit was asked."""
    absent = missing.get(CONTROLLER[resource])
    if absent is not None:
        return (SAMPLED if sampled and resource in ("memory", "pids") else NOT_ENFORCED), absent
    code = failed.get(resource, "")
    return (NOT_ENFORCED, code) if code else (ENFORCED, "")


def refusal(error: OSError) -> str:
    """The code for an error: refused:EINVAL."""
    return f"refused:{errno.errorcode.get(error.errno or 0, 'EIO')}"


def _memory(resource: str, attribute: str, size: int | None) -> Setting:
    return Setting(resource, attribute, size, None if size is None else pages(size), size is not None)


def _plain(resource: str, attribute: str, value: int) -> Setting:
    return Setting(resource, attribute, value, value, True)


def _write(cgroup: Cgroup, setting: Setting) -> str:
    try:
        setattr(cgroup, setting.attribute, setting.value)
        held = getattr(cgroup, setting.attribute)
    except OSError as error:
        return refusal(error)
    except ValueError:
        return "readback"
    return "" if _equal(held, setting.expected) else "readback"


def _equal(held: Any, expected: Any) -> bool:
    """io.max lists devices with a limit only, and of them more keys than were written."""
    if not isinstance(expected, dict):
        return bool(held == expected)
    return all(
        held.get(device, {}).get(key) == value for device, rates in expected.items() for key, value in rates.items()
    )
