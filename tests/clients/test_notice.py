"""What a person reads before signing: complete, in the person's language, and the same for everyone who renders it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from twinvault.notice import TEMPLATE, explicit_steps, notice_of, render, shown_notice
from vault.schema.category import Category, Purpose
from vault.schema.consent import ConsentEvent, ConsentVersion
from vault.schema.language import LABELS, Language
from vault.schema.question import QuestionKind
from vault.schema.terms import ConsentKind, Handling, Terms
from vault.schema.trace import Period
from vault.seal.ids import sha256

TERMS = Terms(
    kind=ConsentKind.COMPANY,
    grantee="A" * 22,
    purposes=frozenset({Purpose("dpv:ServicePersonalisation"), Purpose("x:Persuasion")}),
    questions=frozenset(QuestionKind),
    necessary=frozenset({Category("pd:Purchase")}),
    optional=frozenset({Category("pd:Health"), Category("pd:Location")}),
    data_from=Period("2026-01"),
    data_to=Period("2026-06"),
    not_before=1_767_225_600,
    not_after=1_769_817_600,
    quota_per_month=7,
    explicit_special=frozenset({Category("pd:Health")}),
    influence_opt_in=True,
    agent_allowed=True,
    post_mortem=frozenset({Purpose("dpv:ServicePersonalisation")}),
    handling=Handling(
        "Acme, privacy@acme.example", "EU", ("Dublin", "Paris"), "P30D", "https://a.example", "https://b"
    ),
)
VERSION = ConsentVersion(
    b"c" * 16, 1, 1, b"", ConsentEvent.GIVEN, 1_767_225_600, b"k" * 32, TERMS, notice_of("", Language.EN), b"r" * 32
)


@pytest.mark.parametrize("language", Language)
def test_a_notice_says_everything_that_is_granted(language: Language) -> None:
    text = render(TERMS, "Acme", language)
    named = [LABELS[language][name] for name in (*TERMS.purposes, *TERMS.categories)]
    handling = TERMS.handling
    said = [*named, "Acme", "2026-01", "2026-06", "2026-01-31", "7", "Dublin, Paris"]
    said += [handling.controller, handling.jurisdiction, handling.withdrawal_method, handling.privacy_rights]
    assert [part for part in said if part not in text] == []
    assert not set("{}") & set(text)
    assert text.endswith(f"[{TEMPLATE} {language}]\n")


@pytest.mark.parametrize("language", Language)
@pytest.mark.parametrize(
    "less",
    [
        {"explicit_special": frozenset()},
        {"influence_opt_in": False},
        {"agent_allowed": False},
        {"post_mortem": frozenset()},
        {"optional": frozenset(), "explicit_special": frozenset()},
        {"questions": frozenset({QuestionKind.RECOMMEND})},
        {"quota_per_month": 6},
        {"data_to": Period("2026-05")},
    ],
)
def test_each_opt_in_changes_the_notice(language: Language, less: dict[str, object]) -> None:
    assert render(replace(TERMS, **less), "Acme", language) != render(TERMS, "Acme", language)  # type: ignore[arg-type]  # one table of changed fields


@pytest.mark.parametrize("language", Language)
def test_an_opt_in_to_what_answers_could_reveal_is_said_though_nothing_of_it_is_read(language: Language) -> None:
    terms = replace(TERMS, optional=frozenset(), explicit_special=frozenset({Category("pd:Sexual")}))
    without = replace(terms, explicit_special=frozenset())
    (line,) = set(render(terms, "Acme", language).splitlines()) - set(render(without, "Acme", language).splitlines())
    assert line.count(LABELS[language][Category("pd:Sexual")]) == 2


@pytest.mark.parametrize("language", Language)
@pytest.mark.parametrize("kind", ConsentKind)
def test_what_is_not_explicitly_allowed_is_said_to_stay_sealed(language: Language, kind: ConsentKind) -> None:
    asked = {"grantee": {ConsentKind.SELF: "owner", ConsentKind.COHORT: "operator"}.get(kind, TERMS.grantee)}
    if kind is ConsentKind.COHORT:
        asked |= {"questions": frozenset(), "quota_per_month": 0}
    allowed = replace(TERMS, kind=kind, **asked)  # type: ignore[arg-type]  # one table of changed fields
    without = render(replace(allowed, explicit_special=frozenset()), "Acme", language).splitlines()
    added = set(without) - set(render(allowed, "Acme", language).splitlines())
    sealed = {
        Language.EN: "stays sealed: Health.",
        Language.FR: f"scellé : {LABELS[Language.FR][Category('pd:Health')]}.",
    }
    assert [line for line in added if line.endswith(sealed[language])]


@pytest.mark.parametrize("language", Language)
def test_each_special_category_and_influence_needs_a_yes_of_its_own(language: Language) -> None:
    both = frozenset({Category("pd:Health"), Category("pd:Sexual")})
    steps = explicit_steps(replace(TERMS, explicit_special=both), language)
    assert len(set(steps)) == 3
    assert [any(LABELS[language][one] in step for step in steps[:2]) for one in sorted(both)] == [True, True]
    assert explicit_steps(replace(TERMS, explicit_special=frozenset(), influence_opt_in=False), language) == []


@pytest.mark.parametrize(
    ("period", "english", "french"),
    [("P30D", "for 30 days", "30 jours"), ("P1D", "for 1 day.", "1 jour "), ("P6M", "for 6 months", "6 mois"),
     ("P1Y", "for 1 year.", "1 an "), ("P2Y", "for 2 years", "2 ans")],
)  # fmt: skip
def test_how_long_answers_are_kept_is_said_in_words(period: str, english: str, french: str) -> None:
    terms = replace(TERMS, handling=replace(TERMS.handling, retention_period=period))
    for language, said in ((Language.EN, english), (Language.FR, french)):
        assert said in render(terms, "Acme", language)
        assert period not in render(terms, "Acme", language)


@pytest.mark.parametrize("language", Language)
@pytest.mark.parametrize("kind", [QuestionKind.NEXT_CHOICE, QuestionKind.RECOMMEND, QuestionKind.PROPENSITY])
def test_whatever_may_be_asked_an_answer_is_shown_by_an_example(language: Language, kind: QuestionKind) -> None:
    text = render(replace(TERMS, questions=frozenset({kind})), "Acme", language)
    (example,) = [line for line in text.splitlines() if " %" in line]
    assert ("41 %" in example) is (kind is not QuestionKind.PROPENSITY)


@pytest.mark.parametrize(
    ("language", "said"),
    [
        (Language.EN, ["ends by itself", "nobody else to receive", "You are free to refuse"]),
        (Language.FR, ["prend fin de lui-même", "personne d'autre à recevoir", "Vous êtes libre de refuser"]),
    ],
)
def test_a_notice_says_that_it_is_voluntary_ongoing_and_for_nobody_else(language: Language, said: list[str]) -> None:
    text = render(TERMS, "Acme", language)
    assert [part for part in said if part not in text] == []


@pytest.mark.parametrize("kind", ConsentKind)
def test_the_two_languages_say_it_in_as_many_lines_and_in_other_words(kind: ConsentKind) -> None:
    grantee = {ConsentKind.SELF: "owner", ConsentKind.COHORT: "operator", ConsentKind.COMPANY: "A" * 22}[kind]
    asked = {} if kind is not ConsentKind.COHORT else {"questions": frozenset(), "quota_per_month": 0}
    terms = replace(TERMS, kind=kind, grantee=grantee, **asked)  # type: ignore[arg-type]  # as above
    english, french = (render(terms, "Acme", language).splitlines() for language in Language)
    assert len(english) == len(french)
    assert not set(english) & set(french)


def test_the_record_commits_to_text_and_language_and_both_must_fit_to_show_it_again() -> None:
    for language in Language:
        text = render(TERMS, "Acme", language)
        kept = notice_of(text, language)
        assert (kept.sha256, kept.language) == (sha256(text.encode()), language.value)
        version = replace(VERSION, notice=kept)
        assert shown_notice(version, "Acme") == text
        assert shown_notice(version, "Acme Groceries") is None
        assert shown_notice(replace(version, terms=replace(TERMS, quota_per_month=8)), "Acme") is None
        other = next(item for item in Language if item is not language)
        assert shown_notice(replace(version, notice=replace(kept, language=other.value)), "Acme") is None
        assert shown_notice(replace(version, notice=replace(kept, language="de")), "Acme") is None


def test_a_name_cannot_hide_or_turn_text() -> None:
    text = render(TERMS, "Acme\u202e\u200b\x1b[2J")
    assert "Acme??" in text
    assert not {"\u202e", "\u200b", "\x1b"} & set(text)
