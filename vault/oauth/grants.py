"""Authlib's grants and token endpoints, narrowed to FAPI 2.0 where their stock behaviour is wider.

Each asks its `server`, which is made for one request and sees that request's transaction, proof and time.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any

from authlib.oauth2.rfc6749 import InvalidRequestError
from authlib.oauth2.rfc6749.grants import AuthorizationCodeGrant, ClientCredentialsGrant, RefreshTokenGrant
from authlib.oauth2.rfc7009 import RevocationEndpoint
from authlib.oauth2.rfc7636 import CodeChallenge
from authlib.oauth2.rfc7662 import IntrospectionEndpoint
from authlib.oauth2.rfc9207 import IssuerParameter

from vault.oauth.authorizations import Authorization
from vault.oauth.client import AUTH_METHOD, Client, Form
from vault.oauth.families import Family
from vault.oauth.held import HeldToken
from vault.oauth.tokens import SCOPE

Answer = tuple[int, dict[str, Any], list[tuple[str, str]]]
"""Status, JSON body and headers, as Authlib passes them on."""


class ClientCredentials(ClientCredentialsGrant):  # type: ignore[misc]  # Authlib has no types
    """A token that names the company, and one consent if it gives a `grant_id`."""

    TOKEN_ENDPOINT_AUTH_METHODS = (AUTH_METHOD,)

    def create_token_response(self) -> Answer:
        """Issue the token."""
        body = self.server.issue_plain(self.request)
        return 200, body, self.TOKEN_RESPONSE_HEADER


@dataclass(frozen=True, slots=True)
class Code:
    """A redeemed authorization, as Authlib asks about it.

    Args:
        authorization: What the code stood for.
        family_id: Names the tokens that come from it.
    """

    authorization: Authorization
    family_id: bytes

    @property
    def code_challenge(self) -> str:
        """The challenge that its verifier must meet."""
        return self.authorization.asked.parameters["code_challenge"]

    @property
    def code_challenge_method(self) -> str:
        """The one method."""
        return "S256"

    def get_redirect_uri(self) -> str:
        """Return the address that the code was sent to."""
        return self.authorization.asked.parameters["redirect_uri"]


class CodeGrant(AuthorizationCodeGrant):  # type: ignore[misc]  # Authlib has no types
    """A code for an approved request; consumed before anything else is looked at."""

    TOKEN_ENDPOINT_AUTH_METHODS = (AUTH_METHOD,)

    def generate_authorization_code(self) -> str:
        """Return 256 random bits."""
        return secrets.token_urlsafe(32)

    def save_authorization_code(self, code: str, request: Form) -> None:
        """Put the code on the authorization that the server answers."""
        self.server.save_code(code)

    def query_authorization_code(self, code: str, client: Client) -> Code | None:
        """Consume the code: of two requests with it one gets tokens, and the other ends them."""
        found: Code | None = self.server.redeem(code, client)
        return found

    def create_token_response(self) -> Answer:
        """Issue the tokens; the code is gone already."""
        return 200, self.server.issue_first(self.request.authorization_code, self.request), self.TOKEN_RESPONSE_HEADER


class S256(CodeChallenge):  # type: ignore[misc]  # Authlib has no types
    """PKCE for every client, with S256 alone: Authlib's own asks it of public clients and takes `plain`."""

    SUPPORTED_CODE_CHALLENGE_METHOD = ("S256",)

    def validate_code_challenge(self, grant: CodeGrant, redirect_uri: str) -> None:
        """Refuse a request without an S256 challenge."""
        fields = grant.request.form
        if not fields.get("code_challenge") or fields.get("code_challenge_method") != "S256":
            raise InvalidRequestError("Send a code_challenge with code_challenge_method S256.")
        super().validate_code_challenge(grant, redirect_uri)


@dataclass(frozen=True, slots=True)
class Refreshed:
    """A refresh token that was just taken for the next one, as Authlib asks about it.

    Args:
        family: What it belongs to.
        token: The one now in force.
    """

    family: Family
    token: str

    def check_client(self, client: Client) -> bool:
        """Say whether it is this company's."""
        return self.family.company_id == client.company.company_id

    def get_scope(self) -> str:
        """Return the only scope."""
        return SCOPE


class Refresh(RefreshTokenGrant):  # type: ignore[misc]  # Authlib has no types
    """The next token of a family."""

    TOKEN_ENDPOINT_AUTH_METHODS = (AUTH_METHOD,)

    def authenticate_refresh_token(self, refresh_token: str) -> Refreshed | None:
        """Take the token for the next one."""
        found: Refreshed | None = self.server.rotate(refresh_token)
        return found

    def create_token_response(self) -> Answer:
        """Issue an access token with it."""
        return 200, self.server.issue_next(self.request.refresh_token, self.request), self.TOKEN_RESPONSE_HEADER


class Issuer(IssuerParameter):  # type: ignore[misc]  # Authlib has no types
    """`iss` in every answer to the browser, errors included.

    Args:
        issuer: This server.
    """

    def __init__(self, issuer: str) -> None:
        self._issuer = issuer

    def get_issuer(self) -> str:
        """Return this server."""
        return self._issuer


class Introspection(IntrospectionEndpoint):  # type: ignore[misc]  # Authlib has no types
    """What a token of the company's own is worth now (RFC 7662)."""

    CLIENT_AUTH_METHODS = (AUTH_METHOD,)

    def query_token(self, token_string: str, token_type_hint: str | None) -> HeldToken | None:
        """Return the token if it is the company's and works now."""
        found: HeldToken | None = self.server.find_held(token_string)
        return found

    def check_permission(self, token: HeldToken, client: Client, request: Form) -> bool:
        """Say yes: only the company's own are found."""
        return True

    def introspect_token(self, token: HeldToken) -> dict[str, Any]:
        """Describe it."""
        described: dict[str, Any] = self.server.describe(token)
        return described


class Revocation(RevocationEndpoint):  # type: ignore[misc]  # Authlib has no types
    """The end of a token before its time (RFC 7009); the consent stays as it is."""

    CLIENT_AUTH_METHODS = (AUTH_METHOD,)

    def query_token(self, token_string: str, token_type_hint: str | None) -> HeldToken | None:
        """Return the token if it is the company's and works now; any other needs no revoking."""
        found: HeldToken | None = self.server.find_held(token_string)
        return found

    def revoke_token(self, token: HeldToken, request: Form) -> None:
        """End it; a refresh token takes its family's access tokens along."""
        self.server.end_held(token)
