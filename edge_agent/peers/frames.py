"""Frames of the peer protocol, version 2 (PROTOCOL.md sections 2): requests, answers, refusals, and typed fields. Pure.

Whatever bytes arrive, parsing returns a record within the bounds or raises WireError, and nothing else.
"""

from __future__ import annotations

from ..records import Record
from .wire import WireError, pack, unpack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from .wire import Message

VERSION = 2
MAX_REQUEST = 64 * 1024  # bytes
MAX_ANSWER = 320 * 1024  # bytes
MAX_INT = 2**62
MAX_ORIGIN = 255  # characters
MAX_NOTE = 2048  # bytes of a checkpoint
MAX_ENTRY = 60 * 1024  # bytes
MAX_PIECE = 256 * 1024  # bytes of a blob, or of entries, in one answer
MAX_ENTRIES = 64
MAX_PROOF = 2 * 62 + 2  # hashes
MAX_WHY = 200  # characters
HASH = 32  # bytes

CODES = frozenset(
    (
        "malformed",
        "version",
        "no-session",
        "replay",
        "unknown-op",
        "bad-request",
        "busy",
        "unknown-log",
        "not-found",
        "unavailable",
        "failed",
    )
)


class Request(Record):
    """``op`` with its arguments, the ``id``-th request of a connection."""

    id: int
    op: str
    args: Message


class Answer(Record):
    """What came of request ``id``: its result, or ``code`` and ``why`` of a refusal (``code`` '' is none)."""

    id: int
    result: Message
    code: str = ""
    why: str = ""


class UnreadableError(WireError):
    """Not a request of this version. ``id`` is its number, 0 when there is none to read; ``code`` is for the sender."""

    def __init__(self, number: int, code: str, why: str) -> None:
        super().__init__(why)
        self.id, self.code = number, code


def request(number: int, op: str, args: Message) -> bytes:
    """The bytes of a request."""
    return pack({"v": VERSION, "id": number, "op": op, **args})


def answer(number: int, result: Message) -> bytes:
    """The bytes of an answer."""
    return pack({"v": VERSION, "id": number, **result})


def refusal(number: int, code: str, why: str) -> bytes:
    """The bytes of a refusal. A code that the protocol does not have becomes ``failed``."""
    error: Message = {"code": code if code in CODES else "failed", "why": why[:MAX_WHY]}
    if code == "version":
        error["speaks"] = [VERSION]
    return pack({"v": VERSION, "id": number, "error": error})


def parse_request(data: bytes) -> Request:
    """The request in ``data``. Raises UnreadableError."""
    number = 0
    try:
        message = unpack(data, MAX_REQUEST)
        _check_version(message)
        number = whole(message, "id", 1, MAX_INT)
        op = text(message, "op", 32)
    except UnreadableError:
        raise
    except WireError as error:
        raise UnreadableError(number, "malformed", str(error)) from error
    return Request(number, op, message)


def _check_version(message: Message) -> None:
    if message.get("v") != VERSION:
        given = message.get("id")
        number = given if type(given) is int and 0 < given <= MAX_INT else 0
        raise UnreadableError(number, "version", f"this node speaks version {VERSION}")


def parse_answer(data: bytes) -> Answer:
    """The answer or refusal in ``data``. Raises WireError."""
    message = unpack(data, MAX_ANSWER)
    if message.get("v") != VERSION:
        raise WireError(f"protocol version is not {VERSION}")
    number = whole(message, "id", 0, MAX_INT)
    error = message.get("error")
    if error is None:
        return Answer(number, message)
    if not isinstance(error, dict):
        raise WireError("error is not a map")
    code = text(error, "code", 32)
    return Answer(number, {}, code if code in CODES else "failed", text(error, "why", 4 * MAX_WHY, least=0))


# -- typed and bounded fields; each raises WireError naming the key ------------------------------------------------


def whole(message: Mapping[str, Any], key: str, low: int, high: int) -> int:
    """A whole number from ``low`` to ``high``."""
    value = message.get(key)
    if type(value) is not int or not low <= value <= high:
        raise WireError(f"{key} is not a whole number from {low} to {high}")
    return value


def text(message: Mapping[str, Any], key: str, most: int, least: int = 1) -> str:
    """Printable text of ``least`` to ``most`` characters."""
    value = message.get(key)
    if not isinstance(value, str) or not least <= len(value) <= most or not value.isprintable():
        raise WireError(f"{key} is not {least} to {most} printable characters")
    return value


def binary(message: Mapping[str, Any], key: str, most: int, least: int = 0) -> bytes:
    """Bytes, ``least`` to ``most`` of them."""
    value = message.get(key)
    if not isinstance(value, bytes) or not least <= len(value) <= most:
        raise WireError(f"{key} is not {least} to {most} bytes")
    return value


def digest(message: Mapping[str, Any], key: str) -> bytes:
    """A hash."""
    return binary(message, key, HASH, HASH)


def hashes(value: object, key: str) -> list[bytes]:
    """A proof: at most MAX_PROOF hashes."""
    if not isinstance(value, list) or len(value) > MAX_PROOF:
        raise WireError(f"{key} is not a list of at most {MAX_PROOF} hashes")
    if not all(isinstance(each, bytes) and len(each) == HASH for each in value):
        raise WireError(f"{key} has something that is not a hash")
    return value


def maps(message: Mapping[str, Any], key: str, most: int) -> list[Message]:
    """At most ``most`` maps."""
    value = message.get(key)
    if not isinstance(value, list) or len(value) > most or not all(isinstance(each, dict) for each in value):
        raise WireError(f"{key} is not a list of at most {most} maps")
    return value
