"""The token endpoint, on Authlib's core: client credentials, `private_key_jwt`, DPoP-bound tokens.

Source: RFC 6749, RFC 7523, RFC 9449; FAPI 2.0 Security Profile section 5.3.2.1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from urllib.parse import parse_qsl

from authlib.oauth2.rfc6749 import AuthorizationServer, ClientMixin, InvalidClientError, InvalidRequestError
from authlib.oauth2.rfc6749.errors import InvalidGrantError, OAuth2Error, UnauthorizedClientError
from authlib.oauth2.rfc6749.grants import ClientCredentialsGrant
from authlib.oauth2.rfc6749.requests import BasicOAuth2Payload, OAuth2Request
from sqlmodel import Session

from vault.clock import unix_s
from vault.oauth.dpop import MAX_AGE_S, MAX_SKEW_S, Proof, ProofReader, Unauthenticated
from vault.oauth.tokens import SCOPE, TOKEN_S, TokenMint, parse_grant_id
from vault.parties import companies
from vault.parties.companies import Company, CompanyId, CompanyStatus
from vault.parties.once import spend
from vault.proof.jose import MAX_JWS_CHARS, BadJws, JwsKey, UnverifiedJws, parse_jws
from vault.seal.ids import ConsentId

TOKEN_PATH: Final = "/v1/token"  # noqa: S105  (a path)
ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_MAX_BODY_BYTES: Final = 2 * MAX_JWS_CHARS
_MAX_FIELDS: Final = 12
_MAX_JTI_CHARS: Final = 128

LiveGrant = Callable[[Session, ConsentId, CompanyId], bool]
"""Says whether a consent lives and was given to this company."""

TokenResponse = tuple[int, dict[str, Any], dict[str, str]]
"""Status, JSON body, headers."""


@dataclass(frozen=True)
class TokenDesk:
    """What every process of one server shares to issue tokens.

    Args:
        issuer: Base URL without a trailing slash; the only audience of a client assertion.
        proofs: Checks DPoP proofs.
        tokens: Issues access tokens.
        live_grant: Asks the consents about a `grant_id`.
    """

    issuer: str
    proofs: ProofReader
    tokens: TokenMint
    live_grant: LiveGrant

    def verify_proof(self, unverified_proofs: list[str], *, now: datetime) -> Proof:
        """Return the DPoP proof of a token request.

        It comes before everything else, so that repeating the request with a nonce finds the
        client assertion unused.

        Raises:
            Unauthenticated: The proof does not hold.
        """
        return self.proofs.verify(unverified_proofs, method="POST", path=TOKEN_PATH, access_token=None, now=now)

    def respond(
        self, session: Session, proof: Proof, content_type: str, body: bytes, *, now: datetime
    ) -> TokenResponse:
        """Answer a token request.

        Args:
            session: An open writing transaction.
            proof: As `verify_proof` returned it.
            content_type: Of the request.
            body: Its form.
            now: The current time.
        """
        try:
            form = _parse_form(content_type, body)
        except OAuth2Error as error:
            return _response(*error())
        request = OAuth2Request("POST", self.issuer + TOKEN_PATH)
        request.payload = BasicOAuth2Payload(form)
        response: TokenResponse = _TokenRequest(self, session, proof, now).create_token_response(request)
        return response

    def refuse(self, refusal: Unauthenticated) -> TokenResponse:
        """Return the refusal of a proof in the form that RFC 9449 sections 5 and 8 give it here."""
        nonce = {"DPoP-Nonce": refusal.headers["DPoP-Nonce"]}
        return _response(400, {"error": refusal.error, "error_description": refusal.detail}, nonce)


class _Client(ClientMixin):  # type: ignore[misc]  # Authlib has no types
    """A company, as Authlib asks about it."""

    def __init__(self, company: Company) -> None:
        self.company = company

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        return bool(method == "private_key_jwt")

    def check_grant_type(self, grant_type: str) -> bool:
        return bool(grant_type == _ClientCredentials.GRANT_TYPE)


class _ClientCredentials(ClientCredentialsGrant):  # type: ignore[misc]  # Authlib has no types
    TOKEN_ENDPOINT_AUTH_METHODS = ("private_key_jwt",)

    def create_token_response(self) -> tuple[int, dict[str, Any], list[tuple[str, str]]]:
        body = self.server.issue(self.client.company, self.request.payload.data.get("grant_id"))
        return 200, body, self.TOKEN_RESPONSE_HEADER


class _TokenRequest(AuthorizationServer):  # type: ignore[misc]  # Authlib has no types
    """One request's server: Authlib's hooks see this request's transaction, proof and time and no other's."""

    def __init__(self, desk: TokenDesk, session: Session, proof: Proof, now: datetime) -> None:
        super().__init__(scopes_supported=[SCOPE])
        self._desk, self._session, self._proof, self._now = desk, session, proof, now
        self.register_client_auth_method("private_key_jwt", self._authenticate)
        self.register_grant(_ClientCredentials)

    def query_client(self, client_id: str) -> _Client | None:
        company = companies.find(self._session, client_id)
        return None if company is None else _Client(company)

    def create_oauth2_request(self, request: OAuth2Request) -> OAuth2Request:
        return request

    def send_signal(self, name: str, *args: object, **kwargs: object) -> None:
        """Nobody listens."""

    def handle_response(self, status: int, body: dict[str, Any], headers: list[tuple[str, str]]) -> TokenResponse:
        return _response(status, body, {**dict(headers), "DPoP-Nonce": self._desk.proofs.nonces.now(self._now)})

    def issue(self, company: Company, grant_id: str | None) -> dict[str, Any]:
        """Return the token response of an authenticated company."""
        if company.status is not CompanyStatus.ACTIVE:
            raise UnauthorizedClientError("This company is suspended; ask the operator.")
        consent_id = None
        if grant_id is not None:
            try:
                consent_id = parse_grant_id(grant_id)
            except BadJws as error:
                raise InvalidRequestError(error.detail) from error
            if not self._desk.live_grant(self._session, consent_id, company.company_id):
                raise InvalidGrantError("No live consent of this grant_id was given to this company.")
        self._spend_proof()
        token = self._desk.tokens.issue(company.company_id, self._proof.jkt, consent_id, now=self._now)
        body = {"access_token": token, "token_type": "DPoP", "expires_in": TOKEN_S, "scope": SCOPE}
        return body if grant_id is None else {**body, "grant_id": grant_id}

    def _authenticate(self, query_client: Callable[[str], _Client | None], request: OAuth2Request) -> _Client:
        """Authenticate by `private_key_jwt`; an unknown company and a wrong key get the same answer.

        Source: RFC 7523 section 3; RFC 7521 section 4.2; FAPI 2.0 5.3.2.1 (aud is the issuer, as one string).
        """
        form = request.payload.data
        if form.get("client_assertion_type") != ASSERTION_TYPE:
            raise InvalidClientError(f"Authenticate with private_key_jwt: client_assertion_type {ASSERTION_TYPE}.")
        try:
            jws = parse_jws(form.get("client_assertion", ""), "JWT", None, "client-authentication+jwt")
        except BadJws as error:
            raise InvalidClientError(error.detail) from error
        claims = jws.unverified_claims
        client = query_client(str(claims.get("sub")))
        if client is None or not _signed_by(jws, client.company.client_auth_key):
            raise InvalidClientError("The client assertion is not signed by a registered company's key.")
        company_id = client.company.company_id
        if claims.get("iss") != company_id or form.get("client_id", company_id) != company_id:
            raise InvalidClientError("iss, sub and client_id must all be the company id.")
        if claims.get("aud") != self._desk.issuer:
            raise InvalidClientError("aud must be the issuer and nothing else.")
        self._spend_assertion(company_id, claims.get("jti"), claims.get("exp"), claims.get("nbf", 0))
        return client

    def _spend_assertion(self, company_id: CompanyId, jti: object, expires_at: object, not_before: object) -> None:
        now_s = unix_s(self._now)
        if not isinstance(jti, str) or not 0 < len(jti) <= _MAX_JTI_CHARS:
            raise InvalidClientError(f"The client assertion needs a jti of 1 to {_MAX_JTI_CHARS} characters.")
        if not isinstance(expires_at, int) or not now_s < expires_at <= now_s + MAX_AGE_S + MAX_SKEW_S:
            raise InvalidClientError(f"The client assertion must expire within {MAX_AGE_S} seconds.")
        if not isinstance(not_before, int) or not_before > now_s + MAX_SKEW_S:
            raise InvalidClientError("The client assertion is not valid yet; check the clock.")
        value = (company_id.encode(), jti.encode())
        if not spend(self._session, b"assertion", *value, expires_at_s=expires_at, now=self._now):
            raise InvalidClientError("The client assertion was used before; sign a new one for each request.")

    def _spend_proof(self) -> None:
        try:
            self._desk.proofs.spend(self._session, self._proof, now=self._now)
        except Unauthenticated as error:
            raise OAuth2Error(error.detail, error="invalid_dpop_proof") from error


def _signed_by(jws: UnverifiedJws, key: JwsKey) -> bool:
    try:
        jws.verify(key)
    except BadJws:
        return False
    return True


def _parse_form(content_type: str, body: bytes) -> dict[str, str]:
    if content_type.partition(";")[0].strip().lower() != "application/x-www-form-urlencoded":
        raise InvalidRequestError("Send the parameters as application/x-www-form-urlencoded.")
    if len(body) > _MAX_BODY_BYTES:
        raise InvalidRequestError(f"A token request has at most {_MAX_BODY_BYTES} bytes.")
    try:
        pairs = parse_qsl(body.decode("ascii"), strict_parsing=True, max_num_fields=_MAX_FIELDS, errors="strict")
    except ValueError as error:
        raise InvalidRequestError("The form is malformed.") from error
    form = dict(pairs)
    if len(form) != len(pairs):  # RFC 6749 section 3.2: two readers could each take another one
        raise InvalidRequestError("A parameter is given twice.")
    return form


def _response(status: int, body: Any, headers: Any) -> TokenResponse:
    return status, dict(body), {**dict(headers), "Cache-Control": "no-store"}
