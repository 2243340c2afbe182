"""Tables of imprint rows, models and their withdrawals; private to this package. Triggers refuse every update."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, Index, Integer, LargeBinary, String, Table, UniqueConstraint
from sqlmodel import SQLModel

import vault.db  # noqa: F401  (sets the metadata's naming convention, which the constraints below take)

_Id = BigInteger().with_variant(Integer, "sqlite")  # SQLite numbers rows by itself only for INTEGER

imprint_row = Table(
    "imprint_row",
    SQLModel.metadata,
    Column("id", _Id, primary_key=True),
    Column("vault_id", LargeBinary, nullable=False),
    Column("compartment_id", LargeBinary, nullable=False),
    Column("release_id", LargeBinary, nullable=False),
    Column("row_index", Integer, nullable=False),
    Column("category", String(64), nullable=False),
    Column("period", String(7), nullable=False),
    Column("mechanism", String(16), nullable=False),
    Column("chain_start", Integer, nullable=False),
    Column("first_day", Integer, nullable=False),
    Column("days", Integer, nullable=False),
    Column("map_digest", LargeBinary, nullable=False),
    Column("mu2_micro", BigInteger, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("carried", LargeBinary, nullable=False),
    Column("leaf_id", BigInteger, nullable=False),
    UniqueConstraint("vault_id", "compartment_id", "release_id", "row_index"),
    sqlite_autoincrement=True,  # the newest release is the one with the highest id, also after an erasure
)
Index("ix_imprint_row_place", imprint_row.c.vault_id, imprint_row.c.category, imprint_row.c.period)

model = Table(
    "model",
    SQLModel.metadata,
    Column("id", _Id, primary_key=True),
    Column("map_digest", LargeBinary, nullable=False, index=True),
    Column("manifest_digest", LargeBinary, nullable=False, unique=True),
    Column("model", LargeBinary, nullable=False),
    Column("envelope", LargeBinary, nullable=False),
    Column("leaf_id", BigInteger, nullable=False),
    sqlite_autoincrement=True,
)

# Stopping a model adds a row: what was released stays what it was.
withdrawal = Table(
    "model_withdrawal",
    SQLModel.metadata,
    Column("manifest_digest", LargeBinary, ForeignKey("model.manifest_digest"), primary_key=True),
    Column("leaf_id", BigInteger, nullable=False),
)
