"""Refresh tokens: a family descends from one code, one token of it is in force, a used one betrays a copy.

A refresh token is its family's id followed by a secret. The row keeps digests of the secret in force and of the
one before it, so any other secret of a known family can only be an old one.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import ColumnElement, case, delete, insert, or_, select, update
from sqlmodel import Session

from vault.clock import unix_s
from vault.encoding import b64u, parse_b64u
from vault.errors import MalformedInput
from vault.oauth.models import family
from vault.oauth.tokens import TOKEN_S, revoke
from vault.parties.companies import Company, CompanyId
from vault.seal.ids import ConsentId

FAMILY_BYTES: Final = 16
RETRY_S: Final = 60
_SECRET_BYTES: Final = 32
_SWEEP: Final = 32


@dataclass(frozen=True, slots=True)
class Family:
    """The refresh tokens that descend from one code.

    Args:
        family_id: 16 random bytes.
        company_id: Whose they are.
        grant_id: The consent that they are for.
        expires_at: Unix second of their end.
    """

    family_id: bytes
    company_id: CompanyId
    grant_id: ConsentId
    expires_at: int


def begin(session: Session, new: Family, *, now: datetime) -> str:
    """Make a family and return its first refresh token."""
    connection = session.connection()
    over = select(family.c.family_id).where(family.c.expires_at_s <= unix_s(now)).limit(_SWEEP)
    connection.execute(delete(family).where(family.c.family_id.in_(over.with_for_update(skip_locked=True))))
    secret = secrets.token_bytes(_SECRET_BYTES)
    row = {
        "family_id": new.family_id,
        "company_id": new.company_id,
        "consent_id": new.grant_id,
        "secret_hash": _hash(secret),
        "former_hash": b"",
        "retry_until_s": 0,
        "expires_at_s": new.expires_at,
    }
    connection.execute(insert(family), row)
    return b64u(new.family_id + secret)


def rotate(
    session: Session, unverified_token: str, company_id: CompanyId, *, now: datetime
) -> tuple[Family, str] | None:
    """Take a refresh token for the next one.

    The token before the one in force works for a minute more, because the answer that carried its
    successor may have been lost; the successor then never works. Any other old token ends the family.

    Args:
        session: An open writing transaction, to be committed whatever comes back: it may end the family.
        unverified_token: As the company sent it.
        company_id: Which company, authenticated.
        now: The current time.

    Returns:
        The family and its token in force; None for a token that is unknown, used, over or another company's.

    Source: RFC 9700 section 4.14.2; FAPI 2.0 Security Profile 5.3.2.1 note 1 for the retry.
    """
    family_id, secret = _parse(unverified_token)
    following, now_s = secrets.token_bytes(_SECRET_BYTES), unix_s(now)
    mine = (family.c.family_id == family_id) & (family.c.company_id == company_id)
    in_force, retried = _works(secret, now_s)
    values = {
        "former_hash": _hash(secret),
        "secret_hash": _hash(following),
        "retry_until_s": case((in_force, now_s + RETRY_S), else_=family.c.retry_until_s),  # a retry buys no time
    }
    rotated = (
        update(family)
        .where(mine, or_(in_force, retried), family.c.expires_at_s > now_s)
        .values(**values)
        .returning(family.c.consent_id, family.c.expires_at_s)
    )
    row = session.connection().execute(rotated).one_or_none()
    if row is not None:
        return Family(family_id, company_id, ConsentId(row.consent_id), row.expires_at_s), b64u(family_id + following)
    known = session.connection().execute(select(family.c.family_id).where(mine)).one_or_none()
    if known is not None:
        end(session, family_id, now=now)
    return None


def find(session: Session, unverified_token: str, company_id: CompanyId, *, now: datetime) -> Family | None:
    """Return the family of a company's refresh token that works now: in force, or good for asking once more."""
    family_id, secret = _parse(unverified_token)
    query = select(family).where(
        family.c.family_id == family_id,
        family.c.company_id == company_id,
        or_(*_works(secret, unix_s(now))),
        family.c.expires_at_s > unix_s(now),
    )
    row = session.connection().execute(query).one_or_none()
    return None if row is None else Family(family_id, company_id, ConsentId(row.consent_id), row.expires_at_s)


def forget(session: Session, consent_ids: Iterable[ConsentId]) -> None:
    """Forget the refresh tokens of these consents; erasure calls this."""
    mine = family.c.consent_id.in_(list(consent_ids))
    _lock(session, mine)
    session.connection().execute(delete(family).where(mine))


def end_all(session: Session) -> None:
    """End every family: a restored database knows neither which were revoked since nor which token is in force."""
    session.connection().execute(delete(family))


def end(session: Session, family_id: bytes, *, now: datetime) -> None:
    """Revoke a family: its refresh tokens, and the access tokens that were made from them."""
    session.connection().execute(delete(family).where(family.c.family_id == family_id))
    revoke(session, family_id, expires_at_s=unix_s(now) + TOKEN_S, now=now)


def of_key(company: Company) -> bytes:
    """Return the name under which what a company was issued in its own name ends: its authentication key's."""
    return parse_b64u(company.client_auth_key.kid)[:FAMILY_BYTES]


def end_issued_to(session: Session, company: Company, *, now: datetime) -> None:
    """End every token that was issued to a company's authentication key, which is replaced."""
    for family_id in [*_lock(session, family.c.company_id == company.company_id), of_key(company)]:
        end(session, family_id, now=now)


def _lock(session: Session, which: ColumnElement[bool]) -> list[bytes]:
    """Lock families that another may be ending too, in one order, lest each waits for the other's; return their ids."""
    in_order = select(family.c.family_id).where(which).order_by(family.c.family_id).with_for_update()
    return list(session.connection().execute(in_order).scalars())


def _works(secret: bytes, now_s: int) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    """Return the conditions that a secret is in force, and that it is the one before and may be used once more."""
    retried = (family.c.former_hash == _hash(secret)) & (family.c.retry_until_s > now_s)
    return family.c.secret_hash == _hash(secret), retried


def _parse(unverified_token: str) -> tuple[bytes, bytes]:
    try:
        token = parse_b64u(unverified_token, size=FAMILY_BYTES + _SECRET_BYTES)
    except MalformedInput:
        token = b""  # no family has an empty id
    return token[:FAMILY_BYTES], token[FAMILY_BYTES:]


def _hash(secret: bytes) -> bytes:
    return hashlib.sha256(secret).digest()
