"""Readers: from a leaf of the tree to a value, as types for the models' fields.

Each refuses with ``ReadError``, in the words the person sees; pydantic carries it, with its location, to ``settings``.
"""

from __future__ import annotations

import math
import shlex
import signal
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from ..demand import Amount
from ..model import ESSENTIAL, HEAVY, NORMAL, UNLIMITED
from .problems import ReadError, suggest
from .tree import Leaf
from .units import read_cores, read_duration, read_share, read_size

TRUE = frozenset(("true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON"))
FALSE = frozenset(("false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF"))
SMALLEST_MEMORY = 64 * 1024
"""Bytes. No process lives in less; a smaller number is a forgotten unit."""
IMPORTANCE = {"essential": ESSENTIAL, "normal": NORMAL, "heavy": HEAVY}


class Reader:
    """Annotation of a field: its value is what ``read`` makes of the input, whatever the annotated type is."""

    def __init__(self, read: Callable[[Any], object]) -> None:
        self.read = read

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        # Not PlainValidator: that one also builds a schema of the type, for serialisation, which nobody asks for.
        return core_schema.no_info_plain_validator_function(self.read)


class Before:
    """Annotation of a field: ``change`` the input first (a short form into the long one)."""

    def __init__(self, change: Callable[[Any], object]) -> None:
        self.change = change

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self.change, handler(source))


def scalar(value: object) -> Leaf:
    """The leaf itself. Raises ReadError when it is a mapping, a list or nothing."""
    if isinstance(value, Leaf):
        if value.empty:
            raise ReadError("has no value", "write one, or remove the key")
        if "\0" in value.text:
            raise ReadError("holds a NUL character, which no program can be given", "remove it")
        return value
    raise ReadError(f"expected a single value, not a {'mapping' if isinstance(value, dict) else 'list'}")


def text(value: object) -> str:
    """Any text, as written."""
    return scalar(value).text


def short_name(value: object) -> str:
    """What a node calls itself to others: at most 64 printable characters (``peers.wire.MAX_NAME``)."""
    name = text(value)
    if len(name) > 64 or not name.isprintable():
        raise ReadError("not at most 64 printable characters", "shorten it")
    return name


def flag(value: object) -> bool:
    """A YAML boolean."""
    leaf = scalar(value)
    if leaf.text in TRUE or leaf.text in FALSE:
        return leaf.text in TRUE
    raise ReadError("cannot read as true or false", "write true or false")


def whole(low: int, high: int, what: str) -> Callable[[object], int]:
    """A reader of decimal whole numbers from ``low`` to ``high``."""

    def read(value: object) -> int:
        written = scalar(value).text
        digits = written.removeprefix("-")
        if not (digits.isascii() and digits.isdigit()) or len(digits) > 19:
            raise ReadError(f"cannot read {what}: it is not a whole number", f"write a number from {low} to {high}")
        number = int(written)
        if not low <= number <= high:
            raise ReadError(
                f"cannot use {what}: it is not between {low} and {high}", f"write a number from {low} to {high}"
            )
        return number

    return read


def choice(what: str, *names: str) -> Callable[[object], str]:
    """A reader of one of ``names``; ``-`` reads as ``_``."""

    def read(value: object) -> str:
        written = scalar(value).text
        name = written.replace("-", "_")
        if name not in names:
            raise ReadError(f"unknown {what}", lambda: suggest(written, names))
        return name

    return read


def size(low: int = 0, high: int = 2**63 - 1) -> Callable[[object], int]:
    """A reader of sizes in bytes."""

    def read(value: object) -> int:
        number = read_size(scalar(value).text)
        if number < low:
            raise ReadError(f"cannot use size: it is less than {low} bytes", f"write at least {low}B")
        if number > high:
            raise ReadError(f"cannot use size: it is more than {high} bytes", f"write at most {high}B")
        return number

    return read


def duration(low: float = 0.0, high: float = math.inf) -> Callable[[object], float]:
    """A reader of durations in seconds, from ``low`` to ``high``."""

    def read(value: object) -> float:
        seconds = read_duration(scalar(value).text)
        if seconds < low:
            raise ReadError(f"cannot use duration: it is less than {low:g}s", f"write at least {low:g}s")
        if seconds > high:
            raise ReadError(f"cannot use duration: it is more than {high:g}s", f"write at most {high:g}s")
        return seconds

    return read


def memory(value: object) -> Amount:
    """Bytes or a share; as a limit or a request it must be worth a process."""
    written = scalar(value).text
    if written.endswith("%"):
        return Amount(share=read_share(written))
    number = read_size(written)
    if number < SMALLEST_MEMORY:
        fix = (
            f"did you mean '{written}MB'?"
            if written.isdigit() and number
            else "write at least 64KiB, or remove the key"
        )
        raise ReadError(f"cannot use size: no process lives in {number} bytes", fix)
    return Amount(number)


def requested_memory(value: object) -> Amount:
    """As ``memory``; 0 is allowed and guarantees nothing."""
    return Amount(0) if scalar(value).text == "0" else memory(value)


def cpu(value: object) -> Amount:
    """Milli-cores or a share."""
    written = scalar(value).text
    if written.endswith("%"):
        return Amount(share=read_share(written))
    milli = read_cores(written)
    if not milli:
        raise ReadError("cannot use cpu: 0 would never run", "write at least 1m, or remove the key")
    return Amount(milli)


def requested_cpu(value: object) -> Amount:
    """As ``cpu``; 0 is allowed and guarantees nothing."""
    return Amount(0) if scalar(value).text == "0" else cpu(value)


def attempts(value: object) -> int:
    """A number of restarts, or UNLIMITED."""
    if scalar(value).text == "unlimited":
        return UNLIMITED
    try:
        return whole(0, 1_000_000, "number of attempts")(value)
    except ReadError as error:
        raise ReadError(error.why, "write a number, or unlimited") from None


def factor(value: object) -> float:
    """Growth of the back-off, 1 (constant) to 100."""
    return _decimal(value, 1, 100, "factor")


def part(value: object) -> float:
    """0 to 1, or 0% to 100%."""
    written = scalar(value).text
    return read_share(written) if written.endswith("%") and written != "0%" else _decimal(value, 0, 1, "share")


def _decimal(value: object, low: int, high: int, what: str) -> float:
    written = scalar(value).text.removesuffix("%")
    if len(written) > 20 or not written.isascii() or not written.replace(".", "", 1).isdigit():
        raise ReadError(f"cannot read {what}: it is not a number", f"write a number from {low} to {high}")
    number = float(written)
    if not low <= number <= high:
        raise ReadError(
            f"cannot use {what}: it is not between {low} and {high}", f"write a number from {low} to {high}"
        )
    return number


def importance(value: object) -> int:
    """A name of IMPORTANCE, or 0 to 100."""
    written = scalar(value).text
    if written in IMPORTANCE:
        return IMPORTANCE[written]
    if written.isascii() and written.isdigit() and len(written) <= 3 and int(written) <= ESSENTIAL:
        return int(written)
    raise ReadError("unknown importance", lambda: suggest(written, IMPORTANCE) + " (or a number from 0 to 100)")


def signal_number(value: object) -> int:
    """15, TERM, SIGTERM, SIGRTMIN+3: signal(7)."""
    written = scalar(value).text
    name = "SIG" + written.upper().removeprefix("SIG")
    base, _, offset = name.partition("+")
    if written.isascii() and written.isdigit() and len(written) <= 2 and 1 <= int(written) <= signal.SIGRTMAX:
        return int(written)
    if base == "SIGRTMIN" and len(offset) <= 2 and (not offset or (offset.isascii() and offset.isdigit())):
        number = signal.SIGRTMIN + int(offset or 0)
        if number <= signal.SIGRTMAX:
            return number
    elif name in signal.Signals.__members__:
        return signal.Signals[name].value
    if written.isdigit():
        raise ReadError("unknown signal", "write a name such as SIGTERM, or a number from 1 to 64")
    raise ReadError("unknown signal", lambda: suggest(name, signal.Signals.__members__))


def argv(value: object) -> tuple[str, ...]:
    """A command: a list of words, or one text split as a shell splits it (nothing else of the shell works)."""
    if isinstance(value, list):
        words = tuple(
            text(word) if not (isinstance(word, Leaf) and not word.plain and not word.text) else "" for word in value
        )
    else:
        try:
            words = tuple(shlex.split(text(value)))
        except ValueError as error:
            raise ReadError(
                f"cannot split command: {str(error).lower()}", "close every quote, or write a list of words"
            ) from None
    if not words or not words[0]:
        raise ReadError("the command is empty", "name a program")
    return words


def absolute(value: object) -> str:
    """An absolute path."""
    path = text(value)
    if not path.startswith("/"):
        raise ReadError("the path is not absolute", "start it with /")
    return path


def as_list(value: object) -> object:
    """One value where a list may stand is a list of one; nothing is an empty list."""
    if isinstance(value, Leaf):
        return [] if value.empty else [value]
    return value


Text = Annotated[str, Reader(text)]
ShortName = Annotated[str, Reader(short_name)]
Flag = Annotated[bool, Reader(flag)]
Port = Annotated[int, Reader(whole(1, 65535, "port"))]
Whole = Annotated[int, Reader(whole(0, 2**31 - 1, "number"))]
Argv = Annotated[tuple[str, ...], Reader(argv)]
AbsolutePath = Annotated[str, Reader(absolute)]
Memory = Annotated[Amount, Reader(memory)]
Cpu = Annotated[Amount, Reader(cpu)]
Duration = Annotated[float, Reader(duration())]
PositiveDuration = Annotated[float, Reader(duration(0.001))]
