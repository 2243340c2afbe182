"""Backup and restore of a site on SQLite. Short keys stay out: an old backup must not revive what was withdrawn."""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
from pathlib import Path

from vault.db import Database, migrate
from vault.encoding import dump_json, parse_json
from vault.errors import MalformedInput, VaultError
from vault.ops.site import Site
from vault.proof.checkpoint import parse_checkpoint
from vault.proof.errors import InvalidProof
from vault.proof.note import parse_note
from vault.tlog import log
from vault.tlog.errors import NotInLog

_FORMAT = "twinvault-backup/1"


class BadBackup(VaultError):
    """A folder that is not a whole, unaltered backup, or not one that may replace what is here."""

    slug = "bad-backup"
    title = "Backup is not usable"
    status = 400


def back_up(site: Site, folder: Path) -> int:
    """Copy the main database while the service runs.

    Args:
        site: What to copy.
        folder: A folder that does not exist yet; gets `vault.sqlite` and `backup.json`.

    Returns:
        The size of the log in the copy.

    Raises:
        BadBackup: Not on SQLite, or the folder exists.
    """
    database, _ = site.databases()
    if not database.is_sqlite or database.url.database is None:
        raise BadBackup("This command copies SQLite; back PostgreSQL up with pg_dump, without the short-key database.")
    if folder.exists():
        raise BadBackup("The folder exists; a backup never overwrites another. Name a new one.")
    folder.mkdir(mode=0o700, parents=True)
    copy = folder / "vault.sqlite"
    with sqlite3.connect(database.url.database) as source, sqlite3.connect(copy) as target:
        source.backup(target)
    target.close()
    source.close()
    note, size = _newest(copy)
    record = dump_json({"format": _FORMAT, "sha256": _digest(copy), "checkpoint": note, "leaves": size})
    (folder / "backup.json").write_bytes(record + b"\n")
    return size


def restore(folder: Path, site: Site, *, replace: bool) -> int:
    """Put a backup's database in place of the site's; the service must be stopped.

    The short-key database stays as it is, so keys that were deleted since the backup stay deleted.

    Args:
        folder: A backup.
        site: Where to; set up already.
        replace: Allow the log to go back: whoever saw the newer log will notice the fork.

    Returns:
        The size of the restored log.

    Raises:
        BadBackup: Altered, cut short, or older than the log that is here and `replace` is not given.
    """
    database, _ = site.databases()
    if not database.is_sqlite or database.url.database is None:
        raise BadBackup("This command restores SQLite; restore PostgreSQL with pg_restore.")
    source, target = folder / "vault.sqlite", Path(database.url.database)
    size = _verify(folder, source)
    if not replace:
        here = max(_newest(target)[1] if target.exists() else 0, _anchored(site))
        if here > size:
            raise BadBackup(
                f"The log here has {here} leaves, the backup {size}. Restoring forks the log, and every client that "
                "saw the newer one refuses it. Use --replace only if the newer one is lost for good."
            )
    database.close()
    for suffix in ("-wal", "-shm"):
        Path(f"{target}{suffix}").unlink(missing_ok=True)
    staged = target.with_suffix(".restoring")
    shutil.copyfile(source, staged)
    staged.chmod(0o600)
    with staged.open("rb") as file:
        os.fsync(file.fileno())
    staged.replace(target)
    migrate(site.databases()[0])
    if replace and site.anchor:
        site.anchor.delete()
    if replace and site.log_files:
        site.log_files.set_aside()
    return size


def _verify(folder: Path, source: Path) -> int:
    try:
        record = parse_json((folder / "backup.json").read_bytes())
        digest = _digest(source)
    except (OSError, MalformedInput) as error:
        raise BadBackup("The folder does not hold a backup made by `twinvault operator backup`.") from error
    size = record.get("leaves")
    if record.get("format") != _FORMAT or not isinstance(size, int) or record.get("sha256") != digest:
        raise BadBackup("The backup was altered or cut short; its checksum does not fit.")
    return size


def _anchored(site: Site) -> int:
    found = site.anchor.read() if site.anchor else None
    return found.size if found else 0


def _newest(path: Path) -> tuple[str, int]:
    database = Database(f"sqlite:///{path}")
    try:
        with database.snapshot() as session:
            note = log.checkpoint(session)
        return note, parse_checkpoint(parse_note(note).unverified_text).size
    except (NotInLog, InvalidProof):
        return "", 0
    finally:
        database.close()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
