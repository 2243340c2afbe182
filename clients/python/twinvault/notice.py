"""The notice: what a person reads before signing. Rendered here, on the person's machine, and hashed into the record.

A company's own words never reach it: only its name, its handling duties and terms of the closed
vocabulary do. The last line names template and language, so the digest in the record is of text that
anyone who holds the record and the company's name can render again and compare.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from vault.clock import utc_day
from vault.schema.category import is_special
from vault.schema.consent import ConsentVersion, Notice
from vault.schema.language import LABELS, Language
from vault.schema.question import QuestionKind
from vault.schema.terms import AGENT_ANSWERS_PER_MONTH, ConsentKind, Terms
from vault.seal.ids import sha256

TEMPLATE: Final = "twinvault-notice/4"
"""Changes with every change of a word below: a notice of another template cannot be rendered again."""


@dataclass(frozen=True, slots=True)
class _Words:
    """The wording of one language; braces are filled in."""

    who: Mapping[ConsentKind, str]
    purposes: str
    about: str
    necessary: str
    optional: str
    questions: Mapping[QuestionKind, str]
    asked: str
    answer: str
    likelihood: str
    budget: str
    until: str
    special: str
    sealed: str
    none: str
    influence: str
    allow_special: str
    allow_influence: str
    agents: str
    after_death: str
    keys: Mapping[ConsentKind, str]
    responsible: str
    units: Mapping[str, tuple[str, str]]
    kept: str
    onward: str
    withdraw: str
    closing: str


_ENGLISH: Final = _Words(
    who={
        ConsentKind.SELF: "You allow your own twin to be kept and you may ask it.",
        ConsentKind.COHORT: "You allow the operator to train shared models on your traces.",
        ConsentKind.COMPANY: "You allow {company} to ask your twin. It receives answers, never your data.",
    },
    purposes="For: {purposes}.",
    about="About: {about}, from {data_from} to {data_to}.",
    necessary="necessary",
    optional="optional",
    questions={
        QuestionKind.NEXT_CHOICE: "what you will probably choose next",
        QuestionKind.RECOMMEND: "which of its offers suit you best",
        QuestionKind.PROPENSITY: "how likely a visit of yours to its shop is to end in a purchase, judged by that visit alone",
        QuestionKind.SIMULATE_REACTION: "how you would probably react to something",
        QuestionKind.FORECAST: "how your habits will probably develop",
        QuestionKind.POPULATION_MAP: "statistics over many people, you among them",
    },
    asked="Questions: {questions};\nat most {quota} answers a month.",
    answer='An answer is a short list with scores, such as "coffee 41 %, tea 22 %", or that your twin cannot tell.',
    likelihood='An answer about a visit is one likelihood, such as "8 %", or that your twin cannot tell.',
    budget="Answers use up none of your privacy budget: that is spent when your summaries are made, not when they are read.",
    until="From {not_before} until {not_after}, not only once; then it ends by itself.",
    special="Specially protected data that is read or that an answer could reveal: {special}. You explicitly allow: {allowed}.",
    sealed="No key is handed over to what you do not explicitly allow; it stays sealed: {sealed}.",
    none="none",
    influence="You explicitly allow purposes that try to influence you.",
    allow_special="Specially protected: do you explicitly allow what is read of, or could reveal, your {special}?",
    allow_influence="Do you explicitly allow purposes that try to influence you?",
    agents="Questions may come from software that decides by itself what to ask; it gets at most {quota} answers a month.",
    after_death="After your death this stays allowed: {purposes}.",
    keys={
        ConsentKind.SELF: (
            "The keys to these traces go to the service's worker, which reads them in memory to make noisy "
            "summaries; the keys to the summaries go to the service that answers."
        ),
        ConsentKind.COHORT: (
            "The keys to these traces go to the service's worker, which reads them in memory while it trains. "
            "If you withdraw, future training stops; models already released stay, protected by differential privacy."
        ),
        ConsentKind.COMPANY: (
            "Only keys to noisy summaries of these categories and months are handed over, to the service that "
            "answers. If you withdraw, those keys are taken away; answers already given stay with the company."
        ),
    },
    responsible="Responsible: {controller}, under the law of {jurisdiction}.",
    units={"D": ("day", "days"), "M": ("month", "months"), "Y": ("year", "years")},
    kept="Answers are kept in {locations} for {retention}.",
    onward=(
        "You allow nobody else to receive them, and no consent lets anyone sell them. What the company does with an "
        "answer, only the law can bind."
    ),
    withdraw="Withdraw: {withdrawal}. Your other rights: {rights}.",
    closing=(
        "A prediction about you is a disclosure about you. You are free to refuse, or to give less. You can withdraw at "
        "any time, and complain to your data protection authority."
    ),
)
_FRENCH: Final = _Words(
    who={
        ConsentKind.SELF: "Vous autorisez la tenue de votre propre jumeau et vous pouvez l'interroger.",
        ConsentKind.COHORT: "Vous autorisez l'exploitant à entraîner des modèles communs sur vos traces.",
        ConsentKind.COMPANY: (
            "Vous autorisez {company} à interroger votre jumeau. Elle reçoit des réponses, jamais vos données."
        ),
    },
    purposes="Pour : {purposes}.",
    about="Sur : {about}, de {data_from} à {data_to}.",
    necessary="nécessaire",
    optional="facultatif",
    questions={
        QuestionKind.NEXT_CHOICE: "ce que vous choisirez probablement ensuite",
        QuestionKind.RECOMMEND: "lesquelles de ses offres vous conviennent le mieux",
        QuestionKind.PROPENSITY: (
            "à quel point il est probable qu'une de vos visites dans sa boutique se termine par un achat, à en juger par "
            "cette seule visite"
        ),
        QuestionKind.SIMULATE_REACTION: "comment vous réagiriez probablement à quelque chose",
        QuestionKind.FORECAST: "comment vos habitudes évolueront probablement",
        QuestionKind.POPULATION_MAP: "des statistiques sur de nombreuses personnes, dont vous",
    },
    asked="Questions : {questions} ;\nau plus {quota} réponses par mois.",
    answer="Une réponse est une courte liste notée, comme « café 41 %, thé 22 % », ou l'aveu que le jumeau ne sait pas.",
    likelihood="Une réponse sur une visite est une seule probabilité, comme « 8 % », ou l'aveu que le jumeau ne sait pas.",
    budget=(
        "Les réponses n'entament pas votre budget de confidentialité : il est dépensé quand vos résumés sont faits, et non "
        "quand ils sont lus."
    ),
    until="Du {not_before} au {not_after}, et non une seule fois ; puis il prend fin de lui-même.",
    special=(
        "Données spécialement protégées qui sont lues ou qu'une réponse pourrait révéler : {special}. Vous autorisez "
        "explicitement : {allowed}."
    ),
    sealed="Aucune clé n'est remise pour ce que vous n'autorisez pas explicitement ; cela reste scellé : {sealed}.",
    none="aucune",
    influence="Vous autorisez explicitement des finalités qui cherchent à vous influencer.",
    allow_special=(
        "Spécialement protégé : autorisez-vous explicitement ce qui relève de, ou pourrait révéler, ceci : {special} ?"
    ),
    allow_influence="Autorisez-vous explicitement des finalités qui cherchent à vous influencer ?",
    agents=(
        "Les questions peuvent venir d'un logiciel qui décide seul de ce qu'il demande ; il reçoit au plus {quota} "
        "réponses par mois."
    ),
    after_death="Après votre mort, ceci reste autorisé : {purposes}.",
    keys={
        ConsentKind.SELF: (
            "Les clés de ces traces vont au processus de calcul du service, qui les lit en mémoire pour en faire des "
            "résumés bruités ; les clés des résumés vont au service qui répond."
        ),
        ConsentKind.COHORT: (
            "Les clés de ces traces vont au processus de calcul du service, qui les lit en mémoire pendant "
            "l'entraînement. Si vous retirez ce consentement, l'entraînement futur cesse ; les modèles déjà publiés "
            "restent, protégés par la confidentialité différentielle."
        ),
        ConsentKind.COMPANY: (
            "Seules les clés de résumés bruités de ces catégories et de ces mois sont remises, au service qui répond. "
            "Si vous retirez ce consentement, ces clés sont reprises ; les réponses déjà données restent à "
            "l'entreprise."
        ),
    },
    responsible="Responsable : {controller}, sous le droit de {jurisdiction}.",
    units={"D": ("jour", "jours"), "M": ("mois", "mois"), "Y": ("an", "ans")},
    kept="Les réponses sont conservées pendant {retention} (lieu : {locations}).",
    onward=(
        "Vous n'autorisez personne d'autre à recevoir ces réponses, et aucun consentement ne permet de les vendre. Ce que "
        "l'entreprise fait d'une réponse, seule la loi peut l'encadrer."
    ),
    withdraw="Retrait : {withdrawal}. Vos autres droits : {rights}.",
    closing=(
        "Une prédiction sur vous est une divulgation sur vous. Vous êtes libre de refuser, ou de donner moins. Vous "
        "pouvez retirer ce consentement à tout moment, et saisir votre autorité de protection des données."
    ),
)
_WITHDRAWN: Final[Mapping[Language, Mapping[ConsentKind, str]]] = {
    Language.EN: {
        ConsentKind.SELF: (
            "No new summaries are made and you cannot ask your twin. Your traces and summaries stay sealed: `twinvault "
            "owner erase` destroys them."
        ),
        ConsentKind.COHORT: (
            "No model is trained on your traces any more; models already released stay, protected by differential privacy."
        ),
        ConsentKind.COMPANY: (
            "No question is answered under it any more; its tokens and keys are gone. What was answered stays with the "
            "company: `twinvault owner ask-erasure {consent}` writes the letter that asks it to delete that."
        ),
    },
    Language.FR: {
        ConsentKind.SELF: (
            "Aucun résumé n'est plus fait et vous ne pouvez plus interroger votre jumeau. Vos traces et vos résumés restent "
            "scellés : `twinvault owner erase` les détruit."
        ),
        ConsentKind.COHORT: (
            "Plus aucun modèle n'est entraîné sur vos traces ; les modèles déjà publiés restent, protégés par la "
            "confidentialité différentielle."
        ),
        ConsentKind.COMPANY: (
            "Plus aucune question n'y trouve de réponse ; ses jetons et ses clés n'existent plus. Les réponses déjà données "
            "restent à l'entreprise : `twinvault owner ask-erasure {consent}` écrit la lettre qui en demande l'effacement."
        ),
    },
}
_LISTS: Final = frozenset({QuestionKind.NEXT_CHOICE, QuestionKind.RECOMMEND})
_WORDS: Final[Mapping[Language, _Words]] = {Language.EN: _ENGLISH, Language.FR: _FRENCH}


def render(terms: Terms, company: str = "", language: Language = Language.EN) -> str:
    """Return the notice for what is about to be signed.

    Args:
        terms: What would be granted.
        company: The grantee's name from its own signed record; for a company consent only.
        language: Which wording.
    """
    words, labels, handling = _WORDS[language], LABELS[language], terms.handling
    lines = [
        words.who[terms.kind].format(company=plain(company)),
        words.purposes.format(purposes=_list(labels[purpose] for purpose in terms.purposes)),
        words.about.format(about=_about(terms, language), data_from=terms.data_from, data_to=terms.data_to),
    ]
    if terms.questions:
        asked = _list(words.questions[kind] for kind in terms.questions)
        lines.append(words.asked.format(questions=asked, quota=terms.quota_per_month))
    if terms.questions & _LISTS:
        lines.append(words.answer)
    if QuestionKind.PROPENSITY in terms.questions:
        lines.append(words.likelihood)
    if terms.kind is not ConsentKind.COHORT:
        lines.append(words.budget)
    lines.append(words.until.format(not_before=utc_day(terms.not_before), not_after=utc_day(terms.not_after)))
    special = {category for category in terms.categories if is_special(category)} | terms.explicit_special
    if special:
        allowed = _list(labels[category] for category in terms.explicit_special) or words.none
        lines.append(words.special.format(special=_list(labels[category] for category in special), allowed=allowed))
    if sealed := terms.categories - terms.usable:
        lines.append(words.sealed.format(sealed=_list(labels[category] for category in sealed)))
    if terms.influence_opt_in:
        lines.append(words.influence)
    if terms.agent_allowed:
        lines.append(words.agents.format(quota=min(terms.quota_per_month, AGENT_ANSWERS_PER_MONTH)))
    if terms.post_mortem:
        lines.append(words.after_death.format(purposes=_list(labels[purpose] for purpose in terms.post_mortem)))
    locations = _list(map(plain, handling.storage_locations))
    lines += [
        words.keys[terms.kind],
        words.responsible.format(controller=plain(handling.controller), jurisdiction=plain(handling.jurisdiction)),
        words.kept.format(locations=locations, retention=_duration(handling.retention_period, words)),
        *([words.onward] if terms.kind is ConsentKind.COMPANY else []),
        words.withdraw.format(withdrawal=plain(handling.withdrawal_method), rights=plain(handling.privacy_rights)),
        words.closing,
        f"[{TEMPLATE} {language}]",
    ]
    return "\n".join(lines) + "\n"


def explicit_steps(terms: Terms, language: Language = Language.EN) -> list[str]:
    """Return what must be agreed to one by one, besides the notice: each special category, and influence.

    Source: GDPR article 9(2)(a).
    """
    words, labels = _WORDS[language], LABELS[language]
    steps = [words.allow_special.format(special=name) for name in sorted(labels[one] for one in terms.explicit_special)]
    return [*steps, words.allow_influence] if terms.influence_opt_in else steps


def asks(kind: QuestionKind, language: Language = Language.EN) -> str:
    """Return what a kind of question asks, as the notice says it."""
    return _WORDS[language].questions[kind]


def after_withdrawal(kind: ConsentKind, consent: str, language: Language = Language.EN) -> str:
    """Return what has ended and what stays once a consent is withdrawn; `consent` is its id as text."""
    return _WITHDRAWN[language][kind].format(consent=consent)


def notice_of(text: str, language: Language) -> Notice:
    """Return what the consent record keeps of the text shown."""
    return Notice(sha256(text.encode()), str(language))


def shown_notice(version: ConsentVersion, company: str) -> str | None:
    """Return the text that the person was shown before signing, rendered again.

    Args:
        version: What was signed; an ending keeps the notice of the version before.
        company: The grantee's name; empty for a self or cohort consent.

    Returns:
        None where this program's text is not what the record commits to: the name was another, or the
        notice was made by another template or in another language.
    """
    if version.notice.language not in set(Language):
        return None
    text = render(version.terms, company, Language(version.notice.language))
    return text if sha256(text.encode()) == version.notice.sha256 else None


def plain(text: str) -> str:
    """Return a text without characters that change direction or hide: a name must read as what it is."""
    return "".join(letter if unicodedata.category(letter)[0] != "C" else "?" for letter in text)


def _about(terms: Terms, language: Language) -> str:
    words, labels = _WORDS[language], LABELS[language]
    parts = {words.necessary: terms.necessary, words.optional: terms.optional}
    named = {part: _list(labels[category] for category in categories) for part, categories in parts.items()}
    return "; ".join(f"{listed} ({part})" for part, listed in named.items() if listed)


def _duration(period: str, words: _Words) -> str:
    """Return a duration such as P30D in words."""
    count, (one, many) = int(period[1:-1]), words.units[period[-1]]
    return f"{count} {one if count == 1 else many}"


def _list(items: Iterable[str]) -> str:
    return ", ".join(sorted(items))
