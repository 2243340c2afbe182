"""The resource side: which company sent this request."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from fastapi import Depends, Request, Response, Security
from fastapi.security.http import HTTPBase
from sqlmodel import Session

from vault.http.edge import ClockDep, DatabaseDep
from vault.oauth.dpop import Proof, ProofReader, Unauthenticated
from vault.oauth.tokens import AccessToken, TokenMint, is_revoked
from vault.parties import companies
from vault.parties.caller import CompanyCaller
from vault.proof.jose import BadJws


@dataclass(frozen=True, slots=True)
class VerifiedRequest:
    """A request whose token and proof hold, not yet counted as used.

    Args:
        token: Its access token.
        proof: Its proof of possession.
    """

    token: AccessToken
    proof: Proof


@dataclass(frozen=True)
class CompanyGate:
    """What every process of one server shares to recognise companies.

    Args:
        proofs: Checks DPoP proofs.
        tokens: Recognises this server's access tokens.
    """

    proofs: ProofReader
    tokens: TokenMint

    def verify(
        self, authorization: list[str], unverified_proofs: list[str], *, method: str, path: str, now: datetime
    ) -> VerifiedRequest:
        """Check everything that needs no database.

        Args:
            authorization: Every `Authorization` header of the request.
            unverified_proofs: Every `DPoP` header of the request.
            method: The request's method.
            path: Its path below the issuer, without the query.
            now: The current time.

        Raises:
            Unauthenticated: No token, a bearer token, a token that is not ours or has expired, or
                a proof that does not belong to it.

        Source: RFC 9449 section 7.
        """
        if not authorization:
            nonce = self.proofs.nonces.now(now)
            raise Unauthenticated("Send a DPoP-bound access token and a proof.", error=None, nonce=nonce)
        scheme, _, unverified_token = authorization[0].partition(" ")
        if len(authorization) != 1 or scheme.lower() != "dpop":
            raise self.proofs.refusal("Send the token once, under the DPoP scheme.", now, "invalid_token")
        try:
            token = self.tokens.verify(unverified_token, now=now)
        except BadJws as error:
            raise self.proofs.refusal(error.detail, now, "invalid_token") from error
        proof = self.proofs.verify(unverified_proofs, method=method, path=path, access_token=unverified_token, now=now)
        if proof.jkt != token.jkt:
            raise self.proofs.refusal("The token is bound to another key than the proof's.", now, "invalid_token")
        return VerifiedRequest(token, proof)

    def admit(self, session: Session, request: VerifiedRequest, *, now: datetime) -> CompanyCaller:
        """Use the proof up and return the company as its row says now.

        Args:
            session: An open writing transaction; a replay is refused once it has committed.
            request: As `verify` returned it.
            now: The current time.

        Raises:
            Unauthenticated: The proof was used before, or the company is gone.
        """
        self.use_up(session, request, now=now)
        return self.caller(session, request, now=now)

    def use_up(self, session: Session, request: VerifiedRequest, *, now: datetime) -> None:
        """Use the proof up, in the transaction that does what was asked; see `admit`.

        Raises:
            Unauthenticated: The proof was used before.
        """
        self.proofs.spend(session, request.proof, now=now)

    def caller(self, session: Session, request: VerifiedRequest, *, now: datetime) -> CompanyCaller:
        """Return the company as its row says now, without using the proof up: for reading only.

        Raises:
            Unauthenticated: The company is gone, or revoked the token.
        """
        if is_revoked(session, request.token):
            raise self.proofs.refusal("The access token was revoked; ask for a new one.", now, "invalid_token")
        company = companies.find(session, request.token.company_id)
        if company is None:
            raise self.proofs.refusal("The access token names no company of this server.", now, "invalid_token")
        return CompanyCaller(
            company_id=company.company_id,
            status=company.status,
            agent=company.agent,
            version=company.version,
            record=company.record,
            question_key=company.question_key,
            jkt=request.proof.jkt,
            grant_id=request.token.grant_id,
            sender_constrained=True,
        )


# For the OpenAPI document only: the gate reads the headers itself.
_Dpop = Annotated[object, Security(HTTPBase(scheme="DPoP", scheme_name="company", auto_error=False))]


def _company_caller(
    request: Request, response: Response, database: DatabaseDep, clock: ClockDep, _documented: _Dpop
) -> CompanyCaller:
    gate = request.app.state.company_gate
    assert isinstance(gate, CompanyGate)
    now, headers = clock.now(), request.headers
    verified = gate.verify(
        headers.getlist("authorization"),
        headers.getlist("dpop"),
        method=request.method,
        path=request.url.path,
        now=now,
    )
    response.headers["DPoP-Nonce"] = gate.proofs.nonces.now(now)
    with database.transaction() as session:
        return gate.admit(session, verified, now=now)


CompanyDep = Annotated[CompanyCaller, Depends(_company_caller)]
