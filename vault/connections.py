"""Connections kept ready: transactions that begin and end by one call of the driver each."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, NoReturn

import sqlalchemy
from sqlmodel import Session

_KEPT = 4  # of the fifty, for each way of opening a transaction


class Ends(NamedTuple):
    """What one kind of database is told where a transaction begins and ends."""

    begin: Callable[[sqlalchemy.Connection], None]
    commit: Callable[[sqlalchemy.Connection], None]
    roll_back: Callable[[sqlalchemy.Connection], None]


class Connections:
    """Connections that open one kind of transaction; the last ones used are kept out of the pool, ready for the next.

    To take one from the pool and bring it back takes longer than most transactions here, and on SQLite whoever
    writes through another one than the last writer reads its pages anew. For SQLAlchemy a kept connection is in one
    transaction all the time: to begin and end its own would take it as long as the database takes for the statements.

    Args:
        engine: With the options of this kind.
        ends: What the database is told.
        commits: Whether a transaction that did not raise is committed.
    """

    def __init__(self, engine: sqlalchemy.Engine, ends: Ends, *, commits: bool) -> None:
        self._engine = engine
        self._begin = ends.begin
        self._end = ends.commit if commits else ends.roll_back
        self._commits = commits
        self._kept: deque[tuple[sqlalchemy.Connection, sqlalchemy.RootTransaction]] = deque()

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """Open a transaction, and end it.

        Raises:
            InvalidRequestError: Somebody rolled it back within, and raised nothing.
        """
        try:
            connection, transaction = self._kept.pop()
            fresh = False
        except IndexError:
            connection, fresh = self._engine.connect(), True
        try:
            if fresh:
                transaction = connection.begin()  # the engine's listeners tell the database
            else:
                self._begin(connection)
            session = _Joined(connection)
            try:
                yield session
                if self._commits:
                    session.finish()
            finally:
                session.leave()
            if transaction.is_active:
                self._end(connection)
            elif self._commits:
                _refuse()
        except BaseException:
            if connection.invalidated:  # the others were cut off too
                self.close()
            connection.close()
            raise
        if transaction.is_active and len(self._kept) < _KEPT:
            self._kept.append((connection, transaction))
        else:
            connection.close()

    def close(self) -> None:
        """Give back those that are kept."""
        while self._kept:
            self._kept.pop()[0].close()


def _refuse() -> NoReturn:
    raise sqlalchemy.exc.InvalidRequestError("The transaction was rolled back within; nothing was written.")


class _Joined(Session):
    """A session over a connection whose transaction is already open, and ends elsewhere.

    Most transactions here run statements and no objects; a session that keeps objects would take longer to make than
    SQLite takes for the whole of it, and so becomes one only when somebody asks for more than its connection.
    """

    _whole = False

    def __init__(self, connection: sqlalchemy.Connection) -> None:
        self._joined: sqlalchemy.Connection | None = connection

    def __getattr__(self, name: str) -> Any:
        """Become a whole session: nothing that one has was there yet."""
        if self._whole:
            raise AttributeError(name)
        self._whole = True
        super().__init__(self._joined, expire_on_commit=False)
        return getattr(self, name)

    def connection(self, *_arguments: Any, **_options: Any) -> sqlalchemy.Connection:
        """Return the connection.

        Raises:
            RuntimeError: The transaction is over.
        """
        if self._joined is None:
            raise RuntimeError("the transaction is over")
        return self._joined

    def finish(self) -> None:
        """Write what objects it holds."""
        if self._whole:
            self.flush()

    def leave(self) -> None:
        """Let go of the connection, which somebody else's transaction may use next."""
        if self._whole and self.in_transaction():  # it holds objects, or began its part in the transaction
            self.close()
        self.bind = self._joined = None
