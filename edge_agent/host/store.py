"""What outlives the agent: unit records for the agent's next process, the committed plan for the next boot.

Unit records lie in the run directory, one small file each, valid for one boot only. The committed plan lies in the
data directory, written through to the disk. Every file is replaced by rename(2), so a reader sees the old or the new.
A file that cannot be believed is set aside under ``*.bad`` and said; nothing here raises for what it finds on disk.
What another release wrote is read as far as it is known here, and said.
"""

from __future__ import annotations

import fcntl
import os
import time

from .. import codec
from ..lifecycle import Unit
from ..model import Plan, Service
from . import directories
from .journal import sync_directory

UNIT = "unit"
PLAN = "plan"


class LockedError(Exception):
    """Another agent uses this run directory."""


class Store:
    """The run directory and the data directory.

    ``complaints``: sentences on files that were set aside. ``remarks``: sentences on what another release has left.
    ``newer``: why the last choice is known only in part, '' when it is known whole.
    """

    def __init__(self, run_dir: str, data_dir: str, proc: str = "/proc") -> None:
        self.run_dir = run_dir
        self.data_dir = data_dir
        self.complaints: list[str] = []
        self.remarks: list[str] = []
        self.newer = ""
        self._goal: dict[str, Service] = {}
        self._made: dict[str, tuple[str, ...]] = {}  # name -> the directories of its service
        os.makedirs(os.path.join(run_dir, "services"), 0o755, exist_ok=True)
        os.makedirs(data_dir, 0o755, exist_ok=True)
        with open(os.path.join(proc, "sys/kernel/random/boot_id"), "rb") as file:
            self.boot = file.read().strip()
        self._lock = -1

    def lock(self, patience: float = 2.0) -> None:
        """Be the only agent of this run directory. Raises LockedError.

        The wait is for forked children of a killed agent, which hold its lock until they notice that it is gone.
        """
        path = os.path.join(self.run_dir, "lock")
        until = time.monotonic() + patience
        while True:
            self._lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.stat(path).st_ino == os.fstat(self._lock).st_ino:
                    return
            except FileNotFoundError:
                pass  # an agent took it away as it ended: the lock to hold is a new file
            except BlockingIOError:
                if time.monotonic() > until:
                    raise LockedError(
                        f"cannot run: another agent uses {self.run_dir}; fix: stop it, or set EDGE_AGENT_RUN_DIR"
                    ) from None
                time.sleep(0.01)
            os.close(self._lock)

    def service_dir(self, name: str) -> str:
        """Where a service's record, log and sockets are."""
        return os.path.join(self.run_dir, "services", name)

    def save_unit(self, unit: Unit) -> None:
        """Replace a unit's record. Raises OSError when the run directory is full or gone."""
        name, made = unit.service.name, unit.service.directories
        self._drop_directories(name, keep=made)
        self._made[name] = made
        directory = self.service_dir(name)
        data = self.boot + b"\n" + codec.pack(unit)
        try:
            _replace(directory, UNIT, data, sync=False)
        except FileNotFoundError:
            os.mkdir(directory, 0o755)
            _replace(directory, UNIT, data, sync=False)

    def drop_unit(self, name: str) -> None:
        """Forget a unit, everything else in its directory, and the service's own directories in the run directory."""
        self._drop_directories(name)
        directory = self.service_dir(name)
        try:
            for entry in os.listdir(directory):
                os.unlink(os.path.join(directory, entry))
            os.rmdir(directory)
        except FileNotFoundError:
            pass
        except OSError as error:
            self.complaints.append(f"cannot clear {directory}: {error.strerror}")

    def _drop_directories(self, name: str, keep: tuple[str, ...] = ()) -> None:
        """Remove what an earlier spec of the service had in the run directory. Data is never removed."""
        gone = [path for path in self._made.pop(name, ()) if path not in keep]
        self.complaints += directories.remove(gone, self.run_dir)

    def names(self) -> list[str]:
        """Services that have a directory here, with a record or without: its agent may have died before that."""
        return sorted(os.listdir(os.path.join(self.run_dir, "services")))

    def expect(self, plan: Plan) -> None:
        """Records of an older release take what it did not know from this plan: an upgrade must restart nothing."""
        self._goal = {service.name: service for service in plan.services}

    def units(self) -> dict[str, Unit]:
        """The records of this boot, by name. Records of an earlier boot speak of processes that are gone."""
        found = {}
        newer, older = [], []
        for name in self.names():
            path = os.path.join(self.service_dir(name), UNIT)
            try:
                boot, line, data = _read(path).partition(b"\n")
                if line and boot != self.boot:
                    os.unlink(path)
                    continue
                try:
                    unit = _unit(data, name, self._goal)
                except codec.NewerError:
                    unit = _unit(data, name, self._goal, newer=True)
                    newer.append(name)
                else:
                    if unit != _unit(data, name, {}):
                        older.append(name)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except (OSError, codec.PlanError) as error:
                self._set_aside(path, error)
            else:
                found[name] = unit
                self._made[name] = unit.service.directories
        if newer:
            self.remarks.append(f"a newer release started {', '.join(newer)}: what it added is not known to this one")
        if older:
            names = ", ".join(older)
            self.remarks.append(f"an older release started {names}: what it did not know takes effect at a restart")
        return found

    def commit(self, plan: Plan) -> None:
        """Keep the plan as the choice for the next boot. On return it is on the disk. Raises OSError."""
        _replace(self.data_dir, PLAN, codec.pack_plan(plan), sync=True)

    def committed(self) -> Plan | None:
        """The last known good plan, or None when there is none that can be read."""
        path = os.path.join(self.data_dir, PLAN)
        try:
            data = _read(path)
            try:
                return codec.unpack_plan(data, self._goal)
            except codec.NewerError as error:
                plan = codec.unpack_plan(data, newer=True)
                self.newer = f"{path} is known only in part: {error}"
                return plan
        except FileNotFoundError:
            return None
        except (OSError, codec.PlanError) as error:
            self._set_aside(path, error)
            return None

    def close(self, *, remove: bool) -> None:
        """Let the next agent in; with ``remove``, leave nothing of this boot behind."""
        if remove:
            for path in (os.path.join(self.run_dir, "services"), self.run_dir):
                try:
                    if path == self.run_dir:
                        os.unlink(os.path.join(path, "lock"))
                    os.rmdir(path)
                except OSError:
                    pass  # not empty, or the service manager's own: then it is not ours to remove
        os.close(self._lock)

    def _set_aside(self, path: str, error: Exception) -> None:
        said = f"cannot read {path}: {error}; set aside as {path}.bad"
        try:
            os.replace(path, path + ".bad")
        except OSError as failed:
            said = f"cannot read {path}: {error}; and cannot set it aside: {failed.strerror}"
        self.complaints.append(said)


def _unit(data: bytes, name: str, like: dict[str, Service], *, newer: bool = False) -> Unit:
    unit: Unit = codec.unpack(data, "Unit", like, newer=newer)
    if unit.service.name != name or not codec.legal_name(name):
        raise codec.PlanError(f"it speaks of {unit.service.name!r:.80}")
    return unit


def _read(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    try:
        return os.read(fd, codec.MAX_BYTES + 64)
    finally:
        os.close(fd)


def _replace(directory: str, name: str, data: bytes, *, sync: bool) -> None:
    """Write ``name`` in ``directory`` so that a crash leaves the old or the new content, never a part."""
    path = os.path.join(directory, name)
    temporary = path + ".new"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
    try:
        while data:
            data = data[os.write(fd, data) :]
        if sync:
            os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(temporary, path)
    if sync:
        sync_directory(directory)
