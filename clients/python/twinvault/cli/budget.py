"""`twinvault owner budget`: what your days have cost, in words and bars."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table

from twinvault.api import field
from twinvault.cli import common
from twinvault.cli.common import DEFAULT_PROFILE, AsJson, PassphraseFile, ProfileName

budget_commands = typer.Typer()

_BAR_WIDTH: Final = 18


@budget_commands.command()
def budget(
    *, profile: ProfileName = DEFAULT_PROFILE, passphrase_file: PassphraseFile = None, as_json: AsJson = False
) -> None:
    """Show what your days have cost so far, and what is left: it never comes back, not by erasing either."""
    found = common.unlock_owner(profile, passphrase_file).budget()
    if as_json:
        typer.echo(json.dumps(found))
        return
    show(found, Console())


def show(found: Any, console: Console) -> None:
    """Print a budget for people.

    Args:
        found: From `Owner.budget`.
        console: Where to.
    """
    caps, delta = field(found, "caps", dict), field(found, "delta", float)
    day, person = (field(caps.get(name), "epsilon", float) for name in ("day", "person"))
    months = [_Month.of(item) for item in field(found, "months", list)]
    days = _table("month", "one day of it", f"of {day:g}", "left", "that day, if you train", "")
    for month in months:
        # Their sum bounds what the two come to together.
        both = _bar(month.composed, day + person)
        days.add_row(_safe(month.period), *_spent(month.day, day), both, f"{month.composed:.2f}")
    years = _table("shared models of", "everyone in them", f"of {person:g}", "left")
    for year, spent in {_safe(month.period[:4]): month.person for month in months}.items():
        years.add_row(year, *_spent(spent, person))
    console.print(days)
    if months:
        console.print()
        console.print(years)
        console.print(
            "Shared models cost everyone alike who lets them train, all categories together. What no longer fits is"
            " not trained before the next year.",
            highlight=False,
        )
    console.print(
        f"\nEpsilon at delta {delta:g}: by at most a factor of e^epsilon does any answer become likelier or less likely"
        " because of one single day of yours, all its traces in all categories together. 0 says nothing about a day."
        " The last column adds what shared models may say about that day if you let them train on you."
        "\nA habit of many days is not hidden by this: it is what the answers are made of."
        "\nWhat is spent stays spent: a day that you erase and import again is charged to the same cap.",
        highlight=False,
    )


def _table(*headings: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for heading in headings:
        table.add_column(heading, justify="right" if heading in {"", "left"} or heading.startswith("of ") else "left")
    return table


def _spent(epsilon: float, cap: float) -> tuple[ProgressBar, str, str]:
    """Return what is spent as a bar and as a number, and what is left."""
    return _bar(epsilon, cap), f"{epsilon:.2f}", f"{max(0.0, cap - epsilon):.2f}"


def _bar(epsilon: float, of: float) -> ProgressBar:
    return ProgressBar(of, min(of, epsilon), width=_BAR_WIDTH)


def _safe(text: str) -> str:
    return escape(common.clean(text))


@dataclass(frozen=True, slots=True)
class _Month:
    """One month's three epsilons, as the service states them."""

    period: str
    day: float
    person: float
    composed: float

    @classmethod
    def of(cls, item: Any) -> _Month:
        return cls(field(item, "period"), *(field(item, name, float) for name in ("day", "person", "composed")))
