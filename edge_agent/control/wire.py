"""Control frames, without I/O: a 4-byte big-endian length, then one msgpack map of that many bytes.

hello     ``{"edge_agent": 1, "version": str}``, from the server at once after it has accepted
request   ``{"id": int, "verb": str, "args": map}``; the values of args are scalars: nil, bool, int, float, str, bin
response  ``{"id": int, "ok": true, "result": map}`` or ``{"id": int, "ok": false, "error": {"code", "why", "fix"}}``

Whatever the bytes, decoding raises nothing but ``WireError`` and holds at most one frame of the limit plus what was
fed. Array headers are bounded because the decoder reserves an array's announced length before it has seen its members
(https://github.com/msgpack/msgpack-python#security); the C decoder bounds nesting at 1,024 by itself. Resident.
"""

from __future__ import annotations

import struct

import msgpack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

PROTOCOL = 1

PUBLIC_LIMIT = 64 * 1024  # bytes of a request frame, its length not counted
PRIVILEGED_LIMIT = 4 * 1024 * 1024  # a plan of a thousand services fits many times over
REPLY_LIMIT = 4 * 1024 * 1024

_LENGTH = struct.Struct(">I")
_MAX_ID = 2**53  # what every language's JSON number can hold
_MAX_VERB = 32  # characters
_MAX_ARGS = 16


class WireError(ValueError):
    """The bytes are not a frame, or the frame is not what it should be. The text says why."""


def _no_extension(code: int, data: bytes) -> NoReturn:
    raise WireError(f"extension type {code} of {len(data)} bytes is not allowed")


class Decoder:
    """Frames out of a byte stream that arrives in any pieces.

    ``limit``: bytes of the largest frame. ``requests``: expect requests only, whose maps are small and arrays empty.
    Once WireError was raised the stream has lost its framing: close it.
    """

    __slots__ = ("_buffer", "_max_array", "_max_map", "limit")

    def __init__(self, limit: int, *, requests: bool = False) -> None:
        self.limit = limit
        self._max_array = 0 if requests else min(limit, 64 * 1024)
        self._max_map = _MAX_ARGS if requests else min(limit, 64 * 1024)
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[dict[Any, Any]]:
        """Every frame that is complete now. Raises WireError."""
        self.push(data)
        frames = []
        while (frame := self.pop()) is not None:
            frames.append(frame)
        return frames

    def push(self, data: bytes) -> None:
        """Keep bytes for ``pop``, which a receiver calls when it is ready for one more frame."""
        self._buffer += data

    def pop(self) -> dict[Any, Any] | None:
        """The next complete frame, or None. Raises WireError, for a length above the limit as soon as it is seen."""
        end = self._end()
        if end is None or len(self._buffer) < end:
            return None
        with memoryview(self._buffer) as view:
            body = bytes(view[_LENGTH.size : end])
        del self._buffer[:end]
        return self._unpack(body)

    @property
    def ready(self) -> bool:
        """Whether ``pop`` would return a frame or raise."""
        try:
            end = self._end()
        except WireError:
            return True
        return end is not None and len(self._buffer) >= end

    @property
    def buffered(self) -> int:
        """Bytes held."""
        return len(self._buffer)

    def _end(self) -> int | None:
        if len(self._buffer) < _LENGTH.size:
            return None
        length = int(_LENGTH.unpack_from(self._buffer)[0])
        if not 1 <= length <= self.limit:
            raise WireError(f"a frame of {length} bytes is outside 1..{self.limit}")
        return _LENGTH.size + length

    def _unpack(self, body: bytes) -> dict[Any, Any]:
        size = len(body)
        try:
            frame = msgpack.unpackb(
                body,
                raw=False,
                strict_map_key=True,
                ext_hook=_no_extension,
                max_str_len=size,
                max_bin_len=size,
                max_array_len=min(size, self._max_array),
                max_map_len=min(size, self._max_map),
                max_ext_len=0,
            )
        except WireError:
            raise
        except (ValueError, TypeError, OverflowError, RecursionError, msgpack.UnpackException) as error:
            raise WireError(f"not msgpack: {type(error).__name__}: {str(error)[:200]}") from None
        if not isinstance(frame, dict):
            raise WireError(f"a frame holds a map, not {type(frame).__name__}")
        return frame


def pack(frame: dict[str, Any], limit: int = PRIVILEGED_LIMIT) -> bytes:
    """The frame's bytes. Raises WireError when it is longer than ``limit`` or holds what msgpack cannot."""
    try:
        body = msgpack.packb(frame, use_bin_type=True)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise WireError(f"cannot be packed: {error}") from None
    if len(body) > limit:
        raise WireError(f"a frame of {len(body)} bytes is longer than {limit}")
    return _LENGTH.pack(len(body)) + bytes(body)


def hello(version: str) -> dict[str, Any]:
    """The server's first frame."""
    return {"edge_agent": PROTOCOL, "version": version}


def check_hello(frame: dict[Any, Any]) -> str:
    """The agent's version. Raises WireError for anything but a hello of our protocol."""
    protocol, version = frame.get("edge_agent"), frame.get("version")
    if type(protocol) is not int or not isinstance(version, str):
        raise WireError("the other side is not an edge-agent")
    if protocol != PROTOCOL:
        raise WireError(f"the agent ({version}) speaks control protocol {protocol}, this program {PROTOCOL}")
    return version


def request(ident: int, verb: str, args: dict[str, Any]) -> dict[str, Any]:
    """A request frame."""
    return {"id": ident, "verb": verb, "args": args}


def check_request(frame: dict[Any, Any]) -> tuple[int, str, dict[str, Any]]:
    """(id, verb, args) of a request. Raises WireError when a part is missing or of another type."""
    ident, verb, args = frame.get("id"), frame.get("verb"), frame.get("args")
    if type(ident) is not int or not 0 <= ident <= _MAX_ID:
        raise WireError("a request needs a whole number as id")
    if not isinstance(verb, str) or not 0 < len(verb) <= _MAX_VERB:
        raise WireError("a request needs a verb")
    if not isinstance(args, dict) or len(frame) != 3:
        raise WireError("a request has id, verb, args and no more; args is a map")
    for key, value in args.items():
        if not isinstance(key, str) or not (value is None or isinstance(value, bool | int | float | str | bytes)):
            raise WireError("the arguments of a request are scalars by name")
    return ident, verb, args


def result(ident: int, value: dict[str, Any]) -> dict[str, Any]:
    """A response frame: it worked."""
    return {"id": ident, "ok": True, "result": value}


def error(ident: int, code: str, why: str, fix: str = "") -> dict[str, Any]:
    """A response frame: it did not. ``code`` is for programs, ``why`` and ``fix`` for people."""
    return {"id": ident, "ok": False, "error": {"code": code, "why": why, "fix": fix}}


def check_response(frame: dict[Any, Any]) -> tuple[int, dict[str, Any] | None, tuple[str, str, str]]:
    """(id, result, ('', '', '')) or (id, None, (code, why, fix)). Raises WireError."""
    ident, ok = frame.get("id"), frame.get("ok")
    value, failure = frame.get("result"), frame.get("error")
    if type(ident) is int and ok is True and isinstance(value, dict):
        return ident, value, ("", "", "")
    if type(ident) is int and ok is False and isinstance(failure, dict):
        parts = tuple(failure.get(key) for key in ("code", "why", "fix"))
        if all(isinstance(part, str) for part in parts):
            return ident, None, (str(parts[0]), str(parts[1]), str(parts[2]))
    raise WireError("not a response")
