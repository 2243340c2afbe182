"""The tree agrees with the public vectors, a real log and a naive recursion."""

import base64
import hashlib
import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vault.proof import merkle
from vault.proof.errors import InvalidProof
from vault.proof.merkle import Edge, leaf_hash


def naive_root(leaves: list[bytes]) -> bytes:
    """RFC 6962 section 2.1, read aloud."""
    if not leaves:
        return hashlib.sha256().digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return hashlib.sha256(b"\x01" + naive_root(leaves[:k]) + naive_root(leaves[k:])).digest()


def reader(leaves: list[bytes]) -> merkle.HashAt:
    def hash_at(level: int, index: int) -> bytes:
        part = leaves[index << level : (index + 1) << level]
        assert len(part) == 1 << level, "a proof asked for an incomplete subtree"
        return naive_root(part)

    return hash_at


LEAVES = [b"leaf %d" % n for n in range(70)]


def _vectors(shared: Path, kind: str) -> list[dict]:
    folder = shared / "vectors/transparency-dev-merkle/testdata" / kind
    found = [json.loads(path.read_text()) for path in sorted(folder.rglob("*.json"))]
    assert found
    return found


def _accepts(verify, *args) -> bool:
    try:
        verify(*args)
    except InvalidProof:
        return False
    return True


def test_every_public_vector_is_judged_as_published(shared: Path) -> None:
    decode = base64.b64decode
    inclusion, consistency = _vectors(shared, "inclusion"), _vectors(shared, "consistency")
    assert len(inclusion) + len(consistency) == 196
    for case in inclusion:
        proof = [decode(item) for item in case["proof"] or []]
        args = decode(case["leafHash"]), case["leafIdx"], case["treeSize"], proof, decode(case["root"])
        assert _accepts(merkle.verify_inclusion, *args) != case["wantErr"], case["desc"]
    for case in consistency:
        proof = [decode(item) for item in case["proof"] or []]
        args = case["size1"], case["size2"], proof, decode(case["root1"]), decode(case["root2"])
        assert _accepts(merkle.verify_consistency, *args) != case["wantErr"], case["desc"]


@pytest.mark.parametrize("size", range(len(LEAVES)))
def test_roots_and_edges_agree_with_the_recursion(size: int) -> None:
    assert Edge().extend(map(leaf_hash, LEAVES[:size])).root == naive_root(LEAVES[:size])
    if size:
        assert merkle.range_root(0, size, reader(LEAVES)) == naive_root(LEAVES[:size])


@given(st.integers(0, 70), st.integers(0, 70))
def test_an_edge_grows_alike_in_one_step_or_two(first: int, second: int) -> None:
    first, second = sorted((first, second))
    hashes = [leaf_hash(leaf) for leaf in LEAVES]
    assert Edge().extend(hashes[:first]).extend(hashes[first:second]) == Edge().extend(hashes[:second])


def test_every_inclusion_proof_of_small_trees_verifies_and_no_other() -> None:
    for size in range(1, 20):
        root = naive_root(LEAVES[:size])
        for index in range(size):
            proof = merkle.inclusion_proof(index, size, reader(LEAVES))
            merkle.verify_inclusion(leaf_hash(LEAVES[index]), index, size, proof, root)
            wrong = [
                (leaf_hash(LEAVES[index]), other, size, proof, root) for other in range(-1, size + 2) if other != index
            ]
            wrong += [
                (leaf_hash(LEAVES[index + 1]), index, size, proof, root),
                (leaf_hash(LEAVES[index]), index, size, [*proof, root], root),
                (leaf_hash(LEAVES[index]), index, size, [root, *proof], root),
                (leaf_hash(LEAVES[index]), index, size, proof, leaf_hash(root)),
            ]
            if proof:
                wrong.append((leaf_hash(LEAVES[index]), index, size, proof[:-1], root))
                wrong.append((leaf_hash(LEAVES[index]), index, size, [proof[0][:-1], *proof[1:]], root))
            assert not any(_accepts(merkle.verify_inclusion, *case) for case in wrong)


def test_every_consistency_proof_of_small_trees_verifies_and_no_other() -> None:
    roots = [naive_root(LEAVES[:size]) for size in range(21)]
    for old, new in itertools.combinations_with_replacement(range(1, 20), 2):
        proof = merkle.consistency_proof(old, new, reader(LEAVES))
        merkle.verify_consistency(old, new, proof, roots[old], roots[new])
        wrong = [(old, new, [*proof, roots[new]], roots[old], roots[new])]
        wrong.append((old, new, proof, roots[old], roots[new + 1]))
        wrong.append((old, new, proof, roots[old - 1], roots[new]))
        if proof:
            wrong.append((old, new, proof[1:], roots[old], roots[new]))
            flipped = bytes([proof[-1][0] ^ 1]) + proof[-1][1:]
            wrong.append((old, new, [*proof[:-1], flipped], roots[old], roots[new]))
        assert not any(_accepts(merkle.verify_consistency, *case) for case in wrong)


@given(st.integers(1, 70), st.integers(0, 69), st.integers(0, 7), st.integers(0, 255))
def test_a_flipped_bit_anywhere_in_a_proof_is_found(size: int, index: int, which: int, bit: int) -> None:
    index %= size
    proof = merkle.inclusion_proof(index, size, reader(LEAVES))
    if not proof:
        return
    which %= len(proof)
    value = int.from_bytes(proof[which], "big") ^ (1 << bit)
    proof[which] = value.to_bytes(32, "big")
    with pytest.raises(InvalidProof):
        merkle.verify_inclusion(leaf_hash(LEAVES[index]), index, size, proof, naive_root(LEAVES[:size]))


def test_an_interior_node_does_not_pass_as_an_entry() -> None:
    node = leaf_hash(LEAVES[0]) + leaf_hash(LEAVES[1])
    with pytest.raises(InvalidProof):
        merkle.verify_inclusion(leaf_hash(node), 0, 1, [], naive_root(LEAVES[:2]))


def test_proofs_that_cannot_be_are_refused() -> None:
    for index, size in [(0, 0), (3, 3), (-1, 3)]:
        with pytest.raises(InvalidProof):
            merkle.inclusion_proof(index, size, reader(LEAVES))
    for old, new in [(0, 0), (0, 4), (5, 4), (-1, 4)]:
        with pytest.raises(InvalidProof):
            merkle.consistency_proof(old, new, reader(LEAVES))
    with pytest.raises(InvalidProof):
        Edge(3, (b"\x00" * 32,))
