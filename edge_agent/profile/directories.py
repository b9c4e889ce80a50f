"""The agent's directories. Light on purpose: every verb imports this, most without reading a profile."""

from __future__ import annotations

import os
import pwd

from ..records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

PREFIXES = ("EDGE_AGENT_", "BLACKHOLE_")
"""Prefixes of our variables; the first one set wins."""


class Directories(Record):
    """Absolute paths. None of them needs to exist."""

    config: str  # profiles in ``config``/profiles/*.yaml
    data: str  # state that outlives a reboot, and services/NAME for the data of services
    run: str  # control socket and runtime files; emptied by a reboot
    log: str


def variable(environ: Mapping[str, str], name: str) -> tuple[str, str]:
    """The value of EDGE_AGENT_``name`` or BLACKHOLE_``name`` and the variable's name; two '' when unset or empty."""
    for prefix in PREFIXES:
        value = environ.get(prefix + name, "")
        if value:
            return value, prefix + name
    return "", ""


def find(environ: Mapping[str, str], uid: int) -> Directories:
    """The directories by EDGE_AGENT_{CONFIG,DATA,RUN,LOG}_DIR, else the system's for root, else the XDG ones.

    https://specifications.freedesktop.org/basedir-spec: a relative XDG path is ignored. Without XDG_RUNTIME_DIR
    the run directory is below the state directory, which belongs to the user alone, unlike /tmp.
    """
    defaults = _system() if uid == 0 else _xdg(environ, uid)
    chosen = [variable(environ, name + "_DIR")[0] for name in ("CONFIG", "DATA", "RUN", "LOG")]
    pairs = zip(chosen, defaults, strict=True)
    return Directories(*(os.path.abspath(given) if given else default for given, default in pairs))


def known_profile_directories(directories: Directories) -> tuple[str, ...]:
    """Where a profile's name is looked up, in order."""
    return (os.path.join(directories.config, "profiles"), directories.config, *shipped_directories())


def shipped_directories() -> tuple[str, ...]:
    """The directories with the profiles that came with this program: those of them that exist.

    A checkout has them in ``profiles/``; an installed wheel puts data files into PREFIX/share. PREFIX is an
    ancestor of the package, whether site-packages, dist-packages, --user or --target, and whatever sys.prefix is.
    """
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    above = os.path.dirname(package)
    if os.path.isfile(os.path.join(above, "pyproject.toml")):
        candidates = [os.path.join(above, "profiles")]
    else:
        candidates = []
        for _ in range(5):
            candidates.append(os.path.join(above, "share", "edge-agent", "profiles"))
            above = os.path.dirname(above)
    return tuple(path for path in candidates if os.path.isdir(path))


def _system() -> tuple[str, str, str, str]:
    return "/etc/edge-agent", "/var/lib/edge-agent", "/run/edge-agent", "/var/log/edge-agent"


def _xdg(environ: Mapping[str, str], uid: int) -> tuple[str, str, str, str]:
    def base(name: str, *default: str) -> str:
        given = environ.get(name, "")
        return given if os.path.isabs(given) else os.path.join(_home(environ, uid), *default)

    state = os.path.join(base("XDG_STATE_HOME", ".local", "state"), "edge-agent")
    config = os.path.join(base("XDG_CONFIG_HOME", ".config"), "edge-agent")
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    run = os.path.join(runtime, "edge-agent") if os.path.isabs(runtime) else os.path.join(state, "run")
    return config, state, run, os.path.join(state, "log")


def _home(environ: Mapping[str, str], uid: int) -> str:
    home = environ.get("HOME", "")
    if os.path.isabs(home):
        return home
    try:
        return pwd.getpwuid(uid).pw_dir
    except KeyError:  # a uid without an account, as in many containers
        return "/"
