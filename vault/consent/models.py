"""Tables of consents, their versions, their handovers and what a person met in a month; private to this package.

Core tables: every write is a conditional statement whose outcome counts, never a changed object.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, ForeignKey, Index, Integer, LargeBinary, String, Table
from sqlmodel import SQLModel

import vault.db  # noqa: F401  (sets the metadata's naming convention, which the constraints below take)

# What is in force of one consent; every event about it locks and advances this row.
consent = Table(
    "consent",
    SQLModel.metadata,
    Column("consent_id", LargeBinary, primary_key=True),
    Column("vault_id", LargeBinary, nullable=False, index=True),
    Column("subject", LargeBinary, nullable=False),
    Column("kind", String, nullable=False),
    Column("grantee", String, nullable=False),
    Column("version", Integer, nullable=False),
    Column("event", String, nullable=False),
    Column("live", Boolean, nullable=False),
    Column("not_before", BigInteger, nullable=False),
    Column("not_after", BigInteger, nullable=False),
    Column("quota_per_month", Integer, nullable=False),
    Column("quota_month", String, nullable=False),
    Column("quota_used", Integer, nullable=False),
    Column("consent_seq", BigInteger, nullable=False),
    Column("last_event", LargeBinary, nullable=False),
)
Index("ix_consent_grantee_consent_id", consent.c.grantee, consent.c.consent_id)
Index("ix_consent_expiry", consent.c.not_after, sqlite_where=consent.c.live, postgresql_where=consent.c.live)

# Signed versions. A trigger refuses every change but forgetting the three bodies.
version = Table(
    "consent_version",
    SQLModel.metadata,
    Column("consent_id", LargeBinary, ForeignKey("consent.consent_id"), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("sha256", LargeBinary, nullable=False),
    Column("leaf_id", BigInteger, nullable=False, index=True),
    Column("envelope", LargeBinary),
    Column("request", LargeBinary),
    Column("certificate", LargeBinary),
)

# `locked` is the handover with the chain it descends through, under its short key; it stays opaque here.
handover = Table(
    "handover",
    SQLModel.metadata,
    Column("digest", LargeBinary, primary_key=True),
    Column("consent_id", LargeBinary, ForeignKey("consent.consent_id"), nullable=False),
    Column("version", Integer, nullable=False),
    Column("key_kind", String, nullable=False),
    Column("live", Boolean, nullable=False),
    Column("recipient", LargeBinary, nullable=False),
    Column("locked", LargeBinary, nullable=False),
    Column("leaf_id", BigInteger, nullable=False),
)
# All that an answer looks for: with the consent alone in it, planners took the one below, and read every live handover.
Index("ix_handover_place", handover.c.consent_id, handover.c.version, handover.c.key_kind)
Index(
    "ix_handover_recipient",
    handover.c.key_kind,
    handover.c.recipient,
    sqlite_where=handover.c.live,
    postgresql_where=handover.c.live,
)

# `ranked` holds tags of candidates under a key that is not in this database.
exposure = Table(
    "exposure",
    SQLModel.metadata,
    Column("vault_id", LargeBinary, primary_key=True),
    Column("month", String(7), primary_key=True),
    Column("stimuli", Integer, nullable=False),
    Column("variations", Integer, nullable=False),
    Column("ranked", String, nullable=False),
)
