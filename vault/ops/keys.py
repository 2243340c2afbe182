"""`twinvault operator keys ...`: which keys are in force, and rolling one over to its next epoch."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from sqlmodel import Session

from vault.clock import SystemClock
from vault.consent import reseals
from vault.keys import rollover, statements
from vault.keys.kms import KmsSigner, LocalKeyring
from vault.keys.operator import APP, RolloverUnderway, make_next
from vault.legacy import steps
from vault.ops.site import Site
from vault.ops.terminal import HERE, AsJson, SiteFolder, say, transaction
from vault.seal.handover import KeyKind
from vault.seal.ids import sha256
from vault.seal.statement import KeyName, KeyStatement, verify_key_statement

keys_app = typer.Typer(no_args_is_help=True, help="Show the service's keys and roll them over.")

_HANDED: Final = {KeyName.PROCESSOR: KeyKind.RAW, KeyName.SERVING: KeyKind.IMPRINT}
_ROTATED: Final = tuple(name for name in KeyName if name is not KeyName.LOG)


@keys_app.command()
def show(*, site: SiteFolder = HERE, as_json: AsJson = False) -> None:
    """Show each key's epoch in force, and what a rollover still has to do."""
    found = Site(site.resolve())
    with transaction(site) as session:
        stated = statements.in_force(session, found.operator_key, SystemClock().now())
        rows = [_row(session, found, statement) for statement in stated.values()]
    lines = "\n".join(
        f"{row['name']:15} epoch {row['epoch']}"
        + (
            f"; to be destroyed: {', '.join(row['former'])}; handovers to reseal: {row['left']}"
            if row["former"]
            else ""
        )
        for row in rows
    )
    say(as_json, {"keys": rows}, lines)


@keys_app.command()
def rotate(
    name: Annotated[KeyName, typer.Argument(help="processor, processor-sign, serving or service.")],
    *,
    operator_keyring: Annotated[
        Path | None, typer.Option(help="Folder with the operator's key; the site's own by default.")
    ] = None,
    site: SiteFolder = HERE,
    as_json: AsJson = False,
) -> None:
    """Make the next epoch of a key, state and log it; app and worker go over to it while they serve.

    They reseal what was handed over and destroy the old key themselves. Interrupted, run it again.
    """
    found = Site(site.resolve())
    if name not in _ROTATED:
        raise RolloverUnderway("The log's key is pinned by every client and has no epochs; it cannot be rotated.")
    operator = LocalKeyring(operator_keyring) if operator_keyring else found.operator_keyring()
    made = _rotate(found, name, KmsSigner(operator, "operator"), SystemClock().now())
    with transaction(site) as session:
        spent = steps.count_sealed(session) if name is KeyName.SERVING else 0
    say(
        as_json,
        {"name": str(name), "epoch": made.epoch, "legacies_spent": spent},
        f"{name} is at epoch {made.epoch}. The running {'app' if name in APP else 'worker'} goes over to it within"
        " seconds; `twinvault operator keys show` tells when the old key is destroyed."
        + (
            f" Consents sealed in advance are in the hands of executors and stay sealed to the key before: the owners of"
            f" {spent} plans with such consents have to make new ones; their clients say so."
            if spent
            else ""
        ),
    )


def _rotate(site: Site, name: KeyName, operator: KmsSigner, now: datetime) -> KeyStatement:
    with transaction(site.folder) as session:
        stated = statements.in_force(session, site.operator_key, now)[name]
        envelope = make_next(site.keyring_folder(name), stated, operator, now=now)
        statements.publish(session, envelope, site.operator_key)
        return verify_key_statement(envelope, site.operator_key)


def _row(session: Session, site: Site, statement: KeyStatement) -> dict[str, Any]:
    folder = site.keyring_folder(statement.name)
    former = rollover.former(LocalKeyring(folder), statement) if folder.is_dir() else []
    kind = _HANDED.get(statement.name)
    left = reseals.count_elsewhere(session, kind, sha256(statement.public_key)) if kind else 0
    return {"name": str(statement.name), "epoch": statement.epoch, "former": former, "left": left}
