"""The man pages: what parsers, exit codes and the schema of profiles say, in the templates of packaging/manual."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from edge_agent.cli import exits
from edge_agent.cli.context import DEFAULT
from edge_agent.cli.parsing import VERBS, make_parser
from edge_agent.profile.schema import SERVICE_MODELS, Settings
from edge_agent.profile.section import NotActedOn

from .roff import bold, escaped, italic, lines, tagged

OPAQUE = frozenset(
    (
        *("network_policies", "disaster_recovery", "services.NAME.p2p.peers", "services.NAME.rlimits"),
        *("services.NAME.health.http", "services.NAME.health.tcp"),
        *("performance.subprocess.io_priority", "performance.subprocess.scheduler"),
    )
)
"""Keys whose inner keys are told in their own sentence."""
HEADINGS = ("services.NAME.resources", "services.NAME.resources.io")


def pages(templates: Path, version: str, epoch: int, example: str) -> dict[str, str]:
    """File name -> roff. ``example``: a profile."""
    texts: dict[str, str] = yaml.safe_load((templates / "profile-keys.yaml").read_text())
    codes = (tagged(bold(str(code)), f"{meaning[0].upper()}{meaning[1:]}.") for code, meaning in exits.MEANING.items())
    filled = {
        "@DATE@": time.strftime("%Y-%m-%d", time.gmtime(epoch)),
        "@VERSION@": escaped(version),
        "@OPTIONS@": options(make_parser(DEFAULT)) + "\n" + tagged(bold("--version"), "Print the version."),
        "@VERBS@": verbs(),
        "@EXITS@": lines(codes),
        "@KEYS@": keys(texts),
        "@EXAMPLE@": lines(escaped(line) for line in example.rstrip().splitlines()),
    }
    made = {}
    for name in ("edge-agent.8", "edge-agent-profile.5"):
        text = (templates / name).read_text()
        for place, value in filled.items():
            text = text.replace(place, value)
        made[name] = text
    return made


def verbs() -> str:
    """A subsection for each verb."""
    parts = []
    for verb, (_, summary) in VERBS.items():
        if verb == DEFAULT:
            continue
        parser = make_parser(verb)
        own = options(parser, common=False)
        parts += [f".SS {verb} {positional(parser)}".rstrip(), f"{escaped(summary[0].upper() + summary[1:])}.", own]
    return lines(part for part in parts if part)


def positional(parser: argparse.ArgumentParser) -> str:
    """The words of a verb as its usage shows them."""
    shown = []
    for action in parser._actions:
        if not action.option_strings:
            word = str(action.metavar or action.dest)
            shown.append(f"[{word}]" if action.nargs == "?" else word)
    return escaped(" ".join(shown))


def options(parser: argparse.ArgumentParser, *, common: bool = True) -> str:
    """Its options; ``common``: those that every verb has as well."""
    shared = {"help", "run_dir", "data_dir", "log_dir", "config_dir", "verbose"}
    parts = []
    for action in parser._actions:
        if not action.option_strings or (not common and action.dest in shared):
            continue
        tag = ", ".join(bold(option) for option in action.option_strings)
        if action.nargs != 0:
            value = "|".join(map(str, action.choices)) if action.choices else str(action.metavar or action.dest.upper())
            tag += f" {italic(value)}"
        text = action.help or COMMON.get(action.dest, "")
        parts.append(tagged(tag, f"{text[0].upper()}{text[1:]}." if text else ""))
    return lines(parts)


COMMON = {
    "run_dir": "the directory of the control socket",
    "data_dir": "the directory of what outlives a reboot",
    "log_dir": "the directory of logs on disk",
    "config_dir": "the directory of profiles",
    "enforcement": "how limits are held",
}
"""Where the parsers say it in a heading."""


def keys(texts: Mapping[str, str]) -> str:
    """A subsection for each part of a profile. A key without a text is listed all the same."""
    parts, part = [], ""
    for path, field in profile_keys():
        top = path.partition(".")[0]
        if top != part:
            part = top
            parts.append(f".SS {escaped(top)}")
        text = texts.get(path, "")
        if any(isinstance(item, NotActedOn) and item.unless is None for item in field.metadata):
            text += " Not acted on."
        elif (default := default_of(field)) != "":
            text += f" Default: {default}."
        parts.append(tagged(bold(path), text.strip()))
    return lines(parts)


def profile_keys() -> Iterator[tuple[str, FieldInfo]]:
    """Every key that can be written, by its path; NAME stands for the name of a service."""
    for name, field in Settings.model_fields.items():
        if name != "services":
            yield from _below(name, field)
    seen: set[str] = set()
    for model in SERVICE_MODELS.values():
        for name, field in model.model_fields.items():
            for path, inner in _below(f"services.NAME.{field.alias or name}", field):
                if path not in seen:
                    seen.add(path)
                    yield path, inner


def _below(path: str, field: FieldInfo) -> Iterator[tuple[str, FieldInfo]]:
    model = _section(field.annotation)
    if model is None or path in OPAQUE:
        yield path, field
        return
    has_text = (
        path.startswith("services.NAME.") and path != "services.NAME.resources" and path != "services.NAME.resources.io"
    )
    if has_text or field.default is None:
        yield path, field
    for name, inner in model.model_fields.items():
        yield from _below(f"{path}.{inner.alias or name}", inner)


def _section(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for each in get_args(annotation) if (found := _section(each)) is not None), None)


def default_of(field: FieldInfo) -> str:
    """As it would be written; '' when it is nothing, or a whole part."""
    value = field.default
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float | str):
        return f"{value:g}" if isinstance(value, float) else str(value)
    return ""
