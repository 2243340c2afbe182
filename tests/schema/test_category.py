"""The vocabulary: closed, as published, and special where the law says so."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from vault.errors import MalformedInput
from vault.schema.category import CATEGORIES, PURPOSES, Category, is_special, parse_category, parse_purpose


@pytest.mark.parametrize(
    "text", ["", "Purchase", "pd:purchase", "pd:Nothing", "dpv:Marketing", "https://w3id.org/dpv/pd#Health"]
)
def test_an_unknown_category_is_refused(text: str) -> None:
    with pytest.raises(MalformedInput):
        parse_category(text)


@pytest.mark.parametrize("text", ["", "Marketing", "dpv:marketing", "pd:Purchase", "dpv:RecruitmentManagement"])
def test_an_unknown_purpose_is_refused(text: str) -> None:
    with pytest.raises(MalformedInput):
        parse_purpose(text)


def test_article_9_is_special_and_shopping_is_not() -> None:
    special = {name for name in CATEGORIES if is_special(parse_category(name))}
    assert special >= {"pd:Health", "pd:ReligiousBelief", "pd:PoliticalOpinion", "pd:TradeUnionMembership", "pd:Sexual"}
    assert special >= {"pd:Genetic", "pd:Biometric", "pd:EthnicOrigin", "pd:PhilosophicalBelief"}
    assert not special & {"pd:Purchase", "pd:Location", "pd:BrowsingBehaviour"}


def test_a_term_below_a_special_one_is_special() -> None:
    for name, term in CATEGORIES.items():
        if any(broader in CATEGORIES and CATEGORIES[broader].special for broader in term.broader):
            assert is_special(Category(name)), name


def test_a_term_names_its_iri() -> None:
    assert CATEGORIES["pd:Purchase"].iri == "https://w3id.org/dpv/pd#Purchase"
    assert PURPOSES["dpv:PersonalisedAdvertising"].iri == "https://w3id.org/dpv#PersonalisedAdvertising"
    assert PURPOSES["dpv:PoliticalCampaign"].definition


@pytest.mark.parametrize(("file", "terms"), [("pd_pd.csv", CATEGORIES), ("dpv_modules_purposes.csv", PURPOSES)])
def test_the_extract_is_as_published(shared: Path, file: str, terms: dict[str, object]) -> None:
    with (shared / "data" / "dpv" / file).open(newline="", encoding="utf-8") as rows:
        published = {row["iri"]: row for row in csv.DictReader(rows)}
    for term in (CATEGORIES if terms is CATEGORIES else PURPOSES).values():
        row = published[term.iri]
        assert (term.label, term.definition) == (row["label"], row["definition"])
        assert term.special == ("SpecialCategoryPersonalData" in row["dpvtype"])
