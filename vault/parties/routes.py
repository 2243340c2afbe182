"""Routes to sign in by challenge, and to look a company up; dependencies that say who speaks."""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response, Security
from fastapi.security import HTTPBearer
from pydantic import BaseModel
from sqlmodel import Session

from vault.clock import Clock
from vault.encoding import b64u
from vault.errors import VaultError
from vault.http.edge import ClockDep, DatabaseDep, RawBody, documented
from vault.parties import companies
from vault.parties.caller import DeviceCaller, Insider, OwnerCaller, WatcherCaller
from vault.parties.companies import Company
from vault.parties.people import UnknownVault
from vault.parties.sessions import CHALLENGE_S, SESSION_S, NotSignedIn, SignInDesk, find_caller
from vault.proof.jose import JwsKey
from vault.seal.dsse import parse_envelope
from vault.seal.fields import parse_id
from vault.seal.ids import VaultId
from vault.seal.person import Role

parties_router = APIRouter(prefix="/v1", tags=["parties"])


class WrongRole(VaultError):
    """A session of the other role than its route needs."""

    slug = "wrong-role"
    title = "Wrong role"
    status = 403


class ChallengeRequest(BaseModel):
    """Who wants to sign in."""

    vault: str
    role: Role


class ChallengeAnswer(BaseModel):
    """What to sign."""

    nonce: str
    origin: str
    expires_in: int


class SessionAnswer(BaseModel):
    """A session; send its token as `Authorization: Bearer`."""

    token: str
    expires_in: int


async def _desk(request: Request) -> SignInDesk:
    desk = request.app.state.sign_in_desk
    assert isinstance(desk, SignInDesk)
    return desk


DeskDep = Annotated[SignInDesk, Depends(_desk)]

# For the OpenAPI document only: `caller_of` reads the header itself.
_Bearer = Annotated[object, Security(HTTPBearer(scheme_name="session", auto_error=False))]


def caller_of(request: Request, database: DatabaseDep, clock: ClockDep, _documented: _Bearer = None) -> Insider:
    """Return who speaks in the request's session.

    Raises:
        NotSignedIn: It carries no live session.
    """
    token = _unverified_token(request)
    with database.snapshot() as session:
        return find_caller(session, token, now=clock.now())


def require_still(session: Session, request: Request, caller: Insider, clock: Clock) -> None:
    """Check in the transaction that does what was asked that nobody ended the caller's session since it was looked up.

    For what only the session vouches for, no signature by the owner's key.

    Args:
        session: A snapshot, or a transaction that keeps the person's row from changing.
        request: Carries the session token.
        caller: From `caller_of`.
        clock: Tells the time.

    Raises:
        NotSignedIn: The session has ended.
    """
    if find_caller(session, _unverified_token(request), now=clock.now()) != caller:
        raise NotSignedIn("The session has ended; sign in again.")


def _unverified_token(request: Request) -> str:
    sent = request.headers.getlist("authorization")
    scheme, _, unverified_token = (sent[0] if len(sent) == 1 else "").partition(" ")
    if scheme.lower() != "bearer":
        raise NotSignedIn("Send one session token as `Authorization: Bearer`.")
    return unverified_token


InsiderDep = Annotated[Insider, Depends(caller_of)]


async def _acting(caller: InsiderDep) -> OwnerCaller | DeviceCaller:
    if isinstance(caller, WatcherCaller):
        raise WrongRole("A watcher only reads what happened; sign in as the owner.")
    return caller


async def _reader(caller: InsiderDep) -> OwnerCaller | WatcherCaller:
    if isinstance(caller, DeviceCaller):
        raise WrongRole("Only the owner may do this; sign in as the owner.")
    return caller


CallerDep = Annotated[OwnerCaller | DeviceCaller, Depends(_acting)]
ReaderDep = Annotated[OwnerCaller | WatcherCaller, Depends(_reader)]


def require_owner(caller: Insider) -> OwnerCaller:
    """Return the caller if it is an owner.

    Raises:
        WrongRole: It is a device or a watcher.
    """
    if not isinstance(caller, OwnerCaller):
        raise WrongRole("Only the owner may do this; sign in as the owner.")
    return caller


async def _owner(caller: InsiderDep) -> OwnerCaller:
    return require_owner(caller)


async def _device(caller: InsiderDep) -> DeviceCaller:
    if not isinstance(caller, DeviceCaller):
        raise WrongRole("Only a device may do this; sign in as one of the vault's devices.")
    return caller


OwnerDep = Annotated[OwnerCaller, Depends(_owner)]
DeviceDep = Annotated[DeviceCaller, Depends(_device)]


def _require_own(vault: str, caller: Insider) -> None:
    if parse_id(vault) != caller.vault_id:
        raise UnknownVault("You are signed in to another vault than the one in the address.")


async def _own_vault(vault: str, caller: OwnerDep) -> OwnerCaller:
    _require_own(vault, caller)
    return caller


async def _read_vault(vault: str, caller: ReaderDep) -> OwnerCaller | WatcherCaller:
    _require_own(vault, caller)
    return caller


OwnVault = Annotated[OwnerCaller, Depends(_own_vault)]
ReadVault = Annotated[OwnerCaller | WatcherCaller, Depends(_read_vault)]


@parties_router.post("/challenges")
def challenge(body: ChallengeRequest, response: Response, desk: DeskDep, clock: ClockDep) -> ChallengeAnswer:
    """Return a challenge; the answer does not tell whether the vault exists."""
    nonce = desk.challenge(VaultId(parse_id(body.vault)), body.role, now=clock.now())
    response.headers["Cache-Control"] = "no-store"
    return ChallengeAnswer(nonce=b64u(nonce), origin=desk.origin, expires_in=CHALLENGE_S)


@parties_router.post("/sessions", openapi_extra=documented(takes="application/octet-stream"))
def open_session(
    body: RawBody, response: Response, desk: DeskDep, database: DatabaseDep, clock: ClockDep
) -> SessionAnswer:
    """Open a session; the body is the signed answer to a challenge (binary DSSE)."""
    envelope = parse_envelope(body)
    with database.transaction() as session:
        token = desk.sign_in(session, envelope, now=clock.now())
    response.headers["Cache-Control"] = "no-store"
    return SessionAnswer(token=token, expires_in=SESSION_S)


@parties_router.get("/companies/{company_id}")
def company(company_id: str, database: DatabaseDep) -> dict[str, Any]:
    """Return a company's logged record, name and keys."""
    with database.snapshot() as session:
        return company_json(companies.get(session, company_id))


def company_json(company: Company) -> dict[str, Any]:
    """Return what anyone may know about a company; `record` is what it signed and what the log commits to."""
    return {
        "company_id": company.company_id,
        "version": company.version,
        "name": company.name,
        "contact": company.contact,
        "agent": company.agent,
        "status": company.status,
        "sandbox": company.sandbox,
        "client_auth_key": _key_json(company.client_auth_key),
        "question_key": _key_json(company.question_key),
        "record": company.record,
    }


def _key_json(key: JwsKey) -> dict[str, Any]:
    return {**json.loads(key.jwk), "kid": key.kid, "alg": key.algorithms[0], "use": "sig"}
