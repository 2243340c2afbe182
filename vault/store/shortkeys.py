"""Short keys: the outer lock of every locked seed and handover, in a database of its own.

A seed or handover lies in the main database under its short key; deleting the key revokes the blob
there and in every backup of it. Two databases do not commit together, so the order is fixed: a key
is committed before anything locked under it, and a deletion is first an outbox row that commits with
the state change, then an idempotent delete that the acknowledgement waits for and that boot repeats.

Source: SQLite, `PRAGMA secure_delete` and `PRAGMA wal_checkpoint(TRUNCATE)`, https://sqlite.org/pragma.html.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Final, NewType

import sqlalchemy
import sqlalchemy.dialects.postgresql
import sqlalchemy.dialects.sqlite
from sqlalchemy import delete, insert, select
from sqlmodel import Session

from vault.db import Database
from vault.seal.framing import frames
from vault.seal.ids import CompartmentId, VaultId, sha256
from vault.seal.signing import new_seed
from vault.store.errors import ShortKeysNotErased
from vault.store.models import short_key, short_key_deletion, short_key_metadata

ShortKeyName = NewType("ShortKeyName", bytes)
"""SHA-256 of what the key locks: two kinds of blob never share a key."""

PARTS: Final = 64
"""Of the table on PostgreSQL; a withdrawal rewrites one or two of them."""

_CHUNK: Final = 500  # below every database's limit on bound values
_TRIES: Final = 250
_TRY_S: Final = 0.02
_OLDER_READERS: Final = sqlalchemy.text(
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    " AND backend_xmin IS NOT NULL AND age(backend_xmin) >= age(CAST(:horizon AS xid))"
)
_PART_OF: Final = sqlalchemy.text(
    f"SELECT part FROM generate_series(0, {PARTS - 1}) part"  # noqa: S608  (a constant)
    f" WHERE satisfies_hash_partition(CAST('short_key' AS regclass), {PARTS}, part, CAST(:name AS bytea))"
)


def compartment_key(vault: VaultId, compartment: CompartmentId) -> ShortKeyName:
    """Return the name of the short key of one locked seed."""
    return ShortKeyName(sha256(frames(b"locked-seed", vault, compartment)))


def handover_key(handover_digest: bytes) -> ShortKeyName:
    """Return the name of the short key of one handover or reseal.

    Args:
        handover_digest: SHA-256 of the owner-signed handover or of the reseal that replaced it.
    """
    return ShortKeyName(sha256(frames(b"handover", handover_digest)))


def create_table(shortkeys: Database) -> None:
    """Make a database ready to keep short keys; safe to run again.

    Its schema is one table that has no reason to change, so it has no migrations.
    """
    with shortkeys.transaction() as session:
        connection = session.connection()
        short_key_metadata.create_all(connection)
        if not shortkeys.is_sqlite:
            for part in range(PARTS):
                connection.exec_driver_sql(
                    f"CREATE TABLE IF NOT EXISTS short_key_{part} PARTITION OF short_key"
                    f" FOR VALUES WITH (MODULUS {PARTS}, REMAINDER {part})"
                )


def create(shortkeys: Database, names: Iterable[ShortKeyName]) -> dict[ShortKeyName, bytes]:
    """Return a 32-byte key for each name, making and committing those that do not exist.

    Call it before the transaction that stores what they lock: a key without a blob is harmless, a
    blob without a key is lost.
    """
    wanted = sorted(set(names))
    with shortkeys.transaction() as session:
        if wanted:
            dialect = sqlalchemy.dialects.sqlite if shortkeys.is_sqlite else sqlalchemy.dialects.postgresql
            statement = dialect.insert(short_key).on_conflict_do_nothing()
            session.connection().execute(statement, [{"name": name, "key": new_seed()} for name in wanted])
        return _read(session, wanted)


def read(shortkeys: Database, names: Iterable[ShortKeyName]) -> dict[ShortKeyName, bytes]:
    """Return the keys of those names that have one; a deleted key is simply missing."""
    with shortkeys.snapshot() as session:
        return _read(session, sorted(set(names)))


def schedule_deletion(session: Session, names: Iterable[ShortKeyName]) -> None:
    """Decide, in the caller's transaction on the main database, that these keys must go.

    After it commits, call `delete_scheduled` before acknowledging anything.
    """
    rows = [{"name": name} for name in sorted(set(names))]
    if rows:
        session.connection().execute(insert(short_key_deletion), rows)


def delete_scheduled(database: Database, shortkeys: Database) -> int:
    """Delete every key whose deletion was committed; run it before an acknowledgement and at boot.

    Args:
        database: The main database, with the outbox.
        shortkeys: The database of the keys.

    Returns:
        How many deletions were carried out.

    Raises:
        ShortKeysNotErased: A reader kept SQLite from truncating its write-ahead log, or PostgreSQL from
            leaving the keys out; the deletion stays scheduled and the next call completes it.

    Guarantees: once it returns, no byte of these keys is in the table's files, nor, on SQLite, in the
        write-ahead log. PostgreSQL's write-ahead log is kept no longer than the published retention.
    """
    with database.snapshot() as session:
        names = list(session.connection().execute(select(short_key_deletion.c.name)).scalars())
    if not names:
        return 0
    with shortkeys.transaction() as session:
        for chunk in _chunks(names):
            session.connection().execute(delete(short_key).where(short_key.c.name.in_(chunk)))
        horizon = None if shortkeys.is_sqlite else _transaction_id(session)
    if horizon is None:
        _truncate_wal(shortkeys)
    else:
        _rewrite(shortkeys, names, horizon)
    with database.transaction() as session:
        for chunk in _chunks(names):
            session.connection().execute(delete(short_key_deletion).where(short_key_deletion.c.name.in_(chunk)))
    return len(names)


def _truncate_wal(shortkeys: Database) -> None:
    """Overwrite the write-ahead log; SQLite waits by itself for who reads and writes, but not for who else does this."""
    until_s = time.monotonic() + _TRIES * _TRY_S
    while not _truncated(shortkeys):
        if time.monotonic() > until_s:
            raise ShortKeysNotErased("The short keys are deleted but not yet overwritten; try again.", retry_after_s=1)
        time.sleep(_TRY_S)


def _truncated(shortkeys: Database) -> bool:
    connection = shortkeys.engine.raw_connection()  # a checkpoint cannot run inside a transaction
    try:
        busy, _, _ = connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    finally:
        connection.close()
    return not busy


def _transaction_id(session: Session) -> str:
    found = session.connection().exec_driver_sql("SELECT CAST(CAST(pg_current_xact_id() AS xid) AS text)")
    return str(found.scalar_one())


def _rewrite(shortkeys: Database, names: list[ShortKeyName], horizon: str) -> None:
    """Write the parts of the table in which these keys lay anew: a plain VACUUM leaves their bytes in its pages."""
    # VACUUM cannot run inside a transaction, and keeps what an older snapshot of the same database may still read.
    with shortkeys.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for _ in range(_TRIES):
            if not connection.execute(_OLDER_READERS, {"horizon": horizon}).scalar_one():
                break
            time.sleep(_TRY_S)
        else:
            raise ShortKeysNotErased("The short keys are deleted but not yet overwritten; try again.", retry_after_s=1)
        parts = {connection.execute(_PART_OF, {"name": name}).scalar_one() for name in names}
        for part in sorted(parts):
            connection.exec_driver_sql(f"VACUUM (FULL) short_key_{int(part)}")


def _read(session: Session, names: list[ShortKeyName]) -> dict[ShortKeyName, bytes]:
    found: dict[ShortKeyName, bytes] = {}
    for chunk in _chunks(names):
        rows = session.connection().execute(select(short_key).where(short_key.c.name.in_(chunk)))
        found.update((ShortKeyName(row.name), row.key) for row in rows)
    return found


def _chunks(names: list[ShortKeyName]) -> Iterable[list[ShortKeyName]]:
    return (names[start : start + _CHUNK] for start in range(0, len(names), _CHUNK))
