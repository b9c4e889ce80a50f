"""Transparency log trees: RFC 9162 section 2.1, over SHA-256. Pure; bytes in, bytes out.

A tree is given by its leaf hashes, in order: entries stay where they are kept. Proofs are lists of node hashes, nearest
to the leaf first, exactly as the RFC computes them, so any implementation of it verifies them. Verification believes
nothing it is given: whatever is wrong, the only error is ProofError.
"""

from __future__ import annotations

from .digests import sha256

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

SIZE = 32
"""Bytes of a hash."""

EMPTY_ROOT = sha256().digest()
"""Root of the tree without leaves."""

_LONGEST = (1 << 64) - 1
"""Leaves, the uint64 of the RFC's tree_size."""


class ProofError(ValueError):
    """The proof does not prove it, or there can be none for what was asked. The text says why."""


def leaf_hash(entry: bytes) -> bytes:
    """Hash of one entry: SHA-256(0x00 || entry), 32 bytes."""
    return sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash of an inner node: SHA-256(0x01 || left || right), 32 bytes."""
    return sha256(b"\x01" + left + right).digest()


def root(leaves: Sequence[bytes]) -> bytes:
    """Root hash of the tree with these leaf hashes, MTH of section 2.1.1, 32 bytes."""
    stack: list[tuple[int, bytes]] = []  # (height, hash) of complete subtrees, the largest first
    for leaf in leaves:
        height, node = 0, leaf
        while stack and stack[-1][0] == height:
            node = node_hash(stack.pop()[1], node)
            height += 1
        stack.append((height, node))
    if not stack:
        return EMPTY_ROOT
    node = stack.pop()[1]
    while stack:
        node = node_hash(stack.pop()[1], node)
    return node


def inclusion_proof(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """That the tree of these leaf hashes has this one at ``index``: PATH of section 2.1.3.1. Raises ProofError."""
    return prove_inclusion(index, len(leaves), lambda low, high: root(leaves[low:high]))


def consistency_proof(leaves: Sequence[bytes], size: int) -> list[bytes]:
    """That the tree of the first ``size`` leaves is the beginning of this one: PROOF of section 2.1.4.1.

    [] for the same tree. Raises ProofError for an empty or larger old tree: there is nothing to prove.
    """
    return prove_consistency(size, len(leaves), lambda low, high: root(leaves[low:high]))


def prove_inclusion(index: int, size: int, subtree: Callable[[int, int], bytes]) -> list[bytes]:
    """As ``inclusion_proof``, of a tree of ``size`` leaves that is elsewhere: ``subtree(low, high)`` is the root of
    leaves low to high - 1, MTH(D[low:high]). Raises ProofError.
    """
    _check_size(size)
    if not _is_whole(index) or not 0 <= index < size:
        raise ProofError(f"cannot prove inclusion of leaf {index!r:.40}: the tree has {size} leaves")
    proof: list[bytes] = []
    low, high = 0, size
    while high - low > 1:
        middle = low + _split(high - low)
        if index < middle:
            proof.append(subtree(middle, high))
            high = middle
        else:
            proof.append(subtree(low, middle))
            low = middle
    proof.reverse()
    return proof


def prove_consistency(size1: int, size2: int, subtree: Callable[[int, int], bytes]) -> list[bytes]:
    """As ``consistency_proof``, of a tree that is elsewhere; ``subtree`` as for ``prove_inclusion``."""
    _check_size(size2)
    if not _is_whole(size1) or not 0 < size1 <= size2:
        raise ProofError(f"cannot prove consistency of {size1!r:.40} leaves with {size2}")
    proof: list[bytes] = []
    low, high, left_out = 0, size2, True
    while size1 != high:
        middle = low + _split(high - low)
        if size1 <= middle:
            proof.append(subtree(middle, high))
            high = middle
        else:
            proof.append(subtree(low, middle))
            low, left_out = middle, False
    if not left_out:
        proof.append(subtree(low, high))
    proof.reverse()
    return proof


def verify_inclusion(leaf_hash: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """That ``leaf_hash`` is leaf ``index`` of the tree of ``size`` leaves with this root: section 2.1.3.2.

    Returns when it is proved, raises ProofError when it is not.
    """
    _check_size(size)
    if not _is_whole(index) or not 0 <= index < size:
        raise ProofError(f"leaf {index!r:.40} cannot be in a tree of {size} leaves")
    path = _hashes(proof, size)
    node, wanted = _hashes([leaf_hash, root], size)
    for sibling, left in _way_up(index, size - 1, path):
        node = node_hash(sibling, node) if left else node_hash(node, sibling)
    if node != wanted:
        raise ProofError("the proof leads to another root")


def verify_consistency(size1: int, size2: int, proof: Sequence[bytes], root1: bytes, root2: bytes) -> None:
    """That the tree (size1, root1) is the beginning of the tree (size2, root2): section 2.1.4.2.

    An empty first tree is the beginning of every one, with an empty proof. Two trees of the same size are the same one
    when their roots are, whatever these are: the vectors of transparency-dev have some that are no SHA-256. Returns
    when it is proved, raises ProofError when it is not.
    """
    _check_size(size1)
    _check_size(size2)
    if size1 > size2:
        raise ProofError(f"a log of {size1} leaves cannot have shrunk to {size2}")
    nodes = _hashes(proof, size2)
    if size1 != size2 or not _is_bytes(root1) or root1 != root2:
        _hashes([root1, root2], size2)
    if size1 in (0, size2):
        _verify_trivial(size1, size2, nodes, root1, root2)
        return
    if size1 & (size1 - 1) == 0:
        nodes = [root1, *nodes]
    if not nodes:
        raise ProofError("the proof is empty")
    position, last = size1 - 1, size2 - 1
    while position & 1:
        position, last = position >> 1, last >> 1
    old = new = nodes[0]
    for sibling, left in _way_up(position, last, nodes[1:]):
        if left:
            old = node_hash(sibling, old)
        new = node_hash(sibling, new) if left else node_hash(new, sibling)
    if old != root1:
        raise ProofError("the proof leads to another first root")
    if new != root2:
        raise ProofError("the proof leads to another second root")


def _verify_trivial(size1: int, size2: int, proof: list[bytes], root1: bytes, root2: bytes) -> None:
    if proof:
        raise ProofError("the proof has hashes where none are needed")
    if size1 == 0 and root1 != EMPTY_ROOT:
        raise ProofError("the empty tree has another root")
    if size1 == size2 and root1 != root2:
        raise ProofError(f"two roots of the same {size1} leaves: the log has forked")


def _way_up(position: int, last: int, proof: list[bytes]) -> Iterator[tuple[bytes, bool]]:
    """Each hash of the proof, and whether it stands to the left of the way from a node to the root.

    ``position``: of the node in its level; ``last``: of the last one there. Raises ProofError when the way is longer or
    shorter than the proof.
    """
    for sibling in proof:
        if last == 0:
            raise ProofError("the proof has more hashes than the way to the root")
        left = position & 1 == 1 or position == last
        while left and position and not position & 1:  # a node without a sibling rises unchanged
            position, last = position >> 1, last >> 1
        yield sibling, left
        position, last = position >> 1, last >> 1
    if last != 0:
        raise ProofError("the proof has fewer hashes than the way to the root")


def _split(size: int) -> int:
    """The largest power of two below ``size``, which is at least 2."""
    return 1 << (size - 1).bit_length() - 1


def _is_bytes(value: object) -> bool:
    return isinstance(value, bytes)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check_size(size: int) -> None:
    if not _is_whole(size) or not 0 <= size <= _LONGEST:
        raise ProofError(f"{size!r:.40} is not the size of a tree")


def _hashes(given: object, size: int) -> list[bytes]:
    """Hashes, once they are known to be some, and no more than two a level: enough for any proof in such a tree."""
    if not isinstance(given, list | tuple):
        raise ProofError(f"a proof is a list of hashes, not {type(given).__name__}")
    if len(given) > 2 * size.bit_length() + 2:
        raise ProofError(f"{len(given)} hashes are more than any proof has in a tree of {size} leaves")
    for one in given:
        if not isinstance(one, bytes) or len(one) != SIZE:
            raise ProofError(f"a hash is {SIZE} bytes, not {one!r:.20}")
    return list(given)
