"""What to do after a refusal whose own sentence says only what was wrong, by its slug; nothing here is about a person."""

from __future__ import annotations

from typing import Final

_DOCUMENT: Final = "See the OpenAPI document at /openapi.json."

NEXT_STEPS: Final = {
    "bad-question": _DOCUMENT,
    "bad-question-signature": "Sign it anew, by the question key in force, for this server, consent, id and body.",
    "bad-seal": "Nothing was stored; send exactly what was sealed and signed.",
    "broken-chain": "Nothing was stored; send what follows the last batch that was acknowledged.",
    "company-suspended": "Ask the operator of this service why, and to reinstate it.",
    "consent-not-active": "Nothing is answered under it any more; its owner can give a new one.",
    "invalid-request": _DOCUMENT,
    "malformed-input": _DOCUMENT,
    "not-covered": "Ask what the consent covers, or for a consent that covers this.",
    "outside-window": "Ask within the time that the consent says, or for a new one.",
    "quota-spent": "It is whole again when the next month begins (UTC).",
    "unauthenticated": "Ask for a token, and sign a proof for this very request.",
    "unknown-company": "Check the id; the operator of this service registers companies.",
}
