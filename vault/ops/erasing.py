"""`twinvault operator erase`: erase for somebody who cannot, on the record of how that person was identified."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Final

import typer
from sqlmodel import Session

from vault.clock import SystemClock
from vault.encoding import b64u
from vault.erasure.erase import Erased, ErasureRequest, NothingToErase, erase
from vault.erasure.retention import MAX_MONTHS, oldest_kept, overdue
from vault.erasure.survey import survey
from vault.keys import statements
from vault.keys.kms import KmsSigner, LocalKeyring
from vault.keys.operator import key_name
from vault.legacy import legacies
from vault.ops.site import Site
from vault.ops.terminal import HERE, AsJson, SiteFolder, parse_vault_id, say
from vault.schema.category import parse_category
from vault.schema.trace import parse_period
from vault.seal.erasure import Author, Scope
from vault.seal.ids import new_id, sha256
from vault.seal.statement import KeyName
from vault.store import rings, shortkeys

_FIRST: Final = "1970-01"
_LAST: Final = "2199-12"


def erase_for(
    vault: Annotated[str, typer.Argument(help="Whose, by id.")],
    *,
    reason: Annotated[str, typer.Option("--reason", help="For the certificate, at most 200 characters.")],
    identity_check: Annotated[
        Path, typer.Option("--identity-check", help="Your record of how the person was identified; its hash is logged.")
    ],
    category: Annotated[str | None, typer.Option("--category", help="Only this category.")] = None,
    first: Annotated[str, typer.Option("--from", help="Only from this month, YYYY-MM.")] = _FIRST,
    last: Annotated[str, typer.Option("--to", help="Only up to this month, YYYY-MM.")] = _LAST,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    confirm: Annotated[str, typer.Option("--confirm", help="The vault's id once more: it is for good.")] = "",
    site: SiteFolder = HERE,
    as_json: AsJson = False,
) -> None:
    """Erase a category, months or, without either, everything that is kept about a person; the service may run."""
    if not dry_run and confirm != vault:
        raise typer.BadParameter("Repeat the vault's id with --confirm, or look first with --dry-run.")
    found, whose = Site(site.resolve()), parse_vault_id(vault)
    with found.opened() as (database, short_keys):
        checked = sha256(identity_check.read_bytes())
        with database.snapshot() as session:
            listed = rings.listed(session, whose)
            wanted = None if category is None else parse_category(category)
            named = tuple(
                name
                for name, c in sorted(listed.items())
                if wanted in {None, c.category} and parse_period(first) <= c.period <= parse_period(last)
            )
            whole = category is None and (first, last) == (_FIRST, _LAST)
            if not whole and not named:
                raise NothingToErase("This vault has nothing of that category and those months.")
            scope = Scope(whose, None if whole else named)
            counts = {str(name): count for name, count in survey(session, short_keys, scope).counts.items()}
        if dry_run:
            say(as_json, {"destroys": counts, "erased": False}, f"Would destroy: {counts}.")
            return
        asked = ErasureRequest(new_id(), scope, Author.OPERATOR, reason, identity_check=checked)
        with database.transaction() as session:
            now = SystemClock().now()
            service = _service(session, found, now)
            done: Erased = erase(session, short_keys, asked, service=service, now=now, also=(legacies.forget,))
        shortkeys.delete_scheduled(database, short_keys)
    say(
        as_json,
        {"erased": True, "erasure": b64u(asked.erasure_id), "destroys": counts, "certificate": b64u(done.certificate)},
        f"Erased: {counts}. The person fetches the certificate under /v1/erasures/{b64u(asked.erasure_id)}.",
    )


def show_retention(
    *,
    months: Annotated[
        int | None,
        typer.Option("--months", help="Try another number than the app's settings have.", min=1, max=MAX_MONTHS),
    ] = None,
    site: SiteFolder = HERE,
    as_json: AsJson = False,
) -> None:
    """Say what the published retention is about to erase; nothing is changed. The app itself erases, every hour."""
    found = Site(site.resolve())
    stated = found.environment("app").get("VAULT_RETENTION_MONTHS")
    kept = months if months is not None else int(stated) if stated else None
    if kept is None:
        say(
            as_json,
            {"months": None},
            "All months are kept. Set VAULT_RETENTION_MONTHS in app.env, or try --months.",
        )
        return
    oldest = oldest_kept(kept, SystemClock().now())
    with found.opened() as (database, _), database.snapshot() as session:
        scopes = list(overdue(session, oldest))
    vaults, gone = len({scope.vault for scope in scopes}), sum(len(scope.compartments or ()) for scope in scopes)
    say(
        as_json,
        {"months": kept, "oldest": oldest, "vaults": vaults, "compartments": gone},
        f"Before {oldest}: {gone} compartments of {vaults} vaults.",
    )


def _service(session: Session, site: Site, now: datetime) -> KmsSigner:
    """Return the service's key in force: one that a rollover has made but not stated yet, nobody believes."""
    stated = statements.in_force(session, site.operator_key, now)[KeyName.SERVICE]
    return KmsSigner(LocalKeyring(site.keyring_folder(KeyName.SERVICE)), key_name(KeyName.SERVICE, stated.epoch))
