"""Directories the agent makes for the user of a service, as systemd does for StateDirectory= and RuntimeDirectory=.

They are below the agent's data directory or its run directory, nowhere else. What is in them belongs to the service
and may be hostile, while the agent is mostly root, so every step goes by descriptor and follows no link (openat(2),
O_NOFOLLOW); what is given to another user is looked at by the same descriptor that is then changed. Obeys the resident
import rule.
"""

from __future__ import annotations

import errno
import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..model import Service

DATA_MODE = 0o700  # of a service's own directory below the data directory: keys and blobs
RUN_MODE = 0o750  # below the run directory: members of the service's group reach its sockets
PARENT_MODE = 0o755
MOST_LEVELS = 32  # of nesting; a bound on descriptors and stack for what a service may have made

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_FIXES = {
    errno.ENOTDIR: "move away what is in its place: a file or a symbolic link",
    errno.EPERM: "run the agent as root, or take the service's user and group out",
    errno.EACCES: "run the agent as root, or give its user access",
    errno.ENOSPC: "free space there",
    errno.EDQUOT: "free space there",
    errno.EROFS: "mount it writable",
}


class DirectoryError(Exception):
    """A directory cannot be made; the text is for people."""


def make(service: Service, data_dir: str, run_dir: str) -> None:
    """Make every directory of ``service``, owned by its user and group, with the mode of its place.

    One that is there gets that mode. When its owner or group is another, as after a change of ``user``, everything of
    the former owner in it is handed over, the directory itself last, so that an interrupted hand-over goes on at the
    next start. Files of third users, and files with a second name, which may be outside, are left alone. The time it
    takes grows with the number of files. Raises DirectoryError.
    """
    uid = os.geteuid() if service.uid is None else service.uid
    gid = os.getegid() if service.gid is None else service.gid
    for path in service.directories:
        base, mode = _place(path, data_dir, run_dir)
        try:
            _make(base, _below(path, base), mode, uid, gid)
        except OSError as error:
            fix = _FIXES.get(error.errno or 0, "see whether its disk is sound")
            raise DirectoryError(f"cannot make {path}: {error.strerror}; fix: {fix}") from None


def remove(paths: Iterable[str], run_dir: str) -> list[str]:
    """Remove those of ``paths`` that are below ``run_dir`` with all they hold, and parents left empty.

    Sentences on what could not be removed. The caller sees to it that no process of the service is left.
    """
    said = []
    for path in paths:
        names = _below(path, run_dir)
        if not names:
            continue
        try:
            _remove(run_dir, names)
        except FileNotFoundError:
            pass
        except OSError as error:
            said.append(f"cannot remove {path}: {error.strerror}; fix: remove it")
    return said


def _place(path: str, data_dir: str, run_dir: str) -> tuple[str, int]:
    """The agent's directory that ``path`` is in, the inner one when they are nested, and the mode there."""
    found = [(base, mode) for base, mode in ((data_dir, DATA_MODE), (run_dir, RUN_MODE)) if _below(path, base)]
    if not found:
        raise DirectoryError(
            f"cannot make {path!r:.200}: it is neither below {data_dir} nor below {run_dir}; "
            "fix: compile the plan with the directories of this agent"
        )
    return max(found, key=lambda place: len(place[0]))


def _below(path: str, base: str) -> list[str]:
    """The names that lead from ``base`` to ``path``; [] when it is not below, or no plain path."""
    prefix = base.rstrip("/") + "/"
    names = path[len(prefix) :].split("/")
    plain = "\0" not in path and not any(name in ("", ".", "..") for name in names)
    return names if plain and path.startswith(prefix) else []


def _make(base: str, names: list[str], mode: int, uid: int, gid: int) -> None:
    at = os.open(base, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in names[:-1]:
            inner = _open_or_make(at, name, PARENT_MODE)
            os.close(at)
            at = inner
        top = _open_or_make(at, names[-1], mode)
    finally:
        os.close(at)
    try:
        found = os.fstat(top)
        if (found.st_uid, found.st_gid) != (uid, gid):
            _hand_over(top, found.st_uid, uid, gid, MOST_LEVELS)
            os.fchown(top, uid, gid)
        if stat.S_IMODE(found.st_mode) != mode:
            os.fchmod(top, mode)
    finally:
        os.close(top)


def _open_or_make(at: int, name: str, mode: int) -> int:
    try:
        return os.open(name, _OPEN, dir_fd=at)
    except FileNotFoundError:
        os.mkdir(name, 0o700, dir_fd=at)
    made = os.open(name, _OPEN, dir_fd=at)
    os.fchmod(made, mode)  # whatever the umask is
    return made


def _hand_over(directory: int, old: int, uid: int, gid: int, levels: int) -> None:
    """Give what ``old`` owns in ``directory``, at any depth, to ``uid`` and ``gid``."""
    if not levels:
        raise OSError(errno.ELOOP, f"its directories are nested more than {MOST_LEVELS} deep")
    with os.scandir(directory) as entries:
        for entry in entries:
            try:
                fd = os.open(entry.name, _LOOK, dir_fd=directory)
            except FileNotFoundError:
                continue  # a process of the former owner has taken it away
            try:
                found = os.fstat(fd)
                if stat.S_ISDIR(found.st_mode):
                    inner = os.open(".", _OPEN, dir_fd=fd)
                    try:
                        _hand_over(inner, old, uid, gid, levels - 1)
                    finally:
                        os.close(inner)
                elif found.st_nlink > 1:
                    continue
                if found.st_uid == old and (found.st_uid, found.st_gid) != (uid, gid):
                    os.chown(f"/proc/self/fd/{fd}", uid, gid)  # this very file, a symbolic link itself: proc(5)
            finally:
                os.close(fd)


def _remove(base: str, names: list[str]) -> None:
    parents = [os.open(base, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)]
    try:
        for name in names[:-1]:
            parents.append(os.open(name, _OPEN, dir_fd=parents[-1]))
        _clear(parents[-1], names[-1], MOST_LEVELS)
        for name in reversed(names[:-1]):
            os.close(parents.pop())
            try:
                os.rmdir(name, dir_fd=parents[-1])
            except OSError:
                break  # another service's is in there
    finally:
        for fd in parents:
            os.close(fd)


def _clear(at: int, name: str, levels: int) -> None:
    try:
        os.unlink(name, dir_fd=at)
    except IsADirectoryError:
        pass
    else:
        return
    if not levels:
        raise OSError(errno.ELOOP, f"its directories are nested more than {MOST_LEVELS} deep")
    inner = os.open(name, _OPEN, dir_fd=at)
    try:
        with os.scandir(inner) as entries:
            for entry in entries:
                _clear(inner, entry.name, levels - 1)
    finally:
        os.close(inner)
    os.rmdir(name, dir_fd=at)
