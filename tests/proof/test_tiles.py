"""Tiles of a public log rebuild its signed roots; paths and bundles have one spelling."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vault.proof import merkle, tiles
from vault.proof.checkpoint import Checkpoint, verify_checkpoint
from vault.proof.errors import InvalidProof, MalformedProof
from vault.proof.note import parse_verifier_key
from vault.proof.tiles import Tile, parse_tile_path

TESSERA_KEY = "example.com/log/testdata+33d7b496+AeHTu4Q3hEIMHNqc6fASMsq3rKNx280NI+oO5xCFkkSx"


def _tessera_checkpoint(folder: Path, size: int) -> Checkpoint:
    note = (folder / f"checkpoint.{size}").read_text()
    return verify_checkpoint(note, parse_verifier_key(TESSERA_KEY), "example.com/log/testdata")


def test_a_public_log_rebuilds_from_its_tiles_and_bundles(shared: Path) -> None:
    folder = shared / "vectors/tessera-log"
    for size in range(1, 16):
        checkpoint = _tessera_checkpoint(folder, size)
        assert checkpoint.size == size
        entries = tiles.parse_bundle((folder / Tile(None, 0, size).path).read_bytes())
        hashes = tiles.split_hashes((folder / Tile(0, 0, size).path).read_bytes())
        assert [merkle.leaf_hash(entry) for entry in entries] == hashes
        assert merkle.Edge().extend(hashes).root == checkpoint.root
        assert tiles.format_bundle(entries) == (folder / Tile(None, 0, size).path).read_bytes()

        def read_tile(level: int, index: int, width: int) -> bytes:
            return (folder / Tile(level, index, width).path).read_bytes()

        hash_at = tiles.hashes_from_tiles(size, read_tile)
        for index in range(size):
            proof = merkle.inclusion_proof(index, size, hash_at)
            merkle.verify_inclusion(hashes[index], index, size, proof, checkpoint.root)
        for old in range(1, size + 1):
            proof = merkle.consistency_proof(old, size, hash_at)
            merkle.verify_consistency(old, size, proof, _tessera_checkpoint(folder, old).root, checkpoint.root)
    assert _tessera_checkpoint(folder, 0).root == merkle.EMPTY_ROOT


@pytest.fixture(scope="module")
def tall() -> tuple[list[bytes], dict[tuple[int, int], bytes]]:
    """A tree of 70,000 leaves cut into tiles the direct way: the specification's own example."""
    level = leaves = [merkle.leaf_hash(n.to_bytes(4, "big")) for n in range(70_000)]
    stored = {}
    for height in range(3):
        for at in range(0, len(level), 256):
            stored[height, at // 256] = b"".join(level[at : at + 256])
        full = range(0, len(level) // 256 * 256, 256)
        level = [merkle.Edge().extend(level[at : at + 256]).root for at in full]
    return leaves, stored


def test_proofs_from_tiles_of_a_tall_tree_verify(tall: tuple[list[bytes], dict[tuple[int, int], bytes]]) -> None:
    leaves, stored = tall
    size = len(leaves)
    root = merkle.Edge().extend(leaves).root
    assert [tiles.tile_width(*tile, size) for tile in [(0, 272), (0, 273), (1, 0), (1, 1), (2, 0)]] == [
        256, 112, 256, 17, 1,
    ]  # fmt: skip

    def read_tile(level: int, index: int, width: int) -> bytes:
        return stored[level, index][: 32 * width]

    hash_at = tiles.hashes_from_tiles(size, read_tile)
    for index in (0, 255, 256, 65_535, 65_536, 69_887, 69_888, 69_999):
        proof = merkle.inclusion_proof(index, size, hash_at)
        merkle.verify_inclusion(leaves[index], index, size, proof, root)
    for old in (1, 256, 257, 65_536, 65_537, 69_999):
        old_root = merkle.Edge().extend(leaves[:old]).root
        merkle.verify_consistency(old, size, merkle.consistency_proof(old, size, hash_at), old_root, root)


def test_a_tile_of_the_wrong_width_is_refused(tall: tuple[list[bytes], dict[tuple[int, int], bytes]]) -> None:
    _, stored = tall
    hash_at = tiles.hashes_from_tiles(70_000, lambda level, index, width: stored[level, index][: 32 * width - 32])
    with pytest.raises(InvalidProof):
        hash_at(0, 0)
    with pytest.raises(InvalidProof):
        tiles.hashes_from_tiles(3, lambda *_: b"\x00" * 96)(1, 1)


@given(st.none() | st.integers(0, 63), st.integers(0, 2**55), st.integers(1, 256))
def test_paths_round_trip(level: int | None, index: int, width: int) -> None:
    tile = Tile(level, index, width)
    assert parse_tile_path(tile.path) == tile


def test_the_specification_s_own_path() -> None:
    assert Tile(0, 1234067).path == "tile/0/x001/x234/067"
    assert Tile(None, 5, 17).path == "tile/entries/005.p/17"


@pytest.mark.parametrize(
    "path",
    [
        "", "tile/0/1", "tile/00/001", "tile/64/001", "tile/0/x000/001", "tile/0/001.p/0", "tile/0/001.p/256",
        "tile/0/001.p/01", "tile/0/001/002", "tile/0/x001", "/tile/0/001", "tile/0/001\n", "tile/data/001",
        "tile/0/\u0660\u0660\u0661", "tile/0/x999/x999/x999/x999/x999/x999/999", "tile/0/../001", "tile/-1/001",
    ],
)  # fmt: skip
def test_other_paths_are_refused(path: str) -> None:
    with pytest.raises(MalformedProof):
        parse_tile_path(path)


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=256))
def test_bundles_round_trip(entries: list[bytes]) -> None:
    assert tiles.parse_bundle(tiles.format_bundle(entries)) == entries


@given(st.binary(max_size=600))
def test_any_bytes_are_a_bundle_or_malformed(data: bytes) -> None:
    try:
        entries = tiles.parse_bundle(data)
    except MalformedProof:
        return
    assert tiles.format_bundle(entries) == data


@pytest.mark.parametrize("data", [b"", b"\x00", b"\x00\x02a", b"\x00\x00" * 257])
def test_bad_bundles_are_refused(data: bytes) -> None:
    with pytest.raises(MalformedProof):
        tiles.parse_bundle(data)


@pytest.mark.parametrize("size", [0, 31, 33, 257 * 32])
def test_bad_tiles_are_refused(size: int) -> None:
    with pytest.raises(MalformedProof):
        tiles.split_hashes(b"\x00" * size)
