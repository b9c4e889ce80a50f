"""The keys of a service."""

from __future__ import annotations

import re
import resource
from typing import Annotated, Any, ClassVar

from pydantic import Field, model_validator

from ..demand import Amount
from ..model import ESSENTIAL, HEAVY, NORMAL
from . import readers
from .checks import Health
from .problems import ReadError, suggest
from .readers import AbsolutePath, Argv, Before, Cpu, Duration, Flag, Memory, PositiveDuration, Reader, Text, Whole
from .sandbox import Sandbox
from .section import NOT_YET, NotActedOn, Section
from .tree import Leaf

SERVICE_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
POLICIES = {"SCHED_NORMAL": 0, "SCHED_OTHER": 0, "SCHED_FIFO": 1, "SCHED_RR": 2, "SCHED_BATCH": 3, "SCHED_IDLE": 5}
"""sched(7)."""
IO_CLASSES = {"realtime": 1, "best_effort": 2, "idle": 3}
"""ioprio_set(2)."""
RLIMITS: dict[str, int] = {
    name.removeprefix("RLIMIT_").lower(): value for name, value in vars(resource).items() if name.startswith("RLIMIT_")
}
RLIMITS["locks"] = 10
RLIMITS.pop("ofile", None)  # BSD's name of nofile
DEFAULT_IMPORTANCE = {
    "identity": ESSENTIAL,
    "node": ESSENTIAL,
    "storage": NORMAL,
    "ledger": NORMAL,
    "api_gateway": NORMAL,
    "analytics": HEAVY,
    "telemetry": HEAVY,
    "timekeeper": 90,  # the last to go: it brings back what sleeps, but a node does without it for a while
}
"""The bundled services. Other services are NORMAL unless they say otherwise."""
INFINITE = ("unlimited", "infinity")


def service_name(value: object) -> str:
    """A name that can be a directory, a cgroup and a word on a command line."""
    name = value if isinstance(value, str) else readers.text(value)
    if not SERVICE_NAME.fullmatch(name):
        raise ReadError("not a service name", "use 1 to 63 of a-z, 0-9, _ and -, starting with a letter or digit")
    return name


ServiceName = Annotated[str, Reader(service_name)]
ServiceNames = Annotated[tuple[ServiceName, ...], Before(readers.as_list)]


class MemoryAmounts(Section):
    """``memory: 256MB`` is request and limit in one."""

    needs_value: ClassVar[bool] = True
    request: Annotated[Amount, Reader(readers.requested_memory)] | None = None
    limit: Memory | None = None

    @classmethod
    def short(cls, leaf: Leaf) -> dict[str, object]:
        """The same amount twice."""
        return {"request": leaf, "limit": leaf}

    @model_validator(mode="after")
    def _ordered(self) -> MemoryAmounts:
        _check_order("memory", self.request, self.limit)
        return self


class CpuAmounts(Section):
    """``cpu: 0.25`` is request and limit in one."""

    needs_value: ClassVar[bool] = True
    request: Annotated[Amount, Reader(readers.requested_cpu)] | None = None
    limit: Cpu | None = None

    @classmethod
    def short(cls, leaf: Leaf) -> dict[str, object]:
        """The same amount twice."""
        return {"request": leaf, "limit": leaf}

    @model_validator(mode="after")
    def _ordered(self) -> CpuAmounts:
        _check_order("cpu", self.request, self.limit)
        return self


def _check_order(what: str, request: Amount | None, limit: Amount | None) -> None:
    if request is None or limit is None or (request.share is None) != (limit.share is None):
        return
    if (request.share or request.absolute) > (limit.share or limit.absolute):
        raise ReadError(f"the {what} request is more than the limit", "raise the limit, or lower the request")


class Io(Section):
    """Block I/O, where the kernel has it."""

    weight: Annotated[int, Reader(readers.whole(1, 10000, "weight"))] | None = None
    read_bps: Annotated[int, Reader(readers.size(low=1))] | None = None
    write_bps: Annotated[int, Reader(readers.size(low=1))] | None = None


class Resources(Section):
    """What the service may use."""

    memory: MemoryAmounts = MemoryAmounts()
    cpu: CpuAmounts = CpuAmounts()
    swap: Annotated[int, Reader(readers.size())] | None = None
    pids: Annotated[int, Reader(readers.whole(1, 4_194_304, "number of processes"))] | None = None
    io: Io = Io()


class RestartPolicy(Section):
    """When and how fast to start again. Short form: the condition."""

    needs_value: ClassVar[bool] = True
    condition: Annotated[str, Reader(readers.choice("condition", "always", "on_failure", "never"))] = "always"
    max_attempts: Annotated[int, Reader(readers.attempts)] = 5
    delay: Duration = 1.0
    backoff: Annotated[float, Reader(readers.factor)] = 2.0
    max_delay: Duration | None = None
    jitter: Annotated[float, Reader(readers.part)] = 0.1
    reset_after: PositiveDuration = 60.0

    @classmethod
    def short(cls, leaf: Leaf) -> dict[str, object]:
        """The condition alone."""
        return {"condition": leaf}

    @model_validator(mode="after")
    def _ordered(self) -> RestartPolicy:
        if self.max_delay is not None and self.max_delay < self.delay:
            raise ReadError("max_delay is less than delay", "raise max_delay, or lower delay")
        return self


class IoPriority(Section):
    """Short form: a level of best_effort, or a class."""

    needs_value: ClassVar[bool] = True
    class_: Annotated[int, Reader(lambda v: IO_CLASSES[readers.choice("class", *IO_CLASSES)(v)])] = Field(
        2, alias="class"
    )
    level: Annotated[int, Reader(readers.whole(0, 7, "level"))] | None = None

    @classmethod
    def short(cls, leaf: Leaf) -> dict[str, object]:
        """A level (0 first, 7 last) or a class."""
        return {"class" if leaf.text[:1].isalpha() else "level": leaf}

    @model_validator(mode="after")
    def _level(self) -> IoPriority:
        if self.class_ == IO_CLASSES["idle"] and self.level is not None:
            raise ReadError("the class idle has no levels", "remove the level")
        return self

    @property
    def pair(self) -> tuple[int, int]:
        """Class and level, for ioprio_set(2); 4 is the kernel's own default."""
        return self.class_, 0 if self.class_ == IO_CLASSES["idle"] else 4 if self.level is None else self.level


def _policy(value: object) -> int:
    written = readers.text(value)
    name = "SCHED_" + written.upper().removeprefix("SCHED_")
    if name not in POLICIES:
        raise ReadError("unknown scheduler", lambda: suggest(name, POLICIES))
    return POLICIES[name]


class Scheduler(Section):
    """Short form: a policy that takes no priority."""

    needs_value: ClassVar[bool] = True
    policy: Annotated[int, Reader(_policy)] = 0
    priority: Annotated[int, Reader(readers.whole(0, 99, "priority"))] = 0

    @classmethod
    def short(cls, leaf: Leaf) -> dict[str, object]:
        """The policy alone."""
        return {"policy": leaf}

    @model_validator(mode="after")
    def _priority(self) -> Scheduler:
        realtime = self.policy in (POLICIES["SCHED_FIFO"], POLICIES["SCHED_RR"])
        if realtime and not self.priority:
            raise ReadError("SCHED_FIFO and SCHED_RR need a priority", "write {policy: SCHED_RR, priority: 1}, 1 to 99")
        if self.priority and not realtime:
            raise ReadError(
                "only SCHED_FIFO and SCHED_RR have a priority", "remove it; nice and resources.cpu do the rest"
            )
        return self


def _rlimit_name(name: object) -> int:
    plain = str(name).lower().removeprefix("rlimit_")
    if plain not in RLIMITS:
        raise ReadError("unknown resource limit", lambda: suggest(plain, RLIMITS))
    return RLIMITS[plain]


def _rlimit_value(value: object) -> int:
    if readers.text(value) in INFINITE:
        return -1
    try:
        return readers.size()(value)
    except ReadError as error:
        raise ReadError(
            error.why.replace("size", "limit"), "write a number, a size such as 64MiB, or unlimited"
        ) from None


class Rlimit(Section):
    """Short form: soft and hard in one."""

    needs_value: ClassVar[bool] = True
    soft: Annotated[int, Reader(_rlimit_value)]
    hard: Annotated[int, Reader(_rlimit_value)]

    @classmethod
    def short(cls, leaf: Leaf) -> dict[str, object]:
        """The same twice."""
        return {"soft": leaf, "hard": leaf}

    @model_validator(mode="after")
    def _ordered(self) -> Rlimit:
        if self.hard != -1 and (self.soft == -1 or self.soft > self.hard):
            raise ReadError("the soft limit is more than the hard limit", "raise hard, or lower soft")
        return self


class LogTo(Section):
    """Where output goes. Short form: the kind."""

    needs_value: ClassVar[bool] = True
    kind: Annotated[str, Reader(readers.choice("kind of log", "memory", "disk", "journal", "none"))] = "memory"
    max_size: Annotated[int, Reader(readers.size(4096, 2**31 - 1))] = 256 * 1024

    @classmethod
    def short(cls, leaf: Leaf) -> dict[str, object]:
        """The kind alone."""
        return {"kind": leaf}


def _variables(value: object) -> object:
    """A list of ``NAME=value`` as a mapping."""
    if not isinstance(value, list):
        return {} if isinstance(value, Leaf) and value.empty else value
    pairs: dict[str, object] = {}
    for item in value:
        leaf = readers.scalar(item)
        name, equals, rest = leaf.text.partition("=")
        if not equals:
            raise ReadError(f"'{name[:40]}' has no '='", "write NAME=value")
        pairs[name] = Leaf(rest, leaf.place, plain=False)
    return pairs


def _variable_name(name: object) -> str:
    if not name or "=" in str(name) or "\0" in str(name):
        raise ReadError("not a name for a variable", "remove '=' and NUL")
    return str(name)


def _variable_value(value: object) -> Leaf:
    if isinstance(value, Leaf) and value.empty:
        raise ReadError("has no value", 'write "" for an empty text, or ${NAME} for the agent\'s own variable')
    return readers.scalar(value)


Environment = Annotated[
    dict[Annotated[str, Reader(_variable_name)], Annotated[Leaf, Reader(_variable_value)]], Before(_variables)
]
Rlimits = Annotated[
    dict[Annotated[int, Reader(_rlimit_name)], Rlimit], Before(lambda v: {} if isinstance(v, Leaf) and v.empty else v)
]


class Service(Section):
    """Any program. Values stay as demanded here; ``build`` makes them concrete."""

    enabled: Flag = True
    command: Argv | None = None
    bundled: Annotated[str, Reader(readers.choice("bundled service", *DEFAULT_IMPORTANCE))] | None = None
    environment: Environment = Field(default_factory=dict)
    user: Text | None = None
    group: Text | None = None
    working_directory: AbsolutePath | None = None
    depends_on: ServiceNames = ()
    health: Health | None = None
    restart_policy: RestartPolicy = RestartPolicy()
    stop_signal: Annotated[int, Reader(readers.signal_number)] = 15
    stop_timeout: Duration = 10.0
    start_timeout: PositiveDuration = 60.0
    resources: Resources = Resources()
    importance: Annotated[int, Reader(readers.importance)] | None = None
    freeze: Flag = False
    nice: Annotated[int, Reader(readers.whole(-20, 19, "nice value"))] | None = None
    io_priority: IoPriority | None = None
    scheduler: Scheduler | None = None
    rlimits: Rlimits = Field(default_factory=dict)
    oom_score_adj: Annotated[int, Reader(readers.whole(-1000, 1000, "oom_score_adj"))] | None = None
    log: LogTo = LogTo()
    sandbox: Sandbox | None = None
    mode: Annotated[str, Reader(readers.choice("mode", "subprocess", "embedded"))] = "subprocess"
    placement: Annotated[Text | None, NOT_YET] = None
    replicas: Annotated[Whole | None, NotActedOn(unless=1)] = None

    @classmethod
    def short(cls, _leaf: Leaf) -> dict[str, object]:
        """There is none: a line such as ``web: /usr/bin/web`` would say nothing about limits."""
        raise ReadError("expected keys below it, not a single value", "write 'command: PROGRAM' below it")

    @model_validator(mode="after")
    def _one_program(self) -> Service:
        if self.command and self.bundled:
            raise ReadError("both command and bundled name a program", "keep one of them")
        return self

    def options(self) -> dict[str, Any]:
        """What a bundled program is told beyond this; an ordinary one has none."""
        return {}
