"""Variables and flags as layers over the files, and ``${NAME}`` in the values of ``environment:``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from .directories import PREFIXES
from .problems import Place, Problem, ProfileError, ReadError, nearest
from .text import parse_value
from .tree import Leaf, Map, from_data, put

VARIABLES = {
    "NODE_ID": ("deployment", "node_id"),
    "CLUSTER_NAME": ("deployment", "cluster_name"),
    "TLS_CERT": ("security", "tls_cert"),
    "TLS_KEY": ("security", "tls_key"),
    "CA_CERT": ("security", "ca_cert"),
}
"""Settings with a variable of their own, with either prefix. NAME_PORT is services.NAME.port; any other setting is
EDGE_AGENT_ and its keys joined by two underscores, as EDGE_AGENT_DEPLOYMENT__RESOURCES__TOTAL_MEMORY."""

ELSEWHERE = frozenset(
    (
        *("CONFIG", "PROFILE", "CONFIG_DIR", "DATA_DIR", "RUN_DIR", "LOG_DIR"),
        *("SERVICE_OPTIONS", "LOG_LEVEL", "CONTROL_GROUP", "CGROUP_ROOT"),
    )
)
"""Read by others than the profile."""

FLAGS = {
    "node_id": ("deployment", "node_id"),
    "cluster_name": ("deployment", "cluster_name"),
    "enforcement": ("deployment", "enforcement"),
    "total_memory": ("deployment", "resources", "total_memory"),
    "total_cpu": ("deployment", "resources", "total_cpu"),
}
"""Short names of flags. ``dev`` sets DEV; any other name is the dotted key of a setting."""
DEV = (("development", "debug_logging"), ("development", "hot_reload"))

_REFERENCE = re.compile(r"\$(?:\$|\{([A-Za-z_][A-Za-z0-9_]*)(?:(:-)([^}]*))?\}|\{)")


def variables(environ: Mapping[str, str], services: Iterable[str]) -> tuple[Map, list[str], list[Problem]]:
    """The layer of the environment over a profile with these ``services``, notes on what has no effect, problems."""
    known = {name.upper().replace("-", "_"): name for name in services}
    layer, notes, problems = Map(Place("environment")), [], list[Problem]()
    for prefix in reversed(PREFIXES):  # the preferred prefix last: it replaces
        for variable in sorted(name for name in environ if name.startswith(prefix) and environ[name]):
            short, place = variable.removeprefix(prefix), Place(variable)
            if "__" in short and prefix == PREFIXES[0]:
                try:
                    put(layer, _nested(short, known), parse_value(environ[variable], place))
                except ProfileError as error:
                    problems += error.problems
            elif short in VARIABLES:
                put(layer, VARIABLES[short], Leaf(environ[variable], place, plain=False))
            elif short.endswith("_PORT") and short.removesuffix("_PORT") in known:
                path = ("services", known[short.removesuffix("_PORT")], "port")
                put(layer, path, Leaf(environ[variable], place, plain=False))
            elif short not in ELSEWHERE:
                notes.append(f"{variable} ({_unused(short)})")
    return layer, notes, problems


def _nested(short: str, known: Mapping[str, str]) -> tuple[str, ...]:
    path = short.split("__")
    if path[0] == "SERVICES" and len(path) > 1:
        inner = path[2:]
        # Names of variables are written in upper case, also those of a service's own environment.
        below = [step if inner[0] == "ENVIRONMENT" and place else step.lower() for place, step in enumerate(inner)]
        return ("services", known.get(path[1], path[1].lower()), *below)
    return tuple(step.lower() for step in path)


def _unused(short: str) -> str:
    if short == "VERSION":
        return "the version is that of the program"
    if short.endswith("_PORT"):
        return f"no service {short.removesuffix('_PORT').lower()} in this profile"
    near = nearest(short, [*VARIABLES, *ELSEWHERE])
    return f"unknown variable; did you mean {PREFIXES[0]}{near}?" if near else "unknown variable"


def flags_layer(flags: Mapping[str, object]) -> Map:
    """The layer of the command line. A value of None means that the flag was not given."""
    layer = Map(Place("command line"))
    for name, value in flags.items():
        if value is None:
            continue
        place = Place("--" + name.replace("_", "-") if "." not in name else f"--set {name}")
        if name == "dev":
            for path in DEV if value else ():
                put(layer, path, from_data(True, place))
        else:
            put(layer, FLAGS.get(name) or tuple(name.split(".")), from_data(value, place))
    return layer


def substitute(text: str, environ: Mapping[str, str]) -> str:
    """``${NAME}`` and ``${NAME:-default}`` (also when empty) from ``environ``; ``$$`` is one ``$``.

    Raises ReadError for an unset variable without a default.
    """

    def value(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        name = match[1]
        if name is None:
            raise ReadError("cannot read ${...}", "write ${NAME} or ${NAME:-default}; $$ for a single $")
        if match[2]:
            return environ.get(name) or match[3]
        if name not in environ:
            raise ReadError(f"the agent's environment has no {name}", f"set it, or write ${{{name}:-default}}")
        return environ[name]

    return _REFERENCE.sub(value, text)
