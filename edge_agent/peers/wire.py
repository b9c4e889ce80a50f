"""The bytes of every message between nodes, and between a service and its clients: one msgpack map in one part.

Pure. Whatever arrives, ``unpack`` either returns a map within the bounds below or raises ``WireError``, and nothing
else. The structure is walked before anything is built: a mebibyte of empty arrays would otherwise become 64 MiB of
lists (CPython 3.11, 64-bit).
"""

from __future__ import annotations

import struct

import msgpack

from ..records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Message = dict[str, Any]

PROTOCOL = 1
"""``v`` of every message. A receiver refuses any other version, and says which one it speaks."""

MAX_DEPTH = 6  # maps and arrays inside each other; metrics go this deep
MAX_ITEMS = 4096  # values and keys in one message
MAX_BEAT = 512  # bytes of a heartbeat or its echo
MAX_NAME = 64  # characters of a node's name
MAX_RELEASE = 32  # characters of a release
MAX_INTERVAL = 86_400.0  # seconds


class WireError(Exception):
    """The bytes are not an acceptable message; the text says why, without repeating them."""


class Beat(Record):
    """'I am here', from a light node to a full one."""

    node: str
    release: str
    sequence: int  # counted by the sender; the echo repeats it
    interval: float  # seconds until the next one; the receiver forgets the sender after three of them


class Echo(Record):
    """The answer to a Beat."""

    node: str
    release: str
    sequence: int


def pack(message: Message) -> bytes:
    """One map as msgpack."""
    packed: bytes = msgpack.packb(message, use_bin_type=True)
    return packed


def unpack(data: bytes, limit: int, most: int = MAX_ITEMS) -> Message:
    """The map in ``data``, at most ``limit`` bytes long and of at most ``most`` values and keys. Raises WireError."""
    if len(data) > limit:
        raise WireError(f"{len(data)} bytes, at most {limit} are allowed")
    _walk(data, most)
    try:
        message = msgpack.unpackb(data, raw=False, strict_map_key=True, max_ext_len=0)
    except (ValueError, TypeError, OverflowError) as error:
        raise WireError(f"not msgpack: {type(error).__name__}") from error
    if not isinstance(message, dict) or not all(isinstance(key, str) for key in message):
        raise WireError("not a map with text keys")
    return message


def pack_beat(beat: Beat | Echo) -> bytes:
    """A heartbeat or its echo as bytes, within MAX_BEAT."""
    kind = "beat" if isinstance(beat, Beat) else "echo"
    return pack({"v": PROTOCOL, "kind": kind, **dict(zip(beat._fields, beat, strict=True))})


def unpack_beat(data: bytes) -> Beat | Echo:
    """The heartbeat or echo in ``data``; unknown further keys are ignored, so the format can grow. Raises WireError."""
    message = unpack(data, MAX_BEAT)
    if message.get("v") != PROTOCOL:
        raise WireError(f"protocol version is not {PROTOCOL}")
    node = _name(message.get("node"), "node", MAX_NAME)
    release = _name(message.get("release"), "release", MAX_RELEASE)
    sequence = message.get("sequence")
    if type(sequence) is not int or not 0 <= sequence < 2**63:
        raise WireError("sequence is not a whole number from 0 to 2^63-1")
    kind = message.get("kind")
    if kind == "echo":
        return Echo(node, release, sequence)
    if kind != "beat":
        raise WireError("kind is neither beat nor echo")
    interval: Any = message.get("interval")
    if type(interval) not in (int, float) or not 0 < interval <= MAX_INTERVAL:  # a NaN compares false
        raise WireError("interval is not a number of seconds up to a day")
    return Beat(node, release, sequence, float(interval))


def _name(value: Any, field: str, limit: int) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= limit or not value.isprintable():
        raise WireError(f"{field} is not 1 to {limit} printable characters")
    return value


# -- the structure of msgpack (github.com/msgpack/msgpack/blob/master/spec.md), without building anything -----------

_FIXED = {0xC0: 0, 0xC2: 0, 0xC3: 0, 0xCA: 4, 0xCB: 8}  # nil, false, true, float 32 and 64: bytes that follow
_FIXED |= {0xCC + i: 1 << i for i in range(4)} | {0xD0 + i: 1 << i for i in range(4)}  # uint and int, 8 to 64 bits
_SIZED = {
    0xC4: ">B",
    0xC5: ">H",
    0xC6: ">I",
    0xD9: ">B",
    0xDA: ">H",
    0xDB: ">I",
}  # bin and str: format of their length
_NESTED = {
    0xDC: (">H", 1),
    0xDD: (">I", 1),
    0xDE: (">H", 2),
    0xDF: (">I", 2),
}  # array and map: format, values per entry


def _walk(data: bytes, most: int) -> None:
    """Refuse what is cut short, too deep, too many-valued, trailing, or an extension type."""
    position, items = 0, 1
    open_counts = [1]  # values still to come, per level
    while open_counts:
        if open_counts[-1] == 0:
            open_counts.pop()
            continue
        open_counts[-1] -= 1
        try:
            position, inner = _value(data, position)
        except (IndexError, struct.error) as error:
            raise WireError("cut short") from error
        if inner is not None:
            if len(open_counts) > MAX_DEPTH:
                raise WireError(f"nested deeper than {MAX_DEPTH}")
            open_counts.append(inner)
            items += inner  # counted when announced: a header of 2^32 is refused at once
            if items > most:
                raise WireError(f"more than {most} values")
    if position != len(data):
        raise WireError("trailing bytes" if position < len(data) else "cut short")


def _value(data: bytes, position: int) -> tuple[int, int | None]:
    """Where the value at ``position`` ends or its inner values begin, and their number if it can have any."""
    first = data[position]
    position += 1
    if first <= 0x7F or first >= 0xE0:  # small integers
        return position, None
    if first <= 0x8F:
        return position, 2 * (first & 0x0F)
    if first <= 0x9F:
        return position, first & 0x0F
    if first <= 0xBF:
        return position + (first & 0x1F), None
    if first in _FIXED:
        return position + _FIXED[first], None
    if first in _SIZED:
        length = struct.unpack_from(_SIZED[first], data, position)[0]
        return position + struct.calcsize(_SIZED[first]) + length, None
    if first in _NESTED:
        form, each = _NESTED[first]
        return position + struct.calcsize(form), each * struct.unpack_from(form, data, position)[0]
    raise WireError("an extension type, or the byte that msgpack never uses")
