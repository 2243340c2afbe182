"""Subtrees of the signed tree, kept in memory between proofs: the tree only grows, so none is ever stale."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Final

from sqlmodel import Session

from vault.proof.merkle import HashAt, inclusion_proof
from vault.proof.tiles import TILE_WIDTH, Subtrees, hashes_from_subtrees, split_hashes
from vault.proof.witness import Witnessed
from vault.tlog.log import hashes_below, read_tile
from vault.tlog.witnesses import witnessed

_MAX_TILES: Final = 256  # about 40 KB each


class HashCache:
    """Reads of the tree what earlier proofs have not read.

    It proves nothing: a wrong hash gives a proof that leads to no signed root.
    """

    def __init__(self) -> None:
        self._tiles: OrderedDict[tuple[int, int], Subtrees] = OrderedDict()
        self._paths: tuple[int, dict[int, tuple[bytes, ...]]] = 0, {}
        self._witnessed: tuple[int, Witnessed | None] = 0, None
        self._mutex = threading.Lock()

    def path(self, session: Session, index: int, size: int) -> tuple[bytes, ...]:
        """Return the inclusion proof of a leaf; those under the newest size are remembered too.

        Raises:
            InvalidProof: The tree of `size` leaves has no such leaf.
        """
        of_size, paths = self._paths
        if of_size != size:
            paths = {}
            self._paths = size, paths
        if index not in paths:
            paths[index] = tuple(inclusion_proof(index, size, self.hashes_at(session, size)))
        return paths[index]

    def witnessed(self, session: Session, size: int) -> Witnessed | None:
        """Return what shows that the tree continues one that the witnesses saw; read once for each size."""
        of_size, found = self._witnessed
        if of_size != size:
            found = witnessed(session, size, self.hashes_at(session, size))
            self._witnessed = size, found
        return found

    def hashes_at(self, session: Session, size: int) -> HashAt:
        """Return a reader of the complete subtrees of the signed tree of `size` leaves."""

        def tile(level: int, index: int, width: int) -> Subtrees:
            found = self._tiles.get((level, index))
            return self._read_on(session, level, index, width) if found is None or found.width < width else found

        return hashes_from_subtrees(size, tile)

    def _read_on(self, session: Session, level: int, index: int, width: int) -> Subtrees:
        with self._mutex:
            found = self._tiles.setdefault((level, index), Subtrees())
            self._tiles.move_to_end((level, index))
            if found.width < width:
                found.extend(_missing(session, level, index, found.width, width))
            while len(self._tiles) > _MAX_TILES:
                self._tiles.popitem(last=False)
        return found


def _missing(session: Session, level: int, index: int, known: int, width: int) -> list[bytes]:
    if known == 0:  # a full tile is stored as one row
        return split_hashes(read_tile(session, level, index, width))
    return hashes_below(session, level, index * TILE_WIDTH + known, width - known)
