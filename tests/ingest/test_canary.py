"""Invariant 1: no byte of a trace is readable from what the server keeps or writes after an upload."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy
import structlog
from sqlalchemy import text

from tests.vault_kit import NOW, begin
from twinvault.demo.scan import find_in, find_in_files
from vault.db import Database
from vault.errors import VaultError
from vault.ingest.accept import accept
from vault.logging import configure_logging
from vault.seal.upload import parse_upload

CANARY = "canary Kanarienvogel 7f3a"


def upload(database: Database, shortkeys: Database) -> None:
    owner, source = begin(database, shortkeys)
    good, bad = source.upload(owner.compartment(), count=3, text=CANARY), bytearray()
    with database.transaction() as session:
        accept(session, source.caller, parse_upload(good), now=NOW)
    bad[:] = source.upload(owner.compartment(), text=CANARY)
    bad[-1] ^= 1
    with pytest.raises(VaultError), database.transaction() as session:
        accept(session, source.caller, parse_upload(bytes(bad)), now=NOW)


def test_sqlite_files_and_logs_hold_no_trace(
    sqlite_database: Database, shortkeys: Database, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    configure_logging("DEBUG")
    try:
        upload(sqlite_database, shortkeys)
    finally:
        structlog.reset_defaults()  # this test's standard error is closed after it
    files = [path for path in tmp_path.iterdir() if "sqlite" in path.name]
    assert {"vault.sqlite", "vault.sqlite-wal", "shortkeys.sqlite"} <= {path.name for path in files}
    assert find_in_files(files, CANARY) == {}
    written = capfd.readouterr()
    assert find_in((written.out + written.err).encode(), CANARY) == []
    with sqlite_database.transaction() as session:
        session.connection().execute(
            text("INSERT INTO slot (locator_hash, vault_id, slot) VALUES (:n, :n, :c)"),
            {"n": b"n", "c": CANARY.encode()},
        )
    assert find_in_files(files, CANARY), "a scanner that finds no planted canary shows nothing"


def test_postgresql_rows_hold_no_trace(postgresql_database: Database, shortkeys: Database) -> None:
    upload(postgresql_database, shortkeys)
    assert find_in(dump(postgresql_database), CANARY) == []
    with postgresql_database.transaction() as session:
        session.connection().execute(
            text("INSERT INTO slot (locator_hash, vault_id, slot) VALUES (:n, :n, :c)"),
            {"n": b"n", "c": CANARY.encode()},
        )
    assert find_in(dump(postgresql_database), CANARY)


def dump(database: Database) -> bytes:
    """Return every value of every table, text and bytes as they are."""
    found: list[bytes] = []
    with database.snapshot() as session:
        for table in sqlalchemy.inspect(database.engine).get_table_names():
            for row in session.connection().execute(text(f'SELECT * FROM "{table}"')):
                found += [value if isinstance(value, bytes) else str(value).encode() for value in row]
    return b"\n".join(found)
