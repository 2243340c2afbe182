"""Tables of people, companies, sessions and one-time values; private to this package."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, Index
from sqlmodel import Field, SQLModel

from vault.db import UtcDateTime
from vault.seal.signing import PUBLIC_KEY_BYTES


class PersonRow(SQLModel, table=True):
    """One vault and the person it belongs to."""

    __tablename__ = "person"

    vault_id: bytes = Field(primary_key=True)
    owner_key: bytes
    former_owner_keys: bytes
    next_owner_key_hash: bytes
    identity_digest: bytes
    time_zone: str
    created_at: datetime = Field(sa_type=UtcDateTime)
    state: str
    minor: bool
    guardian_ok: bool
    deceased: bool
    sequence: int
    freshness: str
    sandbox: bool = False


def split_keys(joined: bytes) -> tuple[bytes, ...]:
    """Return the keys that a column holds one behind the other."""
    return tuple(joined[at : at + PUBLIC_KEY_BYTES] for at in range(0, len(joined), PUBLIC_KEY_BYTES))


class PersonRecordRow(SQLModel, table=True):
    """One signed record about a vault, under the id of its leaf."""

    __tablename__ = "person_record"
    __table_args__ = (Index("ix_person_record_vault_id", "vault_id", "identity"),)

    pending_id: int = Field(primary_key=True, sa_type=BigInteger, sa_column_kwargs={"autoincrement": False})
    vault_id: bytes
    envelope: bytes
    identity: bool


class CompanyRow(SQLModel, table=True):
    """One registered company, as its newest signed record says."""

    __tablename__ = "company"

    company_id: str = Field(primary_key=True)
    version: int
    record: str
    name: str
    contact: str
    agent: bool
    redirect_uris: str
    client_auth_key: str
    question_key: str
    status: str
    sandbox: bool


class CompanyRecordRow(SQLModel, table=True):
    """One record of a company as it signed it; what its key signed is verified by the records from the first on."""

    __tablename__ = "company_record"

    company_id: str = Field(primary_key=True)
    version: int = Field(primary_key=True)
    record: str
    in_force_at_s: int = Field(sa_type=BigInteger)


class SessionRow(SQLModel, table=True):
    """One signed-in owner, watcher or device; the token itself is never stored."""

    __tablename__ = "party_session"

    token_hash: bytes = Field(primary_key=True)
    vault_id: bytes = Field(index=True)
    device_id: bytes | None
    watching: bool = False
    expires_at: datetime = Field(sa_type=UtcDateTime, index=True)


class RestoredRow(SQLModel, table=True):
    """When the database was last set back; one row, or none."""

    __tablename__ = "party_restored"

    id: int = Field(primary_key=True)
    at_s: int = Field(sa_type=BigInteger)


class SpentRow(SQLModel, table=True):
    """One value that was used and may not be used again before it expires anyway."""

    __tablename__ = "spent"

    digest: bytes = Field(primary_key=True)
    expires_at_s: int = Field(sa_type=BigInteger, index=True)
