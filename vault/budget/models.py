"""Tables of the privacy ledger; the migration adds the triggers that make it append-only."""

from __future__ import annotations

import sqlalchemy
from sqlmodel import Field, SQLModel


class LedgerRow(SQLModel, table=True):
    """One change of one charge's state; the columns repeat what the record says, for look-ups only."""

    __tablename__ = "budget_ledger"
    __table_args__ = (
        sqlalchemy.CheckConstraint("state IN ('reserved', 'committed', 'aborted')", name="state"),
        {"sqlite_with_rowid": False},
    )

    scope: str = Field(primary_key=True, max_length=80)
    position: int = Field(primary_key=True)
    release_id: bytes
    state: str = Field(max_length=16)
    record: bytes
    digest: bytes


class ScopeLock(SQLModel, table=True):
    """One row for each scope, locked by whoever changes the scope's charges."""

    __tablename__ = "budget_scope"

    scope: str = Field(primary_key=True, max_length=80)
