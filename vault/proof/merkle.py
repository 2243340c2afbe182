"""RFC 6962 Merkle trees: hashing, the growing edge, inclusion and consistency proofs.

Proofs are made from complete subtrees only, which never change once they exist; so the
functions take a reader of stored hashes and work alike over a database, tiles or memory.

Source: RFC 6962 section 2.1 (trees and proofs), RFC 9162 sections 2.1.3.2 and 2.1.4.2 (verification).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from vault.proof.errors import InvalidProof

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()

HashAt: TypeAlias = Callable[[int, int], bytes]
"""`hash_at(level, index)`: hash of the complete subtree over leaves [index * 2**level, (index + 1) * 2**level)."""


def leaf_hash(entry: bytes) -> bytes:
    """Return the hash of one log entry as a leaf."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of an interior node."""
    return hashlib.sha256(b"\x01" + left + right).digest()


@dataclass(frozen=True)
class Edge:
    """The roots of the complete subtrees that make up a tree: all that is needed to append.

    Args:
        size: Number of leaves.
        hashes: One per set bit of `size`, largest subtree first.
    """

    size: int = 0
    hashes: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        if len(self.hashes) != self.size.bit_count():
            raise InvalidProof("The edge does not hold one hash for each complete subtree of its size.")

    @property
    def root(self) -> bytes:
        """The Merkle tree hash of all leaves."""
        return _fold(self.hashes) if self.hashes else EMPTY_ROOT

    def extend(self, leaf_hashes: Iterable[bytes]) -> Edge:
        """Return the edge after appending these leaves in order."""
        size, hashes = self.size, list(self.hashes)
        for leaf in leaf_hashes:
            node, height = leaf, size
            while height & 1:
                node = node_hash(hashes.pop(), node)
                height >>= 1
            hashes.append(node)
            size += 1
        return Edge(size, tuple(hashes))


def range_root(start: int, end: int, hash_at: HashAt) -> bytes:
    """Return the Merkle tree hash of leaves [start, end).

    Args:
        start: First leaf; a multiple of the smallest power of two that holds the range, as
            every range that a proof names is.
        end: One past the last leaf.
        hash_at: Reader of complete subtrees.
    """
    if start == end:
        return EMPTY_ROOT
    parts = []
    while start < end:
        level = (end - start).bit_length() - 1
        parts.append(hash_at(level, start >> level))
        start += 1 << level
    return _fold(parts)


def inclusion_proof(index: int, size: int, hash_at: HashAt) -> list[bytes]:
    """Return the siblings from leaf `index` up to the root of the tree of `size` leaves.

    Args:
        index: Zero-based.
        size: Leaves in the tree.
        hash_at: Reads complete subtrees of the tree.

    Raises:
        InvalidProof: The tree has no such leaf.
    """
    if not 0 <= index < size:
        raise InvalidProof(f"A tree of {size} leaves has no leaf {index}.")
    start, end, proof = 0, size, []
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            proof.append(range_root(middle, end, hash_at))
            end = middle
        else:
            proof.append(range_root(start, middle, hash_at))
            start = middle
    return proof[::-1]


def consistency_proof(old_size: int, new_size: int, hash_at: HashAt) -> list[bytes]:
    """Return the nodes that show the first `old_size` leaves to be a prefix of the first `new_size`.

    Args:
        old_size: Leaves in the old tree.
        new_size: Leaves in the new one.
        hash_at: Reads complete subtrees of the new tree.

    Raises:
        InvalidProof: `old_size` is zero (an empty tree is a prefix of anything) or above `new_size`.
    """
    if not 0 < old_size <= new_size:
        raise InvalidProof("Consistency needs an old tree with at least one leaf that is no larger than the new one.")
    start, end, proof = 0, new_size, []
    while old_size != end:
        middle = start + _split(end - start)
        if old_size <= middle:
            proof.append(range_root(middle, end, hash_at))
            end = middle
        else:
            proof.append(range_root(start, middle, hash_at))
            start = middle
    if start:
        proof.append(range_root(start, end, hash_at))
    return proof[::-1]


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Check that `leaf` is the hash of leaf `index` in the tree of `size` leaves with this root.

    Args:
        leaf: 32 bytes, SHA-256(0x00 || entry).
        index: Zero-based.
        size: Leaves in the tree.
        proof: 32-byte siblings, the leaf's side first.
        root: Of a checkpoint that was verified, 32 bytes.

    Raises:
        InvalidProof: It is not, or the proof has missing or spare hashes.
    """
    if not 0 <= index < size:
        raise InvalidProof(f"A tree of {size} leaves has no leaf {index}.")
    _require_hashes([leaf, root, *proof])
    node, low, last = leaf, index, size - 1
    for sibling in proof:
        if last == 0:
            raise InvalidProof("The inclusion proof holds more hashes than the tree has levels.")
        if low & 1 or low == last:
            node = node_hash(sibling, node)
            low, last = _skip_right_border(low, last)
        else:
            node = node_hash(node, sibling)
        low, last = low >> 1, last >> 1
    if last != 0 or node != root:
        raise InvalidProof("The inclusion proof does not lead from this leaf to the root of the checkpoint.")


def verify_consistency(old_size: int, new_size: int, proof: Sequence[bytes], old_root: bytes, new_root: bytes) -> None:
    """Check that the tree with `new_root` begins with every leaf of the tree with `old_root`.

    Args:
        old_size: Leaves in the old tree.
        new_size: Leaves in the new one.
        proof: 32-byte nodes, as RFC 6962 orders them.
        old_root: Root of the old tree, 32 bytes.
        new_root: Root of the new one, 32 bytes.

    Raises:
        InvalidProof: It does not, the old tree is empty, or the proof has missing or spare hashes.
    """
    if not 0 < old_size <= new_size:
        raise InvalidProof("Consistency needs an old tree with at least one leaf that is no larger than the new one.")
    if old_size == new_size:
        if proof or old_root != new_root:
            raise InvalidProof("Two trees of one size are consistent only if their roots are equal, with no proof.")
        return
    path = [old_root, *proof] if old_size.bit_count() == 1 else list(proof)
    if not proof:
        raise InvalidProof("The consistency proof is empty.")
    _require_hashes([old_root, new_root, *path])
    low, last = old_size - 1, new_size - 1
    while low & 1:
        low, last = low >> 1, last >> 1
    old_node = new_node = path[0]
    for sibling in path[1:]:
        if last == 0:
            raise InvalidProof("The consistency proof holds more hashes than the tree has levels.")
        if low & 1 or low == last:
            old_node, new_node = node_hash(sibling, old_node), node_hash(sibling, new_node)
            low, last = _skip_right_border(low, last)
        else:
            new_node = node_hash(new_node, sibling)
        low, last = low >> 1, last >> 1
    if last != 0 or old_node != old_root or new_node != new_root:
        raise InvalidProof("The consistency proof does not lead to both roots: the log was rewritten or forked.")


def _skip_right_border(low: int, last: int) -> tuple[int, int]:
    """Pass the levels at which a node on the right border has no sibling and moves up unchanged."""
    while low and not low & 1:
        low, last = low >> 1, last >> 1
    return low, last


def _split(width: int) -> int:
    return 1 << ((width - 1).bit_length() - 1)


def _fold(parts: Sequence[bytes]) -> bytes:
    node = parts[-1]
    for left in reversed(parts[:-1]):
        node = node_hash(left, node)
    return node


def _require_hashes(hashes: Iterable[bytes]) -> None:
    if any(len(item) != HASH_BYTES for item in hashes):
        raise InvalidProof(f"Every hash in a proof has {HASH_BYTES} bytes.")
