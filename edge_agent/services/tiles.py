"""A log's tree and entries as C2SP tlog-tiles: the names and bytes of its files, and proofs from them. Pure.

    tile/LEVEL/INDEX            256 hashes: at level 0 of leaves, above of full tiles of the level below
    tile/LEVEL/INDEX.p/WIDTH    the first WIDTH of a tile that is not full yet
    tile/entries/INDEX          256 entries, each after its length, two bytes big-endian; .p/WIDTH as above

INDEX is written in groups of three digits, all but the last after an x: 1234067 is x001/x234/067. Of the hashes only
the tiles that are not full are in memory, one a level: at most 60 KiB of hashes for any log. A proof reads two or three
full ones for each level.
"""

from __future__ import annotations

from .. import tlog

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WIDTH = 256
FULL = WIDTH * tlog.SIZE  # bytes of a full tile
ENTRIES = "entries"  # the level of the files with entries
MAX_ENTRY = 60 * 1024  # bytes; the format's two bytes would allow 65,535
_PREFIX = 2  # bytes of an entry's length


class TileError(ValueError):
    """The bytes are not those of a tile or a bundle of entries. The text says why."""


class Tile:
    """A tile that has just become full."""

    __slots__ = ("data", "index", "level")

    def __init__(self, level: int, index: int, data: bytes) -> None:
        self.level, self.index, self.data = level, index, data


def path(level: int | str, index: int, width: int = 0) -> str:
    """The name of a tile, relative to the log's own; ``width``: of a partial one, 0 of a full one."""
    groups = [f"{index % 1000:03}"]
    while index := index // 1000:
        groups.insert(0, f"x{index % 1000:03}")
    return "/".join(("tile", str(level), *groups)) + (f".p/{width}" if width else "")


def pack(entry: bytes) -> bytes:
    """One entry as it stands in a bundle. Raises TileError."""
    if len(entry) > MAX_ENTRY:
        raise TileError(f"an entry is at most {MAX_ENTRY} bytes")
    return len(entry).to_bytes(_PREFIX, "big") + entry


def unpack(data: bytes) -> Iterator[bytes]:
    """The entries of a bundle. Raises TileError where one is cut short."""
    position = 0
    while position < len(data):
        start = position + _PREFIX
        position = start + int.from_bytes(data[position:start], "big")
        if position > len(data) or start > len(data):
            raise TileError("an entry is cut short")
        yield data[start:position]


def split(data: bytes, width: int) -> list[bytes]:
    """The hashes of a tile that has ``width`` of them. Raises TileError."""
    if len(data) != width * tlog.SIZE:
        raise TileError(f"a tile of {width} hashes has {len(data)} bytes")
    return [data[start : start + tlog.SIZE] for start in range(0, len(data), tlog.SIZE)]


class Tree:
    """The tree of a log that grows. ``read(level, index)`` gives the bytes of a full tile; it may raise OSError."""

    def __init__(self, read: Callable[[int, int], bytes]) -> None:
        self.size = 0
        self._read = read
        self._open: list[list[bytes]] = []  # by level: hashes of the tile that is not full yet

    def restore(self, size: int, read: Callable[[int, int, int], bytes]) -> None:
        """Become the tree of ``size`` leaves; ``read(level, index, width)``: its partial tiles. Raises TileError."""
        self._open = []
        level = 0
        while size >> 8 * level:
            width = (size >> 8 * level) % WIDTH
            self._open.append(split(read(level, size >> 8 * (level + 1), width), width) if width else [])
            level += 1
        self.size = size

    def add(self, leaf: bytes) -> list[Tile]:
        """Append a leaf hash; the tiles that are full by that, the lowest first, to be kept for ``read``."""
        full: list[Tile] = []
        self.size += 1
        level, node = 0, leaf
        while True:
            if level == len(self._open):
                self._open.append([])
            tile = self._open[level]
            tile.append(node)
            if len(tile) < WIDTH:
                return full
            full.append(Tile(level, (self.size >> 8 * (level + 1)) - 1, b"".join(tile)))
            node = tlog.root(tile)
            self._open[level] = []
            level += 1

    def partial(self) -> Iterator[tuple[int, int, bytes]]:
        """Level, index and bytes of the tiles that are not full yet, as far as they have hashes."""
        for level, tile in enumerate(self._open):
            if tile:
                yield level, self.size >> 8 * (level + 1), b"".join(tile)

    def leaf(self, index: int) -> bytes:
        """The hash of a leaf that is there."""
        return self._node(0, index)

    def root(self, size: int | None = None) -> bytes:
        """The root of the first ``size`` leaves; None: of all."""
        return self._subtree(0, self.size if size is None else size)

    def inclusion(self, index: int, size: int) -> list[bytes]:
        """RFC 9162 section 2.1.3.1, of the first ``size`` leaves. Raises ProofError."""
        return tlog.prove_inclusion(index, self._grown(size), self._subtree)

    def consistency(self, size1: int, size2: int) -> list[bytes]:
        """RFC 9162 section 2.1.4.1, between two earlier sizes. Raises ProofError."""
        return tlog.prove_consistency(size1, self._grown(size2), self._subtree)

    def _grown(self, size: int) -> int:
        if size > self.size:
            raise tlog.ProofError(f"the log has only {self.size} entries, not {size}")
        return size

    def _subtree(self, low: int, high: int) -> bytes:
        """MTH(D[low:high]); such as a proof needs it, ``low`` is a multiple of the power of two that holds the rest."""
        if low == high:
            return tlog.EMPTY_ROOT
        complete = []  # subtrees of powers of two, the largest first
        while low < high:
            height = (high - low).bit_length() - 1
            complete.append(self._node(height, low >> height))
            low += 1 << height
        node = complete.pop()
        while complete:
            node = tlog.node_hash(complete.pop(), node)
        return node

    def _node(self, height: int, index: int) -> bytes:
        """The root of the complete subtree of 2**height leaves with this index among its like."""
        level, inside = divmod(height, 8)
        tile, offset = divmod(index << inside, WIDTH)
        hashes = self._hashes(level, tile, offset, offset + (1 << inside))
        return hashes[0] if inside == 0 else tlog.root(hashes)

    def _hashes(self, level: int, tile: int, start: int, end: int) -> list[bytes]:
        if tile == self.size >> 8 * (level + 1):
            return self._open[level][start:end]
        data = self._read(level, tile)
        if len(data) != FULL:
            raise TileError(f"{path(level, tile)} has {len(data)} bytes")
        return split(data[start * tlog.SIZE : end * tlog.SIZE], end - start)
