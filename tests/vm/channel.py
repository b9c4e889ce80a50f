"""Frames on the virtio-serial port between host and guest: one letter, a 4-byte big-endian length, a body. Pure."""

from __future__ import annotations

import struct

PORT_NAME = "edge-agent.lab"
"""The port appears in the guest as /sys/class/virtio-ports/*/name with this content."""

RUN, STDIN = b"R", b"I"
"""From the host. RUN: JSON {argv, env, cwd, merge, stdin}; STDIN: bytes for the command, empty: end of file."""

HELLO, STDOUT, STDERR, EXIT = b"H", b"O", b"E", b"X"
"""From the guest. HELLO: JSON about the guest; STDOUT, STDERR: bytes; EXIT: JSON {code}, minus the signal if killed."""

LIMIT = 1 << 20
"""Largest body, bytes."""

_HEADER = struct.Struct("!cI")


def frame(kind: bytes, body: bytes = b"") -> bytes:
    """One frame, ready to send."""
    if len(body) > LIMIT:
        raise ValueError(f"cannot send a frame of {len(body)} bytes: the limit is {LIMIT}")
    return _HEADER.pack(kind, len(body)) + body


def frames(kind: bytes, data: bytes) -> bytes:
    """``data`` of any length as one or more frames; none when it is empty."""
    return b"".join(frame(kind, data[start : start + LIMIT]) for start in range(0, len(data), LIMIT))


class Decoder:
    """Turns the stream back into frames, however it was cut."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[tuple[bytes, bytes]]:
        """The frames completed by ``data``, as (kind, body). ValueError when the stream cannot be one of frames."""
        self._rest += data
        found: list[tuple[bytes, bytes]] = []
        while len(self._rest) >= _HEADER.size:
            kind, length = _HEADER.unpack_from(self._rest)
            if length > LIMIT:
                raise ValueError(f"cannot read the channel: a frame of {length} bytes, the limit is {LIMIT}")
            end = _HEADER.size + length
            if len(self._rest) < end:
                break
            found.append((kind, bytes(self._rest[_HEADER.size : end])))
            del self._rest[:end]
        return found
