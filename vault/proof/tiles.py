"""C2SP tlog-tiles: how a tree and its entries are cut into files that never change.

A tile of level L holds up to 256 hashes of complete subtrees of 256**L leaves.

Source: https://c2sp.org/tlog-tiles.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vault.proof.checkpoint import parse_decimal
from vault.proof.errors import InvalidProof, MalformedProof
from vault.proof.merkle import HASH_BYTES, HashAt, node_hash

TILE_HEIGHT = 8
TILE_WIDTH = 256
MAX_LEVEL = 63

_PATH = re.compile(r"tile/(entries|0|[1-9][0-9]?)/((?:x[0-9]{3}/){0,6})([0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?")


@dataclass(frozen=True)
class Tile:
    """The address of one tile or entry bundle.

    Args:
        level: 0 to 63; None for an entry bundle, which covers the same leaves as a tile of level 0.
        index: Position within the level.
        width: Hashes or entries in it, 1 to 256; 256 is a full tile.
    """

    level: int | None
    index: int
    width: int = TILE_WIDTH

    @property
    def path(self) -> str:
        """The path under the log's prefix."""
        digits = f"{self.index:d}"
        digits = digits.zfill(-(-len(digits) // 3) * 3)
        parts = [digits[at : at + 3] for at in range(0, len(digits), 3)]
        name = "/".join([f"x{part}" for part in parts[:-1]] + parts[-1:])
        suffix = "" if self.width == TILE_WIDTH else f".p/{self.width}"
        return f"tile/{'entries' if self.level is None else self.level}/{name}{suffix}"


def parse_tile_path(path: str) -> Tile:
    """Parse the path of a tile or entry bundle, refusing every second spelling.

    Raises:
        MalformedProof: It is no such path.
    """
    match = _PATH.fullmatch(path)
    if match is None:
        raise MalformedProof("The path names no tile.")
    level = None if match[1] == "entries" else int(match[1])
    index = parse_decimal((match[2] + match[3]).replace("x", "").replace("/", "").lstrip("0") or "0")
    tile = Tile(level, index, int(match[4] or TILE_WIDTH))
    if tile.path != path or (level or 0) > MAX_LEVEL:
        raise MalformedProof("The path names no tile in its one spelling.")
    return tile


def tile_width(level: int, index: int, size: int) -> int:
    """Return how many hashes tile `index` of `level` holds in a tree of `size` leaves: 0 to 256."""
    return max(0, min(TILE_WIDTH, (size >> (TILE_HEIGHT * level)) - index * TILE_WIDTH))


def split_hashes(tile: bytes) -> list[bytes]:
    """Return the hashes of one tile's content.

    Raises:
        MalformedProof: The content is not 1 to 256 hashes.
    """
    count, rest = divmod(len(tile), HASH_BYTES)
    if rest or not 1 <= count <= TILE_WIDTH:
        raise MalformedProof("A tile is not 1 to 256 hashes.")
    return [tile[at : at + HASH_BYTES] for at in range(0, len(tile), HASH_BYTES)]


def format_bundle(entries: Sequence[bytes]) -> bytes:
    """Return an entry bundle: each entry after its length as a big-endian 16-bit integer."""
    return b"".join(len(entry).to_bytes(2, "big") + entry for entry in entries)


def parse_bundle(bundle: bytes) -> list[bytes]:
    """Return the entries of a bundle.

    Raises:
        MalformedProof: An entry is cut off, or there are not 1 to 256 of them.
    """
    entries: list[bytes] = []
    at = 0
    while at < len(bundle) and len(entries) <= TILE_WIDTH:
        end = at + 2 + int.from_bytes(bundle[at : at + 2], "big")
        if at + 2 > len(bundle) or end > len(bundle):
            raise MalformedProof("An entry bundle is cut off.")
        entries.append(bundle[at + 2 : end])
        at = end
    if not 1 <= len(entries) <= TILE_WIDTH:
        raise MalformedProof("An entry bundle does not hold 1 to 256 entries.")
    return entries


class Subtrees:
    """The complete subtrees within one tile, by height; they grow to the right as the tree does.

    One thread at a time may extend it, while others read.
    """

    def __init__(self) -> None:
        self._by_height: list[list[bytes]] = [[]]
        self.width = 0
        """How many hashes of the tile are known with every subtree that they complete, 0 to 256."""

    def extend(self, hashes: Sequence[bytes]) -> None:
        """Add the tile's next hashes and every subtree that they complete."""
        self._by_height[0].extend(hashes)
        for height in range(TILE_HEIGHT):
            below = self._by_height[height]
            if height + 1 == len(self._by_height):
                self._by_height.append([])
            above = self._by_height[height + 1]
            above.extend(node_hash(below[2 * at], below[2 * at + 1]) for at in range(len(above), len(below) // 2))
        self.width = len(self._by_height[0])

    def at(self, height: int, place: int) -> bytes:
        """Return the root of one subtree of 2**height hashes."""
        return self._by_height[height][place]


def hashes_from_tiles(size: int, read_tile: Callable[[int, int, int], bytes]) -> HashAt:
    """Return a reader of the complete subtrees of a tree of `size` leaves, over its tiles.

    Each tile is read and hashed once. They prove nothing by themselves: what is made from them must lead
    to the root of a verified checkpoint.

    Args:
        size: Leaves in the tree; it decides which tiles are partial.
        read_tile: `read_tile(level, index, width)` returns a tile's content.

    Raises:
        InvalidProof: A tile has another width than the size demands, or a subtree is not in the tree.
    """
    tiles: dict[tuple[int, int], Subtrees] = {}

    def tile(level: int, index: int, width: int) -> Subtrees:
        if (level, index) not in tiles:
            hashes = split_hashes(read_tile(level, index, width)) if width else []
            if len(hashes) != width:
                raise InvalidProof("A tile does not have the width that the checkpoint's size demands.")
            tiles[level, index] = Subtrees()
            tiles[level, index].extend(hashes)
        return tiles[level, index]

    return hashes_from_subtrees(size, tile)


def hashes_from_subtrees(size: int, tile: Callable[[int, int, int], Subtrees]) -> HashAt:
    """Return a reader of the complete subtrees of a tree of `size` leaves.

    Args:
        size: Leaves in the tree.
        tile: `tile(level, index, width)` returns a tile with at least its first `width` hashes.

    Raises:
        InvalidProof: By the reader, where it is asked for a subtree that the tree does not hold.
    """

    def hash_at(level: int, index: int) -> bytes:
        if (index + 1) << level > size:
            raise InvalidProof("A proof asks for a subtree that the tree does not hold yet.")
        tile_level, height = divmod(level, TILE_HEIGHT)
        tile_index, offset = divmod(index << height, TILE_WIDTH)
        return tile(tile_level, tile_index, tile_width(tile_level, tile_index, size)).at(height, offset >> height)

    return hash_at
