"""The chain of events of one consent, and the one statement that spends its quota.

Versions, answers and denials of a consent are numbered 1, 2, 3, ... and each names the digest of the
one before, so a withheld withdrawal shows as a gap. Whoever adds an event first advances the
consent's row: the row lock makes the log's order the order of events.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Final, Protocol

from sqlalchemy import bindparam, case, func, select, update
from sqlmodel import Session

from vault.clock import month_of, unix_s
from vault.consent import exposure
from vault.consent.errors import NotSpent, UnknownConsent
from vault.consent.exposure import Addition
from vault.consent.models import consent
from vault.db import Prepared
from vault.encoding import JsonObject, b64u
from vault.parties import companies, people, turns
from vault.parties.turns import Turns
from vault.proof.bound import bind
from vault.proof.leaf import LeafKind
from vault.schema.terms import AGENT_ANSWERS_PER_MONTH, MAX_ANSWERS_PER_MONTH, ConsentKind
from vault.seal.ids import ConsentId, SubjectId, VaultId, sha256
from vault.seal.person import Profile
from vault.tlog.log import Pending, append


class Spendable(Protocol):
    """What spending needs of a permit; `policy.Permit` is the one that exists."""

    @property
    def consent_id(self) -> ConsentId:
        """Which consent."""

    @property
    def version(self) -> int:
        """The version that was decided on."""

    @property
    def vault_id(self) -> VaultId:
        """Whose vault."""

    @property
    def company_version(self) -> int:
        """The version of the asking company's record that was decided on; 0 where no company asks."""

    @property
    def profile(self) -> Profile:
        """The person's profile that was decided on."""

    @property
    def agent(self) -> bool:
        """Whether a software agent asks, whose quota is smaller."""

    @property
    def exposure(self) -> Addition:
        """What the answer shows the person and ranks for the person."""


@dataclass(frozen=True, slots=True)
class Place:
    """The next place in a consent's chain, held by the open transaction.

    Args:
        consent_id: Which consent.
        vault_id: Whose vault; no leaf of a consent names it.
        subject: The person's pseudonym towards the grantee.
        version: The version in force.
        consent_seq: The event's number.
        prev: SHA-256 of the previous event's personal body; empty for the first.
    """

    consent_id: ConsentId
    vault_id: VaultId
    subject: SubjectId
    version: int
    consent_seq: int
    prev: bytes


@dataclass(frozen=True, slots=True)
class Spent(Place):
    """A spent answer's place.

    Args:
        quota_left: Answers left in this calendar month, after this one.
    """

    quota_left: int


# A clock that went back a month must not refill a quota: only a later month does.
_used = case((consent.c.quota_month < bindparam("month"), 0), else_=consent.c.quota_used)
_SHARED: Final = Turns(
    select(
        turns.shared(func.encode(consent.c.vault_id, "hex")).label("person"),
        turns.shared(consent.c.grantee).label("company"),
    ).where(consent.c.consent_id == bindparam("consent_id"))
)
_SPEND: Final = Prepared(
    update(consent)
    .where(
        consent.c.consent_id == bindparam("spent_consent"),
        consent.c.live,
        consent.c.version == bindparam("decided_version"),
        consent.c.not_before <= bindparam("now"),
        consent.c.not_after > bindparam("now"),
        _used < consent.c.quota_per_month,
        _used < bindparam("at_most"),
        people.not_frozen(consent.c.vault_id, *people.AS_DECIDED),
        (consent.c.kind != ConsentKind.COMPANY.value)
        | companies.is_in_force(consent.c.grantee, bindparam("company_version")),
    )
    .values(
        quota_used=_used + 1,
        quota_month=case((consent.c.quota_month < bindparam("month"), bindparam("month")), else_=consent.c.quota_month),
        consent_seq=consent.c.consent_seq + 1,
    )
    .returning(
        consent.c.vault_id,
        consent.c.subject,
        consent.c.version,
        consent.c.consent_seq,
        consent.c.last_event,
        consent.c.quota_per_month,
        consent.c.quota_used,
    )
)
_ADVANCE: Final = Prepared(
    update(consent)
    .where(consent.c.consent_id == bindparam("advanced_consent"))
    .values(consent_seq=consent.c.consent_seq + 1)
    .returning(consent.c.vault_id, consent.c.subject, consent.c.version, consent.c.consent_seq, consent.c.last_event)
)
_STAY: Final = Prepared(  # and is not erased before the transaction ends
    select(consent.c.vault_id, consent.c.subject)
    .where(consent.c.consent_id == bindparam("consent_id"))
    .with_for_update(read=True)
)
_UNKNOWN: Final = "No consent of this id is kept here."
_LINK: Final = Prepared(
    update(consent)
    .where(consent.c.consent_id == bindparam("linked_consent"), consent.c.consent_seq == bindparam("linked_seq"))
    .values(last_event=bindparam("body_sha256"))
)


def decided(permit: Spendable) -> dict[str, bool]:
    """Return what `people.AS_DECIDED` compares with."""
    return {f"decided_{name}": value for name, value in asdict(permit.profile).items()}


def spend(session: Session, permit: Spendable, now: datetime) -> Spent:
    """Spend one answer, or refuse; the answer's record and `log_event` follow in the same transaction.

    Args:
        session: An open writing transaction.
        permit: What was decided.
        now: The current time.

    Raises:
        NotSpent: At this moment the consent is not live, has another version, is outside its window
            or has no quota left, the vault is frozen, its profile or the company's record replaced, the company
            suspended.
        ExposureSpent: The person's month holds no more of it, over all companies.
        RankedMeanwhile: The person's exposure must be read and decided on again.

    Guarantees:
        After the commit of a withdrawal, freeze or suspension no spending commits, and none that was decided on
        a profile or a company's record before the one in force; quotas are never overdrawn, whatever the concurrency.
    """
    at_most = AGENT_ANSWERS_PER_MONTH if permit.agent else MAX_ANSWERS_PER_MONTH
    values = {
        "spent_consent": permit.consent_id,
        "decided_version": permit.version,
        "company_version": permit.company_version,
        **decided(permit),
        "now": unix_s(now),
        "month": month_of(now),
        "at_most": at_most,
    }
    _SHARED.take(session, consent_id=permit.consent_id)
    row = _SPEND.one(session, **values)
    if row is None:
        raise NotSpent("The consent changed while the question was answered, or its quota is spent; ask again.")
    exposure.add(session, permit.vault_id, permit.exposure, now)
    return Spent(
        permit.consent_id,
        VaultId(row.vault_id),
        SubjectId(row.subject),
        row.version,
        row.consent_seq,
        row.last_event,
        min(row.quota_per_month, at_most) - row.quota_used,
    )


def log_event(session: Session, place: Place, kind: LeafKind, public: JsonObject, personal: JsonObject) -> Pending:
    """Write the leaf of the event that holds this place, in the transaction that took it.

    Args:
        session: The same transaction.
        place: From `spend`, or taken by a change of the consent.
        kind: What happened.
        public: The leaf's public half, without a word about the person.
        personal: The rest of the personal half: consent, subject, what binds them, consent_seq and prev are added here.
    """
    bound, opens = bind(place.subject)
    chained: JsonObject = {
        **personal,
        **opens,
        "consent": b64u(place.consent_id),
        "subject": b64u(place.subject),
        "consent_seq": place.consent_seq,
        "prev": b64u(place.prev),
    }
    pending = append(session, kind, {**public, **bound}, chained, about=place.vault_id)
    values = {
        "linked_consent": place.consent_id,
        "linked_seq": place.consent_seq,
        "body_sha256": sha256(pending.openings.personal.body),
    }
    _LINK.run(session, **values)
    return pending


def record_event(
    session: Session, consent_id: ConsentId, kind: LeafKind, public: JsonObject, personal: JsonObject
) -> Pending:
    """Add an event that spends nothing, such as a denial, to a consent's chain.

    Raises:
        UnknownConsent: No such consent.
    """
    return log_event(session, advance(session, consent_id), kind, public, personal)


def record_beside(
    session: Session, consent_id: ConsentId, kind: LeafKind, public: JsonObject, personal: JsonObject
) -> Pending:
    """Record an event about a consent outside of its chain: one of many that share a leaf, which counts them.

    Raises:
        UnknownConsent: No such consent.
    """
    row = _STAY.one(session, consent_id=consent_id)
    if row is None:
        raise UnknownConsent(_UNKNOWN)
    bound, opens = bind(SubjectId(row.subject))
    about: JsonObject = {**personal, **opens, "consent": b64u(consent_id), "subject": b64u(row.subject)}
    return append(session, kind, {**public, **bound}, about, about=row.vault_id)


def advance(session: Session, consent_id: ConsentId) -> Place:
    """Lock a consent and take the next place in its chain; `log_event` must follow.

    Raises:
        UnknownConsent: No such consent.
    """
    row = _ADVANCE.one(session, advanced_consent=consent_id)
    if row is None:
        raise UnknownConsent(_UNKNOWN)
    return Place(
        consent_id, VaultId(row.vault_id), SubjectId(row.subject), row.version, row.consent_seq, row.last_event
    )
