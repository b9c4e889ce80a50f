"""Where the agent may make its cgroups: which hierarchy the machine has, the directory, and whether it is ours.

The agent owns one directory, ``path``. It moves itself into ``<path>/agent`` and makes ``<path>/services/<NAME>``;
a cgroup with processes cannot give controllers to children, so ``path`` itself holds none. Where that is:

- Under systemd, the unit's own cgroup, when the unit has Delegate=yes: systemd marks it with the extended attribute
  ``user.delegate`` or ``trusted.delegate`` (systemd.resource-control(5), https://systemd.io/CGROUP_DELEGATION).
  Without the mark the directory is systemd's, even where root could write to it.
- Without systemd, the cgroup the agent was started in, when it may write there.
- From inside ``agent/`` (after the move, or by DelegateSubgroup=agent), its parent.
- Or the directory an override names, when it is a cgroup of version 2 and may be written.

On a hybrid machine (version 2 beside version 1) the version 2 tree is how init tracks processes, without
controllers; it is used only when the override says so. Obeys the resident import rule. Nothing here raises: a
missing file is an answer.
"""

from __future__ import annotations

import os

from ..records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

AGENT = "agent"
"""Name of the child cgroup that holds the agent itself."""
SERVICES = "services"
"""Name of the child cgroup that carries the total and holds one cgroup per service."""
MARKS = ("user.delegate", "trusted.delegate")
WRITTEN = ("cgroup.procs", "cgroup.subtree_control")
"""Files of ``path`` that the agent writes, besides making directories in it."""


class Mount(Record):
    """A line of /proc/PID/mountinfo, proc_pid_mountinfo(5)."""

    device: str  # 'major:minor', st_dev of files on it
    root: str  # which directory of the filesystem is mounted
    point: str  # where
    options: tuple[str, ...]
    kind: str  # filesystem type
    source: str


class Hierarchy(Record):
    """The answer."""

    kind: str  # unified | hybrid | v1 | none
    path: str = ""  # absolute directory below which the agent may make cgroups; '' when there is none to speak of
    controllers: tuple[str, ...] = ()  # cgroup.controllers of ``path``
    delegated: bool = False  # ``path`` is the agent's to manage
    top: str = ""  # the uppermost visible directory above ``path``


def find(
    *,
    cgroup_root: str = "/sys/fs/cgroup",
    proc: str = "/proc",
    run: str = "/run",
    pid: int | None = None,
    override: str = "",
    get_mark: Callable[[str, str], bytes] = os.getxattr,
    access: Callable[[str, int], bool] | None = None,
) -> Hierarchy:
    """What there is for the process ``pid`` (None: this one). ``override`` is EDGE_AGENT_CGROUP_ROOT."""
    process = f"{proc}/{'self' if pid is None else pid}"
    allowed = access or _access_of(process, pid)
    mounts = read_mounts(process)
    kind, mount = _kind(mounts, cgroup_root)
    if override:
        path = override.rstrip("/") or "/"
        if not os.path.isfile(path + "/cgroup.controllers"):
            return Hierarchy(kind)
        within = mount is not None and path.startswith(mount.point.rstrip("/") + "/")
        top = mount.point if mount is not None and within else path
        return Hierarchy(kind, path, _controllers(path), _writable(path, allowed), top)
    if kind != "unified" or mount is None:
        return Hierarchy(kind)
    own = _own_directory(process, mount)
    if not own:
        return Hierarchy(kind)
    candidates = [own]
    if own != mount.point and os.path.basename(own) == AGENT:
        candidates = [os.path.dirname(own), own]
    if os.path.isdir(f"{run}/systemd/system"):
        marked = [path for path in candidates if _marked(path, get_mark)]
        path = (marked or [own])[0]
        ours = bool(marked)
    else:
        path, ours = candidates[0], True
    delegated = ours and "ro" not in mount.options and _writable(path, allowed)
    return Hierarchy(kind, path, _controllers(path), delegated, mount.point)


def memory_disabled(cmdline: str) -> bool:
    """Whether the kernel was told to leave out the memory controller.

    Raspberry Pi kernels know cgroup_enable= too, and it wins over the cgroup_disable= that their firmware adds.
    """
    disabled = enabled = False
    for word in cmdline.split():
        name, _, value = word.partition("=")
        disabled = disabled or (name == "cgroup_disable" and "memory" in value.split(","))
        enabled = enabled or (name == "cgroup_enable" and "memory" in value.split(","))
    return disabled and not enabled


def read_mounts(process: str = "/proc/self") -> list[Mount]:
    """The mounts a process sees, in order; of two on one point the later hides the earlier. [] when unreadable."""
    mounts = []
    for line in read_text(process + "/mountinfo").splitlines():
        fields = line.split(" ")
        if "-" not in fields[6:]:
            continue
        dash = fields.index("-", 6)
        if len(fields) < dash + 3:
            continue
        root, point, source = (_unescape(field) for field in (fields[3], fields[4], fields[dash + 2]))
        mounts.append(Mount(fields[2], root, point, tuple(fields[5].split(",")), fields[dash + 1], source))
    return mounts


def read_text(path: str) -> str:
    """The content of a small file, '' when it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _kind(mounts: list[Mount], cgroup_root: str) -> tuple[str, Mount | None]:
    visible = {mount.point: mount for mount in mounts}  # a later mount hides an earlier one on the same point
    at_root = visible.get(cgroup_root)
    if at_root and at_root.kind == "cgroup2":
        return "unified", at_root
    version2 = [mount for mount in visible.values() if mount.kind == "cgroup2"]
    version1 = [mount for mount in visible.values() if mount.kind == "cgroup"]
    if version1:
        return ("hybrid" if version2 else "v1"), None
    if version2:
        return "unified", version2[-1]
    return "none", None


def _own_directory(process: str, mount: Mount) -> str:
    """The directory of the process's cgroup below ``mount``; '' when it is not below what is mounted."""
    own = ""
    for line in read_text(process + "/cgroup").splitlines():
        if line.startswith("0::"):
            own = line[3:].removesuffix(" (deleted)")
    inside = own == mount.root or own.startswith(mount.root.rstrip("/") + "/")
    if not inside or ".." in own.split("/"):  # above the cgroup namespace, cgroup_namespaces(7)
        return ""
    path = mount.point.rstrip("/") + "/" + own[len(mount.root) :].strip("/")
    path = path.rstrip("/")
    return path if os.path.isdir(path) else ""


def _controllers(path: str) -> tuple[str, ...]:
    return tuple(read_text(path + "/cgroup.controllers").split())


def _marked(path: str, get_mark: Callable[[str, str], bytes]) -> bool:
    for mark in MARKS:
        try:
            if get_mark(path, mark) == b"1":
                return True
        except OSError:
            continue
    return False


def _writable(path: str, allowed: Callable[[str, int], bool]) -> bool:
    """Whether directories may be made in ``path`` and its files written."""
    return allowed(path, os.W_OK | os.X_OK) and all(allowed(f"{path}/{name}", os.W_OK) for name in WRITTEN)


def _access_of(process: str, pid: int | None) -> Callable[[str, int], bool]:
    """access(2) as the process has it: asked of the kernel for this one, judged by owner and mode for another."""
    if pid is None:
        return lambda path, mode: os.access(path, mode, effective_ids=True)
    try:
        uid = os.stat(process).st_uid
    except OSError:
        return lambda _path, _mode: False

    def allowed(path: str, _mode: int) -> bool:
        try:
            status = os.stat(path)
        except OSError:
            return False
        return uid == 0 or (status.st_uid == uid and bool(status.st_mode & 0o200))

    return allowed


def _unescape(field: str) -> str:
    """Undo the octal escapes of mountinfo: space, tab, newline and backslash."""
    if "\\" not in field:
        return field
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(code, character)
    return field
