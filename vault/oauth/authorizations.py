"""Pushed authorization requests: pushed -> shown -> approved or denied -> issued -> redeemed.

Each step is one conditional UPDATE, so of several callers exactly one takes it, on both databases. A first request
is nobody's until an owner types the code that a browser shows: no company can find out who is here. A request that
names the consent it wants renewed is that owner's from the start, and waits for days, whether or not a browser opens.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import ColumnElement, Row, case, delete, insert, select, update
from sqlmodel import Session

from vault.clock import DAY_S, unix_s
from vault.consent import consents
from vault.encoding import b64u, parse_b64u
from vault.errors import MalformedInput, VaultError
from vault.oauth.models import authorization
from vault.parties.companies import CompanyId
from vault.parties.once import is_any_spent, spend
from vault.proof.jose import Thumbprint
from vault.seal.ids import ConsentId, VaultId

REQUEST_URI_PREFIX: Final = "urn:ietf:params:oauth:request_uri:"
PUSHED_S: Final = 90
NAMED_S: Final = 7 * DAY_S
SHOWN_S: Final = 600
DECIDED_S: Final = 600  # a phone may have put the browser to sleep
CODE_S: Final = 60
MISSES_PER_MINUTE: Final = 6
_KEPT_S: Final = DAY_S
_SWEEP: Final = 32
_NAME_BYTES: Final = 32
# No vowels, nothing that looks like another: 20 letters, 8 of them are 35 bits for ten minutes at 6 guesses a minute.
_LETTERS: Final = "BCDFGHJKLMNPQRSTVWXZ"
_USER_CODE = re.compile(rf"[{_LETTERS}]{{8}}")


class UnknownAuthorization(VaultError):
    """No authorization waits under this code, or none that the caller may decide."""

    slug = "unknown-authorization"
    title = "Unknown authorization"
    status = 404


class TooManyLookups(VaultError):
    """An owner's client tried too many codes."""

    slug = "too-many-lookups"
    title = "Too many codes tried"
    status = 429


class NotWhatWasAsked(VaultError):
    """A consent that does not answer the authorization it was offered for."""

    slug = "not-what-was-asked"
    title = "Consent does not answer the request"
    status = 422


class State(StrEnum):
    """How far an authorization has come; a redirect with an error leaves it denied."""

    PUSHED = "pushed"
    SHOWN = "shown"
    APPROVED = "approved"
    DENIED = "denied"
    ISSUED = "issued"
    REDEEMED = "redeemed"


_OPEN: Final = (State.PUSHED, State.SHOWN)
"""What an owner may still decide; nobody's vault is on a pushed request but the one whose consent it names."""


@dataclass(frozen=True, slots=True)
class Pushed:
    """What a company pushed, checked.

    Args:
        company_id: Who asks.
        parameters: Of the authorization request, as Authlib reads them again when it is answered.
        jkt: The key that the code, and so the first token, is bound to.
        request: The signed consent request.
        grant_id: The consent that it wants renewed; None for a new one.
    """

    company_id: CompanyId
    parameters: Mapping[str, str]
    jkt: Thumbprint
    request: str
    grant_id: ConsentId | None


@dataclass(frozen=True, slots=True)
class Authorization:
    """One authorization as it stands.

    Args:
        request_hash: Names it; gives nothing away of the request_uri.
        asked: What was pushed.
        state: How far it has come.
        expires_at_s: Unix second from which on the next step is refused.
        browser_hash: Digest of the cookie of the browser that opened it; empty before.
        user_code: What the page shows and the owner's client looks up; empty before it is shown.
        consent_id: The consent that answered it; None before.
    """

    request_hash: bytes
    asked: Pushed
    state: State
    expires_at_s: int
    browser_hash: bytes
    user_code: str
    consent_id: ConsentId | None

    @property
    def name(self) -> str:
        """What the owner's client calls it, where no code was typed."""
        return b64u(self.request_hash)

    def is_open_in(self, browser: str) -> bool:
        """Say whether the browser with this cookie opened it."""
        return hmac.compare_digest(self.browser_hash, _hash(browser))


def push(session: Session, asked: Pushed, *, vault_id: VaultId | None = None, now: datetime) -> str:
    """Keep a request and return its request_uri, good once, for 90 seconds.

    Args:
        session: An open writing transaction.
        asked: What was pushed.
        vault_id: Whose consent it wants renewed; that owner sees it in a list. It replaces what the company
            asked about this consent before and what still waits.
        now: The current time.

    Source: RFC 9126 section 2.2.
    """
    connection = session.connection()
    if vault_id is not None:
        same = (authorization.c.vault_id == vault_id) & (authorization.c.grant_id == asked.grant_id)
        connection.execute(delete(authorization).where(same, authorization.c.state.in_([*_OPEN, State.DENIED])))
    old = select(authorization.c.request_hash).where(authorization.c.expires_at_s <= unix_s(now) - _KEPT_S)
    old = old.order_by(authorization.c.expires_at_s).limit(_SWEEP).with_for_update(skip_locked=True)
    connection.execute(delete(authorization).where(authorization.c.request_hash.in_(old)))
    secret = secrets.token_urlsafe(32)
    row = {
        "request_hash": _hash(secret),
        "company_id": asked.company_id,
        "parameters": json.dumps(dict(asked.parameters)),
        "jkt": asked.jkt,
        "request": asked.request,
        "grant_id": asked.grant_id,
        "state": State.PUSHED.value,
        "opens_until_s": unix_s(now) + PUSHED_S,
        "expires_at_s": unix_s(now) + (PUSHED_S if vault_id is None else NAMED_S),
        "vault_id": vault_id,
    }
    connection.execute(insert(authorization), row)
    return REQUEST_URI_PREFIX + secret


def find(session: Session, unverified_uri: str, client_id: str) -> Authorization | None:
    """Return what a company pushed under a request_uri, in whatever state it is; in any transaction."""
    named = select(authorization).where(_named(unverified_uri, client_id))
    row = session.connection().execute(named).one_or_none()
    return None if row is None else _authorization(row)


def show(session: Session, unverified_uri: str, client_id: str, browser: str, *, now: datetime) -> Authorization | None:
    """Open a pushed request for one browser; no other browser, and no second time, opens it again.

    What nobody is asked by name waits ten minutes from here; what stands in an owner's list, as long as before.
    """
    is_named = authorization.c.vault_id.is_not(None)
    values = {
        "browser_hash": _hash(browser),
        "user_code": "".join(secrets.choice(_LETTERS) for _ in range(8)),
        "expires_at_s": case((is_named, authorization.c.expires_at_s), else_=unix_s(now) + SHOWN_S),
    }
    closed_to_none = _named(unverified_uri, client_id) & (authorization.c.opens_until_s > unix_s(now))
    return _step(session, closed_to_none, State.PUSHED, State.SHOWN, now, **values)


def waiting(session: Session, vault_id: VaultId, *, now: datetime) -> list[Authorization]:
    """Return what this owner may decide: what names a consent of the vault, and what was looked up by its code."""
    mine = (authorization.c.vault_id == vault_id) & authorization.c.state.in_(_OPEN)
    found = select(authorization).where(mine, authorization.c.expires_at_s > unix_s(now))
    rows = session.connection().execute(found.order_by(authorization.c.expires_at_s))
    return [item for item in map(_authorization, rows) if _may_answer(session, item)]


def newest_for(session: Session, consent_id: ConsentId, vault_id: VaultId) -> Authorization | None:
    """Return the request that last asked for a consent to be renewed, decided or not, if it is still kept."""
    asked = (authorization.c.vault_id == vault_id) & (authorization.c.grant_id == consent_id)
    decided = case((authorization.c.state.in_(_OPEN), 0), else_=1)  # what still waits is the newest there is
    newest_first = (decided, authorization.c.opens_until_s.desc())
    newest = select(authorization).where(asked).order_by(*newest_first).limit(1)
    row = session.connection().execute(newest).one_or_none()
    return None if row is None else _authorization(row)


def claim(session: Session, unverified_code: str, vault_id: VaultId, *, now: datetime) -> Authorization | None:
    """Look a request up for an owner, by its short code; from then on it is this vault's to decide and no other's.

    Args:
        session: An open writing transaction, to be committed whatever comes back: it counts wrong codes.
        unverified_code: As the owner typed it, or the name of a request that `waiting` shows.
        vault_id: The signed-in owner's vault.
        now: The current time.

    Returns:
        None if no such request waits, or it is another vault's.

    Raises:
        TooManyLookups: Six codes of this minute were wrong.
    """
    minute = unix_s(now) // 60
    misses = [vault_id + minute.to_bytes(8, "big") + bytes([miss]) for miss in range(MISSES_PER_MINUTE)]
    if is_any_spent(session, b"lookup", misses[-1], misses[-1]):
        raise TooManyLookups("Too many codes were tried; wait a minute.", retry_after_s=60)
    found = _claim(session, unverified_code, vault_id, now)
    if found is None:
        end_s = 60 * minute + 60
        any(spend(session, b"lookup", miss, expires_at_s=end_s, now=now) for miss in misses)
    return found


def approve(session: Session, unverified_code: str, vault_id: VaultId, consent_id: ConsentId, *, now: datetime) -> None:
    """Answer a claimed request with a consent that the owner has just given.

    Raises:
        UnknownAuthorization: Nothing that this vault claimed waits under the code.
        UnknownConsent: The vault has no such consent.
        NotWhatWasAsked: The consent is over, answers another request, or is not the one to renew.

    Guarantees: the code that follows leads to no more than the company signed and the owner gave.
    """
    mine = _claimed(unverified_code, vault_id)
    values = {"consent_id": consent_id, "expires_at_s": unix_s(now) + DECIDED_S}
    found = _step(session, mine, _OPEN, State.APPROVED, now, **values)
    if found is None:
        raise UnknownAuthorization("No authorization waits under this code.")
    _refuse_other(found.asked, consents.get_own(session, consent_id, vault_id), now)


def deny(session: Session, unverified_code: str, vault_id: VaultId, *, now: datetime) -> None:
    """Refuse a claimed request.

    Raises:
        UnknownAuthorization: Nothing that this vault claimed waits under the code.
    """
    if _step(session, _claimed(unverified_code, vault_id), _OPEN, State.DENIED, now) is None:
        raise UnknownAuthorization("No authorization waits under this code.")


def issue(session: Session, request_hash: bytes, code: str, *, now: datetime) -> Authorization | None:
    """Put a code on an approved request, once."""
    this = authorization.c.request_hash == request_hash
    values = {"code_hash": _hash(code), "expires_at_s": unix_s(now) + CODE_S}
    return _step(session, this, State.APPROVED, State.ISSUED, now, **values)


def redeem(
    session: Session, code: str, company_id: CompanyId, family_id: bytes, *, now: datetime
) -> Authorization | None:
    """Consume a code before anything is made from it; `family_id` names the tokens that will be."""
    this = _coded(code, company_id)
    return _step(session, this, State.ISSUED, State.REDEEMED, now, family_id=family_id)


def find_redeemed(session: Session, code: str, company_id: CompanyId) -> bytes | None:
    """Return the family of a code that was used already: somebody holds a copy of it."""
    used = select(authorization.c.family_id).where(
        _coded(code, company_id), authorization.c.state == State.REDEEMED.value
    )
    found: bytes | None = session.connection().execute(used).scalar_one_or_none()
    return found


def forget(session: Session, vault_id: VaultId) -> None:
    """Forget every request that is or was this vault's to decide."""
    _delete(session, authorization.c.vault_id == vault_id)


def end_waiting(session: Session, company_id: CompanyId) -> None:
    """End a company's requests that wait and its codes that nobody redeemed: the key that signed them is replaced."""
    waiting = (authorization.c.company_id == company_id) & (authorization.c.state != State.REDEEMED)
    _delete(session, waiting)


def end_all(session: Session) -> None:
    """End every request and code: a restored database does not know which were decided or redeemed since."""
    session.connection().execute(delete(authorization))


def _claim(session: Session, unverified_code: str, vault_id: VaultId, now: datetime) -> Authorization | None:
    mine = _claimed(unverified_code, vault_id) & authorization.c.state.in_(_OPEN)
    found = select(authorization).where(mine, authorization.c.expires_at_s > unix_s(now))
    row = session.connection().execute(found).one_or_none()
    if row is not None:
        return _authorization(row)
    free = (authorization.c.user_code == _user_code(unverified_code)) & authorization.c.vault_id.is_(None)
    return _step(session, free, State.SHOWN, State.SHOWN, now, vault_id=vault_id)


def _may_answer(session: Session, open_request: Authorization) -> bool:
    """Say whether the consent that a request names can still be renewed; what was withdrawn cannot."""
    if open_request.asked.grant_id is None:
        return True
    named = consents.find(session, open_request.asked.grant_id)
    return named is not None and named.current.event.renewable


def _refuse_other(asked: Pushed, given: consents.Consent, now: datetime) -> None:
    current = given.current
    if not given.live or current.terms.not_after <= unix_s(now):
        raise NotWhatWasAsked("The consent is over.")
    # The consents hold every version against the request whose digest it names: the same digest is the same
    # company, and nothing wider.
    if current.request_sha256 != hashlib.sha256(asked.request.encode()).digest():
        raise NotWhatWasAsked("The consent answers another request than the one under this code.")
    if asked.grant_id is not None and asked.grant_id != current.consent_id:
        raise NotWhatWasAsked("The company asked to renew a consent; renew that one instead of giving another.")


def _delete(session: Session, which: ColumnElement[bool]) -> None:
    """Delete rows that another may be deleting too; without one order, each could wait for the other's."""
    in_order = select(authorization.c.request_hash).where(which).order_by(authorization.c.request_hash)
    session.connection().execute(in_order.with_for_update()).all()
    session.connection().execute(delete(authorization).where(which))


def _step(
    session: Session, which: ColumnElement[bool], before: State | Sequence[State], after: State, now: datetime,
    **values: Any,
) -> Authorization | None:  # fmt: skip
    states = [before] if isinstance(before, State) else before
    taken = (
        update(authorization)
        .where(which, authorization.c.state.in_(states), authorization.c.expires_at_s > unix_s(now))
        .values(state=after.value, **values)
        .returning(authorization)
    )
    row = session.connection().execute(taken).one_or_none()
    return None if row is None else _authorization(row)


def _named(unverified_uri: str, client_id: str) -> ColumnElement[bool]:
    secret = unverified_uri.removeprefix(REQUEST_URI_PREFIX)
    return (authorization.c.request_hash == _hash(secret)) & (authorization.c.company_id == client_id)


def _coded(code: str, company_id: CompanyId) -> ColumnElement[bool]:
    return (authorization.c.code_hash == _hash(code)) & (authorization.c.company_id == company_id)


def _claimed(unverified_code: str, vault_id: VaultId) -> ColumnElement[bool]:
    """Match a request of this vault by its name, or by the code that it looked up before."""
    try:
        addressed = authorization.c.request_hash == parse_b64u(unverified_code, size=_NAME_BYTES)
    except MalformedInput:
        addressed = authorization.c.user_code == _user_code(unverified_code)
    return addressed & (authorization.c.vault_id == vault_id)


def _user_code(unverified_code: str) -> str:
    typed = unverified_code.upper().replace("-", "").replace(" ", "")
    return typed if _USER_CODE.fullmatch(typed) else ""


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _authorization(row: Row[Any]) -> Authorization:
    return Authorization(
        request_hash=row.request_hash,
        asked=Pushed(
            CompanyId(row.company_id), json.loads(row.parameters), Thumbprint(row.jkt), row.request, row.grant_id
        ),
        state=State(row.state),
        expires_at_s=row.expires_at_s,
        browser_hash=row.browser_hash or b"",
        user_code=row.user_code or "",
        consent_id=row.consent_id,
    )
