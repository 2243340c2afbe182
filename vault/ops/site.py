"""A site: the folder that holds one installation's databases, keyrings, settings and trust file.

app.env worker.env          settings of the two processes; neither names the other's keyring
keys/app keys/worker        one keyring per process
keys/operator               the operator's key: take it offline
trust.json                  what owners, companies and auditors pin
witnesses.json              who cosigns the log, once there are any; the trust file names them to clients
log.anchor                  newest checkpoint, which no backup holds: shows a database that was set back
log.journal                 withdrawals, charges and erasures, which no backup holds: applied again to one that was set back
public-log                  the log as static files, for any file server to publish
vault.sqlite shortkeys.sqlite   the databases, unless other URLs were given
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError

from vault.db import Database, migrate
from vault.encoding import b64u, parse_b64u
from vault.errors import VaultError
from vault.keys import statements
from vault.keys.kms import LocalKeyring, write_once
from vault.keys.operator import APP, Keyrings, make_keyrings
from vault.proof.note import VerifierKey
from vault.proof.trust import TrustedRoot, dump_trust, parse_trust
from vault.seal.statement import KeyName
from vault.settings import AppSettings, WorkerSettings, sentences_of
from vault.store import shortkeys
from vault.tlog.anchor import Anchor
from vault.tlog.files import LogFiles
from vault.tlog.journal import Journal
from vault.tlog.witnesses import DEFAULT_MAX_AGE_S, WitnessPlan, WitnessSite, dump_plan, parse_plan


class NoSite(VaultError):
    """A folder that holds no installation, or not all of one."""

    slug = "no-site"
    title = "No site here"
    status = 400


class OperatorKeyAway(VaultError):
    """An installation that is to be completed without the key that signed for it."""

    slug = "operator-key-away"
    title = "The operator's key is elsewhere"
    status = 400


class BadSettings(VaultError):
    """What an installation cannot be made with."""

    slug = "bad-settings"
    title = "Settings cannot be used"
    status = 400


class DatabaseAway(VaultError):
    """A database that cannot be opened, or that answers with something else than it was asked for."""

    slug = "database-away"
    title = "Database does not answer"
    status = 503


@dataclass(frozen=True)
class Site:
    """Where one installation lies.

    Args:
        folder: Its folder.
    """

    folder: Path

    @property
    def trust_file(self) -> Path:
        """What clients pin."""
        return self.folder / "trust.json"

    @property
    def operator_key(self) -> bytes:
        """The operator's public key, 32 bytes, as app and worker pin it."""
        return parse_b64u(self.environment("app")["VAULT_OPERATOR_PUBLIC_KEY"], size=32)

    @property
    def log_key(self) -> VerifierKey:
        """The log's key, as clients pin it."""
        return parse_trust(self.trust_file.read_bytes().strip()).log

    @property
    def anchor(self) -> Anchor | None:
        """The log's anchor, unless the settings do without."""
        path = self.environment("app").get("VAULT_LOG_ANCHOR")
        return Anchor(Path(path), self.log_key) if path else None

    @property
    def journal(self) -> Journal | None:
        """The log's journal, unless the settings do without."""
        found = self.environment("app")
        path = found.get("VAULT_LOG_JOURNAL")
        return Journal(Path(path), found["VAULT_LOG_ORIGIN"]) if path else None

    @property
    def witnesses_file(self) -> Path:
        """Whom the log asks to cosign."""
        return self.folder / "witnesses.json"

    @property
    def witnesses(self) -> WitnessPlan:
        """Whom the log asks to cosign; nobody in a new site."""
        return parse_plan(self.witnesses_file.read_bytes().strip())

    def add_witness(self, witness: WitnessSite, quorum: int, max_age_s: int) -> WitnessPlan:
        """Ask one more witness, or the same one elsewhere, and name it to clients in the trust file.

        Args:
            witness: Its key and where it is asked.
            quorum: How many witnesses clients demand from now on.
            max_age_s: How old their view may be.

        Raises:
            MalformedProof: There are fewer witnesses than the quorum.
        """
        others = (known for known in self.witnesses.sites if known.key.name != witness.key.name)
        plan = WitnessPlan((*others, witness), quorum, max_age_s)
        trust = replace(parse_trust(self.trust_file.read_bytes().strip()), witnesses=plan.policy)
        _replace(self.witnesses_file, dump_plan(plan) + b"\n")
        _replace(self.trust_file, dump_trust(trust) + b"\n")
        return plan

    @property
    def log_files(self) -> LogFiles | None:
        """The log as static files, unless the settings do without."""
        path = self.environment("app").get("VAULT_LOG_FILES")
        return LogFiles(Path(path), self.log_key) if path else None

    @property
    def exists(self) -> bool:
        """Whether the folder holds an installation."""
        return (self.folder / "app.env").is_file()

    def environment(self, process: str) -> dict[str, str]:
        """Return the settings of `app` or `worker`.

        Raises:
            NoSite: The folder was never set up.
            BadSettings: No process could start with them.
        """
        path = self.folder / f"{process}.env"
        if not path.is_file():
            raise NoSite(f"There is no installation in {self.folder}; run `twinvault operator init {self.folder}`.")
        lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
        if not all("=" in line for line in lines):
            raise BadSettings(f"{path} cannot be used: each of its lines is NAME=VALUE, or begins with #.")
        found = dict(line.split("=", 1) for line in lines)
        values = {name.removeprefix("VAULT_").lower(): value for name, value in found.items()}
        try:
            (AppSettings if process == "app" else WorkerSettings).model_validate(values)
        except ValidationError as error:
            raise BadSettings(
                f"{path} cannot be used; correct it, or put it back from a copy. {sentences_of(error)}"
            ) from error
        return found

    def databases(self, process: str = "app") -> tuple[Database, Database]:
        """Return the main and the short-key database, as the settings of `app` or `worker` name them."""
        found = self.environment(process)
        return Database(found["VAULT_DATABASE_URL"]), Database(found["VAULT_SHORTKEYS_URL"])

    def require_databases(self, process: str = "app") -> None:
        """Look for the databases' files: SQLite would silently begin empty ones in the place of lost ones.

        Args:
            process: Whose settings name them; the worker's user cannot read the app's.

        Raises:
            NoSite: One is gone.
            DatabaseAway: A file is none of SQLite's.
        """
        for database in self.databases(process):
            if database.is_sqlite and not Path(str(database.url.database)).is_file():
                raise NoSite(
                    f"The database {database.url.database} is gone. Put it back, or restore the newest backup with"
                    " `twinvault operator restore`; short keys are in no backup, and what they lock is lost with them."
                )
            if database.is_sqlite:
                with _answering(), closing(database):
                    database.engine.connect().close()

    @contextmanager
    def opened(self, *, may_lack: bool = False) -> Iterator[tuple[Database, Database]]:
        """Open the main and the short-key database for a while.

        Args:
            may_lack: Whether files that do not exist may be begun.

        Raises:
            NoSite: A database is gone.
            DatabaseAway: One refuses what it is asked, or cannot be reached.
        """
        if not may_lack:
            self.require_databases()
        database, short_keys = self.databases()
        with _answering(), closing(database), closing(short_keys):
            yield database, short_keys

    def keyring_folder(self, name: KeyName) -> Path:
        """Return the keyring of the process that holds a key."""
        return self.folder / "keys" / ("app" if name in APP else "worker")

    def operator_keyring(self) -> LocalKeyring:
        """Return the keyring with the operator's key, where it has not been taken offline yet."""
        return LocalKeyring(self.folder / "keys" / "operator")


def set_up(
    site: Site,
    *,
    issuer: str,
    log_origin: str,
    database_url: str | None,
    shortkeys_url: str | None,
    now: datetime,
    cadence: str = "daily",
) -> Keyrings:
    """Make keys, settings, trust file and databases; what exists is kept, so that it is safe to run again.

    Args:
        site: Where.
        issuer: Public base URL of the service.
        log_origin: Name of the log, on every checkpoint.
        database_url: Main database; a SQLite file in the folder by default.
        shortkeys_url: Short-key database; another SQLite file by default.
        now: From when on the keys are in force.
        cadence: How days become imprint rows, `daily` or `monthly`; what exists keeps its own.

    Raises:
        BadSettings: No process could start with these, or a database does not answer; nothing was made.
        OperatorKeyAway: The site exists, and its operator's key has been taken offline: another one would sign
            for nothing that clients believe.
    """
    folder = site.folder
    databases = {
        "database_url": database_url or f"sqlite:///{folder / 'vault.sqlite'}",
        "shortkeys_url": shortkeys_url or f"sqlite:///{folder / 'shortkeys.sqlite'}",
    }
    if site.exists:
        if not (folder / "keys" / "operator" / "operator.key").is_file():
            raise OperatorKeyAway(
                f"The operator's key is needed to complete {folder}: put `keys/operator` back for as long as it takes."
            )
        kept = site.environment("app")
        issuer, log_origin = kept["VAULT_ISSUER"], kept["VAULT_LOG_ORIGIN"]
        cadence = kept.get("VAULT_CADENCE", cadence)
    else:
        _require_usable({**databases, "issuer": issuer, "log_origin": log_origin, "cadence": cadence}, folder)
        for url in filter(None, (database_url, shortkeys_url)):
            _require_answering(url)
    for private in (folder, folder / "keys"):
        private.mkdir(mode=0o700, parents=True, exist_ok=True)
        private.chmod(0o700)  # one that was there before may be open to others
    keyrings = make_keyrings(folder / "keys", log_origin=log_origin, now=now)
    shared = {
        **{f"VAULT_{name.upper()}": url for name, url in databases.items()},
        "VAULT_OPERATOR_PUBLIC_KEY": b64u(keyrings.operator_key),
        "VAULT_CADENCE": cadence,
    }
    app = {
        "VAULT_APP_KEYRING": str(keyrings.app),
        "VAULT_ISSUER": issuer,
        "VAULT_LOG_ORIGIN": log_origin,
        "VAULT_LOG_ANCHOR": str(folder / "log.anchor"),
        "VAULT_LOG_JOURNAL": str(folder / "log.journal"),
        "VAULT_LOG_FILES": str(folder / "public-log"),
        "VAULT_LOG_WITNESSES": str(site.witnesses_file),
    }
    _write_once(folder / "app.env", {**shared, **app})
    _write_once(folder / "worker.env", {**shared, "VAULT_WORKER_KEYRING": str(keyrings.worker)})
    log_key = VerifierKey(log_origin, LocalKeyring(keyrings.app).public_key(APP[KeyName.LOG]))
    if not site.witnesses_file.exists():
        _replace(site.witnesses_file, dump_plan(WitnessPlan((), 0, DEFAULT_MAX_AGE_S)) + b"\n")
    trust = TrustedRoot(issuer, log_origin, log_key, keyrings.operator_key, site.witnesses.policy)
    _replace(site.trust_file, dump_trust(trust) + b"\n")
    with site.opened(may_lack=True) as (database, short):
        migrate(database)
        shortkeys.create_table(short)
        with database.transaction() as session:
            for statement in keyrings.statements:
                statements.publish(session, statement, keyrings.operator_key)
    return keyrings


def _require_usable(settings: Mapping[str, str], folder: Path) -> None:
    keys = {"app_keyring": folder / "keys" / "app", "operator_public_key": b64u(bytes(32))}  # made right afterwards
    try:
        AppSettings.model_validate({**settings, **keys})
    except ValidationError as error:
        raise BadSettings(sentences_of(error)) from error
    VerifierKey(settings["log_origin"], bytes(32))  # refuses a name that no checkpoint can carry


def _require_answering(url: str) -> None:
    with closing(Database(url)) as database:
        try:
            database.engine.connect().close()
        except SQLAlchemyError as error:
            raise BadSettings(
                f"The database {database.url.render_as_string()} does not answer; check its address, and that it runs."
            ) from error


@contextmanager
def _answering() -> Iterator[None]:
    """Say in words what a database says instead of an answer; its own quote statements and its address."""
    try:
        yield
    except (SQLAlchemyError, sqlite3.Error) as error:
        told = getattr(error, "orig", None) or error
        why = str(told) if isinstance(told, sqlite3.Error) else type(told).__name__
        raise DatabaseAway(
            f"The database does not answer as it should ({why}). Check that it runs, its address and the space on its"
            " disk; if it is damaged, restore the newest backup."
        ) from error


def _write_once(path: Path, values: Mapping[str, str]) -> None:
    if not path.exists():
        write_once(path, "".join(f"{name}={value}\n" for name, value in values.items()).encode())


def _replace(path: Path, data: bytes) -> None:
    """Write a file that others may read; who dies meanwhile leaves the one before."""
    staged = path.with_name(f"{path.name}.new")
    with staged.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    staged.replace(path)
