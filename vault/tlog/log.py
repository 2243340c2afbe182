"""The log's verbs: record an event, read the tree, open and erase what a leaf committed to.

Order. Indexes follow the ids of pending rows. PostgreSQL hands out an id at insert and shows the
row at commit, so two unrelated transactions may be numbered against the order in which they
committed. Related ones never are: whoever records an event about a consent (or a ring, budget,
vault) locks that row before calling `append`, so the second id is drawn after the first commit.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NewType

from sqlalchemy import bindparam, delete, insert, select, update
from sqlmodel import Session

from vault.db import Prepared
from vault.driver import Named, drive
from vault.encoding import JsonObject
from vault.errors import MalformedInput
from vault.proof.leaf import LeafKind, Opening, Openings, make_entry
from vault.proof.merkle import HashAt, consistency_proof, inclusion_proof, leaf_hash
from vault.proof.receipt import Receipt
from vault.proof.tiles import TILE_WIDTH, format_bundle, hashes_from_tiles, tile_width
from vault.tlog.errors import LogDamaged, NotInLog
from vault.tlog.models import log_copy, log_entry, log_head, log_opening, log_tile
from vault.tlog.tombstones import bury

PendingId = NewType("PendingId", int)
"""Names an event from its insert on; its leaf index follows once a checkpoint covers it."""

_INSERT_ENTRY = "INSERT INTO log_entry (kind, entry, about) VALUES (?, ?, ?)"
_INSERT_OPENING = (
    "INSERT INTO log_opening (entry_id, public_salt, public_body, personal_salt, personal_body) VALUES (?, ?, ?, ?, ?)"
)
_INSERT_BOTH = Named(  # one round trip
    "WITH added AS (INSERT INTO log_entry (kind, entry, about) VALUES ($1, $2, $3) RETURNING id) "
    "INSERT INTO log_opening (entry_id, public_salt, public_body, personal_salt, personal_body) "
    "SELECT id, $4, $5, $6, $7 FROM added RETURNING entry_id"
)
_HEAD = Prepared(select(log_head.c.size, log_head.c.checkpoint))
_INDEX_OF = select(log_entry.c.leaf_index).where(log_entry.c.id == bindparam("pending_id"))
_ENTRIES = Prepared(
    select(log_entry.c.entry)
    .where(log_entry.c.leaf_index >= bindparam("start"), log_entry.c.leaf_index < bindparam("end"))
    .order_by(log_entry.c.leaf_index)
)
_FULL_TILE = select(log_tile.c.hashes).where(
    log_tile.c.level == bindparam("level"), log_tile.c.tile_index == bindparam("tile_index")
)
_TILE_ROOTS = (
    select(log_tile.c.root)
    .where(
        log_tile.c.level == bindparam("level"),
        log_tile.c.tile_index >= bindparam("start"),
        log_tile.c.tile_index < bindparam("end"),
    )
    .order_by(log_tile.c.tile_index)
)
_RECORDED = select(log_entry.c.recorded_s).where(log_entry.c.leaf_index == bindparam("leaf_index"))
_LEAVES = select(log_entry, log_opening).join(log_opening, log_opening.c.entry_id == log_entry.c.id)
_COVERED = Prepared(_LEAVES.where(log_entry.c.id == bindparam("pending_id"), log_entry.c.leaf_index.is_not(None)))


@dataclass(frozen=True)
class Pending:
    """An event recorded in an open transaction; it is logged only after that commits.

    Args:
        id: What to wait for and to keep beside the event's own row.
        entry: The 65 bytes that will be in the log.
        openings: What opens both halves.
    """

    id: PendingId
    entry: bytes
    openings: Openings


@dataclass(frozen=True)
class Leaf:
    """A logged event.

    Args:
        pending_id: The id it was recorded under.
        index: Its place in the log, from zero.
        kind: What happened.
        entry: The 65 logged bytes.
        public: Opens the public half.
        personal: Opens the personal half; None once erased.
        about: Whom it concerns, where whoever recorded it said so; None once erased.
    """

    pending_id: PendingId
    index: int
    kind: LeafKind
    entry: bytes
    public: Opening
    personal: Opening | None
    about: bytes | None = None


def append(
    session: Session, kind: LeafKind, public: JsonObject, personal: JsonObject, *, about: bytes | None = None
) -> Pending:
    """Record an event in the caller's transaction, to be logged once that commits.

    Lock the row that the event is about first: the order of ids is the order of events.

    Args:
        session: The caller's transaction.
        kind: What happened; becomes `kind` of the public part.
        public: For every auditor; holds nothing about a person.
        personal: For the person and those whom the event concerns.
        about: Whom the event concerns, an id that means nothing to the log and by which `find` finds
            it; never logged, and forgotten with the personal opening.

    Raises:
        MalformedInput: A part is not plain JSON, or `public` brings its own `kind`.
    """
    if "kind" in public:
        raise MalformedInput("The public part takes its kind from the log; leave `kind` out.")
    entry, openings = make_entry({"kind": kind.value, **public}, personal)
    opened = (openings.public.salt, openings.public.body, openings.personal.salt, openings.personal.body)
    connection = session.connection()
    if connection.dialect.name == "sqlite":
        pending_id = drive(connection, _INSERT_ENTRY, (kind.value, entry, about)).lastrowid
        drive(connection, _INSERT_OPENING, (pending_id, *opened))
    else:
        pending_id = int(_INSERT_BOTH.one(session, kind.value, entry, about, *opened))
    return Pending(PendingId(pending_id), entry, openings)


def leaf_index(session: Session, pending_id: PendingId) -> int | None:
    """Return the index of an event, or None while no signed checkpoint covers it."""
    index: int | None = session.connection().execute(_INDEX_OF, {"pending_id": pending_id}).scalar_one_or_none()
    return index


def checkpoint(session: Session) -> str:
    """Return the newest signed checkpoint.

    Raises:
        NotInLog: The log has never been started.
    """
    return head(session)[1]


def receipt_for(session: Session, index: int, cosigned: tuple[int, str] | None = None) -> str:
    """Return the receipt of one leaf under the newest checkpoint, made from the tree: none is ever stored.

    Args:
        session: A snapshot.
        index: The leaf.
        cosigned: Size and note of a signed checkpoint to prefer if it covers the leaf.

    Raises:
        NotInLog: No signed checkpoint covers that index.
    """
    size, note = cosigned if cosigned is not None and index < cosigned[0] else head(session)
    if not 0 <= index < size:
        raise NotInLog(f"No signed checkpoint covers leaf {index} yet.")
    return Receipt(index, tuple(inclusion_proof(index, size, hashes_at(session, size))), note).text


def range_between(session: Session, since_s: int, until_s: int) -> tuple[int, int]:
    """Return the first index recorded at or after one time, and the first at or after another.

    Times of neighbours may differ by the length of a transaction: give a range a margin.

    Args:
        session: A snapshot.
        since_s: Unix seconds.
        until_s: Unix seconds, not before `since_s`.

    Raises:
        NotInLog: The log has never been started.
    """
    size, _ = head(session)

    def recorded_s(index: int) -> int:
        found: int = session.connection().execute(_RECORDED, {"leaf_index": index}).scalar_one()
        return found

    first = bisect_left(range(size), since_s, key=recorded_s)
    return first, bisect_left(range(size), until_s, lo=first, key=recorded_s)


def consistency(session: Session, old_size: int, new_size: int) -> list[bytes]:
    """Return the proof that the log only grew between two sizes.

    Raises:
        NotInLog: The log has not reached `new_size`.
        InvalidProof: `old_size` is zero or above `new_size`.
    """
    size, _ = head(session)
    if new_size > size:
        raise NotInLog(f"The log has {size} leaves.")
    return consistency_proof(old_size, new_size, hashes_at(session, new_size))


def tile(session: Session, level: int, index: int, width: int) -> bytes:
    """Return a full or partial tile of the signed tree.

    Raises:
        NotInLog: The signed tree does not fill the tile to that width.
    """
    _require_tile(session, level, index, width)
    return read_tile(session, level, index, width)


def entries(session: Session, index: int, width: int) -> bytes:
    """Return a full or partial entry bundle of the signed tree.

    Raises:
        NotInLog: The signed tree does not fill the bundle to that width.
    """
    _require_tile(session, 0, index, width)
    return format_bundle(_entries(session, index * TILE_WIDTH, width))


def leaf(session: Session, index: int) -> Leaf:
    """Return one logged event with what is left of its openings.

    Raises:
        NotInLog: The log has no such leaf.
    """
    row = session.connection().execute(_LEAVES.where(log_entry.c.leaf_index == index)).one_or_none()
    if row is None:
        raise NotInLog(f"The log has no leaf {index}.")
    return _leaf(row)


def find(
    session: Session,
    *,
    kind: LeafKind | None = None,
    about: bytes | None = None,
    after: int = -1,
    limit: int = 256,
) -> list[Leaf]:
    """Return logged events in the order of the log.

    Args:
        session: Any transaction.
        kind: Only events of this kind.
        about: Only events that were recorded about this.
        after: The last index already seen.
        limit: How many at most.
    """
    query = _LEAVES.where(log_entry.c.leaf_index > after).order_by(log_entry.c.leaf_index).limit(limit)
    if kind is not None:
        query = query.where(log_entry.c.kind == kind.value)
    if about is not None:
        query = query.where(log_entry.c.about == about)
    return [_leaf(row) for row in session.connection().execute(query)]


def between(session: Session, kinds: Iterable[LeafKind], first: int, last: int) -> list[Leaf]:
    """Return the events of some kinds from one leaf index to another, both included."""
    wanted = log_entry.c.kind.in_([kind.value for kind in kinds]) & log_entry.c.leaf_index.between(first, last)
    return [_leaf(row) for row in session.connection().execute(_LEAVES.where(wanted).order_by(log_entry.c.leaf_index))]


def covered(session: Session, pending_id: PendingId) -> Leaf | None:
    """Return one event, or None while no signed checkpoint covers it."""
    row = _COVERED.one(session, pending_id=pending_id)
    return None if row is None else _leaf(row)


def read(session: Session, pending_ids: Iterable[PendingId]) -> list[Leaf]:
    """Return these events, in the order of the log; those that no signed checkpoint covers yet are missing."""
    wanted = log_entry.c.id.in_(list(pending_ids)) & log_entry.c.leaf_index.is_not(None)
    found = session.connection().execute(_LEAVES.where(wanted).order_by(log_entry.c.leaf_index))
    return [_leaf(row) for row in found]


def delete_personal_openings(session: Session, pending_ids: Iterable[PendingId]) -> None:
    """Forget whom these events concern, salt and body of their personal half; leaves and proofs stay valid.

    Guarantees: once committed, the commitment left in the log is useless without a copy of the
    salt: it neither reveals nor confirms what it stood for. Backups keep a copy until they expire.
    """
    forget = update(log_opening).where(log_opening.c.entry_id == bindparam("pending_id"))
    rows = [{"pending_id": pending_id} for pending_id in pending_ids]
    if rows:
        bury(session, [row["pending_id"] for row in rows])
        session.connection().execute(forget.values(personal_salt=None, personal_body=None), rows)
        unlink = update(log_entry).where(log_entry.c.id == bindparam("pending_id"))
        session.connection().execute(unlink.values(about=None), rows)


def forget_about(session: Session, about: bytes) -> None:
    """Forget the personal openings of every event that was recorded about this."""
    found = session.connection().execute(select(log_entry.c.id).where(log_entry.c.about == about))
    delete_personal_openings(session, [PendingId(name) for name in found.scalars()])


def read_tile(session: Session, level: int, index: int, width: int) -> bytes:
    """Return a tile's content, full or partial, without asking whether a checkpoint covers it.

    Raises:
        LogDamaged: Some of it is missing.
    """
    if width < TILE_WIDTH:
        return b"".join(hashes_below(session, level, index * TILE_WIDTH, width))
    stored: bytes | None = (
        session.connection().execute(_FULL_TILE, {"level": level, "tile_index": index}).scalar_one_or_none()
    )
    if stored is None:
        raise LogDamaged("A full tile of the log is missing.")
    return stored


def hashes_below(session: Session, level: int, start: int, count: int) -> list[bytes]:
    """Return hashes of one level of tiles, made from what lies below: numbered entries, or the roots of full tiles.

    Args:
        session: Any transaction.
        level: Level of the tiles.
        start: Place of the first hash within the level.
        count: How many.

    Raises:
        LogDamaged: Some of that is missing.
    """
    if level == 0:
        return [leaf_hash(entry) for entry in _entries(session, start, count)]
    below = {"level": level - 1, "start": start, "end": start + count}
    roots = session.connection().execute(_TILE_ROOTS, below).scalars().all()
    if len(roots) != count:
        raise LogDamaged("A full tile of the log is missing.")
    return list(roots)


def head(session: Session) -> tuple[int, str]:
    """Return the size of the signed tree and its checkpoint.

    Raises:
        NotInLog: The log has never been started.
    """
    row = _HEAD.one(session)
    if row is None:
        raise NotInLog("The log has not been started; start the app once.")
    return row.size, row.checkpoint


def tree_size(session: Session) -> int:
    """Return how many leaves the signed tree has; none where the log has never been started."""
    row = _HEAD.one(session)
    return 0 if row is None else row.size


def hashes_at(session: Session, size: int) -> HashAt:
    """Return a reader of the complete subtrees of the tree of `size` leaves."""
    return hashes_from_tiles(size, lambda level, index, width: read_tile(session, level, index, width))


def call_copy(session: Session) -> None:
    """Mark the database as a copy, or as set back: nothing is done with it before it was compared with the journal."""
    if not is_copy(session):
        session.connection().execute(insert(log_copy), {"id": 1})


def is_copy(session: Session) -> bool:
    """Say whether the database is a copy, or was set back, and was not compared with the journal yet."""
    return session.connection().execute(select(log_copy.c.id)).first() is not None


def call_compared(session: Session) -> None:
    """Take the mark of a copy away, because it lacks nothing any more."""
    session.connection().execute(delete(log_copy))


def _require_tile(session: Session, level: int, index: int, width: int) -> None:
    if not 1 <= width <= tile_width(level, index, head(session)[0]):
        raise NotInLog("The signed log does not fill that tile.")


def _entries(session: Session, start: int, count: int) -> list[bytes]:
    found = _ENTRIES.all(session, start=start, end=start + count)
    if len(found) != count:
        raise LogDamaged("An entry of the signed log is missing.")
    return [row.entry for row in found]


def _leaf(row: Any) -> Leaf:
    erased = row.personal_salt is None
    return Leaf(
        pending_id=PendingId(row.id),
        index=row.leaf_index,
        kind=LeafKind(row.kind),
        entry=row.entry,
        public=Opening(row.public_salt, row.public_body),
        personal=None if erased else Opening(row.personal_salt, row.personal_body),
        about=row.about,
    )
