"""From the front end to the resident agent: this process is replaced by one that imports next to nothing.

``python -I -S`` leaves out site, its path configuration files and the environment's PYTHON* variables; the few
directories that hold the agent and its libraries go behind the standard library on sys.path, so that no file of theirs
can stand in for a standard module. The plan travels in a memfd (memfd_create(2)): no file, no race, no clean-up.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..profile.directories import Directories

LIBRARIES = ("msgpack", "cgroupspy", "psutil")
STATUS_GROUP = "edge-agent-telemetry"
BOOT = "import sys; sys.path += {paths!r}; from edge_agent.agent import main; main(sys.argv[1:])"


def cgroup_place(enforcement: str, environ: Mapping[str, str]) -> str | None:
    """The delegated cgroup to give to the resident, '' for none; None when one should be asked of systemd first."""
    if enforcement in ("sampling", "none"):
        return ""
    from ..host.hierarchy import find

    place = find(override=environ.get("EDGE_AGENT_CGROUP_ROOT", ""))
    if place.delegated:
        return place.path
    return None if place.kind == "unified" and os.path.isdir("/run/systemd/system") else ""


def execute(
    directories: Directories,
    arguments: Sequence[str],
    *,
    enforcement: str | None = None,
    cgroup_path: str = "",
    io_device: str = "",
    control_gid: int | None = None,
    degraded: str = "",
) -> None:
    """Replace this process by the resident. ``arguments`` give it its plan. Does not return. Raises OSError."""
    words = [*arguments, "--run-dir", directories.run, "--data-dir", directories.data, "--log-dir", directories.log]
    optional = {
        "--enforcement": enforcement,
        "--cgroup-path": cgroup_path,
        "--io-device": io_device,
        "--control-gid": None if control_gid is None else str(control_gid),
        "--status-gid": status_gid(),
        "--degraded": degraded,
    }
    for name, value in optional.items():
        if value:
            words += [name, value]
    sys.stdout.flush()
    os.execv(sys.executable, command(words))  # noqa: S606 - no shell, and this very interpreter


def status_gid() -> str | None:
    """The group that may ask the agent for its status and for nothing else: the telemetry service's, made by packages.

    An agent that is not root hands no socket to another group; its services are its own user's anyway.
    """
    if os.geteuid() != 0:
        return None
    import grp

    try:
        return str(grp.getgrnam(STATUS_GROUP).gr_gid)
    except KeyError:
        return None


def command(words: Sequence[str]) -> list[str]:
    """The resident's argv."""
    return [sys.executable, "-I", "-S", "-c", BOOT.format(paths=import_paths()), *words]


def import_paths() -> list[str]:
    """The directories that hold this package and the resident's libraries, found without importing them."""
    from importlib.machinery import PathFinder

    paths = [os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))]
    for name in LIBRARIES:
        spec = PathFinder.find_spec(name)
        if spec is not None and spec.origin:
            path = os.path.dirname(os.path.dirname(os.path.abspath(spec.origin)))
            if path not in paths:
                paths.append(path)
    return paths


def plan_descriptor(data: bytes) -> int:
    """A descriptor that survives exec and reads ``data`` from its start."""
    fd = os.memfd_create("edge-agent-plan", 0)
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
    os.lseek(fd, 0, os.SEEK_SET)
    return fd
