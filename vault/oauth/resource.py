"""The resource side: which company sent this request, and did it sign this very question."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Final

from fastapi import Depends, Request, Response
from sqlmodel import Session

from vault.clock import unix_s
from vault.encoding import b64u
from vault.errors import VaultError
from vault.http.edge import ClockDep, DatabaseDep
from vault.oauth.dpop import MAX_AGE_S, MAX_SKEW_S, Proof, ProofReader, Unauthenticated
from vault.oauth.tokens import AccessToken, TokenMint
from vault.parties import companies
from vault.parties.caller import CompanyCaller
from vault.proof.jose import BadJws, parse_jws
from vault.seal.ids import ConsentId

QUESTION_SIGNATURE_HEADER: Final = "Question-Signature"
QUESTION_TYPE: Final = "question+jwt"


class BadQuestionSignature(VaultError):
    """A question that its company did not sign, or signed for another server, consent, id or body."""

    slug = "bad-question-signature"
    title = "Question signature is not acceptable"
    status = 401


class GrantMismatch(VaultError):
    """A token for one consent, used for a question under another."""

    slug = "grant-mismatch"
    title = "Token is for another consent"
    status = 403


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
        self.proofs.spend(session, request.proof, now=now)
        company = companies.find(session, request.token.company_id)
        if company is None:
            raise self.proofs.refusal("The access token names no company of this server.", now, "invalid_token")
        return CompanyCaller(
            company_id=company.company_id,
            status=company.status,
            agent=company.agent,
            question_key=company.question_key,
            jkt=request.proof.jkt,
            grant_id=request.token.grant_id,
            sender_constrained=True,
        )


def require_grant(caller: CompanyCaller, consent_id: ConsentId) -> None:
    """Refuse a token that is for another consent; one without a grant id names the company only.

    Raises:
        GrantMismatch: The token's grant id is not this consent.
    """
    if caller.grant_id is not None and caller.grant_id != consent_id:
        raise GrantMismatch("The access token is for another consent; ask for one with this consent's grant_id.")


def verify_question_signature(
    unverified_jws: str,
    caller: CompanyCaller,
    *,
    issuer: str,
    consent_id: ConsentId,
    question_id: bytes,
    body: bytes,
    now: datetime,
) -> int:
    """Check that the company's logged question key signed this question, here and now.

    The `Question-Signature` header holds a compact JWS, detached from the body, with header {alg,
    typ `question+jwt`, kid} and claims {iss: company id, aud: issuer, consent, question: both ids in
    base64url, body: base64url SHA-256 of the exact body, iat}.

    Args:
        unverified_jws: The header's value.
        caller: The company, with its question key.
        issuer: This server.
        consent_id: From the request's path or body.
        question_id: The idempotency key, 16 bytes.
        body: The request body, exactly as received.
        now: The current time.

    Returns:
        When it was signed, unix seconds.

    Raises:
        BadQuestionSignature: Another key, algorithm or kind of JWS, or any claim that differs.
    """
    try:
        jws = parse_jws(unverified_jws, QUESTION_TYPE)
        if jws.header.get("kid") != caller.question_key.kid:
            raise BadQuestionSignature("The kid must be the thumbprint of the company's question key in force.")
        claims = jws.verify(caller.question_key)
    except BadJws as error:
        raise BadQuestionSignature(error.detail) from error
    issued_at = claims.pop("iat", None)
    if claims != {
        "iss": caller.company_id,
        "aud": issuer,
        "consent": b64u(consent_id),
        "question": b64u(question_id),
        "body": b64u(hashlib.sha256(body).digest()),
    }:
        raise BadQuestionSignature("The signature is over another server, consent, question id or body.")
    if not isinstance(issued_at, int) or not -MAX_SKEW_S <= unix_s(now) - issued_at <= MAX_AGE_S:
        raise BadQuestionSignature(f"The question must be signed within {MAX_AGE_S} seconds of being sent.")
    return issued_at


def _company_caller(request: Request, response: Response, database: DatabaseDep, clock: ClockDep) -> CompanyCaller:
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
