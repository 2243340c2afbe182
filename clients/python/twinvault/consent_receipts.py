"""Receipts of consents: one signed version with the proof that the log has it, checked offline, in words.

The JSON form is what the service returned, {"envelope", "receipt": {proof, entry, public, personal}}, and, for an
ending that the person did not cause, "signer": the operator's statement of the key that signed it. "company" is the
grantee's name, believed only if the notice rendered with it is the one that the person signed. All is checked with
pinned keys alone, so a receipt kept in a drawer proves the consent, and who ended it, without the service.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from twinvault.api import field
from twinvault.notice import plain, shown_notice
from twinvault.receipts import NoReceipt, verify_changed
from vault.clock import utc_day
from vault.encoding import b64u, parse_b64u
from vault.proof.checkpoint import Checkpoint
from vault.proof.receipt import parse_receipt
from vault.proof.trust import TrustedRoot
from vault.schema.consent import ConsentEvent, ConsentVersion, parse_consent
from vault.schema.language import LABELS, Language
from vault.seal.dsse import PayloadType, parse_envelope, unverified_record, verify_envelope
from vault.seal.statement import KeyName, verify_key_statement

_EVENTS: Final[Mapping[Language, Mapping[ConsentEvent, str]]] = {
    Language.EN: {
        ConsentEvent.GIVEN: "given by you",
        ConsentEvent.NARROWED: "narrowed by you",
        ConsentEvent.RENEWED: "renewed by you",
        ConsentEvent.WITHDRAWN: "withdrawn by you",
        ConsentEvent.REVOKED: "revoked by the operator",
        ConsentEvent.RETURNED: "given back, and so ended, by the recipient",
        ConsentEvent.EXPIRED: "expired",
        ConsentEvent.INVALIDATED: "found invalid",
    },
    Language.FR: {
        ConsentEvent.GIVEN: "donné par vous",
        ConsentEvent.NARROWED: "restreint par vous",
        ConsentEvent.RENEWED: "renouvelé par vous",
        ConsentEvent.WITHDRAWN: "retiré par vous",
        ConsentEvent.REVOKED: "révoqué par l'exploitant",
        ConsentEvent.RETURNED: "rendu, et donc terminé, par le destinataire",
        ConsentEvent.EXPIRED: "expiré",
        ConsentEvent.INVALIDATED: "déclaré invalide",
    },
}
_TEXTS: Final = {
    Language.EN: """Receipt of consent {consent}, version {version}: {event} on {at}.
To: {grantee}
Purposes: {purposes}
Data: {categories}, months {data_from} to {data_to}
In force: {not_before} to {not_after}; at most {quota} answers a month
Explicitly allowed special categories: {special}; influence: {influence}; software agents: {agents}
Responsible: {controller}
Notice: {notice}
Withdraw: twinvault owner withdraw {consent}, or {withdrawal}
Other rights: {rights}
Withdrawing ends future answers; it does not delete what the recipient already has.
Logged as leaf {leaf} of {origin}, in a tree of {size} leaves; record {record}
""",
    Language.FR: """Reçu du consentement {consent}, version {version} : {event} le {at}.
À : {grantee}
Finalités : {purposes}
Données : {categories}, mois de {data_from} à {data_to}
En vigueur : du {not_before} au {not_after} ; au plus {quota} réponses par mois
Catégories particulières autorisées explicitement : {special} ; influence : {influence} ; agents logiciels : {agents}
Responsable : {controller}
Avis : {notice}
Retrait : twinvault owner withdraw {consent}, ou {withdrawal}
Autres droits : {rights}
Le retrait met fin aux réponses futures ; il n'efface pas ce que le destinataire possède déjà.
Inscrit au journal {origin}, feuille {leaf}, dans un arbre de {size} feuilles ; enregistrement {record}
""",
}
_NOTICES: Final = {
    Language.EN: (
        "shown in {language}, made again from this receipt word for word",
        "shown in {language}, SHA-256 {digest}; this program cannot make it again from this receipt",
    ),
    Language.FR: (
        "montré en {language}, reconstitué mot pour mot à partir de ce reçu",
        "montré en {language}, SHA-256 {digest} ; ce programme ne peut le reconstituer à partir de ce reçu",
    ),
}
_WORDS: Final = {Language.EN: ("no", "yes", "none"), Language.FR: ("non", "oui", "aucune")}


@dataclass(frozen=True, slots=True)
class ConsentReceipt:
    """A receipt that holds under the caller's pinned keys.

    Args:
        version: What was signed.
        record: Digest of the signed bytes.
        index: Leaf index in the log.
        checkpoint: The signed tree that holds it.
        company: The grantee's name as the person was shown it; empty if that is not proven.
        notice: The text that the person was shown; None where it cannot be rendered again.
    """

    version: ConsentVersion
    record: bytes
    index: int
    checkpoint: Checkpoint
    company: str
    notice: str | None

    def text(self, language: Language) -> str:
        """Return the receipt as a person reads it.

        Args:
            language: In which to write it.
        """
        version, terms = self.version, self.version.terms
        labels, (no, yes, none) = LABELS[language], _WORDS[language]
        notice = _NOTICES[language][self.notice is None].format(
            language=version.notice.language, digest=b64u(version.notice.sha256)
        )
        return _TEXTS[language].format(
            consent=b64u(version.consent_id), version=version.version, event=_EVENTS[language][version.event],
            at=utc_day(version.event_time), grantee=f"{self.company} {terms.grantee}".strip(), notice=notice, data_from=terms.data_from, data_to=terms.data_to,
            purposes=", ".join(sorted(labels[purpose] for purpose in terms.purposes)),
            categories=", ".join(sorted(labels[category] for category in terms.categories)),
            not_before=utc_day(terms.not_before), not_after=utc_day(terms.not_after), quota=terms.quota_per_month,
            special=", ".join(sorted(labels[category] for category in terms.explicit_special)) or none,
            influence=yes if terms.influence_opt_in else no, agents=yes if terms.agent_allowed else no,
            controller=plain(terms.handling.controller), withdrawal=plain(terms.handling.withdrawal_method),
            rights=plain(terms.handling.privacy_rights), leaf=self.index, origin=self.checkpoint.origin,
            size=self.checkpoint.size, record=b64u(self.record),
        )  # fmt: skip


def verify_consent_receipt(unverified: Any, trust: TrustedRoot) -> ConsentReceipt:
    """Return a receipt, if everything about it holds; asks nobody.

    A version that the person caused is signed by the key it names, which makes its subject. One that
    others caused is signed by a service key, for which the receipt brings the pinned operator's word.

    Args:
        unverified: The JSON form.
        trust: The caller's pinned keys.

    Raises:
        NoReceipt: The log's entry is about something else, or the parts contradict each other.
        InvalidProof: The proof is malformed or not of the pinned log.
        SealError: Neither the person nor a key that the operator vouches for signed it.
        BadConsent: It is no consent.
    """
    envelope = parse_envelope(parse_b64u(field(unverified, "envelope")))
    version = parse_consent(unverified_record(envelope))
    key = version.principal_key if version.event.by_person else _service_key(unverified, version, trust)
    verify_envelope(envelope, PayloadType.CONSENT, key)
    proof = field(unverified, "receipt", dict)
    checkpoint = verify_changed(proof, trust, version, envelope)
    index = parse_receipt(field(proof, "proof")).index
    if index != field(proof, "index", int):
        raise NoReceipt("The receipt names another leaf than the one it proves.")
    company = field(unverified, "company") if "company" in unverified else ""
    notice = shown_notice(version, company)
    return ConsentReceipt(version, envelope.digest, index, checkpoint, plain(company) if notice else "", notice)


def _service_key(unverified: Any, version: ConsentVersion, trust: TrustedRoot) -> bytes:
    statement = verify_key_statement(parse_envelope(parse_b64u(field(unverified, "signer"))), trust.operator)
    if statement.name is not KeyName.SERVICE or statement.not_before > version.event_time:
        raise NoReceipt("The receipt's signer was no service key in force when the consent ended.")
    return statement.public_key
