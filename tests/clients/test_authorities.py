"""To whom a person may complain: a public table, by where the person lives and by what the company said."""

from __future__ import annotations

import re
from datetime import date
from urllib.parse import urlsplit

import pytest

from twinvault.authorities import UnknownCountry, authorities, complain_to, of_countries, parse_country

EEA = set(
    "AT BE BG CY CZ DE DK EE ES FI FR GR HR HU IE IS IT LI LT LU LV MT NL NO PL PT RO SE SI SK".split()  # noqa: SIM905
)


def test_the_table_has_one_authority_for_each_country_and_says_of_which_day_it_is() -> None:
    table = authorities()
    assert set(table.by_country) == EEA | {"GB", "CH"}
    assert list(table.by_country) == sorted(table.by_country)
    for country, one in table.by_country.items():
        assert one.country == country
        assert one.name == one.name.strip() != ""
        assert urlsplit(one.web).scheme == "https"
    assert len({one.web for one in table.by_country.values()}) == 32
    assert date.fromisoformat(table.as_of)
    assert re.search(r"https://www\.edpb\.europa\.eu/", table.source)


@pytest.mark.parametrize(
    ("jurisdiction", "home", "countries"),
    [
        ("FR", "", ("FR",)),
        ("EU", "", ()),
        ("EU", "IE", ("IE",)),
        ("FR", "IE", ("IE", "FR")),
        ("FR", "FR", ("FR",)),
        ("UK", "", ("GB",)),
        (" el ", "", ("GR",)),
        ("the law of France", "", ()),
        ("US", "", ()),
    ],
)
def test_where_one_lives_comes_first_and_then_the_law_that_the_company_named(
    jurisdiction: str, home: str, countries: tuple[str, ...]
) -> None:
    assert complain_to(jurisdiction, home=home) == countries


def test_who_says_nothing_is_shown_all() -> None:
    assert [one.country for one in of_countries(["FR", "CH"])] == ["CH", "FR"]
    assert len(of_countries([])) == 32
    assert parse_country("fr") == "FR"
    with pytest.raises(UnknownCountry, match="one of: AT, BE"):
        parse_country("US")
