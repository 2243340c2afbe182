"""The authorization server, on Authlib's core: pushed requests, codes, DPoP-bound tokens.

Source: RFC 6749, 7636, 8707, 9126, 9207, 9396, 9449; FAPI 2.0 Security Profile.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, assert_never

from authlib.oauth2.rfc6749 import AuthorizationServer, InvalidRequestError
from authlib.oauth2.rfc6749.errors import InvalidGrantError, OAuth2Error, UnauthorizedClientError
from sqlmodel import Session

from vault.clock import unix_s
from vault.consent import consents
from vault.consent.consents import Consent
from vault.oauth import authorizations, families, named
from vault.oauth.authorizations import PUSHED_S, Authorization, Pushed, State
from vault.oauth.client import AUTH_METHOD, Client, Form, Reply, authenticate, parse_form
from vault.oauth.details import verify_details
from vault.oauth.dpop import Proof, ProofReader, Unauthenticated
from vault.oauth.families import FAMILY_BYTES, Family
from vault.oauth.grants import (
    S256,
    ClientCredentials,
    Code,
    CodeGrant,
    Introspection,
    Issuer,
    Refresh,
    Refreshed,
    Revocation,
)
from vault.oauth.held import HeldToken, describe, end_held, find_grant, find_held, granted
from vault.oauth.tokens import AGENT_TOKEN_S, SCOPE, TOKEN_S, TokenMint, parse_grant_id
from vault.parties import companies
from vault.parties.companies import Company, CompanyStatus
from vault.proof.jose import BadJws, Thumbprint
from vault.schema.company import is_registered
from vault.seal.ids import ConsentId

AUTHORIZE_PATH: Final = "/authorize"
_KEPT: Final = (
    "response_type",
    "client_id",
    "redirect_uri",
    "scope",
    "state",
    "code_challenge",
    "code_challenge_method",
)
_MAX_STATE_CHARS: Final = 2048
_JKT = re.compile(r"[A-Za-z0-9_-]{43}")
GRANT_ACTIONS: Final = ("create", "replace")


class Endpoint(StrEnum):
    """Where companies send forms."""

    PUSH = "/v1/par"
    TOKEN = "/v1/token"  # noqa: S105  (a path)
    INTROSPECT = "/v1/introspect"
    REVOKE = "/v1/revoke"


class BadTarget(OAuth2Error):  # type: ignore[misc]  # Authlib has no types
    """A resource that is not this server's."""

    error = "invalid_target"


@dataclass(frozen=True)
class OAuthDesk:
    """What every process of one server shares to authorize companies.

    Args:
        issuer: Base URL without a trailing slash.
        proofs: Checks DPoP proofs.
        tokens: Issues access tokens.
    """

    issuer: str
    proofs: ProofReader
    tokens: TokenMint

    def verify_proof(self, unverified_proofs: list[str], endpoint: Endpoint, *, now: datetime) -> Proof:
        """Return the DPoP proof of a request to one of this server's own endpoints.

        It comes before everything else, so that repeating the request with a nonce finds client
        assertion and code unused.

        Raises:
            Unauthenticated: The proof does not hold.
        """
        return self.proofs.verify(unverified_proofs, method="POST", path=endpoint, access_token=None, now=now)

    def refuse(self, refusal: Unauthenticated) -> Reply:
        """Return the refusal of a proof in the form that RFC 9449 sections 5 and 8 give it here."""
        body = {"error": refusal.error, "error_description": refusal.detail}
        return Reply(400, body, {"DPoP-Nonce": refusal.headers["DPoP-Nonce"], "Cache-Control": "no-store"})

    def respond(
        self,
        session: Session,
        endpoint: Endpoint,
        proof: Proof | None,
        content_type: str,
        body: bytes,
        *,
        now: datetime,
    ) -> Reply:
        """Answer a form that a company sent.

        Args:
            session: An open writing transaction, to be committed whatever the answer is.
            endpoint: Where it sent it.
            proof: As `verify_proof` returned it; None where the endpoint needs none.
            content_type: Of the request.
            body: The form.
            now: The current time.
        """
        server = _Server(self, session, now, proof)
        try:
            form = parse_form(self.issuer + endpoint, content_type, body)
        except OAuth2Error as error:
            return server.refuse(error)
        reply: Reply
        match endpoint:
            case Endpoint.PUSH:
                reply = server.push(form)
            case Endpoint.TOKEN:
                reply = server.create_token_response(form)
            case Endpoint.INTROSPECT:
                reply = server.create_endpoint_response(Introspection.ENDPOINT_NAME, form)
            case Endpoint.REVOKE:
                reply = server.create_endpoint_response(Revocation.ENDPOINT_NAME, form)
            case _:
                assert_never(endpoint)
        return reply

    def answer(self, session: Session, authorization: Authorization, *, now: datetime) -> Reply:
        """Send the browser back with a code, or with the reason why there is none.

        Args:
            session: An open writing transaction.
            authorization: Approved, denied or over.
            now: The current time.
        """
        return _Server(self, session, now, None, authorization).redirect()


class _Server(AuthorizationServer):  # type: ignore[misc]  # Authlib has no types
    """One request's server: Authlib's hooks see this request's transaction, proof and time and no other's."""

    def __init__(
        self,
        desk: OAuthDesk,
        session: Session,
        now: datetime,
        proof: Proof | None,
        authorization: Authorization | None = None,
    ) -> None:
        super().__init__(scopes_supported=[SCOPE])
        self._desk, self._session, self._now = desk, session, now
        self._proof, self._authorization = proof, authorization
        self._company: Company | None = None
        self.register_client_auth_method(AUTH_METHOD, self._authenticate)
        self.register_grant(CodeGrant, [S256()])
        self.register_grant(Refresh)
        self.register_grant(ClientCredentials)
        self.register_endpoint(Introspection)
        self.register_endpoint(Revocation)
        self.register_extension(Issuer(desk.issuer))

    # --- what Authlib asks of a framework -------------------------------------------------------------------------

    def query_client(self, client_id: str) -> Client | None:
        company = companies.find(self._session, client_id)
        return None if company is None else Client(company)

    def create_oauth2_request(self, request: Form) -> Form:
        return request

    def send_signal(self, name: str, *args: object, **kwargs: object) -> None:
        """Nobody listens."""

    def handle_response(self, status: int, body: Any, headers: list[tuple[str, str]]) -> Reply:
        nonce = self._desk.proofs.nonces.now(self._now)
        return Reply(status, body, {**dict(headers), "DPoP-Nonce": nonce, "Cache-Control": "no-store"})

    def refuse(self, error: OAuth2Error) -> Reply:
        """Return a refusal to the company itself; a pushed request never redirects."""
        error.redirect_uri = None
        reply: Reply = self.handle_response(*error())
        return reply

    def _authenticate(self, query_client: object, form: Form) -> Client:
        client = authenticate(self._session, form, self._desk.issuer, now=self._now)
        self._company = client.company
        return client

    # --- the authorization request and its answer -----------------------------------------------------------------

    def push(self, form: Form) -> Reply:
        """Keep a company's authorization request (RFC 9126)."""
        try:
            self.authenticate_client(form, [AUTH_METHOD], "pushed_authorization_request")
            uri = self._keep(*self._asked(form))
        except OAuth2Error as error:
            return self.refuse(error)
        return self.handle_response(201, {"request_uri": uri, "expires_in": PUSHED_S}, [])

    def _keep(self, asked: Pushed, renewed: Consent | None) -> str:
        if renewed is None:
            return authorizations.push(self._session, asked, now=self._now)
        return named.push(self._session, asked, renewed, now=self._now)

    def _asked(self, form: Form) -> tuple[Pushed, Consent | None]:
        company, fields = self._active(), form.form
        fields["client_id"] = company.company_id
        _refuse_parameters(fields, "request", "request_uri")
        self._verify_target(fields)
        # Both before Authlib, whose refusals repeat the value and then break on characters that RFC 6749 forbids there.
        if fields.get("response_type") != "code" or fields.get("response_mode", "query") != "query":
            raise InvalidRequestError("Only the response_type code and the response_mode query exist here.")
        if not is_registered(fields.get("redirect_uri", ""), company.redirect_uris):
            raise InvalidRequestError("The redirect_uri must be exactly one of those that the company registered.")
        if len(fields.get("state", "")) > _MAX_STATE_CHARS:
            raise InvalidRequestError(f"A state has at most {_MAX_STATE_CHARS} characters.")
        self.get_consent_grant(form)
        request, _ = verify_details(fields.get("authorization_details", ""), company, now=self._now)
        renewed = self._renewed(fields, company)
        asked = Pushed(
            company_id=company.company_id,
            parameters={name: fields[name] for name in _KEPT if name in fields},
            jkt=self._bound_key(fields),
            request=request,
            grant_id=None if renewed is None else renewed.consent_id,
        )
        return asked, renewed

    def _bound_key(self, fields: dict[str, str]) -> Thumbprint:
        """Return the key that the code will be bound to (RFC 9449 section 10)."""
        named = fields.get("dpop_jkt")
        if self._proof is None:
            if named is None or _JKT.fullmatch(named) is None:
                raise InvalidRequestError("Send a DPoP proof or a dpop_jkt: each code is bound to a key.")
            return Thumbprint(named)
        if named not in {None, self._proof.jkt}:
            raise InvalidRequestError("The DPoP proof is made with another key than dpop_jkt names.")
        self._spend_proof()
        return self._proof.jkt

    def _renewed(self, fields: dict[str, str], company: Company) -> Consent | None:
        """Return the consent that the company wants renewed (Grant Management: `replace`), held still until the commit.

        So one request replaces the other also where two come at once, and none is kept about a vault that is erased.
        """
        action = fields.get("grant_management_action", "create")
        if action not in GRANT_ACTIONS or (action == "replace") is not ("grant_id" in fields):
            raise InvalidRequestError("grant_management_action is create without a grant_id, or replace with one.")
        if action != "replace":
            return None
        found = self._grant(fields["grant_id"], company)  # before it is locked: nobody holds up another's consent
        consents.lock(self._session, found.consent_id)
        return self._live(found.consent_id, company)

    def redirect(self) -> Reply:
        """Answer the browser through Authlib: a code if the request was approved, else `access_denied`."""
        assert self._authorization is not None
        form = Form(self._desk.issuer + AUTHORIZE_PATH, dict(self._authorization.asked.parameters))
        over = self._authorization.expires_at_s <= unix_s(self._now)
        approved = self._authorization.state is State.APPROVED and not over
        reply: Reply = self.create_authorization_response(form, approved, self.get_authorization_grant(form))
        return reply

    def save_code(self, code: str) -> None:
        """Put a code on the authorization, unless another tab of the browser was quicker."""
        assert self._authorization is not None
        if authorizations.issue(self._session, self._authorization.request_hash, code, now=self._now) is None:
            raise InvalidRequestError("This request was answered already.")

    # --- tokens ---------------------------------------------------------------------------------------------------

    def redeem(self, code: str, client: Client) -> Code | None:
        """Consume a code; one that was consumed before is held by two, so what came from it ends."""
        company_id, family_id = client.company.company_id, secrets.token_bytes(FAMILY_BYTES)
        found = authorizations.redeem(self._session, code, company_id, family_id, now=self._now)
        if found is not None:
            return Code(found, family_id)
        copied = authorizations.find_redeemed(self._session, code, company_id)
        if copied is not None:
            families.end(self._session, copied, now=self._now)
        return None

    def rotate(self, refresh_token: str) -> Refreshed | None:
        """Take a refresh token for the next one."""
        found = families.rotate(self._session, refresh_token, self._active().company_id, now=self._now)
        return None if found is None else Refreshed(*found)

    def issue_plain(self, form: Form) -> dict[str, Any]:
        """Return the token response of a company that asks in its own name."""
        self._verify_token_request(form)
        company, grant_id = self._active(), form.form.get("grant_id")
        return self._issue(None if grant_id is None else self._grant(grant_id, company), families.of_key(company))

    def issue_first(self, code: Code, form: Form) -> dict[str, Any]:
        """Return the token response of a code."""
        self._verify_token_request(form)
        if self._proof is None or self._proof.jkt != code.authorization.asked.jkt:
            raise InvalidGrantError("The code is bound to another key than the proof's.")
        consent = self._live(code.authorization.consent_id, self._active())
        body = self._issue(consent, code.family_id)
        end_s = consent.current.terms.not_after
        family = Family(code.family_id, self._active().company_id, consent.consent_id, end_s)
        return {**body, "refresh_token": families.begin(self._session, family, now=self._now)}

    def issue_next(self, refreshed: Refreshed, form: Form) -> dict[str, Any]:
        """Return the token response of a refresh token."""
        self._verify_token_request(form)
        consent = self._live(refreshed.family.grant_id, self._active())
        return {**self._issue(consent, refreshed.family.family_id), "refresh_token": refreshed.token}

    def _issue(self, consent: Consent | None, family_id: bytes) -> dict[str, Any]:
        company, proof = self._active(), self._spend_proof()
        lifetime_s = AGENT_TOKEN_S if company.agent else TOKEN_S
        grant_id = None if consent is None else consent.consent_id
        token = self._desk.tokens.issue(
            company.company_id, proof.jkt, grant_id, now=self._now, lifetime_s=lifetime_s, family_id=family_id
        )
        body = {"access_token": token, "token_type": "DPoP", "expires_in": lifetime_s, "scope": SCOPE}
        return body if consent is None else {**body, **granted(consent)}

    def find_held(self, unverified_token: str) -> HeldToken | None:
        """Return a token of the authenticated company if it works now."""
        assert self._company is not None
        return find_held(self._session, self._desk.tokens, self._company, unverified_token, now=self._now)

    def describe(self, token: HeldToken) -> dict[str, Any]:
        """Return what the authenticated company may know about its own token."""
        assert self._company is not None
        return describe(token, self._company.company_id, self._desk.issuer)

    def end_held(self, token: HeldToken) -> None:
        """Revoke a token."""
        end_held(self._session, token, now=self._now)

    # --- what all of them need ------------------------------------------------------------------------------------

    def _active(self) -> Company:
        assert self._company is not None
        if self._company.status is not CompanyStatus.ACTIVE:
            raise UnauthorizedClientError("This company may not ask now; speak to the operator.")
        return self._company

    def _grant(self, unverified_grant_id: str, company: Company) -> Consent:
        try:
            consent_id = parse_grant_id(unverified_grant_id)
        except BadJws as error:
            raise InvalidRequestError(error.detail) from error
        return self._live(consent_id, company)

    def _live(self, consent_id: ConsentId | None, company: Company) -> Consent:
        found = None if consent_id is None else find_grant(self._session, consent_id, company, now=self._now)
        if found is None:
            raise InvalidGrantError("No live consent of this grant_id was given to this company.")
        return found

    def _verify_target(self, fields: dict[str, str]) -> None:
        if fields.get("resource", self._desk.issuer) != self._desk.issuer:
            raise BadTarget("The only resource here is the issuer itself.")

    def _verify_token_request(self, form: Form) -> None:
        _refuse_parameters(form.form, "authorization_details")  # ignored, a narrower token would turn out a full one
        self._verify_target(form.form)

    def _spend_proof(self) -> Proof:
        assert self._proof is not None
        try:
            self._desk.proofs.spend(self._session, self._proof, now=self._now)
        except Unauthenticated as error:
            raise OAuth2Error(error.detail, error="invalid_dpop_proof") from error
        return self._proof


def _refuse_parameters(fields: dict[str, str], *names: str) -> None:
    for name in names:
        if name in fields:
            raise InvalidRequestError(f"The parameter {name} does not exist at this endpoint.")
