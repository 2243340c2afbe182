"""Writing a signed version: its row, its leaf, and the keys that it hands over, in the caller's transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy.dialects.postgresql
import sqlalchemy.dialects.sqlite
from sqlalchemy import insert, update
from sqlmodel import Session

from vault.clock import month_of, unix_s
from vault.consent import handovers
from vault.consent.errors import ConsentConflict
from vault.consent.events import Place, advance, log_event
from vault.consent.handovers import Custody
from vault.consent.models import consent, version
from vault.encoding import JsonValue, b64u
from vault.proof.leaf import LeafKind
from vault.schema.consent import ConsentVersion
from vault.seal.dsse import Envelope
from vault.seal.handover import VerifiedHandover
from vault.seal.ids import ConsentId, VaultId
from vault.tlog.log import Pending, append


@dataclass(frozen=True, slots=True)
class Submission:
    """A version as the owner's client sends it.

    Args:
        envelope: The version, signed by the pairwise key.
        handovers: The keys of a version that is given, narrowed or renewed.
        certificate: With version 1, whose pairwise key it is.
        request: What the company asked for, its compact JWS; empty to keep the one already stored.
    """

    envelope: Envelope
    handovers: Sequence[bytes] = ()
    certificate: Envelope | None = None
    request: str = ""


def insert_consent(session: Session, given: ConsentVersion, vault_id: VaultId) -> None:
    """Make the row that every event of a new consent will lock.

    Raises:
        ConsentConflict: The consent exists.
    """
    sqlite = session.get_bind().dialect.name == "sqlite"
    dialect = sqlalchemy.dialects.sqlite if sqlite else sqlalchemy.dialects.postgresql
    statement = (
        dialect.insert(consent)
        .values(
            consent_id=given.consent_id,
            vault_id=vault_id,
            subject=given.subject,
            kind=given.terms.kind.value,
            grantee=given.terms.grantee,
            quota_month="",
            quota_used=0,
            consent_seq=0,
            last_event=b"",
            **_in_force(given),
        )
        .on_conflict_do_nothing()
        .returning(consent.c.consent_id)
    )
    if session.connection().execute(statement).one_or_none() is None:
        raise ConsentConflict("A consent of this id exists; what was withdrawn is given anew under a new id.")


def record(session: Session, signed: ConsentVersion, submission: Submission) -> Pending:
    """Put a verified version in force: it is the next event of its consent."""
    consent_id = ConsentId(signed.consent_id)
    place = advance(session, consent_id)
    session.connection().execute(update(consent).where(consent.c.consent_id == consent_id).values(**_in_force(signed)))
    pending = _log_version(session, place, signed, submission.envelope)
    row = {
        "consent_id": consent_id,
        "version": signed.version,
        "sha256": submission.envelope.digest,
        "leaf_id": pending.id,
        "envelope": submission.envelope.encoded,
        "request": submission.request.encode() or None,
        "certificate": submission.certificate.encoded if submission.certificate else None,
    }
    session.connection().execute(insert(version), row)
    return pending


def _in_force(signed: ConsentVersion) -> dict[str, Any]:
    return {
        "version": signed.version,
        "event": signed.event.value,
        "live": signed.event.live,
        "not_before": signed.terms.not_before,
        "not_after": signed.terms.not_after,
        "quota_per_month": signed.terms.quota_per_month,
    }


def _log_version(session: Session, place: Place, signed: ConsentVersion, envelope: Envelope) -> Pending:
    at = datetime.fromtimestamp(signed.event_time, UTC)
    return log_event(
        session,
        place,
        LeafKind.CONSENT,
        {"consent_kind": signed.terms.kind.value, "event_state": signed.event.state, "period": month_of(at)},
        {
            "version": signed.version,
            "grantee": signed.terms.grantee,
            "event": signed.event.value,
            "at": signed.event_time,
            "record": b64u(envelope.digest),
        },
    )


def hand_over(
    session: Session,
    keys: Sequence[VerifiedHandover],
    signed: ConsentVersion,
    certificate: Envelope | None,
    *,
    vault_id: VaultId,
    custody: Custody,
    now: datetime,
) -> None:
    """Log what was handed to whom; this leaf alone ties subject to vault, and only its owner is shown it."""
    records: list[JsonValue] = [
        {"keys": item.terms.kind.value, "to": b64u(item.terms.to), "record": b64u(item.envelope.digest)}
        for item in keys
    ]
    pending = append(
        session,
        LeafKind.HANDOVER,
        {"period": month_of(now)},
        {
            "vault": b64u(vault_id),
            "consent": b64u(signed.consent_id),
            "subject": b64u(signed.subject),
            "version": signed.version,
            "certificate": b64u(certificate.digest) if certificate else "",
            "handovers": records,
            "at": unix_s(now),
        },
        about=vault_id,
    )
    handovers.keep(session, keys, consent=signed, custody=custody, leaf_id=pending.id)
