"""Stored rows: written once, the newest release in force, erased with their openings."""

from __future__ import annotations

from dataclasses import replace

import pytest
import sqlalchemy
from sqlalchemy.exc import IntegrityError

from tests.leaves import leaves
from tests.vault_kit import PURCHASE
from vault.db import Database
from vault.proof.leaf import LeafKind
from vault.schema.trace import Period
from vault.seal.ids import CompartmentId, VaultId, new_id, sha256
from vault.tlog.log import append
from vault.twin import rows
from vault.twin.rows import StoredRow

VAULT, OTHER = VaultId(new_id()), VaultId(new_id())
SEPTEMBER, OCTOBER = Period("2026-09"), Period("2026-10")


def put(database: Database, name: bytes, period: Period = OCTOBER, vault: VaultId = VAULT, index: int = 0) -> StoredRow:
    with database.transaction() as session:
        leaf = append(session, LeafKind.RELEASE, {"rows": 1}, {"vault": "v"})
        compartment = CompartmentId(sha256(period.encode() + vault)[:16])
        sealed = name + bytes([index])
        row = StoredRow(
            vault, compartment, sha256(name), index, PURCHASE, period, bytes(32), 7, sha256(sealed), sealed, leaf.id
        )
        rows.put(session, [row])
    return row


def stored(database: Database, **which) -> list[StoredRow]:
    with database.snapshot() as session:
        return rows.rows_for(session, VAULT, **which)


def test_the_newest_release_of_a_month_is_in_force(database: Database) -> None:
    september = put(database, b"one", SEPTEMBER)
    put(database, b"two")
    newest = [put(database, b"three", index=0), put(database, b"three", index=1)]
    put(database, b"other", vault=OTHER)
    assert stored(database) == [september, *newest]
    assert stored(database, periods=[OCTOBER]) == newest
    assert stored(database, periods=[]) == []
    with database.snapshot() as session:
        asked = [sha256(b"one"), sha256(b"two"), sha256(b"other")]
        assert rows.released(session, VAULT, asked) == {sha256(b"one"), sha256(b"two")}


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE imprint_row SET sealed = 'x'",
        "INSERT INTO imprint_row SELECT * FROM imprint_row",
        "UPDATE model SET envelope = 'x'",
        "DELETE FROM model",
    ],
)
def test_the_database_itself_writes_once(database: Database, statement: str) -> None:
    put(database, b"one")
    with database.transaction() as session:
        values = "1, 'm', 'd', 'b', 'e', 1"
        session.connection().execute(sqlalchemy.text(f"INSERT INTO model VALUES ({values})"))
    with pytest.raises((IntegrityError, sqlalchemy.exc.DBAPIError)), database.transaction() as session:
        session.connection().execute(sqlalchemy.text(statement))


def test_replace_is_no_way_round(sqlite_database: Database) -> None:
    put(sqlite_database, b"one")
    with pytest.raises(IntegrityError), sqlite_database.transaction() as session:
        session.connection().execute(sqlalchemy.text("INSERT OR REPLACE INTO imprint_row SELECT * FROM imprint_row"))


def test_one_name_is_stored_once(database: Database) -> None:
    row = put(database, b"one")
    with pytest.raises(IntegrityError), database.transaction() as session:
        rows.put(session, [replace(row, sealed=b"other noise")])


def test_erasing_takes_rows_and_their_openings(database: Database) -> None:
    september, october = put(database, b"one", SEPTEMBER), put(database, b"two")
    with database.transaction() as session:
        assert rows.forget(session, VAULT, [september.compartment_id]) == 1
    assert stored(database) == [october]
    with database.transaction() as session:
        assert rows.forget(session, VAULT) == 1
    with database.snapshot() as session:
        assert [personal for _, _, personal in leaves(session)] == [None, None]
