"""Routes where an owner's own client answers what a company asked: the keys are there, so the decision is too.

What asks for a consent of this owner's to be renewed stands in the list. A first request is found by the short code
that a browser shows, which the owner gives to the client: nobody may find out who is here by asking. The client reads what was asked, renders its own
notice, gives (or renews) the consent by the consent routes, and names it here. Then the browser moves on by itself.
"""

from __future__ import annotations

from fastapi import APIRouter, Response
from pydantic import BaseModel

from vault.encoding import b64u
from vault.http.edge import ClockDep, DatabaseDep
from vault.oauth import authorizations
from vault.oauth.authorizations import Authorization, UnknownAuthorization
from vault.parties.routes import OwnerDep
from vault.seal.fields import parse_id
from vault.seal.ids import ConsentId

approval_router = APIRouter(prefix="/v1/authorizations", tags=["oauth"])


class AskedAnswer(BaseModel):
    """What a company asks for."""

    company: str
    """Its id; its logged name and keys are at /v1/companies/{company}."""
    request: str
    """The consent request that it signed, a compact JWS: verify it, show it, answer it."""
    renew: str
    """The consent to renew; empty to give a new one."""
    expires_at: int
    """Unix second by which to decide."""

    name: str
    """What to call it where no code was typed: 43 characters, in the place of the code."""


class WaitingAnswer(BaseModel):
    """What this owner may decide, the first to end first."""

    waiting: list[AskedAnswer]


class ApprovalBody(BaseModel):
    """The consent that answers the request, base64url."""

    consent: str


@approval_router.get("")
def list_waiting(owner: OwnerDep, response: Response, database: DatabaseDep, clock: ClockDep) -> WaitingAnswer:
    """Return the requests that name a consent of this vault, and those that it has looked up by their codes."""
    with database.snapshot() as session:
        found = authorizations.waiting(session, owner.vault_id, now=clock.now())
    response.headers["Cache-Control"] = "no-store"
    return WaitingAnswer(waiting=[_asked(item) for item in found])


@approval_router.get("/{code}")
def read(code: str, owner: OwnerDep, response: Response, database: DatabaseDep, clock: ClockDep) -> AskedAnswer:
    """Return what waits under a short code, and reserve it for this owner's vault.

    Capitals, hyphens and spaces do not matter. Every code that nothing waits under, another vault's
    included, is the same 404; after six wrong codes in a minute all are refused with 429.
    """
    with database.transaction() as session:
        found = authorizations.claim(session, code, owner.vault_id, now=clock.now())
    if found is None:
        raise UnknownAuthorization("No authorization waits under this code.")
    response.headers["Cache-Control"] = "no-store"
    return _asked(found)


@approval_router.post("/{code}/approve", status_code=204)
def approve(code: str, body: ApprovalBody, owner: OwnerDep, database: DatabaseDep, clock: ClockDep) -> None:
    """Answer with a consent given a moment ago by the consent routes; read the code first."""
    consent_id = ConsentId(parse_id(body.consent))
    with database.transaction() as session:
        authorizations.approve(session, code, owner.vault_id, consent_id, now=clock.now())


@approval_router.post("/{code}/deny", status_code=204)
def deny(code: str, owner: OwnerDep, database: DatabaseDep, clock: ClockDep) -> None:
    """Refuse; the company is told `access_denied` and nothing about the owner."""
    with database.transaction() as session:
        authorizations.deny(session, code, owner.vault_id, now=clock.now())


def _asked(found: Authorization) -> AskedAnswer:
    renew = "" if found.asked.grant_id is None else b64u(found.asked.grant_id)
    return AskedAnswer(
        company=found.asked.company_id,
        request=found.asked.request,
        renew=renew,
        expires_at=found.expires_at_s,
        name=found.name,
    )
