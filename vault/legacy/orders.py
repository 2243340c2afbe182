"""What executors may order once their declaration is in force: to freeze, to erase, to open what was sealed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from sqlmodel import Session

from vault.consent import changes, consents
from vault.consent.handovers import Custody
from vault.consent.versions import Submission
from vault.encoding import JsonObject, JsonValue, b64u
from vault.erasure.erase import ErasureRequest
from vault.legacy import steps
from vault.legacy.errors import BadStatement
from vault.legacy.steps import Legacy, LegacyState
from vault.parties import people
from vault.parties.people import VaultState
from vault.proof.leaf import LeafKind
from vault.schema.consent import ConsentEvent
from vault.schema.terms import ConsentKind
from vault.seal.advance import Advance
from vault.seal.dsse import Envelope, parse_envelope
from vault.seal.erasure import Author, Scope
from vault.seal.ids import ConsentId
from vault.seal.legacy import Act, Choice, Statement, parse_plan
from vault.tlog.log import PendingId


def verify_erasing(session: Session, legacy_id: bytes, envelope: Envelope, *, now: datetime) -> ErasureRequest:
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
    found, said = steps.verified(session, legacy_id, envelope)
    if said.act is not Act.ERASE or found.terms is None or found.terms.choice is not Choice.ERASE:
        raise BadStatement("The statement does not order it, or the owner's plan does not let executors erase.")
    _refuse_early(found, said, now)
    return ErasureRequest(said.claim, Scope(found.vault_id, None), Author.EXECUTORS, said.reason, envelope.digest)


def freeze(session: Session, legacy_id: bytes, envelope: Envelope, *, now: datetime) -> PendingId:
    """Freeze a vault that answers after death, on the executors' word; writes the row and its leaf.

    Returns:
        The leaf to wait for.

    Raises:
        UnknownLegacy: No such plan.
        SealError: Not signed by the plan's legacy key, or about another plan.
        BadStatement: It orders something else, its waiting period has not passed, the statement was signed before it
            had, or is about another declaration.
    """
    found, said = steps.verified(session, legacy_id, envelope)
    if said.act is not Act.FREEZE:
        raise BadStatement("The statement does not order to freeze.")
    _refuse_early(found, said, now)
    return people.freeze(session, found.vault_id, VaultState.FROZEN, envelope, now=now).id


def open_sealed(
    session: Session,
    legacy_id: bytes,
    envelope: Envelope,
    sealed: Sequence[Advance],
    *,
    custody: Custody,
    now: datetime,
) -> PendingId:
    """Give the consents that the owner sealed in advance and executors opened; writes the rows and their leaves.

    Args:
        session: An open writing transaction.
        legacy_id: Whose plan.
        envelope: The executors' statement.
        sealed: What they opened; what was given already is passed over.
        custody: To whom keys may go.
        now: The current time.

    Returns:
        The leaf to wait for.

    Raises:
        UnknownLegacy: No such plan.
        SealError: Not signed by the plan's legacy key or not by the owner, or about another plan.
        BadStatement: The plan does not name one of them, its waiting period has not passed, the statement was signed
            before it had, or is about another declaration; or a consent allows what is not for after death.
        BadConsent: A consent or its request does not hold.
        BadHandover: Its keys are sealed to a former identity of the service, or are wider than the consent.

    Guarantees: nothing that the owner did not sign for after death is given, and nothing before the waiting period
        passed without a sign of life.
    """
    found, said = steps.verified(session, legacy_id, envelope)
    if said.act is not Act.OPEN or found.terms is None or found.terms.choice is not Choice.ANSWER or not sealed:
        raise BadStatement("The statement does not order it, or the owner's plan names nothing to open.")
    _refuse_early(found, said, now)
    signed_at = datetime.fromtimestamp(parse_plan(parse_envelope(found.plan), found.vault_id).issued_at, UTC)
    given = []
    for item in sealed:
        version = changes.verify_by_person(item.version, ConsentEvent.GIVEN)
        terms, consent_id = version.terms, ConsentId(version.consent_id)
        if item.version.digest not in found.terms.sealed:
            raise BadStatement("The owner's plan does not name this consent.")
        if terms.kind is not ConsentKind.COMPANY or terms.purposes != terms.post_mortem:
            raise BadStatement("A consent sealed in advance is a company's, and for purposes after death only.")
        if consents.find(session, consent_id) is None:
            kept = Submission(item.version, (item.handover,), item.certificate, item.request)
            changes.give(session, kept, vault_id=found.vault_id, custody=custody, now=now, signed_at=signed_at)
            given.append(consent_id)
    if not given:
        return found.leaf_id
    row = steps.read(session, found.vault_id)
    assert row is not None
    steps.change(session, found.vault_id, given=row.given + b"".join(given))
    named: list[JsonValue] = [
        *dict.fromkeys(b64u(item.version.digest) for item in sealed)
    ]  # the owner is told how many
    personal: JsonObject = {"claim": b64u(found.claim), "consents": named, "count": len(named)}
    return steps.step(session, found.vault_id, LeafKind.LEGACY_OPEN, personal, signed=envelope, now=now)


def _refuse_early(found: Legacy, said: Statement, now: datetime) -> None:
    if found.state is not LegacyState.IN_FORCE or not found.declared or said.claim != found.claim:
        raise BadStatement(f"Executors do this once their declaration is in force; the plan is {found.state}.")
    steps.refuse_stale(said, now)
    if said.issued_at < found.until_s:
        raise BadStatement("The statement was signed before the waiting period had passed; sign it again.")
