"""Grants and tokens that a company holds, as they stand now: a token lives no longer than its consent."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlmodel import Session

from vault.clock import unix_s
from vault.consent import consents
from vault.consent.consents import Consent
from vault.encoding import b64u
from vault.oauth import families
from vault.oauth.families import Family
from vault.oauth.tokens import SCOPE, AccessToken, TokenMint, is_revoked, revoke
from vault.parties.companies import Company, CompanyId
from vault.proof.jose import BadJws
from vault.schema.details import dump_details
from vault.seal.ids import ConsentId


@dataclass(frozen=True, slots=True)
class HeldToken:
    """A token of the asking company that works now, as Authlib's endpoints ask about it.

    Args:
        token: The access token, or the family of the refresh token.
        consent: The consent that it is for, if for one.
    """

    token: AccessToken | Family
    consent: Consent | None

    def check_client(self, client: object) -> bool:
        """Say yes: another company's token is not found."""
        return True

    def is_expired(self) -> bool:
        """Say no: what has expired is not found."""
        return False

    def is_revoked(self) -> bool:
        """Say no: what was revoked, or whose consent is over, is not found."""
        return False


def find_grant(session: Session, consent_id: ConsentId, company: Company, *, now: datetime) -> Consent | None:
    """Return a consent that this company was given and that is not over."""
    found = consents.find(session, consent_id)
    if found is None or not found.live or found.current.terms.grantee != company.company_id:
        return None
    return found if found.current.terms.not_after > unix_s(now) else None


def granted(consent: Consent) -> dict[str, Any]:
    """Return what a token response and an introspection say about a grant."""
    return {"grant_id": b64u(consent.consent_id), "authorization_details": [dump_details(consent.current.terms)]}


def find_held(
    session: Session, tokens: TokenMint, company: Company, unverified_token: str, *, now: datetime
) -> HeldToken | None:
    """Return an access or refresh token if it is this company's and works now, its consent included."""
    token: AccessToken | Family | None
    try:
        token = tokens.verify(unverified_token, now=now)
    except BadJws:
        token = families.find(session, unverified_token, company.company_id, now=now)
    if token is None or token.company_id != company.company_id:
        return None
    if isinstance(token, AccessToken) and is_revoked(session, token):
        return None
    consent = None if token.grant_id is None else find_grant(session, token.grant_id, company, now=now)
    return None if consent is None and token.grant_id is not None else HeldToken(token, consent)


def describe(held: HeldToken, company_id: CompanyId, issuer: str) -> dict[str, Any]:
    """Return what a company may know about its own token.

    Source: RFC 7662 section 2.2; RFC 9449 section 6.2; RFC 9396 section 9.2.
    """
    token = held.token
    body: dict[str, Any] = {"client_id": company_id, "iss": issuer, "scope": SCOPE, "exp": token.expires_at}
    if isinstance(token, AccessToken):
        body |= {"token_type": "DPoP", "sub": company_id, "aud": issuer, "cnf": {"jkt": token.jkt}}
        body |= {"iat": token.issued_at, "jti": token.jti}
    return body if held.consent is None else {**body, **granted(held.consent)}


def end_held(session: Session, held: HeldToken, *, now: datetime) -> None:
    """Revoke a token; a refresh token takes along the access tokens that were made with it."""
    token = held.token
    if isinstance(token, AccessToken):
        revoke(session, token.jti.encode(), expires_at_s=token.expires_at, now=now)
    else:
        families.end(session, token.family_id, now=now)
