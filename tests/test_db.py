"""The database edge: commits last, failures leave nothing, times keep their zone."""

import threading
from datetime import UTC, datetime

import pytest
import sqlalchemy

from vault.db import Database, UtcDateTime


def _table(database: Database) -> None:
    with database.transaction() as session:
        session.exec(sqlalchemy.text("CREATE TABLE counter (n INTEGER)"))
        session.exec(sqlalchemy.text("INSERT INTO counter VALUES (0)"))


def test_a_transaction_that_raises_leaves_nothing(database: Database) -> None:
    _table(database)
    with pytest.raises(RuntimeError), database.transaction() as session:
        session.exec(sqlalchemy.text("UPDATE counter SET n = 7"))
        raise RuntimeError
    with database.snapshot() as session:
        assert session.exec(sqlalchemy.text("SELECT n FROM counter")).scalar_one() == 0


def test_concurrent_writers_lose_no_update(database: Database) -> None:
    _table(database)

    def add() -> None:
        for _ in range(20):
            with database.transaction() as session:
                session.exec(sqlalchemy.text("UPDATE counter SET n = n + 1"))

    threads = [threading.Thread(target=add) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.snapshot() as session:
        assert session.exec(sqlalchemy.text("SELECT n FROM counter")).scalar_one() == 120


def test_a_snapshot_does_not_wait_for_a_writer(database: Database) -> None:
    _table(database)
    with database.transaction() as writer:
        writer.exec(sqlalchemy.text("UPDATE counter SET n = 9"))
        with database.snapshot() as reader:
            assert reader.exec(sqlalchemy.text("SELECT n FROM counter")).scalar_one() == 0


def test_times_come_back_aware_and_naive_ones_are_refused(database: Database) -> None:
    kind = UtcDateTime()
    at = datetime(2026, 11, 23, 12, tzinfo=UTC)
    assert kind.process_result_value(at.replace(tzinfo=None), database.engine.dialect) == at
    with pytest.raises(ValueError, match="zone"):
        kind.process_bind_param(at.replace(tzinfo=None), database.engine.dialect)
