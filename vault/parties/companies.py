"""Companies: registered by the operator from records that each company signs itself.

A company record is a compact JWS of type `twinvault-company+jwt` over {company_id, version, name,
contact, agent (0 or 1), redirect_uris, client_auth_key, question_key, issued_at}. Version 1 is signed
by its own question key, whose thumbprint makes the company id; every later version is signed by the
question key of the version before it, so that the operator cannot replace a company's keys.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, NewType

import sqlalchemy
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, SQLModel, col, select

from vault.clock import unix_s
from vault.db import Prepared
from vault.encoding import b64u, parse_b64u
from vault.errors import VaultError
from vault.parties import company_records, turns
from vault.parties.models import CompanyRow
from vault.parties.turns import Turns
from vault.proof.jose import COMPANY_TYPE, BadJws, JwsKey, parse_jwk, parse_jws, read_jwk
from vault.proof.leaf import LeafKind
from vault.schema.company import MAX_REDIRECTS, parse_company_name, parse_contact, parse_redirect
from vault.schema.reader import Reader
from vault.tlog import groups
from vault.tlog.log import append

CompanyId = NewType("CompanyId", str)
"""First 16 bytes of the thumbprint of a company's first question key, 22 characters."""

_ID = re.compile(r"[A-Za-z0-9_-]{22}")
_CLOCK_SKEW_S = 300

_TABLE: Final = SQLModel.metadata.tables["company"]
_MINE: Final = _TABLE.c.company_id == sqlalchemy.bindparam("company_id")
_FIND: Final = Prepared(sqlalchemy.select(_TABLE).where(_MINE))
_SHARED: Final = Turns(sqlalchemy.select(turns.shared(_TABLE.c.company_id)).where(_MINE))
_ALONE: Final = Turns(sqlalchemy.select(turns.alone(_TABLE.c.company_id)).where(_MINE))
_HOLD: Final = Prepared(
    sqlalchemy.select(_TABLE.c.company_id)
    .where(
        _TABLE.c.company_id == sqlalchemy.bindparam("company_id"),
        _TABLE.c.version == sqlalchemy.bindparam("version"),
    )
    .with_for_update(read=True)
)


class CompanyRefused(VaultError):
    """A company record that does not have the documented shape or does not follow the one before it."""

    slug = "bad-company-record"
    title = "Company record is not acceptable"
    status = 422


class UnknownCompany(VaultError):
    """No company of that id is registered."""

    slug = "unknown-company"
    title = "Unknown company"
    status = 404


class ReplacedMeanwhile(Exception):  # never leaves the service: the question is read again
    """A company's record was replaced after it was read."""


class CompanyStatus(StrEnum):
    """Whether a company may ask."""

    ACTIVE = "active"
    SUSPENDED = "suspended"


@dataclass(frozen=True, slots=True)
class CompanyRecord:
    """What a company says about itself, signed.

    Args:
        company_id: Stays the same through every version.
        version: 1 for the first.
        name: What owners are shown.
        contact: Where owners reach it.
        agent: Whether questions come from software that decides by itself what to ask.
        redirect_uris: Where an authorization may send the owner back to.
        client_auth_key: Authenticates the company at the token endpoint.
        question_key: Signs its questions and its next record.
        issued_at: Unix seconds.
    """

    company_id: CompanyId
    version: int
    name: str
    contact: str
    agent: bool
    redirect_uris: tuple[str, ...]
    client_auth_key: JwsKey
    question_key: JwsKey
    issued_at: int


@dataclass(frozen=True, slots=True)
class Company:
    """A registered company.

    Args:
        company_id: Its id, also its OAuth client_id.
        version: Of the record in force.
        record: That record, the compact JWS exactly as signed.
        name: What owners are shown.
        contact: Where owners reach it.
        agent: Whether it declared itself a software agent.
        redirect_uris: For the authorization endpoint.
        client_auth_key: Authenticates it at the token endpoint.
        question_key: Signs its questions.
        status: Whether it may ask.
        sandbox: Whether nobody approved it, so that only sandbox vaults may give it anything.
    """

    company_id: CompanyId
    version: int
    record: str
    name: str
    contact: str
    agent: bool
    redirect_uris: tuple[str, ...]
    client_auth_key: JwsKey
    question_key: JwsKey
    status: CompanyStatus
    sandbox: bool


def parse_company_id(text: str) -> CompanyId:
    """Return a company id.

    Raises:
        CompanyRefused: The text is not 16 bytes in base64url.
    """
    if _ID.fullmatch(text) is None:
        raise CompanyRefused("A company id has 22 base64url characters.")
    return CompanyId(text)


def company_id_of(first_question_key: JwsKey) -> CompanyId:
    """Return the id of the company whose first question key this is."""
    return CompanyId(b64u(parse_b64u(first_question_key.kid)[:16]))


def verify_company_record(unverified_jws: str, *, signer: JwsKey | None, now: datetime) -> CompanyRecord:
    """Return a company's record.

    Args:
        unverified_jws: The compact JWS.
        signer: The question key of the version before; None for a first record, which is signed
            by its own question key and named after it.
        now: The current time.

    Raises:
        CompanyRefused: Another signer, a field outside its documented form, a name that owners
            could misread, a version that does not fit the signer, or a time in the future.
    """
    try:
        jws = parse_jws(unverified_jws, COMPANY_TYPE)
        reader = Reader(jws.unverified_claims, CompanyRefused, "company record")
        client_auth_key = read_jwk(reader.mapping("client_auth_key"))
        question_key = read_jwk(reader.mapping("question_key"))
        jws.verify(signer or question_key)
    except BadJws as error:
        raise CompanyRefused(error.detail) from error
    record = CompanyRecord(
        company_id=CompanyId(reader.text("company_id", _ID)),
        version=reader.integer("version", 1, 2**31 - 1),
        name=reader.parsed("name", parse_company_name),
        contact=reader.parsed("contact", parse_contact),
        agent=reader.flag("agent"),
        redirect_uris=reader.words("redirect_uris", parse_redirect, at_most=MAX_REDIRECTS),
        client_auth_key=client_auth_key,
        question_key=question_key,
        issued_at=reader.time("issued_at"),
    )
    reader.end()
    if client_auth_key == question_key:
        raise CompanyRefused("The client authentication key and the question key must differ.")
    if record.issued_at > unix_s(now) + _CLOCK_SKEW_S:
        raise CompanyRefused("The record is issued in the future; check the clock that signed it.")
    if signer is None and (record.version != 1 or record.company_id != company_id_of(question_key)):
        raise CompanyRefused("A first record has version 1 and the id of its own question key.")
    return record


def register(session: Session, unverified_jws: str, *, now: datetime, sandbox: bool = False) -> Company:
    """Register a company that the operator approved; writes the row and its leaf.

    Args:
        session: An open writing transaction.
        unverified_jws: The company's first record.
        now: The current time.
        sandbox: Nobody approved it: no vault but a sandbox vault may give it a consent, ever.

    Raises:
        CompanyRefused: The record is not acceptable, or its company is registered already.
    """
    record = verify_company_record(unverified_jws, signer=None, now=now)
    row = _row(record, unverified_jws, CompanyStatus.ACTIVE, sandbox=sandbox)
    session.add(row)
    try:
        session.flush()
    except IntegrityError as error:
        raise CompanyRefused("A company with this question key is already registered.") from error
    company_records.keep(session, row.company_id, row.version, row.record, now=now)
    return _company(row)


def rotate(session: Session, unverified_jws: str, *, now: datetime) -> Company:
    """Put a company's next record in force: new keys, name or contact; writes the row and its leaf.

    Args:
        session: An open writing transaction.
        unverified_jws: The next record, signed by the question key now in force.
        now: The current time.

    Raises:
        CompanyRefused: The record is not acceptable or is not the next one.
        UnknownCompany: No such company.

    Guarantees: what was recorded of the company under the record before, with `is_in_force` or `hold`, comes before the
        leaf of the next in the log, denials that wait for their minute to end among it. So one record was in force at
        each leaf.
    """
    row = _locked(session, unverified_company_id(unverified_jws))
    record = verify_company_record(unverified_jws, signer=parse_jwk(row.question_key), now=now)
    if record.company_id != row.company_id or record.version != row.version + 1:
        raise CompanyRefused(f"The next record of this company must have version {row.version + 1}.")
    groups.publish_caused(session, LeafKind.DENIALS, row.company_id)
    session.merge(_row(record, unverified_jws, CompanyStatus(row.status), sandbox=row.sandbox))
    session.flush()
    company_records.keep(session, row.company_id, row.version, row.record, now=now)
    return _company(row)


def unverified_company_id(unverified_jws: str) -> CompanyId:
    """Return whose a company record says it is, to find out which key should have signed it.

    Raises:
        CompanyRefused: It is no company record.
    """
    try:
        claims = parse_jws(unverified_jws, COMPANY_TYPE).unverified_claims
    except BadJws as error:
        raise CompanyRefused(error.detail) from error
    return parse_company_id(str(claims.get("company_id")))


def count_sandbox(session: Session) -> int:
    """Return how many test companies are registered."""
    counted = select(sqlalchemy.func.count()).select_from(CompanyRow).where(col(CompanyRow.sandbox))
    return session.exec(counted).one()


def set_status(session: Session, company_id: CompanyId, status: CompanyStatus, *, now: datetime) -> None:
    """Suspend or reinstate a company; writes the row and its leaf, or nothing if it is so already.

    Guarantees: an answer whose transaction used `is_in_force` has committed, with its leaf, before a
    suspension's leaf is inserted, or it does not commit at all.

    Raises:
        UnknownCompany: No such company.
    """
    row = _locked(session, company_id)
    if row.status == status:
        return
    row.status = status
    session.add(row)
    session.flush()
    append(session, LeafKind.COMPANY_STATUS, {"company": company_id, "status": status, "at": unix_s(now)}, {})


def is_in_force(
    company_id: sqlalchemy.ColumnElement[str] | str, version: sqlalchemy.ColumnElement[int] | int
) -> sqlalchemy.ColumnElement[bool]:
    """Return the condition that a company is not suspended and its record has this version still, for a WHERE.

    The row is share-locked where the condition is evaluated: under PostgreSQL's READ COMMITTED a
    plain subquery would keep the statement's old snapshot even after waiting for a suspension.
    """
    in_force = select(CompanyRow.company_id).where(
        col(CompanyRow.company_id) == company_id,
        col(CompanyRow.status) == CompanyStatus.ACTIVE,
        col(CompanyRow.version) == version,
    )
    return in_force.with_for_update(read=True).exists()


def hold(session: Session, company_id: CompanyId, version: int) -> None:
    """Keep a company's record in force until the transaction ends, whether the company is suspended or not.

    Args:
        session: An open writing transaction.
        company_id: Whose.
        version: Of the record as it was read.

    Raises:
        ReplacedMeanwhile: It has another by now.
    """
    _SHARED.take(session, company_id=company_id)
    if _HOLD.one(session, company_id=company_id, version=version) is None:
        raise ReplacedMeanwhile


def find(session: Session, company_id: str) -> Company | None:
    """Return a company, if it is registered."""
    if _ID.fullmatch(company_id) is None:  # PostgreSQL refuses some texts, such as a NUL, even to look them up
        return None
    row = _FIND.one(session, company_id=company_id)
    return None if row is None else _company(row)


def get(session: Session, company_id: str) -> Company:
    """Return a company.

    Raises:
        UnknownCompany: It is not registered.
    """
    company = find(session, company_id)
    if company is None:
        raise UnknownCompany("No company of this id is registered here.")
    return company


def list_companies(session: Session, *, after: str = "", at_most: int = 100) -> Sequence[Company]:
    """Return companies in the order of their ids, one page at a time.

    Args:
        session: Any open transaction.
        after: The last id of the page before.
        at_most: Page size.
    """
    page = select(CompanyRow).where(col(CompanyRow.company_id) > after)
    return [_company(row) for row in session.exec(page.order_by(col(CompanyRow.company_id)).limit(at_most))]


def _locked(session: Session, company_id: CompanyId) -> CompanyRow:
    _ALONE.take(session, company_id=company_id)
    row = session.exec(
        select(CompanyRow)
        .where(col(CompanyRow.company_id) == company_id)
        .with_for_update()
        .execution_options(populate_existing=True)
    ).one_or_none()
    if row is None:
        raise UnknownCompany("No company of this id is registered here.")
    return row


def _row(record: CompanyRecord, jws: str, status: CompanyStatus, *, sandbox: bool) -> CompanyRow:
    return CompanyRow(
        company_id=record.company_id,
        version=record.version,
        record=jws,
        name=record.name,
        contact=record.contact,
        agent=record.agent,
        redirect_uris=json.dumps(record.redirect_uris),
        client_auth_key=record.client_auth_key.jwk,
        question_key=record.question_key.jwk,
        status=status,
        sandbox=sandbox,
    )


def _company(row: CompanyRow | sqlalchemy.Row[Any]) -> Company:
    return Company(
        company_id=CompanyId(row.company_id),
        version=row.version,
        record=row.record,
        name=row.name,
        contact=row.contact,
        agent=row.agent,
        redirect_uris=tuple(json.loads(row.redirect_uris)),
        client_auth_key=parse_jwk(row.client_auth_key),
        question_key=parse_jwk(row.question_key),
        status=CompanyStatus(row.status),
        sandbox=row.sandbox,
    )
