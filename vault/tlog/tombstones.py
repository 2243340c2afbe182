"""Tombstones as the service keeps them: written with every erased opening, published in daily groups.

Whoever sees a leaf without its personal opening must be able to tell an erasure from a concealment. The row
is written by the very call that erases, so neither happens without the other. A group names the erasures of
people that it follows from, all of its day and of one kind of author: which opening went with which of them, nothing
here tells. Where the owner ordered it, subjects are kept beside it, each with the order that its key signed.
"""

from __future__ import annotations

import secrets
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Row, bindparam, delete, func, insert, select, update
from sqlmodel import Session

from vault.encoding import JsonObject, b64u, parse_b64u, parse_json
from vault.proof.leaf import LeafKind
from vault.proof.merkle import Edge, inclusion_proof, leaf_hash, node_hash
from vault.proof.ordered import OWNER
from vault.proof.tombstone import SALT_BYTES, Tombstone, dump_tombstone, tombstone_hash
from vault.seal.ids import SubjectId
from vault.tlog.models import log_entry, log_member, log_opening, log_subject_erasure, log_tombstone

if TYPE_CHECKING:
    from vault.tlog.log import PendingId

_IS_ORDER: Final = log_opening.c.personal_salt.is_not(None)  # a person's erasure stays open; one of months goes with it
_AUTHOR: Final = "buried-by"  # in a session's `info`: by whose order its transaction erases a person
_CHUNK: Final = 500  # below every database's limit on bound values
_INSERT: Final = insert(log_tombstone)
_PLACE: Final = (
    update(log_tombstone)
    .where(log_tombstone.c.entry_id == bindparam("of_entry"))
    .values(group_id=bindparam("in_group"), position=bindparam("at_position"))
)
_shared = log_entry.alias("shared")  # the leaf of the group, for an event that has none of its own
_WITH_ENTRIES: Final = (
    select(
        log_tombstone,
        log_entry.c.entry,
        func.coalesce(log_entry.c.leaf_index, _shared.c.leaf_index).label("leaf_index"),
        func.coalesce(log_member.c.position + 1, 0).label("member"),
        _IS_ORDER.label("is_order"),
    )
    .join(log_entry, log_entry.c.id == log_tombstone.c.entry_id)
    .join(log_opening, log_opening.c.entry_id == log_tombstone.c.entry_id)
    .outerjoin(log_member, log_member.c.entry_id == log_tombstone.c.entry_id)
    .outerjoin(_shared, _shared.c.id == log_member.c.group_id)
)


def bury(session: Session, pending_ids: Iterable[int]) -> None:
    """Write a tombstone for each of these events that still has its personal opening.

    Args:
        session: The writing transaction that erases the openings next.
        pending_ids: Of the events.
    """
    connection = session.connection()
    author = session.info.get(_AUTHOR)
    wanted = sorted(set(pending_ids))
    for start in range(0, len(wanted), _CHUNK):
        opened = log_opening.c.entry_id.in_(wanted[start : start + _CHUNK]) & log_opening.c.personal_salt.is_not(None)
        query = select(log_opening.c.entry_id, log_opening.c.personal_body).where(opened).with_for_update()
        found = connection.execute(query).all()
        if found:
            connection.execute(_INSERT, [_tombstone(row.entry_id, row.personal_body, author) for row in found])


@contextmanager
def following(session: Session, order: PendingId, author: str, signed: Mapping[SubjectId, bytes]) -> Iterator[None]:
    """Let what this transaction buries meanwhile follow from the erasure of a person: its author's group names that.

    Args:
        session: The writing transaction that erases the person.
        order: The erasure's event, whose own opening stays.
        author: By whose order, one of `vault.proof.ordered.AUTHORS`.
        signed: What the owner signed as each subject; nothing where somebody else ordered it.

    Guarantees: whose events they were is kept only where this person signed that they go, which shows it; what others
        had erased, and no group holds yet, follows from it as little as before.
    """
    session.info[_AUTHOR] = author
    try:
        yield
    finally:
        del session.info[_AUTHOR]
    connection = session.connection()
    connection.execute(_INSERT, _tombstone(order, b"{}", author))
    if signed:
        rows = [{"subject": subject, "envelope": envelope} for subject, envelope in signed.items()]
        connection.execute(delete(log_subject_erasure).where(log_subject_erasure.c.subject.in_(list(signed))))
        connection.execute(insert(log_subject_erasure), rows)


def _tombstone(entry_id: int, personal_body: bytes, author: str | None) -> dict[str, Any]:
    personal = parse_json(personal_body)
    shows = author == OWNER and "subject_salt" in personal and "subject" in personal
    subject, salt = (parse_b64u(personal[name]) if shows else None for name in ("subject", "subject_salt"))
    fresh = secrets.token_bytes(SALT_BYTES)
    return {"entry_id": entry_id, "salt": fresh, "author": author, "subject": subject, "subject_salt": salt}


def publish(session: Session, day: date) -> PendingId | None:
    """Log the roots of all tombstones that no group holds yet, one for each author; nothing if there is none.

    The app does so once a day, and before it shows an auditor a leaf that needs one. Two at once take turns.

    Args:
        session: An open writing transaction.
        day: Today, in UTC: the groups' name.

    Returns:
        The newest group's leaf: once it is in the log, every group is. None if nothing was ever erased.
    """
    from vault.tlog.log import PendingId  # noqa: PLC0415  # the log buries what it erases: each needs the other

    connection = session.connection()
    waiting = _WITH_ENTRIES.where(log_tombstone.c.group_id.is_(None)).order_by(log_tombstone.c.entry_id)
    found = connection.execute(waiting.with_for_update(of=log_tombstone)).all()
    for author in sorted({row.author or "" for row in found}):
        _publish(session, day, author, [row for row in found if (row.author or "") == author])
    newest = connection.execute(select(func.max(log_tombstone.c.group_id))).scalar_one()
    return None if newest is None else PendingId(newest)


def _publish(session: Session, day: date, author: str, found: list[Row[Any]]) -> None:
    from vault.tlog.log import append  # noqa: PLC0415  # the log buries what it erases: each needs the other

    orders, rows = ([row for row in found if bool(row.is_order) is is_order] for is_order in (True, False))
    if not rows:
        return
    hashed = sorted((tombstone_hash(row.salt, row.entry), row.entry_id) for row in rows)
    root = Edge().extend(leaf for leaf, _ in hashed).root
    public: JsonObject = {
        "root": b64u(root),
        "count": len(hashed),
        "day": day.isoformat(),
        "author": author,
        "orders": [*sorted(b64u(leaf_hash(order.entry)) for order in orders)],
    }
    group = append(session, LeafKind.TOMBSTONES, public, {})
    places = [{"of_entry": name, "in_group": group.id, "at_position": at} for at, (_, name) in enumerate(hashed)]
    places += [{"of_entry": order.entry_id, "in_group": group.id, "at_position": None} for order in orders]
    session.connection().execute(_PLACE, places)


def are_waiting(session: Session) -> bool:
    """Say whether there are tombstones that no group holds yet."""
    joined = select(log_tombstone.c.entry_id).join(log_opening, log_opening.c.entry_id == log_tombstone.c.entry_id)
    waiting = joined.where(log_tombstone.c.group_id.is_(None), ~_IS_ORDER).limit(1)
    return session.connection().execute(waiting).first() is not None


def is_due(session: Session, today: date) -> bool:
    """Say whether tombstones wait and none were published today."""
    if not are_waiting(session):
        return False
    newest = select(log_opening.c.public_body).join(log_entry, log_entry.c.id == log_opening.c.entry_id)
    newest = newest.where(log_entry.c.kind == LeafKind.TOMBSTONES.value).order_by(log_entry.c.id.desc()).limit(1)
    body = session.connection().execute(newest).scalar_one_or_none()
    return body is None or today.isoformat().encode() not in bytes(body)


def proofs(session: Session, pending_ids: Iterable[int], *, subjects: bool = True) -> tuple[list[bytes], set[int]]:
    """Return the tombstones of these events as a bundle carries them, and the events that hold their groups.

    Args:
        session: A snapshot.
        pending_ids: Events whose opening is missing; those without a tombstone in a signed group are left out.
        subjects: Whether whose they were is shown, and each of these subjects' order, where the owner ordered it.
    """
    groups: defaultdict[int, list[int]] = defaultdict(list)
    wanted = sorted(set(pending_ids))
    for start in range(0, len(wanted), _CHUNK):
        mine = _WITH_ENTRIES.where(log_tombstone.c.entry_id.in_(wanted[start : start + _CHUNK]))
        for row in session.connection().execute(mine.where(log_tombstone.c.group_id.is_not(None))):
            groups[row.group_id].append(row.entry_id)
    stones = [one for group, names in groups.items() for one in _in_group(session, group, set(names))]
    if not subjects:
        return [dump_tombstone(replace(one, subject=b"", subject_salt=b"")) for one in stones], set(groups)
    return [*map(dump_tombstone, stones), *_signed(session, {one.subject for one in stones})], set(groups)


def _signed(session: Session, subjects: set[bytes]) -> Iterator[bytes]:
    wanted = sorted(subjects)
    for start in range(0, len(wanted), _CHUNK):
        mine = log_subject_erasure.c.subject.in_(wanted[start : start + _CHUNK])
        yield from session.connection().execute(select(log_subject_erasure.c.envelope).where(mine)).scalars()


def orders_of(session: Session, groups: Iterable[int]) -> set[int]:
    """Return the erasures that these groups follow from."""
    mine = log_tombstone.c.group_id.in_(list(groups)) & log_tombstone.c.position.is_(None)
    return set(session.connection().execute(select(log_tombstone.c.entry_id).where(mine)).scalars())


def _in_group(session: Session, group: int, wanted: set[int]) -> Iterator[Tombstone]:
    index = session.connection().execute(select(log_entry.c.leaf_index).where(log_entry.c.id == group)).scalar_one()
    if index is None:
        return
    mine = (log_tombstone.c.group_id == group) & log_tombstone.c.position.is_not(None)
    in_order = _WITH_ENTRIES.where(mine).order_by(log_tombstone.c.position)
    rows: list[Row[Any]] = list(session.connection().execute(in_order))
    leaves = [tombstone_hash(row.salt, row.entry) for row in rows]
    nodes: dict[tuple[int, int], bytes] = {}

    def hash_at(level: int, place: int) -> bytes:
        if level == 0:
            return leaves[place]
        if (level, place) not in nodes:
            nodes[level, place] = node_hash(hash_at(level - 1, 2 * place), hash_at(level - 1, 2 * place + 1))
        return nodes[level, place]

    for row in rows:
        if row.entry_id in wanted and row.leaf_index is not None:
            path = tuple(inclusion_proof(row.position, len(rows), hash_at))
            whose = row.subject or b"", row.subject_salt or b""
            yield Tombstone(row.leaf_index, row.member, index, row.salt, row.position, len(rows), path, *whose)
