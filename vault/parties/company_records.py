"""Every record of a company as it signed it, from the first on: whoever verifies what it signed needs them all."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlmodel import Session, col, select

from vault.clock import unix_s
from vault.encoding import b64u
from vault.parties.models import CompanyRecordRow
from vault.proof.leaf import LeafKind
from vault.seal.ids import sha256
from vault.tlog.log import append


def keep(session: Session, company_id: str, version: int, record: str, *, now: datetime) -> None:
    """Keep a record that is in force from now on; writes the row and its leaf.

    Args:
        session: The writing transaction that puts it in force.
        company_id: Whose.
        version: Of the record.
        record: The compact JWS exactly as signed.
        now: The current time.
    """
    session.merge(CompanyRecordRow(company_id=company_id, version=version, record=record, in_force_at_s=unix_s(now)))
    digest = b64u(sha256(record.encode()))
    append(session, LeafKind.COMPANY, {"company": company_id, "version": version, "record_sha256": digest}, {})


def every(session: Session, company_id: str) -> Sequence[str]:
    """Return every record of a company in the order of its versions, each signed by the key of the one before it."""
    kept = select(CompanyRecordRow.record).where(col(CompanyRecordRow.company_id) == company_id)
    return session.exec(kept.order_by(col(CompanyRecordRow.version))).all()


def changes(session: Session, company_id: str, *, at_most: int) -> Sequence[int]:
    """Return when a company's newest records after its first were put in force, the newest first, unix seconds.

    Args:
        session: Any open transaction.
        company_id: Whose.
        at_most: How many.
    """
    later = select(CompanyRecordRow.in_force_at_s).where(
        col(CompanyRecordRow.company_id) == company_id, col(CompanyRecordRow.version) > 1
    )
    return session.exec(later.order_by(col(CompanyRecordRow.version).desc()).limit(at_most)).all()
