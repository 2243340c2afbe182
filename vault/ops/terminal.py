"""What every operator command shares: where the installation lies, how it answers; `twinvault` itself words refusals."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from sqlmodel import Session

from vault.ops.site import Site
from vault.parties.companies import CompanyRefused
from vault.seal.errors import SealError
from vault.seal.fields import parse_id
from vault.seal.ids import VaultId

SiteFolder = Annotated[Path, typer.Option("--site", help="Folder of the installation.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
HERE: Final = Path("twinvault-site")


@contextmanager
def transaction(site: Path) -> Iterator[Session]:
    """Open a writing transaction on an installation's main database."""
    with Site(site).opened() as (database, _), database.transaction() as session:
        yield session


def parse_vault_id(text: str) -> VaultId:
    """Return a vault's id, or end with the usage status."""
    try:
        return VaultId(parse_id(text))
    except SealError as error:
        raise typer.BadParameter("A vault id has 22 letters, digits, - or _; `owner unlock` shows it.") from error


def say(as_json: bool, record: dict[str, Any], sentence: str) -> None:
    """Print the record for machines or the sentence for people."""
    typer.echo(json.dumps(record) if as_json else sentence)


def read_text(file: Path) -> str:
    """Return what a registration file holds.

    Raises:
        CompanyRefused: It cannot be read.
    """
    try:
        return file.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise CompanyRefused(f"{file} cannot be read as a registration file.") from error
