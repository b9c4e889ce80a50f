"""Which blobs a bounded cache keeps: the least recently used goes first. Pure; the caller deletes what it is told to.

At every moment ``used + reserved <= limit``: room is reserved, and made, before the first byte is written.
"""

from __future__ import annotations

BLOCK = 4096
"""What a blob costs is its size in whole blocks, at least one, as on the disk. It bounds the number of blobs too."""


class TooLargeError(Exception):
    """There is no room even with everything evicted."""


def cost(size: int) -> int:
    """Bytes of the bound that a blob of ``size`` bytes takes."""
    return max(BLOCK, -(-size // BLOCK) * BLOCK)


class Lru:
    """Accounts of a cache of at most ``limit`` bytes."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = self.reserved = 0
        self._costs: dict[bytes, int] = {}  # least recently used first

    def __len__(self) -> int:
        return len(self._costs)

    def __contains__(self, key: bytes) -> bool:
        return key in self._costs

    def reserve(self, amount: int) -> list[bytes]:
        """Set ``amount`` aside for a blob about to be written; the blobs to delete first. Raises TooLargeError."""
        if self.reserved + amount > self.limit:
            raise TooLargeError
        self.reserved += amount
        return self._shrink()

    def release(self, amount: int) -> None:
        """The reserved amount is not needed any more."""
        self.reserved -= amount

    def add(self, key: bytes, amount: int) -> list[bytes]:
        """A blob is there, the most recently used from now on; the blobs to delete, which may be this one."""
        self.remove(key)
        self._costs[key] = amount
        self.used += amount
        return self._shrink()

    def touch(self, key: bytes) -> None:
        """The blob was used just now."""
        amount = self._costs.pop(key, None)
        if amount is not None:
            self._costs[key] = amount

    def remove(self, key: bytes) -> None:
        """The blob is gone."""
        self.used -= self._costs.pop(key, 0)

    def _shrink(self) -> list[bytes]:
        evicted = []
        while self.used + self.reserved > self.limit:
            key = next(iter(self._costs))
            self.remove(key)
            evicted.append(key)
        return evicted
