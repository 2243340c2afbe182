"""Legacies: the owner's plan, the executors' declaration, the waiting period, and the signs of life that stop it.

A declaration starts the waiting period; when it has passed the vault is frozen, whatever else the plan allows. An
owner who signs in before or after ends the legacy for good: the key was put together once, so it may be in one hand
now, and the next plan needs another. Whoever changes a legacy, or signs in where one exists, locks the person first:
of a sign of life and the end of the waiting period one comes first, and the other sees it.

Source: DESIGN section 12.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import Row, delete, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session

from vault.clock import month_of, unix_s
from vault.db import Database
from vault.encoding import JsonObject, b64u
from vault.erasure.erase import Asked
from vault.legacy.errors import BadPlan, BadStatement, OwnerIsHere, UnknownLegacy
from vault.legacy.models import legacy, legacy_record
from vault.parties import people, sessions
from vault.parties.people import UnknownVault, VaultState
from vault.proof.leaf import LeafKind
from vault.seal.dsse import Envelope, PayloadType, parse_envelope
from vault.seal.erasure import Author, Scope
from vault.seal.ids import VaultId, key_id, sha256
from vault.seal.legacy import Act, Choice, Plan, Statement, Terms, parse_plan, verify_plan, verify_statement
from vault.seal.version import Remembered
from vault.store.versions import require_successor
from vault.tlog.log import PendingId, append

EVERY_S: Final = 60
"""How often somebody looks whose waiting period has passed."""

_FRESH_S: Final = 86_400
_CLOCK_SKEW_S: Final = 300


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
        statement: The signed declaration; empty before any.
        until_s: Unix second from which on the declaration takes effect; 0 before any.
        leaf_id: The leaf of its newest step.
    """

    vault_id: VaultId
    plan: bytes
    digest: bytes
    terms: Terms | None
    state: LegacyState
    claim: bytes
    statement: bytes
    until_s: int
    leaf_id: PendingId


def publish(session: Session, vault_id: VaultId, envelope: Envelope, *, now: datetime) -> PendingId:
    """Put the owner's next plan in force, or withdraw it; writes the row and its leaf.

    Args:
        session: An open writing transaction.
        vault_id: The signed-in owner's vault.
        envelope: What arrived; the newest plan again changes nothing.
        now: The current time.

    Returns:
        The leaf to wait for.

    Raises:
        SealError: Malformed, another vault's, or not signed by its owner.
        BadPlan: Signed long ago or in the future, or with a legacy key that an earlier plan or another vault has.
        VersionConflict: Another version was published first.
    """
    _hold(session, vault_id)
    plan = verify_plan(envelope, people.get(session, vault_id).owner_key, vault_id)
    row = _row(session, vault_id)
    if row is not None and row.digest == envelope.digest:
        return PendingId(row.leaf_id)
    require_successor(plan.version, plan.prev, None if row is None else Remembered(row.version, row.digest))
    if not -_CLOCK_SKEW_S <= unix_s(now) - plan.issued_at <= _FRESH_S:
        raise BadPlan("A plan is sent within a day of being signed; check the clock and sign again.")
    if plan.terms is not None and plan.terms.legacy_key in _former_keys(session, vault_id):
        raise BadPlan("Each plan has a legacy key of its own; make new shares.")
    _put(session, plan, envelope, row)
    return _step(session, vault_id, LeafKind.LEGACY_PLAN, {"version": plan.version}, signed=envelope, now=now)


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
        raise UnknownLegacy("No plan in force has the legacy key of these shares: the owner changed or withdrew it.")
    return _legacy(row)


def declare(session: Session, legacy_id: bytes, envelope: Envelope, *, now: datetime) -> Legacy:
    """Start the waiting period on the executors' word; writes the row and its leaf.

    Args:
        session: An open writing transaction.
        legacy_id: Whose plan.
        envelope: Their statement; the same one again changes nothing.
        now: The current time.

    Raises:
        UnknownLegacy: No such plan.
        SealError: Not signed by the plan's legacy key, or about another plan.
        BadStatement: Not a fresh declaration, or the plan is waiting, in force or ended already.
        OwnerIsHere: The owner signed in within the last minutes.

    Guarantees: nobody but who holds the legacy key, and so enough shares, can start it.
    """
    found, said = _verified(session, legacy_id, envelope)
    if (found.claim, found.statement) == (said.claim, envelope.encoded) and found.state is LegacyState.WAITING:
        return found
    if said.act is not Act.DECLARE or found.state is not LegacyState.READY:
        raise BadStatement(f"Nothing can be declared now: the plan is {found.state}.")
    _refuse_stale(said, now)
    if sessions.is_owner_here(session, found.vault_id, now=now):
        raise OwnerIsHere("The owner signed in within the last 15 minutes; nothing was declared.")
    assert found.terms is not None
    until_s = unix_s(now) + found.terms.waiting_s
    values = {"state": LegacyState.WAITING, "claim": said.claim, "statement": envelope.encoded, "until_s": until_s}
    _update(session, found.vault_id, **values)
    personal: JsonObject = {"claim": b64u(said.claim), "until": until_s}
    _step(session, found.vault_id, LeafKind.LEGACY_CLAIM, personal, signed=envelope, now=now)
    return get(session, legacy_id)


def take_effect(session: Session, vault_id: VaultId, *, now: datetime) -> bool:
    """Put a declaration in force whose waiting period has passed: the vault is frozen; writes the rows and leaves.

    Returns:
        Whether it was due. A sign of life, an erasure or another process may have come first.
    """
    if not people.lock(session, vault_id):
        return False
    row = _row(session, vault_id)
    if row is None or row.state != LegacyState.WAITING or row.until_s > unix_s(now):
        return False
    declared = parse_envelope(row.statement)
    _update(session, vault_id, state=LegacyState.IN_FORCE)
    _step(session, vault_id, LeafKind.LEGACY_FORCE, {"claim": b64u(row.claim)}, signed=declared, now=now)
    people.freeze(session, vault_id, VaultState.FROZEN, declared, now=now)
    return True


def take_effect_due(database: Database, *, now: datetime) -> int:
    """Put every declaration in force whose waiting period has passed, each in its own transaction; return how many."""
    due = select(legacy.c.vault_id).where(legacy.c.state == LegacyState.WAITING, legacy.c.until_s <= unix_s(now))
    with database.snapshot() as session:
        vaults = [VaultId(name) for name in session.connection().execute(due.order_by(legacy.c.until_s)).scalars()]
    taken = 0
    for vault_id in vaults:
        with database.transaction() as session:
            taken += take_effect(session, vault_id, now=now)
    return taken


def sign_of_life(session: Session, vault_id: VaultId, signed: Envelope, now: datetime) -> None:
    """End what executors declared, because the owner signs in; every sign-in as the owner calls this.

    Args:
        session: The transaction that opens the session.
        vault_id: Whose.
        signed: The owner's verified answer to the challenge.
        now: The current time.

    Raises:
        UnknownVault: The vault was erased meanwhile.

    Guarantees: of a declaration and a sign-in at once, either the declaration sees the session and is refused, or
        the sign-in sees the declaration and ends it.
    """
    if find(session, vault_id) is None:  # only a signed-in owner makes a first plan, and none can be declared by then
        return
    _hold(session, vault_id)
    row = _row(session, vault_id)
    if row is None or row.state not in {LegacyState.WAITING, LegacyState.IN_FORCE}:
        return
    _update(session, vault_id, state=LegacyState.ENDED)
    _step(session, vault_id, LeafKind.LEGACY_VETO, {"claim": b64u(row.claim)}, signed=signed, now=now)


def verify_erasing(session: Session, legacy_id: bytes, envelope: Envelope, *, now: datetime) -> Asked:
    """Return what executors may erase now: everything that is kept about the person; the caller does it.

    Args:
        session: An open writing transaction, in which it is erased.
        legacy_id: Whose plan.
        envelope: Their statement.
        now: The current time.

    Raises:
        UnknownLegacy: No such plan.
        SealError: Not signed by the plan's legacy key, or about another plan.
        BadStatement: The plan does not allow it, its waiting period has not passed, the statement was signed before
            it had, or is about another declaration.
    """
    found, said = _verified(session, legacy_id, envelope)
    if said.act is not Act.ERASE or found.terms is None or found.terms.choice is not Choice.ERASE:
        raise BadStatement("The statement does not order it, or the owner's plan does not let executors erase.")
    if found.state is not LegacyState.IN_FORCE or said.claim != found.claim:
        raise BadStatement(f"Executors erase once their declaration is in force; the plan is {found.state}.")
    _refuse_stale(said, now)
    if said.issued_at < found.until_s:
        raise BadStatement("The order to erase was signed before the waiting period had passed; sign it again.")
    return Asked(said.claim, Scope(found.vault_id, None), Author.EXECUTORS, said.reason, envelope.digest)


def forget(session: Session, scope: Scope) -> None:
    """Forget the plan of a person of whom nothing stays; erasure calls this, and forgets the leaves' openings itself."""
    if scope.whole:
        for table in (legacy, legacy_record):
            session.connection().execute(delete(table).where(table.c.vault_id == scope.vault))


def end_again(session: Session, vaults: set[VaultId]) -> int:
    """End the plans of vaults that a restored database forgot a newer plan or a sign of life of.

    Returns:
        How many were not over. Their owners make new ones.
    """
    over = legacy.c.vault_id.in_(vaults) & legacy.c.state.not_in([LegacyState.ENDED, LegacyState.WITHDRAWN])
    ended = update(legacy).where(over).values(state=LegacyState.ENDED)
    return int(session.connection().execute(ended).rowcount)


def records(session: Session, vault_id: VaultId) -> dict[PendingId, bytes]:
    """Return the signed records behind the steps of a vault's legacies, by the leaf of each."""
    wanted = select(legacy_record).where(legacy_record.c.vault_id == vault_id)
    return {PendingId(row.pending_id): row.envelope for row in session.connection().execute(wanted)}


def _hold(session: Session, vault_id: VaultId) -> None:
    if not people.lock(session, vault_id):
        raise UnknownVault("No vault of this id lives here.")


def _verified(session: Session, legacy_id: bytes, envelope: Envelope) -> tuple[Legacy, Statement]:
    """Lock whose legacy it is, and return it with what its key signed."""
    vault_id = get(session, legacy_id).vault_id
    _hold(session, vault_id)
    found = get(session, legacy_id)
    assert found.terms is not None
    return found, verify_statement(envelope, found.terms.legacy_key, vault_id, found.digest)


def _refuse_stale(said: Statement, now: datetime) -> None:
    if not -_CLOCK_SKEW_S <= unix_s(now) - said.issued_at <= _FRESH_S:
        raise BadStatement("A statement is sent within a day of being signed; check the clock and sign again.")


def _former_keys(session: Session, vault_id: VaultId) -> set[bytes]:
    found = set()
    for encoded in records(session, vault_id).values():
        envelope = parse_envelope(encoded)
        if envelope.payload_type is PayloadType.EXECUTORS:
            terms = parse_plan(envelope, vault_id).terms
            found |= set() if terms is None else {terms.legacy_key}
    return found


def _put(session: Session, plan: Plan, envelope: Envelope, row: Row[Any] | None) -> None:
    terms = plan.terms
    values = {
        "version": plan.version,
        "digest": envelope.digest,
        "plan": envelope.encoded,
        "legacy_id": None if terms is None else key_id(terms.legacy_key),
        "state": LegacyState.WITHDRAWN if terms is None else LegacyState.READY,
        "claim": b"",
        "statement": b"",
        "until_s": 0,
    }
    if row is not None:
        statement = update(legacy).where(legacy.c.vault_id == plan.vault).values(**values)
    else:
        first = {"vault_id": plan.vault, "leaf_id": 0, "seq": 0, "last_event": b""}
        statement = insert(legacy).values(**values, **first)  # type: ignore[assignment]  # either is executed
    try:
        session.connection().execute(statement)
    except IntegrityError as error:
        raise BadPlan("Another vault has this legacy key; make new shares.") from error


def _update(session: Session, vault_id: VaultId, **values: Any) -> None:
    session.connection().execute(update(legacy).where(legacy.c.vault_id == vault_id).values(**values))


def _step(
    session: Session, vault_id: VaultId, kind: LeafKind, personal: JsonObject, *, signed: Envelope, now: datetime
) -> PendingId:
    """Log one step: numbered, naming the one before, and with the signed record that caused it."""
    row = _row(session, vault_id)
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
    # As with all records about a vault, the public half must not tell one vault from another.
    pending = append(session, kind, {"period": month_of(now)}, said, about=vault_id)
    _update(session, vault_id, leaf_id=pending.id, seq=row.seq + 1, last_event=sha256(pending.openings.personal.body))
    kept = {"pending_id": pending.id, "vault_id": vault_id, "envelope": signed.encoded}
    session.connection().execute(insert(legacy_record), kept)
    return pending.id


def _row(session: Session, vault_id: VaultId) -> Row[Any] | None:
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
