"""The log's trees against the RFC's own definitions, the vectors of Certificate Transparency, and liars."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256

import hypothesis.strategies as st
import pytest
from hypothesis import given

from edge_agent.tlog import (
    EMPTY_ROOT,
    ProofError,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    node_hash,
    root,
    verify_consistency,
    verify_inclusion,
)

ENTRIES = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
"""Of the first 1 to 8 entries: the vectors that implementations of RFC 6962 share."""

INCLUSION: list[tuple[int, int, list[str]]] = [
    (0, 1, []),
    (
        0,
        8,
        [
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ],
    ),
    (
        5,
        8,
        [
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ],
    ),
    (2, 3, ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"]),
    (
        1,
        5,
        [
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        ],
    ),
]
"""Leaf, size, proof: transparency-dev/merkle, proof/verify_test.go and testdata/inclusion; google's CT before it."""
CONSISTENCY: list[tuple[int, int, list[str]]] = [
    (1, 1, []),
    (1, 8, INCLUSION[1][2]),
    (
        6,
        8,
        [
            "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ],
    ),
    (
        2,
        5,
        [
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        ],
    ),
    (
        6,
        7,
        [
            "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
            "b08693ec2e721597130641e8211e7eedccb4c26413963eee6c1e2ed16ffb1a5f",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ],
    ),
]
"""Sizes and proof: the same, testdata/consistency."""
SOME = bytes.fromhex("abacaba000000000000000000000000000000000000000000060061e00123456")

LEAVES = [leaf_hash(bytes([number])) for number in range(80)]
Hashes = list[bytes]


# -- the definitions of RFC 9162, sections 2.1.1, 2.1.3.1 and 2.1.4.1, word for word ---------------------------------


def split(size: int) -> int:
    k = 1
    while k * 2 < size:
        k *= 2
    return k


def mth(leaves: Hashes) -> bytes:
    if len(leaves) == 1:
        return leaves[0]
    k = split(len(leaves))
    return node_hash(mth(leaves[:k]), mth(leaves[k:]))


def path(m: int, leaves: Hashes) -> Hashes:
    if len(leaves) == 1:
        return []
    k = split(len(leaves))
    if m < k:
        return [*path(m, leaves[:k]), mth(leaves[k:])]
    return [*path(m - k, leaves[k:]), mth(leaves[:k])]


def subproof(m: int, leaves: Hashes, *, known: bool) -> Hashes:
    if m == len(leaves):
        return [] if known else [mth(leaves)]
    k = split(len(leaves))
    if m <= k:
        return [*subproof(m, leaves[:k], known=known), mth(leaves[k:])]
    return [*subproof(m - k, leaves[k:], known=False), mth(leaves[:k])]


def refused(call: Callable[..., None], *arguments: object) -> bool:
    try:
        call(*arguments)
    except ProofError:
        return True
    return False


def test_hashes_are_told_apart_by_their_prefix() -> None:
    assert EMPTY_ROOT == root([]) == sha256(b"").digest()
    assert leaf_hash(b"L123456").hex() == "395aa064aa4c29f7010acfe3f25db9485bbd4b91897b6ad7ad547639252b4d56"
    assert node_hash(b"N123", b"N456").hex() == "aa217fe888e47007fa15edab33c2b492a722cb106c64667fc2b044444de66bbb"


@pytest.mark.parametrize("size", range(1, 9))
def test_roots_are_those_everybody_has(size: int) -> None:
    assert root([leaf_hash(entry) for entry in ENTRIES[:size]]).hex() == ROOTS[size - 1]


# -- published proofs, and each wrong one that is published with them ------------------------------------------------


def flipped(proof: Hashes, at: int, bit: int) -> Hashes:
    return [*proof[:at], bytes([proof[at][0] ^ bit]) + proof[at][1:], *proof[at + 1 :]]


@pytest.mark.parametrize(("index", "size", "texts"), INCLUSION)
def test_published_proofs_of_inclusion(index: int, size: int, texts: list[str]) -> None:
    proof, whole, leaf = [bytes.fromhex(text) for text in texts], bytes.fromhex(ROOTS[size - 1]), ENTRIES[index]
    good = (leaf_hash(leaf), index, size, proof, whole)
    verify_inclusion(*good)
    assert inclusion_proof([leaf_hash(entry) for entry in ENTRIES[:size]], index) == proof
    wrong: list[tuple[object, ...]] = [
        *((good[0], other, *good[2:]) for other in ((index - 1) % 2**64, index - 1, index + 1, index ^ 2)),
        *((*good[:2], other, *good[3:]) for other in (size * 2, size // 2)),
        (b"WrongLeaf", *good[1:]),
        *((*good[:4], other) for other in (EMPTY_ROOT, SOME)),
        *((*good[:3], [*proof, other], whole) for other in (b"", whole)),
        *((*good[:3], [other, *proof], whole) for other in (b"", whole)),
        *((*good[:3], flipped(proof, at, 8), whole) for at in range(len(proof))),
    ]
    if proof:
        wrong.append((*good[:3], proof[:-1], whole))
    if len(proof) > 1:
        wrong.append((*good[:3], [proof[0], SOME, *proof[1:]], whole))
    assert [each for each in wrong if not refused(verify_inclusion, *each)] == []


@pytest.mark.parametrize(("first", "second", "texts"), CONSISTENCY)
def test_published_proofs_of_consistency(first: int, second: int, texts: list[str]) -> None:
    proof = [bytes.fromhex(text) for text in texts]
    root1, root2 = bytes.fromhex(ROOTS[first - 1]), bytes.fromhex(ROOTS[second - 1])
    verify_consistency(first, second, proof, root1, root2)
    assert consistency_proof([leaf_hash(entry) for entry in ENTRIES[:second]], first) == proof
    if not proof:
        return
    wrong: list[tuple[object, ...]] = [
        *((other, second, proof, root1, root2) for other in (first - 1, first + 1, first ^ 2)),
        *((first, other, proof, root1, root2) for other in (second * 2, second // 2)),
        (first, second, proof, b"WrongRoot", root2),
        (first, second, proof, root1, b"WrongRoot"),
        (first, second, proof, root2, root1),
        *((first, second, [*proof, other], root1, root2) for other in (b"", root1, root2)),
        *((first, second, [other, *proof], root1, root2) for other in (b"", root1, root2, proof[0])),
        *((first, second, given, root1, root2) for given in ([], proof[:-1])),
        *((first, second, flipped(proof, at, 16), root1, root2) for at in range(len(proof))),
    ]
    assert [each for each in wrong if not refused(verify_consistency, *each)] == []


@pytest.mark.parametrize(("index", "size"), [(0, 0), (0, 1), (1, 0), (2, 1)])
def test_published_nonsense_of_inclusion(index: int, size: int) -> None:
    for leaf, whole in ((SOME, b""), (b"", EMPTY_ROOT), (SOME, EMPTY_ROOT), (b"", b"")):
        assert refused(verify_inclusion, leaf, index, size, [], whole)


CARE1, CARE2 = b"don't care 1", b"don't care 2"


@pytest.mark.parametrize(
    ("first", "second", "root1", "root2", "proof"),
    [
        (0, 0, CARE1, CARE2, []),
        (1, 1, CARE1, CARE2, []),
        (0, 0, CARE1, CARE1, []),
        (0, 1, CARE1, CARE2, []),
        (1, 0, CARE1, CARE2, []),
        (2, 1, CARE1, CARE2, []),
        (1, 2, CARE1, CARE2, []),
        (0, 0, EMPTY_ROOT, CARE2, []),
        (1, 1, EMPTY_ROOT, CARE2, []),
        (0, 0, EMPTY_ROOT, EMPTY_ROOT, [EMPTY_ROOT]),
        (1, 1, EMPTY_ROOT, EMPTY_ROOT, [EMPTY_ROOT]),
        (0, 1, EMPTY_ROOT, CARE2, []),
        (0, 1, EMPTY_ROOT, EMPTY_ROOT, [EMPTY_ROOT]),
    ],
)
def test_published_nonsense_of_consistency(first: int, second: int, root1: bytes, root2: bytes, proof: Hashes) -> None:
    assert refused(verify_consistency, first, second, proof, root1, root2)


def test_the_same_tree_is_consistent_with_itself() -> None:
    verify_consistency(1, 1, [], CARE2, CARE2)
    verify_consistency(0, 0, [], EMPTY_ROOT, EMPTY_ROOT)


def test_the_largest_tree_there_can_be() -> None:
    size = 2**64 - 1
    proof = [LEAVES[number] for number in range(64)]
    node = leaf_hash(b"first")
    whole = node
    for sibling in proof:
        whole = node_hash(whole, sibling)
    verify_inclusion(node, 0, size, proof, whole)
    assert refused(verify_inclusion, node, 0, size + 1, proof, whole)


@pytest.mark.parametrize("size", [*range(1, 34), 63, 64, 65, 80])
def test_every_proof_is_the_definition_s_and_is_believed(size: int) -> None:
    leaves = LEAVES[:size]
    whole = root(leaves)
    assert whole == mth(leaves)
    for index in range(size):
        proof = inclusion_proof(leaves, index)
        assert proof == path(index, leaves)
        verify_inclusion(leaves[index], index, size, proof, whole)
    for old in range(1, size + 1):
        proof = consistency_proof(leaves, old)
        assert proof == subproof(old, leaves, known=True)
        verify_consistency(old, size, proof, root(leaves[:old]), whole)
    verify_consistency(0, size, [], EMPTY_ROOT, whole)


@given(st.data())
def test_no_other_proof_of_inclusion_is_believed(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 70))
    index = data.draw(st.integers(0, size - 1))
    leaves = LEAVES[:size]
    good = (leaves[index], index, size, inclusion_proof(leaves, index), root(leaves))
    bad = list(good)
    what = data.draw(st.sampled_from(("leaf", "index", "size", "bit", "drop", "add", "swap", "root")))
    proof = list(good[3])
    if what == "leaf":
        bad[0] = LEAVES[79]
    elif what == "index":
        bad[1] = data.draw(st.integers(-1, size).filter(lambda other: other != index))
    elif what == "size":
        # Some sizes have the same path; what such a size says of the tree is then true as far as the leaf is concerned.
        other = data.draw(st.integers(-1, 200).filter(lambda other: other != size))
        if other > index and len(inclusion_proof([b"" * 32] * other, index)) == len(proof):
            return
        bad[2] = other
    elif what == "root":
        bad[4] = LEAVES[0] if size > 1 else LEAVES[1]
    elif what == "add":
        proof.insert(data.draw(st.integers(0, len(proof))), LEAVES[78])
    elif not proof:
        return
    elif what == "bit":
        at = data.draw(st.integers(0, len(proof) - 1))
        proof[at] = bytes([proof[at][0] ^ 1]) + proof[at][1:]
    elif what == "drop":
        del proof[data.draw(st.integers(0, len(proof) - 1))]
    elif len(proof) > 1:
        proof[0], proof[1] = proof[1], proof[0]
    else:
        return
    bad[3] = proof
    assert refused(verify_inclusion, *bad)


@given(st.data())
def test_no_other_proof_of_consistency_is_believed(data: st.DataObject) -> None:
    new = data.draw(st.integers(2, 70))
    old = data.draw(st.integers(1, new - 1))
    proof = consistency_proof(LEAVES[:new], old)
    roots = [root(LEAVES[:old]), root(LEAVES[:new])]
    what = data.draw(st.sampled_from(("bit", "drop", "add", "first", "second", "shrunk", "forked")))
    if what == "bit":
        at = data.draw(st.integers(0, len(proof) - 1))
        proof[at] = bytes([proof[at][0] ^ 1]) + proof[at][1:]
    elif what == "drop":
        del proof[data.draw(st.integers(0, len(proof) - 1))]
    elif what == "add":
        proof.insert(data.draw(st.integers(0, len(proof))), LEAVES[78])
    elif what == "first":
        roots[0] = LEAVES[79]
    elif what == "second":
        roots[1] = LEAVES[79]
    elif what == "shrunk":
        assert refused(verify_consistency, new, old, proof, roots[1], roots[0])
        return
    else:  # another history of the same length: every leaf from ``at`` on is another
        at = data.draw(st.integers(0, old - 1))
        other = LEAVES[:at] + [leaf_hash(b"other%d" % number) for number in range(at, new)]
        proof, roots[1] = consistency_proof(other, old), root(other)
    assert refused(verify_consistency, old, new, proof, *roots)


def test_a_fork_is_called_one() -> None:
    with pytest.raises(ProofError, match="forked"):
        verify_consistency(3, 3, [], root(LEAVES[:3]), LEAVES[0])
    verify_consistency(3, 3, [], root(LEAVES[:3]), root(LEAVES[:3]))


HASH = LEAVES[0]
NONSENSE: tuple[object, ...] = (None, "x", b"x", -1, True, 1 << 70, 1.5, [b"short"], ["x"], [HASH] * 1000, {})


@pytest.mark.parametrize("value", NONSENSE, ids=lambda value: f"{value!r:.20}")
@pytest.mark.parametrize("place", range(5))
def test_nonsense_is_refused_with_the_one_error(value: object, place: int) -> None:
    inclusion: list[object] = [HASH, 3, 9, inclusion_proof(LEAVES[:9], 3), root(LEAVES[:9])]
    inclusion[place] = value
    assert refused(verify_inclusion, *inclusion)
    consistency: list[object] = [3, 9, consistency_proof(LEAVES[:9], 3), root(LEAVES[:3]), root(LEAVES[:9])]
    consistency[place] = value
    assert refused(verify_consistency, *consistency)


@pytest.mark.parametrize("index", [-1, 5, 6])
def test_there_is_no_proof_for_what_is_not_there(index: int) -> None:
    with pytest.raises(ProofError, match="5 leaves"):
        inclusion_proof(LEAVES[:5], index)


@pytest.mark.parametrize("size", [-1, 0, 6])
def test_there_is_no_proof_of_another_beginning(size: int) -> None:
    with pytest.raises(ProofError, match="cannot prove consistency"):
        consistency_proof(LEAVES[:5], size)
