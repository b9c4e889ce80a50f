"""What is kept, what is pinned, and how much more there may be: the blobs and their accounts, changed together."""

from __future__ import annotations

import os

from . import lru, metrics
from .blobs import Blobs, Mark, Writer
from .errors import RefusedError
from .log import WARNING, log
from .wishes import Wish, Wishes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..peers.wire import Message

KEEP_FREE = 16 * 1024 * 1024  # bytes of the file system that a store leaves to others
NEARLY = 0.9  # of the bound of a cache; more pins than that are said


class Incoming:
    """A blob on its way in, for which there is room. ``finish`` or ``discard`` ends it."""

    def __init__(self, inventory: Inventory, size: int, writer: Writer, reserved: int) -> None:
        self.size, self.reserved = size, reserved
        self._inventory, self._writer = inventory, writer

    @property
    def written(self) -> int:
        """Bytes that are here."""
        return self._writer.size

    def write(self, data: bytes) -> None:
        """Append ``data``. After RefusedError or OSError only ``discard`` makes sense."""
        self._inventory.grow(self, self.written + len(data))
        self._writer.write(data)

    def digest(self) -> bytes:
        """The hash of what is here so far."""
        return self._writer.digest()

    def finish(self) -> bytes:
        """Make it a blob; its hash. Raises OSError."""
        key = self._writer.finish()
        self._inventory.finished(self, key)
        return key

    def discard(self) -> None:
        """Forget it."""
        self._writer.discard()
        self._inventory.dropped(self)


class Inventory:
    """Of a store, or of a cache of at most ``cache.limit`` bytes. Every method may raise OSError."""

    def __init__(self, blobs: Blobs, cache: lru.Lru | None) -> None:
        self.blobs, self.cache = blobs, cache
        self.wishes = Wishes(os.path.join(blobs.root, "wishes"))
        self.evicted = self.damaged_blobs = 0
        self._open: set[Incoming] = set()

    def open(self) -> None:
        """Prepare the directory; a cache is counted, and shrunk to its bound."""
        self.blobs.prepare()
        aside = frozenset(self.blobs.damaged())
        self.wishes.load(lambda key: key in aside or self.mark(key) is not None)
        if self.cache is not None:
            for key, size in self.blobs.by_last_use():
                self._evict(self.cache.add(key, lru.cost(size), pinned=self.wishes.get(key).pinned))
            self._say_pins()

    def close(self) -> None:
        """Let go of the files."""
        self.wishes.close()

    # -- in

    def begin(self, size: int, *, known: bool = True) -> Incoming:
        """A blob of ``size`` bytes is to come. Raises RefusedError when there is no room.

        ``known``: room is made for all of it at once. Otherwise as the bytes come: a stranger's word evicts nothing.
        """
        if self.cache is not None and not self.cache.fits(lru.cost(size)):
            raise _no_room(self.cache, size)
        if self.cache is None:
            free = self.blobs.free() - KEEP_FREE - sum(each.size - each.written for each in self._open)
            if size > free:
                raise RefusedError("no-space", f"{size} bytes do not fit into {max(0, free)} free ones", "delete blobs")
        incoming = Incoming(self, size, Writer(self.blobs), 0)
        self._open.add(incoming)
        try:
            self.grow(incoming, size if known else 0)
        except (RefusedError, OSError):
            incoming.discard()
            raise
        return incoming

    def grow(self, incoming: Incoming, size: int) -> None:
        """Make room for that many bytes of it in all. Raises RefusedError."""
        more = lru.cost(size) - incoming.reserved
        if self.cache is None or more <= 0:
            return
        try:
            evicted = self.cache.reserve(more)
        except lru.TooLargeError:
            raise _no_room(self.cache, incoming.size) from None
        incoming.reserved += more
        self._evict(evicted)

    def finished(self, incoming: Incoming, key: bytes) -> None:
        """It is a blob now."""
        self.dropped(incoming)
        if self.cache is not None:
            self._evict(self.cache.add(key, lru.cost(incoming.size), pinned=self.wishes.get(key).pinned))
        if self.wishes.get(key).pinned:
            self.blobs.make_durable(key)
        self.blobs.restored(key)

    def dropped(self, incoming: Incoming) -> None:
        """It will not be one."""
        if incoming in self._open:
            self._open.remove(incoming)
            if self.cache is not None:
                self.cache.release(incoming.reserved)

    # -- out

    def mark(self, key: bytes) -> Mark | None:
        """The blob as it is now; None: it is not here."""
        return self.blobs.mark(key)

    def read(self, key: bytes, offset: int, length: int) -> bytes:
        """A piece of a blob, which is used by that."""
        if self.cache is not None:
            self.cache.touch(key)
        return self.blobs.read(key, offset, length)

    def delete(self, key: bytes) -> bool:
        """Remove a blob and what was wished of it; False: it was not here. Raises RefusedError for a pinned one."""
        if self.wishes.get(key).pinned:
            raise RefusedError("pinned", "the blob is pinned", "unpin it first")
        self.wishes.set(key, Wish())
        if self.cache is not None:
            self.cache.remove(key)
        return self.blobs.delete(key)

    def damaged(self, key: bytes) -> None:
        """The blob's bytes are wrong: take it out of sight. What was wished of it stays."""
        self.damaged_blobs += 1
        self.blobs.set_aside(key)
        if self.cache is not None:
            self.cache.remove(key)

    def missing(self) -> Iterator[bytes]:
        """What should be here and is not: pinned or set aside."""
        for key in (*self.blobs.damaged(), *self.wishes.pinned()):
            if self.mark(key) is None:
                yield key

    # -- what is wished

    def pin(self, key: bytes) -> None:
        """Keep a blob that is here until it is unpinned. Raises RefusedError."""
        self.blobs.make_durable(key)
        self.wishes.set(key, self.wishes.get(key)._replace(pinned=True))
        if self.cache is not None:
            before = self.cache.pinned
            self.cache.pin(key)
            if before <= NEARLY * self.cache.limit:
                self._say_pins()

    def unpin(self, key: bytes) -> bool:
        """It may go again; False: it was not pinned."""
        wish = self.wishes.get(key)
        self.wishes.set(key, wish._replace(pinned=False))
        if self.cache is not None:
            self._evict(self.cache.unpin(key))
        return wish.pinned

    def _say_pins(self) -> None:
        cache = self.cache
        if cache is not None and cache.pinned > NEARLY * cache.limit:
            said = f"{cache.pinned} of the {cache.limit} bytes of the cache are pinned; fix: unpin, or raise cache_size"
            log("storage", said, WARNING)

    def _evict(self, keys: list[bytes]) -> None:
        for key in keys:
            self.evicted += 1
            try:
                self.blobs.delete(key)
            except OSError as error:  # it is counted again at the next start
                log("storage", f"cannot remove blob {key.hex()}: {error.strerror}; fix: check the disk", WARNING)

    # -- how it is

    def metrics(self) -> Sequence[metrics.Metric]:
        """For ``metrics``."""
        told = [
            metrics.gauge("storage_free_bytes", "What the file system has left.", self.blobs.free()),
            metrics.gauge("storage_wishes", "Blobs that are pinned, or of which copies are wished.", len(self.wishes)),
            metrics.counter("storage_damaged_total", "Blobs found damaged and taken out.", self.damaged_blobs),
        ]
        if self.cache is not None:
            cache = self.cache
            told += [
                metrics.gauge("storage_blobs", "Blobs in the cache.", len(cache)),
                metrics.gauge("storage_used_bytes", "What they take of its bound.", cache.used),
                metrics.gauge("storage_pinned_bytes", "What of that is pinned.", cache.pinned),
                metrics.gauge("storage_limit_bytes", "The bound of the cache.", cache.limit),
                metrics.counter("storage_evicted_total", "Blobs that gave way to others.", self.evicted),
            ]
        return told

    def details(self) -> Message:
        """For ``health``."""
        told: Message = {
            "mode": "store" if self.cache is None else "cache",
            "free": self.blobs.free(),
            "corrupt": self.damaged_blobs,
            "wishes": len(self.wishes),
        }
        if self.cache is not None:
            cache = self.cache
            told |= {"blobs": len(cache), "used": cache.used, "reserved": cache.reserved}
            told |= {"limit": cache.limit, "pinned": cache.pinned}
        return told


def _no_room(cache: lru.Lru, size: int) -> RefusedError:
    if lru.cost(size) <= cache.limit and cache.pinned:
        why = f"{size} bytes do not fit beside {cache.pinned} pinned ones into a cache of {cache.limit}"
        return RefusedError("pins-full", why, "unpin blobs, or raise cache_size")
    why = f"{size} bytes do not fit into a cache of {cache.limit}, {cache.reserved} being written"
    return RefusedError("too-large", why, "raise cache_size")
