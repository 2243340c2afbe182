"""The notice: what a person reads before signing. Rendered here, on the person's machine, and hashed into the record.

A company's own words never reach it: only its name, its handling duties and terms of the closed
vocabulary do.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Final

from vault.schema.category import CATEGORIES, PURPOSES, Term, is_special
from vault.schema.consent import Notice
from vault.schema.question import QuestionKind
from vault.schema.terms import ConsentKind, Terms
from vault.seal.ids import sha256

LANGUAGE: Final = "en"

_QUESTIONS: Final = {
    QuestionKind.NEXT_CHOICE: "what you will probably choose next",
    QuestionKind.RECOMMEND: "which of its offers suit you best",
    QuestionKind.PROPENSITY: "how likely you are to do something",
    QuestionKind.SIMULATE_REACTION: "how you would probably react to something",
    QuestionKind.FORECAST: "how your habits will probably develop",
    QuestionKind.POPULATION_MAP: "statistics over many people, you among them",
}
_WHO: Final = {
    ConsentKind.SELF: "You allow your own twin to be kept and you may ask it.",
    ConsentKind.COHORT: "You allow the operator to train shared models on your traces.",
    ConsentKind.COMPANY: "You allow {company} to ask your twin. It receives answers, never your data.",
}
_KEYS: Final = {
    ConsentKind.SELF: (
        "The keys to these traces go to the service's worker, which reads them in memory to make noisy summaries; "
        "the keys to the summaries go to the service that answers."
    ),
    ConsentKind.COHORT: (
        "The keys to these traces go to the service's worker, which reads them in memory while it trains. "
        "If you withdraw, future training stops; models already released stay, protected by differential privacy."
    ),
    ConsentKind.COMPANY: (
        "Only keys to noisy summaries of these categories and months are handed over, to the service that answers. "
        "If you withdraw, those keys are taken away; answers already given stay with the company."
    ),
}


def render(terms: Terms, company: str = "") -> str:
    """Return the notice for what is about to be signed.

    Args:
        terms: What would be granted.
        company: The grantee's name from its own signed record; for a company consent only.
    """
    lines = [
        _WHO[terms.kind].format(company=_plain(company)),
        f"For: {_list(_label(PURPOSES, purpose) for purpose in terms.purposes)}.",
        f"About: {_about(terms)}, from {terms.data_from} to {terms.data_to}.",
    ]
    if terms.questions:
        lines.append(f"Questions: {_list(_QUESTIONS[kind] for kind in terms.questions)};")
        lines.append(f"at most {terms.quota_per_month} answers a month.")
    lines.append(f"From {_day(terms.not_before)} until {_day(terms.not_after)}.")
    special = [category for category in terms.categories if is_special(category)]
    if special:
        opted = terms.explicit_special
        named = _list(_label(CATEGORIES, category) for category in special)
        allowed = _list(_label(CATEGORIES, category) for category in opted) if opted else "none"
        lines.append(f"Specially protected data: {named}. You explicitly allow: {allowed}.")
    if terms.influence_opt_in:
        lines.append("You explicitly allow purposes that try to influence you.")
    if terms.agent_allowed:
        lines.append("Questions may come from software that decides by itself what to ask.")
    if terms.post_mortem:
        lines.append(f"After your death this stays allowed: {_list(_label(PURPOSES, p) for p in terms.post_mortem)}.")
    handling = terms.handling
    lines += [
        _KEYS[terms.kind],
        f"Responsible: {_plain(handling.controller)}, under the law of {_plain(handling.jurisdiction)}.",
        f"Answers are kept in {_list(map(_plain, handling.storage_locations))} for {handling.retention_period}.",
        f"Withdraw: {_plain(handling.withdrawal_method)}. Your other rights: {_plain(handling.privacy_rights)}.",
        "A prediction about you is a disclosure about you. You can withdraw at any time.",
    ]
    return "\n".join(lines) + "\n"


def notice_of(text: str) -> Notice:
    """Return what the consent record keeps of the text shown."""
    return Notice(sha256(text.encode()), LANGUAGE)


def _about(terms: Terms) -> str:
    parts = {"necessary": terms.necessary, "optional": terms.optional}
    named = {part: _list(_label(CATEGORIES, c) for c in categories) for part, categories in parts.items()}
    return "; ".join(f"{labels} ({part})" for part, labels in named.items() if labels)


def _label(terms: Mapping[str, Term], name: str) -> str:
    term = terms.get(name)
    return name.partition(":")[2] if term is None else term.label


def _list(items: Iterable[str]) -> str:
    return ", ".join(sorted(items))


def _plain(text: str) -> str:
    """Return a text without characters that change direction or hide: a name must read as what it is."""
    return "".join(letter if unicodedata.category(letter)[0] != "C" else "?" for letter in text)


def _day(at_s: int) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%d")
