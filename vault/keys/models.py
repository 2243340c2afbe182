"""The table of key statements; private to this package."""

from __future__ import annotations

from sqlalchemy import Column, Integer, LargeBinary, String, Table
from sqlmodel import SQLModel

import vault.db  # noqa: F401  (sets the metadata's naming convention, which the constraints below take)

key_statement = Table(
    "key_statement",
    SQLModel.metadata,
    Column("name", String, primary_key=True),
    Column("epoch", Integer, primary_key=True, autoincrement=False),
    Column("envelope", LargeBinary, nullable=False),
)
