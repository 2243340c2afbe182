from __future__ import annotations

import threading
from datetime import datetime

import pytest
import sqlalchemy

from vault.db import Database
from vault.parties.once import spend


def test_of_many_threads_with_one_value_exactly_one_wins(database: Database, now: datetime) -> None:
    barrier, won = threading.Barrier(8), list[bool]()

    def use() -> None:
        barrier.wait(10)
        with database.transaction() as session:
            won.append(spend(session, b"dpop", b"key", b"jti", expires_at_s=2**31, now=now))

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(240)
    assert sorted(won) == [False] * 7 + [True]


def test_a_value_is_spent_only_by_a_commit(database: Database, now: datetime) -> None:
    with pytest.raises(ZeroDivisionError), database.transaction() as session:
        assert spend(session, b"dpop", b"jti", expires_at_s=2**31, now=now)
        _ = 1 // 0
    for first in (True, False):
        with database.transaction() as session:
            assert spend(session, b"dpop", b"jti", expires_at_s=2**31, now=now) is first


def test_parts_and_kinds_are_told_apart(sqlite_database: Database, now: datetime) -> None:
    with sqlite_database.transaction() as session:
        for parts in ((b"ab", b"c"), (b"a", b"bc"), (b"abc",)):
            assert spend(session, b"dpop", *parts, expires_at_s=2**31, now=now)
        assert spend(session, b"assertion", b"ab", b"c", expires_at_s=2**31, now=now)


def test_expired_values_go_and_live_ones_stay(database: Database, now: datetime) -> None:
    now_s = int(now.timestamp())
    with database.transaction() as session:
        for number in range(200):
            spend(session, b"old", bytes([number]), expires_at_s=now_s, now=datetime.fromtimestamp(0, now.tzinfo))
        for number in range(200):
            spend(session, b"new", bytes([number]), expires_at_s=now_s + 60, now=now)
        count = sqlalchemy.text("SELECT count(*) FROM spent WHERE expires_at_s = :at")
        assert session.execute(count, {"at": now_s}).scalar_one() == 0
        assert session.execute(count, {"at": now_s + 60}).scalar_one() == 200
