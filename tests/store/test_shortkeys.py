from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import URL, text

from tests.conftest import execute
from tests.waiting import together
from vault.db import Database
from vault.seal.ids import CompartmentId, VaultId
from vault.store import shortkeys as keys
from vault.store.errors import ShortKeysNotErased

NAMES = [keys.compartment_key(VaultId(bytes(16)), CompartmentId(bytes([n]) * 16)) for n in range(3)]


def on_disk(database: Database) -> bytes:
    path = Path(str(database.url.database))
    return b"".join(file.read_bytes() for file in sorted(path.parent.glob(path.name + "*")))


def schedule(database: Database, names: list[keys.ShortKeyName]) -> None:
    with database.transaction() as session:
        keys.schedule_deletion(session, names)


def test_creating_again_returns_the_same_keys(shortkeys: Database) -> None:
    first = keys.create(shortkeys, NAMES)
    assert len(set(first.values())) == 3
    assert all(len(key) == 32 for key in first.values())
    assert keys.create(shortkeys, NAMES) == first
    assert keys.read(shortkeys, [*NAMES, keys.handover_key(bytes(32))]) == first
    assert keys.create(shortkeys, []) == {}


def test_names_of_two_kinds_never_meet() -> None:
    one = keys.compartment_key(VaultId(b"v" * 16), CompartmentId(b"c" * 16))
    assert one != keys.compartment_key(VaultId(b"c" * 16), CompartmentId(b"v" * 16))
    assert one != keys.handover_key(b"v" * 16 + b"c" * 16)


def test_a_deleted_key_is_in_no_file(database: Database, shortkeys: Database) -> None:
    made = keys.create(shortkeys, NAMES)
    assert all(key in on_disk(shortkeys) for key in made.values()), "the scan must find what is there"
    schedule(database, NAMES[:2])
    assert keys.delete_scheduled(database, shortkeys) == 2
    left = on_disk(shortkeys)
    assert [made[name] in left for name in NAMES] == [False, False, True]
    assert keys.read(shortkeys, NAMES) == {NAMES[2]: made[NAMES[2]]}


def test_a_key_from_before_a_checkpoint_is_in_no_file(database: Database, shortkeys: Database) -> None:
    made = keys.create(shortkeys, NAMES[:1])
    raw = shortkeys.engine.raw_connection()
    raw.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")
    raw.close()
    assert made[NAMES[0]] in Path(str(shortkeys.url.database)).read_bytes()
    schedule(database, NAMES[:1])
    keys.delete_scheduled(database, shortkeys)
    assert made[NAMES[0]] not in on_disk(shortkeys)


def test_deleting_is_idempotent_and_empties_the_outbox(database: Database, shortkeys: Database) -> None:
    keys.create(shortkeys, NAMES)
    schedule(database, NAMES[:1])
    schedule(database, NAMES[:1])
    assert keys.delete_scheduled(database, shortkeys) == 2
    assert keys.delete_scheduled(database, shortkeys) == 0
    schedule(database, NAMES[:1])
    assert keys.delete_scheduled(database, shortkeys) == 1


def test_a_rolled_back_decision_deletes_nothing(database: Database, shortkeys: Database) -> None:
    made = keys.create(shortkeys, NAMES)
    with pytest.raises(RuntimeError), database.transaction() as session:
        keys.schedule_deletion(session, NAMES)
        raise RuntimeError
    assert keys.delete_scheduled(database, shortkeys) == 0
    assert keys.read(shortkeys, NAMES) == made


def test_many_deletions_at_once(sqlite_database: Database, shortkeys: Database) -> None:
    many = [keys.handover_key(n.to_bytes(4, "big")) for n in range(1203)]
    keys.create(shortkeys, many)
    schedule(sqlite_database, many)
    assert keys.delete_scheduled(sqlite_database, shortkeys) == 1203
    assert keys.read(shortkeys, many) == {}


def test_a_reader_that_holds_old_pages_delays_the_acknowledgement(
    sqlite_database: Database, shortkeys: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vault.db._BUSY_TIMEOUT_S", 0.1)
    monkeypatch.setattr(keys, "_TRIES", 3)
    quick = Database(shortkeys.url.render_as_string())
    made = keys.create(quick, NAMES[:1])
    schedule(sqlite_database, NAMES[:1])
    with shortkeys.snapshot() as reader:
        reader.connection().execute(text("SELECT count(*) FROM short_key")).scalar_one()
        with pytest.raises(ShortKeysNotErased):
            keys.delete_scheduled(sqlite_database, quick)
    assert keys.delete_scheduled(sqlite_database, quick) == 1
    assert made[NAMES[0]] not in on_disk(shortkeys)
    quick.close()


def test_deletions_at_the_same_time_wait_for_each_other(sqlite_database: Database, shortkeys: Database) -> None:
    """Of two that overwrite the log at once SQLite turns one away, without waiting: that is no reason to refuse it."""
    named = [[keys.handover_key(bytes([asker, n])) for n in range(10)] for asker in range(6)]

    def delete_one_by_one(names: list[keys.ShortKeyName]) -> None:
        for name in names:
            keys.create(shortkeys, [name])
            schedule(sqlite_database, [name])
            keys.delete_scheduled(sqlite_database, shortkeys)

    together(*(partial(delete_one_by_one, names) for names in named))
    assert keys.read(shortkeys, [name for names in named for name in names]) == {}
    assert keys.delete_scheduled(sqlite_database, shortkeys) == 0


def test_who_is_turned_away_tries_again_before_it_gives_up(
    sqlite_database: Database, shortkeys: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, truncated, tries = keys.create(shortkeys, NAMES[:1]), keys._truncated, iter((False, False))
    schedule(sqlite_database, NAMES[:1])
    monkeypatch.setattr(keys, "_truncated", lambda where: next(tries, None) is None and truncated(where))
    assert keys.delete_scheduled(sqlite_database, shortkeys) == 1
    assert made[NAMES[0]] not in on_disk(shortkeys)


def test_postgresql_keeps_short_keys_too(sqlite_database: Database, postgresql_database: Database) -> None:
    keys.create_table(postgresql_database)
    keys.create_table(postgresql_database)
    made = keys.create(postgresql_database, NAMES)
    assert keys.create(postgresql_database, NAMES) == made
    schedule(sqlite_database, NAMES[:1])
    assert keys.delete_scheduled(sqlite_database, postgresql_database) == 1
    assert keys.read(postgresql_database, NAMES) == {name: made[name] for name in NAMES[1:]}


_DIE_AFTER_COMMIT = """
import os, signal, sys
from vault.db import Database
from vault.store import shortkeys as keys
database, name = Database(sys.argv[1]), keys.ShortKeyName(bytes.fromhex(sys.argv[2]))
with database.transaction() as session:
    keys.schedule_deletion(session, [name])
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_crash_between_commit_and_delete_is_made_good_at_boot(sqlite_database: Database, shortkeys: Database) -> None:
    made = keys.create(shortkeys, NAMES[:1])
    url = sqlite_database.url.render_as_string()
    run = subprocess.run(
        [sys.executable, "-c", _DIE_AFTER_COMMIT, url, NAMES[0].hex()], env=dict(os.environ), check=False, timeout=60
    )
    assert run.returncode == -signal.SIGKILL
    assert keys.read(shortkeys, NAMES) == made
    assert keys.delete_scheduled(sqlite_database, shortkeys) == 1
    assert made[NAMES[0]] not in on_disk(shortkeys)


@pytest.fixture
def postgresql_shortkeys(postgresql_server: URL) -> Iterator[Database]:
    """A fresh database of short keys on PostgreSQL."""
    name = f"short_{uuid.uuid4().hex}"
    execute(postgresql_server, f"CREATE DATABASE {name}")
    database = Database(postgresql_server.set(database=name).render_as_string(hide_password=False))
    keys.create_table(database)
    keys.create_table(database)
    yield database
    database.close()
    execute(postgresql_server, f"DROP DATABASE {name} WITH (FORCE)")


def in_tables(database: Database) -> bytes:
    """Return every byte of the database's own files, without the server's write-ahead log."""
    with database.engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT").exec_driver_sql("CHECKPOINT")
        data = Path(connection.exec_driver_sql("SHOW data_directory").scalar_one())
        oid = connection.exec_driver_sql("SELECT oid FROM pg_database WHERE datname = current_database()").scalar_one()
    return b"".join(file.read_bytes() for file in sorted((data / "base" / str(oid)).iterdir()) if file.is_file())


def many(count: int, start: int = 0) -> list[keys.ShortKeyName]:
    return [keys.handover_key(n.to_bytes(32)) for n in range(start, start + count)]


def test_on_postgresql_a_deleted_key_is_in_no_page(sqlite_database: Database, postgresql_shortkeys: Database) -> None:
    made = keys.create(postgresql_shortkeys, many(300))
    before = in_tables(postgresql_shortkeys)
    assert all(key in before for key in made.values()), "the scan must find what is there"
    gone = many(300)[::2]
    schedule(sqlite_database, gone)
    assert keys.delete_scheduled(sqlite_database, postgresql_shortkeys) == 150
    left = in_tables(postgresql_shortkeys)
    assert [name for name in gone if made[name] in left] == []
    assert all(made[name] in left for name in many(300)[1::2])
    assert keys.read(postgresql_shortkeys, many(300)).keys() == set(many(300)[1::2])


def test_on_postgresql_an_older_reader_keeps_a_deletion_scheduled(
    sqlite_database: Database, postgresql_shortkeys: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = keys.create(postgresql_shortkeys, many(2))
    schedule(sqlite_database, many(1))
    monkeypatch.setattr(keys, "_TRIES", 3)
    with postgresql_shortkeys.snapshot() as reader:
        reader.connection().exec_driver_sql("SELECT 1")  # a snapshot, and no lock on the table
        with pytest.raises(ShortKeysNotErased):
            keys.delete_scheduled(sqlite_database, postgresql_shortkeys)
    assert keys.delete_scheduled(sqlite_database, postgresql_shortkeys) == 1
    assert made[many(1)[0]] not in in_tables(postgresql_shortkeys)
    assert keys.delete_scheduled(sqlite_database, postgresql_shortkeys) == 0
