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

from typing import Final

from vault.encoding import JsonObject, JsonValue
from vault.schema.terms import Terms, dump_terms

DETAILS_TYPE: Final = "twin_query"


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


def _ascending(texts: frozenset[str]) -> list[JsonValue]:
    return [*sorted(texts)]
