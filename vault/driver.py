"""What is said to a database's driver past SQLAlchemy, and to PostgreSQL past psycopg: the statements of hot paths."""

from __future__ import annotations

from hashlib import sha256
from typing import Any, Final, NoReturn

import psycopg
import sqlalchemy
from psycopg.pq import ExecStatus, TransactionStatus
from sqlalchemy import event
from sqlmodel import Session

from vault.connections import Ends

READS_ONLY: Final = "reads_only"
"""The option of a connection whose transactions only read."""
FLUSHED_LATER: Final = "flushed_later"
"""The option of a connection whose commits wait for no flush."""

_BEGIN: Final = b"BEGIN ISOLATION LEVEL READ COMMITTED"
_BEGIN_FLUSHED_LATER: Final = _BEGIN + b"; SET LOCAL synchronous_commit = off"
_BEGIN_READING: Final = b"BEGIN ISOLATION LEVEL REPEATABLE READ"
_DONE: Final = {ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK}
_OPEN: Final = {TransactionStatus.INTRANS, TransactionStatus.INERROR}
_NAMED: Final = "named"  # in the notes that a pooled connection carries along
_TEXT, _BINARY = 0, 1


class Named:
    """A statement of PostgreSQL that its C library runs in one call, during which other threads have the interpreter.

    psycopg itself waits in Python: it takes and gives up the interpreter some five times for each statement, which
    is a switch of threads each time that another one wants it.

    Args:
        sql: With `$1`, `$2` and so on for bytes, text or NULL.
    """

    def __init__(self, sql: str) -> None:
        self._sql = sql.encode()
        self._name = f"vault_{sha256(self._sql).hexdigest()[:16]}".encode()

    def one(self, session: Session, *values: bytes | str | None) -> bytes:
        """Execute it; return the first column of its only row as PostgreSQL spells it."""
        connection = session.connection()
        named = connection.info.setdefault(_NAMED, set())
        if self._name not in named:
            _call(connection, self._sql, "prepare", self._name, self._sql)
            named.add(self._name)
        sent = [value.encode() if isinstance(value, str) else value for value in values]
        formats = [_TEXT if isinstance(value, str) else _BINARY for value in values]
        found = _call(connection, self._sql, "exec_prepared", self._name, sent, formats).get_value(0, 0)
        assert isinstance(found, bytes)
        return found


def drive(connection: sqlalchemy.Connection, sql: str, parameters: object = ()) -> Any:
    """Execute by the driver alone: through the engine each statement would cost 20 us more. Errors are SQLAlchemy's."""
    driver: Any = connection.connection.dbapi_connection
    try:
        return driver.execute(sql, parameters)
    except connection.dialect.loaded_dbapi.Error as error:
        _raise_translated(connection, sql, parameters, error)


def begin_and_end_postgresql(engine: sqlalchemy.Engine) -> None:
    """Let transactions of an engine begin and end by single calls of PostgreSQL's C library.

    psycopg, which is then told to commit or roll back, finds nothing open; so it does not forget, as it would after
    each rollback, the statements that it prepared.
    """
    event.listen(engine, "begin", _begin)
    event.listen(engine, "commit", _commit)
    event.listen(engine, "rollback", _roll_back)


def _begin(connection: sqlalchemy.Connection) -> None:
    if not _driver(connection).autocommit:
        options = connection.get_execution_options()
        writing = _BEGIN_FLUSHED_LATER if options.get(FLUSHED_LATER) else _BEGIN
        _execute(connection, _BEGIN_READING if options.get(READS_ONLY) else writing)


def _commit(connection: sqlalchemy.Connection) -> None:
    if not _driver(connection).autocommit and _execute(connection, b"COMMIT") != b"COMMIT":
        raise sqlalchemy.exc.InvalidRequestError(
            "PostgreSQL rolled back: one of the transaction's statements had failed."
        )


def _roll_back(connection: sqlalchemy.Connection) -> None:
    driver = None if connection.invalidated else _driver(connection)
    if driver and not driver.autocommit and driver.pgconn.transaction_status in _OPEN:  # a kept connection's is over
        _execute(connection, b"ROLLBACK")


POSTGRESQL: Final = Ends(_begin, _commit, _roll_back)
"""What PostgreSQL is told where a transaction begins and ends."""


def _execute(connection: sqlalchemy.Connection, sql: bytes) -> object:
    return _call(connection, sql, "exec_", sql).command_status


def _call(connection: sqlalchemy.Connection, sql: bytes, verb: str, *arguments: object) -> Any:
    driver = _driver(connection)
    try:
        result = getattr(driver.pgconn, verb)(*arguments)
        if result.status in _DONE:
            return result
        if driver.closed:
            raise psycopg.OperationalError(result.get_error_message())
        raise psycopg.errors.error_from_result(result)
    except psycopg.Error as error:
        _raise_translated(connection, sql.decode(), (), error)


def _raise_translated(connection: sqlalchemy.Connection, sql: str, parameters: object, error: Exception) -> NoReturn:
    # What SQLAlchemy itself does with one; it has no public name.
    connection._handle_dbapi_exception(error, sql, parameters, None, None)  # type: ignore[arg-type]  # noqa: SLF001
    raise error


def _driver(connection: sqlalchemy.Connection) -> Any:
    return connection.connection.dbapi_connection
