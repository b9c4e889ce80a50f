"""Run the models over the layers and say what is wrong in our words, with the place each value came from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from ..records import Record
from .problems import MOST_PROBLEMS, Place, Problem, ReadError, problem, suggest
from .schema import SERVICE_MODELS, Settings
from .section import NotActedOn, known_keys
from .tree import Leaf, Map, Path, dotted, find, without

_ATTEMPTS = 4
_NEEDS = "needs the key"
_UNKNOWN = "unknown key"


class Layers:
    """The trees a profile is made of, the strongest first, and where in them a key was given."""

    def __init__(self, trees: Sequence[Map]) -> None:
        self.trees = tuple(trees)

    def locate(self, path: Path) -> tuple[Path, Place, str]:
        """The longest part of ``path`` that was written, where, and the value when it is a single one.

        A mapping is said to be at its key: that is where people look for it.
        """
        best: tuple[Path, Place, str] = ((), Place(), "")
        deepest = -1
        for tree in self.trees:
            node, place, taken = find(tree, path)
            if taken > deepest:
                deepest = taken
                value = node.text if isinstance(node, Leaf) else ""
                best = (path[:taken], node.place if isinstance(node, Leaf) else place, value)
        return best

    def key_place(self, path: Path) -> Place:
        """Where the key at the end of ``path`` was written."""
        places = [find(tree, path) for tree in self.trees]
        deepest = max(taken for _, _, taken in places)
        return next(place for _, place, taken in places if taken == deepest)

    def problem(self, path: Path, why: str, fix: str = "") -> Problem:
        """A problem with the value at ``path``, or with what should have been there."""
        found, place, value = self.locate(path)
        shown = found[:-1] if value and found and isinstance(found[-1], int) else found  # the value tells which item
        return problem(place, dotted(shown), value, why, fix)

    def without(self, paths: Sequence[Path]) -> Layers:
        """The same without what stands at ``paths``."""
        return Layers([without(tree, paths) for tree in self.trees])


class Outcome(Record):
    """What validation gives. ``removed``: the paths that were taken out, leaving ``layers``."""

    settings: Settings | None
    layers: Layers
    problems: list[Problem]
    removed: list[Path]


def validate(layers: Layers) -> Outcome:
    """The settings and all problems.

    What is wrong is taken out and the rest validated again: a bad size must not hide an unknown dependency.
    ``settings`` is None when even that leaves nothing valid, or there are more than MOST_PROBLEMS.
    """
    problems: list[Problem] = []
    removed: list[Path] = []
    for _ in range(_ATTEMPTS):
        try:
            settings = Settings(layers=layers.trees)  # type: ignore[call-arg]  # taken by the sources
        except ValidationError as error:
            room = MOST_PROBLEMS - len(problems)
            details = error.errors(include_url=False, include_input=False)
            found = [_translate(layers, each) for each in details[:room]]
            misspelt = {(each.key.rpartition(".")[0], each.fix) for _, each in found if each.why == _UNKNOWN}
            for _, each in found:
                if each not in problems and not _follows(each, removed, misspelt):
                    problems.append(each)
            if len(details) > room:
                break
            paths = [path for path, _ in found]
            removed += paths
            layers = layers.without(paths)
        else:
            return Outcome(settings, layers, problems, removed)
    return Outcome(None, layers, problems, removed)


def _follows(problem: Problem, removed: list[Path], misspelt: set[tuple[str, str]]) -> bool:
    """Whether a key is only missing because it was taken out, or because it is there with a typing error."""
    if not problem.why.startswith(_NEEDS):
        return False
    name = problem.why.removeprefix(_NEEDS).strip(" '")
    return any(path[-1] == name and dotted(path[:-1]) == problem.key for path in removed) or (
        (problem.key, suggest(name, [name])) in misspelt
    )


def not_acted_on(settings: Settings, layers: Layers) -> list[str]:
    """Dotted keys with lines that were given but do nothing in this release."""
    return [f"{dotted(path)} ({where(layers, path)})" for path in _given_but_idle(settings, ())]


def where(layers: Layers, path: Path) -> str:
    """``line 5`` in the profile's own file, ``base.yaml:5`` in one it extends, or the variable's name."""
    place = layers.key_place(path)
    own = next((tree.place.source for tree in layers.trees if tree.place.line), "")
    return f"line {place.line}" if place.line and place.source == own else place.text()


def _given_but_idle(model: BaseModel, above: Path) -> list[Path]:
    paths: list[Path] = []
    for name in type(model).model_fields:
        if name not in model.model_fields_set:
            continue
        field = type(model).model_fields[name]
        value = getattr(model, name)
        path = (*above, field.alias or name)
        idle = next((mark for mark in field.metadata if isinstance(mark, NotActedOn)), None)
        if idle is not None:
            paths += [path] if value != idle.unless else []
        elif isinstance(value, BaseModel):
            paths += _given_but_idle(value, path)
        elif isinstance(value, dict):
            for key, child in value.items():
                if isinstance(child, BaseModel):
                    paths += _given_but_idle(child, (*path, key))
    return paths


def _translate(layers: Layers, details: Any) -> tuple[Path, Problem]:
    """The path to leave out, and the problem in our words."""
    location = tuple(details["loc"])
    tags = [step for step in location[2:3] if location[0] == "services" and step in SERVICE_MODELS]
    path: Path = location[:2] + location[2 + len(tags) :]
    kind = details["type"]
    if path[-1:] == ("[key]",):
        path = path[:-1]
        error = details["ctx"]["error"]
        return path, problem(layers.key_place(path), dotted(path), "", error.why, error.fix)
    if kind == "extra_forbidden":
        model = SERVICE_MODELS[tags[0]] if tags else Settings
        names = _names(model, path[2:-1] if tags else path[:-1])
        return path, problem(layers.key_place(path), dotted(path), "", _UNKNOWN, suggest(str(path[-1]), names))
    if kind == "missing":
        found, place, value = layers.locate(path[:-1])
        return path[:-1], problem(place, dotted(found), value, f"{_NEEDS} '{path[-1]}'", f"add {path[-1]}:")
    why, fix = _words(kind, details)
    found = layers.locate(path)[0]
    return found, layers.problem(path, why, fix)


def _words(kind: str, details: Any) -> tuple[str, str]:
    error = details.get("ctx", {}).get("error")
    if isinstance(error, ReadError):
        return error.why, error.fix
    if kind in ("list_type", "tuple_type"):
        return "expected a list", "write each item on its own line, starting with '- '"
    if kind in ("dict_type", "model_type", "model_attributes_type"):
        return "expected keys below it, not a single value or a list", "write 'key: value' lines, indented"
    return "cannot be used here", "see the shipped profiles for an example"


def _names(model: type[BaseModel], path: Path) -> list[str]:
    """The keys allowed at ``path`` below ``model``."""
    for step in path:
        if isinstance(step, int):
            continue
        field = next((each for name, each in model.model_fields.items() if (each.alias or name) == step), None)
        below = _model_in(field.annotation) if field else None
        if below is not None:
            model = below
        # otherwise ``step`` is a name in a mapping of models, as in rlimits.nofile: the model stays
    return known_keys(model)


def _model_in(annotation: object) -> type[BaseModel] | None:
    """The model that a type speaks of: itself, in an Optional, a tuple, a dict's value, or below an Annotated."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in reversed(get_args(annotation)):
        model = _model_in(argument)
        if model is not None:
            return model
    return None
