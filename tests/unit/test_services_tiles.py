"""Tiles: names and bytes as C2SP has them; proofs from tiles are those of the whole tree."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent import tlog
from edge_agent.services.tiles import FULL, MAX_ENTRY, TileError, Tree, pack, path, split, unpack

LEAVES = [tlog.leaf_hash(b"%d" % number) for number in range(70_000)]


class Shelf:
    """Full tiles, and how many were read."""

    def __init__(self) -> None:
        self.full: dict[tuple[int, int], bytes] = {}
        self.reads = 0
        self.tree = Tree(self.read)

    def read(self, level: int, index: int) -> bytes:
        self.reads += 1
        return self.full[level, index]

    def grow(self, leaves: list[bytes]) -> None:
        for leaf in leaves:
            for tile in self.tree.add(leaf):
                self.full[tile.level, tile.index] = tile.data


@pytest.fixture(scope="module")
def large() -> Shelf:
    """The specification's example: 70,000 entries."""
    shelf = Shelf()
    shelf.grow(LEAVES)
    return shelf


@pytest.mark.parametrize(
    ("level", "index", "width", "name"),
    [
        (0, 0, 0, "tile/0/000"),
        (0, 273, 112, "tile/0/273.p/112"),
        (1, 1234067, 0, "tile/1/x001/x234/067"),
        (63, 999, 1, "tile/63/999.p/1"),
        (2, 1000, 0, "tile/2/x001/000"),
        ("entries", 70000, 255, "tile/entries/x070/000.p/255"),
    ],
)
def test_names(level: int | str, index: int, width: int, name: str) -> None:
    assert path(level, index, width) == name


def test_the_tiles_of_70000_entries_are_those_of_the_specification(large: Shelf) -> None:
    assert sorted(large.full) == [(0, index) for index in range(273)] + [(1, 0)]
    assert all(len(data) == FULL for data in large.full.values())
    partial = [(level, index, len(data) // 32) for level, index, data in large.tree.partial()]
    assert partial == [(0, 273, 112), (1, 1, 17), (2, 0, 1)]
    assert large.full[1, 0][:32] == tlog.root(LEAVES[:256])
    assert next(data for level, _, data in large.tree.partial() if level == 2) == tlog.root(LEAVES[:65536])


def test_of_256_entries_there_is_a_partial_tile_of_width_1_above() -> None:
    shelf = Shelf()
    shelf.grow(LEAVES[:256])
    assert [(level, index, len(data)) for level, index, data in shelf.tree.partial()] == [(1, 0, 32)]


@pytest.mark.parametrize("size", [0, 1, 2, 255, 256, 257, 511, 512, 1000, 65_535, 65_536, 65_537, 70_000])
def test_roots(large: Shelf, size: int) -> None:
    assert large.tree.root(size) == tlog.root(LEAVES[:size])


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_proofs_are_those_of_the_whole_tree_and_read_little(large: Shelf, data: st.DataObject) -> None:
    size = data.draw(st.one_of(st.integers(1, 1000), st.integers(1, 70_000), st.sampled_from([256, 65_536, 70_000])))
    index = data.draw(st.integers(0, size - 1))
    before = large.reads
    proof = large.tree.inclusion(index, size)
    assert large.reads - before <= 2 * size.bit_length() + 2
    root = large.tree.root(size)
    tlog.verify_inclusion(LEAVES[index], index, size, proof, root)
    old = data.draw(st.integers(1, size))
    tlog.verify_consistency(old, size, large.tree.consistency(old, size), large.tree.root(old), root)
    if size <= 1000:
        assert proof == tlog.inclusion_proof(LEAVES[:size], index)
        assert large.tree.consistency(old, size) == tlog.consistency_proof(LEAVES[:size], old)


@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 65_536, 65_793, 70_000])
def test_a_tree_is_restored_from_its_partial_tiles_alone(large: Shelf, size: int) -> None:
    first = Shelf()
    first.grow(LEAVES[:size])
    kept = {(level, index, len(data) // 32): data for level, index, data in first.tree.partial()}
    again = Tree(first.read)
    again.restore(size, lambda *which: kept.pop(which))
    assert not kept
    assert again.root() == tlog.root(LEAVES[:size])
    for leaf in LEAVES[size : size + 300]:
        for tile in again.add(leaf):
            first.full[tile.level, tile.index] = tile.data
    assert again.root() == tlog.root(LEAVES[: size + 300])


def test_a_torn_tile_is_noticed() -> None:
    shelf = Shelf()
    shelf.grow(LEAVES[:300])
    shelf.full[0, 0] = shelf.full[0, 0][:-1]
    with pytest.raises(TileError):
        shelf.tree.inclusion(3, 300)
    with pytest.raises(TileError):
        shelf.tree.restore(300, lambda *_which: b"short")


def test_there_is_no_proof_of_what_is_not_there(large: Shelf) -> None:
    calls: list[Callable[[], object]] = [
        lambda: large.tree.inclusion(5, 5),
        lambda: large.tree.inclusion(0, 70_001),
        lambda: large.tree.inclusion(-1, 5),
        lambda: large.tree.consistency(0, 5),
        lambda: large.tree.consistency(6, 5),
        lambda: large.tree.consistency(1, 70_001),
    ]
    for call in calls:
        with pytest.raises(tlog.ProofError):
            call()


@given(st.lists(st.binary(max_size=300), max_size=20))
def test_entries_come_back(entries: list[bytes]) -> None:
    assert list(unpack(b"".join(map(pack, entries)))) == entries


def test_the_bytes_of_a_bundle() -> None:
    assert pack(b"abc") + pack(b"") == b"\x00\x03abc\x00\x00"
    assert pack(bytes(MAX_ENTRY))[:2] == b"\xf0\x00"
    with pytest.raises(TileError):
        pack(bytes(MAX_ENTRY + 1))


@pytest.mark.parametrize("bad", [b"\x00", b"\x00\x01", b"\x00\x03ab", b"\x00\x00\x00", b"\xff\xff"])
def test_a_bundle_cut_short_is_refused(bad: bytes) -> None:
    with pytest.raises(TileError):
        list(unpack(bad))


@pytest.mark.parametrize(("data", "width"), [(bytes(31), 1), (bytes(33), 1), (b"", 1), (bytes(32), 2)])
def test_a_tile_of_another_width_is_refused(data: bytes, width: int) -> None:
    with pytest.raises(TileError):
        split(data, width)
