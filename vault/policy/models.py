"""The table of policy sets; private to this package. Triggers refuse every change."""

from __future__ import annotations

from sqlalchemy import Column, Integer, LargeBinary, Table
from sqlmodel import SQLModel

import vault.db  # noqa: F401  (sets the metadata's naming convention, which the constraints below take)

policy_set = Table(
    "policy_set",
    SQLModel.metadata,
    Column("sha256", LargeBinary, primary_key=True),
    Column("version", Integer, nullable=False, unique=True),
    Column("source", LargeBinary, nullable=False),
)
