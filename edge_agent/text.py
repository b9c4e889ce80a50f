"""Text for people, one way everywhere: sizes in binary units, cores, importance by name, tables. Pure; front end."""

from __future__ import annotations

from .model import ESSENTIAL, HEAVY, NORMAL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

NOTHING = "-"
"""Shown where there is no limit or no value."""

WIDTH = 100
"""Columns of sentences; tables grow with the names of services."""

CAPABILITIES = (
    *("chown", "dac_override", "dac_read_search", "fowner", "fsetid", "kill", "setgid", "setuid", "setpcap"),
    *("linux_immutable", "net_bind_service", "net_broadcast", "net_admin", "net_raw", "ipc_lock", "ipc_owner"),
    *("sys_module", "sys_rawio", "sys_chroot", "sys_ptrace", "sys_pacct", "sys_admin", "sys_boot", "sys_nice"),
    *("sys_resource", "sys_time", "sys_tty_config", "mknod", "lease", "audit_write", "audit_control", "setfcap"),
    *("mac_override", "mac_admin", "syslog", "wake_alarm", "block_suspend", "audit_read", "perfmon", "bpf"),
    "checkpoint_restore",
)
"""By number, capabilities(7) and linux/capability.h."""
_UNITS = ("KiB", "MiB", "GiB", "TiB")
_IMPORTANCE = {ESSENTIAL: "essential", NORMAL: "normal", HEAVY: "heavy"}


def size(amount: int | None) -> str:
    """Bytes with one decimal, ``244.1 MiB``; below 1 KiB exactly, ``512 B``; ``-`` for None.

    Always binary units (IEC 80000-13), as the kernel counts: one column then compares, whatever the profile wrote.
    """
    if amount is None:
        return NOTHING
    if abs(amount) < 1024:
        return f"{amount} B"
    value, step = amount / 1024, 0
    while abs(value) >= 1023.95 and step < len(_UNITS) - 1:  # what would round up to 1024.0 is 1.0 of the next unit
        value, step = value / 1024, step + 1
    return f"{value:.1f} {_UNITS[step]}"


def cores(milli: int | None) -> str:
    """Milli-cores as cores, ``0.25``; a third decimal only where the value has one; ``-`` for None."""
    if milli is None:
        return NOTHING
    return f"{milli / 1000:.3f}" if milli % 10 else f"{milli / 1000:.2f}"


def importance(value: int) -> str:
    """``essential``, ``normal``, ``heavy``, or the number."""
    return _IMPORTANCE.get(value, str(value))


def table(header: Sequence[str], rows: Sequence[Sequence[str]], align: str) -> list[str]:
    """Lines of a table, columns two spaces apart. ``align`` has one of ``<`` and ``>`` per column."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    return [
        "  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(row, align, widths, strict=True)).rstrip()
        for row in (header, *rows)
    ]


def moment(when: float) -> str:
    """A time of the agent's clock in the local zone."""
    import time

    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(when))


def event(entry: Mapping[str, Any]) -> str:
    """One event on one line."""
    service = f" {entry['service']}" if entry["service"] else ""
    return f"{moment(entry['time'])}  {entry['kind']}{service}: {printable(entry['text'])}"


def printable(value: str) -> str:
    """The text without what would move the terminal's cursor."""
    return "".join(c if c.isprintable() else " " for c in value)
