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


def test_hashes_are_told_apart_by_their_prefix() -> None:
    assert EMPTY_ROOT == root([]) == sha256(b"").digest()
    assert leaf_hash(b"L123456").hex() == "395aa064aa4c29f7010acfe3f25db9485bbd4b91897b6ad7ad547639252b4d56"
    assert node_hash(b"N123", b"N456").hex() == "aa217fe888e47007fa15edab33c2b492a722cb106c64667fc2b044444de66bbb"


@pytest.mark.parametrize("size", range(1, 9))
def test_roots_are_those_everybody_has(size: int) -> None:
    assert root([leaf_hash(entry) for entry in ENTRIES[:size]]).hex() == ROOTS[size - 1]


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


def refused(call: Callable[..., None], *arguments: object) -> bool:
    try:
        call(*arguments)
    except ProofError:
        return True
    return False


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
