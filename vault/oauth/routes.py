"""Routes of the authorization server: what companies send, what browsers open, what anyone may read."""

from __future__ import annotations

import re
import secrets
from datetime import datetime
from typing import Annotated, Any, Final

from authlib.oauth2.rfc6749 import InvalidClientError
from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from vault.clock import unix_s
from vault.db import Database
from vault.http.edge import ClockDep, DatabaseDep, RawBody
from vault.oauth import authorizations, page, registration
from vault.oauth.authorizations import State
from vault.oauth.client import Reply
from vault.oauth.document import ERRORS, HELD_FORM, PUSH_FORM, PUSHED, TOKEN_FORM, TOKENS, WORTH
from vault.oauth.dpop import Unauthenticated
from vault.oauth.metadata import JWKS_PATH, REGISTER_PATH, jwks, resource_metadata, server_metadata
from vault.oauth.registration import BadMetadata, UnknownInvitation
from vault.oauth.server import AUTHORIZE_PATH, Endpoint, OAuthDesk
from vault.parties import companies
from vault.schema.language import Language

oauth_router = APIRouter(tags=["oauth"])

_BROWSER: Final = re.compile(r"[A-Za-z0-9_-]{43}")


async def _desk(request: Request) -> OAuthDesk:
    desk = request.app.state.oauth_desk
    assert isinstance(desk, OAuthDesk)
    return desk


DeskDep = Annotated[OAuthDesk, Depends(_desk)]


@oauth_router.post(Endpoint.PUSH, status_code=201, responses=PUSHED, openapi_extra=PUSH_FORM)
def push(request: Request, desk: DeskDep, database: DatabaseDep, clock: ClockDep, body: RawBody) -> JSONResponse:
    """Keep a company's authorization request and return its request_uri (RFC 9126)."""
    return _answer_form(request, desk, database, clock.now(), body=body, endpoint=Endpoint.PUSH)


@oauth_router.post(Endpoint.TOKEN, responses=TOKENS, openapi_extra=TOKEN_FORM)
def token(request: Request, desk: DeskDep, database: DatabaseDep, clock: ClockDep, body: RawBody) -> JSONResponse:
    """Issue DPoP-bound tokens for a code, a refresh token or the company itself (RFC 6749 section 3.2)."""
    return _answer_form(request, desk, database, clock.now(), body=body, endpoint=Endpoint.TOKEN)


@oauth_router.post(Endpoint.INTROSPECT, responses=WORTH, openapi_extra=HELD_FORM)
def introspect(request: Request, desk: DeskDep, database: DatabaseDep, clock: ClockDep, body: RawBody) -> JSONResponse:
    """Say what a token of the company's own is worth now (RFC 7662)."""
    return _answer_form(request, desk, database, clock.now(), body=body, endpoint=Endpoint.INTROSPECT)


@oauth_router.post(Endpoint.REVOKE, responses=ERRORS, openapi_extra=HELD_FORM)
def revoke(request: Request, desk: DeskDep, database: DatabaseDep, clock: ClockDep, body: RawBody) -> JSONResponse:
    """End a token of the company's own (RFC 7009); the consent stays as it is."""
    return _answer_form(request, desk, database, clock.now(), body=body, endpoint=Endpoint.REVOKE)


@oauth_router.post(REGISTER_PATH, status_code=201, responses=ERRORS)
def register(request: Request, metadata: dict[str, Any], database: DatabaseDep, clock: ClockDep) -> JSONResponse:
    """File a company for the operator's approval (RFC 7591); `company_record` is the record that it signed.

    Whom the operator invited sends the initial access token as a bearer token.
    """
    sandbox, sent = request.app.state.settings.sandbox, request.headers.get("authorization")
    scheme, _, token = (sent or "").partition(" ")
    invitation = None if sent is None else token if scheme.lower() == "bearer" else ""
    headers = {"Cache-Control": "no-store"}
    try:
        with database.transaction() as session:
            content = registration.file(session, metadata, sandbox=sandbox, now=clock.now(), invitation=invitation)
            status = 201
    except BadMetadata as refusal:
        content, status = {"error": refusal.error, "error_description": refusal.detail}, 400
    except UnknownInvitation as refusal:
        content, status = {"error": "invalid_token", "error_description": refusal.detail}, 401
        headers["WWW-Authenticate"] = 'Bearer error="invalid_token"'
    return JSONResponse(content, status, headers)


@oauth_router.put(REGISTER_PATH + "/{client_id}", responses=ERRORS)
def update(
    client_id: str, metadata: dict[str, Any], desk: DeskDep, database: DatabaseDep, clock: ClockDep
) -> JSONResponse:
    """Put a company's next record in force, with new keys (RFC 7592); both keys in force sign for it.

    `company_record` is signed by the question key, `client_assertion` by the authentication key. Tokens, requests and
    codes from before end.
    """
    try:
        with database.transaction() as session:
            content, status = registration.update(session, desk.issuer, client_id, metadata, now=clock.now()), 200
    except BadMetadata as refusal:
        content, status = {"error": refusal.error, "error_description": refusal.detail}, 400
    except InvalidClientError as refusal:
        content, status = {"error": refusal.error, "error_description": refusal.description}, 401
    return JSONResponse(content, status, {"Cache-Control": "no-store"})


def _answer_form(
    request: Request, desk: OAuthDesk, database: Database, now: datetime, *, body: bytes, endpoint: Endpoint
) -> JSONResponse:
    proof, unverified_proofs = None, request.headers.getlist("dpop")
    try:
        if endpoint is Endpoint.TOKEN or (endpoint is Endpoint.PUSH and unverified_proofs):
            proof = desk.verify_proof(unverified_proofs, endpoint, now=now)
    except Unauthenticated as refusal:
        return _json(desk.refuse(refusal))
    content_type = request.headers.get("content-type", "")
    with database.transaction() as session:
        reply = desk.respond(session, endpoint, proof, content_type, body, now=now)
    return _json(reply)


def _json(reply: Reply) -> JSONResponse:
    return JSONResponse(reply.body, reply.status, reply.headers)


@oauth_router.get(AUTHORIZE_PATH, include_in_schema=False)
def authorize(request: Request, desk: DeskDep, database: DatabaseDep, clock: ClockDep) -> Response:
    """Show who asks and a short code, wait for the owner's own client, then send the browser back.

    Takes `client_id` and `request_uri` and nothing else. The first browser that opens a request_uri is
    the only one: its cookie is bound to the request, so that a link passed on leads nowhere.
    """
    now, given = clock.now(), request.query_params.multi_items()
    language = page.language_of(request.headers.get("accept-language", ""))
    if sorted(name for name, _ in given) != ["client_id", "request_uri"]:
        return _closed(desk, language)
    client_id, uri = request.query_params["client_id"], request.query_params["request_uri"]
    cookie = _cookie(desk)
    sent = request.cookies.get(cookie, "")
    browser = sent if _BROWSER.fullmatch(sent) else secrets.token_urlsafe(32)
    with database.snapshot() as session:
        company = companies.find(session, client_id)
        if company is None:
            return _closed(desk, language)
        found = authorizations.find(session, uri, company.company_id)
    if found is not None and found.state is State.PUSHED:
        with database.transaction() as session:
            found = authorizations.show(session, uri, company.company_id, browser, now=now)
    if found is None or not found.is_open_in(browser) or found.state in {State.ISSUED, State.REDEEMED}:
        return _closed(desk, language)
    if found.state is State.SHOWN and found.expires_at_s > unix_s(now):
        shown = HTMLResponse(page.waiting(company.name, found.user_code, language), headers=page.headers(desk.issuer))
        secure = desk.issuer.startswith("https:")
        shown.set_cookie(
            cookie, browser, max_age=authorizations.SHOWN_S, path="/", secure=secure, httponly=True, samesite="lax"
        )
        return shown
    with database.transaction() as session:
        reply = desk.answer(session, found, now=now)
    if not reply.location:
        return _closed(desk, language)
    return RedirectResponse(reply.location, 303, page.headers(desk.issuer, redirects=True))


def _closed(desk: OAuthDesk, language: Language) -> HTMLResponse:
    return HTMLResponse(page.closed(language), 400, page.headers(desk.issuer))


def _cookie(desk: OAuthDesk) -> str:
    """Return a name that browsers accept from this very host alone; they do so over https only."""
    return "__Host-authorize" if desk.issuer.startswith("https:") else "authorize"


@oauth_router.get("/.well-known/openid-configuration", include_in_schema=False)
@oauth_router.get("/.well-known/oauth-authorization-server")
def authorization_server(desk: DeskDep) -> dict[str, Any]:
    """Return the authorization server's metadata (RFC 8414), also where many clients look first (its section 3)."""
    return server_metadata(desk.issuer)


@oauth_router.get("/.well-known/oauth-protected-resource")
def protected_resource(desk: DeskDep) -> dict[str, Any]:
    """Return the protected resource's metadata (RFC 9728)."""
    return resource_metadata(desk.issuer)


@oauth_router.get(JWKS_PATH)
def keys(desk: DeskDep) -> dict[str, Any]:
    """Return the keys that verify access tokens."""
    return jwks(desk.tokens)
