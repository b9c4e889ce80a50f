"""Challenges of a verifier that does not know the time: made without memory, each good once. Pure.

    nonce = BASE64URL(steady milliseconds, 8 bytes | random, 8 bytes | MAC, 16 bytes)

Asking for challenges costs nothing, so it cannot be flooded; only those that were answered by a valid token are
remembered, until they are too old anyway. The secret is of one process: after a restart all of them are void.
"""

from __future__ import annotations

import struct

from . import jws

LIFETIME = 120.0  # seconds in which it must be answered
MOST = 4096  # answered ones that are remembered
_HEAD = struct.Struct(">Q8s")
_MAC = 16  # bytes


class Challenges:
    """``secret``: 32 random bytes. ``now``: seconds of a clock that nobody sets."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._spent: dict[str, float] = {}  # nonce -> when it would have ended; in order of that only roughly

    def make(self, now: float, chance: bytes) -> str:
        """A new nonce, 43 characters. ``chance``: 8 random bytes."""
        head = _HEAD.pack(int(now * 1000), chance)
        return jws.encode(head + self._mac(head))

    def age(self, nonce: str, now: float) -> float | None:
        """Seconds since it was made; None when it is not one of these, too old, or has been answered."""
        try:
            data = jws.decode(nonce)
        except jws.JwsError:
            return None
        head, mac = data[: _HEAD.size], data[_HEAD.size :]
        if len(data) != _HEAD.size + _MAC or not _same(mac, self._mac(head)) or nonce in self._spent:
            return None
        age = max(0.0, now - _HEAD.unpack(head)[0] / 1000)
        return age if age < LIFETIME else None

    def spend(self, nonce: str, now: float) -> bool:
        """It has been answered. False, and the answer must be refused: too many were, and are still remembered."""
        if len(self._spent) >= MOST:
            self._spent = {each: end for each, end in self._spent.items() if end > now}
        if len(self._spent) >= MOST:
            return False
        self._spent[nonce] = now + LIFETIME
        return True

    def _mac(self, head: bytes) -> bytes:
        import nacl.bindings  # hashlib would bring OpenSSL, 3 MiB

        made: bytes = nacl.bindings.crypto_generichash_blake2b_salt_personal(head, digest_size=_MAC, key=self._secret)
        return made


def _same(one: bytes, other: bytes) -> bool:
    import nacl.bindings

    return nacl.bindings.sodium_memcmp(one, other)
