"""Start, look, switch, stop: one repetition of one candidate, and all of them at rest side by side."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

from . import processes
from .candidate import Candidate, Rooms, Workload
from .observe import ObservationError, Observer

SETTLE = 2.0  # seconds after a start; supervisord calls a program running after one
LIMIT = 30.0  # seconds for anything to happen

Make = Callable[[Rooms, Workload], Candidate]
Sample = dict[str, float]


class MeasureError(Exception):
    """A candidate did not do what was asked; the text ends with its last output."""


class Session:
    """One candidate with its files, its supervisor process and its children, from start to clean-up."""

    def __init__(self, make: Make, observer: Observer, workload: Workload) -> None:
        memory = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else None
        self._rooms = Rooms(
            Path(tempfile.mkdtemp(prefix="bench.", dir=memory)), Path(tempfile.mkdtemp(prefix="bench."))
        )
        self.candidate = make(self._rooms, workload)
        self._workload = workload
        self._observer = observer
        self._process: subprocess.Popen[bytes] | None = None
        self._version = 0
        self.children: dict[str, int] = {}
        self.first_gone = 0.0  # when the first child of the last stop or switch ended, monotonic seconds
        self.all_running = 0.0  # when the last child of the last start or switch ran

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self._clean_up()

    def configure(self, version: int) -> None:
        """Write the configuration of a version for the next start or switch."""
        self._version = version
        self.candidate.configure(version)

    def _output(self) -> Path:
        return self._rooms.data / "output"

    def _explain(self, what: str, error: object) -> MeasureError:
        try:
            tail = self._output().read_text(errors="replace")[-800:].strip()
        except FileNotFoundError:
            tail = ""
        return MeasureError(f"{self.candidate.name}: {what}: {error}" + (f"; it said: {tail}" if tail else ""))

    def start(self) -> float:
        """Seconds from the command's execution until every child runs."""
        self._observer.forget()
        with self._output().open("ab") as output:
            began = time.monotonic()
            self._process = subprocess.Popen(
                self.candidate.start(),
                env=self.candidate.environment(),
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            found = self._observer.running(self._workload.children(self._version), LIMIT)
        except ObservationError as error:
            raise self._explain("cannot start", error) from error
        self.children = {name: pid for name, (pid, _) in found.items()}
        self.all_running = max(when for _, when in found.values())
        return self.all_running - began

    def supervisors(self) -> set[int]:
        """Every process on the supervisor's side: itself and its descendants, the children left out."""
        assert self._process is not None
        return {pid for pid in processes.tree(self._process.pid) if not self._workload.owns(processes.argv(pid))}

    def stop(self) -> float:
        """Seconds from the signal until every child and every supervisor process has ended."""
        assert self._process is not None
        children = set(self.children.values())
        everyone = self.supervisors() | children
        self._observer.forget()
        began = time.monotonic()
        self._process.send_signal(self.candidate.stop_signal)
        try:
            ended = self._observer.gone(everyone, LIMIT)
        except ObservationError as error:
            raise self._explain("cannot stop", error) from error
        self._process.wait(LIMIT)
        self._process = None
        self.first_gone = min(ended[pid] for pid in children)
        return max(ended.values()) - began

    def command(self, what: str, argv: list[str]) -> float:
        """Seconds a command takes from execution to its end; it must succeed."""
        began = time.monotonic()
        done = subprocess.run(
            argv,
            env=self.candidate.environment(),
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=LIMIT,
        )
        took = time.monotonic() - began
        if done.returncode != 0:
            said = (done.stdout + done.stderr).decode(errors="replace")[-800:].strip()
            raise MeasureError(f"{self.candidate.name}: {what}: exit code {done.returncode}: {said}")
        return took

    def switch(self) -> tuple[float, float, int]:
        """To the version configured last: (seconds until all of it runs and nothing of the old does, seconds until
        the command returns, how many unaffected children kept their PID)."""
        changing = set(self._workload.changing())
        wanted = {argv: name for argv, name in self._workload.children(self._version).items() if name in changing}
        old = {self.children[name] for name in changing}
        self._observer.forget()
        began = time.monotonic()
        returned = self.command("switch", self.candidate.switch())
        try:
            found = self._observer.running(wanted, LIMIT)
            ended = self._observer.gone(old, LIMIT)
        except ObservationError as error:
            raise self._explain("cannot switch", error) from error
        self.first_gone = min(ended.values())
        self.all_running = max(when for _, when in found.values())
        took = max(self.all_running, *ended.values()) - began
        kept = sum(
            1
            for argv, name in self._workload.children(self._version).items()
            if name not in changing and processes.argv(self.children[name]) == argv
        )
        self.children |= {name: pid for name, (pid, _) in found.items()}
        return took, returned, kept

    def _clean_up(self) -> None:
        """End whatever is left of what this session started, by PID, and remove its files."""
        if self._process is not None:
            for pid in processes.tree(self._process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._process.wait(LIMIT)
        for pid in processes.pids():  # children whose supervisor is gone are nobody's descendants
            if self._workload.owns(processes.argv(pid)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        for directory in (self._rooms.run, self._rooms.data):
            shutil.rmtree(directory, ignore_errors=True)


def _look(session: Session) -> Sample:
    supervisors = session.supervisors()
    sample = {name: float(value) for name, value in asdict(processes.memory(supervisors)).items()}
    return sample | {"processes": float(len(supervisors)), "threads": float(processes.threads(supervisors))}


def repetition(make: Make, observer: Observer, workload: Workload) -> dict[str, list[float]]:
    """Everything but rest, once: start, look, status, switch, stop-all and start-all, stop."""
    with Session(make, observer, workload) as session:
        session.configure(0)
        starts = [session.start()]
        time.sleep(SETTLE)
        sample = _look(session)
        everyone = session.supervisors() | set(session.children.values())
        sample["start_cpu"] = processes.activity(everyone).cpu_seconds
        sample["status"] = session.command("status", session.candidate.status())
        session.configure(1)
        sample["switch"], sample["switch_returned"], sample["kept"] = session.switch()
        sample["switch_gap"] = session.all_running - session.first_gone
        time.sleep(SETTLE)
        began = time.monotonic()
        stops = [session.stop()]
        between = time.monotonic()
        starts.append(session.start())
        sample["cycle"] = between - began + starts[-1]
        sample["cycle_gap"] = session.all_running - session.first_gone
        time.sleep(SETTLE)
        stops.append(session.stop())
    return {name: [value] for name, value in sample.items()} | {"start": starts, "stop": stops}


@contextlib.contextmanager
def _all_running(
    makes: Mapping[str, Make], observer: Observer, workload: Workload, failures: dict[str, str]
) -> Iterator[dict[str, Session]]:
    with contextlib.ExitStack() as stack:
        sessions = {}
        for number, (name, make) in enumerate(makes.items()):
            own = Workload(workload.marker + number, workload.count, workload.changed)
            session = stack.enter_context(Session(make, observer, own))
            try:
                session.configure(0)
                session.start()
            except (MeasureError, OSError, subprocess.SubprocessError) as error:
                failures[name] = str(error)
                continue
            sessions[name] = session
        yield sessions


def rest(
    makes: Mapping[str, Make],
    observer: Observer,
    workload: Workload,
    seconds: float,
    failures: dict[str, str],
) -> dict[str, Sample]:
    """All candidates at once, left alone: wakeups and CPU over ``seconds``, memory afterwards.

    They share the time, not the CPU: every one sleeps, and a counter counts only its own.
    """
    samples = {}
    with _all_running(makes, observer, workload, failures) as sessions:
        time.sleep(5.0)
        supervisors = {name: session.supervisors() for name, session in sessions.items()}
        before = {name: (time.monotonic(), processes.activity(pids)) for name, pids in supervisors.items()}
        time.sleep(seconds)
        for name, pids in supervisors.items():
            began, first = before[name]
            try:
                now, last = time.monotonic(), processes.activity(pids)
                scale = 60.0 / (now - began)
                samples[name] = {
                    "wakeups": (last.wakeups - first.wakeups) * scale,
                    "cpu": (last.cpu_seconds - first.cpu_seconds) * scale,
                } | {f"rested_{key}": value for key, value in _look(sessions[name]).items()}
            except (FileNotFoundError, ProcessLookupError):
                failures[name] = f"{name}: a supervisor process ended while at rest"
        for name, session in sessions.items():
            try:
                session.stop()
            except MeasureError as error:
                failures[name] = str(error)
    return samples
