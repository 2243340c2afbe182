"""Checking `authorization_details`: what a company pushes must spell exactly what it signed."""

from __future__ import annotations

from datetime import datetime

from authlib.oauth2.rfc6749.errors import OAuth2Error

from vault.clock import unix_s
from vault.consent.requests import verify_request
from vault.encoding import JsonObject, parse_json
from vault.errors import MalformedInput
from vault.parties.companies import Company
from vault.schema.consent import ConsentRequest
from vault.schema.details import DETAILS_TYPE, dump_details
from vault.schema.terms import BadConsent, ConsentKind


class BadDetails(OAuth2Error):  # type: ignore[misc]  # Authlib has no types
    """Authorization details that are not one `twin_query`, or not what the company signed."""

    error = "invalid_authorization_details"


def verify_details(unverified_text: str, company: Company, *, now: datetime) -> tuple[str, ConsentRequest]:
    """Return the signed request of a company's authorization details, and what it says.

    The closed schema is the request's own: the details must spell exactly its terms, so that the
    owner decides on signed words and the company cannot show two things.

    Args:
        unverified_text: The `authorization_details` parameter.
        company: Who pushed it, authenticated.
        now: The current time.

    Raises:
        BadDetails: Not one `twin_query`, an unknown field, another company's request, a window that
            is over, or a field that differs from the signed request.

    Source: RFC 9396 sections 2 and 5.
    """
    try:
        sent = parse_json(f'{{"details":{unverified_text}}}'.encode())
        one = sent["details"]
        if len(sent) != 1 or not isinstance(one, list) or len(one) != 1 or not isinstance(one[0], dict):
            raise BadDetails("Send a JSON list of exactly one object.")
        return _verify_query(one[0], company, now)
    except (MalformedInput, BadConsent) as error:
        raise BadDetails(_printable(error.detail)) from error


def _verify_query(query: JsonObject, company: Company, now: datetime) -> tuple[str, ConsentRequest]:
    jws = query.pop("request", None)
    if query.get("type") != DETAILS_TYPE or not isinstance(jws, str):
        raise BadDetails(f"Only the type {DETAILS_TYPE} exists here; its member request is the signed request.")
    request = verify_request(jws, company.question_key, now=now)
    terms = request.terms
    if terms.kind is not ConsentKind.COMPANY or terms.grantee != company.company_id:
        raise BadDetails("The signed request is for another grantee than the company that pushed it.")
    if terms.not_after <= unix_s(now):
        raise BadDetails("The duration that was asked for is over already.")
    signed = dump_details(terms)
    for name in sorted(signed.keys() | query.keys()):
        if name not in signed:
            raise BadDetails(f"A {DETAILS_TYPE} has no other fields than {', '.join(signed)} and request.")
        if query.get(name) != signed[name]:
            raise BadDetails(f"The field '{name}' is not what the signed request says.")
    return jws, request


def _printable(detail: str) -> str:
    """Return a sentence in the characters that RFC 6749 section 5.2 allows an error description."""
    return "".join(c if " " <= c <= "~" and c not in '"\\' else "?" for c in detail)
