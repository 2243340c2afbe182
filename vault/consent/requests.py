"""What a company asked for: a compact JWS by its logged question key, against which every grant is held.

The JWS has the type `twinvault-consent-request+jwt`; its claims are the consent request's record.
A consent names it by SHA-256 over the JWS text.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from sqlmodel import Session

from vault.clock import unix_s
from vault.parties import companies, marks
from vault.parties.companies import CompanyStatus
from vault.proof.jose import REQUEST_TYPE, BadJws, JwsKey, parse_jws
from vault.schema.consent import ConsentEvent, ConsentRequest, ConsentVersion, parse_consent_request, verify_grant
from vault.schema.terms import BadConsent, ConsentKind
from vault.seal.ids import VaultId, sha256

_CLOCK_SKEW_S: Final = 300


def verify_request(unverified_jws: str, question_key: JwsKey, *, now: datetime) -> ConsentRequest:
    """Return what a company asks for.

    Args:
        unverified_jws: The compact JWS.
        question_key: The company's logged key.
        now: The current time.

    Raises:
        BadConsent: Malformed, signed by another key, or issued in the future.
    """
    try:
        claims = parse_jws(unverified_jws, REQUEST_TYPE).verify(question_key)
    except BadJws as error:
        raise BadConsent(f"The consent request cannot be used: {error.detail}") from error
    request = parse_consent_request(claims)
    if request.issued_at > unix_s(now) + _CLOCK_SKEW_S:
        raise BadConsent("The consent request is issued in the future.")
    return request


def verify_asked(
    session: Session, granted: ConsentVersion, unverified_jws: str, *, vault_id: VaultId, now: datetime
) -> None:
    """Check that a version grants to a known company no more than it asked for.

    Args:
        session: Any transaction.
        granted: A live version: given, narrowed or renewed.
        unverified_jws: The request; empty for a self or cohort consent, which nobody asks for.
        vault_id: Whose consent.
        now: The current time.

    Raises:
        BadConsent: Wider than asked, another request or none, a company that is not active, or a test
            company where the vault is not a sandbox.
    """
    if granted.terms.kind is not ConsentKind.COMPANY:
        if unverified_jws or granted.request_sha256:
            raise BadConsent("A self or cohort consent answers no request; leave it out.")
        return
    if granted.event is ConsentEvent.NARROWED:
        # Narrower than the version before, which was held against the request under the key of its day.
        return
    company = companies.find(session, granted.terms.grantee)
    if company is None or company.status is not CompanyStatus.ACTIVE:
        raise BadConsent("The grantee is not a company that may ask here.")
    if company.sandbox and not marks.is_sandbox(session, vault_id):
        raise BadConsent("The grantee is a test company that nobody approved; only a sandbox vault may consent to it.")
    request = verify_request(unverified_jws, company.question_key, now=now)
    verify_grant(granted, request, sha256(unverified_jws.encode()))
