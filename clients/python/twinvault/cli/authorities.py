"""`twinvault owner authorities`: to whom a person may complain, by country."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Any

import typer

from twinvault.authorities import authorities, of_countries, parse_country
from twinvault.cli import common
from twinvault.cli.common import DEFAULT_PROFILE, AsJson, ProfileName

authority_commands = typer.Typer()


@authority_commands.command("authorities")
def list_authorities(
    *,
    country: Annotated[
        str | None, typer.Option("--country", help="Where you live, two letters; kept in this profile.")
    ] = None,
    profile: ProfileName = DEFAULT_PROFILE,
    as_json: AsJson = False,
) -> None:
    """List the authorities to whom you may complain about a company; with --country, name yours from now on."""
    found = common.load_profile(profile)
    if country is not None:
        found.keep({"country": parse_country(country)})
    home = str(found.record.get("country", ""))
    common.emit({"country": home or None, **authorities_json([home] if home else [])}, as_json=as_json)


def authorities_json(countries: Collection[str]) -> dict[str, Any]:
    """Return the authorities of some countries, of all where none is named, as output, with the day and the source of the table."""
    table = authorities()
    rows = [{"country": one.country, "name": one.name, "web": one.web} for one in of_countries(countries)]
    return {"authorities": rows, "authorities_as_of": table.as_of, "authorities_source": table.source}
