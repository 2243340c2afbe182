"""How consents change: given, narrowed, renewed, withdrawn by the person; revoked, expired, invalidated by others.

Each change is one signed version, one leaf and one transaction. The caller commits, then calls
`shortkeys.delete_scheduled` and waits for the log before it acknowledges anything.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from sqlalchemy import bindparam, select, update
from sqlmodel import Session

from vault.clock import DAY_S, unix_s
from vault.consent import consents, exposure, handovers, versions
from vault.consent.consents import Consent
from vault.consent.errors import UnknownConsent
from vault.consent.handovers import Custody
from vault.consent.models import consent, version
from vault.consent.requests import verify_asked
from vault.consent.versions import Submission
from vault.parties import people
from vault.schema.category import Category
from vault.schema.consent import ConsentEvent, ConsentVersion, dump_consent, parse_consent, verify_successor
from vault.schema.terms import BadConsent, ConsentKind
from vault.seal.dsse import Envelope, PayloadType, named_key, sign_record, unverified_record, verify_envelope
from vault.seal.ids import ConsentId, VaultId
from vault.seal.signing import Signer
from vault.seal.subject import SubjectCertificate, verify_subject
from vault.tlog.log import Pending, PendingId, delete_personal_openings

_CLOCK_SKEW_S: Final = 300
_FRESH_S: Final = DAY_S

_COVERING: Final = (ConsentKind.SELF, ConsentKind.COHORT)
_LOCK: Final = (
    select(consent.c.consent_id)
    .where(
        consent.c.vault_id == bindparam("vault_id"),
        (consent.c.kind != ConsentKind.COMPANY.value) | (consent.c.consent_id == bindparam("consent_id")),
    )
    .order_by(consent.c.consent_id)
    .with_for_update()
)
_EXPIRED: Final = (
    select(consent.c.consent_id)
    .where(consent.c.live, consent.c.not_after <= bindparam("now"))
    .order_by(consent.c.not_after)
    .limit(bindparam("at_most"))
)


@dataclass(frozen=True, slots=True)
class Change:
    """A recorded change of a consent.

    Args:
        version: The version now in force.
        pending: Its leaf, to wait for.
        new_epoch_needed: Categories of which no live self or cohort consent hands keys over any more: the
            owner's client publishes a new epoch of them for the current and future months, so that keys
            already handed over open nothing new.
    """

    version: ConsentVersion
    pending: Pending
    new_epoch_needed: tuple[Category, ...] = ()


def give(
    session: Session,
    submission: Submission,
    *,
    vault_id: VaultId,
    custody: Custody,
    now: datetime,
    signed_at: datetime | None = None,
) -> Change:
    """Record a new consent with its keys.

    Args:
        session: An open writing transaction.
        submission: Version 1 with certificate and handovers, and the request if a company asked.
        vault_id: The signed-in owner's vault.
        custody: To whom keys may go.
        now: The current time.
        signed_at: When it was signed, if it was sealed in advance; now if not given.

    Raises:
        BadConsent: Not a fresh first version, wider than asked, or without its certificate.
        BadHandover: Keys missing or wider than the consent.
        ConsentConflict: The consent exists.
        SealError: A signature that does not hold, or of another vault's keys.
    """
    people.stay(session, vault_id)
    given = verify_by_person(submission.envelope, ConsentEvent.GIVEN)
    age_s = unix_s(signed_at or now) - given.event_time
    if not -_CLOCK_SKEW_S <= age_s <= _FRESH_S:
        raise BadConsent("A consent is sent within a day of being signed; check the clock and sign again.")
    verify_asked(session, given, submission.request, vault_id=vault_id, now=now)
    if submission.certificate is None:
        raise BadConsent("A new consent comes with the owner's certificate of its pairwise key.")
    person = people.get(session, vault_id)
    # What was sealed in advance was signed by the key that was in force then; the plan in force names it.
    owner_key = person.owner_key if signed_at is None else named_key(submission.certificate, person.owner_keys)
    whose = SubjectCertificate(vault_id, given.principal_key, given.terms.grantee)
    verify_subject(submission.certificate, owner_key, whose)
    keys = handovers.verify_handovers(
        session, submission.handovers, vault_id=vault_id, owner_key=owner_key, consent=given, custody=custody
    )
    versions.insert_consent(session, given, vault_id)
    pending = versions.record(session, given, submission)
    versions.hand_over(session, keys, given, submission.certificate, vault_id=vault_id, custody=custody, now=now)
    return Change(given, pending)


def amend(session: Session, submission: Submission, *, vault_id: VaultId, custody: Custody, now: datetime) -> Change:
    """Narrow or renew a consent; its new handovers replace the old ones.

    Args:
        session: An open writing transaction.
        submission: The next version with its handovers.
        vault_id: The signed-in owner's vault.
        custody: To whom keys may go.
        now: The current time.

    Raises:
        BadConsent: It may not follow the version in force, or grants more than was asked.
        BadHandover: Keys missing or wider than the version.
        UnknownConsent: Not a consent of this vault.
        SealError: A signature that does not hold, or of another vault's keys.
    """
    people.stay(session, vault_id)  # so that no keys signed by a former key come in behind a succession
    amended = verify_by_person(submission.envelope, ConsentEvent.NARROWED, ConsentEvent.RENEWED)
    before = _locked(session, ConsentId(amended.consent_id), vault_id)
    verify_successor(amended, before.current, before.sha256)
    _refuse_future(amended, now)
    request = _request(session, before, amended, submission)
    verify_asked(session, amended, request, vault_id=vault_id, now=now)
    keys = handovers.verify_handovers(
        session,
        submission.handovers,
        vault_id=vault_id,
        owner_key=people.get(session, vault_id).owner_key,
        consent=amended,
        custody=custody,
    )
    handovers.close(session, before.consent_id)
    pending = versions.record(session, amended, replace(submission, request=request))
    versions.hand_over(session, keys, amended, None, vault_id=vault_id, custody=custody, now=now)
    return Change(amended, pending, _uncovered(session, before))


def withdraw(session: Session, envelope: Envelope, *, vault_id: VaultId, now: datetime) -> Change:
    """End a consent on the person's word: state, keys and leaf in one transaction.

    OAuth's tokens need no row of their own changed: a token that names this consent as its grant_id
    is refused because the consent is not live.

    Raises:
        BadConsent: It may not follow the version in force.
        UnknownConsent: Not a consent of this vault.
        SealError: A signature that does not hold.

    Guarantees:
        After the commit nothing is spent under the consent; after `shortkeys.delete_scheduled` its
        keys cannot be read from any copy of the main database.
    """
    withdrawn = verify_by_person(envelope, ConsentEvent.WITHDRAWN)
    before = _locked(session, ConsentId(withdrawn.consent_id), vault_id)
    verify_successor(withdrawn, before.current, before.sha256)
    _refuse_future(withdrawn, now)
    return _end(session, before, withdrawn, envelope)


def end(session: Session, consent_id: ConsentId, event: ConsentEvent, *, service: Signer, now: datetime) -> Change:
    """End a consent on someone else's word: revoked, expired or invalidated, signed by the service.

    Args:
        session: An open writing transaction.
        consent_id: Which consent.
        event: What happened; never what only the person can cause.
        service: The service's signing key.
        now: The current time.

    Raises:
        BadConsent: The event is the person's, or the consent is over already.
        UnknownConsent: No such consent.
    """
    if event.by_person:
        raise BadConsent(f"Only the person can cause the event {event}.")
    found = consents.find(session, consent_id)
    if found is None:
        raise UnknownConsent("No consent of this id is kept here.")
    before = _locked(session, consent_id, found.vault_id)
    if event is ConsentEvent.EXPIRED and not before.live:
        raise BadConsent("The consent is over already.")
    ended = replace(
        before.current,
        version=before.current.version + 1,
        consent_seq=before.current.consent_seq + 1,
        prev=before.sha256,
        event=event,
        event_time=max(unix_s(now), before.current.event_time),
    )
    verify_successor(ended, before.current, before.sha256)
    return _end(session, before, ended, sign_record(PayloadType.CONSENT, dump_consent(ended), service))


def due_to_expire(session: Session, *, now: datetime, at_most: int = 100) -> list[ConsentId]:
    """Return live consents whose window is over, the longest over first; `end` each with EXPIRED."""
    found = session.connection().execute(_EXPIRED, {"now": unix_s(now), "at_most": at_most})
    return [ConsentId(consent_id) for consent_id in found.scalars()]


def forget(session: Session, vault_id: VaultId) -> None:
    """Forget all consents of a vault: keys, versions and their openings, and whose they were; erasure calls this.

    Openings of answers and denials are forgotten by whoever keeps those. The emptied rows stay, so that no old envelope can be given again under its id.
    """
    connection = session.connection()
    mine = select(consent.c.consent_id).where(consent.c.vault_id == vault_id)
    ids = [ConsentId(consent_id) for consent_id in connection.execute(mine).scalars()]
    for consent_id in ids:
        leaves = handovers.forget(session, consent_id)
        its = version.c.consent_id == consent_id
        recorded = connection.execute(select(version.c.leaf_id).where(its)).scalars()
        delete_personal_openings(session, [*leaves, *(PendingId(leaf_id) for leaf_id in recorded)])
        connection.execute(update(version).where(its).values(envelope=None, request=None, certificate=None))
    blank = {"vault_id": b"", "subject": b"", "grantee": "", "live": False, "last_event": b""}
    connection.execute(update(consent).where(consent.c.vault_id == vault_id).values(**blank))
    exposure.forget(session, vault_id)
    consents.forget_parsed()


def verify_by_person(envelope: Envelope, *events: ConsentEvent) -> ConsentVersion:
    """Return a version that the person's pairwise key signed.

    Args:
        envelope: What arrived.
        events: What it may be.

    Raises:
        BadConsent: Malformed, or another event.
        SealError: Signed by another key than the one it names.
    """
    signed = parse_consent(unverified_record(envelope))
    verify_envelope(envelope, PayloadType.CONSENT, signed.principal_key)
    if signed.event not in events:
        raise BadConsent(f"Here a consent is {' or '.join(events)}, not {signed.event}.")
    return signed


def _request(session: Session, before: Consent, amended: ConsentVersion, submission: Submission) -> str:
    if amended.request_sha256 != before.current.request_sha256:
        return submission.request
    return next((item.request for item in reversed(consents.history(session, before.consent_id)) if item.request), "")


def _refuse_future(signed: ConsentVersion, now: datetime) -> None:
    if signed.event_time > unix_s(now) + _CLOCK_SKEW_S:
        raise BadConsent("The version is signed in the future; check the clock of the device that signed it.")


def _locked(session: Session, consent_id: ConsentId, vault_id: VaultId) -> Consent:
    """Lock the consent, and all self and cohort consents of the vault: which categories stay covered is decided once."""
    session.connection().execute(_LOCK, {"vault_id": vault_id, "consent_id": consent_id})
    return consents.get_own(session, consent_id, vault_id)


def _end(session: Session, before: Consent, ended: ConsentVersion, envelope: Envelope) -> Change:
    handovers.close(session, before.consent_id)
    pending = versions.record(session, ended, Submission(envelope))
    return Change(ended, pending, _uncovered(session, before))


def _uncovered(session: Session, before: Consent) -> tuple[Category, ...]:
    if before.current.terms.kind not in _COVERING or not before.live:
        return ()
    live = [
        other.current.terms
        for other in consents.list_for(session, before.vault_id)
        if other.live and other.current.terms.kind in _COVERING
    ]
    covered = {category for terms in live for category in terms.usable}
    return tuple(sorted(before.current.terms.usable - covered))
