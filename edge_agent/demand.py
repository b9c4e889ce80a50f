"""What a person asked for, validated but not yet fitted to a machine: Profile; and what the machine has: Facts.

Only the front end imports this; the resident reads Plans.
"""

from __future__ import annotations

from .model import Service
from .records import Record


class Amount(Record):
    """An absolute amount, or a share of the total. Memory in bytes, cpu in milli-cores."""

    absolute: int = 0
    share: float | None = None  # 0..1; when set, ``absolute`` is ignored


class Demand(Record):
    """One service of a profile: ``service.limits`` carries pids and io only; memory and cpu are the amounts here."""

    service: Service
    enabled: bool = True
    line: int = 0  # where the profile file speaks of it, for messages; 0: nowhere
    memory_request: Amount | None = None  # None: 0, nothing is guaranteed
    memory_limit: Amount | None = None  # None: bounded by the total only
    swap_limit: Amount | None = None  # None: the kernel's default
    cpu_request: Amount | None = None
    cpu_limit: Amount | None = None
    bundled: bool = False


class Profile(Record):
    """A validated profile."""

    name: str
    source: str
    mode: str  # deployment.mode: edge | single_node | development | distributed | ...
    demands: tuple[Demand, ...]  # in file order, disabled ones included
    memory_total: Amount | None = None  # None: the machine minus the OS reserve
    cpu_total: Amount | None = None
    memory_reserve: int | None = None  # bytes for the agent; None: the default
    os_memory_reserve: Amount | None = None  # kept for the operating system; None: the default
    enforcement: str = "auto"
    switch_timeout: float = 60.0
    not_acted_on: tuple[str, ...] = ()  # dotted keys with lines, accepted but without effect in this release
    notes: tuple[str, ...] = ()  # sentences on what was decided for the person


class Facts(Record):
    """What the machine is and can enforce. Gathered once per command, at the edge (``host/facts.py``)."""

    memory: int  # bytes of RAM
    cpus: int  # online
    swap: int = 0  # bytes
    swap_kind: str = "none"  # none | zram | disk
    cgroup: str = "none"  # unified | hybrid | v1 | none
    controllers: tuple[str, ...] = ()  # v2 controllers the agent may use for its services
    delegated: bool = False  # the agent may make cgroups below ``cgroup_path``
    cgroup_path: str = ""  # absolute directory below which the agent makes its cgroups; '' without v2
    memory_disabled_on_cmdline: bool = False  # cgroup_disable=memory, as a stock Raspberry Pi has it
    psi: bool = False
    io_weight: bool = False  # weights have an effect on the disk: BFQ is active, or io.cost is enabled
    io_device: str = ""  # 'major:minor' of the disk below the data directory, for io.max
    systemd: bool = False
    root: bool = False
    sandbox_obstacle: str = ""  # why no service can have mounts of its own here: a code of host/confinement.py
    kernel: str = ""
