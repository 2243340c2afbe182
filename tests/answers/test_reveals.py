"""What no consent opts in to is not offered, and what a company offers is judged by its code and its words."""

from __future__ import annotations

import numpy as np
import pytest

from tests.consent_kit import PURPOSE
from tests.vault_kit import PURCHASE
from vault.answers import reveals
from vault.answers.reveals import narrow
from vault.imprint import reveals as classifier
from vault.imprint.features import feature_map
from vault.imprint.reveals import least_revealed, reveals_of
from vault.schema.category import CATEGORIES, Category
from vault.schema.question import Candidate, NextChoice, Recommend
from vault.seal.ids import ConsentId

RETAIL = feature_map(PURCHASE)
HEALTH, SEXUAL, RX = Category("pd:Health"), Category("pd:Sexual"), Category("pd:Prescription")
NOBODY: frozenset[Category] = frozenset()
ASKER = ConsentId(bytes(16))


@pytest.mark.parametrize(
    ("code", "text", "revealed"),
    [
        ("completejourney:pharmacy", "", {"pd:Health", "pd:Prescription"}),
        ("completejourney:family-planning", "", {"pd:Health", "pd:Sexual"}),
        ("completejourney:vitamins", "", {"pd:Health"}),
        ("completejourney:adult-incontinence", "", {"pd:Health"}),
        ("completejourney:restricted-diet", "", {"pd:Health"}),
        ("acme:1", "Insulin pen, 3 ml", {"pd:Health"}),
        ("acme:1", "PREGNANCY TEST", {"pd:Health", "pd:Sexual"}),
        ("acme:1", "Halal lamb", {"pd:ReligiousBelief"}),
        ("acme:1", "Kosher salt", {"pd:ReligiousBelief"}),
        ("acme:1", "Trade-Union diary", {"pd:TradeUnionMembership"}),
        ("acme:1", "Green Party mug", {"pd:PoliticalOpinion"}),
        ("acme:1", "gay pride flag", {"pd:SexualPreference"}),
        ("acme:1", "Ancestry DNA test", {"pd:EthnicOrigin", "pd:Genetic", "pd:Health"}),
        ("acme:1", "Folder for medical records", {"pd:Health", "pd:MedicalHealth", "pd:HealthRecord"}),
        ("acme:1", "Surgical gloves", {"pd:Health", "pd:MedicalHealth"}),
        ("acme:1", "Physiotherapy ball", {"pd:Health", "pd:PhysicalHealth"}),
        ("acme:1", "V\u00eftamins", {"pd:Health"}),
        ("acme:1", "vita\u200bmin, preg\u00adnancy test", {"pd:Health", "pd:Sexual"}),
        ("acme:1", "\uff36\uff49\uff54\uff41\uff4d\uff49\uff4e\uff53", {"pd:Health"}),
        ("acme:1", "Vitami\u0301nes", {"pd:Health"}),
        ("acme:1", "M\u00e9dicaments sur ordonnance", {"pd:Health", "pd:Prescription"}),
        ("acme:1", "Test de grossesse", {"pd:Health", "pd:Sexual"}),
        ("acme:1", "Pr\u00e9servatifs", {"pd:Sexual"}),
        ("acme:1", "Fauteuil roulant, b\u00e9quilles", {"pd:Health", "pd:PhysicalHealth"}),
        ("acme:1", "Somnif\u00e8re", {"pd:Health", "pd:MentalHealth"}),
        ("acme:1", "Mat\u00e9riel de chirurgie", {"pd:Health", "pd:MedicalHealth"}),
        ("acme:1", "Carnet de sant\u00e9", {"pd:Health", "pd:MedicalHealth", "pd:HealthRecord"}),
        ("acme:1", "Agneau casher, Coran de poche", {"pd:ReligiousBelief"}),
        ("acme:1", "Cotisation syndicale", {"pd:TradeUnionMembership"}),
        ("acme:1", "Affiche politique", {"pd:PoliticalOpinion"}),
        ("acme:1", "Guide pour parents homosexuels", {"pd:SexualPreference"}),
        ("acme:1", "Test ADN", {"pd:Genetic", "pd:Health"}),
        ("acme:1", "Serrure \u00e0 empreinte digitale", {"pd:Biometric"}),
        ("acme:1", "Enceinte sans fil, pain complet, parti pris", set()),
        ("acme:1", "Record player, surge protector", set()),
        ("acme:1", "", set()),
        ("completejourney:bread", "wholegrain", set()),
        ("completejourney:party-trays", "party tray for the evening", set()),
        ("completejourney:easter", "", set()),
        ("acme:1", "Bayswater onions, credit union account", set()),
    ],
)
def test_words_reveal_what_they_name(code: str, text: str, revealed: set[str]) -> None:
    assert reveals_of(code, text) == revealed


def test_words_name_every_special_category() -> None:
    assert set().union(*classifier._CATEGORIES.values()) == {name for name, term in CATEGORIES.items() if term.special}


def test_only_special_categories_are_ever_named() -> None:
    found = frozenset().union(*(reveals_of(code, name) for code, name in zip(RETAIL.codes, RETAIL.names, strict=True)))
    assert HEALTH in found
    assert all(CATEGORIES[category].special for category in found)


def test_codes_without_an_opt_in_are_left_out() -> None:
    asked = NextChoice(PURCHASE, PURPOSE, 7)
    narrowed, reveals, _ = narrow(asked, RETAIL, NOBODY, ASKER)
    offered = {candidate.code for candidate in narrowed.candidates}
    assert reveals == frozenset()
    assert "completejourney:bread" in offered
    assert not offered & {"completejourney:vitamins", "completejourney:pharmacy", "completejourney:family-planning"}
    assert (narrowed.top_n, narrowed.purpose, narrowed.category) == (7, PURPOSE, PURCHASE)
    narrowed, reveals, _ = narrow(asked, RETAIL, frozenset({HEALTH}), ASKER)
    offered = {candidate.code for candidate in narrowed.candidates}
    assert reveals == {HEALTH}
    assert "completejourney:vitamins" in offered
    assert not offered & {"completejourney:pharmacy", "completejourney:family-planning"}
    everything = narrow(asked, RETAIL, frozenset(Category(name) for name in CATEGORIES), ASKER).question
    assert [candidate.code for candidate in everything.candidates] == list(RETAIL.codes[:-2])


def test_a_companys_own_candidates_stay_and_are_judged_by_code_name_and_text() -> None:
    candidates = (Candidate("completejourney:sinus-and-allergy", ""), Candidate("x:1", "condoms"))
    question = Recommend(PURCHASE, PURPOSE, candidates, 1)
    assert narrow(question, RETAIL, NOBODY, ASKER)[:2] == (question, {HEALTH, SEXUAL})
    assert RX not in narrow(question, RETAIL, NOBODY, ASKER).reveals


def test_a_synonym_reads_no_coordinate_that_the_consent_does_not_opt_in_to() -> None:
    question = Recommend(PURCHASE, PURPOSE, (Candidate("x:1", "nasal spray"), Candidate("x:2", "infant formula")), 1)
    asked = narrow(question, RETAIL, NOBODY, ASKER)
    assert asked.reveals == frozenset()
    assert asked.about is not None
    read = {RETAIL.codes[at] for at in np.flatnonzero(asked.about.any(0))}
    names = dict(zip(RETAIL.codes, RETAIL.names, strict=True))
    assert read
    assert not any(reveals_of(code, names[code]) for code in read)
    opened = narrow(question, RETAIL, frozenset({HEALTH}), ASKER)
    assert opened.reveals == {HEALTH}
    assert opened.about is not None
    assert opened.about[0, RETAIL.codes.index("completejourney:sinus-and-allergy")]


@pytest.mark.parametrize("opted_in", [NOBODY, frozenset({HEALTH}), frozenset({HEALTH, SEXUAL})])
@pytest.mark.parametrize(
    "candidates",
    [
        (Candidate("completejourney:bread", ""),),
        (Candidate("completejourney:sinus-and-allergy", ""), Candidate("x:1", "condoms")),
        (Candidate("x:1", "nasal spray"), Candidate("x:2", "infant formula"), Candidate("x:3", "Insulin pen")),
    ],
)
def test_whoever_holds_a_question_knows_what_it_reveals_but_for_what_is_opted_in(
    candidates: tuple[Candidate, ...], opted_in: frozenset[Category]
) -> None:
    for question in (Recommend(PURCHASE, PURPOSE, candidates, 1), NextChoice(PURCHASE, PURPOSE, 5)):
        told = narrow(question, RETAIL, opted_in, ASKER).reveals
        least = least_revealed(question, RETAIL.digest, opted_in)
        assert least is not None
        assert least <= told <= least | opted_in
        assert least_revealed(question, bytes(32), opted_in) is None, "of another release's map nothing is known"


def test_a_text_beside_a_known_code_is_not_read() -> None:
    known = Candidate("completejourney:bread", "cat litter")
    assert narrow(Recommend(PURCHASE, PURPOSE, (known,), 1), RETAIL, NOBODY, ASKER).about is None
    beside = narrow(Recommend(PURCHASE, PURPOSE, (known, Candidate("x:1", "cat litter")), 1), RETAIL, NOBODY, ASKER)
    assert beside.about is not None
    assert not beside.about[0].any()
    assert beside.about[1].any()


def test_what_is_kept_of_a_question_is_kept_for_its_consent_alone() -> None:
    question = Recommend(PURCHASE, PURPOSE, (Candidate("x:1", "a text that nobody else asks about"),), 1)
    reveals._about.cache_clear()
    for asker, found in ((ASKER, 0), (ASKER, 1), (ConsentId(b"1" * 16), 1)):
        narrow(question, RETAIL, NOBODY, asker)
        assert reveals._about.cache_info().hits == found
