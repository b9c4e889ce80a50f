"""Load a profile: files, environment and flags in; ``demand.Profile`` out, or ProfileError with every problem."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from ..demand import Profile
from . import files
from .build import Build
from .directories import Directories
from .environment import flags_layer, variables
from .problems import MOST_PROBLEMS, Place, Problem, ProfileError
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
    problems: list[Problem] = []
    cut = False
    try:
        file, found = files.load_tree(path, directories)
        problems += found
        services = file.entries.get("services")
        layer, notes, found = variables(environ, services.entries if isinstance(services, Map) else ())
        problems += found
        below = from_mapping(remote() if remote else {}, Place("remote source"))
        outcome = validate(Layers((flags_layer(flags), layer, file, below)))
        problems += outcome.problems
        cut = outcome.settings is None
        if outcome.settings is not None:
            build = Build(outcome.settings, outcome.layers, outcome.removed, directories, environ, system or Machine())
            profile = build.profile(chosen, os.path.abspath(path), notes)
            if not problems:
                return profile
    except ProfileError as error:
        problems += error.problems
    raise ProfileError(_ordered(problems, path, cut))


def _ordered(problems: list[Problem], path: str, cut: bool) -> list[Problem]:
    """By line, the profile's own file first, and where there are more (``cut``: known to be) a last one says so."""
    ordered = sorted(problems, key=lambda each: (each.file != path, each.file, each.line, each.column))
    if len(ordered) <= MOST_PROBLEMS and not cut:
        return ordered
    more = Problem(path, 0, "", "", "there are more problems than those above", "correct these first")
    return [*ordered[:MOST_PROBLEMS], more]
