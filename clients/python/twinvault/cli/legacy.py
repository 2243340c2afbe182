"""`twinvault owner legacy`: who may declare that you are gone, and what then happens."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from twinvault.api import ClientError
from twinvault.cli import common
from twinvault.cli.common import DEFAULT_PROFILE, AsJson, PassphraseFile, ProfileName, Yes
from twinvault.legacy import OwnLegacy
from twinvault.owner import Owner
from twinvault.profile import write_private
from twinvault.shares import dump_share
from vault.errors import VaultError
from vault.seal.advance import Advance
from vault.seal.legacy import (
    LEAST_THRESHOLD,
    LEAST_WAITING_DAYS,
    MOST_INACTIVE_DAYS,
    MOST_SHARES,
    MOST_WAITING_DAYS,
    Choice,
)

legacy_commands = typer.Typer(no_args_is_help=True, help="Who may declare that you are gone, and what then happens.")

_THEN: Final = {
    Choice.FREEZE: "your vault is frozen: nothing is answered, refreshed or trained any more.",
    Choice.ANSWER: "nothing is answered but what you allowed for after your death, and they may give what you seal now.",
    Choice.ERASE: "your vault is frozen, and as many executors may erase everything that is kept about you.",
}


@legacy_commands.command()
def plan(
    *,
    out: Annotated[Path, typer.Option("--out", help="Write one file per executor into this folder.")],
    executors: Annotated[
        int, typer.Option("--executors", help="How many shares to make.", min=LEAST_THRESHOLD, max=MOST_SHARES)
    ],
    threshold: Annotated[
        int, typer.Option("--threshold", help="How many of them it takes.", min=LEAST_THRESHOLD, max=MOST_SHARES)
    ],
    waiting_days: Annotated[
        int,
        typer.Option(
            "--waiting-days",
            help="From their declaration until it takes effect.",
            min=LEAST_WAITING_DAYS,
            max=MOST_WAITING_DAYS,
        ),
    ] = 30,
    inactive_days: Annotated[
        int,
        typer.Option(
            "--inactive-days",
            help="Begin the waiting days, to freeze, also after so many days without you; 0 for never.",
            min=0,
            max=MOST_INACTIVE_DAYS,
        ),
    ] = 0,
    choice: Annotated[Choice, typer.Option("--choice", help="What then happens.")] = Choice.FREEZE,
    request: Annotated[
        list[Path] | None,
        typer.Option("--request", help="With --choice answer: seal a consent to what this company's file asks."),
    ] = None,
    profile: ProfileName = DEFAULT_PROFILE,
    passphrase_file: PassphraseFile = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Make a plan, in the place of the one before, and one share for each executor; hand them over by a safe way."""
    if threshold > executors:
        raise typer.BadParameter("--threshold is not above --executors.")
    if request and choice is not Choice.ANSWER:
        raise typer.BadParameter("--request goes with --choice answer.")
    if out.exists():
        raise ClientError(f"{out} exists already; name a new folder, so that shares of two plans are never mixed.")
    common.agree(
        f"When {threshold} of {executors} executors together declare that you are gone, you are told, and {waiting_days}"
        f" days begin. If you sign in on any of them, it is over. If not, {_THEN[choice]} The shares open nothing. An"
        " earlier plan and its shares end now.",
        yes=yes,
    )
    found = common.unlock_owner(profile, passphrase_file)
    sealed = [_seal(found, file, yes=yes) for file in request or ()]
    out.mkdir(mode=0o700, parents=True)  # before the plan is in force: its shares are kept nowhere else
    try:
        made = found.legacy.plan(
            threshold=threshold,
            shares=executors,
            waiting_days=waiting_days,
            choice=choice,
            sealed=sealed,
            inactive_days=inactive_days,
        )
    except VaultError:
        out.rmdir()
        raise
    files = [out / f"share-{share.number}.json" for share in made]
    for file, share in zip(files, made, strict=True):
        write_private(file, dump_share(share))
    common.emit({**_told(found.legacy.read()), "shares": [str(file) for file in files]}, as_json=as_json)


@legacy_commands.command()
def show(
    *, profile: ProfileName = DEFAULT_PROFILE, passphrase_file: PassphraseFile = None, as_json: AsJson = False
) -> None:
    """Show the plan and what became of it; looking is a sign of life, which ends what executors declared."""
    common.emit(_told(common.unlock_owner(profile, passphrase_file).legacy.read()), as_json=as_json)


@legacy_commands.command()
def withdraw(
    *, profile: ProfileName = DEFAULT_PROFILE, passphrase_file: PassphraseFile = None, as_json: AsJson = False
) -> None:
    """Take the plan back: its shares are good for nothing any more."""
    found = common.unlock_owner(profile, passphrase_file)
    found.legacy.withdraw()
    common.emit(_told(found.legacy.read()), as_json=as_json)


def _seal(found: Owner, file: Path, *, yes: bool) -> Advance:
    asked = found.read_request(common.read_text(file).strip())
    terms = found.for_after_death(asked)
    common.agree(found.notice(terms, asked.company), yes=yes, language=found.language)
    return found.seal(asked, terms)


def _told(found: OwnLegacy | None) -> dict[str, Any]:
    if found is None:
        return {"state": "none"}
    told: dict[str, Any] = {"state": found.state, "version": found.plan.version}
    if (terms := found.plan.terms) is not None:
        told |= {
            "threshold": terms.threshold,
            "executors": terms.shares,
            "waiting_days": terms.waiting_days,
            "inactive_days": terms.inactive_days,
            "choice": str(terms.choice),
            "sealed": len(terms.sealed),
        }
    if found.spent:
        told["warning"] = spent_of(found)
    return told | ({"takes_effect": day_of(found.until_s)} if found.until_s else {})


def spent_of(found: OwnLegacy) -> str:
    """Return what to tell an owner whose consents sealed in advance can be given no more."""
    return (
        f"None of the {found.spent} consents that you sealed in advance can be given any more: the service has replaced the"
        " key that they were sealed to. Make a new plan, with new shares, and seal them again."
    )


def day_of(at_s: int) -> str:
    """Return a time as commands show it."""
    return f"{datetime.fromtimestamp(at_s, UTC):%Y-%m-%d %H:%M} UTC"
