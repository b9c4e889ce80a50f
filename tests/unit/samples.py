"""Profiles and machines that the tests of budget, enforcement and planview share."""

from __future__ import annotations

from edge_agent.demand import Amount, Demand, Facts, Profile
from edge_agent.model import ESSENTIAL, HEAVY, NORMAL, Health, Limits, Service

MB = 1000**2
GB = 1000**3
MIB = 1 << 20
GIB = 1 << 30


def demand(
    name: str,
    memory: int = 0,
    cpu: int = 0,
    *,
    importance: int = NORMAL,
    depends_on: tuple[str, ...] = (),
    enabled: bool = True,
) -> Demand:
    """A service whose request is its limit, as the short form ``memory: 256MB`` has it; 0 asks for nothing."""
    return Demand(
        Service(name, (f"/usr/bin/{name}",), depends_on=depends_on, importance=importance),
        enabled=enabled,
        memory_request=Amount(memory) if memory else None,
        memory_limit=Amount(memory) if memory else None,
        cpu_request=Amount(cpu) if cpu else None,
        cpu_limit=Amount(cpu) if cpu else None,
    )


def profile(*demands: Demand, memory: int | None = None, cpu: int | None = None, agent: int | None = 0) -> Profile:
    """A profile with absolute totals; by default the agent keeps nothing, so that sums are plain."""
    return Profile(
        name="test",
        source="/etc/edge-agent/profiles/test.yaml",
        mode="edge",
        demands=demands,
        memory_total=None if memory is None else Amount(memory),
        cpu_total=None if cpu is None else Amount(cpu),
        memory_reserve=agent,
    )


EDGE = Profile(
    name="edge",
    source="/etc/edge-agent/profiles/edge.yaml",
    mode="edge",
    memory_total=Amount(2 * GB),
    cpu_total=Amount(1000),
    demands=(
        demand("identity", 256 * MB, 250, importance=ESSENTIAL),
        demand("storage", 512 * MB, 500, depends_on=("identity",)),
        demand("node", 256 * MB, 250, depends_on=("identity",)),
        demand("analytics", importance=HEAVY, enabled=False),
        demand("telemetry", importance=HEAVY, enabled=False),
    ),
)
"""The edge block of the deployment document, with the order its services need."""

SHARES = Profile(
    name="shares",
    source="/etc/edge-agent/profiles/shares.yaml",
    mode="single_node",
    memory_total=Amount(share=0.8),
    cpu_total=Amount(share=0.5),
    os_memory_reserve=Amount(128 * MIB),
    demands=(
        Demand(
            Service(
                "broker",
                ("/usr/sbin/mosquitto", "-c", "/etc/mosquitto/mosquitto.conf"),
                env=(("TZ", "UTC"),),
                uid=113,
                gid=117,
                importance=ESSENTIAL,
                limits=Limits(pids_limit=32, io_weight=200),
                health=Health("tcp", port=1883),
                oom_score_adj=-500,
            ),
            memory_request=Amount(share=0.1),
            memory_limit=Amount(share=0.25),
            swap_limit=Amount(0),
            cpu_request=Amount(100),
        ),
        Demand(
            Service("worker", ("/opt/worker",), depends_on=("broker",), limits=Limits(io_write_bps=4 * MIB), nice=5),
            memory_limit=Amount(share=0.29),
            cpu_limit=Amount(8000),
        ),
        demand("report", 96 * MIB, 50, importance=HEAVY),
    ),
    not_acted_on=("performance.go_runtime.GOGC (shares.yaml:31)",),
)

ALL = ("cpuset", "cpu", "io", "memory", "pids")
UNIT = "/sys/fs/cgroup/system.slice/edge-agent.service"
SERVER = Facts(
    memory=8 * GIB,
    cpus=4,
    cgroup="unified",
    controllers=ALL,
    delegated=True,
    cgroup_path=UNIT,
    psi=True,
    io_weight=True,
    io_device="8:0",
    systemd=True,
    root=True,
    kernel="6.1.0-18-amd64",
)
STOCK_PI = Facts(
    memory=1_901_563_904,  # a Raspberry Pi 4 with 2 GB
    cpus=4,
    swap=200 * MIB,
    swap_kind="zram",
    cgroup="unified",
    controllers=("cpuset", "cpu", "io", "pids"),
    delegated=True,
    cgroup_path=UNIT,
    memory_disabled_on_cmdline=True,
    io_device="179:0",
    systemd=True,
    root=True,
    kernel="6.12.25+rpt-rpi-v8",
)
SHELL = SERVER._replace(delegated=False, cgroup_path="/sys/fs/cgroup/user.slice/user-0.slice/session-1.scope")
HYBRID = Facts(memory=2 * GIB, cpus=2, cgroup="hybrid", root=True, kernel="5.10.0-8-amd64")
MACHINES = {"server": SERVER, "stock-pi": STOCK_PI, "shell": SHELL, "hybrid": HYBRID}
