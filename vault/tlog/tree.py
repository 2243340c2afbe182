"""Growing the signed tree, and checking that the database still holds the tree that was signed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import Row, bindparam, func, insert, select, update
from sqlmodel import Session

from vault.db import Prepared
from vault.driver import drive
from vault.proof.checkpoint import Checkpoint, verify_checkpoint
from vault.proof.errors import InvalidProof
from vault.proof.leaf import LeafKind
from vault.proof.merkle import Edge, leaf_hash, range_root
from vault.proof.note import VerifierKey, sign_note
from vault.proof.tiles import TILE_HEIGHT, TILE_WIDTH, split_hashes
from vault.tlog.errors import LogDamaged
from vault.tlog.log import PendingId, hashes_at, hashes_below
from vault.tlog.models import log_entry, log_head, log_tile

MAX_BATCH = 4096
_LOCK = f"SELECT pg_advisory_xact_lock({0x7477696E6C6F67})"  # any number, as long as nothing else locks on it

_KINDS = {kind.value: kind for kind in LeafKind}  # a tenth of what it costs to ask the class

_T = TypeVar("_T")

_pending = log_entry.alias("pending")
_next = (
    select(_pending.c.id, (func.row_number().over(order_by=_pending.c.id) - 1).label("place"))
    .where(_pending.c.leaf_index.is_(None), _pending.c.member.is_(None))
    .order_by(_pending.c.id)
    .limit(MAX_BATCH)
    .subquery("next_leaf")
)
_NUMBER = Prepared(
    update(log_entry)
    .where(log_entry.c.id == _next.c.id)
    .values(leaf_index=bindparam("tree_size") + _next.c.place)
    .returning(log_entry.c.id, log_entry.c.leaf_index, log_entry.c.kind, log_entry.c.entry)
)
_HEAD = Prepared(select(log_head.c.size, log_head.c.edge, log_head.c.checkpoint))
_ADD_HEAD = insert(log_head)
_SET_HEAD = Prepared(update(log_head).values(size=bindparam("s"), edge=bindparam("e"), checkpoint=bindparam("c")))
_ADD_TILES = insert(log_tile)
_ALL_LEAVES = (
    select(log_entry.c.leaf_index, log_entry.c.entry)
    .where(log_entry.c.leaf_index.is_not(None))
    .order_by(log_entry.c.leaf_index)
    .execution_options(yield_per=16 * TILE_WIDTH)
)
_ALL_TILES = select(log_tile).order_by(log_tile.c.level, log_tile.c.tile_index).execution_options(yield_per=64)


@dataclass(frozen=True)
class Head:
    """The signed state of the log: its edge and the checkpoint made from it."""

    edge: Edge
    checkpoint: Checkpoint


class Numbered(NamedTuple):
    """An event and its place in the tree."""

    pending_id: PendingId
    leaf_index: int
    kind: LeafKind


def grow(
    session: Session, log: VerifierKey, sign: Callable[[bytes], bytes], seen: Checkpoint | None, seen_note: str = ""
) -> tuple[Checkpoint, list[Numbered]]:
    """Number pending events, extend the tree and sign it, all in the caller's transaction.

    The transaction must be READ COMMITTED on PostgreSQL (the default): everything read after the
    lock must be what the last holder committed.

    Args:
        session: A transaction of its own.
        log: The log's public key; its name is the origin.
        sign: Ed25519 under the log's key.
        seen: The newest checkpoint this process has seen.
        seen_note: The note of `seen`, if this process has read or written it: it need not be verified again.

    Returns:
        The newest checkpoint, and the events that it numbered, in their order.

    Raises:
        LogDamaged: The head is not signed by the log, or not a later state of what was seen:
            signing on top of it would fork the log.
        InvalidProof: `sign` does not use the log's key.
    """
    lock(session)
    head = read_head(session, log, seen, seen_note) or _begin(session, log, sign)
    if seen is not None:
        require_later(session, head.checkpoint, seen)
    rows = sorted(_NUMBER.all(session, tree_size=head.edge.size), key=lambda row: row.leaf_index)
    if not rows:
        return head.checkpoint, []
    edge = head.edge.extend(leaf_hash(row.entry) for row in rows)
    _add_full_tiles(session, head.edge.size, edge.size)
    checkpoint = Checkpoint(log.name, edge.size, edge.root)
    note = sign_note(checkpoint.text, log, sign)
    _SET_HEAD.run(session, s=edge.size, e=b"".join(edge.hashes), c=note)
    return checkpoint, [Numbered(PendingId(row.id), row.leaf_index, _KINDS[row.kind]) for row in rows]


def lock(session: Session) -> None:
    """Keep every process from sequencing until the transaction ends; on SQLite any writing transaction does."""
    connection = session.connection()
    if connection.dialect.name == "postgresql":
        drive(connection, _LOCK)


def read_head(session: Session, log: VerifierKey, seen: Checkpoint | None = None, seen_note: str = "") -> Head | None:
    """Return the head, or None in a log never started.

    Args:
        session: Any transaction.
        log: The log's key.
        seen: A checkpoint that was verified before.
        seen_note: Its note.

    Raises:
        LogDamaged: Edge and checkpoint differ, or the log's key did not sign it.
    """
    row = _HEAD.one(session)
    if row is None:
        return None
    try:
        edge = Edge(row.size, tuple(split_hashes(row.edge)) if row.edge else ())
        known = seen if row.checkpoint == seen_note else None
        checkpoint = known or verify_checkpoint(row.checkpoint, log, log.name)
    except InvalidProof as error:
        raise LogDamaged(f"The head of the log is not what the log signed: {error.detail}") from error
    if (checkpoint.size, checkpoint.root) != (edge.size, edge.root):
        raise LogDamaged("The edge in the head of the log does not have the signed size and root.")
    return Head(edge, checkpoint)


def verify_tree(session: Session, log: VerifierKey) -> Checkpoint | None:
    """Rebuild the whole tree from its entries and compare tiles and head with it.

    Args:
        session: A snapshot.
        log: The log's key.

    Returns:
        The newest checkpoint; None in a log never started.

    Raises:
        LogDamaged: An entry, index, tile or the head was changed, added or removed.
    """
    connection = session.connection()
    with connection.execute(_ALL_LEAVES) as leaves, connection.execute(_ALL_TILES) as tiles:
        edge = _rebuild(map(_leaf_in_order, enumerate(leaves)), iter(tiles))
    head = read_head(session, log)
    if edge != (head.edge if head else Edge()):
        raise LogDamaged("The entries of the log do not make the tree that was signed.")
    return head.checkpoint if head else None


def require_later(session: Session, head: Checkpoint | None, seen: Checkpoint) -> None:
    """Demand that the log in the database is one that grew from what was seen.

    Args:
        session: A transaction or snapshot.
        head: The newest checkpoint in the database; None in a log never started.
        seen: A checkpoint that this process, or the anchor, keeps.

    Raises:
        LogDamaged: It is older, or another log.
    """
    if head == seen:
        return
    size = head.size if head else 0
    if size < seen.size or range_root(0, seen.size, hashes_at(session, size)) != seen.root:
        raise LogDamaged(
            f"The database holds an older or another log than the one of {seen.size} leaves that was signed here. "
            "Stop the service and bring the newest database back; only if it is lost for good, restore the newest "
            "backup with `twinvault operator restore --replace`. If this database is newer than any backup, or there is "
            "none, make one of it first with `twinvault operator backup`."
        )


def _rebuild(leaves: Iterator[bytes], stored_tiles: Iterator[Row[Any]]) -> Edge:
    """Return the edge that the leaves make, demanding that the full tiles are exactly theirs."""
    below, level, size = leaves, 0, 0
    hashes: tuple[bytes, ...] = ()
    while True:
        roots: list[bytes] = []
        rest: list[bytes] = []
        for chunk in _chunks(below):
            if len(chunk) < TILE_WIDTH:
                rest = chunk
                break
            root = Edge().extend(chunk).root
            if tuple(next(stored_tiles, ())) != (level, len(roots), b"".join(chunk), root):
                raise LogDamaged("A tile of the log is not made from its entries.")
            roots.append(root)
        size += len(rest) << (TILE_HEIGHT * level)
        hashes = Edge().extend(rest).hashes + hashes
        if not roots:
            break
        below, level = iter(roots), level + 1
    if next(stored_tiles, None) is not None:
        raise LogDamaged("The database holds a tile that the log has not reached.")
    return Edge(size, hashes)


def _begin(session: Session, log: VerifierKey, sign: Callable[[bytes], bytes]) -> Head:
    checkpoint = Checkpoint(log.name, 0, Edge().root)
    note = sign_note(checkpoint.text, log, sign)
    session.connection().execute(_ADD_HEAD, {"id": 1, "size": 0, "edge": b"", "checkpoint": note})
    return Head(Edge(), checkpoint)


def _add_full_tiles(session: Session, old_size: int, new_size: int) -> None:
    level = 0
    while new_size >> (TILE_HEIGHT * (level + 1)):
        shift = TILE_HEIGHT * (level + 1)
        for index in range(old_size >> shift, new_size >> shift):
            hashes = hashes_below(session, level, index * TILE_WIDTH, TILE_WIDTH)
            root = Edge().extend(hashes).root
            tile = {"level": level, "tile_index": index, "hashes": b"".join(hashes), "root": root}
            session.connection().execute(_ADD_TILES, tile)
        level += 1


def _leaf_in_order(numbered: tuple[int, tuple[int, bytes]]) -> bytes:
    place, (index, entry) = numbered
    if place != index:
        raise LogDamaged(f"The log has no leaf {place}.")
    return leaf_hash(entry)


def _chunks(items: Iterable[_T]) -> Iterator[list[_T]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, TILE_WIDTH)):
        yield chunk
