"""Dynamic registration: a company files its signed record, the operator approves it, then it exists and may change its keys.

Anybody may file a record under keys made a moment ago, so those who file unasked wait in bounded room and not for long.
Whom the operator invites, with an initial access token, takes none of that room: a flood keeps no company away.

The metadata of RFC 7591 repeat what the record says, for clients that expect them; the record, in the extension
member `company_record`, is what the company signed and what the log will commit to. Keys come by value.
Source: RFC 7591 sections 1.2, 2 and 3; RFC 7592 section 2.2.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import ColumnElement, delete, func, insert, select
from sqlalchemy import update as sql_update
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session

from vault.clock import DAY_S, unix_s
from vault.errors import VaultError
from vault.oauth import authorizations, families
from vault.oauth.client import AUTH_METHOD, GRANT_TYPES, Form, authenticate
from vault.oauth.models import invitation as invitations
from vault.oauth.models import registration
from vault.parties import companies, company_records
from vault.parties.companies import Company, CompanyId, CompanyRecord, CompanyRefused, UnknownCompany
from vault.proof.jose import BadJws, JwsKey, read_jwk

UNINVITED_S: Final = 7 * DAY_S
"""How long a registration that nobody invited waits for the operator."""

INVITED_S: Final = 30 * DAY_S
"""How long an invitation may be used, and what was registered with it waits."""

MAX_WAITING: Final = 1_000
"""How many wait at once that nobody invited."""

MAX_SANDBOX: Final = 1_000
"""How many test companies one server takes that nobody invited; nobody approves them, and each is logged for good."""

REFILED_S: Final = 60
"""How long a registration waits at the least before the same company may replace it."""

MAX_CHANGES: Final = 6
"""How often a company itself may put its next record in force within `CHANGES_S`: weekly new keys, and once in need.

Each is logged for good, and shown with every answer that it gets from then on."""

CHANGES_S: Final = 30 * DAY_S

_FIXED: Final[Mapping[str, tuple[str, ...]]] = {"grant_types": GRANT_TYPES, "response_types": ("code",)}


class RegistrationsFull(VaultError):
    """Too many registrations wait for the operator."""

    slug = "registrations-full"
    title = "Registrations are full"
    status = 503


class BadMetadata(VaultError):
    """Client metadata that this server does not accept.

    Args:
        detail: What was wrong.
        error: The error code of RFC 7591 section 3.2.2.
    """

    slug = "bad-client-metadata"
    title = "Client metadata are not acceptable"
    status = 400

    def __init__(self, detail: str, error: str = "invalid_client_metadata") -> None:
        super().__init__(detail)
        self.error = error


class ChangedTooOften(VaultError):
    """A company's next record, sooner after several others than it may put one in force itself."""

    slug = "company-changed-too-often"
    title = "Company record was changed too often"
    status = 429


class UnknownInvitation(VaultError):
    """An initial access token that the operator did not hand out, that lapsed or that another company used."""

    slug = "unknown-invitation"
    title = "Invitation is not valid"
    status = 401


@dataclass(frozen=True, slots=True)
class Waiting:
    """A registration that the operator has not decided on.

    Args:
        company_id: The id it will have.
        name: What owners would be shown.
        contact: Where the operator reaches it.
        received_at: When it came.
        invited: Whether the operator had invited it.
    """

    company_id: CompanyId
    name: str
    contact: str
    received_at: datetime
    invited: bool


def invite(session: Session, *, now: datetime) -> str:
    """Return a new initial access token: the first company that registers with it is let in however many wait.

    Args:
        session: An open writing transaction.
        now: The current time; the token lapses `INVITED_S` later.
    """
    secret, connection = secrets.token_urlsafe(32), session.connection()
    connection.execute(delete(invitations).where(invitations.c.expires_at_s <= unix_s(now)))
    lapses = unix_s(now + timedelta(seconds=INVITED_S))
    connection.execute(insert(invitations), {"token_hash": _hash(secret), "company_id": None, "expires_at_s": lapses})
    return secret


def file(
    session: Session, metadata: Mapping[str, Any], *, sandbox: bool, now: datetime, invitation: str | None = None
) -> dict[str, Any]:
    """Keep a company's registration for the operator; filing again replaces what waits.

    With `"sandbox": true` it is a test company for good: where the server has a sandbox it exists at
    once, and only sandbox vaults may consent to it.

    Args:
        session: An open writing transaction.
        metadata: The JSON object that the client sent.
        sandbox: Whether this server has a sandbox.
        now: The current time.
        invitation: The initial access token that the client sent; None if it sent none.

    Returns:
        The client information response; its `client_id` works once the operator has approved.

    Raises:
        BadMetadata: No acceptable record, or metadata that contradict it.
        RegistrationsFull: Uninvited, while a thousand such wait or the sandbox has a thousand companies.
        UnknownInvitation: The token is none that this company may use.
    """
    jws = metadata.get("company_record")
    if not isinstance(jws, str):
        raise BadMetadata("Send the signed company record as company_record.")
    try:
        record = companies.verify_company_record(jws, signer=None, now=now)
    except CompanyRefused as error:
        raise BadMetadata(error.detail) from error
    _refuse_contradiction(metadata, record)
    if companies.find(session, record.company_id) is not None:
        raise BadMetadata("A company with this question key is already registered.")
    invited = invitation is not None
    if invitation is not None:
        _use_invitation(session, invitation, record.company_id, now)
    if metadata.get("sandbox", False) is False:
        _keep_waiting(session, record, jws, invited=invited, now=now)
        return _information(record, jws, "pending", now)
    if not sandbox:
        raise BadMetadata("This server has no sandbox; leave sandbox out and wait for the operator.")
    if not invited and companies.count_sandbox(session) >= MAX_SANDBOX:
        raise RegistrationsFull("The sandbox is full of test companies; ask the operator to invite you.")
    companies.register(session, jws, now=now, sandbox=True)
    return _information(record, jws, "sandbox", now)


def update(
    session: Session, issuer: str, client_id: str, metadata: Mapping[str, Any], *, now: datetime
) -> dict[str, Any]:
    """Put a company's next record in force: new keys, another contact or other addresses.

    It takes both keys in force: the question key signs the record, the authentication key an assertion, so that
    whoever stole one of them takes nothing over. The name that owners are shown, and whether software asks, the
    operator approved: a record that changes them is the operator's to put in force.

    Args:
        session: An open writing transaction.
        issuer: The only audience of an assertion.
        client_id: Whose record.
        metadata: As for `file`, with `client_assertion_type` and `client_assertion`.
        now: The current time.

    Returns:
        The client information response.

    Raises:
        InvalidClientError: The assertion does not hold.
        BadMetadata: The record does not follow the one in force or changes too much, or the metadata contradict it.
        ChangedTooOften: The company changed its record often enough; the operator may put this one in force.
    """
    sent = {name: str(metadata.get(name, "")) for name in ("client_assertion_type", "client_assertion")}
    company = authenticate(session, Form(issuer, {**sent, "client_id": client_id}), issuer, now=now).company
    jws = metadata.get("company_record")
    if not isinstance(jws, str):
        raise BadMetadata("Send the signed next company record as company_record.")
    try:
        record = companies.verify_company_record(jws, signer=company.question_key, now=now)
        _refuse_contradiction(metadata, record)
        if record.company_id != company.company_id:  # whose question key may be the same
            raise BadMetadata("The record is another company's.")
        if (record.name, record.agent) != (company.name, company.agent):
            raise BadMetadata("Only the operator changes a name, or whether software asks; send the record there.")
        after = put_next(session, jws, now=now)
    except CompanyRefused as error:
        raise BadMetadata(error.detail) from error
    _refuse_too_often(session, company, now)
    return _information(record, jws, "sandbox" if after.sandbox else "approved", now)


def put_next(session: Session, unverified_jws: str, *, now: datetime) -> Company:
    """Put a company's next record in force and end what was issued to the keys that it replaces.

    Args:
        session: An open writing transaction.
        unverified_jws: The next record, signed by the question key in force.
        now: The current time.

    Raises:
        CompanyRefused: The record is not acceptable or is not the next one.
        UnknownCompany: No such company.

    Guarantees: requests and codes that wait end, since the key before signed them; where the authentication key
        changes, so does every token that was issued to it.
    """
    unverified_id = companies.unverified_company_id(unverified_jws)
    before, after = companies.get(session, unverified_id), companies.rotate(session, unverified_jws, now=now)
    authorizations.end_waiting(session, after.company_id)
    if after.client_auth_key != before.client_auth_key:
        families.end_issued_to(session, before, now=now)
    return after


def list_waiting(session: Session) -> list[Waiting]:
    """Return what waits for the operator, the oldest first."""
    rows = session.connection().execute(select(registration).order_by(registration.c.received_at_s))
    found = []
    for row in rows:
        received_at = datetime.fromtimestamp(row.received_at_s, UTC)
        record = companies.verify_company_record(row.record, signer=None, now=received_at)
        found.append(Waiting(record.company_id, record.name, record.contact, received_at, row.invited))
    return found


def approve(session: Session, company_id: CompanyId, *, now: datetime) -> Company:
    """Register a company that waits; from here on owners may give it consents.

    Raises:
        UnknownCompany: Nothing waits under this id.
        CompanyRefused: Its record is not acceptable any more.
    """
    taken = delete(registration).where(registration.c.company_id == company_id).returning(registration.c.record)
    record = session.connection().execute(taken).scalar_one_or_none()
    if record is None:
        raise UnknownCompany("No registration of this id waits here.")
    return companies.register(session, record, now=now)


def reject(session: Session, company_id: CompanyId) -> None:
    """Forget a registration that waits.

    Raises:
        UnknownCompany: Nothing waits under this id.
    """
    gone = delete(registration).where(registration.c.company_id == company_id).returning(registration.c.company_id)
    if session.connection().execute(gone).scalar_one_or_none() is None:
        raise UnknownCompany("No registration of this id waits here.")


def reject_uninvited(session: Session) -> int:
    """Forget all that wait and were not invited; return how many they were."""
    gone = delete(registration).where(~registration.c.invited).returning(registration.c.company_id)
    return len(session.connection().execute(gone).all())


def _use_invitation(session: Session, unverified_token: str, company_id: CompanyId, now: datetime) -> None:
    """Take an invitation for this company, which may use it again: the first answer may have been lost."""
    mine = invitations.c.company_id.is_(None) | (invitations.c.company_id == company_id)
    taken = (
        sql_update(invitations)
        .where(invitations.c.token_hash == _hash(unverified_token), invitations.c.expires_at_s > unix_s(now), mine)
        .values(company_id=company_id)
        .returning(invitations.c.token_hash)
    )
    if session.connection().execute(taken).one_or_none() is None:
        raise UnknownInvitation(
            "This invitation is not known, lapsed or was used by another company; ask for a new one."
        )


def _keep_waiting(session: Session, record: CompanyRecord, jws: str, *, invited: bool, now: datetime) -> None:
    connection = session.connection()
    connection.execute(delete(registration).where(_lapsed(now)))
    own = registration.c.company_id == record.company_id
    waits = connection.execute(select(registration).where(own)).one_or_none()
    if waits is not None:
        if waits.record == jws and waits.invited >= invited:
            return  # sent again, perhaps by somebody who saw it: nothing is written
        if waits.record != jws and waits.received_at_s > unix_s(now) - REFILED_S:
            raise BadMetadata(
                f"A registration is replaced at most once in {REFILED_S} seconds; send it a little later."
            )
        invited = invited or waits.invited
        connection.execute(delete(registration).where(own))
    uninvited = select(func.count()).select_from(registration).where(~registration.c.invited)
    if not invited and connection.execute(uninvited).scalar_one() >= MAX_WAITING:
        raise RegistrationsFull(
            "Too many registrations wait for the operator; try again tomorrow, or ask the operator to invite you.",
            retry_after_s=DAY_S,
        )
    row = {"company_id": record.company_id, "record": jws, "received_at_s": unix_s(now), "invited": invited}
    try:
        connection.execute(insert(registration), row)
    except IntegrityError as error:
        raise BadMetadata("This company is being registered by another request; try again.") from error


def _lapsed(now: datetime) -> ColumnElement[bool]:
    invited, received = registration.c.invited, registration.c.received_at_s
    return (~invited & (received <= unix_s(now) - UNINVITED_S)) | (received <= unix_s(now) - INVITED_S)


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _refuse_too_often(session: Session, company: Company, now: datetime) -> None:
    """Refuse one change more than a company may make, once it holds its row: nobody counts beside it then."""
    changed_at = company_records.changes(session, company.company_id, at_most=MAX_CHANGES + 1)
    if len(changed_at) <= MAX_CHANGES or changed_at[-1] <= unix_s(now) - CHANGES_S:
        return
    again_s = changed_at[-1] + CHANGES_S
    raise ChangedTooOften(
        f"A company changes its record at most {MAX_CHANGES} times in {CHANGES_S // DAY_S} days, and may again from"
        f" {datetime.fromtimestamp(again_s, UTC):%Y-%m-%d %H:%M} UTC. If it cannot wait, as after a theft of a key, send the"
        " record to the operator, who can put it in force at once.",
        retry_after_s=again_s - unix_s(now),
    )


def _refuse_contradiction(metadata: Mapping[str, Any], record: CompanyRecord) -> None:
    uris = metadata.get("redirect_uris")
    if not isinstance(uris, list) or sorted(map(str, uris)) != list(record.redirect_uris):
        raise BadMetadata("redirect_uris must be those of the company record.", "invalid_redirect_uri")
    if metadata.get("client_name", record.name) != record.name:
        raise BadMetadata("client_name must be the name in the company record.")
    if "jwks_uri" in metadata:
        raise BadMetadata("Send keys by value, as jwks: this server fetches nothing.")
    if _only_key(metadata.get("jwks")) != record.client_auth_key:
        raise BadMetadata("jwks must hold one key, the client_auth_key of the company record.")
    if metadata.get("token_endpoint_auth_method", AUTH_METHOD) != AUTH_METHOD:
        raise BadMetadata(f"token_endpoint_auth_method must be {AUTH_METHOD}.")
    for name, known in _FIXED.items():
        asked = metadata.get(name, list(known))
        if not isinstance(asked, list) or not all(item in known for item in asked):
            raise BadMetadata(f"{name} may hold {', '.join(known)}.")
    if "software_statement" in metadata:
        raise BadMetadata("Software statements are not used here.", "invalid_software_statement")


def _only_key(unverified_jwks: object) -> JwsKey:
    keys = unverified_jwks.get("keys") if isinstance(unverified_jwks, dict) else None
    if not isinstance(keys, list) or len(keys) != 1:
        raise BadMetadata("jwks must hold one key, the client_auth_key of the company record.")
    try:
        return read_jwk(keys[0])
    except BadJws as error:
        raise BadMetadata(error.detail) from error


def _information(record: CompanyRecord, jws: str, status: str, now: datetime) -> dict[str, Any]:
    return {
        "client_id": record.company_id,
        "client_id_issued_at": unix_s(now),
        "client_name": record.name,
        "redirect_uris": list(record.redirect_uris),
        "jwks": {"keys": [json.loads(record.client_auth_key.jwk)]},
        "token_endpoint_auth_method": AUTH_METHOD,
        "grant_types": list(GRANT_TYPES),
        "response_types": ["code"],
        "dpop_bound_access_tokens": True,
        "require_pushed_authorization_requests": True,
        "company_record": jws,
        "company_status": status,
    }
