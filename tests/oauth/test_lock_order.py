"""An erasure and a company's next key delete the same requests and tokens, and neither waits for the other for ever."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
import sqlalchemy
from sqlmodel import Session

from tests.company_kit import CompanyKit
from tests.vault_kit import NOW
from tests.waiting import until
from vault.clock import unix_s
from vault.db import Database
from vault.oauth import authorizations, families
from vault.oauth.models import authorization, family
from vault.parties import companies
from vault.seal.ids import ConsentId, VaultId

ANN, BOB = VaultId(b"a" * 16), VaultId(b"b" * 16)
FIRST, ONE, TWO, LAST = (bytes([n]) * 32 for n in (0, 1, 2, 3))
"""What only the erasure deletes, what both delete, and what only the company's change deletes."""
written = pytest.mark.parametrize(
    "written", [(FIRST, ONE, TWO, LAST), (TWO, FIRST, ONE, LAST)], ids=["so", "otherwise"]
)


def insert(database: Database, table: sqlalchemy.Table, rows: list[dict[str, Any]]) -> None:
    with database.transaction() as session:
        for row in rows:
            session.connection().execute(sqlalchemy.insert(table), row)


@contextmanager
def holding(database: Database, key: sqlalchemy.ColumnElement[Any], name: bytes) -> Iterator[None]:
    """Keep everybody from one row."""
    with database.transaction() as session:
        session.connection().execute(sqlalchemy.select(key).where(key == name).with_for_update()).one()
        yield


def blockers(database: Database, pid: int) -> set[int]:
    with database.engine.connect() as connection:
        return set(connection.exec_driver_sql(f"SELECT unnest(pg_blocking_pids({pid}))").scalars())


def meet(
    database: Database,
    key: sqlalchemy.ColumnElement[Any],
    moved: dict[str, Any],
    erases: Callable[[Session], object],
    changes: Callable[[Session], object],
) -> None:
    """Let both run at once, and one row of theirs move between the looks that they take.

    The erasure has looked and waits; what it looked at then is changed, so that it lies behind the rest for whoever
    looks now; the company's change comes as far as its own last row.
    """
    pids: dict[str, int] = {}

    def run(who: str, act: Callable[[Session], object]) -> None:
        with database.transaction() as session:
            pids[who] = session.connection().exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
            act(session)

    def waits(who: str, running: Future[None], *, for_whom: str | None = None) -> None:
        def does() -> bool:
            found = blockers(database, pids[who]) if who in pids else set()
            return running.done() or (bool(found) if for_whom is None else pids[for_whom] in found)

        until(does, f"the {who} waits")

    with ThreadPoolExecutor(2) as pool, ExitStack() as last, ExitStack() as first:
        first.enter_context(holding(database, key, FIRST))
        last.enter_context(holding(database, key, LAST))
        erasing = pool.submit(run, "erasure", erases)
        waits("erasure", erasing)
        with database.transaction() as session:
            session.connection().execute(sqlalchemy.update(key.table).where(key == ONE).values(**moved))
        changing = pool.submit(run, "change", changes)
        waits("change", changing)
        first.close()
        waits("erasure", erasing, for_whom="change")
        last.close()
        erasing.result()
        changing.result()


@written
def test_requests_that_wait_are_ended_in_one_order(postgresql_database: Database, written: tuple[bytes, ...]) -> None:
    company = CompanyKit().company_id
    row = {"parameters": "{}", "jkt": "k", "request": "r", "state": "shown", "opens_until_s": 1, "expires_at_s": 9}
    rows = [
        {
            **row,
            "request_hash": name,
            "vault_id": BOB if name == LAST else ANN,
            "company_id": "other" if name == FIRST else company,
        }
        for name in written
    ]
    insert(postgresql_database, authorization, rows)
    meet(
        postgresql_database,
        authorization.c.request_hash,
        {"user_code": "BCDFGHJK"},
        lambda session: authorizations.forget(session, ANN),
        lambda session: authorizations.end_waiting(session, company),
    )
    with postgresql_database.snapshot() as session:
        assert session.connection().execute(sqlalchemy.select(authorization)).all() == []


@written
def test_refresh_tokens_are_ended_in_one_order(postgresql_database: Database, written: tuple[bytes, ...]) -> None:
    kit = CompanyKit()
    with postgresql_database.transaction() as session:
        company = companies.register(session, kit.record(NOW), now=NOW)
    row = {"secret_hash": b"", "former_hash": b"", "retry_until_s": 0, "expires_at_s": unix_s(NOW)}
    mine, theirs = ConsentId(b"c" * 16), ConsentId(b"d" * 16)
    rows = [
        {
            **row,
            "family_id": name,
            "consent_id": theirs if name == LAST else mine,
            "company_id": "other" if name == FIRST else kit.company_id,
        }
        for name in written
    ]
    insert(postgresql_database, family, rows)
    meet(
        postgresql_database,
        family.c.family_id,
        {"expires_at_s": unix_s(NOW) + 1},
        lambda session: families.forget(session, [mine]),
        lambda session: families.end_issued_to(session, company, now=NOW),
    )
    with postgresql_database.snapshot() as session:
        assert session.connection().execute(sqlalchemy.select(family)).all() == []
