"""Events that share a leaf: each is committed to like a leaf, and the log holds the root over them.

Whoever causes events by the hundred then makes the log grow by a leaf a minute. A group's public half says how many
it holds, so that none can be left out; erasing one leaves its entry, and a tombstone, like erasing a leaf.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Row, bindparam, func, insert, select, update
from sqlmodel import Session

from vault.encoding import JsonObject, b64u
from vault.proof.leaf import LeafKind, Opening
from vault.proof.member import MINUTE_S, Member
from vault.proof.merkle import Edge, leaf_hash
from vault.tlog.log import Leaf, Pending, PendingId, append, read
from vault.tlog.models import log_entry, log_member, log_opening

MAX_MEMBERS: Final = 1_000
"""Of one group, so that what an auditor is shown of one leaf stays small."""

_CALL: Final = update(log_entry).where(log_entry.c.id == bindparam("of_entry")).values(member=1)
_HOLD: Final = insert(log_member)
_PLACE: Final = (
    update(log_member)
    .where(log_member.c.entry_id == bindparam("of_entry"))
    .values(group_id=bindparam("in_group"), position=bindparam("at_position"))
)
_WAITING: Final = (
    select(log_member.c.entry_id, log_member.c.caused_by, log_member.c.minute_s, log_entry.c.entry)
    .join(log_entry, log_entry.c.id == log_member.c.entry_id)
    .where(log_member.c.group_id.is_(None))
    .order_by(log_member.c.entry_id)
    .with_for_update(of=log_member)
)
_ANY_OVER: Final = (
    select(log_member.c.entry_id)
    .where(log_member.c.group_id.is_(None), log_member.c.minute_s <= bindparam("last_minute_s"))
    .limit(1)
)
_MEMBERS: Final = (
    select(log_member, log_entry.c.entry, log_opening)
    .join(log_entry, log_entry.c.id == log_member.c.entry_id)
    .join(log_opening, log_opening.c.entry_id == log_member.c.entry_id)
    .order_by(log_member.c.group_id, log_member.c.position)
)
_group = log_entry.alias("of_group")
_IN_GROUPS: Final = log_member.join(_group, _group.c.id == log_member.c.group_id)


@dataclass(frozen=True, slots=True)
class Kept:
    """One event of a group.

    Args:
        pending_id: The id it was recorded under.
        group_id: The pending id of its group's leaf.
        member: What an auditor is shown.
    """

    pending_id: PendingId
    group_id: PendingId
    member: Member


def hold(session: Session, pending: Pending, caused_by: str, at_s: int) -> None:
    """Let an event wait for its group instead of a leaf of its own.

    Args:
        session: The transaction that recorded the event.
        pending: The event.
        caused_by: Who did; the group names it.
        at_s: When, unix seconds.
    """
    connection = session.connection()
    connection.execute(_CALL, {"of_entry": pending.id})
    values = {"entry_id": pending.id, "caused_by": caused_by, "minute_s": at_s - at_s % MINUTE_S}
    connection.execute(_HOLD, values)


def is_due(session: Session, now_s: int) -> bool:
    """Say whether events of a minute that is over wait for their group."""
    return session.connection().execute(_ANY_OVER, {"last_minute_s": now_s - MINUTE_S}).first() is not None


def publish(session: Session, kind: LeafKind, now_s: int) -> list[PendingId]:
    """Log the groups of all minutes that are over; two at once take turns.

    Args:
        session: An open writing transaction.
        kind: Of the groups' leaves.
        now_s: Unix seconds. A minute still runs for an event whose transaction is not over: it comes into another
            group of the same minute.

    Returns:
        The pending ids of their leaves.
    """
    return _log(session, kind, log_member.c.minute_s <= now_s - MINUTE_S)


def publish_caused(session: Session, kind: LeafKind, caused_by: str) -> list[PendingId]:
    """Log the groups of all that somebody caused, before something is logged that changes how it is read.

    Args:
        session: An open writing transaction, in which nobody else records more of it.
        kind: Of the groups' leaves.
        caused_by: Who did.

    Returns:
        The pending ids of their leaves.
    """
    return _log(session, kind, log_member.c.caused_by == caused_by)


def _log(session: Session, kind: LeafKind, which: ColumnElement[bool]) -> list[PendingId]:
    connection = session.connection()
    waiting = connection.execute(_WAITING.where(which)).all()
    groups: defaultdict[tuple[str, int], list[Any]] = defaultdict(list)
    for row in waiting:
        groups[row.caused_by, row.minute_s].append(row)
    logged = []
    for (caused_by, minute_s), rows in sorted(groups.items()):
        for start in range(0, len(rows), MAX_MEMBERS):
            some = rows[start : start + MAX_MEMBERS]
            root = Edge().extend(leaf_hash(row.entry) for row in some).root
            public: JsonObject = {"root": b64u(root), "count": len(some)}
            leaf = append(session, kind, public, {"requester": caused_by, "minute": minute_s})
            places = [{"of_entry": row.entry_id, "in_group": leaf.id, "at_position": at} for at, row in enumerate(some)]
            connection.execute(_PLACE, places)
            logged.append(leaf.id)
    return logged


def members(session: Session, groups: Mapping[PendingId, int]) -> list[Kept]:
    """Return all events of some groups.

    Args:
        session: A snapshot.
        groups: The leaf index of each group, by its pending id.
    """
    found = session.connection().execute(_MEMBERS.where(log_member.c.group_id.in_(list(groups))))
    return [_kept(row, groups[PendingId(row.group_id)]) for row in found]


def count(session: Session, first: int, last: int) -> int:
    """Return how many events share the leaves from one index to another, both included."""
    query = select(func.count()).select_from(_IN_GROUPS).where(_group.c.leaf_index.between(first, last))
    return int(session.connection().execute(query).scalar_one())


def about(session: Session, whom: bytes, *, after: int, limit: int) -> list[tuple[Leaf, list[Kept]]]:
    """Return the groups that hold events about somebody, each with those events alone, in the order of the log.

    Args:
        session: A snapshot.
        whom: As events were recorded about.
        after: The last leaf index already seen.
        limit: How many groups at most.
    """
    mine = log_entry.c.about == whom
    named = (
        select(_group.c.id)
        .select_from(_IN_GROUPS.join(log_entry, log_entry.c.id == log_member.c.entry_id))
        .where(mine, log_entry.c.leaf_index.is_(None), _group.c.leaf_index > after)
        .group_by(_group.c.id)
        .order_by(func.min(_group.c.leaf_index))
        .limit(limit)
    )
    leaves = read(session, [PendingId(name) for name in session.connection().execute(named).scalars()])
    found = []
    for leaf in leaves:
        rows = session.connection().execute(_MEMBERS.where(mine, log_member.c.group_id == leaf.pending_id))
        found.append((leaf, [_kept(row, leaf.index) for row in rows]))
    return found


def _kept(row: Row[Any], group: int) -> Kept:
    personal = None if row.personal_salt is None else Opening(row.personal_salt, row.personal_body)
    shown = Member(group, row.position, row.entry, Opening(row.public_salt, row.public_body), personal)
    return Kept(PendingId(row.entry_id), PendingId(row.group_id), shown)
