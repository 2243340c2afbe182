"""How a company proves who it is: `private_key_jwt`, and a DPoP proof in each request.

Source: RFC 6749 section 4.4; RFC 7523; RFC 9449 sections 4, 7, 8 and 9.
"""

from __future__ import annotations

import secrets
from collections.abc import Generator, Mapping
from typing import Any, Final

import httpx

from twinvault.api import field, json_of, problem
from twinvault.jws import jwk_of, sign_jws
from vault.clock import Clock, unix_s
from vault.encoding import JsonObject, b64u
from vault.proof.trust import TrustedRoot
from vault.seal.ids import sha256
from vault.seal.signing import SigningKey

TOKEN_PATH: Final = "/v1/token"  # noqa: S105  (a path)
ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_ASSERTION_S: Final = 60
_UNAUTHORIZED: Final = 401
_Flow = Generator[httpx.Request, httpx.Response, httpx.Response]


class CompanyAuth(httpx.Auth):
    """Authorises requests by a DPoP-bound token of client credentials; takes each nonce that the server asks for.

    Args:
        trust: Names the server.
        company_id: Its client id.
        auth_key: Authenticates it at the token endpoint.
        dpop_key: What its tokens are bound to.
        clock: Tells the time.
    """

    requires_response_body = True

    def __init__(
        self, trust: TrustedRoot, company_id: str, auth_key: SigningKey, dpop_key: SigningKey, clock: Clock
    ) -> None:
        self._issuer = trust.issuer.rstrip("/")
        self._company_id = company_id
        self._auth_key = auth_key
        self._dpop_key = dpop_key
        self._clock = clock
        self._token = ""
        self._nonce = ""

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Send the request with token and proof; once more with a fresh nonce or token where the server asks."""
        for left in (True, False):
            if not self._token:
                yield from self._fetch_token()
            url = str(request.url.copy_with(query=None, fragment=None))
            request.headers["Authorization"] = f"DPoP {self._token}"
            request.headers["DPoP"] = self.proof(request.method, url, self._token)
            response = yield request
            self._take_nonce(response)
            if response.status_code != _UNAUTHORIZED or not left:
                return
            if "use_dpop_nonce" not in response.headers.get("WWW-Authenticate", ""):
                self._token = ""

    def form(self, fields: Mapping[str, str]) -> httpx.Auth:
        """Return what posts a form as this company to whatever endpoint it is used on, authenticated on each try."""
        return _Form(self, fields)

    def post(self, url: str, fields: Mapping[str, str]) -> _Flow:
        """Post a form, authenticated; once more with the nonce that the server asks for."""
        response = yield self._authenticated(url, fields)
        self._take_nonce(response)
        if response.is_success or problem(response).slug != "use_dpop_nonce":
            return response
        response = yield self._authenticated(url, fields)
        self._take_nonce(response)
        return response

    def authenticated(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Return a form's fields with a fresh assertion of who sends it."""
        return {**fields, "client_assertion_type": ASSERTION_TYPE, "client_assertion": self._assertion()}

    def proof(self, method: str, url: str, token: str | None = None, nonce: str | None = None) -> str:
        """Return a proof for one request.

        Args:
            method: HTTP method.
            url: Its URL without the query.
            token: The access token that goes with it; None at the token endpoint.
            nonce: Of the server; the one seen last if not given.
        """
        claims: JsonObject = {
            "htm": method,
            "htu": url,
            "iat": unix_s(self._clock.now()),
            "jti": secrets.token_urlsafe(16),
        }
        if nonce or self._nonce:
            claims["nonce"] = nonce or self._nonce
        if token is not None:
            claims["ath"] = b64u(sha256(token.encode()))
        return sign_jws(self._dpop_key, {"typ": "dpop+jwt", "jwk": jwk_of(self._dpop_key)}, claims)

    def _authenticated(self, url: str, fields: Mapping[str, str]) -> httpx.Request:
        return httpx.Request("POST", url, data=self.authenticated(fields), headers={"DPoP": self.proof("POST", url)})

    def _fetch_token(self) -> Generator[httpx.Request, httpx.Response, None]:
        response = yield from self.post(self._issuer + TOKEN_PATH, {"grant_type": "client_credentials"})
        if not response.is_success:
            raise problem(response)
        self._token = field(json_of(response), "access_token")

    def _assertion(self) -> str:
        now_s = unix_s(self._clock.now())
        claims: JsonObject = {
            "iss": self._company_id,
            "sub": self._company_id,
            "aud": self._issuer,
            "jti": secrets.token_urlsafe(16),
            "iat": now_s,
            "exp": now_s + _ASSERTION_S,
        }
        return sign_jws(self._auth_key, {"typ": "client-authentication+jwt"}, claims)

    def _take_nonce(self, response: httpx.Response) -> None:
        self._nonce = response.headers.get("DPoP-Nonce", self._nonce)


class _Form(httpx.Auth):
    requires_response_body = True

    def __init__(self, auth: CompanyAuth, fields: Mapping[str, str]) -> None:
        self._auth = auth
        self._fields = fields

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        yield from self._auth.post(str(request.url), self._fields)
