"""The database edge: one engine, explicit transactions, the same rules on SQLite and PostgreSQL."""

from __future__ import annotations

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
        # SQLite lets writers poll for its lock and starves some; a queue in front of it is fair.
        self._writers = threading.Lock() if self.is_sqlite else None
        if self.is_sqlite:
            event.listen(self.engine, "connect", _configure_sqlite)
            event.listen(self.engine, "begin", _begin_sqlite)

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """Open one writing transaction; commit it when the block ends, roll it back if it raises.

        Guarantees: when this returns normally the commit is durable (SQLite WAL with
        synchronous=FULL, PostgreSQL with its default synchronous_commit).
        """
        if self._writers is None:
            with Session(self.engine, expire_on_commit=False) as session, session.begin():
                yield session
            return
        with self._writers, Session(self.engine, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def snapshot(self) -> Iterator[Session]:
        """Open one reading transaction that sees one state and never waits for writers."""
        engine = self.engine.execution_options(
            **({"sqlite_begin": "DEFERRED"} if self.is_sqlite else {"isolation_level": "REPEATABLE READ"})
        )
        with Session(engine, expire_on_commit=False) as session:
            yield session
            session.rollback()

    def close(self) -> None:
        """Give back every connection."""
        self.engine.dispose()


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
    # A deferred transaction that later writes can fail half-way with a stale snapshot; taking the
    # write lock first makes every writing transaction serial.
    mode = connection.get_execution_options().get("sqlite_begin", "IMMEDIATE")
    connection.exec_driver_sql(f"BEGIN {mode}")
