"""The chain of events of one consent, and the one statement that spends its quota.

Versions, answers and denials of a consent are numbered 1, 2, 3, ... and each names the digest of the
one before, so a withheld withdrawal shows as a gap. Whoever adds an event first advances the
consent's row: the row lock makes the log's order the order of events.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Protocol

import sqlalchemy
import sqlalchemy.dialects.postgresql
import sqlalchemy.dialects.sqlite
from sqlalchemy import bindparam, case, select, update
from sqlmodel import Session

from vault.clock import unix_s
from vault.consent.errors import NotSpent, UnknownConsent
from vault.consent.models import consent, stimulus
from vault.encoding import JsonObject, b64u
from vault.parties import companies, people
from vault.proof.leaf import LeafKind
from vault.schema.terms import ConsentKind
from vault.seal.ids import ConsentId, SubjectId, VaultId, sha256
from vault.tlog.log import Pending, append

STIMULI_PER_MONTH: Final = 1_000
"""How many stimuli a person meets in one calendar month (UTC), over all companies together."""


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
    def stimuli(self) -> int:
        """How many stimuli the answer shows the person."""


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


def month_of(at: datetime) -> str:
    """Return the calendar month in UTC, `YYYY-MM`: what quotas and leaves count by."""
    return f"{at.astimezone(UTC):%Y-%m}"


# A clock that went back a month must not refill a quota: only a later month does.
_used = case((consent.c.quota_month < bindparam("month"), 0), else_=consent.c.quota_used)
_SPEND: Final = (
    update(consent)
    .where(
        consent.c.consent_id == bindparam("spent_consent"),
        consent.c.live,
        consent.c.version == bindparam("decided_version"),
        consent.c.not_before <= bindparam("now"),
        consent.c.not_after > bindparam("now"),
        _used < consent.c.quota_per_month,
        people.not_frozen(consent.c.vault_id),
        (consent.c.kind != ConsentKind.COMPANY.value) | companies.is_active(consent.c.grantee),
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
        (consent.c.quota_per_month - consent.c.quota_used).label("quota_left"),
    )
)
_ADVANCE: Final = (
    update(consent)
    .where(consent.c.consent_id == bindparam("advanced_consent"))
    .values(consent_seq=consent.c.consent_seq + 1)
    .returning(consent.c.vault_id, consent.c.subject, consent.c.version, consent.c.consent_seq, consent.c.last_event)
)
_LINK: Final = (
    update(consent)
    .where(consent.c.consent_id == bindparam("linked_consent"), consent.c.consent_seq == bindparam("linked_seq"))
    .values(last_event=bindparam("body_sha256"))
)

_USED_AFTER: Final = stimulus.c.used + bindparam("met")
_MEET: Final = {
    dialect: module.insert(stimulus)
    .values(vault_id=bindparam("vault_id"), month=bindparam("month"), used=bindparam("met"))
    .on_conflict_do_update(
        index_elements=["vault_id", "month"], set_={"used": _USED_AFTER}, where=bindparam("at_most") >= _USED_AFTER
    )
    .returning(stimulus.c.used)
    for dialect, module in (("sqlite", sqlalchemy.dialects.sqlite), ("postgresql", sqlalchemy.dialects.postgresql))
}

_MET: Final = select(stimulus.c.used).where(
    stimulus.c.vault_id == bindparam("vault_id"), stimulus.c.month == bindparam("month")
)


def spend(session: Session, permit: Spendable, now: datetime) -> Spent:
    """Spend one answer, or refuse; the answer's record and `log_event` follow in the same transaction.

    Args:
        session: An open writing transaction.
        permit: What was decided.
        now: The current time.

    Raises:
        NotSpent: At this moment the consent is not live, has another version, is outside its window
            or has no quota left, the vault is frozen, the company suspended, or the person has met
            enough stimuli this month.

    Guarantees:
        After the commit of a withdrawal, freeze or suspension no spending commits; quotas are never
        overdrawn, whatever the concurrency.
    """
    values = {
        "spent_consent": permit.consent_id,
        "decided_version": permit.version,
        "now": unix_s(now),
        "month": month_of(now),
    }
    row = session.connection().execute(_SPEND, values).one_or_none()
    if row is None or not _meet(session, permit, now):
        raise NotSpent("The consent changed while the question was answered, or its quota is spent; ask again.")
    return Spent(
        permit.consent_id,
        VaultId(row.vault_id),
        SubjectId(row.subject),
        row.version,
        row.consent_seq,
        row.last_event,
        row.quota_left,
    )


def log_event(session: Session, place: Place, kind: LeafKind, public: JsonObject, personal: JsonObject) -> Pending:
    """Write the leaf of the event that holds this place, in the transaction that took it.

    Args:
        session: The same transaction.
        place: From `spend`, or taken by a change of the consent.
        kind: What happened.
        public: The leaf's public half, without a word about the person.
        personal: The rest of the personal half: consent, subject, consent_seq and prev are added here.
    """
    chained: JsonObject = {
        **personal,
        "consent": b64u(place.consent_id),
        "subject": b64u(place.subject),
        "consent_seq": place.consent_seq,
        "prev": b64u(place.prev),
    }
    pending = append(session, kind, public, chained, about=place.vault_id)
    values = {
        "linked_consent": place.consent_id,
        "linked_seq": place.consent_seq,
        "body_sha256": sha256(pending.openings.personal.body),
    }
    session.connection().execute(_LINK, values)
    return pending


def record_event(
    session: Session, consent_id: ConsentId, kind: LeafKind, public: JsonObject, personal: JsonObject
) -> Pending:
    """Add an event that spends nothing, such as a denial, to a consent's chain.

    Raises:
        UnknownConsent: No such consent.
    """
    return log_event(session, advance(session, consent_id), kind, public, personal)


def advance(session: Session, consent_id: ConsentId) -> Place:
    """Lock a consent and take the next place in its chain; `log_event` must follow.

    Raises:
        UnknownConsent: No such consent.
    """
    row = session.connection().execute(_ADVANCE, {"advanced_consent": consent_id}).one_or_none()
    if row is None:
        raise UnknownConsent("No consent of this id is kept here.")
    return Place(
        consent_id, VaultId(row.vault_id), SubjectId(row.subject), row.version, row.consent_seq, row.last_event
    )


def stimuli_left(session: Session, vault_id: VaultId, now: datetime) -> int:
    """Return how many stimuli the person may still meet this month, over all companies."""
    values = {"vault_id": vault_id, "month": month_of(now)}
    return STIMULI_PER_MONTH - (session.connection().execute(_MET, values).scalar_one_or_none() or 0)


def _meet(session: Session, permit: Spendable, now: datetime) -> bool:
    if permit.stimuli == 0:
        return True
    if permit.stimuli > STIMULI_PER_MONTH:
        return False
    connection = session.connection()
    values = {
        "vault_id": permit.vault_id,
        "month": month_of(now),
        "met": permit.stimuli,
        "at_most": STIMULI_PER_MONTH,
    }
    return connection.execute(_MEET[connection.dialect.name], values).one_or_none() is not None
