"""Companies as OAuth clients: their forms, and `private_key_jwt`, the only way that they authenticate.

Source: RFC 6749 section 3.2, RFC 7523; FAPI 2.0 Security Profile section 5.3.2.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from urllib.parse import parse_qsl

from authlib.oauth2.rfc6749 import ClientMixin, InvalidClientError, InvalidRequestError
from authlib.oauth2.rfc6749.requests import BasicOAuth2Payload, OAuth2Request
from sqlmodel import Session

from vault.clock import unix_s
from vault.oauth.dpop import MAX_AGE_S, MAX_SKEW_S
from vault.parties import companies
from vault.parties.companies import Company, CompanyId
from vault.parties.once import spend
from vault.proof.jose import MAX_JWS_CHARS, BadJws, JwsKey, UnverifiedJws, parse_jws
from vault.schema.company import is_registered

ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
AUTH_METHOD: Final = "private_key_jwt"
GRANT_TYPES: Final = ("authorization_code", "client_credentials", "refresh_token")
_MAX_BODY_BYTES: Final = 4 * MAX_JWS_CHARS
_MAX_FIELDS: Final = 24
_MAX_JTI_CHARS: Final = 128


@dataclass
class Reply:
    """A response as Authlib makes it; `location` is where its extensions look for a redirect.

    Args:
        status: HTTP status.
        body: JSON; empty for a redirect.
        headers: Response headers.
    """

    status: int
    body: Any
    headers: dict[str, str]

    @property
    def location(self) -> str:
        """Where the browser is sent; empty if nowhere."""
        return self.headers.get("Location", "")

    @location.setter
    def location(self, url: str) -> None:
        self.headers["Location"] = url


class Form(OAuth2Request):  # type: ignore[misc]  # Authlib has no types
    """A request whose parameters came in a form, or were pushed earlier.

    Args:
        url: The endpoint's URL.
        fields: Parameters, each once.
    """

    def __init__(self, url: str, fields: dict[str, str]) -> None:
        super().__init__("POST", url)
        self.payload = BasicOAuth2Payload(fields)

    @property
    def form(self) -> dict[str, str]:
        """The parameters."""
        fields: dict[str, str] = self.payload.data
        return fields


def parse_form(url: str, content_type: str, body: bytes) -> Form:
    """Return a form that a company sent.

    Raises:
        InvalidRequestError: Another content type, too large, malformed, or a parameter given twice.
    """
    if content_type.partition(";")[0].strip().lower() != "application/x-www-form-urlencoded":
        raise InvalidRequestError("Send the parameters as application/x-www-form-urlencoded.")
    if len(body) > _MAX_BODY_BYTES:
        raise InvalidRequestError(f"A form has at most {_MAX_BODY_BYTES} bytes.")
    try:
        pairs = parse_qsl(body.decode("ascii"), strict_parsing=True, max_num_fields=_MAX_FIELDS, errors="strict")
    except ValueError as error:
        raise InvalidRequestError("The form is malformed.") from error
    fields = dict(pairs)
    if len(fields) != len(pairs):  # RFC 6749 section 3.2: two readers could each take another one
        raise InvalidRequestError("A parameter is given twice.")
    return Form(url, fields)


class Client(ClientMixin):  # type: ignore[misc]  # Authlib has no types
    """A company, as Authlib asks about it."""

    def __init__(self, company: Company) -> None:
        self.company = company

    def get_client_id(self) -> str:
        """Return the company id."""
        return self.company.company_id

    def get_default_redirect_uri(self) -> None:
        """Return none: every request names its own."""

    def get_allowed_scope(self, scope: str | None) -> str:
        """Return the scope; the server has checked that it exists."""
        return scope or ""

    def check_redirect_uri(self, redirect_uri: str) -> bool:
        """Say whether the company registered this address."""
        return is_registered(redirect_uri, self.company.redirect_uris)

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        """Say whether this is the one way to authenticate."""
        return bool(method == AUTH_METHOD)

    def check_response_type(self, response_type: str) -> bool:
        """Say whether this is the one flow with a browser."""
        return bool(response_type == "code")

    def check_grant_type(self, grant_type: str) -> bool:
        """Say whether tokens are given for this."""
        return grant_type in GRANT_TYPES


def authenticate(session: Session, form: Form, issuer: str, *, now: datetime) -> Client:
    """Return the company that signed a form's client assertion; an unknown one and a wrong key look the same.

    Args:
        session: An open writing transaction; the assertion is used up when it commits.
        form: The request.
        issuer: The only audience of an assertion.
        now: The current time.

    Raises:
        InvalidClientError: No assertion, one that does not hold, or one that was used before.

    Source: RFC 7523 section 3; RFC 7521 section 4.2; FAPI 2.0 5.3.2.1 (aud is the issuer, as one string).
    """
    if form.form.get("client_assertion_type") != ASSERTION_TYPE:
        raise InvalidClientError(f"Authenticate with private_key_jwt: client_assertion_type {ASSERTION_TYPE}.")
    try:
        jws = parse_jws(form.form.get("client_assertion", ""), "JWT", None, "client-authentication+jwt")
    except BadJws as error:
        raise InvalidClientError(error.detail) from error
    claims = jws.unverified_claims
    company = companies.find(session, str(claims.get("sub")))
    if company is None or not _signed_by(jws, company.client_auth_key):
        raise InvalidClientError("The client assertion is not signed by a registered company's key.")
    company_id = company.company_id
    if claims.get("iss") != company_id or form.form.get("client_id", company_id) != company_id:
        raise InvalidClientError("iss, sub and client_id must all be the company id.")
    if claims.get("aud") != issuer:
        raise InvalidClientError("aud must be the issuer and nothing else.")
    _refuse_future(claims.get("iat", 0), claims.get("nbf", 0), now=now)
    _spend(session, company_id, claims.get("jti"), claims.get("exp"), now=now)
    return Client(company)


def _refuse_future(*times: object, now: datetime) -> None:
    if not all(isinstance(at_s, int) and at_s <= unix_s(now) + MAX_SKEW_S for at_s in times):
        raise InvalidClientError("The client assertion is not valid yet; check the clock.")


def _spend(session: Session, company_id: CompanyId, jti: object, expires_at: object, *, now: datetime) -> None:
    now_s = unix_s(now)
    if not isinstance(jti, str) or not 0 < len(jti) <= _MAX_JTI_CHARS:
        raise InvalidClientError(f"The client assertion needs a jti of 1 to {_MAX_JTI_CHARS} characters.")
    if not isinstance(expires_at, int) or not now_s < expires_at <= now_s + MAX_AGE_S + MAX_SKEW_S:
        raise InvalidClientError(f"The client assertion must expire within {MAX_AGE_S} seconds.")
    value = (company_id.encode(), jti.encode())
    if not spend(session, b"assertion", *value, expires_at_s=expires_at, now=now):
        raise InvalidClientError("The client assertion was used before; sign a new one for each request.")


def _signed_by(jws: UnverifiedJws, key: JwsKey) -> bool:
    try:
        jws.verify(key)
    except BadJws:
        return False
    return True
