"""The whole format: pydantic-settings puts the layers together by precedence, the models say what each key may hold."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from ..demand import Amount
from ..model import TIMEKEEPER
from . import readers
from .bundled import HERE, Analytics, Identity, Later, Ledger, Node, Storage, Telemetry, Timekeeper
from .problems import Place
from .readers import Before, Flag, Memory, PositiveDuration, Reader, Text, Whole
from .schedule import Schedule
from .section import NOT_YET, NotActedOn, Section
from .service import DEFAULT_IMPORTANCE, IoPriority, Scheduler, Service, ServiceName
from .tree import Leaf, Map, data

MODES = ("edge", "single_node", "development", "distributed")
ENFORCEMENTS = ("auto", "cgroup2", "sampling", "none")


class Cluster(Section):
    """Which nodes belong together."""

    coordinator: Text | None = None
    nodes: Annotated[tuple[Text, ...], Before(readers.as_list)] = ()


class Totals(Section):
    """The budget: what services and agent may use together, and what is left to the operating system."""

    total_memory: Memory | None = None
    total_cpu: readers.Cpu | None = None
    agent_memory: Annotated[int, Reader(readers.size(1024 * 1024))] | None = None
    os_memory: Annotated[Amount, Reader(readers.requested_memory)] | None = None


class Deployment(Section):
    """The machine's part."""

    mode: Annotated[str, Reader(readers.choice("mode", *MODES))] = "edge"
    node_id: readers.ShortName | None = None
    cluster_name: readers.ShortName | None = None
    cluster: Annotated[Cluster | None, NOT_YET] = None
    resources: Totals = Totals()
    enforcement: Annotated[str, Reader(readers.choice("enforcement", *ENFORCEMENTS))] = "auto"
    switch_timeout: PositiveDuration = 60.0


class Orchestrator(Section):
    """The agent's own part."""

    subprocess_management: Annotated[Flag, NotActedOn(unless=True)] = True
    health_check_interval: Annotated[float, Reader(readers.duration(0.1))] = 10.0


class Development(Section):
    """For developers."""

    hot_reload: Annotated[Flag, NotActedOn(unless=False)] = False
    debug_logging: Flag = False
    insecure_mode: Annotated[Flag, NotActedOn(unless=False)] = False


class Grpc(Section):
    """Message transport."""

    max_concurrent_streams: Whole | None = None
    max_message_size: Annotated[int, Reader(readers.size())] | None = None
    keepalive_time: readers.Duration | None = None
    keepalive_timeout: readers.Duration | None = None


class GoRuntime(Section):
    """Variables of a Go program, by their own names."""

    GOGC: Text | None = None
    GOMEMLIMIT: Text | None = None
    GOMAXPROCS: Text | None = None


class Subprocess(Section):
    """Defaults of every service."""

    nice_value: Annotated[int, Reader(readers.whole(-20, 19, "nice value"))] = 0
    io_priority: IoPriority | None = None
    scheduler: Scheduler | None = None


class Performance(Section):
    """Tuning."""

    grpc: Annotated[Grpc | None, NOT_YET] = None
    go_runtime: Annotated[GoRuntime | None, NOT_YET] = None
    subprocess: Subprocess = Subprocess()


class Rule(Section):
    """Who may talk to whom."""

    from_: Text = Field(alias="from")
    to: Text
    ports: Annotated[tuple[readers.Port, ...], Before(readers.as_list)] = ()


class Traffic(Section):
    """Rules of one side."""

    allow: Annotated[tuple[Rule, ...], Before(readers.as_list)] = ()
    deny: Annotated[tuple[Rule, ...], Before(readers.as_list)] = ()
    deny_all_others: Flag = False


class NetworkPolicies(Section):
    """Segmentation."""

    internal: Traffic | None = None
    external: Traffic | None = None


class BackupStorage(Section):
    """Where backups go."""

    type: Text
    bucket: Text | None = None
    region: Text | None = None
    path: Text | None = None


class Backup(Section):
    """When backups are made and how long they are kept."""

    schedule: Text | None = None
    retention_days: Whole | None = None
    storage: BackupStorage | None = None


class Restore(Section):
    """How backups come back."""

    strategy: Text | None = None
    validation: Flag = False
    test_restore: Text | None = None


class Failover(Section):
    """What happens when a node is gone."""

    automatic: Flag = False
    rpo_seconds: Whole | None = None
    rto_seconds: Whole | None = None


class DisasterRecovery(Section):
    """Backup, restore, failover."""

    backup: Backup | None = None
    restore: Restore | None = None
    failover: Failover | None = None


class Security(Section):
    """Certificates."""

    tls_cert: Annotated[Text | None, NOT_YET] = None
    tls_key: Annotated[Text | None, NOT_YET] = None
    ca_cert: Annotated[Text | None, NOT_YET] = None


def _service_model(value: object) -> str:
    name = value.get("bundled") if isinstance(value, dict) else None
    written = name.text if isinstance(name, Leaf) else ""
    if isinstance(value, dict) and "command" in value:
        return "<command>"
    if written in HERE:
        return f"<{written}>"
    return "<later>" if written in DEFAULT_IMPORTANCE else "<command>"


AnyService = Annotated[
    Annotated[Service, Tag("<command>")]
    | Annotated[Identity, Tag("<identity>")]
    | Annotated[Storage, Tag("<storage>")]
    | Annotated[Node, Tag("<node>")]
    | Annotated[Ledger, Tag("<ledger>")]
    | Annotated[Telemetry, Tag("<telemetry>")]
    | Annotated[Analytics, Tag("<analytics>")]
    | Annotated[Timekeeper, Tag("<timekeeper>")]
    | Annotated[Later, Tag("<later>")],
    Discriminator(_service_model),
]
SERVICE_MODELS: dict[str, type[Service]] = {
    "<command>": Service,
    "<identity>": Identity,
    "<storage>": Storage,
    "<node>": Node,
    "<ledger>": Ledger,
    "<telemetry>": Telemetry,
    "<analytics>": Analytics,
    "<timekeeper>": Timekeeper,
    "<later>": Later,
}
Services = Annotated[
    dict[ServiceName, AnyService], Before(lambda value: {} if isinstance(value, Leaf) and value.empty else value)
]


class _Layer(PydanticBaseSettingsSource):
    """One layer as a source of settings."""

    def __init__(self, settings_cls: type[BaseSettings], layer: Map) -> None:
        super().__init__(settings_cls)
        self._data = data(layer)

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """One top-level key. pydantic-settings itself only calls the source as a whole."""
        del field
        return self().get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        """All of it."""
        return self._data


class Settings(BaseSettings):
    """A profile. ``layers=`` gives the trees, the strongest first: flags, environment, files, remote."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    deployment: Deployment = Deployment()
    orchestrator: Orchestrator = Orchestrator()
    services: Services = {}
    schedule: Schedule = ()
    development: Development = Development()
    performance: Performance = Performance()
    security: Security = Security()
    network_policies: Annotated[NetworkPolicies | None, NOT_YET] = None
    disaster_recovery: Annotated[DisasterRecovery | None, NOT_YET] = None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Our layers instead of the built-in sources, which know neither lines nor the older names of variables."""
        del env_settings, dotenv_settings, file_secret_settings
        return tuple(_Layer(settings_cls, layer) for layer in init_settings()["layers"])

    @model_validator(mode="before")
    @classmethod
    def _name_bundled(cls, values: dict[str, Any]) -> dict[str, Any]:
        """A service without a command is the bundled one of its name."""
        services = values.get("services")
        if values.get("schedule") and (services is None or (isinstance(services, Leaf) and services.empty)):
            services = {}
        if not isinstance(services, dict):
            return values
        if isinstance(values.get("schedule"), list | dict) and values["schedule"] and TIMEKEEPER not in services:
            services = services | {TIMEKEEPER: {}}
        return values | {"services": {name: _with_bundled(name, service) for name, service in services.items()}}


def _with_bundled(name: str, service: object) -> object:
    if isinstance(service, Leaf) and service.empty:
        service = {}
    if isinstance(service, dict) and name in DEFAULT_IMPORTANCE and not {"command", "bundled"} & service.keys():
        return service | {"bundled": Leaf(name, Place())}
    return service
