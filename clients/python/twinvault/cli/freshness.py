"""`twinvault owner freshness`: when your days close, and what is lost that comes later."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, assert_never
from zoneinfo import ZoneInfo

import typer

from twinvault.cli import common
from twinvault.cli.common import DEFAULT_PROFILE, AsJson, PassphraseFile, ProfileName
from twinvault.closing import Closing
from vault.schema.freshness import Freshness

freshness_commands = typer.Typer()


@freshness_commands.command()
def freshness(
    choice: Annotated[
        Freshness | None, typer.Argument(help="Close days one by one, with their week, or with their month.")
    ] = None,
    *,
    profile: ProfileName = DEFAULT_PROFILE,
    passphrase_file: PassphraseFile = None,
    as_json: AsJson = False,
) -> None:
    """Show when your days close, or choose it: the sooner, the fresher your twin; what comes later is in no answer.

    Import what you have of a day before it closes. Costs nothing either way, and holds for days that have no row yet.
    """
    found = common.unlock_owner(profile, passphrase_file)
    closing = found.closing() if choice is None else found.choose_freshness(choice)
    zone = common.parse_zone(found.profile.text("time_zone"))
    if as_json:
        common.emit(closing_json(closing, zone), as_json=True)
        return
    typer.echo(f"{closing.choice}: {_meaning(closing)}")
    typer.echo(_next(closing, zone))
    if choice is not None:
        typer.echo(
            f"Days up to {closing.closed} are closed: those without a row get one at the next refresh. Import what is"
            " missing of them before."
        )


def closing_json(closing: Closing, zone: ZoneInfo) -> dict[str, Any]:
    """Return when days close, for programs; times in the vault's own zone."""
    return {
        "freshness": closing.choice,
        "monthly_rows": closing.monthly,
        "closed": closing.closed.isoformat(),
        "next": closing.following.isoformat(),
        "closes_at": _local(closing, zone).isoformat(),
    }


def _meaning(closing: Closing) -> str:
    if closing.monthly:
        return "this installation makes a row a month, so days close with their month whatever you choose."
    match closing.choice:
        case Freshness.DAY:
            return "each day closes by itself, 48 hours after its last midnight."
        case Freshness.WEEK:
            return "the days of a week close together, 48 hours after its Sunday's midnight."
        case Freshness.MONTH:
            return "the days of a month close together, 48 hours after its last midnight."
        case _ as other:
            assert_never(other)


def _next(closing: Closing, zone: ZoneInfo) -> str:
    return (
        f"Days up to {closing.following} close next, on {_local(closing, zone):%Y-%m-%d at %H:%M} of your vault's time."
        " Traces of theirs that come later stay sealed in your vault, but no answer reads them."
    )


def _local(closing: Closing, zone: ZoneInfo) -> datetime:
    return closing.at.astimezone(zone)
