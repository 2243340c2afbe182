"""`twinvault owner deliver`: says elsewhere that something happened; and the destinations where it does."""

from __future__ import annotations

import sys
from pathlib import Path
from time import sleep
from typing import Annotated, Any, Final

import typer

from twinvault.api import ClientError, Unreachable
from twinvault.cli import common
from twinvault.cli.common import DEFAULT_PROFILE, AsJson, PassphraseFile, ProfileName, Said, Yes
from twinvault.destinations import BadDestination, Destinations, Undelivered
from twinvault.owner import Owner
from vault.seal.person import Role

destination_commands = typer.Typer()

_EVERY_S: Final = 300
_WARNING: Final = (
    "Messages to this destination will name companies, what they asked and what you consented to. Whoever carries or "
    "reads them learns that: a mail provider, a push service, whoever sees the screen. Without --details they only say "
    "how many things happened."
)


@destination_commands.command("add-destination")
def add_destination(
    *,
    url_file: Annotated[Path | None, typer.Option("--url-file", help="Read the address from this file.")] = None,
    details: Annotated[bool, typer.Option("--details", help="Send what happened, not only how much.")] = False,
    language: Said = None,
    yes: Yes = False,
    profile: ProfileName = DEFAULT_PROFILE,
    passphrase_file: PassphraseFile = None,
    as_json: AsJson = False,
) -> None:
    """Name an e-mail address, a push service or a webhook (an apprise URL) where `owner deliver` says that there is news.

    The address is a secret: it is asked for, or read from a file, never taken from the command line.
    """
    url = _read_url(url_file)
    if details:
        common.agree(_WARNING, yes=yes)
    found = common.unlock_owner(profile, passphrase_file, language=language)
    events = found.history()
    after = events[-1]["index"] if events else -1
    kept = Destinations(common.folder_of(profile))
    kept.add(url, details=details, after=after, ending=found.ending(), said=found.language)
    common.emit({"added": kept.read()[-1].name, "details": details}, as_json=as_json)


@destination_commands.command()
def destinations(*, profile: ProfileName = DEFAULT_PROFILE, as_json: AsJson = False) -> None:
    """List where messages go, without the addresses' secrets."""
    kept = Destinations(common.load_profile(profile).folder).read()
    listed = [
        {"number": number, "destination": item.name, "details": item.details, "after": item.after}
        for number, item in enumerate(kept, 1)
    ]
    common.emit({"destinations": listed}, as_json=as_json)


@destination_commands.command("remove-destination")
def remove_destination(
    number: Annotated[int, typer.Argument(help="Its number, from `owner destinations`.")],
    *,
    profile: ProfileName = DEFAULT_PROFILE,
    as_json: AsJson = False,
) -> None:
    """Send nothing there any more, and forget the address."""
    gone = Destinations(common.load_profile(profile).folder).remove(number)
    common.emit({"removed": gone.name}, as_json=as_json)


@destination_commands.command()
def deliver(
    *,
    follow: Annotated[bool, typer.Option("--follow", help="Go on until interrupted.")] = False,
    every_s: Annotated[
        int, typer.Option("--every-s", help="With --follow: seconds from one look to the next.", min=10)
    ] = _EVERY_S,
    language: Said = None,
    profile: ProfileName = DEFAULT_PROFILE,
    passphrase_file: PassphraseFile = None,
    as_json: AsJson = False,
) -> None:
    """Tell each destination once that something happened since it was told last; what it does not take is sent again.

    One message a look, however much happened: who carries it sees no more of when than that.
    """
    kept = Destinations(common.folder_of(profile))
    if not kept.read():
        raise BadDestination("No destination is named yet; `twinvault owner add-destination` names one.")
    found = common.unlock_owner(profile, passphrase_file, language=language, role=Role.WATCHER)
    while True:
        try:
            common.emit({"told": _look(found, kept)}, as_json=as_json)
        except (Undelivered, Unreachable) as error:
            if not follow:
                raise
            common.STDERR.print(common.clean(error.detail), markup=False, highlight=False)
        if not follow:
            return
        sleep(every_s)


def _look(found: Owner, kept: Destinations) -> list[str]:
    known = kept.read()
    events: list[dict[str, Any]] = found.history(min(item.after for item in known)) if known else []
    return kept.tell(events, found.ending(), found.language)


def _read_url(file: Path | None) -> str:
    if file is not None:
        return common.read_text(file).strip()
    if not sys.stdin.isatty():
        raise ClientError("Nobody is at the keyboard to type the address; give it with --url-file.")
    return str(typer.prompt("Address", hide_input=True, err=True)).strip()
