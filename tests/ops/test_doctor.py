"""The doctor finds each planted fault, and nothing in a sound installation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from sqlalchemy import text

from tests.budget.test_ledger import AT, charge
from tests.site_kit import running_app
from vault.budget.ledger import restore
from vault.clock import SystemClock
from vault.jobs import queue
from vault.ops.site import Site
from vault.proof.trust import dump_trust, parse_trust
from vault.seal.signing import SigningKey, new_seed

Findings = Callable[[], dict[str, str]]


def execute(site: Site, statement: str) -> None:
    database, _ = site.databases()
    with database.transaction() as session:
        session.connection().execute(text(statement))
    database.close()


def test_a_sound_site_has_no_finding_before_and_after_its_first_start(site: Site, findings: Findings) -> None:
    assert findings() == {}
    with running_app(site):
        assert findings() == {}
    assert findings() == {}


def test_a_swapped_key_is_found(site: Site, findings: Findings) -> None:
    for part, name in (("app", "service.1.key"), ("worker", "processor-sign.1.key")):
        path = site.folder / "keys" / part / name
        honest = path.read_bytes()
        path.write_bytes(new_seed())
        assert list(findings()) == ["keyrings"]
        path.write_bytes(honest)
    assert findings() == {}


def test_a_swapped_identity_is_found(site: Site, findings: Findings) -> None:
    path = site.folder / "keys/worker/processor.1.wrapped"
    path.write_bytes(path.read_bytes()[::-1])
    assert list(findings()) == ["keyrings"]
    path.unlink()
    assert list(findings()) == ["keyrings"]


def test_a_keyring_that_is_on_another_machine_is_no_fault(site: Site, findings: Findings) -> None:
    for part in ("worker", "operator"):
        (site.folder / "keys" / part).rename(site.folder.parent / part)
    assert findings() == {}


def test_a_changed_leaf_is_found(site: Site, findings: Findings) -> None:
    with running_app(site):
        pass
    execute(site, "UPDATE log_entry SET entry = zeroblob(65) WHERE leaf_index = 2")
    assert list(findings()) == ["log"]


def test_a_database_set_back_is_found(site: Site, findings: Findings) -> None:
    with running_app(site):
        pass
    for table in ("log_head", "log_tile"):
        execute(site, f"DELETE FROM {table}")
    execute(site, "UPDATE log_entry SET leaf_index = NULL")
    assert "older or another" in findings()["log"]


def test_a_trust_file_of_another_server_is_found(site: Site, findings: Findings) -> None:
    trust = parse_trust(site.trust_file.read_bytes().strip())
    site.trust_file.write_bytes(dump_trust(replace(trust, issuer="https://other.example")))
    assert list(findings()) == ["trust file"]


def test_a_trust_file_of_another_operator_is_found(site: Site, findings: Findings) -> None:
    trust = parse_trust(site.trust_file.read_bytes().strip())
    site.trust_file.write_bytes(dump_trust(replace(trust, operator=SigningKey(new_seed()).public_key)))
    assert list(findings()) == ["trust file"]


def test_a_trust_file_with_another_log_key_is_found(site: Site, findings: Findings) -> None:
    with running_app(site):
        pass
    trust = parse_trust(site.trust_file.read_bytes().strip())
    other = replace(trust.log, public_key=SigningKey(new_seed()).public_key)
    site.trust_file.write_bytes(dump_trust(replace(trust, log=other)))
    assert "log" in findings()


def test_a_trust_file_that_is_none_is_found(site: Site, findings: Findings) -> None:
    for content in (b"", b"{}", b"\xff"):
        site.trust_file.write_bytes(content)
        assert {"log", "trust file"} <= findings().keys()
    site.trust_file.unlink()
    assert {"log", "trust file"} <= findings().keys()


def test_a_job_that_was_given_up_is_found(site: Site, findings: Findings) -> None:
    now = SystemClock().now()
    database, _ = site.databases()
    with database.transaction() as session:
        queue.enqueue(session, "refresh", {"vault": "A" * 22}, waiting_key="A", now=now)
    database.close()
    assert findings() == {}
    execute(site, "UPDATE jobs SET state = 'failed'")
    assert list(findings()) == ["jobs"]


def test_a_changed_charge_is_found(site: Site, findings: Findings) -> None:
    database, _ = site.databases()
    with database.transaction() as session:
        restore(session, charge(1), at=AT)
    database.close()
    assert findings() == {}
    execute(site, "DROP TRIGGER budget_ledger_no_update")
    execute(site, "UPDATE budget_ledger SET state = 'aborted' WHERE position = 1")
    assert list(findings()) == ["budget"]


def test_missing_tables_are_found_and_do_not_stop_the_other_checks(site: Site, findings: Findings) -> None:
    _, short = site.databases()
    with short.transaction() as session:
        session.connection().execute(text("DROP TABLE short_key"))
    short.close()
    assert list(findings()) == ["short keys"]
    execute(site, "DROP TABLE alembic_version")
    assert {"short keys", "database"} <= findings().keys()


def test_a_database_that_is_none_is_found_by_every_check_that_reads_it(site: Site, findings: Findings) -> None:
    database, _ = site.databases()
    path = site.folder / "vault.sqlite"
    for suffix in ("-wal", "-shm"):
        (site.folder / f"vault.sqlite{suffix}").unlink(missing_ok=True)
    path.write_bytes(b"not a database, but long enough to look at" * 100)
    database.close()
    assert {"database", "log", "keyrings", "jobs"} <= findings().keys()
