"""Tables of legacies and of the signed records behind their events; private to this package."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Integer, LargeBinary, String, Table
from sqlmodel import SQLModel

import vault.db  # noqa: F401  (sets the metadata's naming convention, which the constraints below take)

# One row for each vault that ever had a plan: the newest one, and how far it has come. `given` are the ids of the
# consents that were given out of what the owner sealed in advance, one after the other; `statement` is empty while
# nobody declared anything, also where the plan began by itself. `begun` is the first that witnesses saw of what is
# waiting, and `witnessed` what they saw of it in all, where a step names that. `froze`: the plan, which began by itself,
# froze a vault that nobody else had frozen.
legacy = Table(
    "legacy",
    SQLModel.metadata,
    Column("vault_id", LargeBinary, primary_key=True),
    Column("version", Integer, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("plan", LargeBinary, nullable=False),
    Column("legacy_id", LargeBinary, unique=True),
    Column("state", String, nullable=False),
    Column("claim", LargeBinary, nullable=False),
    Column("statement", LargeBinary, nullable=False),
    Column("until_s", BigInteger, nullable=False, index=True),
    Column("idle_until_s", BigInteger, nullable=False, index=True),
    Column("given", LargeBinary, nullable=False),
    Column("begun", LargeBinary, nullable=False),
    Column("froze", Boolean, nullable=False),
    Column("leaf_id", BigInteger, nullable=False),
    Column("seq", Integer, nullable=False),
    Column("last_event", LargeBinary, nullable=False),
)

legacy_record = Table(
    "legacy_record",
    SQLModel.metadata,
    Column("pending_id", BigInteger, primary_key=True, autoincrement=False),
    Column("vault_id", LargeBinary, nullable=False, index=True),
    Column("envelope", LargeBinary, nullable=False),
    Column("witnessed", LargeBinary, nullable=False),
)
