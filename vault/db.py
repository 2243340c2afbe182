"""The database edge: one engine, explicit transactions, the same rules on SQLite and PostgreSQL."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import resources
from queue import SimpleQueue
from typing import Any, NamedTuple

import sqlalchemy
from sqlalchemy import event
from sqlmodel import Session, SQLModel

from vault.connections import Connections, Ends
from vault.driver import FLUSHED_LATER, POSTGRESQL, READS_ONLY, begin_and_end_postgresql, drive
from vault.errors import VaultError

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


class DatabaseBusy(VaultError):
    """A database that another writer did not let go of in time; nothing was written."""

    slug = "database-busy"
    title = "Database is busy"
    status = 503

    def __init__(self) -> None:
        super().__init__(
            "Another writer holds the database; nothing was written, try again. If it stays so, a process of the"
            " service hangs: end that one, the others go on.",
            retry_after_s=1,
        )


class Prepared:
    """A Core statement of a hot path: compiled once for each kind of database, then run by the driver alone.

    Building, looking up and wrapping a statement costs SQLAlchemy several times what SQLite takes to run it.

    Args:
        statement: With a `bindparam` for every value that varies; no parameter expands.
    """

    def __init__(self, statement: sqlalchemy.sql.ClauseElement) -> None:
        self._statement = statement
        self._compiled: dict[str, _Compiled] = {}

    def run(self, session: Session, **values: object) -> int:
        """Execute it; return how many rows it changed."""
        return int(self._execute(session, values)[1].rowcount)

    def one(self, session: Session, **values: object) -> Any:
        """Execute it; return its only row, with a field for each column, or None."""
        compiled, cursor = self._execute(session, values)
        found = cursor.fetchone()
        return None if found is None else compiled.row(found)

    def all(self, session: Session, **values: object) -> list[Any]:
        """Execute it; return all its rows."""
        compiled, cursor = self._execute(session, values)
        return [compiled.row(found) for found in cursor.fetchall()]

    def _execute(self, session: Session, values: dict[str, object]) -> tuple[_Compiled, Any]:
        connection = session.connection()
        compiled = self._compiled.get(connection.dialect.name)
        if compiled is None:
            compiled = self._compiled[connection.dialect.name] = _Compiled(self._statement, connection.dialect)
        parameters = compiled.parameters(values)
        for listen in connection.engine.dispatch.before_cursor_execute:  # whoever watches statements sees these too
            listen(connection, None, compiled.sql, parameters, None, False)
        return compiled, drive(connection, compiled.sql, parameters)


class _Compiled:
    """A prepared statement in the words of one database."""

    def __init__(self, statement: sqlalchemy.sql.ClauseElement, dialect: sqlalchemy.Dialect) -> None:
        compiled: Any = statement.compile(dialect=dialect)
        self.sql = str(compiled)
        self._places: list[str] | None = compiled.positiontup
        self._fixed = {name: value for name, value in compiled.params.items() if not compiled.binds[name].required}
        # What SQLAlchemy itself asks to read a row; it has no public name.
        columns = compiled._result_columns or []  # noqa: SLF001  (as said above)
        readers = [column.type._cached_result_processor(dialect, None) for column in columns]  # noqa: SLF001  (as said above)
        self._readers = readers if any(readers) else None
        self._row = NamedTuple("Row", [(column.keyname, Any) for column in columns])._make

    def parameters(self, values: dict[str, object]) -> object:
        if self._fixed:
            values = self._fixed | values
        return values if self._places is None else tuple(values[name] for name in self._places)

    def row(self, found: Any) -> Any:
        if self._readers is None:
            return self._row(found)
        return self._row(
            value if read is None else read(value) for read, value in zip(self._readers, found, strict=True)
        )


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
        self.engine = sqlalchemy.create_engine(
            self.url, pool_size=10, max_overflow=40, hide_parameters=True, **options
        )  # an error's text goes to terminals and logs; what was bound may be a key
        # PostgreSQL takes many writers at once, but more threads than this only fight for the interpreter: half as
        # many commits a second.
        self._writers = _Turns(self.url.database) if self.is_sqlite else _Places(_WRITERS)
        if self.is_sqlite:
            event.listen(self.engine, "connect", _configure_sqlite)
            event.listen(self.engine, "begin", _begin_sqlite)
        else:
            begin_and_end_postgresql(self.engine)
        ends = _SQLITE if self.is_sqlite else POSTGRESQL
        self._durable = Connections(self.engine, ends, commits=True)
        self._flushed_later = Connections(self.engine.execution_options(**{FLUSHED_LATER: True}), ends, commits=True)
        self._reading = Connections(self.engine.execution_options(**{READS_ONLY: True}), ends, commits=False)

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

        Raises:
            DatabaseBusy: On SQLite, another thread or a writer that takes no turns held it for 30 seconds.
        """
        connections = self._durable if durable else self._flushed_later
        with self._writers, connections.transaction() as session:
            yield session

    @contextmanager
    def snapshot(self) -> Iterator[Session]:
        """Open one reading transaction that sees one state and never waits for writers."""
        with self._reading.transaction() as session:
            yield session

    def close(self) -> None:
        """Give back every connection."""
        for connections in (self._durable, self._flushed_later, self._reading):
            connections.close()
        self.engine.dispose()


class _Turns:
    """One writer at a time, over all threads and processes of a SQLite file; a killed one gives its turn back.

    SQLite itself lets writers poll for its lock and starves some. A process that was stopped in its turn holds up
    one thread of each other process, as long as it takes: flock knows no time limit, and waiting for it in a helper's
    thread would make every contended turn dearer. Whoever waits behind that one thread is refused.

    Args:
        path: The database's file; None or `:memory:` if no other process can open it.
    """

    def __init__(self, path: str | None) -> None:
        self._path = f"{path}.writers" if path and path != ":memory:" else None
        self._threads = threading.Lock()
        self._file = -1

    def __enter__(self) -> None:
        if not self._threads.acquire(timeout=_BUSY_TIMEOUT_S):
            raise DatabaseBusy
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


class _Places:
    """So many writers at once: a semaphore that costs a twentieth of the standard library's, which is written in Python."""

    def __init__(self, count: int) -> None:
        self._free: SimpleQueue[None] = SimpleQueue()
        for _ in range(count):
            self._free.put(None)

    def __enter__(self) -> None:
        self._free.get()

    def __exit__(self, *_error: object) -> None:
        self._free.put(None)


def migrate(database: Database, revision: str = "head") -> None:
    """Bring the schema to a revision; safe to run again.

    Args:
        database: The database to change.
        revision: An Alembic revision; `head` for the newest.
    """
    from alembic import command  # noqa: PLC0415  # only who sets a site up migrates; every process would load it
    from alembic.config import Config  # noqa: PLC0415  # as above

    config = Config()
    with resources.as_file(resources.files("vault") / "_migrations") as folder:
        config.set_main_option("script_location", str(folder))
        with database.engine.connect() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, revision)
            connection.commit()


def _configure_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # SQLAlchemy's "begin" event below decides, not the driver
    cursor = connection.cursor()
    pragmas = ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "secure_delete=ON")
    # SQLite brings the log of its pages home within a commit, with two flushes, while every other writer waits.
    for pragma in (*pragmas, "wal_autocheckpoint=4000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: sqlalchemy.Connection) -> None:
    if connection.get_execution_options().get(READS_ONLY):
        drive(connection, "BEGIN DEFERRED")
        return
    if _must_change_durability(connection):
        drive(connection, f"PRAGMA synchronous={'FULL' if connection.info[_DURABLE] else 'NORMAL'}")
    # A deferred transaction that later writes can fail half-way with a stale snapshot; taking the
    # write lock first makes every writing transaction serial.
    try:
        drive(connection, "BEGIN IMMEDIATE")
    except sqlalchemy.exc.OperationalError as error:
        if getattr(error.orig, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY:
            raise DatabaseBusy from error
        raise


def _must_change_durability(connection: sqlalchemy.Connection) -> bool:
    """Say whether a pooled connection's last writer had it otherwise, and note what it will be."""
    wanted = not connection.get_execution_options().get(FLUSHED_LATER)
    changes = connection.info.get(_DURABLE, True) is not wanted
    connection.info[_DURABLE] = wanted
    return changes


def _commit_sqlite(connection: sqlalchemy.Connection) -> None:
    drive(connection, "COMMIT")


def _roll_back_sqlite(connection: sqlalchemy.Connection) -> None:
    drive(connection, "ROLLBACK")


_SQLITE = Ends(_begin_sqlite, _commit_sqlite, _roll_back_sqlite)
