"""Tables of answers and denials; private to this package.

`sealed` is locked under the serving key, so neither the database nor a backup of it reads an answer.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Integer, LargeBinary, String, Table
from sqlmodel import SQLModel

import vault.db  # noqa: F401  (sets the metadata's naming convention, which the constraints below take)

answer = Table(
    "answer",
    SQLModel.metadata,
    Column("consent_id", LargeBinary, primary_key=True),
    Column("question_id", LargeBinary, primary_key=True),
    Column("body_sha256", LargeBinary, nullable=False),
    Column("sender", String, nullable=False),
    Column("asked_at", BigInteger, nullable=False),
    Column("leaf_id", BigInteger, nullable=False, unique=True),
    Column("sealed", LargeBinary, nullable=False),
)

denial = Table(
    "denial",
    SQLModel.metadata,
    Column("leaf_id", BigInteger, primary_key=True, autoincrement=False),
    Column("consent_id", LargeBinary, nullable=False, index=True),
    Column("question_id", LargeBinary, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
)

# One row for each company that was ever denied: how often in the minute in which it was denied last.
denial_count = Table(
    "denial_count",
    SQLModel.metadata,
    Column("requester", String(64), primary_key=True),
    Column("minute_s", BigInteger, nullable=False),
    Column("denials", Integer, nullable=False),
)
