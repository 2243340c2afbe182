"""`authorization_details` of type `twin_query`: a company's consent request as RFC 9396 spells it.

    {"type": "twin_query", "questions": [...], "purposes": [...],
     "categories": {"necessary": [...], "optional": [...]},
     "window": {"from": "2026-01", "to": "2026-06"}, "quota": {"n": 50, "per": "P1M"},
     "duration": {"from": unix seconds, "to": unix seconds},
     "options": {"explicit_special": [...], "influence_opt_in": 0, "agent_allowed": 0, "post_mortem": [...]},
     "request": the same, signed: the compact JWS that the owner's client shows and answers}

Lists are in ascending order. What is granted is spelled alike, without `request`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from authlib.oauth2.rfc6749.errors import OAuth2Error

from vault.clock import unix_s
from vault.consent.requests import verify_request
from vault.encoding import JsonObject, JsonValue, parse_json
from vault.errors import MalformedInput
from vault.parties.companies import Company
from vault.schema.consent import ConsentRequest
from vault.schema.terms import BadConsent, ConsentKind, Terms, dump_terms

DETAILS_TYPE: Final = "twin_query"


class BadDetails(OAuth2Error):  # type: ignore[misc]  # Authlib has no types
    """Authorization details that are not one `twin_query`, or not what the company signed."""

    error = "invalid_authorization_details"


def dump_details(terms: Terms) -> JsonObject:
    """Return terms as one `twin_query`."""
    written = dump_terms(terms)
    return {
        "type": DETAILS_TYPE,
        "questions": written["questions"],
        "purposes": written["purposes"],
        "categories": {"necessary": _ascending(terms.necessary), "optional": _ascending(terms.optional)},
        "window": {"from": written["data_from"], "to": written["data_to"]},
        "quota": written["quota"],
        "duration": {"from": terms.not_before, "to": terms.not_after},
        "options": {
            name: written[name] for name in ("explicit_special", "influence_opt_in", "agent_allowed", "post_mortem")
        },
    }


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


def _ascending(texts: frozenset[str]) -> list[JsonValue]:
    return [*sorted(texts)]


def _printable(detail: str) -> str:
    """Return a sentence in the characters that RFC 6749 section 5.2 allows an error description."""
    return "".join(c if " " <= c <= "~" and c not in '"\\' else "?" for c in detail)
