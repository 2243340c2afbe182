"""The tables of auditors, and of what they chose; private to this package."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, Integer, LargeBinary, String, Table
from sqlmodel import SQLModel

import vault.db  # noqa: F401  (sets the metadata's naming convention, which the constraints below take)

auditor = Table(
    "auditor",
    SQLModel.metadata,
    Column("key_id", LargeBinary, primary_key=True),
    Column("public_key", LargeBinary, nullable=False),
    Column("name", String, nullable=False),
    Column("not_after_s", BigInteger, nullable=False),
    Column("scope_from_s", BigInteger, nullable=False),
    Column("scope_to_s", BigInteger, nullable=False),
    Column("opens_left", Integer),  # none where every consent is opened
    Column("pseudonym_key", LargeBinary, nullable=False),
)

auditor_opened = Table(
    "auditor_opened",
    SQLModel.metadata,
    Column("key_id", LargeBinary, ForeignKey("auditor.key_id"), primary_key=True),
    Column("consent_id", LargeBinary, primary_key=True),
)
