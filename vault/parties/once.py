"""Values that work once: sign-in challenges, DPoP proofs, client assertions."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Final

import sqlalchemy
from sqlmodel import Session, SQLModel

from vault.clock import unix_s
from vault.db import Prepared
from vault.parties.models import SpentRow
from vault.seal.framing import frames

# One call in eight drops up to this many: the table shrinks under any load, no call pays for a backlog.
_SWEEP: Final = 32
_INSERT: Final = Prepared(
    sqlalchemy.text("INSERT INTO spent (digest, expires_at_s) VALUES (:digest, :expires_at_s) ON CONFLICT DO NOTHING")
)
_IS_SPENT: Final = Prepared(
    sqlalchemy.text("SELECT digest FROM spent WHERE digest IN (:first, :second)").columns(digest=sqlalchemy.LargeBinary)
)
_TABLE: Final = SQLModel.metadata.tables[str(SpentRow.__tablename__)]
_EXPIRED: Final = (
    sqlalchemy.select(_TABLE.c.digest)
    .where(_TABLE.c.expires_at_s <= sqlalchemy.bindparam("now_s"))
    .order_by(_TABLE.c.expires_at_s)
    .limit(_SWEEP)
    .with_for_update(skip_locked=True)
)
_DELETE: Final = Prepared(sqlalchemy.delete(_TABLE).where(_TABLE.c.digest.in_(_EXPIRED)))


def spend(session: Session, kind: bytes, *value: bytes, expires_at_s: int, now: datetime) -> bool:
    """Use a value up.

    Args:
        session: An open writing transaction; the value is spent when it commits.
        kind: What kind of value it is, so that two kinds never collide.
        value: What is spent; several parts are told apart.
        expires_at_s: Unix second from which on the value is refused for its age alone.
        now: The current time.

    Returns:
        Whether this call was the first. Of several transactions with one value exactly one that
        commits gets True, on both databases: the primary key decides, and a second one waits for
        the first to commit or roll back.
    """
    digest = hashlib.sha256(frames(kind, *value)).digest()
    inserted = _INSERT.run(session, digest=digest, expires_at_s=expires_at_s)
    if digest[0] % 8 == 0:
        _DELETE.run(session, now_s=unix_s(now))
    return inserted == 1


def is_any_spent(session: Session, kind: bytes, first: bytes, second: bytes) -> bool:
    """Say whether either of two values is used up; one look-up by primary key."""
    names = (hashlib.sha256(frames(kind, value)).digest() for value in (first, second))
    return _IS_SPENT.one(session, first=next(names), second=next(names)) is not None
