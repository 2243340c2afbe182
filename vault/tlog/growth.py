"""By what the log grew, for those who wait for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import bindparam, select
from sqlmodel import Session

from vault.proof.leaf import LeafKind
from vault.tlog.models import log_entry, log_head

_MAX_GROWTH: Final = 1_000
_OF_SEVERAL: Final = {LeafKind.AUDITOR_ACCESS.value, LeafKind.DENIALS.value}
_HEAD: Final = select(log_head.c.size)
_GROWN: Final = (
    select(log_entry.c.leaf_index, log_entry.c.about, log_entry.c.kind)
    .where(log_entry.c.leaf_index > bindparam("seen"))
    .order_by(log_entry.c.leaf_index)
    .limit(bindparam("at_most"))
)


@dataclass(frozen=True, slots=True)
class Growth:
    """By what the log grew.

    Args:
        last: The last index now; -1 for an empty log.
        about: Whom the new events concern.
        all: Whether they may concern anybody: nothing was seen before, too much is new, or of several people.
    """

    last: int
    about: frozenset[bytes]
    all: bool


def since(session: Session, seen: int | None) -> Growth:
    """Return by what the log grew after an index; None if none was seen."""
    connection = session.connection()
    if seen is None:
        size = connection.execute(_HEAD).scalar_one()
        return Growth(size - 1, frozenset(), all=True)
    rows = connection.execute(_GROWN, {"seen": seen, "at_most": _MAX_GROWTH}).all()
    last = max((row.leaf_index for row in rows), default=seen)
    several = any(row.kind in _OF_SEVERAL for row in rows)
    return Growth(last, frozenset(row.about for row in rows if row.about), all=several or len(rows) == _MAX_GROWTH)
