"""The nouns every room shares: Service, Plan, Event, Action. Immutable, plain, packable with msgpack.

Units: bytes, seconds, milli-cores (1000 = one core), so that sums of budgets are exact. ``None`` means "no limit".
"""

from __future__ import annotations

from .records import Record

PLAN_VERSION = 3
UNLIMITED = -1
"""``Restart.max_attempts``: never give up."""

ESSENTIAL, NORMAL, HEAVY = 100, 50, 0
"""Importance by name; any whole number from 0 to 100 is allowed. At or above ESSENTIAL a service is never shed."""

RELEASED = 1_767_225_600.0
"""2026-01-01 in UTC: this program is not older, so no right clock says less."""

TIMEKEEPER = "timekeeper"
"""The bundled service that keeps the schedule, and its name."""

RESOURCES = ("memory", "swap", "cpu", "pids", "io", "oom_group")
"""What an enforcement report speaks of."""

PROTECTIONS = ("no_new_privileges", "capabilities", "read_only", "private_tmp", "private_devices", "protect_home")
"""What a sandbox report speaks of: fields of Sandbox."""


class Limits(Record):
    """What one service may use. Requests are guaranteed and admitted; limits are the most it may ever take."""

    memory_request: int = 0  # bytes; memory.low
    memory_limit: int | None = None  # bytes; memory.max
    swap_limit: int | None = None  # bytes; memory.swap.max
    cpu_request: int = 0  # milli-cores; cpu.weight
    cpu_limit: int | None = None  # milli-cores; cpu.max
    pids_limit: int | None = None  # tasks; pids.max
    io_weight: int | None = None  # 1..10000; io.weight
    io_read_bps: int | None = None  # bytes/s; io.max on the device that holds the service's data
    io_write_bps: int | None = None  # bytes/s


class Health(Record):
    """How a service shows that it is ready and alive. ``kind`` '' means: ready once its program has been executed."""

    kind: str = ""  # '' | http | tcp | exec | sd_notify
    host: str = "127.0.0.1"
    port: int = 0
    path: str = "/"  # http: any 2xx or 3xx answer is healthy
    argv: tuple[str, ...] = ()  # exec: exit code 0 is healthy
    interval: float = (
        10.0  # seconds between probes once ready; sd_notify: WATCHDOG=1 at least this often; 0: never again
    )
    timeout: float = 3.0  # seconds for one probe
    failures: int = 3  # failed probes in a row before a restart


class Restart(Record):
    """restart_policy. Restarts in a row are counted; ``reset_after`` ready seconds forget them."""

    condition: str = "always"  # always | on_failure | never
    max_attempts: int = 5  # UNLIMITED: never give up
    delay: float = 1.0  # seconds before the first restart
    factor: float = 2.0  # growth of the delay by attempt
    max_delay: float = 60.0  # ceiling, seconds
    jitter: float = 0.1  # share of the delay added or taken away at random
    reset_after: float = 60.0  # seconds


class Log(Record):
    """Where output goes: a size-bounded file in memory (the run directory) or on disk, the journal, or nowhere."""

    kind: str = "memory"  # memory | disk | journal | none
    max_bytes: int = 256 * 1024  # both segments together


class Sandbox(Record):
    """What a service may not do or see. As it stands nothing is taken from it, and ``required`` means nothing."""

    no_new_privileges: bool = False  # PR_SET_NO_NEW_PRIVS: no setuid program gives it more than it has
    capabilities: tuple[int, ...] | None = None  # CAP_* that it keeps, capabilities(7); None: not touched
    read_only: bool = False  # every mount, /proc and /sys included, but its own directories and ``writable``
    writable: tuple[str, ...] = ()  # absolute paths
    private_tmp: bool = False  # /tmp, /var/tmp and /dev/shm of its own, in memory, inside its memory limit
    private_devices: bool = False  # /dev with null, zero, full, random, urandom, tty and ptys alone
    protect_home: bool = False  # /home, /root and /run/user are empty
    visible: tuple[str, ...] = ()  # absolute paths that are seen, read-only, in what is private or empty
    required: bool = False  # without all of this it does not start; else it starts with less, and that is said


class Service(Record):
    """One service, every name resolved to a number, every default filled in, ready to start."""

    name: str
    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()
    cwd: str = "/"
    uid: int | None = None  # None: as the agent
    gid: int | None = None
    groups: tuple[int, ...] = ()
    depends_on: tuple[str, ...] = ()
    importance: int = NORMAL
    limits: Limits = Limits()
    health: Health = Health()
    restart: Restart = Restart()
    log: Log = Log()
    stop_signal: int = 15
    stop_timeout: float = 10.0  # seconds from the stop signal to cgroup.kill
    start_timeout: float = 60.0  # seconds to become ready
    nice: int = 0
    ioprio: tuple[int, int] | None = None  # (class 1..3, level 0..7), ioprio_set(2)
    scheduler: tuple[int, int] | None = None  # (policy, priority), sched_setscheduler(2)
    oom_score_adj: int = 0
    rlimits: tuple[tuple[int, int, int], ...] = ()  # (RLIMIT_*, soft, hard), -1 is infinity, setrlimit(2)
    directories: tuple[str, ...] = ()  # absolute, below the agent's data or run directory; made for its user
    sandbox: Sandbox = Sandbox()
    freezable: bool = False  # under pressure it may be frozen before it is shed
    scheduled: bool = False  # it runs only while the schedule, or a person, asks for it


class Entry(Record):
    """One entry of a schedule. A window has ``end``, or ``cron`` and ``lasts``; ``cron`` alone has moments."""

    name: str
    cron: str = ""  # five fields, crontab(5)
    begin: int = -1  # minutes after midnight
    end: int = -1  # the same; up to ``begin`` it is the next day's, 1440 is midnight
    days: tuple[int, ...] = ()  # 0 is Monday: the days on which a window begins; (): every day
    zone: str = ""  # of the IANA database; '': the machine's
    lasts: float = 0.0  # seconds from an occurrence of ``cron`` to the end of its window
    profile: str = ""  # to switch to, or
    services: tuple[str, ...] = ()  # to run
    grace: float = 3600.0  # seconds by which a missed moment may be late and is still made up for

    @property
    def is_window(self) -> bool:
        """Whether it has an end, so that it is open or closed."""
        return self.end >= 0 or self.lasts > 0


class Plan(Record):
    """A profile made concrete for one machine: the only form of configuration the resident reads."""

    profile: str  # the name chosen
    source: str  # path of the file it came from
    memory_total: int  # bytes for services and agent together
    cpu_total: int  # milli-cores
    memory_reserve: int  # bytes of memory_total kept for the agent
    cpu_reserve: int  # milli-cores
    services: tuple[Service, ...]  # dependencies before dependants
    enforcement: str = "auto"  # auto | cgroup2 | sampling | none
    switch_timeout: float = 60.0  # seconds for essentials to become ready before a switch is rolled back
    notes: tuple[str, ...] = ()  # what the compiler wants said: keys not acted on, services dropped by --fit
    flags: tuple[str, ...] = ()  # of the command that compiled it, for the next boot and for a reload
    schedule: tuple[Entry, ...] = ()  # what its timekeeper may ask for


# -- events: what the outside tells the reconciler ---------------------------------------------------------------------


class Tick(Record):
    """Time has passed; some deadline may be due."""


class Launched(Record):
    """The host forked the service's process; it sits in its cgroup and waits to be released."""

    name: str
    pid: int
    started: int  # clock ticks since boot, field 22 of /proc/PID/stat: with the pid, a process's identity


class LaunchFailed(Record):
    """The host could not fork, place or execute the process. ``reason`` is a sentence for people."""

    name: str
    reason: str


class Executed(Record):
    """The released process now runs the service's program."""

    name: str


class Ready(Record):
    """A probe succeeded, or the service said READY=1."""

    name: str


class Unhealthy(Record):
    """Too many probes failed in a row, or the watchdog message stayed out."""

    name: str
    reason: str


class Exited(Record):
    """The main process ended. ``status``: exit code, or minus the signal; None when the agent was not its parent."""

    name: str
    pid: int
    status: int | None
    oom: str = ""  # '' | own | total | machine: which limit had it killed


class Emptied(Record):
    """No process of the service is left."""

    name: str


class OverLimit(Record):
    """Sampling found the service over a limit that no kernel controller holds."""

    name: str
    reason: str


class Switch(Record):
    """Make ``plan`` the goal. ``request`` comes back in the Reply."""

    request: int
    plan: Plan


class Ask(Record):
    """A person's ``verb`` (start, stop, restart) for one service."""

    request: int
    verb: str
    name: str


class Shed(Record):
    """Memory is short: stop it gracefully, kill it soon, keep it away until ``Return``. ``text``: why, in numbers."""

    name: str
    text: str


class Return(Record):
    """There is room for it again."""

    name: str
    text: str


class Wake(Record):
    """The schedule asks for a service, or asks no more. ``text``: by which entry, and why now."""

    name: str
    awake: bool
    text: str


class Shutdown(Record):
    """Stop everything in reverse order, then exit."""


# -- actions: what the reconciler asks of the host ---------------------------------------------------------------------


class Launch(Record):
    """Make the cgroup, set its limits, fork the process and hold it before its first instruction."""

    service: Service


class Release(Record):
    """Its pid is on record: let the held process execute its program."""

    name: str


class Resize(Record):
    """Change the limits of a running service in place."""

    service: Service


class SetTotal(Record):
    """Set the total on all services together: bytes, milli-cores."""

    memory: int
    cpu: int


class Watch(Record):
    """Start probing the service's health (again): until ready when ``ready`` is false, then at its interval."""

    service: Service
    ready: bool


class Signal(Record):
    """Send a signal to the main process."""

    name: str
    signum: int


class Kill(Record):
    """Kill every process of the service (cgroup.kill), then report Emptied."""

    name: str


class Remove(Record):
    """The service is empty: remove its cgroup and runtime files."""

    name: str


class Commit(Record):
    """The plan is in force: keep it as the choice for the next boot and the last known good."""

    plan: Plan


class Note(Record):
    """An event for people. ``notable`` ones are written to disk and outlive a reboot."""

    kind: str
    service: str = ""
    text: str = ""
    notable: bool = False


class Reply(Record):
    """The answer to a request. ``code``: for programs, why not: '' | refused | busy | rolled-back."""

    request: int
    text: str
    code: str = ""


class Exit(Record):
    """Everything is stopped; the agent may go."""


Event = (
    Tick
    | Launched
    | LaunchFailed
    | Executed
    | Ready
    | Unhealthy
    | Exited
    | Emptied
    | OverLimit
    | Switch
    | Ask
    | Shed
    | Return
    | Wake
    | Shutdown
)
Action = Launch | Release | Resize | SetTotal | Watch | Signal | Kill | Remove | Commit | Note | Reply | Exit
