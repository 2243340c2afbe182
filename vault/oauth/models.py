"""Tables of authorization requests, refresh tokens and registrations; private to this package.

Core tables: every step is one conditional statement whose outcome counts. No secret of a company is stored, only
its SHA-256.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, LargeBinary, String, Table
from sqlmodel import SQLModel

import vault.db  # noqa: F401  (sets the metadata's naming convention)

# One pushed request, from `pushed` to `redeemed`. `user_code` is stored as it is: 35 bits would not survive
# hashing, and it is worth nothing without an owner's session.
authorization = Table(
    "oauth_authorization",
    SQLModel.metadata,
    Column("request_hash", LargeBinary, primary_key=True),
    Column("company_id", String, nullable=False, index=True),
    Column("parameters", String, nullable=False),
    Column("jkt", String, nullable=False),
    Column("request", String, nullable=False),
    Column("grant_id", LargeBinary),
    Column("state", String, nullable=False),
    Column("opens_until_s", BigInteger, nullable=False),
    Column("expires_at_s", BigInteger, nullable=False, index=True),
    Column("browser_hash", LargeBinary),
    Column("user_code", String, unique=True, index=True),
    Column("vault_id", LargeBinary, index=True),
    Column("consent_id", LargeBinary),
    Column("code_hash", LargeBinary, unique=True, index=True),
    Column("family_id", LargeBinary),
)

# All refresh tokens that descend from one code: one row, whichever is in force. A revoked family has none.
family = Table(
    "oauth_family",
    SQLModel.metadata,
    Column("family_id", LargeBinary, primary_key=True),
    Column("company_id", String, nullable=False, index=True),
    Column("consent_id", LargeBinary, nullable=False, index=True),
    Column("secret_hash", LargeBinary, nullable=False),
    Column("former_hash", LargeBinary, nullable=False),
    Column("retry_until_s", BigInteger, nullable=False),
    Column("expires_at_s", BigInteger, nullable=False, index=True),
)

# Companies that wait for the operator; nothing of them is logged, and they can do nothing.
registration = Table(
    "oauth_registration",
    SQLModel.metadata,
    Column("company_id", String, primary_key=True),
    Column("record", String, nullable=False),
    Column("received_at_s", BigInteger, nullable=False, index=True),
    Column("invited", Boolean, nullable=False),
)

# Initial access tokens that the operator handed out; the first company that uses one keeps it.
invitation = Table(
    "oauth_invitation",
    SQLModel.metadata,
    Column("token_hash", LargeBinary, primary_key=True),
    Column("company_id", String),
    Column("expires_at_s", BigInteger, nullable=False, index=True),
)
