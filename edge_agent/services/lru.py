"""Which blobs a bounded cache keeps: the least recently used goes first, a pinned one never. Pure.

At every moment ``used + reserved <= limit``, unless pins alone are more than that, as after a start with a smaller
limit: room is reserved, and made, before the first byte is written. The caller deletes what it is told to.

A blob takes some 140 bytes of memory (CPython 3.11), so their number is bounded too.
"""

from __future__ import annotations

BLOCK = 4096
"""What a blob costs is its size in whole blocks, at least one, as on the disk."""
ENTRY = 160  # bytes of memory that a blob may take
UNBOUNDED = 2**62


class TooLargeError(Exception):
    """There is no room even with everything evicted that may be."""


def cost(size: int) -> int:
    """Bytes of the bound that a blob of ``size`` bytes takes."""
    return max(BLOCK, -(-size // BLOCK) * BLOCK)


class Lru:
    """Accounts of a cache of at most ``limit`` bytes and ``most`` blobs. Amounts are as by ``cost``."""

    def __init__(self, limit: int, most: int = UNBOUNDED) -> None:
        self.limit, self.most = limit, most
        self.used = self.reserved = self.pinned = 0
        # In blocks: CPython keeps whole numbers up to 256 once.
        self._evictable: dict[bytes, int] = {}  # least recently used first
        self._pinned: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._evictable) + len(self._pinned)

    def __contains__(self, key: bytes) -> bool:
        return key in self._evictable or key in self._pinned

    def fits(self, amount: int) -> bool:
        """Could ``amount`` be reserved?"""
        return self.pinned + self.reserved + amount <= self.limit and len(self._pinned) < self.most

    def reserve(self, amount: int) -> list[bytes]:
        """Set ``amount`` aside for a blob about to be written; the blobs to delete first. Raises TooLargeError."""
        if not self.fits(amount):
            raise TooLargeError
        self.reserved += amount
        return self._shrink()

    def release(self, amount: int) -> None:
        """The reserved amount is not needed any more."""
        self.reserved -= amount

    def add(self, key: bytes, amount: int, *, pinned: bool = False) -> list[bytes]:
        """A blob is there, the most recently used from now on; the blobs to delete, which may be this one."""
        self.remove(key)
        (self._pinned if pinned else self._evictable)[key] = amount // BLOCK
        self.used += amount
        if pinned:
            self.pinned += amount
        return self._shrink()

    def touch(self, key: bytes) -> None:
        """The blob was used just now."""
        blocks = self._evictable.pop(key, None)
        if blocks is not None:
            self._evictable[key] = blocks

    def pin(self, key: bytes) -> None:
        """From now on it stays."""
        blocks = self._evictable.pop(key, None)
        if blocks is not None:
            self._pinned[key] = blocks
            self.pinned += blocks * BLOCK

    def unpin(self, key: bytes) -> list[bytes]:
        """It may go again, as the most recently used; the blobs to delete."""
        blocks = self._pinned.pop(key, None)
        if blocks is not None:
            self._evictable[key] = blocks
            self.pinned -= blocks * BLOCK
        return self._shrink()

    def remove(self, key: bytes) -> None:
        """The blob is gone."""
        blocks = self._pinned.pop(key, 0)
        self.pinned -= blocks * BLOCK
        self.used -= (blocks or self._evictable.pop(key, 0)) * BLOCK

    def _shrink(self) -> list[bytes]:
        evicted = []
        while self._evictable and (self.used + self.reserved > self.limit or len(self) > self.most):
            key = next(iter(self._evictable))
            self.remove(key)
            evicted.append(key)
        return evicted
