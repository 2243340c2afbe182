"""The table of erasures; private to this package. It keeps certificates, and nothing of what they are about."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, LargeBinary, Table
from sqlmodel import SQLModel

import vault.db  # noqa: F401  (sets the metadata's naming convention, which the constraints below take)

erasure = Table(
    "erasure",
    SQLModel.metadata,
    Column("erasure_id", LargeBinary, primary_key=True),
    Column("order_sha256", LargeBinary, nullable=False),
    Column("leaf_id", BigInteger, nullable=False),
    Column("certificate", LargeBinary, nullable=False),
)
