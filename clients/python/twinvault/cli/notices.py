"""`twinvault owner notices`: what happened to the vault, in plain words, and with `--follow` as it happens."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from twinvault.cli import common
from twinvault.cli.common import DEFAULT_PROFILE, AsJson, PassphraseFile, ProfileName, Said
from twinvault.cli.legacy import spent_of
from vault.seal.person import Role

notice_commands = typer.Typer()


@notice_commands.command()
def notices(
    *,
    follow: Annotated[bool, typer.Option("--follow", help="Go on until interrupted.")] = False,
    after: Annotated[int, typer.Option("--after", help="Only events after this index.", min=-1)] = -1,
    language: Said = None,
    profile: ProfileName = DEFAULT_PROFILE,
    passphrase_file: PassphraseFile = None,
    as_json: AsJson = False,
) -> None:
    """Tell what happened: who asked what, what was refused and by which rule, what changed and what ended."""
    role = Role.WATCHER if follow else Role.OWNER  # what goes on by itself is no sign of life
    found = common.unlock_owner(profile, passphrase_file, language=language, role=role)
    for notice in found.follow(after) if follow else found.history(after):
        typer.echo(json.dumps(notice) if as_json else common.told(notice))
    plan = found.legacy.read()
    if plan is not None and plan.spent:
        typer.echo(spent_of(plan), err=True)  # no event in the history: nobody did anything to this vault
