"""The store's tables, as Core tables: all they hold is opaque bytes that are compared and swapped, never objects.

The row of `ring_head` is a vault's lock: uploads, publishes and erasures of one vault take turns on it.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    UniqueConstraint,
)
from sqlmodel import SQLModel

import vault.db  # noqa: F401  (sets the metadata's naming convention, which the constraints below take)

_Id = BigInteger().with_variant(Integer, "sqlite")  # SQLite numbers rows by itself only for INTEGER

slot = Table(
    "slot",
    SQLModel.metadata,
    Column("locator_hash", LargeBinary, primary_key=True),
    Column("vault_id", LargeBinary, nullable=False, index=True),
    Column("slot", LargeBinary, nullable=False),
)

account = Table(
    "account",
    SQLModel.metadata,
    Column("vault_id", LargeBinary, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("envelope", LargeBinary, nullable=False),
)

ring_head = Table(
    "ring_head",
    SQLModel.metadata,
    Column("vault_id", LargeBinary, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("envelope", LargeBinary, nullable=False),
    Column("pending_id", BigInteger, nullable=False),
)

ring_page = Table(
    "ring_page",
    SQLModel.metadata,
    Column("vault_id", LargeBinary, primary_key=True),
    Column("period", String(7), primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("envelope", LargeBinary, nullable=False),
)

# The head's devices, one row each, for sign-in and uploads. `accepted` is JSON, and NULL while the device is live.
ring_device = Table(
    "ring_device",
    SQLModel.metadata,
    Column("vault_id", LargeBinary, primary_key=True),
    Column("device_id", LargeBinary, primary_key=True),
    Column("public_key", LargeBinary, nullable=False),
    Column("role", String(16), nullable=False),
    Column("accepted", LargeBinary),
)

# The pages' compartments. `locked` is the locked seed under its short key, NULL once erased.
compartment = Table(
    "compartment",
    SQLModel.metadata,
    Column("vault_id", LargeBinary, primary_key=True),
    Column("compartment_id", LargeBinary, primary_key=True),
    Column("category", String(64), nullable=False),
    Column("period", String(7), nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("public_key", LargeBinary, nullable=False),
    Column("key_hash", LargeBinary, nullable=False),
    Column("locked_hash", LargeBinary, nullable=False),
    Column("locked", LargeBinary),
    UniqueConstraint("vault_id", "period", "category", "epoch"),
)
# What is older than the published retention is looked for over all vaults.
Index(
    "ix_compartment_period_vault_id",
    compartment.c.period,
    compartment.c.vault_id,
    sqlite_where=compartment.c.locked.is_not(None),
    postgresql_where=compartment.c.locked.is_not(None),
)

batch = Table(
    "batch",
    SQLModel.metadata,
    Column("id", _Id, primary_key=True),
    Column("vault_id", LargeBinary, nullable=False),
    Column("compartment_id", LargeBinary, nullable=False),
    Column("device_id", LargeBinary, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("batch", LargeBinary, nullable=False),
    Column("pending_id", BigInteger, nullable=False),
    UniqueConstraint("vault_id", "compartment_id", "device_id", "seq"),
    ForeignKeyConstraint(
        ["vault_id", "compartment_id"],
        ["compartment.vault_id", "compartment.compartment_id"],
        name="fk_batch_compartment",
    ),
    sqlite_autoincrement=True,  # an id is a reader's cursor and must not come back after an erasure
)
Index("ix_batch_compartment_id", batch.c.compartment_id, batch.c.id)

# The newest head list that each device signed: what an owner holds against a server that drops batches.
head_list = Table(
    "head_list",
    SQLModel.metadata,
    Column("vault_id", LargeBinary, primary_key=True),
    Column("device_id", LargeBinary, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("envelope", LargeBinary, nullable=False),
)

# Which leaves are about a vault's ring and account, so that erasing can delete their openings.
store_leaf = Table(
    "store_leaf",
    SQLModel.metadata,
    Column("pending_id", BigInteger, primary_key=True, autoincrement=False),
    Column("vault_id", LargeBinary, nullable=False, index=True),
)

# Short keys that must go: written with the state change, removed once they are gone.
short_key_deletion = Table(
    "short_key_deletion",
    SQLModel.metadata,
    Column("id", _Id, primary_key=True),
    Column("name", LargeBinary, nullable=False),
)

# Another database, so that the backups of the first never hold these.
short_key_metadata = MetaData()
short_key = Table(
    "short_key",
    short_key_metadata,
    Column("name", LargeBinary, primary_key=True),
    Column("key", LargeBinary, nullable=False),
    postgresql_partition_by="HASH (name)",  # a deletion rewrites one part of it, not all: docs/adr/0014
)
