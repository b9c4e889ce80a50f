"""What a service is started as: program, account, environment, checks and process attributes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from .. import model
from ..control import STATUS_NAME
from . import checks
from .bundled import Node, P2p
from .confined import Confined
from .directories import Directories
from .environment import substitute
from .problems import ReadError
from .schema import Settings
from .service import DEFAULT_IMPORTANCE, Service
from .system import DEFAULT_PATH, Account, System
from .tree import Path

OPTIONS = "EDGE_AGENT_SERVICE_OPTIONS"
WHO = ("HOME", "USER", "LOGNAME")
CURIOUS = ("ledger", "node", "telemetry")
"""Bundled services that ask the agent what goes on: for its log, for full peers, for Prometheus."""
LOG_LEVEL = "EDGE_AGENT_LOG_LEVEL"

Report = Callable[[Path, str, str], None]
"""``report(path, why, fix)``."""
Resolve = Callable[[Path, tuple[str, ...]], tuple[str, ...]]


class Program:
    """Makes ``model.Service`` records. Asks the machine only for services that will run."""

    def __init__(
        self,
        settings: Settings,
        directories: Directories,
        environ: Mapping[str, str],
        system: System,
        report: Report,
    ) -> None:
        self.settings = settings
        self.directories = directories
        self.environ = environ
        self.system = system
        self.report = report
        self.own_account = system.own_account()
        self.timekeeping: dict[str, object] = {}  # what the timekeeper alone is told
        self.confined = Confined(system, directories, report)

    def service(self, name: str, service: Service, runs: bool) -> model.Service:
        """The service, its memory and cpu left to the budget. Problems go to ``report``."""
        path: Path = ("services", name)
        runs_as = self._account(path, service) if runs else None
        env = self._environment(path, service, runs_as, runs)
        resolve = self._resolver(path, service, env["PATH"]) if runs else _unresolved
        defaults = self.settings.performance.subprocess
        importance = default_importance(service) if service.importance is None else service.importance
        io_priority = service.io_priority or defaults.io_priority
        scheduler = service.scheduler or defaults.scheduler
        group = self._group(path, service) if runs else None
        made = model.Service(
            name=name,
            argv=self._argv(service, resolve),
            env=tuple(sorted((env | self._told(name, service)).items())),
            cwd=self._directory(path, service, runs),
            uid=runs_as.uid if runs_as else None,
            gid=group if group is not None else runs_as.gid if runs_as else None,
            groups=runs_as.groups if runs_as else (),
            depends_on=tuple(dict.fromkeys(service.depends_on)),
            importance=importance,
            limits=_limits(service),
            health=self._health(path, service, resolve),
            restart=_restart(service),
            log=model.Log(service.log.kind, service.log.max_size),
            stop_signal=service.stop_signal,
            stop_timeout=service.stop_timeout,
            start_timeout=service.start_timeout,
            nice=defaults.nice_value if service.nice is None else service.nice,
            ioprio=io_priority.pair if io_priority else None,
            scheduler=(scheduler.policy, scheduler.priority) if scheduler else None,
            oom_score_adj=oom_score_adj(importance) if service.oom_score_adj is None else service.oom_score_adj,
            rlimits=tuple(sorted((number, limit.soft, limit.hard) for number, limit in service.rlimits.items())),
            directories=self._own_directories(name) if service.bundled is not None else (),
            freezable=service.freeze,
        )
        return made._replace(sandbox=self.confined.sandbox(path, service, made)) if runs else made

    def shared(self, first: Service, made: model.Service, members: tuple[str, ...]) -> model.Service:
        """The service ``made`` of several, as the account of their process, whose section is that of the first."""
        path: Path = ("services", members[0])
        if first.user is None:
            account = self.confined.together(made.name, members)
            env = {key: value for key, value in made.env if key in first.environment or key not in WHO}
            gid = made.gid if first.group is not None else account.gid if account else None
            made = made._replace(
                uid=account.uid if account else None,
                gid=gid,
                groups=account.groups if account else (),
                env=tuple(sorted((self._who(account) | env).items())),
            )
        return made._replace(sandbox=self.confined.sandbox(path, first, made))

    def _account(self, path: Path, service: Service) -> Account | None:
        """Who it runs as; None: as the agent."""
        if service.user is None:
            return self.confined.account(str(path[-1]), service.bundled) if service.bundled is not None else None
        account = self.system.account(service.user)
        if account is not None:
            return account
        if not (service.user.isascii() and service.user.isdigit()):
            self.report(
                (*path, "user"), "no user of this name on this machine", f"create it: useradd --system {service.user}"
            )
        elif int(service.user) >= 2**32 - 1:
            self.report((*path, "user"), "not a user id", "write a number below 4294967295")
        elif service.group is None:
            self.report((*path, "user"), "this number has no account, so its group is unknown", "add group:")
        else:
            return Account("", int(service.user), 0, (), "/")
        return None

    def _group(self, path: Path, service: Service) -> int | None:
        if service.group is None:
            return None
        gid = self.system.group(service.group)
        if gid is None:
            self.report(
                (*path, "group"),
                "no group of this name on this machine",
                f"create it: groupadd --system {service.group}",
            )
        return gid

    def _who(self, account: Account | None) -> dict[str, str]:
        env = {"HOME": account.home if account else self.own_account.home}
        return env | {"USER": account.name, "LOGNAME": account.name} if account and account.name else env

    def _environment(self, path: Path, service: Service, account: Account | None, runs: bool) -> dict[str, str]:
        """A clean base and what the profile says, nothing of the agent's own."""
        env = {"PATH": DEFAULT_PATH, "LANG": "C.UTF-8"} | (self._who(account) if runs or account else {"HOME": "/"})
        for name, leaf in service.environment.items():
            try:
                env[name] = substitute(leaf.text, self.environ) if runs else leaf.text
            except ReadError as error:
                self.report((*path, "environment", name), error.why, error.fix)
        return env

    def _own_directories(self, name: str) -> tuple[str, str]:
        """Where a bundled service keeps data, and where its socket is. RUN_DIR/services/NAME is the agent's own."""
        return f"{self.directories.data}/services/{name}", f"{self.directories.run}/bundled/{name}"

    def _told(self, name: str, service: Service) -> dict[str, str]:
        """The variables that only a bundled service gets."""
        if service.bundled is None:
            return {}
        data_dir, run_dir = self._own_directories(name)
        options: dict[str, Any] = {
            "name": service.bundled,
            "data_dir": data_dir,
            "run_dir": run_dir,
            "port": None,
            "clients": (),
            "cache_only": False,
            "cache_bytes": None,
            "p2p": P2p().told(None),
            "node_id": self.settings.deployment.node_id,
            "cluster_name": self.settings.deployment.cluster_name,
        }
        if service.bundled in CURIOUS:
            options["status"] = f"{self.directories.run}/{STATUS_NAME}"
        own = self.timekeeping if service.bundled == model.TIMEKEEPER else service.options()
        if service.bundled == "storage" and own["read_through"] is None:
            own["read_through"] = service.options()["cache_only"] and self._has_node()
        told = {OPTIONS: json.dumps(options | own)}
        return told | {LOG_LEVEL: "DEBUG"} if self.settings.development.debug_logging else told

    def _has_node(self) -> bool:
        """A light node, by which storage may ask full ones for blobs."""
        return any(
            isinstance(each, Node) and each.enabled and each.p2p.mode == "light"
            for each in self.settings.services.values()
        )

    def _argv(self, service: Service, resolve: Resolve) -> tuple[str, ...]:
        if service.bundled is not None:
            return (self.system.python, "-m", "edge_agent.services", service.bundled)
        return resolve(("command",), service.command) if service.command else ()

    def _resolver(self, path: Path, service: Service, search: str) -> Resolve:
        """A function that makes the first word of a command absolute, or reports that there is no such program."""

        def resolve(below: Path, argv: tuple[str, ...]) -> tuple[str, ...]:
            word = argv[0]
            program = self.system.program(word, search, service.working_directory or "/")
            if program is None:
                where = "is not an executable file" if "/" in word else f"is not in PATH {search}"
                self.report((*path, *below), f"cannot find program: {word} {where}", "install it, or correct the path")
            return (program or word, *argv[1:])

        return resolve

    def _directory(self, path: Path, service: Service, runs: bool) -> str:
        directory = service.working_directory or "/"
        if runs and service.working_directory and not self.system.is_directory(directory):
            self.report((*path, "working_directory"), "no such directory", f"create it: mkdir -p {directory}")
        return directory

    def _health(self, path: Path, service: Service, resolve: Resolve) -> model.Health:
        health = service.health or checks.Health()
        kind = health.kind or ("sd_notify" if service.bundled else "")
        if service.health is not None and not kind:
            self.report((*path, "health"), "says nothing to check", "add one of http, tcp, exec, sd_notify")
        default = model.Health()
        interval = self.settings.orchestrator.health_check_interval if health.interval is None else health.interval
        made = default._replace(
            kind="" if kind == "none" else kind,
            argv=resolve(("health", "exec"), health.exec) if health.exec else (),
            interval=interval,
            timeout=health.timeout or default.timeout,
            failures=health.failures or health.retries or default.failures,
        )
        if health.http is not None:
            return made._replace(host=health.http.host, port=health.http.port, path=health.http.path)
        if health.tcp is not None:
            return made._replace(host=health.tcp.host, port=health.tcp.port)
        return made


def oom_score_adj(importance: int) -> int:
    """0 for essential services, 250 for normal, 500 for heavy ones: proc(5).

    Never below 0: that takes CAP_SYS_RESOURCE, and a service must not outlive sshd. Whoever wants that writes the key.
    """
    return (model.ESSENTIAL - importance) * 5


def default_importance(service: Service) -> int:
    """The bundled service's own, else NORMAL."""
    return model.NORMAL if service.bundled is None else DEFAULT_IMPORTANCE[service.bundled]


def _limits(service: Service) -> model.Limits:
    resources = service.resources
    return model.Limits(
        pids_limit=resources.pids,  # the budget has the default
        io_weight=resources.io.weight,
        io_read_bps=resources.io.read_bps,
        io_write_bps=resources.io.write_bps,
    )


def _restart(service: Service) -> model.Restart:
    policy, default = service.restart_policy, model.Restart()
    return model.Restart(
        condition=policy.condition,
        max_attempts=policy.max_attempts,
        delay=policy.delay,
        factor=policy.backoff,
        max_delay=max(policy.delay, default.max_delay) if policy.max_delay is None else policy.max_delay,
        jitter=policy.jitter,
        reset_after=policy.reset_after,
    )


def _unresolved(_below: Path, argv: tuple[str, ...]) -> tuple[str, ...]:
    return argv
