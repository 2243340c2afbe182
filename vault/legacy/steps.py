"""A legacy as it is kept: its row, its numbered and chained steps in the log, and what its executors sign."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import Row, insert, select, update
from sqlmodel import Session

from vault.clock import DAY_S, month_of, unix_s
from vault.encoding import JsonObject, b64u
from vault.legacy.errors import BadStatement, UnknownLegacy
from vault.legacy.models import legacy, legacy_record
from vault.parties import people
from vault.parties.people import UnknownVault
from vault.proof.leaf import LeafKind
from vault.seal.dsse import Envelope, parse_envelope
from vault.seal.ids import VaultId, sha256
from vault.seal.legacy import LegacyTerms, Statement, parse_plan, verify_statement
from vault.tlog.log import PendingId, append

FRESH_S: Final = DAY_S
CLOCK_SKEW_S: Final = 300


class LegacyState(StrEnum):
    """How far a plan has come."""

    READY = "ready"
    WAITING = "waiting"
    IN_FORCE = "in-force"
    ENDED = "ended"
    WITHDRAWN = "withdrawn"


@dataclass(frozen=True, slots=True)
class Legacy:
    """A vault's newest plan, and how far it has come.

    Args:
        vault_id: Whose.
        plan: The signed plan.
        digest: SHA-256 of its envelope.
        terms: What it says; None where it was withdrawn.
        state: How far it has come.
        claim: The declaration that is waiting, in force or ended; empty before any.
        statement: The signed declaration; empty before any, and where the plan began by itself.
        until_s: Unix second from which on the declaration takes effect; 0 before any.
        leaf_id: The leaf of its newest step.
    """

    vault_id: VaultId
    plan: bytes
    digest: bytes
    terms: LegacyTerms | None
    state: LegacyState
    claim: bytes
    statement: bytes
    until_s: int
    leaf_id: PendingId

    @property
    def declared(self) -> bool:
        """Whether executors declared what is waiting or in force; a plan that began by itself only ever freezes."""
        return bool(self.statement)


def find(session: Session, vault_id: VaultId) -> Legacy | None:
    """Return a vault's newest plan and how far it has come, if it ever had one."""
    row = session.connection().execute(select(legacy).where(legacy.c.vault_id == vault_id)).one_or_none()
    return None if row is None else _legacy(row)


def get(session: Session, legacy_id: bytes) -> Legacy:
    """Return the plan that has this legacy key.

    Args:
        session: Any transaction.
        legacy_id: First 16 bytes of SHA-256 of the legacy public key: who holds a share knows it, and nobody else.

    Raises:
        UnknownLegacy: None has.
    """
    row = session.connection().execute(select(legacy).where(legacy.c.legacy_id == legacy_id)).one_or_none()
    if row is None:
        raise UnknownLegacy(
            "No plan in force has the legacy key of these shares: the owner changed or withdrew it, or the vault was"
            " erased."
        )
    return _legacy(row)


def records(session: Session, vault_id: VaultId) -> dict[PendingId, bytes]:
    """Return the signed records behind the steps of a vault's legacies, by the leaf of each."""
    wanted = select(legacy_record).where(legacy_record.c.vault_id == vault_id)
    return {PendingId(row.pending_id): row.envelope for row in session.connection().execute(wanted)}


def waited(session: Session, vault_id: VaultId) -> list[bytes]:
    """Return what witnesses saw of a vault's waiting periods, as far as steps name it."""
    wanted = select(legacy_record.c.witnessed).where(legacy_record.c.vault_id == vault_id)
    return [found for found in session.connection().execute(wanted).scalars() if found]


def count_sealed(session: Session, before_s: int | None = None) -> int:
    """Return how many plans that are not over hold consents sealed in advance, which a new serving key spends.

    Args:
        session: Any open transaction.
        before_s: Only plans that were signed before this unix second, such as when the serving key was replaced.
    """
    wanted = select(legacy.c.plan, legacy.c.vault_id).where(
        legacy.c.state.in_([LegacyState.READY, LegacyState.WAITING, LegacyState.IN_FORCE])
    )
    plans = (
        parse_plan(parse_envelope(row.plan), VaultId(row.vault_id)) for row in session.connection().execute(wanted)
    )
    sealed = [plan for plan in plans if plan.terms is not None and plan.terms.sealed]
    return sum(before_s is None or plan.issued_at < before_s for plan in sealed)


def hold(session: Session, vault_id: VaultId) -> None:
    """Lock the person before anything of a legacy is read.

    Raises:
        UnknownVault: The vault does not live here.
    """
    if not people.lock(session, vault_id):
        raise UnknownVault("No vault of this id lives here.")


def verified(session: Session, legacy_id: bytes, envelope: Envelope) -> tuple[Legacy, Statement]:
    """Lock whose legacy it is, and return it with what its key signed.

    Raises:
        UnknownLegacy: No plan has this key.
        SealError: Another key signed it, or it is about another plan.
    """
    vault_id = get(session, legacy_id).vault_id
    hold(session, vault_id)
    found = get(session, legacy_id)
    assert found.terms is not None
    return found, verify_statement(envelope, found.terms.legacy_key, vault_id, found.digest)


def refuse_stale(said: Statement, now: datetime) -> None:
    """Refuse a statement that was signed long ago or in the future.

    Raises:
        BadStatement: It was.
    """
    if not -CLOCK_SKEW_S <= unix_s(now) - said.issued_at <= FRESH_S:
        raise BadStatement("A statement is sent within a day of being signed; check the clock and sign again.")


def change(session: Session, vault_id: VaultId, **values: Any) -> None:
    """Change the row of a vault's legacy, which the caller has locked."""
    session.connection().execute(update(legacy).where(legacy.c.vault_id == vault_id).values(**values))


def step(
    session: Session,
    vault_id: VaultId,
    kind: LeafKind,
    personal: JsonObject,
    *,
    signed: Envelope,
    witnessed: bytes = b"",
    now: datetime,
) -> PendingId:
    """Log one step: numbered, naming the one before, the signed record that caused it and what witnesses saw, if any."""
    row = read(session, vault_id)
    assert row is not None
    said: JsonObject = {
        **personal,
        "vault": b64u(vault_id),
        "plan": b64u(row.digest),
        "record": b64u(signed.digest),
        "seq": row.seq + 1,
        "prev": b64u(row.last_event),
        "at": unix_s(now),
    }
    if witnessed:
        said["witnessed"] = b64u(sha256(witnessed))
    # As with all records about a vault, the public half must not tell one vault from another.
    pending = append(session, kind, {"period": month_of(now)}, said, about=vault_id)
    change(session, vault_id, leaf_id=pending.id, seq=row.seq + 1, last_event=sha256(pending.openings.personal.body))
    kept = {"pending_id": pending.id, "vault_id": vault_id, "envelope": signed.encoded, "witnessed": witnessed}
    session.connection().execute(insert(legacy_record), kept)
    return pending.id


def read(session: Session, vault_id: VaultId) -> Row[Any] | None:
    """Return the row of a vault's legacy, locked, if it ever had a plan."""
    mine = select(legacy).where(legacy.c.vault_id == vault_id).with_for_update()
    return session.connection().execute(mine).one_or_none()


def _legacy(row: Row[Any]) -> Legacy:
    vault_id = VaultId(row.vault_id)
    return Legacy(
        vault_id,
        row.plan,
        row.digest,
        parse_plan(parse_envelope(row.plan), vault_id).terms,
        LegacyState(row.state),
        row.claim,
        row.statement,
        row.until_s,
        PendingId(row.leaf_id),
    )
