"""Legacies: the owner's plan, the executors' declaration, the waiting period, and the signs of life that stop it.

A declaration starts the waiting period; when it has passed the vault is frozen, unless the owner chose that it answers
what stays allowed after death. An owner who signs in before or after ends the legacy for good: the key was put together once, so it may be in one hand
now, and the next plan needs another. Whoever changes a legacy, or signs in where one exists, locks the person first:
of a sign of life and the end of the waiting period one comes first, and the other sees it.

Source: DESIGN section 12.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Row, delete, insert, select
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session

from vault.clock import unix_s
from vault.consent import changes, consents
from vault.db import Database
from vault.encoding import JsonObject, b64u
from vault.legacy import steps, watching
from vault.legacy.errors import BadPlan, BadStatement, OwnerIsHere
from vault.legacy.models import legacy, legacy_record
from vault.legacy.steps import Legacy, LegacyState
from vault.parties import people, sessions
from vault.parties.people import VaultState
from vault.proof.leaf import LeafKind
from vault.schema.consent import ConsentEvent
from vault.seal.dsse import Envelope, PayloadType, parse_envelope
from vault.seal.erasure import Scope
from vault.seal.ids import ID_BYTES, ConsentId, VaultId, key_id, new_id
from vault.seal.legacy import Act, Choice, LegacyTerms, Plan, parse_plan, verify_plan
from vault.seal.signing import Signer
from vault.seal.version import Remembered
from vault.store.versions import require_successor
from vault.tlog.log import PendingId

EVERY_S: Final = 60
"""How often somebody looks whose waiting period has passed."""


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
    steps.hold(session, vault_id)
    plan = verify_plan(envelope, people.get(session, vault_id).owner_key, vault_id)
    row = steps.read(session, vault_id)
    if row is not None and row.digest == envelope.digest:
        return PendingId(row.leaf_id)
    require_successor(plan.version, plan.prev, None if row is None else Remembered(row.version, row.digest))
    if not -steps.CLOCK_SKEW_S <= unix_s(now) - plan.issued_at <= steps.FRESH_S:
        raise BadPlan("A plan is sent within a day of being signed; check the clock and sign again.")
    if plan.terms is not None and plan.terms.legacy_key in _former_keys(session, vault_id):
        raise BadPlan("Each plan has a legacy key of its own; make new shares.")
    _put(session, plan, envelope, row, now)
    said: JsonObject = {"version": plan.version, "sealed": 0 if plan.terms is None else len(plan.terms.sealed)}
    return steps.step(session, vault_id, LeafKind.LEGACY_PLAN, said, signed=envelope, now=now)


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
        BadStatement: Not a fresh declaration, or the plan is waiting, in force or ended already; one that began by
            itself is overtaken.
        OwnerIsHere: The owner signed in within the last minutes.

    Guarantees: nobody but who holds the legacy key, and so enough shares, can start it.
    """
    found, said = steps.verified(session, legacy_id, envelope)
    if (found.claim, found.statement) == (said.claim, envelope.encoded) and found.state is LegacyState.WAITING:
        return found
    began_alone = found.state in {LegacyState.WAITING, LegacyState.IN_FORCE} and not found.declared
    if said.act is not Act.DECLARE or not (found.state is LegacyState.READY or began_alone):
        raise BadStatement(f"Nothing can be declared now: the plan is {found.state}.")
    steps.refuse_stale(said, now)
    if sessions.is_owner_here(session, found.vault_id, now=now):
        raise OwnerIsHere("The owner signed in within the last 15 minutes; nothing was declared.")
    assert found.terms is not None
    until_s = unix_s(now) + found.terms.waiting_s
    values = {"state": LegacyState.WAITING, "claim": said.claim, "statement": envelope.encoded, "until_s": until_s}
    steps.change(session, found.vault_id, **values, begun=b"")
    personal: JsonObject = {"claim": b64u(said.claim), "until": until_s}
    steps.step(session, found.vault_id, LeafKind.LEGACY_CLAIM, personal, signed=envelope, now=now)
    return steps.get(session, legacy_id)


def begin_alone(session: Session, vault_id: VaultId, *, now: datetime) -> bool:
    """Start the waiting period because the owner gave no sign of life for as long as the plan says; writes row and leaf.

    Only a freeze can follow, which the service could do anyway.

    Returns:
        Whether it was due.
    """
    if not people.lock(session, vault_id):
        return False
    row = steps.read(session, vault_id)
    if row is None or row.state != LegacyState.READY or not 0 < row.idle_until_s <= unix_s(now):
        return False
    plan = parse_envelope(row.plan)
    terms = parse_plan(plan, vault_id).terms
    assert terms is not None
    claim, until_s = new_id(), unix_s(now) + terms.waiting_s
    steps.change(session, vault_id, state=LegacyState.WAITING, claim=claim, until_s=until_s, begun=b"")
    since = row.idle_until_s - terms.inactive_s
    personal: JsonObject = {"claim": b64u(claim), "until": until_s, "inactive_since": since}
    steps.step(session, vault_id, LeafKind.LEGACY_CLAIM, personal, signed=plan, now=now)
    return True


def take_effect(session: Session, vault_id: VaultId, *, now: datetime) -> bool:
    """Put a declaration in force whose waiting period has passed; writes the rows and leaves.

    The vault is frozen; if the owner's choice is to answer, it is said in the profile that the person has died, and
    the rules allow only what stays allowed after that. If only the plan itself had frozen it, it answers again.

    Returns:
        Whether it was due. A sign of life, an erasure or another process may have come first.
    """
    if not people.lock(session, vault_id):
        return False
    row = steps.read(session, vault_id)
    if row is None or row.state != LegacyState.WAITING or row.until_s > unix_s(now):
        return False
    declared = parse_envelope(row.statement or row.plan)
    steps.change(session, vault_id, state=LegacyState.IN_FORCE)
    said: JsonObject = {"claim": b64u(row.claim)}
    witnessed = watching.end(session, row)
    steps.step(session, vault_id, LeafKind.LEGACY_FORCE, said, signed=declared, witnessed=witnessed, now=now)
    if _answers(row):
        people.call_deceased(session, vault_id, declared, deceased=True, now=now)
        if row.froze:  # nobody living could unfreeze it
            people.freeze(session, vault_id, VaultState.ACTIVE, declared, now=now)
            steps.change(session, vault_id, froze=False)
    else:
        alone = not row.statement and people.get(session, vault_id).state is VaultState.ACTIVE
        steps.change(session, vault_id, froze=row.froze or alone)
        people.freeze(session, vault_id, VaultState.FROZEN, declared, now=now)
    return True


def remember_freeze(session: Session, vault_id: VaultId, cause: Envelope) -> None:
    """Note that a restored database's vault, which was not frozen, is frozen again by its plan alone, if that caused it."""
    row = steps.read(session, vault_id)
    if row is not None and row.digest == cause.digest:
        steps.change(session, vault_id, froze=True)


def take_effect_due(database: Database, *, now: datetime) -> int:
    """Begin what begins by itself, keep what witnesses see of it, put in force what has waited, each by itself.

    Returns:
        How many took effect.
    """
    idle = select(legacy.c.vault_id).where(
        legacy.c.state == LegacyState.READY, legacy.c.idle_until_s > 0, legacy.c.idle_until_s <= unix_s(now)
    )
    with database.snapshot() as session:
        alone = [VaultId(name) for name in session.connection().execute(idle).scalars()]
    for vault_id in alone:
        with database.transaction() as session:
            begin_alone(session, vault_id, now=now)
    waiting = select(legacy.c.vault_id).where(legacy.c.state == LegacyState.WAITING)
    with database.snapshot() as session:
        unseen = session.connection().execute(waiting.where(legacy.c.begun == b"")).scalars().all()
    for name in unseen:
        with database.transaction() as session:
            watching.begin(session, VaultId(name), now=now)
    due = waiting.where(legacy.c.until_s <= unix_s(now))
    with database.snapshot() as session:
        vaults = [VaultId(name) for name in session.connection().execute(due.order_by(legacy.c.until_s)).scalars()]
    taken = 0
    for vault_id in vaults:
        with database.transaction() as session:
            taken += take_effect(session, vault_id, now=now)
    return taken


def sign_of_life(session: Session, vault_id: VaultId, signed: Envelope, now: datetime, *, service: Signer) -> None:
    """End what executors declared, because the owner signs in; every sign-in as the owner calls this.

    Args:
        session: The transaction that opens the session, in which the caller has locked the person.
        vault_id: Whose.
        signed: The owner's verified answer to the challenge.
        now: The current time.
        service: The service's signing key, which ends the consents that executors gave.

    Guarantees: of a declaration and a sign-in at once, either the declaration sees the session and is refused, or
        the sign-in sees the declaration and ends it.
    """
    person = people.find(session, vault_id)
    if steps.find(session, vault_id) is None and not (person and person.profile.deceased):
        return  # only a signed-in owner makes a first plan, and none can be declared by then
    row = steps.read(session, vault_id)
    if row is not None:
        _end_waiting(session, row, signed, now=now, service=service)
    if people.get(session, vault_id).profile.deceased:  # by a declaration, which a restored database may not know
        people.call_deceased(session, vault_id, signed, deceased=False, now=now)


def _end_waiting(session: Session, row: Row[Any], signed: Envelope, *, now: datetime, service: Signer) -> None:
    vault_id = VaultId(row.vault_id)
    idle_until_s = _idle_until(parse_plan(parse_envelope(row.plan), vault_id).terms, now)
    if row.state not in {LegacyState.WAITING, LegacyState.IN_FORCE}:
        if idle_until_s > row.idle_until_s:
            steps.change(session, vault_id, idle_until_s=idle_until_s)
        return
    # Where nobody put the key together, it stays good.
    over = {"state": LegacyState.ENDED} if row.statement else {"state": LegacyState.READY, "claim": b"", "until_s": 0}
    steps.change(session, vault_id, **over, idle_until_s=idle_until_s, froze=False)
    steps.step(session, vault_id, LeafKind.LEGACY_VETO, {"claim": b64u(row.claim)}, signed=signed, now=now)
    if row.state == LegacyState.IN_FORCE and _answers(row):
        for consent_id in _ids(row.given):
            found = consents.find(session, consent_id)
            if found is not None and found.live:
                changes.end(session, consent_id, ConsentEvent.REVOKED, service=service, now=now)


def forget(session: Session, scope: Scope) -> None:
    """Forget the plan of a person of whom nothing stays; erasure calls this, and forgets the leaves' openings itself."""
    if scope.whole:
        for table in (legacy, legacy_record):
            session.connection().execute(delete(table).where(table.c.vault_id == scope.vault))


def end_again(session: Session, vaults: Iterable[VaultId], *, now: datetime) -> int:
    """End the plans of vaults that a restored database forgot a newer plan or a sign of life of.

    Args:
        session: An open writing transaction.
        vaults: Whose.
        now: The current time.

    Returns:
        How many were not over. Their owners make new ones; consents that executors gave are ended by their own events.
    """
    ended = 0
    for vault_id in sorted(set(vaults)):
        row = steps.read(session, vault_id) if people.lock(session, vault_id) else None
        if row is None or row.state in {LegacyState.ENDED, LegacyState.WITHDRAWN}:
            continue
        steps.change(session, vault_id, state=LegacyState.ENDED)
        if row.state == LegacyState.IN_FORCE and _answers(row):
            people.call_deceased(session, vault_id, parse_envelope(row.statement), deceased=False, now=now)
        ended += 1
    return ended


def _answers(row: Row[Any]) -> bool:
    terms = parse_plan(parse_envelope(row.plan), VaultId(row.vault_id)).terms
    return bool(row.statement) and terms is not None and terms.choice is Choice.ANSWER


def _idle_until(terms: LegacyTerms | None, now: datetime) -> int:
    return unix_s(now) + terms.inactive_s if terms is not None and terms.inactive_days else 0


def _ids(joined: bytes) -> list[ConsentId]:
    return [ConsentId(joined[at : at + ID_BYTES]) for at in range(0, len(joined), ID_BYTES)]


def _former_keys(session: Session, vault_id: VaultId) -> set[bytes]:
    found = set()
    for encoded in steps.records(session, vault_id).values():
        envelope = parse_envelope(encoded)
        if envelope.payload_type is PayloadType.EXECUTORS:
            terms = parse_plan(envelope, vault_id).terms
            found |= set() if terms is None else {terms.legacy_key}
    return found


def _put(session: Session, plan: Plan, envelope: Envelope, row: Row[Any] | None, now: datetime) -> None:
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
        "idle_until_s": _idle_until(terms, now),
        "given": b"",
        "begun": b"",
        "froze": False,
    }
    first = {"vault_id": plan.vault, "leaf_id": 0, "seq": 0, "last_event": b""}
    try:
        if row is None:
            session.connection().execute(insert(legacy).values(**values, **first))
        else:
            steps.change(session, plan.vault, **values)
    except IntegrityError as error:
        raise BadPlan("Another vault has this legacy key; make new shares.") from error
