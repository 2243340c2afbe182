"""To whom a person may complain: the data protection authorities of the EEA, the United Kingdom and Switzerland.

A public table that comes with the program; nothing is fetched, so nobody learns who looked. It says of which day it is.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Final

from twinvault.api import ClientError

_OTHER_NAMES: Final = {"UK": "GB", "EL": "GR"}


class UnknownCountry(ClientError):
    """A country of which the table has no authority."""

    slug = "unknown-country"
    title = "No authority known"


@dataclass(frozen=True, slots=True)
class Authority:
    """A data protection authority.

    Args:
        country: ISO 3166, two letters.
        name: In an official language of the country.
        web: Where it takes complaints.
    """

    country: str
    name: str
    web: str


@dataclass(frozen=True, slots=True)
class Table:
    """All of them.

    Args:
        as_of: The day on which the table was compiled, `YYYY-MM-DD`.
        source: Where to see whether it still holds.
        by_country: The authority of each country.
    """

    as_of: str
    source: str
    by_country: dict[str, Authority]


@cache
def authorities() -> Table:
    """Return the table."""
    text = (resources.files("twinvault") / "data" / "authorities.json").read_text("utf-8")
    read: dict[str, Any] = json.loads(text)
    named = {country: Authority(country, *entry) for country, entry in read["authorities"].items()}
    return Table(read["as_of"], read["source"], named)


def parse_country(text: str) -> str:
    """Return a country of the table.

    Raises:
        UnknownCountry: The table has no authority there.
    """
    found = _country(text)
    if found is None:
        known = ", ".join(authorities().by_country)
        raise UnknownCountry(f"No authority of {text!r} is known here; a country has two letters, one of: {known}.")
    return found


def complain_to(jurisdiction: str, *, home: str = "") -> tuple[str, ...]:
    """Return the countries to whose authority a person may complain about a company.

    Where the person lives comes first, then the country whose law the company said applies to it.

    Args:
        jurisdiction: As the consent states it, such as `FR` or `EU`.
        home: The country in which the person lives; empty if it was not said.

    Returns:
        Nothing where neither is known: then any of the authorities may be the one.

    Source: GDPR article 77(1).
    """
    found = (_country(home), _country(jurisdiction))
    return tuple(dict.fromkeys(country for country in found if country is not None))


def of_countries(countries: Collection[str]) -> list[Authority]:
    """Return the authorities of some countries, in the order of the table; of all where none is named."""
    return [one for country, one in authorities().by_country.items() if country in countries or not countries]


def _country(text: str) -> str | None:
    country = text.strip().upper()
    country = _OTHER_NAMES.get(country, country)
    return country if country in authorities().by_country else None
