"""An old backup put back revives nothing: the journal ends again what was withdrawn and charges again what was released."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
import sqlalchemy
from click.testing import Result
from fastapi.testclient import TestClient

from tests.client_kit import purchases
from tests.http_kit import House, serving
from tests.site_kit import app_settings, operate, put_back_by_hand, restore, worker_settings
from vault.app import create_app
from vault.budget import ledger
from vault.clock import SystemClock
from vault.consent import consents
from vault.db import Database
from vault.keys.kms import NoSuchKey
from vault.ops import archive
from vault.ops.archive import BadBackup, NoTool, back_up
from vault.ops.site import Site
from vault.proof.accounting import OWNER_DAY_CAP
from vault.recovery import Recovered, recover
from vault.schema.consent import ConsentEvent
from vault.schema.trace import Period
from vault.seal.ids import ConsentId, VaultId
from vault.seal.signing import SigningKey, new_seed
from vault.tlog import log, tree
from vault.tlog.journal import Journal
from vault.twin.children import Children
from vault.twin.requests import request_training
from vault.worker import open_worker, run_once

on_sqlite = pytest.mark.parametrize("urls", ["sqlite"], indirect=True)


@dataclass
class Past:
    """A site that was backed up before its owner withdrew a consent and got another month's release."""

    site: Site
    backup: Path
    vault: VaultId
    withdrawn: ConsentId
    kept: ConsentId
    spent: float

    def run(self, *args: str) -> Result:
        return operate([*args, "--site", str(self.site.folder)])

    def app(self) -> TestClient:
        return TestClient(create_app(app_settings(self.site)))

    def day_of_february(self) -> float:
        database, _ = self.site.databases()
        with database.snapshot() as session:
            found = ledger.spending(session, self.vault, Period("2026-02"), OWNER_DAY_CAP.delta).day
        database.close()
        return found

    def event_of(self, consent: ConsentId) -> ConsentEvent:
        database, _ = self.site.databases()
        with database.snapshot() as session:
            found = consents.find(session, consent)
        database.close()
        assert found is not None
        return found.current.event


@pytest.fixture
def past(urls: tuple[str | None, str | None], tmp_path: Path) -> Past:
    with serving(tmp_path / "house", *urls) as house:
        return _live(house, tmp_path / "backup")  # the service is stopped before anything is restored


def _live(house: House, backup: Path) -> Past:
    owner = house.owner_with_twin((1,))
    shop, other = house.company(), house.company("Other")
    withdrawn, kept = house.consent(owner, shop), house.consent(owner, other)
    back_up(house.service.site, backup)
    owner.withdraw(withdrawn)
    owner.import_traces(purchases(5, month=2))
    owner.refresh()
    house.work()
    _stop_model(house.service.site)
    past = Past(house.service.site, backup, owner.vault, withdrawn, kept, 0.0)
    past.spent = past.day_of_february()
    assert past.spent > 2
    assert past.event_of(withdrawn) is ConsentEvent.WITHDRAWN
    return past


def _stop_model(site: Site) -> None:
    """Withdraw the built-in model as the operator does."""
    listed = json.loads(operate(["models", "list", "--site", str(site.folder), "--json"]).stdout)
    name = listed["models"][0]["model"]
    done = operate(["models", "withdraw", name, "--reason", "Refuted.", "--site", str(site.folder)])
    assert "answers no more" in done.stdout


def test_what_was_withdrawn_and_charged_since_is_in_force_again(past: Past) -> None:
    refused = past.run("restore", str(past.backup))
    assert refused.exit_code == 1
    assert "forks the log" in refused.stderr
    told = restore(past.site, past.backup)
    # February was released twice: its days, and its late row.
    assert (told["consents_ended"], told["charges"], told["frozen"]) == (1, 2, "")
    assert (told["models_withdrawn"], told["freezes_and_profiles"], told["companies_suspended"]) == (1, 0, 0)
    assert not json.loads(past.run("models", "list", "--json").stdout)["models"][0]["may_serve"]
    assert told["lacking"] >= 3  # the self consent's renewal too, whose keys are gone
    assert past.day_of_february() == past.spent
    assert past.event_of(past.withdrawn) is ConsentEvent.WITHDRAWN
    assert past.event_of(past.kept) is ConsentEvent.GIVEN
    with past.app() as client:
        assert client.get("/readyz").status_code == 200
    assert restore(past.site, past.backup)["consents_ended"] == 1  # from the same journal, as often as it takes
    findings = json.loads(past.run("doctor", "--json").stdout)["findings"]
    assert [item["name"] for item in findings if not item["ok"]] == []


@on_sqlite
def test_a_copy_put_back_by_hand_is_compared_when_the_app_starts(past: Past) -> None:
    put_back_by_hand(past.site, past.backup)
    assert past.site.log_files is not None
    past.site.log_files.set_aside()  # whoever deletes the anchor accepts the fork
    _worker_leaves_it_alone(past)
    assert past.event_of(past.withdrawn) is ConsentEvent.GIVEN
    with past.app() as client:
        assert client.get("/readyz").status_code == 200
    assert past.event_of(past.withdrawn) is ConsentEvent.WITHDRAWN
    assert past.day_of_february() == past.spent


def _set_back(past: Past) -> tuple[int, str]:
    """Put the database back as it was at the backup, without a mark; return the log's head in it."""
    database, _ = past.site.databases()
    put = archive._put_sqlite if database.is_sqlite else archive._put_postgresql
    put(next(path for path in past.backup.iterdir() if path.name != "backup.json"), database)
    with database.transaction() as session:
        log.call_compared(session)
        head = log.head(session)
    database.close()
    return head


def test_a_database_set_back_without_the_operator_starts_frozen(past: Past) -> None:
    """A disk's snapshot, say, which bears no mark: whatever was acknowledged over it would fork the log."""
    database, before = past.site.databases()[0], _set_back(past)
    for _ in range(2):
        _serves_nothing(past, "log-damaged", "twinvault operator restore --replace")
        _worker_leaves_it_alone(past)
    findings = json.loads(past.run("doctor", "--json").stdout)["findings"]
    told = {item["name"]: item["detail"] for item in findings if not item["ok"]}
    assert "twinvault operator restore --replace" in told["log"]
    with database.snapshot() as session:
        assert log.head(session) == before
    database.close()
    assert past.run("restore", str(past.backup), "--replace").exit_code == 0
    with past.app() as client:
        assert client.get("/readyz").status_code == 200
    assert not past.event_of(past.withdrawn).live


@on_sqlite
def test_a_database_set_back_of_which_there_is_no_backup_is_its_own(past: Past) -> None:
    """A snapshot of a disk is all that is left: it is compared with the journal like a backup, and serves again."""
    _set_back(past)
    _serves_nothing(past, "log-damaged", "twinvault operator backup")
    copy = past.backup.parent / "copy"
    assert past.run("backup", str(copy)).exit_code == 0
    refused = past.run("restore", str(copy))
    assert refused.exit_code == 1
    assert "--replace" in refused.stderr
    told = restore(past.site, copy)
    # Its app began to put in force again what the journal holds; the rest, if it froze before the end, is done now.
    assert (told["consents_ended"], told["charges"], told["frozen"]) in {(0, 0, ""), (1, 2, "")}
    with past.app() as client:
        assert client.get("/readyz").status_code == 200
    assert not past.event_of(past.withdrawn).live
    assert past.day_of_february() == past.spent


@on_sqlite
def test_without_the_journal_nothing_is_served_until_the_operator_accepts_the_loss(past: Past) -> None:
    journal = past.site.folder / "log.journal"
    away = journal.rename(past.site.folder / "away")
    result = past.run("restore", str(past.backup), "--replace", "--json")
    assert result.exit_code == 1
    assert "journal" in json.loads(result.stdout)["frozen"]
    _serves_nothing(past, "journal-missing")
    _worker_leaves_it_alone(past)
    away.rename(journal)  # found again: that is the better way out
    with past.app() as client:
        assert client.get("/readyz").status_code == 200
    assert past.event_of(past.withdrawn) is ConsentEvent.WITHDRAWN
    past.run("restore", str(past.backup), "--replace")
    journal.write_bytes(b"\x00" * 7 + journal.read_bytes()[7:])
    past.site.anchor.delete()  # type: ignore[union-attr]
    _serves_nothing(past, "journal-damaged")
    accepted = past.run("journal", "begin")
    assert "tell the owners" in accepted.stdout
    with past.app() as client:
        assert client.get("/readyz").status_code == 200


@on_sqlite
def test_a_journal_that_begins_later_than_the_backup_does_not_do(past: Past) -> None:
    assert past.site.journal is not None
    late = past.site.journal.read()
    past.run("journal", "begin")
    past.site.journal.append(late.leaves[-1:])
    result = past.run("restore", str(past.backup), "--replace", "--json")
    assert "begins at leaf" in json.loads(result.stdout)["frozen"]
    _serves_nothing(past, "journal-missing")


def test_recovering_waits_for_whoever_writes_the_journal(
    postgresql_database: Database, shortkeys: Database, tmp_path: Path
) -> None:
    """Two app processes that start at once would tear it; on SQLite all writers take turns anyway."""
    journal = Journal(tmp_path / "log.journal", "log.example/vault")
    journal.begin(0)
    service = SigningKey(new_seed())
    with ThreadPoolExecutor(1) as pool:
        with postgresql_database.transaction() as session:
            tree.lock(session)
            recovering = pool.submit(
                recover, postgresql_database, shortkeys, journal, service=service, now=SystemClock().now()
            )
            while not _somebody_waits(postgresql_database):
                assert not recovering.done()
        assert recovering.result() == Recovered()


def _somebody_waits(database: Database) -> bool:
    waiting = sqlalchemy.text("SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
    with database.snapshot() as session:
        return session.connection().execute(waiting).first() is not None


def test_a_backup_of_the_other_kind_or_without_its_program_is_refused(
    past: Past, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database, _ = past.site.databases()
    copy = next(path for path in past.backup.iterdir() if path.name != "backup.json")
    other = past.backup / ("vault.dump" if database.is_sqlite else "vault.sqlite")
    copy.rename(other)
    with pytest.raises(BadBackup, match="kind of database"):
        archive.restore(past.backup, past.site, replace=True, now=SystemClock().now())
    other.rename(copy)
    if database.is_sqlite:
        return
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NoTool, match="pg_dump is not installed"):
        back_up(past.site, tmp_path / "another")
    with pytest.raises(NoTool, match="pg_restore is not installed"):
        archive.restore(past.backup, past.site, replace=True, now=SystemClock().now())
    assert past.event_of(past.withdrawn) is ConsentEvent.WITHDRAWN


def _serves_nothing(past: Past, slug: str, way_out: str = "twinvault operator journal begin") -> None:
    with past.app() as client:
        assert client.get("/livez").status_code == 200
        assert client.get("/problems/journal-missing").status_code == 200
        for path in ("/readyz", "/v1/keys", "/v1/log/checkpoint", "/authorize"):
            answer = client.get(path)
            assert answer.status_code == 503
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["type"] == f"/problems/{slug}"
            assert way_out in answer.json()["detail"]


def _worker_leaves_it_alone(past: Past) -> None:
    """A job waits, and the worker does not touch it before the journal was compared."""
    database, _ = past.site.databases()
    with database.transaction() as session:
        request_training(session, now=SystemClock().now())
    database.close()
    with Children() as children, open_worker(worker_settings(past.site), children, SystemClock()) as worker:
        assert not run_once(worker)


@on_sqlite
def test_a_site_whose_app_keys_are_elsewhere_is_told_so(past: Past) -> None:
    (past.site.folder / "keys/app/service.1.key").rename(past.site.folder / "elsewhere")
    with pytest.raises(NoSuchKey):
        archive.restore(past.backup, past.site, replace=True, now=SystemClock().now())
