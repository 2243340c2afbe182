"""The database edge: one engine, explicit transactions, the same rules on SQLite and PostgreSQL."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import resources
from typing import Any

import alembic.command
import alembic.config
import sqlalchemy
from sqlalchemy import event
from sqlmodel import Session, SQLModel

SQLModel.metadata.naming_convention = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}

_BUSY_TIMEOUT_S = 30
_WRITERS = 8
_DURABLE = "durable"  # in the notes that a pooled connection carries along


class UtcDateTime(sqlalchemy.TypeDecorator[datetime]):
    """An aware UTC time; SQLite keeps none of its own, so the zone is put back on reading."""

    impl = sqlalchemy.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sqlalchemy.Dialect) -> datetime | None:
        """Refuse times without a zone and store the rest in UTC."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without a zone cannot be stored")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: sqlalchemy.Dialect) -> datetime | None:
        """Return the stored time as an aware one."""
        if value is None or value.tzinfo is not None:
            return value
        return value.replace(tzinfo=UTC)


class Database:
    """An engine whose transactions are opened and committed only at the edges.

    Args:
        url: SQLAlchemy URL; `sqlite:///path` or `postgresql+psycopg://...`.
    """

    def __init__(self, url: str) -> None:
        self.url = sqlalchemy.make_url(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        options: dict[str, Any] = {"connect_args": {"timeout": _BUSY_TIMEOUT_S}} if self.is_sqlite else {}
        self.engine = sqlalchemy.create_engine(self.url, pool_size=10, max_overflow=40, **options)
        # PostgreSQL takes many writers at once, but more threads than this only fight for the interpreter: half as
        # many commits a second.
        self._writers = _Turns(self.url.database) if self.is_sqlite else threading.Semaphore(_WRITERS)
        if self.is_sqlite:
            event.listen(self.engine, "connect", _configure_sqlite)
        event.listen(self.engine, "begin", _begin_sqlite if self.is_sqlite else _begin_postgresql)
        reading: dict[str, Any] = {} if self.is_sqlite else {"isolation_level": "REPEATABLE READ"}
        self._reader = self.engine.execution_options(reads_only=True, **reading)
        self._flushed_later = self.engine.execution_options(flushed_later=True)

    @contextmanager
    def transaction(self, *, durable: bool = True) -> Iterator[Session]:
        """Open one writing transaction; commit it when the block ends, roll it back if it raises.

        Never open a second one inside of it: its turn would come after the first one's end.

        Args:
            durable: False leaves the flush to the next durable commit, of any process, which flushes all
                commits before it in one go. Only for whoever then waits for a checkpoint: the sequencer's
                commit is durable and comes after it. What nobody waited for may be lost in a power cut.

        Guarantees: when this returns normally the commit is atomic, outlives this process, and, if durable,
            lies on the disk (SQLite WAL with synchronous=FULL, PostgreSQL with synchronous_commit=on).
        """
        engine = self.engine if durable else self._flushed_later
        with self._writers, Session(engine, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def snapshot(self) -> Iterator[Session]:
        """Open one reading transaction that sees one state and never waits for writers."""
        with Session(self._reader, expire_on_commit=False) as session:
            yield session
            session.rollback()

    def close(self) -> None:
        """Give back every connection."""
        self.engine.dispose()


class _Turns:
    """One writer at a time, over all threads and processes of a SQLite file; a killed one gives its turn back.

    SQLite itself lets writers poll for its lock and starves some.

    Args:
        path: The database's file; None or `:memory:` if no other process can open it.
    """

    def __init__(self, path: str | None) -> None:
        self._path = f"{path}.writers" if path and path != ":memory:" else None
        self._threads = threading.Lock()
        self._file = -1

    def __enter__(self) -> None:
        self._threads.acquire()
        try:
            if self._path is not None:
                self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                fcntl.flock(self._file, fcntl.LOCK_EX)
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_error: object) -> None:
        if self._file >= 0:
            os.close(self._file)  # and so unlocks it
        self._file = -1
        self._threads.release()


def migrate(database: Database, revision: str = "head") -> None:
    """Bring the schema to a revision; safe to run again.

    Args:
        database: The database to change.
        revision: An Alembic revision; `head` for the newest.
    """
    config = alembic.config.Config()
    with resources.as_file(resources.files("vault") / "_migrations") as folder:
        config.set_main_option("script_location", str(folder))
        with database.engine.connect() as connection:
            config.attributes["connection"] = connection
            alembic.command.upgrade(config, revision)
            connection.commit()


def _configure_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # SQLAlchemy's "begin" event below decides, not the driver
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "secure_delete=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: sqlalchemy.Connection) -> None:
    driver: Any = connection.connection.driver_connection  # through the engine each of these would cost 20 us
    if connection.get_execution_options().get("reads_only"):
        driver.execute("BEGIN DEFERRED")
        return
    if _must_change_durability(connection):
        driver.execute(f"PRAGMA synchronous={'FULL' if connection.info[_DURABLE] else 'NORMAL'}")
    # A deferred transaction that later writes can fail half-way with a stale snapshot; taking the
    # write lock first makes every writing transaction serial.
    driver.execute("BEGIN IMMEDIATE")


def _begin_postgresql(connection: sqlalchemy.Connection) -> None:
    if not connection.get_execution_options().get("reads_only") and _must_change_durability(connection):
        driver: Any = connection.connection.driver_connection
        driver.autocommit = True  # inside a transaction a rollback would undo the setting
        driver.execute(f"SET synchronous_commit = {'on' if connection.info[_DURABLE] else 'off'}")
        driver.autocommit = False


def _must_change_durability(connection: sqlalchemy.Connection) -> bool:
    """Say whether a pooled connection's last writer had it otherwise, and note what it will be."""
    wanted = not connection.get_execution_options().get("flushed_later")
    changes = connection.info.get(_DURABLE, True) is not wanted
    connection.info[_DURABLE] = wanted
    return changes
