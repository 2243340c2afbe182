"""Consents as they stand: look one up, list them, read their history."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, Final

from sqlalchemy import Row, bindparam, select
from sqlmodel import Session

from vault.clock import month_of, unix_s
from vault.consent.errors import UnknownConsent
from vault.consent.models import consent, handover, version
from vault.db import Prepared
from vault.schema.consent import RENEW_WITHIN_S, ConsentVersion, parse_consent
from vault.schema.terms import AGENT_ANSWERS_PER_MONTH
from vault.seal.dsse import parse_envelope, unverified_record
from vault.seal.ids import ConsentId, SubjectId, VaultId
from vault.tlog.log import PendingId

_IN_FORCE: Final = (
    select(consent, version.c.envelope, version.c.sha256, version.c.request, version.c.leaf_id)
    .join(version, (version.c.consent_id == consent.c.consent_id) & (version.c.version == consent.c.version))
    .where(version.c.envelope.is_not(None))
)
_FIND: Final = Prepared(_IN_FORCE.where(consent.c.consent_id == bindparam("consent_id")))
_OF_VAULT: Final = _IN_FORCE.where(consent.c.vault_id == bindparam("vault_id")).order_by(consent.c.consent_id)
_ENDING: Final = _IN_FORCE.where(
    consent.c.vault_id == bindparam("vault_id"),
    consent.c.live,
    consent.c.not_after > bindparam("now"),
    consent.c.not_after <= bindparam("soon"),
).order_by(consent.c.not_after, consent.c.consent_id)
_TO_GRANTEE: Final = (
    _IN_FORCE.where(consent.c.grantee == bindparam("grantee"), consent.c.consent_id > bindparam("after"))
    .order_by(consent.c.consent_id)
    .limit(bindparam("at_most"))
)
_LIVE_AMONG: Final = (
    select(consent.c.consent_id, consent.c.version)
    .join(handover, (handover.c.consent_id == consent.c.consent_id) & (handover.c.version == consent.c.version))
    .where(consent.c.live, handover.c.live, consent.c.consent_id.in_(bindparam("consent_ids", expanding=True)))
)

_HISTORY: Final = (
    select(version).where(version.c.envelope.is_not(None)).order_by(version.c.consent_id, version.c.version)
)


@dataclass(frozen=True, slots=True)
class StoredVersion:
    """One version of a consent's history.

    Args:
        version: 1 for the first.
        envelope: Its signed bytes.
        request: What the grantee asked for, the compact JWS; empty where nobody asked.
        leaf_id: The pending id of its leaf.
    """

    version: int
    envelope: bytes
    request: str
    leaf_id: PendingId


@dataclass(frozen=True, slots=True)
class Consent:
    """A consent with the version in force.

    Args:
        vault_id: Whose vault; a company never learns it.
        current: The version in force, as it was signed.
        stored: That version as it is kept.
        sha256: Digest of the envelope.
        live: Whether the version allows anything at all, inside its window.
        quota_month: Month of the last answer, `YYYY-MM` in UTC; empty before the first.
        quota_used: Answers in that month.
    """

    vault_id: VaultId
    current: ConsentVersion
    stored: StoredVersion
    sha256: bytes
    live: bool
    quota_month: str
    quota_used: int

    @property
    def consent_id(self) -> ConsentId:
        """The id that all versions share, OAuth's grant_id."""
        return ConsentId(self.current.consent_id)

    @property
    def subject(self) -> SubjectId:
        """The person's pseudonym towards the grantee."""
        return SubjectId(self.current.subject)

    def quota_left(self, now: datetime) -> int:
        """Return how many answers are left in the calendar month (UTC); `spend` decides, this informs."""
        used = self.quota_used if self.quota_month >= month_of(now) else 0
        return self.current.terms.quota_per_month - used

    def agent_quota_left(self, now: datetime) -> int:
        """Return how many of these a software agent may get."""
        used = self.quota_used if self.quota_month >= month_of(now) else 0
        return min(self.current.terms.quota_per_month, AGENT_ANSWERS_PER_MONTH) - used


def find(session: Session, consent_id: ConsentId) -> Consent | None:
    """Return a consent with the version in force, if it is kept here."""
    row = _FIND.one(session, consent_id=consent_id)
    return None if row is None else _consent(row)


def lock(session: Session, consent_id: ConsentId) -> None:
    """Lock a consent until the transaction ends.

    Whoever adds an event to it locks this row first, so the order of the log is the order of events.
    """
    this = select(consent.c.consent_id).where(consent.c.consent_id == consent_id)
    session.connection().execute(this.with_for_update())


def lock_all(session: Session, vault_id: VaultId) -> list[ConsentId]:
    """Lock every consent of a vault until the transaction ends, in the order of their ids, and return them."""
    mine = select(consent.c.consent_id).where(consent.c.vault_id == vault_id)
    locked = session.connection().execute(mine.order_by(consent.c.consent_id).with_for_update())
    return [ConsentId(consent_id) for consent_id in locked.scalars()]


def get_own(session: Session, consent_id: ConsentId, vault_id: VaultId) -> Consent:
    """Return a consent of this vault.

    Raises:
        UnknownConsent: No such consent, or another vault's: the two look the same.
    """
    found = find(session, consent_id)
    if found is None or found.vault_id != vault_id:
        raise UnknownConsent("This vault has no consent of this id.")
    return found


def list_for(session: Session, vault_id: VaultId) -> list[Consent]:
    """Return all consents of a vault, ended ones included."""
    return [_consent(row) for row in session.connection().execute(_OF_VAULT, {"vault_id": vault_id})]


def list_ending(session: Session, vault_id: VaultId, *, now: datetime) -> list[Consent]:
    """Return the live consents of a vault whose window ends within `RENEW_WITHIN_S`, the first to end first."""
    soon = {"vault_id": vault_id, "now": unix_s(now), "soon": unix_s(now) + RENEW_WITHIN_S}
    return [_consent(row) for row in session.connection().execute(_ENDING, soon)]


def list_to(session: Session, grantee: str, *, after: bytes = b"", at_most: int = 100) -> list[Consent]:
    """Return consents given to one grantee in the order of their ids, ended ones included, one page at a time.

    Args:
        session: Any transaction.
        grantee: A company id, or `operator` for the cohort.
        after: The last id of the page before.
        at_most: Page size.
    """
    values = {"grantee": grantee, "after": after, "at_most": at_most}
    return [_consent(row) for row in session.connection().execute(_TO_GRANTEE, values)]


def live_among(session: Session, consent_ids: Iterable[ConsentId]) -> dict[ConsentId, int]:
    """Return those of these consents that allow anything and have their keys, each with its version in force."""
    rows = session.connection().execute(_LIVE_AMONG, {"consent_ids": list(consent_ids)})
    return {ConsentId(row.consent_id): row.version for row in rows}


def history(session: Session, consent_id: ConsentId) -> list[StoredVersion]:
    """Return every version of a consent that was not forgotten, oldest first."""
    rows = session.connection().execute(_HISTORY.where(version.c.consent_id == consent_id))
    return [_stored(row) for row in rows]


def versions_of(session: Session, consent_ids: Iterable[ConsentId]) -> list[StoredVersion]:
    """Return every version of these consents that was not forgotten, for an auditor's bundle."""
    rows = session.connection().execute(_HISTORY.where(version.c.consent_id.in_(list(consent_ids))))
    return [_stored(row) for row in rows]


def parse(stored: StoredVersion) -> ConsentVersion:
    """Return a version as it was signed."""
    return _parsed(stored.envelope)


def envelopes(session: Session, leaf_ids: Iterable[PendingId]) -> dict[PendingId, bytes]:
    """Return the signed versions whose leaves these are."""
    wanted = version.c.leaf_id.in_(list(leaf_ids)) & version.c.envelope.is_not(None)
    found = session.connection().execute(select(version.c.leaf_id, version.c.envelope).where(wanted))
    return {PendingId(row.leaf_id): row.envelope for row in found}


def histories(session: Session, vault_id: VaultId) -> dict[ConsentId, list[StoredVersion]]:
    """Return the histories of all consents of a vault."""
    rows = session.connection().execute(_HISTORY.join(consent).where(consent.c.vault_id == vault_id))
    found: dict[ConsentId, list[StoredVersion]] = {}
    for row in rows:
        found.setdefault(ConsentId(row.consent_id), []).append(_stored(row))
    return found


def forget_parsed() -> None:
    """Drop every signed version from this process's memory: none may outlive its person's erasure there."""
    _parsed.cache_clear()


# Keyed by the signed bytes themselves, so an entry can never be stale.
@lru_cache(maxsize=4096)
def _parsed(envelope: bytes) -> ConsentVersion:
    return parse_consent(unverified_record(parse_envelope(envelope)))


def _stored(row: Row[Any]) -> StoredVersion:
    return StoredVersion(row.version, row.envelope, (row.request or b"").decode(), PendingId(row.leaf_id))


def _consent(row: Row[Any]) -> Consent:
    return Consent(
        vault_id=VaultId(row.vault_id),
        current=_parsed(row.envelope),
        stored=_stored(row),
        sha256=row.sha256,
        live=row.live,
        quota_month=row.quota_month,
        quota_used=row.quota_used,
    )
