"""One plain sentence for each kind of event, as its owner reads it."""

from __future__ import annotations

from typing import Final

from vault.encoding import JsonObject
from vault.proof.leaf import LeafKind
from vault.schema.consent import ConsentEvent

NOT_RULES: Final = {
    "not-spent": "While the question was being answered, the consent changed, its quota was spent, or all companies"
    " together used up what they may show you.",
    "not-yours": "The consent was given to somebody else.",
}
"""Reasons of a denial that no policy gives."""

_EVENTS: Final = {
    ConsentEvent.GIVEN: "is in force",
    ConsentEvent.NARROWED: "is in force, narrower than before",
    ConsentEvent.RENEWED: "was renewed",
    ConsentEvent.WITHDRAWN: "was withdrawn by you",
    ConsentEvent.REVOKED: "was revoked by the operator",
    ConsentEvent.RETURNED: "was given back, and so ended, by them",
    ConsentEvent.EXPIRED: "has expired",
    ConsentEvent.INVALIDATED: "was found invalid",
}
_SENTENCES: Final = {
    LeafKind.VAULT_GENESIS: "Your vault began.",
    LeafKind.SUCCESSION: "The next owner key, from your recovery kit, replaced your owner key.",
    LeafKind.PROFILE: "Your signed profile was put in force.",
    LeafKind.ACCOUNT: "Version {version} of your account record was stored.",
    LeafKind.RING_HEAD: "Version {version} of your list of compartments and devices was put in force.",
    LeafKind.UPLOAD: "A device of yours uploaded sealed batches: {count}.",
    LeafKind.CONSENT_REQUEST: "{party} asks you to renew a consent; `owner requests` shows what for.",
    LeafKind.CONSENT: "{party}: version {version} of your consent {state}.",
    LeafKind.HANDOVER: "The keys that your consent covers were handed over to this service, sealed.",
    LeafKind.RESEAL: "Keys that a consent handed over were sealed anew to this service's newer key.",
    LeafKind.RELEASE: "A noisy summary of {category} in {period} was made for your twin.",
    LeafKind.ANSWER: "{party} asked ({question_kind}, for {purpose}) and got an answer; {quota_left} left this month.",
    LeafKind.DENIAL: "{party} asked ({question_kind}) and was refused.",
    LeafKind.FREEZE: "A signed order to freeze or unfreeze your vault was followed.",
    LeafKind.ERASURE: "What an erasure names was destroyed.",
    LeafKind.RETENTION: "What was kept long enough was destroyed.",
    LeafKind.AUDITOR_ACCESS: "An auditor was shown leaves {first} to {last} of the log: what was decided about your"
    " consents, under pseudonyms; no question and no answer.",
}
_ANYTHING: Final = "Something that concerns every vault of this service was logged."


def sentence(kind: LeafKind, public: JsonObject, personal: JsonObject, party: str) -> str:
    """Return what happened.

    Args:
        kind: Of the leaf.
        public: Its public half.
        personal: Its personal half.
        party: Who asked or to whom a consent was given, ready to begin a sentence.
    """
    event = personal.get("event")
    state = _EVENTS[ConsentEvent(str(event))] if kind is LeafKind.CONSENT and event else "changed"
    return _SENTENCES.get(kind, _ANYTHING).format_map({**public, **personal, "party": party, "state": state})
