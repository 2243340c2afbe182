"""`twinvault owner mirror`: what your twin believes about you, beside what you really did."""

from __future__ import annotations

from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table

from twinvault.cli import common
from twinvault.cli.common import DEFAULT_PROFILE, PURCHASE, AsJson, PassphraseFile, ProfileName
from twinvault.mirror import Mirror, look

mirror_commands = typer.Typer()

_BAR_WIDTH: Final = 18


@mirror_commands.command()
def mirror(
    *,
    category: Annotated[str, typer.Option("--category", help="About what.")] = PURCHASE,
    top_n: Annotated[int, typer.Option("--top-n", help="How many things to look at.", min=1, max=20)] = 10,
    profile: ProfileName = DEFAULT_PROFILE,
    passphrase_file: PassphraseFile = None,
    as_json: AsJson = False,
) -> None:
    """Look at your twin: what it believes, what you really did, and how far noise blurs the view.

    Your traces are opened on this machine only; the question to your twin is logged like any other.
    """
    found = look(common.unlock_owner(profile, passphrase_file), common.parse_categories([category])[0], top_n)
    if as_json:
        common.emit(_json(found), as_json=True)
        return
    show(found, Console())


def show(found: Mirror, console: Console) -> None:
    """Print a mirror for people."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("what", "your twin believes", "", "you really did", ""):
        table.add_column(heading)
    for one in found.seen:
        believed = one.believed or 0.0
        table.add_row(
            escape(common.clean(one.name)),
            ProgressBar(1.0, believed, width=_BAR_WIDTH),
            "not named" if one.believed is None else f"{believed:.0%}",
            ProgressBar(1.0, one.really, width=_BAR_WIDTH),
            f"{one.really:.0%}",
        )
    console.print(table)
    most = sum(one.really > 0 for one in found.seen)
    console.print(
        f"\n{found.days} days with a trace, {found.months[0]} to {found.months[-1]}. Of what you did most, your twin"
        f" names {found.named} of {min(most, len(found.seen))}.\nNoise: if it only counted, a share would be blurred by"
        f" about {found.blur:.0%} either way; so it leans on what is common to all where your own days are few.",
        highlight=False,
    )


def _json(found: Mirror) -> dict[str, Any]:
    return {
        "category": found.category,
        "months": list(found.months),
        "days": found.days,
        "blur": found.blur,
        "named": found.named,
        "seen": [
            {"code": one.code, "name": one.name, "believed": one.believed, "really": one.really} for one in found.seen
        ],
    }
