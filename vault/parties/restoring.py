"""Putting companies' records in force again that a restored database forgot."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum

from sqlmodel import Session

from vault.encoding import b64u, parse_json
from vault.parties import companies, company_records
from vault.parties.companies import CompanyId, CompanyRefused, CompanyStatus
from vault.seal.ids import sha256
from vault.tlog.log import Leaf, PendingId


class Repeated(StrEnum):
    """What became of a record that a restored database had forgotten."""

    KNOWN = "known"
    FOLLOWED = "followed"
    REGISTERED = "registered"
    LOST = "lost"


def records(session: Session, leaves: Sequence[Leaf]) -> dict[PendingId, bytes]:
    """Return the records behind these leaves of companies, as far as they are kept, for `repeat`.

    A test company's first is left out: that nobody approved it does not stand in its record.
    """
    found = {}
    for leaf in leaves:
        said = parse_json(leaf.public.body)
        company = companies.find(session, str(said["company"]))
        if company is None or (company.sandbox and said["version"] == 1):
            continue
        for record in company_records.every(session, company.company_id):
            if said["record_sha256"] == b64u(sha256(record.encode())):
                found[leaf.pending_id] = record.encode()
    return found


def repeat(session: Session, company_id: CompanyId, version: int, record: bytes, *, now: datetime) -> Repeated:
    """Put a company's record in force again; safe to repeat.

    Args:
        session: An open writing transaction.
        company_id: Whose.
        version: Of the record.
        record: The compact JWS; empty if it is lost.
        now: The current time.

    Guarantees: a key that the company replaced is not in force again: where its next record is lost or does not
        follow, the company is suspended. Nobody may ask who could not before: a company that the backup does not know
        is suspended too, until the operator reinstates it.
    """
    found = companies.find(session, company_id)
    if found is not None and found.version >= version:
        return Repeated.KNOWN
    try:
        if found is None:
            company = companies.register(session, record.decode(), now=now)
            companies.set_status(session, company.company_id, CompanyStatus.SUSPENDED, now=now)
            return Repeated.REGISTERED
        companies.rotate(session, record.decode(), now=now)
    except CompanyRefused:
        if found is None:
            return Repeated.LOST
        companies.set_status(session, found.company_id, CompanyStatus.SUSPENDED, now=now)
    return Repeated.FOLLOWED
