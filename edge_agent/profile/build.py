"""From validated settings to demands: names resolved on this machine, defaults filled in, services checked together."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from ..demand import Amount, Demand, Profile
from ..model import TIMEKEEPER, Entry
from . import calls, embedded, files
from .bundled import HERE
from .directories import Directories
from .graph import cycles
from .problems import MOST_PROBLEMS, Problem, ProfileError, nearest, suggest
from .program import Program, default_importance
from .schedule import Check
from .schema import Settings
from .service import DEFAULT_IMPORTANCE, Service
from .system import System
from .tree import Path
from .validate import Layers, not_acted_on, where


class Build:
    """One run over the settings; ``problems`` grows as it goes.

    ``layers`` is what is left of the profile; ``removed`` are the paths taken out, whose problems are known already.
    """

    def __init__(
        self,
        settings: Settings,
        layers: Layers,
        removed: Collection[Path],
        directories: Directories,
        environ: Mapping[str, str],
        system: System,
    ) -> None:
        self.settings = settings
        self.layers = layers
        self.removed = removed
        self.directories = directories
        self.problems: list[Problem] = []
        self.program = Program(settings, directories, environ, system, self._problem)

    def profile(self, name: str, source: str, notes: list[str]) -> Profile:
        """The profile. Raises ProfileError."""
        settings, totals = self.settings, self.settings.deployment.resources
        schedule = self._schedule(name)
        demands = [self._demand(each, service) for each, service in settings.services.items()]
        self._check_dependencies()
        demands = self._called(self._embedded(demands, schedule))
        self._check_totals()
        made = Profile(
            name=name,
            source=source,
            mode=settings.deployment.mode,
            demands=tuple(demands),
            memory_total=totals.total_memory,
            cpu_total=totals.total_cpu,
            memory_reserve=totals.agent_memory,
            os_memory_reserve=totals.os_memory,
            enforcement=settings.deployment.enforcement,
            switch_timeout=settings.deployment.switch_timeout,
            schedule=schedule,
            notes=tuple(self.program.confined.notes()),
            not_acted_on=(*not_acted_on(settings, self.layers), *self._unavailable(), *notes),
        )
        if self.problems:
            raise ProfileError(self.problems)
        return made

    def _demand(self, name: str, service: Service) -> Demand:
        resources, path = service.resources, ("services", name)
        self._check_program(name, service)
        return Demand(
            service=self.program.service(name, service, runs=self._runs(service)),
            enabled=self._runs(service),
            line=self.layers.key_place(path).line,
            memory_request=resources.memory.request,
            memory_limit=resources.memory.limit,
            swap_limit=None if resources.swap is None else Amount(resources.swap),
            cpu_request=resources.cpu.request,
            cpu_limit=resources.cpu.limit,
            bundled=service.bundled is not None,
        )

    def _embedded(self, demands: list[Demand], schedule: tuple[Entry, ...]) -> list[Demand]:
        """The demands, with one in the place of the first of those that share a process."""
        sections = {name: each for name, each in self.settings.services.items() if self._shares(each)}
        if len(sections) < 2:
            return demands

        def report(name: str, key: str, why: str, fix: str) -> None:
            self._problem(("services", name, key), why, fix)

        embedded.check(sections, report)
        for entry in schedule:
            for name in sections.keys() & set(entry.services):
                why = f"{entry.name} of the schedule runs it, and it shares a process with others"
                report(name, "mode", why, "mode: subprocess")
        if embedded.NAME in self.settings.services.keys() - sections.keys():
            report(embedded.NAME, "enabled", "is the name of the process of embedded services", "another name")
        if self.problems:
            return demands
        members = [each for each in demands if each.service.name in sections]
        first = self.settings.services[members[0].service.name]
        one = embedded.merged(members, [sections[each.service.name].bundled or "" for each in members])
        one = one._replace(service=self.program.shared(first, one.service, tuple(sections)))
        made = []
        for each in demands:
            if each is members[0]:
                made.append(one)
            elif each not in members:
                made.append(each._replace(service=embedded.renamed(each.service, frozenset(sections))))
        for cycle in cycles({each.service.name: each.service.depends_on for each in made if each.enabled}):
            path: Path = ("services", members[0].service.name, "mode")
            self._problem(path, "depends on itself: " + " -> ".join(cycle), "mode: subprocess")
        return made

    def _called(self, demands: list[Demand]) -> list[Demand]:
        """The demands, each service with the groups of those that it calls."""
        shared = tuple(each.bundled or "" for each in self.settings.services.values() if self._shares(each))
        kinds = {name: (each.bundled,) for name, each in self.settings.services.items() if each.bundled}
        runs = [each for each in demands if each.enabled]
        services = calls.let_in([(kinds.get(each.service.name, shared), each.service) for each in runs if each.bundled])
        by_name = {service.name: service for service in services}
        return [each._replace(service=by_name.get(each.service.name, each.service)) for each in demands]

    def _shares(self, service: Service) -> bool:
        return service.mode == "embedded" and service.bundled not in (None, TIMEKEEPER) and self._runs(service)

    def _schedule(self, name: str) -> tuple[Entry, ...]:
        settings = self.settings
        if not settings.schedule:
            return ()
        own = settings.services.get(TIMEKEEPER)
        if own is not None and own.bundled != TIMEKEEPER:
            why = "the schedule needs the bundled service of this name"
            self._problem(("services", TIMEKEEPER), why, "give yours another name")
        elif own is not None and not own.enabled:
            self._problem(("services", TIMEKEEPER, "enabled"), "without it nothing keeps the schedule", "remove it")
        check = Check(settings.services, files.known(self.directories), name, _importance, self._problem)
        entries = check.entries(settings.schedule)
        self.program.timekeeping = {
            "control": f"{self.directories.run}/control",
            "profile": name,
            "schedule": [entry._asdict() for entry in entries],
        }
        return entries

    def _runs(self, service: Service) -> bool:
        if service.bundled == TIMEKEEPER and not self.settings.schedule:
            return False
        return service.enabled and (service.bundled is None or service.bundled in HERE)

    def _problem(self, path: Path, why: str, fix: str = "") -> None:
        """Report, unless it comes from something at, above or below ``path`` that was wrong in itself."""
        item = isinstance(path[-1], int)  # items of a list moved up: what is at this path now was not removed
        if not item and any(path[: len(gone)] == gone or gone[: len(path)] == path for gone in self.removed):
            return
        self.problems.append(self.layers.problem(path, why, fix))
        if len(self.problems) > MOST_PROBLEMS:
            raise ProfileError(self.problems)

    def _check_program(self, name: str, service: Service) -> None:
        if service.command is None and service.bundled is None:
            path: Path = ("services", name)
            near = nearest(name, DEFAULT_IMPORTANCE)
            fix = "add command" + (f", or did you mean the bundled service '{near}'?" if near else "")
            self._problem(path, "no command, and no bundled service has this name", fix)

    def _check_dependencies(self) -> None:
        services = self.settings.services
        names = {str(path[1]) for path in self.removed if path[:1] == ("services",) and len(path) > 1} | set(services)
        for name, service in services.items():
            for index, wanted in enumerate(service.depends_on):
                path: Path = ("services", name, "depends_on", index)
                if wanted not in names:
                    self._problem(path, "no service of this name", suggest(wanted, names - {name}))
                elif self._runs(service) and wanted in services and not self._runs(services[wanted]):
                    later = services[wanted].enabled
                    why = "is not part of this release yet" if later else "is disabled"
                    self._problem(
                        path,
                        f"{name} depends on {wanted}, which {why}",
                        "remove it" if later else f"enable {wanted}, or remove it here",
                    )
        edges = {name: service.depends_on for name, service in services.items() if self._runs(service)}
        for cycle in cycles(edges):
            index = edges[cycle[0]].index(cycle[1])
            self._problem(
                ("services", cycle[0], "depends_on", index),
                "depends on itself: " + " -> ".join(cycle),
                "remove one of them",
            )

    def _check_totals(self) -> None:
        totals = self.settings.deployment.resources
        total, agent = totals.total_memory, totals.agent_memory
        if total is not None and total.share is None and agent is not None and agent >= total.absolute:
            path = ("deployment", "resources", "agent_memory")
            self._problem(path, "the agent's share leaves nothing of total_memory", "lower it, or raise total_memory")

    def _unavailable(self) -> list[str]:
        notes = []
        for name, service in self.settings.services.items():
            path: Path = ("services", name)
            if service.enabled and service.bundled is not None and service.bundled not in HERE:
                line = where(self.layers, path)
                notes.append(f"services.{name} ({line}): not part of this release yet, treated as disabled")
            elif service.bundled == TIMEKEEPER and service.enabled and not self.settings.schedule:
                line = where(self.layers, path)
                notes.append(f"services.{name} ({line}): this profile has no schedule, treated as disabled")
            elif service.mode == "embedded" and not self._shares(service):
                line = where(self.layers, (*path, "mode"))
                notes.append(f"services.{name}.mode ({line}): runs as a subprocess")
        if not self.settings.services:
            notes.append("services: this profile has none, nothing will run")
        return notes


def _importance(service: Service) -> int:
    return default_importance(service) if service.importance is None else service.importance
