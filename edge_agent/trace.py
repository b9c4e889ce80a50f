"""Traces: what a node was seen to do, or what services will ask for; JSON, one value a line. Pure.

The first line says what it is; ``machine`` and all sizes are bytes, times seconds that never go back, cpu milli-cores::

    {"edge-agent-trace": 1, "kind": "recorded", "machine": 1015021568, "cpus": 4}

*Recorded* (by ``edge-agent record``): each further line is a look, with the fields of ``looks.Look``::

    {"at": 1.0, "some": 0.0, "full": 0.0, "free": 600000000, "total": 800000000, "available": 700000000,
     "swap": false, "psi": true, "loads": {"web": {"memory": 60000000, "cpu": 120, "io": 0, "memory_wait": 0.0,
     "cpu_wait": 0.01, "io_wait": 0.0, "limited": 0}}}

With ``"psi": false`` a look may have ``disk``, the share of the time in which the disk was busy.

*Written*: each further line says what services want from then on. A service that is named anew wants that and nothing
else; ``grows`` is bytes per second on top of ``memory``, from its last start. ``system`` is what all else on the
machine holds. The last line is the end. The header may have ``swap`` (bytes), ``disk`` (bytes per second; 0: no bound)
and ``psi`` (are stalls measured)::

    {"edge-agent-trace": 1, "kind": "written", "machine": 1e9, "cpus": 2, "swap": 2e8, "disk": 2e7, "system": 1.5e8}
    {"at": 0, "wants": {"web": {"memory": 6e7, "cpu": 200}, "batch": {"memory": 1e8, "io": 1e7, "grows": 1e5}}}
    {"at": 3600, "wants": {"batch": {}}, "system": 3e8}
    {"at": 7200}

Of numbers whole ones are meant, however they are written; anything that is not known is an error, not a guess.
"""

from __future__ import annotations

import json

from .looks import Load, Look
from .records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Any

VERSION = 1
RECORDED, WRITTEN = "recorded", "written"
MOST_LINES = 5_000_000
LONGEST_LINE = 256 * 1024
"""Bytes."""
MOST = 2**62
LONGEST = 10 * 366 * 86400.0


class TraceError(ValueError):
    """A line that cannot be used. ``line`` counts from 1."""

    def __init__(self, line: int, why: str, fix: str) -> None:
        self.line = line
        self.why = why
        self.fix = fix
        super().__init__(f"line {line}: {why}; fix: {fix}")


class Header(Record):
    """What the trace is about."""

    kind: str
    machine: int  # bytes of RAM
    cpus: int
    swap: int = 0  # bytes
    disk: int = 0  # bytes per second
    system: int = 0  # bytes that the system and everything else hold
    psi: bool = True


class Want(Record):
    """What one service would take if it could."""

    memory: int = 0  # bytes
    cpu: int = 0  # milli-cores
    io: int = 0  # bytes per second
    grows: int = 0  # bytes per second


class Line(Record):
    """From ``at`` on."""

    at: float
    wants: dict[str, Want]
    system: int | None


def read(lines: Iterable[bytes]) -> tuple[Header, Iterator[tuple[int, bytes]]]:
    """The header, and the rest for ``looks`` or ``written``. Raises TraceError."""
    numbered = enumerate(lines, 1)
    number, first = next(numbered, (1, b""))
    return _header(_Fields(number, first)), numbered


def header_line(header: Header, **more: Any) -> str:
    """As ``record`` writes it; ``more`` is for people."""
    return json.dumps({"edge-agent-trace": VERSION, **header._asdict(), **more}) + "\n"


def look_line(look: Look) -> str:
    """A recorded line."""
    fields = look._asdict()
    del fields["machine"]  # the header has it
    for name in ("at", "some", "full", "disk"):
        fields[name] = round(fields[name], 4)
    if not look.disk:
        del fields["disk"]
    loads = {name: {key: round(value, 4) for key, value in load._asdict().items()} for name, load in look.loads.items()}
    return json.dumps({**fields, "loads": loads}, separators=(",", ":")) + "\n"


def _header(fields: _Fields) -> Header:
    version = fields.take("edge-agent-trace", None)
    if version is None:
        raise fields.error("it is not a trace of edge-agent", 'begin with {"edge-agent-trace": 1, "kind": ...}')
    if version != VERSION or isinstance(version, bool):
        raise fields.error(f"its version is {version!r:.40}", f"this release reads version {VERSION}")
    kind = fields.take("kind", None)
    if kind not in (RECORDED, WRITTEN):
        raise fields.error(f"its kind is {kind!r:.40}", f"write {RECORDED!r} or {WRITTEN!r}")
    for name in ("profile", "recorded"):  # for people
        fields.take(name, None)
    header = Header(
        kind,
        fields.whole("machine", 1),
        fields.whole("cpus", 1, 4096),
        fields.whole("swap", 0, default=0),
        fields.whole("disk", 0, default=0),
        fields.whole("system", 0, default=0),
        fields.flag("psi", default=True),
    )
    fields.end()
    return header


def looks(lines: Iterator[tuple[int, bytes]], header: Header) -> Iterator[Look]:
    """The rest of a recorded trace. Raises TraceError while it is read."""
    before = 0.0
    for number, line in lines:
        fields = _Fields(number, line)
        before = fields.moment(before)
        loads = {}
        for name, load in fields.maps("loads").items():
            loads[name] = Load(
                load.whole("memory"),
                load.whole("cpu"),
                load.whole("io"),
                load.share("memory_wait"),
                load.share("cpu_wait"),
                load.share("io_wait"),
                load.whole("limited"),
            )
            load.end()
        yield Look(
            before,
            fields.share("some"),
            fields.share("full"),
            fields.whole("free"),
            fields.whole("total"),
            fields.whole("available"),
            header.machine,
            fields.flag("swap", default=False),
            fields.flag("psi", default=True),
            loads,
            fields.share("disk", 0.0),
        )
        fields.end()


def written(lines: Iterator[tuple[int, bytes]], services: Sequence[str]) -> Iterator[Line]:
    """The rest of a written trace, about some of ``services``. Raises TraceError while it is read."""
    before = 0.0
    for number, line in lines:
        fields = _Fields(number, line)
        before = fields.moment(before)
        wants = {}
        for name, want in fields.maps("wants").items():
            if name not in services:
                why = f"the profile has no service {name!r:.40}"
                raise fields.error(why, f"use one of {', '.join(services) or 'none: it has no services'}")
            wants[name] = Want(*(want.whole(key, default=0) for key in Want._fields))
            want.end()
        yield Line(before, wants, fields.whole("system", default=0) if "system" in fields.left else None)
        fields.end()


class _Fields:
    """The fields of one map that are not taken yet."""

    def __init__(self, line: int, source: bytes | dict[str, Any], where: str = "") -> None:
        self.line = line
        self._where = where
        self.left: dict[str, Any] = source if isinstance(source, dict) else self._parse(source)

    def _parse(self, source: bytes) -> dict[str, Any]:
        if self.line > MOST_LINES or len(source) > LONGEST_LINE:
            raise self.error("the trace is too large", f"keep to {MOST_LINES} lines of {LONGEST_LINE} bytes")
        try:
            found = json.loads(source)
        except (ValueError, RecursionError) as error:
            raise self.error(f"it is not JSON: {error}", "write one JSON object a line") from None
        if not isinstance(found, dict):
            raise self.error("it is not a JSON object", 'write {"at": ...}')
        return found

    def error(self, why: str, fix: str) -> TraceError:
        return TraceError(self.line, self._where + why, fix)

    def take(self, name: str, default: object) -> Any:
        return self.left.pop(name, default)

    def _number(self, name: str, least: float, most: float, default: float | None) -> float:
        value = self.take(name, default)
        if value is None:
            raise self.error(f"{name} is missing", f"write a number from {least:g} to {most:g}")
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            raise self.error(f"{name} is {value!r:.40}", f"write a number from {least:g} to {most:g}")
        return value

    def whole(self, name: str, least: int = 0, most: int = MOST, default: int | None = None) -> int:
        return round(self._number(name, least, most, default))

    def share(self, name: str, default: float | None = None) -> float:
        return float(self._number(name, 0.0, 1.0, default))

    def moment(self, before: float) -> float:
        at = float(self._number("at", 0.0, LONGEST, None))
        if at < before:
            raise self.error(
                f"at is {at:g}, before the {before:g} of an earlier line", "put the lines in order of time"
            )
        return at

    def flag(self, name: str, *, default: bool) -> bool:
        value = self.take(name, default)
        if not isinstance(value, bool):
            raise self.error(f"{name} is {value!r:.40}", "write true or false")
        return value

    def maps(self, name: str) -> dict[str, _Fields]:
        found = self.take(name, {})
        if not isinstance(found, dict):
            raise self.error(f"{name} is not a JSON object", "write {SERVICE: {...}, ...}")
        for key, value in found.items():
            if not isinstance(value, dict):
                raise self.error(f"{name}.{key:.40} is not a JSON object", 'write {"memory": ..., ...}')
        return {key: _Fields(self.line, dict(value), f"{name}.{key:.40}: ") for key, value in found.items()}

    def end(self) -> None:
        """Nothing may be left."""
        if self.left:
            raise self.error(
                f"nothing is called {next(iter(self.left))!r:.40} here", "see `edge-agent simulate --help`"
            )
