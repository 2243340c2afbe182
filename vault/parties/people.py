"""People as parties: one vault each, its owner key through successions, its profile, its freeze."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

import sqlalchemy
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, SQLModel, col, delete, select

from vault.clock import unix_s
from vault.db import Prepared
from vault.encoding import JsonObject, b64u
from vault.errors import VaultError
from vault.parties import turns
from vault.parties.models import PersonRecordRow, PersonRow, SessionRow, split_keys
from vault.parties.turns import Turns
from vault.proof.leaf import LeafKind
from vault.schema.freshness import Freshness
from vault.seal.dsse import Envelope
from vault.seal.errors import SealError
from vault.seal.ids import VaultId
from vault.seal.person import Profile, verify_freeze, verify_genesis, verify_profile
from vault.tlog.log import Pending, PendingId, append, delete_personal_openings

_CLOCK_SKEW_S = 300

_TABLE: Final = SQLModel.metadata.tables["person"]
_MINE: Final = _TABLE.c.vault_id == sqlalchemy.bindparam("vault_id")
_FIND: Final = Prepared(sqlalchemy.select(_TABLE).where(_MINE))
_LOCK: Final = sqlalchemy.select(_TABLE.c.vault_id).where(_MINE).with_for_update()
_ALONE: Final = Turns(sqlalchemy.select(turns.alone(sqlalchemy.func.encode(_TABLE.c.vault_id, "hex"))).where(_MINE))
_STAY: Final = _LOCK.with_for_update(read=True)
AS_DECIDED: Final = [_TABLE.c[one.name] == sqlalchemy.bindparam(f"decided_{one.name}") for one in fields(Profile)]
"""That a person's profile is still the one that was decided on."""


class UnknownVault(VaultError):
    """No vault of that id lives here."""

    slug = "unknown-vault"
    title = "Unknown vault"
    status = 404


class VaultExists(VaultError):
    """A vault with that genesis lives here already."""

    slug = "vault-exists"
    title = "Vault exists"
    status = 409


class BadGenesis(VaultError):
    """A genesis that verifies but cannot begin a vault here."""

    slug = "bad-genesis"
    title = "Genesis is not acceptable"
    status = 422


class VaultState(StrEnum):
    """Whether anything may be answered or learned from a vault."""

    ACTIVE = "active"
    FROZEN = "frozen"


@dataclass(frozen=True, slots=True)
class Person:
    """A vault and the person it belongs to.

    Args:
        vault_id: The vault.
        owner_key: Ed25519 public key now in force, 32 bytes.
        former_owner_keys: Those that it and others before it succeeded, oldest first.
        next_owner_key_hash: SHA-256 of the key that may succeed it.
        identity_digest: Digest of the newest genesis or succession, which the next one names as `prev`.
        time_zone: IANA name.
        created_at: When the vault began here.
        state: Frozen or not.
        profile: As last signed.
        sequence: Of the last profile or freeze record; the next one has this plus one.
        freshness: Which days close together, as last chosen.
    """

    vault_id: VaultId
    owner_key: bytes
    former_owner_keys: tuple[bytes, ...]
    next_owner_key_hash: bytes
    identity_digest: bytes
    time_zone: str
    created_at: datetime
    state: VaultState
    profile: Profile
    sequence: int
    freshness: Freshness

    @property
    def owner_keys(self) -> tuple[bytes, ...]:
        """Every key that was the owner's: what it signed while it was in force, and was taken in then, holds."""
        return (*self.former_owner_keys, self.owner_key)


def create(session: Session, envelope: Envelope, *, now: datetime) -> Person:
    """Begin a vault; writes the row and its leaf.

    Args:
        session: An open writing transaction.
        envelope: The genesis.
        now: The current time.

    Raises:
        SealError: The genesis does not verify.
        BadGenesis: It was made in the future.
        VaultExists: The vault lives here already.
    """
    genesis = verify_genesis(envelope)
    if genesis.created_at > unix_s(now) + _CLOCK_SKEW_S:
        raise BadGenesis("The genesis was made in the future; check the clock of the device that signed it.")
    row = PersonRow(
        vault_id=genesis.vault_id,
        owner_key=genesis.owner_key,
        former_owner_keys=b"",
        next_owner_key_hash=genesis.next_owner_key_hash,
        identity_digest=envelope.digest,
        time_zone=genesis.time_zone,
        created_at=datetime.fromtimestamp(genesis.created_at, UTC),
        state=VaultState.ACTIVE,
        minor=genesis.profile.minor,
        guardian_ok=genesis.profile.guardian_ok,
        deceased=genesis.profile.deceased,
        sequence=0,
        freshness=Freshness.MONTH,  # loses nothing of what is imported once a month
    )
    session.add(row)
    try:
        session.flush()
    except IntegrityError as error:  # the same genesis arrived twice at once
        raise VaultExists("A vault with this genesis lives here already; sign in to it instead.") from error
    write_record(session, row, LeafKind.VAULT_GENESIS, envelope, now)
    return _person(row)


def set_profile(session: Session, vault_id: VaultId, envelope: Envelope, *, now: datetime) -> Pending:
    """Put a signed profile in force; writes the row and its leaf. For `AS_DECIDED`, what `freeze` guarantees holds.

    Returns:
        The leaf, to wait for.

    Raises:
        SealError: The profile does not verify or is not the next record.
        UnknownVault: No such vault.
    """
    row = locked(session, vault_id)
    profile = verify_profile(envelope, owner_key=row.owner_key, vault_id=vault_id, sequence=row.sequence + 1)
    row.minor, row.guardian_ok, row.deceased = profile.minor, profile.guardian_ok, profile.deceased
    row.sequence += 1
    return write_record(session, row, LeafKind.PROFILE, envelope, now)


def follow_freeze(session: Session, vault_id: VaultId, envelope: Envelope, *, now: datetime) -> Pending:
    """Freeze or unfreeze as the owner signed; writes the row and its leaf. See `freeze` for what it guarantees.

    Returns:
        The leaf, to wait for.

    Raises:
        SealError: The order does not verify or is not the next record.
        UnknownVault: No such vault.
    """
    row = locked(session, vault_id)
    frozen = verify_freeze(envelope, owner_key=row.owner_key, vault_id=vault_id, sequence=row.sequence + 1)
    row.state = VaultState.FROZEN if frozen else VaultState.ACTIVE
    row.sequence += 1
    return write_record(session, row, LeafKind.FREEZE, envelope, now, frozen=int(frozen))


def freeze(
    session: Session, vault_id: VaultId, state: VaultState, cause: Envelope, *, again: bool = False, now: datetime
) -> Pending:
    """Freeze or unfreeze on the word of someone other than the owner; writes the row and its leaf.

    Args:
        session: An open writing transaction.
        vault_id: The vault.
        state: What it becomes.
        cause: The executors' or operator's signed record, which the caller has verified.
        again: A restored database forgot it, and with it whether it was in force; the leaf says so.
        now: The current time.

    Returns:
        The leaf, to wait for.

    Guarantees: an answer whose transaction used `not_frozen` has committed, with its leaf, before
    a freeze's leaf is inserted, or it does not commit at all.

    Raises:
        UnknownVault: No such vault.
    """
    row = locked(session, vault_id)
    row.state = state
    more = {"again": 1} if again else {}
    return write_record(session, row, LeafKind.FREEZE, cause, now, frozen=int(state is VaultState.FROZEN), **more)


def repeat(
    session: Session, vault_id: VaultId, kind: LeafKind, envelope: Envelope, *, forbids: bool, now: datetime
) -> bool:
    """Put a record in force again that a restored database forgot; safe to repeat.

    Args:
        session: An open writing transaction.
        vault_id: The vault.
        kind: What the record was: a profile or a freeze.
        envelope: The record.
        forbids: Whether by it the vault was frozen, or the person said to have died.
        now: The current time.

    Returns:
        Whether it was followed. What the owner did not sign, or not next, only ever forbids.
    """
    if find(session, vault_id) is None or envelope.encoded in records(session, vault_id):
        return False
    follow = set_profile if kind is LeafKind.PROFILE else follow_freeze
    try:
        follow(session, vault_id, envelope, now=now)
    except SealError:
        if forbids and kind is LeafKind.PROFILE:
            call_deceased(session, vault_id, envelope, deceased=True, again=True, now=now)
        elif forbids:
            freeze(session, vault_id, VaultState.FROZEN, envelope, again=True, now=now)
        return forbids
    return True


def call_deceased(
    session: Session, vault_id: VaultId, cause: Envelope, *, deceased: bool, again: bool = False, now: datetime
) -> None:
    """Say in the profile that the person has died, or has not, on the word of someone else; writes row and leaf.

    Args:
        session: An open writing transaction.
        vault_id: The vault.
        cause: The executors' declaration, or the owner's sign of life, which the caller has verified.
        deceased: Which.
        again: A restored database forgot it, and with it whether it was in force; the leaf says so.
        now: The current time.

    Raises:
        UnknownVault: No such vault.
    """
    row = locked(session, vault_id)
    row.deceased = deceased
    more = {"again": 1} if again else {}
    write_record(session, row, LeafKind.PROFILE, cause, now, deceased=int(deceased), **more)


def not_frozen(
    vault_id: sqlalchemy.ColumnElement[bytes] | bytes, *also: sqlalchemy.ColumnElement[bool]
) -> sqlalchemy.ColumnElement[bool]:
    """Return the condition that a vault lives here and is not frozen, for a WHERE; `also` is about the person's row.

    The row is share-locked where the condition is evaluated: under PostgreSQL's READ COMMITTED a
    plain subquery would keep the statement's old snapshot even after waiting for a freeze.
    """
    active = select(PersonRow.vault_id).where(
        col(PersonRow.vault_id) == vault_id, col(PersonRow.state) == VaultState.ACTIVE, *also
    )
    return active.with_for_update(read=True).exists()


def find(session: Session, vault_id: VaultId) -> Person | None:
    """Return a person, if the vault lives here."""
    row = _FIND.one(session, vault_id=vault_id)
    return None if row is None else _person(row)


def get(session: Session, vault_id: VaultId) -> Person:
    """Return a person.

    Raises:
        UnknownVault: The vault does not live here.
    """
    person = find(session, vault_id)
    if person is None:
        raise UnknownVault("No vault of this id lives here.")
    return person


def lock(session: Session, vault_id: VaultId) -> bool:
    """Keep everybody else's hands off a person until the transaction ends; say whether there is one.

    Who also locks consents or the ring locks the person first: so does every answer, by `not_frozen`.
    """
    _ALONE.take(session, vault_id=vault_id)
    return session.connection().execute(_LOCK, {"vault_id": vault_id}).one_or_none() is not None


def stay(session: Session, vault_id: VaultId) -> None:
    """Make sure that a person is here and is not erased before the transaction ends.

    Raises:
        UnknownVault: The vault does not live here.
    """
    if session.connection().execute(_STAY, {"vault_id": vault_id}).one_or_none() is None:
        raise UnknownVault("No vault of this id lives here.")


def envelopes(session: Session, pending_ids: Iterable[PendingId]) -> dict[PendingId, bytes]:
    """Return the records whose leaves these are."""
    found = select(PersonRecordRow).where(col(PersonRecordRow.pending_id).in_(list(pending_ids)))
    return {PendingId(row.pending_id): row.envelope for row in session.exec(found)}


def records(session: Session, vault_id: VaultId) -> list[bytes]:
    """Return the envelopes of genesis, successions, profiles and freezes, in the order they took effect."""
    found = select(PersonRecordRow.envelope).where(col(PersonRecordRow.vault_id) == vault_id)
    return list(session.exec(found.order_by(col(PersonRecordRow.pending_id))))


def forget(session: Session, vault_id: VaultId) -> None:
    """Delete everything kept here about a person; erasure calls this after its own leaf is written."""
    about = col(PersonRecordRow.vault_id) == vault_id
    pending_ids = [
        PendingId(pending_id) for pending_id in session.exec(select(PersonRecordRow.pending_id).where(about))
    ]
    delete_personal_openings(session, pending_ids)
    session.execute(delete(PersonRecordRow).where(about))
    session.execute(delete(SessionRow).where(col(SessionRow.vault_id) == vault_id))
    session.execute(delete(PersonRow).where(col(PersonRow.vault_id) == vault_id))


def locked(session: Session, vault_id: VaultId) -> PersonRow:
    """Return a person's row, locked until the transaction ends.

    Raises:
        UnknownVault: The vault does not live here.
    """
    _ALONE.take(session, vault_id=vault_id)
    row = session.exec(
        select(PersonRow)
        .where(col(PersonRow.vault_id) == vault_id)
        .with_for_update()
        .execution_options(populate_existing=True)
    ).one_or_none()
    if row is None:
        raise UnknownVault("No vault of this id lives here.")
    return row


def write_record(
    session: Session, row: PersonRow, kind: LeafKind, envelope: Envelope, now: datetime, **more: int
) -> Pending:
    """Write a person's row, and the leaf of the record that changed it; return the leaf."""
    # The public half must not tell one vault from another, so it carries the month and nothing else.
    public: JsonObject = {"period": f"{now:%Y-%m}"}
    personal: JsonObject = {"vault": b64u(row.vault_id), "record": b64u(envelope.digest), "at": unix_s(now), **more}
    session.add(row)
    session.flush()
    pending = append(session, kind, public, personal, about=row.vault_id)
    identity = kind in {LeafKind.VAULT_GENESIS, LeafKind.SUCCESSION}
    session.add(PersonRecordRow(
        pending_id=pending.id, vault_id=row.vault_id, envelope=envelope.encoded, identity=identity
    ))  # fmt: skip
    session.flush()
    return pending


def _person(row: PersonRow | sqlalchemy.Row[Any]) -> Person:
    return Person(
        vault_id=VaultId(row.vault_id),
        owner_key=row.owner_key,
        former_owner_keys=split_keys(row.former_owner_keys),
        next_owner_key_hash=row.next_owner_key_hash,
        identity_digest=row.identity_digest,
        time_zone=row.time_zone,
        created_at=row.created_at,
        state=VaultState(row.state),
        profile=Profile(row.minor, row.guardian_ok, row.deceased),
        sequence=row.sequence,
        freshness=Freshness(row.freshness),
    )
