"""A letter that asks a company to delete what it has, for the person to send: the service can neither see nor reach that.

Withdrawing ends future answers. What a company was told it keeps until it is asked, under its own duties; the letter
names what the two of them alone can match: the consent, the person's pseudonym there, and each answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from twinvault.consent_receipts import ConsentReceipt
from twinvault.notice import plain
from vault.clock import utc_day
from vault.encoding import b64u
from vault.proof.leaf import LeafKind
from vault.schema.language import LABELS, Language

_LETTERS: Final = {
    Language.EN: """To: {controller}
By: {rights}

Please erase everything that you have about me from the answers listed below, and what you derived from them, under
Article 17 of the General Data Protection Regulation or the law that applies to me. They rest on my consent,
{ended}. Please tell everyone to whom you passed any of it (Article 19), and
confirm within one month (Article 12) what you erased, or say which law obliges you to keep what.

Consent: {consent} (the grant_id of your tokens), given on {given}
I am known to you as: {subject}
Purposes: {purposes}
Answers that you received ({count}):
{answers}
You can check that this consent was mine with the receipt that I enclose.
""",
    Language.FR: """À : {controller}
Par : {rights}

Veuillez effacer tout ce que vous détenez sur moi et qui provient des réponses énumérées ci-dessous, ainsi que ce que vous en
avez déduit, en vertu de l'article 17 du règlement général sur la protection des données ou de la loi qui m'est applicable.
Elles reposent sur mon consentement, {ended}. Veuillez en informer tous ceux à qui vous les avez
transmises (article 19) et me confirmer dans un délai d'un mois (article 12) ce que vous avez effacé, ou m'indiquer
quelle loi vous oblige à conserver quoi.

Consentement : {consent} (le grant_id de vos jetons), donné le {given}
Vous me connaissez sous : {subject}
Finalités : {purposes}
Réponses que vous avez reçues ({count}) :
{answers}
Le reçu ci-joint vous permet de vérifier que ce consentement était le mien.
""",
}
_ENDED: Final = {
    Language.EN: ("which I withdrew on {at}", "which ended on {at}"),
    Language.FR: ("que j'ai retiré le {at}", "qui a pris fin le {at}"),
}
_NONE: Final = {Language.EN: "  none", Language.FR: "  aucune"}


@dataclass(frozen=True, slots=True)
class Answered:
    """One answer that a company received.

    Args:
        question_id: As the company knows it.
        at: Unix seconds.
    """

    question_id: str
    at: int


def answers_to(consent: bytes, events: Sequence[dict[str, Any]]) -> list[Answered]:
    """Return the answers that were given under a consent, out of its owner's history."""
    name = b64u(consent)
    said = [event["personal"] for event in events if event["kind"] == LeafKind.ANSWER.value]
    return [
        Answered(str(personal.get("question_id")), int(personal.get("at") or 0))
        for personal in said
        if personal.get("consent") == name
    ]


def erasure_letter(
    first: ConsentReceipt, newest: ConsentReceipt, answers: Sequence[Answered], language: Language
) -> str:
    """Return the letter.

    Args:
        first: The receipt of the version that gave the consent.
        newest: The receipt of its end, to enclose.
        answers: What the company received.
        language: In which to write it.
    """
    version, terms = newest.version, newest.version.terms
    listed = "\n".join(
        f"  {datetime.fromtimestamp(one.at, UTC):%Y-%m-%d %H:%M} UTC  {one.question_id}" for one in answers
    )
    return _LETTERS[language].format(
        controller=plain(terms.handling.controller), rights=plain(terms.handling.privacy_rights),
        ended=_ENDED[language][not version.event.by_person].format(at=utc_day(version.event_time)), consent=b64u(version.consent_id),
        given=utc_day(first.version.event_time), subject=b64u(version.subject), count=len(answers),
        purposes=", ".join(sorted(LABELS[language][purpose] for purpose in terms.purposes)),
        answers=listed or _NONE[language],
    )  # fmt: skip
