"""Routes of the authorization server."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse

from vault.http.edge import ClockDep, DatabaseDep, RawBody
from vault.oauth.dpop import Unauthenticated
from vault.oauth.metadata import JWKS_PATH, jwks, resource_metadata, server_metadata
from vault.oauth.server import TOKEN_PATH, TokenDesk

oauth_router = APIRouter(tags=["oauth"])


def _desk(request: Request) -> TokenDesk:
    desk = request.app.state.token_desk
    assert isinstance(desk, TokenDesk)
    return desk


DeskDep = Annotated[TokenDesk, Depends(_desk)]


@oauth_router.post(TOKEN_PATH)
def token(request: Request, desk: DeskDep, database: DatabaseDep, clock: ClockDep, body: RawBody) -> JSONResponse:
    """Issue a DPoP-bound access token to a company (form of RFC 6749 section 4.4)."""
    now = clock.now()
    try:
        proof = desk.verify_proof(request.headers.getlist("dpop"), now=now)
    except Unauthenticated as refusal:
        status, content, headers = desk.refuse(refusal)
        return JSONResponse(content, status, headers)
    with database.transaction() as session:
        status, content, headers = desk.respond(session, proof, request.headers.get("content-type", ""), body, now=now)
    return JSONResponse(content, status, headers)


@oauth_router.get("/.well-known/oauth-authorization-server")
def authorization_server(desk: DeskDep) -> dict[str, Any]:
    """Return the authorization server's metadata (RFC 8414)."""
    return server_metadata(desk.issuer)


@oauth_router.get("/.well-known/oauth-protected-resource")
def protected_resource(desk: DeskDep) -> dict[str, Any]:
    """Return the protected resource's metadata (RFC 9728)."""
    return resource_metadata(desk.issuer)


@oauth_router.get(JWKS_PATH)
def keys(desk: DeskDep) -> dict[str, Any]:
    """Return the keys that verify access tokens."""
    return jwks(desk.tokens)
