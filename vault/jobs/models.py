"""The one jobs table."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy
from sqlmodel import Field, SQLModel

from vault.db import UtcDateTime


class JobRow(SQLModel, table=True):
    """One piece of work; `payload` holds ids only, never a person's data."""

    __tablename__ = "jobs"
    __table_args__ = (
        sqlalchemy.Index("ix_jobs_state_run_at", "state", "run_at"),
        # Of jobs that have not started, one per key is enough.
        sqlalchemy.Index(
            "uq_jobs_waiting_key",
            "waiting_key",
            unique=True,
            sqlite_where=sqlalchemy.text("state = 'queued'"),
            postgresql_where=sqlalchemy.text("state = 'queued'"),
        ),
        {"sqlite_autoincrement": True},  # a worker names by its number what may have been erased meanwhile
    )

    id: int | None = Field(default=None, primary_key=True)
    kind: str
    payload: bytes
    waiting_key: str = Field(index=True)
    state: str
    attempts: int = 0
    run_at: datetime = Field(sa_type=UtcDateTime)
    lease_until: datetime | None = Field(default=None, sa_type=UtcDateTime)
    reason: str = ""
