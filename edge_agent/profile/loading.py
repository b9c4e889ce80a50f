"""Load a profile: files, environment and flags in; ``demand.Profile`` out, or ProfileError with every problem."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from ..demand import Profile
from . import files
from .build import Build
from .directories import Directories
from .environment import flags_layer, variables
from .problems import Place, Problem, ProfileError
from .system import Machine, System
from .tree import Map, from_mapping
from .validate import Layers, validate

Remote = Callable[[], Mapping[str, object]]
"""A source below the files and above the defaults. Nothing in this release provides one."""


def load(
    *,
    config: str | None,
    name: str | None,
    flags: Mapping[str, object],
    environ: Mapping[str, str],
    directories: Directories,
    system: System | None = None,
    remote: Remote | None = None,
) -> Profile:
    """The profile of the file ``config``, or of that ``name``, or the one that the environment chooses.

    ``flags``: short names of ``environment.FLAGS``, ``dev``, or dotted keys; None means not given.
    Raises ProfileError with all problems, those of one file in the order of its lines.
    """
    chosen, path = files.choose(config, name, environ, directories)
    file, problems = files.load_tree(path, directories)
    services = file.entries.get("services")
    variables_layer, notes, more = variables(environ, services.entries if isinstance(services, Map) else ())
    remote_layer = from_mapping(remote() if remote else {}, Place("remote source"))
    layers = Layers((flags_layer(flags), variables_layer, file, remote_layer))
    outcome = validate(layers)
    problems = [*problems, *more, *outcome.problems]
    if outcome.settings is not None:
        build = Build(outcome.settings, outcome.layers, outcome.removed, directories, environ, system or Machine())
        profile = build.profile(chosen, os.path.abspath(path), notes)
        problems += build.problems
        if not problems:
            return profile
    raise ProfileError(sorted(problems, key=lambda each: _order(each, path)))


def _order(problem: Problem, path: str) -> tuple[bool, str, int, int]:
    return problem.file != path, problem.file, problem.line, problem.column
