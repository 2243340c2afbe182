"""Checks of a site that an operator runs before and after every change."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import sqlalchemy
from sqlalchemy import text

from vault.budget import ledger
from vault.errors import VaultError
from vault.jobs import queue
from vault.keys import statements
from vault.keys.identities import open_identity
from vault.keys.kms import LocalKeyring
from vault.keys.operator import APP, WORKER, key_name
from vault.legacy import steps
from vault.ops.site import Site
from vault.proof.trust import parse_trust
from vault.seal.statement import KeyName, KeyStatement
from vault.store import shortkeys
from vault.tlog import log
from vault.tlog.journal import lacking
from vault.tlog.tree import require_later, verify_tree


@dataclass(frozen=True)
class Finding:
    """One check's outcome.

    Args:
        name: What was looked at.
        ok: Whether it is as it should be.
        detail: What was found, or what to do.
    """

    name: str
    ok: bool
    detail: str


def examine(site: Site, now: datetime) -> Iterator[Finding]:
    """Yield the outcome of every check; one that fails does not stop the others.

    Args:
        site: What to look at; nothing is changed but that outstanding deletions of short keys are done.
        now: The current time.
    """
    checks: dict[str, Callable[[Site, datetime], str]] = {
        "database": _database,
        "log": _log,
        "journal": _journal,
        "keyrings": _keyrings,
        "trust file": _trust,
        "short keys": _short_keys,
        "budget": _budget,
        "jobs": _jobs,
        "legacies": _legacies,
    }
    for name, check in checks.items():
        try:
            yield Finding(name, True, check(site, now))
        except VaultError as refusal:
            yield Finding(name, False, refusal.detail)
        except OSError as error:
            yield Finding(name, False, f"Not readable: {error.strerror}.")


class Unwell(VaultError):
    """Something in the site that needs the operator."""

    slug = "unwell"
    title = "The site needs attention"
    status = 500


def _database(site: Site, _now: datetime) -> str:
    with site.opened() as (database, _), database.snapshot() as session:
        revision = session.connection().execute(text("SELECT version_num FROM alembic_version")).scalar_one()
        if database.is_sqlite and session.connection().execute(text("PRAGMA integrity_check")).scalar_one() != "ok":
            raise Unwell("SQLite reports a damaged file; restore the newest backup.")
    return f"schema {revision}"


def _log(site: Site, _now: datetime) -> str:
    anchored = site.anchor.read() if site.anchor else None  # before the database, which only moves on
    with site.opened() as (database, _), database.snapshot() as session:
        head = verify_tree(session, site.log_key)
        if anchored is not None:
            require_later(session, head, anchored)
    return f"{head.size if head else 0} leaves, tree rebuilt and equal to its signed head"


def _journal(site: Site, _now: datetime) -> str:
    journal = site.journal
    with site.opened() as (database, _), database.snapshot() as session:
        if log.is_copy(session):
            raise Unwell(
                "The database is a copy, or another than the app left, and was not compared with the journal: start the"
                " app, which does that or says what is missing."
            )
        if journal is None or not (journal.exists() or log.tree_size(session)):
            return "none"
        journaled = journal.read()
        missing = lacking(session, journaled)
    if missing:
        raise Unwell(f"The database lacks {len(missing)} events that the journal holds: start the app to apply them.")
    return f"{len(journaled.leaves)} events since leaf {journaled.begins_at}, none lacking"


def _keyrings(site: Site, now: datetime) -> str:
    with site.opened() as (database, _), database.snapshot() as session:
        stated = statements.in_force(session, site.operator_key, now)
    for part, names in (("app", APP), ("worker", WORKER)):
        folder = site.folder / "keys" / part
        if not folder.is_dir():
            continue  # this machine runs the other process only
        keyring = LocalKeyring(folder)
        for name in names:
            if name not in stated or stated[name].public_key != _public(folder, keyring, stated[name]):
                raise Unwell(f"The operator has not stated the {name} key that this keyring holds; run operator init.")
    if (site.folder / "keys" / "operator").is_dir():
        return "every key is stated by the operator; the operator's own key is still online: move it off this machine"
    return "every key is stated by the operator"


def _public(folder: Path, keyring: LocalKeyring, statement: KeyStatement) -> bytes:
    key = key_name(statement.name, statement.epoch)
    return open_identity(folder, keyring, key).recipient.public if statement.name.seals else keyring.public_key(key)


def _trust(site: Site, _now: datetime) -> str:
    trust = parse_trust(site.trust_file.read_bytes().strip())
    found = site.environment("app")
    settings = found["VAULT_ISSUER"], found["VAULT_LOG_ORIGIN"], site.operator_key
    if (trust.issuer, trust.origin, trust.operator) != settings:
        raise Unwell(
            "The trust file names another issuer, log or operator than the settings; clients would refuse this server."
        )
    return f"issuer {trust.issuer}, log {trust.origin}"


def _short_keys(site: Site, _now: datetime) -> str:
    with site.opened() as (database, short):
        if not sqlalchemy.inspect(short.engine).has_table("short_key"):
            raise Unwell("The short-key database has no table; run `twinvault operator init` again.")
        done = shortkeys.delete_scheduled(database, short)
    return f"{done} deletions were outstanding and are done now" if done else "no deletion outstanding"


def _budget(site: Site, _now: datetime) -> str:
    with site.opened() as (database, _), database.snapshot() as session:
        return f"{ledger.verify_ledger(session)} rows, each chain unbroken"


def _jobs(site: Site, _now: datetime) -> str:
    with site.opened() as (database, _), database.snapshot() as session:
        counts = queue.count_by_state(session)
    if counts.get(queue.JobState.FAILED):
        raise Unwell(f"{counts[queue.JobState.FAILED]} jobs were given up; read the worker's log for their reasons.")
    return ", ".join(f"{count} {state}" for state, count in sorted(counts.items())) or "none"


def _legacies(site: Site, now: datetime) -> str:
    with site.opened() as (database, _), database.snapshot() as session:
        serving = statements.in_force(session, site.operator_key, now).get(KeyName.SERVING)
        if serving is None or serving.epoch == 1:
            return "nothing that was sealed in advance is spent"
        spent = steps.count_sealed(session, serving.not_before)
    if not spent:
        return "nothing that was sealed in advance is spent"
    return (
        f"{spent} plans hold consents that were sealed in advance to a serving key that was replaced: executors cannot give"
        " them; their owners are told to make new plans"
    )
