"""Backup and restore of a site. Short keys stay out: an old backup must not revive what was withdrawn.

What was withdrawn or charged after the backup is taken from the journal, which no backup holds either.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import subprocess
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

import sqlalchemy
from sqlmodel import Session

from vault.db import Database, migrate
from vault.encoding import dump_json, parse_json
from vault.errors import MalformedInput, VaultError
from vault.keys.kms import KmsSigner, LocalKeyring
from vault.keys.operator import key_name
from vault.ops.site import Site
from vault.proof.checkpoint import parse_checkpoint
from vault.proof.errors import InvalidProof
from vault.proof.note import parse_note
from vault.recovery import Recovered, end_issued, recover
from vault.seal.statement import KeyName
from vault.tlog import log
from vault.tlog.errors import JournalDamaged, JournalMissing, NotInLog

_FORMAT: Final = "twinvault-backup/1"
_SQLITE: Final = "vault.sqlite"
_POSTGRESQL: Final = "vault.dump"


class BadBackup(VaultError):
    """A folder that is not a whole, unaltered backup, or not one that may replace what is here."""

    slug = "bad-backup"
    title = "Backup is not usable"
    status = 400


class NoTool(VaultError):
    """A program of PostgreSQL that is not installed here, or that failed."""

    slug = "no-tool"
    title = "A PostgreSQL program is missing or failed"
    status = 500


class InUse(VaultError):
    """A database that is to be replaced while somebody has it open; what they go on writing would be lost."""

    slug = "in-use"
    title = "Database is in use"
    status = 409


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore did.

    Args:
        leaves: Size of the restored log.
        recovered: What the journal put in force again.
        auditors: How many auditors' engagements ended.
        frozen: Why nothing may be served yet; empty if everything may.
    """

    leaves: int
    recovered: Recovered
    auditors: int
    frozen: str = ""


def back_up(site: Site, folder: Path) -> int:
    """Copy the main database while the service runs.

    Args:
        site: What to copy.
        folder: A folder that does not exist yet; gets the copy and `backup.json`.

    Returns:
        The size of the log in the copy.

    Raises:
        BadBackup: The folder exists.
        DatabaseAway: The database cannot be read, or the disk is full.
        NoTool: On PostgreSQL, `pg_dump` is missing or refuses.

    Guarantees: when it fails, there is no folder.
    """
    if folder.exists():
        raise BadBackup("The folder exists; a backup never overwrites another. Name a new one.")
    folder.mkdir(mode=0o700, parents=True)
    try:
        with site.opened() as (database, _):
            copy = folder / (_SQLITE if database.is_sqlite else _POSTGRESQL)
            note, size = (_copy_sqlite if database.is_sqlite else _copy_postgresql)(database, copy)
        record = dump_json({"format": _FORMAT, "sha256": _digest(copy), "checkpoint": note, "leaves": size})
        (folder / "backup.json").write_bytes(record + b"\n")
    except BaseException:
        shutil.rmtree(folder)  # what is there is no backup, and its name may be tried again
        raise
    return size


def restore(folder: Path, site: Site, *, replace: bool, now: datetime) -> Restored:
    """Put a backup's database in place of the site's, and in force again what the journal holds since.

    The service must be stopped. The short-key database stays as it is, so keys that were deleted since
    the backup stay deleted.

    Args:
        folder: A backup.
        site: Where to; set up already.
        replace: Allow the log to go back: whoever saw the newer log will notice the fork.
        now: The current time.

    Raises:
        BadBackup: Altered, cut short, of another kind of database, or older than the log that is here and
            `replace` is not given.
        InUse: On SQLite, a process of the service still has the database open.
        NoTool: On PostgreSQL, `pg_restore` is missing or refuses; the database is then as it was.

    Guarantees: until the journal was compared, neither app nor worker does anything with the restored database.
    """
    with site.opened(may_lack=True) as (database, short_keys):
        source = folder / (_SQLITE if database.is_sqlite else _POSTGRESQL)
        size = _verify(folder, source)
        here = max(_leaves(database), _anchored(site))
        if here > size and not replace:
            raise BadBackup(
                f"The log here has {here} leaves, the backup {size}. Restoring forks the log, and every client that "
                "saw the newer one refuses it. Use --replace only if the newer one is lost for good."
            )
        database.close()
        (_put_sqlite if database.is_sqlite else _put_postgresql)(source, database)
        migrate(database)
        with database.transaction() as session:
            log.call_copy(session)
            auditors = end_issued(session, now=now)
        if replace and site.anchor:
            site.anchor.delete()
        if replace and site.log_files:
            site.log_files.set_aside()
        try:
            recovered = _recover(site, database, short_keys, now)
        except (JournalMissing, JournalDamaged) as refusal:
            return Restored(size, Recovered(), auditors, refusal.detail)
        with database.transaction() as session:
            log.call_compared(session)
    return Restored(size, recovered, auditors)


def _recover(site: Site, database: Database, short_keys: Database, now: datetime) -> Recovered:
    if site.journal is None:
        return Recovered()
    kms = LocalKeyring(site.keyring_folder(KeyName.SERVICE))
    # What a backup states may be an epoch whose key is destroyed: the newest one here signs.
    service = KmsSigner(kms, key_name(KeyName.SERVICE, max(kms.epochs(KeyName.SERVICE), default=1)))
    return recover(database, short_keys, site.journal, service=service, now=now)


def _copy_sqlite(database: Database, copy: Path) -> tuple[str, int]:
    with (
        closing(sqlite3.connect(str(database.url.database))) as source,
        closing(sqlite3.connect(copy)) as target,
    ):
        source.backup(target)
    with closing(Database(f"sqlite:///{copy}")) as made, made.transaction() as session:
        log.call_copy(session)  # so that it is compared however it comes back
        found = _newest_in(session)
    with closing(sqlite3.connect(copy)) as alone:
        alone.execute("PRAGMA journal_mode=DELETE")
    Path(f"{copy}.writers").unlink(missing_ok=True)  # nobody takes turns at a copy
    return found


def _copy_postgresql(database: Database, copy: Path) -> tuple[str, int]:
    with database.snapshot() as session:
        found = _newest_in(session)
        name = session.connection().exec_driver_sql("SELECT pg_export_snapshot()").scalar_one()
        _run_tool(database, "pg_dump", "--format=custom", "--no-owner", f"--snapshot={name}", f"--file={copy}")
    copy.chmod(0o600)
    return found


def _put_sqlite(source: Path, database: Database) -> None:
    target = Path(str(database.url.database))
    if target.exists():
        _require_unused(target)
    staged = target.with_suffix(".restoring")
    shutil.copyfile(source, staged)
    staged.chmod(0o600)
    with staged.open("rb") as file:
        os.fsync(file.fileno())
    for suffix in ("-wal", "-shm"):  # a damaged one may have left them; they would be taken for the copy's
        Path(f"{target}{suffix}").unlink(missing_ok=True)
    staged.replace(target)


def _require_unused(target: Path) -> None:
    """Refuse unless nobody has the file open; its write-ahead log is then part of it."""
    with closing(sqlite3.connect(target, timeout=0)) as connection:
        try:
            connection.execute("PRAGMA journal_mode=DELETE")  # SQLite does this for a database's only user
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_BUSY:
                raise InUse(
                    "A process has the database open. Stop app and worker, and every operator command, first."
                ) from error
            # Any other error is damage, which is why it is replaced.


def _put_postgresql(source: Path, database: Database) -> None:
    _run_tool(
        database, "pg_restore", "--clean", "--if-exists", "--no-owner", "--single-transaction", "--exit-on-error",
        f"--dbname={database.url.database}", str(source),
    )  # fmt: skip


def _run_tool(database: Database, program: str, *arguments: str) -> None:
    """Run a program of PostgreSQL on a database; what identifies it goes through the environment, not the process list."""
    found, url = shutil.which(program), database.url
    if found is None:
        raise NoTool(f"{program} is not installed here; install PostgreSQL's client programs of the server's version.")
    values = {
        "PGDATABASE": url.database, "PGUSER": url.username, "PGPASSWORD": url.password, "PGPORT": url.port,
        "PGHOST": url.host or url.query.get("host"),
    }  # fmt: skip
    environment = {**os.environ, **{name: str(value) for name, value in values.items() if value}}
    run = subprocess.run([found, *arguments], env=environment, capture_output=True, text=True, check=False)  # noqa: S603  (found by name)
    if run.returncode != 0:
        raise NoTool(f"{program} failed: {' '.join(run.stderr.split())[-300:]}")


def _verify(folder: Path, source: Path) -> int:
    try:
        record = parse_json((folder / "backup.json").read_bytes())
        digest = _digest(source)
    except (OSError, MalformedInput) as error:
        raise BadBackup(
            "The folder does not hold a backup made by `twinvault operator backup` of this kind of database."
        ) from error
    size = record.get("leaves")
    if record.get("format") != _FORMAT or not isinstance(size, int) or record.get("sha256") != digest:
        raise BadBackup("The backup was altered or cut short; its checksum does not fit.")
    return size


def _anchored(site: Site) -> int:
    found = site.anchor.read() if site.anchor else None
    return found.size if found else 0


def _leaves(database: Database) -> int:
    """Return the size of the log that is here; of a damaged file only the anchor still knows it."""
    if database.is_sqlite and not Path(str(database.url.database)).exists():
        return 0
    try:
        with database.snapshot() as session:
            has_log = sqlalchemy.inspect(session.connection()).has_table("log_head")
            return _newest_in(session)[1] if has_log else 0
    except sqlalchemy.exc.DatabaseError:
        if database.is_sqlite:
            return 0
        raise


def _newest_in(session: Session) -> tuple[str, int]:
    try:
        note = log.checkpoint(session)
        return note, parse_checkpoint(parse_note(note).unverified_text).size
    except (NotInLog, InvalidProof):
        return "", 0


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
