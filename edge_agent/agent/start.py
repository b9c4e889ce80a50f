"""From a command line to a running node: options, the choice of containment, adoption, signals, the end.

Reads only Plans. It is executed in place by the front end, as ``python -I -S``: no site, no pathlib, no argparse.
"""

from __future__ import annotations

import os
import signal
import sys
import time

from .. import __version__, codec
from ..control import SOCKET_NAME, STATUS_NAME
from ..control.server import Server
from ..host import manager, senses
from ..host.interpreter import interpreter
from ..host.journal import Journal
from ..host.loop import READ, Loop
from ..host.probes import Prober
from ..host.store import LockedError, Store
from ..lifecycle import KILL_AGAIN, LIVE
from ..model import Plan, Shutdown
from .governing import Governing
from .performer import Agent
from .recovery import resume
from .scheduling import Scheduling
from .verbs import Verbs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from ..control.connection import Request
    from ..host.containment import Containment
    from ..host.senses import Senses

OPTIONS = {
    "plan-fd": "a descriptor to read the plan from",
    "plan": "a file to read the plan from",
    "run-dir": "records of this boot, sockets, logs in memory",
    "data-dir": "the committed plan, notable events",
    "log-dir": "logs on disk",
    "degraded": "why this plan is not the one that was asked for",
    "control-gid": "a group that may use the control socket",
    "status-gid": "a group that may use the status socket",
    "enforcement": "auto | cgroup2 | sampling | none, over the plan's own",
    "cgroup-path": "the delegated directory to make cgroups in",
    "io-device": "major:minor of the disk for io.max",
}


class StartError(Exception):
    """The agent cannot run; the text is for people."""


def main(argv: list[str]) -> None:
    """Run the agent until it is told to stop. Exits 0 after an orderly end, 1 when it cannot start."""
    try:
        resident = Resident(_options(argv), argv)
    except (StartError, LockedError) as error:
        _end(str(error))
    except codec.PlanError as error:
        _end(f"cannot run the plan: {error}; fix: compile it again with this version")
    except OSError as error:
        _end(f"cannot start: {error.filename or 'a system call'}: {error.strerror}; fix: see `edge-agent check`")
    resident.run()


def _end(said: str) -> NoReturn:
    os.write(2, f"edge-agent: {said}\n".encode())
    sys.exit(1)


def _options(argv: list[str]) -> dict[str, str]:
    options: dict[str, str] = {}
    rest = iter(argv)
    for word in rest:
        name = word.removeprefix("--")
        if name not in OPTIONS or name == word:
            raise StartError(f"cannot start: {word!r} is not an option; fix: one of --{', --'.join(OPTIONS)}")
        options[name] = next(rest, "")
    for name in ("run-dir", "data-dir", "log-dir"):
        if not options.get(name):
            raise StartError(f"cannot start: --{name} is missing; fix: start it by `edge-agent`")
    return options


class Resident:
    """One agent process."""

    def __init__(self, options: dict[str, str], argv: list[str]) -> None:
        self._options = options
        self._argv = argv
        self._interrupted = False
        self._leaves = False
        os.umask(0o022)  # services of other users must reach their directories, whatever the caller's was
        self.loop = Loop()
        self.store = Store(options["run-dir"], options["data-dir"])
        self.store.lock()
        given = self._given()
        if given is not None:
            self.store.expect(given)
        committed = self.store.committed()
        plan = given or committed
        if plan is None:
            raise StartError(f"cannot start: {options['data-dir']} holds no plan; fix: give a profile")
        mode = options.get("enforcement") or plan.enforcement
        self.containment, seen = _containment(mode, options)
        self.containment.open()
        self.journal = Journal(options["data-dir"])
        self.agent = Agent(self.loop, self.store, self.journal, self.containment, options["log-dir"])
        self.agent.prober = Prober(self.loop, self.containment, self.agent.emit)
        self.agent.governing = Governing(self.agent, seen)
        kind = "cgroup2" if self.containment.kind == "cgroup2" else mode.replace("auto", "sampling")
        self.verbs = Verbs(self.agent, self._reload, self._reexec, kind)
        self.agent.woken = self.verbs.wake
        self.verbs.add("scheduled", Scheduling(self.agent, self._scheduled), privileged=True)
        self._listen_for_signals()
        self.agent.note("agent", "", f"edge-agent {__version__} starts with profile {plan.profile}")
        degraded = options.get("degraded", "")
        if self.store.newer:
            self.store.remarks.append(self.store.newer)
            if given is None:
                degraded = degraded or self.store.newer
            elif given == committed:
                committed = None  # nothing of it was lost: commit it anew, as this release writes it
        resume(self.agent, plan, committed, degraded)
        if mode != "none":
            self.agent.governing.begin()
        self.servers = [
            self._listen(os.path.join(options["run-dir"], SOCKET_NAME), self.verbs, options.get("control-gid")),
            self._listen(os.path.join(options["run-dir"], STATUS_NAME), self.verbs.viewed, options.get("status-gid")),
        ]

    def _listen(self, path: str, handler: Callable[[Request], None], gid: str | None) -> Server:
        return Server(self.loop, path, handler, uid=os.geteuid(), gid=int(gid) if gid else None)

    def _given(self) -> Plan | None:
        if "plan-fd" in self._options:
            fd = int(self._options["plan-fd"])
            with open(fd, "rb") as file:
                return codec.unpack_plan(file.read(codec.MAX_BYTES + 1))
        if "plan" in self._options:
            with open(self._options["plan"], "rb") as file:
                return codec.unpack_plan(file.read(codec.MAX_BYTES + 1))
        return None

    def run(self) -> None:
        """Turn the loop until everything is stopped, or left to the next agent."""
        manager.tell("READY=1")
        manager.watchdog(self.loop)
        self.loop.run()
        manager.tell("STOPPING=1")
        for server in self.servers:
            server.close()
        if self._leaves:
            self.store.close(remove=False)
            return
        self.agent.close()
        self.containment.close(remove=True)
        self.store.close(remove=True)

    # -- signals -------------------------------------------------------------------------------------------------------

    def _listen_for_signals(self) -> None:
        read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2):
            signal.signal(number, lambda *_: None)
        self.loop.watch(read, READ, lambda _events: self._signalled(os.read(read, 64)))

    def _signalled(self, numbers: bytes) -> None:
        for number in numbers:
            if number == signal.SIGHUP:
                self._reload(lambda _failure: None)
            elif number == signal.SIGUSR2:
                self._reexec()
            elif self._interrupted:
                self._shutdown()
                self.agent.hurry()  # asked twice: the person does not want to wait for a graceful end
            else:
                self._interrupted = True
                self._stop_or_leave(number)

    def _stop_or_leave(self, number: int) -> None:
        """Stop everything; or leave it to the next agent, if the service manager restarts this one alone."""
        unit = manager.own_unit() if number == signal.SIGTERM and not self.agent.node.closing else ""
        home = manager.unit_of(self.containment.path) if self.containment.kind == "cgroup2" else unit
        if unit and (home != unit or self.containment.kind == "tree"):
            manager.ask(self.loop, unit, home, self._answered)
        else:
            self._shutdown()

    def _answered(self, restarts_alone: bool) -> None:
        if restarts_alone and not self.agent.node.closing:
            self.agent.records.save()
            self._leaves = True
            self.loop.stop()
        else:
            self._shutdown()

    def _shutdown(self) -> None:
        if self.agent.node.closing:
            return
        live = [unit.service for unit in self.agent.node.units.values() if unit.state in LIVE]
        most = sum(service.stop_timeout + KILL_AGAIN for service in live)
        manager.tell(f"EXTEND_TIMEOUT_USEC={int(most * 1e6)}")  # each service has its time, however many there are
        self.agent.emit(Shutdown())

    def _reload(self, done: Callable[[str], None]) -> None:
        """Have the front end compile the profile again and hand the plan over; the resident cannot read YAML.

        ``done`` gets why it failed, '' when it did not.
        """
        plan = self.agent.node.plan

        def ended(failure: str) -> None:
            manager.tell("READY=1")
            done(failure)

        manager.tell(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
        self.agent.note("reload", "", f"reload of {plan.source} asked for")
        self._front_end(["--config", plan.source, *plan.flags], "reload-failed", f"cannot reload {plan.source}", ended)

    def _scheduled(self, words: list[str], text: str, done: Callable[[str], None]) -> None:
        self._front_end(words, "schedule-failed", text, done)

    def _front_end(self, words: list[str], kind: str, failed: str, done: Callable[[str], None]) -> None:
        """Run it. What it has to say goes on to our own standard error, and into the event when it fails.

        ``done`` gets why it failed, '' when it did not.
        """
        environment = {
            **os.environ,
            "EDGE_AGENT_RUN_DIR": self._options["run-dir"],
            "EDGE_AGENT_DATA_DIR": self._options["data-dir"],
            "EDGE_AGENT_LOG_DIR": self._options["log-dir"],
        }
        said = os.memfd_create("said", os.MFD_CLOEXEC)
        # ``switch`` never becomes an agent itself, should this one be gone by then.
        argv = [interpreter(), "-m", "edge_agent", "switch", *words]
        told = [(os.POSIX_SPAWN_DUP2, said, 2)]
        pid = os.posix_spawn(argv[0], argv, environment, file_actions=told, setsigdef=[signal.SIGPIPE])
        pidfd = os.pidfd_open(pid)

        def ended(_events: int) -> None:
            self.loop.forget(pidfd)
            os.close(pidfd)
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            heard = os.pread(said, 4096, 0)
            os.close(said)
            if heard:
                os.write(2, heard)
            text = ""
            if status != 0:
                why = heard.decode(errors="replace").strip().replace("edge-agent: ", "").replace("\n", "; ")
                text = f"{failed}: {why or f'the front end exited with {status}'}; the running plan stays"
                self.agent.note(kind, "", text, notable=True)
            done(text)

        self.loop.watch(pidfd, READ, ended)

    def _reexec(self) -> None:
        """Become the installed version of this program; children stay children, and are adopted like any others.

        Those on record, that is: an ended child that nobody knows of would be a zombie for as long as this process is.
        """
        self.agent.records.save()
        if not self.agent.records.complete:
            said = f"does not execute itself anew: not every service is on record; fix: free {self.store.run_dir}"
            self.agent.note("agent", "", said, notable=True)
            return
        keep = [word for name in OPTIONS if name in self._options for word in (f"--{name}", self._options[name])]
        for name in ("plan", "plan-fd", "degraded"):
            if name in self._options:
                at = keep.index(f"--{name}")
                del keep[at : at + 2]
        self.agent.note("agent", "", "executes itself anew")
        for server in self.servers:
            server.close()
        self.store.close(remove=False)
        os.execv(sys.executable, [*sys.orig_argv[: len(sys.orig_argv) - len(self._argv)], *keep])  # noqa: S606


def _containment(mode: str, options: dict[str, str]) -> tuple[Containment, Senses]:
    code = "by-setting"
    if mode in ("auto", "cgroup2"):
        from ..host import hierarchy

        place = hierarchy.find(override=options.get("cgroup-path", ""))
        if place.delegated:
            from ..host.cgroup import CgroupContainment

            device = options.get("io-device", "")
            held = CgroupContainment(place.path, io_device=device, sampled=mode == "auto")
            return held, senses.CgroupSenses(held)
        if mode == "cgroup2":
            raise StartError("cannot enforce by cgroup2: no delegated cgroup here; fix: see `edge-agent check`")
        code = "not-delegated" if place.kind == "unified" else "no-cgroup2"
    from ..host.tree import TreeContainment

    tree = TreeContainment(options["run-dir"], "none" if mode == "none" else "sampling", code)
    return tree, senses.MachineSenses()
