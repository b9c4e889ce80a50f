"""requirements.txt as pip reads it with --require-hashes: one requirement per logical line."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

_PIN = re.compile(r"(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s;]+)(?P<hashes>(\s+--hash=sha256:[0-9a-f]{64})+)\s*")


class Pin(NamedTuple):
    """One distribution, its one version, and the hashes of its files."""

    name: str  # normalised, PEP 503
    version: str
    line: str  # for pip


def parse(text: str) -> list[Pin]:
    """The pins of a requirements file. ValueError for a line that is no pin with hashes."""
    logical = text.replace("\\\n", " ").splitlines()
    pins = []
    for line in (line.strip() for line in logical):
        if not line or line.startswith("#"):
            continue
        found = _PIN.fullmatch(line)
        if found is None:
            raise ValueError(f"not a pin with hashes: {line[:60]!r}; fix: make pins")
        pins.append(Pin(normalised(found["name"]), found["version"], " ".join(line.split())))
    return pins


def without(pins: Iterable[Pin], names: Iterable[str]) -> list[Pin]:
    """The pins of other distributions."""
    left_out = set(names)
    return [pin for pin in pins if pin.name not in left_out]


def normalised(name: str) -> str:
    """PEP 503: case, dots, dashes and underscores do not matter."""
    return re.sub(r"[-_.]+", "-", name).lower()
