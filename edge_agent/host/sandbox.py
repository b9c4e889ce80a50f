"""A service's sandbox, as systemd.exec(5) has it, made by the forked child for itself.

The agent itself calls nothing here and has the module loaded only because the file may be another release's by the time
a service starts; ctypes is imported in the child.

``isolate`` and ``limit`` come before the user changes, as they need privilege; ``seal`` comes last. Mounts are all or
nothing: what cannot be finished is left by setns(2) for the agent's own namespace. Each raises SandboxError, whose text
is a sentence without its 'cannot start'.

Writable directories are cloned before everything becomes read-only, and put back on top of it: clearing the flag
afterwards would also make writable what was mounted read-only in them on purpose. The system calls have one number
on every architecture, having been added after 5.0 (asm-generic/unistd.h).
"""

from __future__ import annotations

import errno
import os
import stat
import struct

from .confinement import DEVICES, HOME, HOME_PLACES, TMP, TMP_PLACES, has_mounts

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ctypes

    from ..model import Sandbox, Service

OPEN_TREE, MOVE_MOUNT, MOUNT_SETATTR = 428, 429, 442
CLONE_NEWNS = 0x20000
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REC, MS_SLAVE = 2, 4, 8, 0x4000, 0x80000
AT_FDCWD, AT_EMPTY_PATH, AT_RECURSIVE = -100, 0x1000, 0x8000
OPEN_TREE_CLONE = 1
MOVE_MOUNT_F_EMPTY_PATH, MOVE_MOUNT_T_SYMLINKS = 0x4, 0x10
MOUNT_ATTR_RDONLY = struct.pack("=4Q", 1, 0, 0, 0)  # struct mount_attr: attr_set, attr_clr, propagation, userns_fd

PR_SET_KEEPCAPS, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 8, 24, 38, 47
PR_CAP_AMBIENT_RAISE = 2
CAPABILITY_VERSION_3 = 0x20080522

NODES = ("null", "zero", "full", "random", "urandom", "tty", "pts")
"""What a private /dev has of the machine's. Mounted, not made: that takes no CAP_MKNOD, which a container may lack."""
PTMX = 5, 2  # kernel documentation, admin-guide/devices.txt
LINKS = {"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"}
TMP_SHARE = 4  # of the memory limit, for each of TMP_PLACES: a full one is ENOSPC for the service, not its end
NO_LIMIT = "10%"  # of the machine's RAM, as Debian has it for /run
SMALL = "size=64k,nr_inodes=128,mode=755"


class SandboxError(Exception):
    """Something of the sandbox cannot be had: ``cannot X: why; fix: Y``."""


class _Tree:
    """A part of the file system, cloned to be put back at its path."""

    __slots__ = ("fd", "path")

    def __init__(self, path: str, *, read_only: bool) -> None:
        self.path = path
        flags = OPEN_TREE_CLONE | AT_RECURSIVE | os.O_CLOEXEC
        self.fd = _call(f"open {path}", "syscall", OPEN_TREE, AT_FDCWD, os.fsencode(path), flags)
        if read_only:
            _make_read_only(self.fd, "", AT_EMPTY_PATH | AT_RECURSIVE)

    def put_back(self) -> None:
        """Mount it, on a mount point made for it where a private directory has none."""
        if not os.path.lexists(self.path):
            if stat.S_ISDIR(os.fstat(self.fd).st_mode):
                os.makedirs(self.path, 0o755)
            else:
                os.makedirs(os.path.dirname(self.path), 0o755, exist_ok=True)
                os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        how = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_SYMLINKS
        _call(f"mount {self.path}", "syscall", MOVE_MOUNT, self.fd, b"", AT_FDCWD, os.fsencode(self.path), how)
        os.close(self.fd)


def join(service: Service, pid: int) -> None:
    """Share the mounts of another process of the service."""
    if not has_mounts(service.sandbox):
        return
    try:
        fd = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise SandboxError(f"cannot share the mounts of process {pid}: {error.strerror}; {_fix(error)}") from None
    _call(f"share the mounts of process {pid}", "setns", fd, CLONE_NEWNS)
    os.close(fd)


def isolate(service: Service, notify_path: str | None) -> None:
    """Give this process mounts of its own. ``notify_path``: a socket it must reach wherever that is."""
    if not has_mounts(service.sandbox):
        return
    before = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    umask = os.umask(0)
    try:
        _call("leave the agent's mount namespace", "unshare", CLONE_NEWNS)
        try:
            _mount(service, notify_path)
        except (OSError, SandboxError):
            _call("go back to the agent's mount namespace", "setns", before, CLONE_NEWNS)
            raise
    except OSError as error:
        raise SandboxError(f"cannot make its mounts: {error.filename}: {error.strerror}; {_fix(error)}") from None
    finally:
        os.umask(umask)
        os.close(before)


def _mount(service: Service, notify_path: str | None) -> None:
    sandbox = service.sandbox
    # What is mounted later, or unmounted, on the machine is so for the service as well; nothing goes the other way.
    _call("make its mounts its own", "mount", None, b"/", None, MS_REC | MS_SLAVE, None)
    tmp = _existing(TMP_PLACES) if sandbox.private_tmp else []
    home = _existing(HOME_PLACES) if sandbox.protect_home else []
    devices = ["/dev"] if sandbox.private_devices else []
    trees = _trees(service, [*tmp, *home, *devices], notify_path)
    links = {name: os.readlink(f"/dev/{name}") for name in ("log", "ptmx") if os.path.islink(f"/dev/{name}")}
    if sandbox.read_only:
        _make_read_only(AT_FDCWD, "/", AT_RECURSIVE)
    if devices:
        _make_devices(links)
    limit = service.limits.memory_limit
    size = NO_LIMIT if limit is None else str(limit // TMP_SHARE)
    for place in tmp:
        if not os.path.isdir(place):
            os.mkdir(place)  # /dev/shm, in the new /dev
        _tmpfs(TMP, place, MS_NOSUID | MS_NODEV, f"mode=1777,size={size}")
    for place in home:
        _tmpfs(HOME, place, MS_NOSUID | MS_NODEV | MS_NOEXEC, SMALL)
    os.umask(0o022)
    for tree in trees:
        tree.put_back()
    for place in [*home, *devices]:
        _make_read_only(AT_FDCWD, place, 0)


def _trees(service: Service, private: list[str], notify_path: str | None) -> list[_Tree]:
    """What of the machine stays, by path, outer ones first."""
    sandbox, shm = service.sandbox, TMP_PLACES[-1]
    writable = [os.path.realpath(path) for path in (*service.directories, *sandbox.writable)]
    # Of two the outer one says it all; and where the inner one leads to, the service may have a say in.
    kept = {path: False for path in writable if not any(path.startswith(f"{other}/") for other in writable)}
    seen = [*sandbox.visible, *([os.path.dirname(notify_path)] if notify_path else [])]
    if sandbox.private_devices:
        names = [*NODES, *([] if os.path.islink("/dev/log") else ["log"]), *([] if sandbox.private_tmp else ["shm"])]
        seen += [path for path in (f"/dev/{name}" for name in names) if os.path.exists(path)]
    for path in map(os.path.realpath, seen):
        if any(path == place or path.startswith(f"{place}/") for place in private):
            kept.setdefault(path, sandbox.read_only if path == shm else not path.startswith("/dev/"))
    return [_Tree(path, read_only=only) for path, only in sorted(kept.items())]


def _existing(places: tuple[str, ...]) -> list[str]:
    """Each once, by its real path."""
    return list(dict.fromkeys(os.path.realpath(place) for place in places if os.path.isdir(place)))


def _make_devices(links: dict[str, str]) -> None:
    _tmpfs(DEVICES, "/dev", MS_NOSUID | MS_NOEXEC, SMALL)
    for name, target in {**LINKS, **links}.items():
        os.symlink(target, f"/dev/{name}")
    if "ptmx" not in links:  # it looks for "pts" beside itself, so one that is only mounted here finds none
        try:
            os.mknod("/dev/ptmx", stat.S_IFCHR | 0o666, os.makedev(*PTMX))
        except PermissionError:
            pass  # no CAP_MKNOD, as in a container: there are no new terminals in this /dev


def limit(service: Service) -> None:
    """Drop what it must never have again from the bounding set, and have the rest outlive the change of its user."""
    if service.sandbox.capabilities is None:
        return
    kept, status = _mask(service.sandbox), _status()
    lacking = kept & ~status["CapPrm"]
    if lacking:
        number = lacking.bit_length() - 1
        raise SandboxError(f"cannot keep capability {number}: the agent does not have it; fix: run the agent as root")
    try:
        for number in range(64):
            if (status["CapBnd"] & ~kept) >> number & 1:
                _call(f"drop capability {number}", "prctl", PR_CAPBSET_DROP, number, 0, 0, 0)
    except SandboxError:
        if not service.sandbox.no_new_privileges:  # with them no program gains anything from the bounding set
            raise
    if kept:
        _call("keep capabilities", "prctl", PR_SET_KEEPCAPS, 1, 0, 0, 0)


def seal(service: Service) -> None:
    """After the change of user: keep only the capabilities that are to be kept, and gain none ever again."""
    sandbox = service.sandbox
    if sandbox.capabilities is not None:
        kept = _mask(sandbox)
        halves = [kept & 0xFFFFFFFF, kept >> 32]
        data = struct.pack("=6I", *(half for part in halves for half in (part, part, part)))
        _call("set its capabilities", "capset", struct.pack("=Ii", CAPABILITY_VERSION_3, 0), data)
        for number in sandbox.capabilities if os.geteuid() != 0 else ():  # a program that root executes has them anyway
            _call(f"pass on capability {number}", "prctl", PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, number, 0, 0)
    if sandbox.no_new_privileges:
        _call("give up new privileges", "prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def _mask(sandbox: Sandbox) -> int:
    return sum(1 << number for number in sandbox.capabilities or ())


def _status() -> dict[str, int]:
    """Capability sets of this process, proc_pid_status(5)."""
    with open("/proc/self/status", encoding="utf-8", errors="replace") as file:
        pairs = (line.partition(":") for line in file if line.startswith("Cap"))
        return {key: int(value, 16) for key, _, value in pairs}


# -- the C library -----------------------------------------------------------------------------------------------------


def _tmpfs(source: str, place: str, flags: int, options: str) -> None:
    _call(f"mount {place}", "mount", source.encode(), os.fsencode(place), b"tmpfs", flags, options.encode())


def _make_read_only(fd: int, path: str, flags: int) -> None:
    size = len(MOUNT_ATTR_RDONLY)
    what = f"make {path or 'a part of its tree'} read-only"
    _call(what, "syscall", MOUNT_SETATTR, fd, os.fsencode(path), flags, MOUNT_ATTR_RDONLY, size)


def _call(what: str, function: str, *arguments: int | bytes | None) -> int:
    """Call a function of the C library; numbers go as C longs, since syscall(2) and prctl(2) are variadic."""
    import ctypes  # here, in the child: it would cost the agent 1 MiB

    if not _libc:
        _libc.append(ctypes.CDLL(None, use_errno=True))
    given = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    result: int = getattr(_libc[0], function)(*given)
    if result < 0:
        code = ctypes.get_errno()
        raise SandboxError(f"cannot {what}: {os.strerror(code)}; {_fix(OSError(code, ''))}")
    return result


_libc: list[ctypes.CDLL] = []


def _fix(error: OSError) -> str:
    if error.errno in (errno.EPERM, errno.EACCES):
        return "fix: run the agent as root, with CAP_SYS_ADMIN if in a container"
    if error.errno == errno.ENOSYS:
        return "fix: use a kernel of at least 5.12"
    if error.errno == errno.ENOENT:
        return "fix: create it, or take it out of the sandbox"
    return "fix: take it out of the sandbox, or give the machine what it needs"
