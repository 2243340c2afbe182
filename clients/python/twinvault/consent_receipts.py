"""Receipts of consents: one signed version with the proof that the log has it, checked offline, in words.

The JSON form is what the service returned: {"envelope", "receipt": {proof, entry, public, personal}}. It is checked
with pinned keys alone, so a receipt kept in a drawer proves the consent without the service.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from twinvault.api import field
from twinvault.receipts import NoReceipt, verify_changed
from vault.encoding import b64u, parse_b64u
from vault.proof.checkpoint import Checkpoint
from vault.proof.receipt import parse_receipt
from vault.proof.trust import TrustedRoot
from vault.schema.category import CATEGORIES, PURPOSES
from vault.schema.consent import ConsentEvent, ConsentVersion, parse_consent
from vault.seal.dsse import PayloadType, parse_envelope, unverified_record, verify_envelope

_EVENTS: Final[Mapping[str, Mapping[ConsentEvent, str]]] = {
    "en": {
        ConsentEvent.GIVEN: "given by you",
        ConsentEvent.NARROWED: "narrowed by you",
        ConsentEvent.RENEWED: "renewed by you",
        ConsentEvent.WITHDRAWN: "withdrawn by you",
        ConsentEvent.REVOKED: "revoked by somebody else",
        ConsentEvent.EXPIRED: "expired",
        ConsentEvent.INVALIDATED: "found invalid",
    },
    "fr": {
        ConsentEvent.GIVEN: "donné par vous",
        ConsentEvent.NARROWED: "restreint par vous",
        ConsentEvent.RENEWED: "renouvelé par vous",
        ConsentEvent.WITHDRAWN: "retiré par vous",
        ConsentEvent.REVOKED: "révoqué par un tiers",
        ConsentEvent.EXPIRED: "expiré",
        ConsentEvent.INVALIDATED: "déclaré invalide",
    },
}
_TEXTS: Final = {
    "en": """Receipt of consent {consent}, version {version}: {event} on {at}.
To: {grantee}
Purposes: {purposes}
Data: {categories}, months {data_from} to {data_to}
In force: {not_before} to {not_after}; at most {quota} answers a month
Explicitly allowed special categories: {special}; influence: {influence}; software agents: {agents}
Responsible: {controller}
Withdraw: twinvault owner withdraw {consent}, or {withdrawal}
Other rights: {rights}
Withdrawing ends future answers; it does not delete what the recipient already has.
Logged as leaf {leaf} of {origin}, in a tree of {size} leaves; record {record}
""",
    "fr": """Reçu du consentement {consent}, version {version} : {event} le {at}.
À : {grantee}
Finalités : {purposes}
Données : {categories}, mois de {data_from} à {data_to}
En vigueur : du {not_before} au {not_after} ; au plus {quota} réponses par mois
Catégories particulières autorisées explicitement : {special} ; influence : {influence} ; agents logiciels : {agents}
Responsable : {controller}
Retrait : twinvault owner withdraw {consent}, ou {withdrawal}
Autres droits : {rights}
Le retrait met fin aux réponses futures ; il n'efface pas ce que le destinataire possède déjà.
Inscrit au journal {origin}, feuille {leaf}, dans un arbre de {size} feuilles ; enregistrement {record}
""",
}
LANGUAGES: Final = tuple(_TEXTS)
_WORDS: Final = {"en": ("no", "yes", "none"), "fr": ("non", "oui", "aucune")}


@dataclass(frozen=True, slots=True)
class ConsentReceipt:
    """A receipt that holds under the caller's pinned keys.

    Args:
        version: What was signed.
        record: Digest of the signed bytes.
        index: Leaf index in the log.
        checkpoint: The signed tree that holds it.
    """

    version: ConsentVersion
    record: bytes
    index: int
    checkpoint: Checkpoint

    def text(self, language: str) -> str:
        """Return the receipt as a person reads it.

        Args:
            language: One of `LANGUAGES`; terms of the vocabulary keep their English labels.
        """
        version, terms = self.version, self.version.terms
        no, yes, none = _WORDS[language]
        return _TEXTS[language].format(
            consent=b64u(version.consent_id), version=version.version, event=_EVENTS[language][version.event],
            at=_day(version.event_time), grantee=terms.grantee, data_from=terms.data_from, data_to=terms.data_to,
            purposes=", ".join(sorted(PURPOSES[p].label if p in PURPOSES else p for p in terms.purposes)),
            categories=", ".join(sorted(CATEGORIES[c].label for c in terms.categories)),
            not_before=_day(terms.not_before), not_after=_day(terms.not_after), quota=terms.quota_per_month,
            special=", ".join(sorted(CATEGORIES[c].label for c in terms.explicit_special)) or none,
            influence=yes if terms.influence_opt_in else no, agents=yes if terms.agent_allowed else no,
            controller=terms.handling.controller, withdrawal=terms.handling.withdrawal_method,
            rights=terms.handling.privacy_rights, leaf=self.index, origin=self.checkpoint.origin,
            size=self.checkpoint.size, record=b64u(self.record),
        )  # fmt: skip


def verify_consent_receipt(unverified: Any, trust: TrustedRoot) -> ConsentReceipt:
    """Return a receipt, if everything about it holds; asks nobody.

    A version that the person caused is signed by the key it names, which makes its subject. For one
    that others caused, the log's leaf is the proof; who signed it, the owner's client checks online.

    Args:
        unverified: The JSON form.
        trust: The caller's pinned keys.

    Raises:
        NoReceipt: The log's entry is about something else, or the parts contradict each other.
        InvalidProof: The proof is malformed or not of the pinned log.
        SealError: The person did not sign it.
        BadConsent: It is no consent.
    """
    envelope = parse_envelope(parse_b64u(field(unverified, "envelope")))
    version = parse_consent(unverified_record(envelope))
    if version.event.by_person:
        verify_envelope(envelope, PayloadType.CONSENT, version.principal_key)
    proof = field(unverified, "receipt", dict)
    checkpoint = verify_changed(proof, trust, version, envelope)
    index = parse_receipt(field(proof, "proof")).index
    if index != field(proof, "index", int):
        raise NoReceipt("The receipt names another leaf than the one it proves.")
    return ConsentReceipt(version, envelope.digest, index, checkpoint)


def _day(at_s: int) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%d")
