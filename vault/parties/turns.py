"""Turns at a row that many share while somebody is to change it: on PostgreSQL, who comes later waits behind who waits.

A row's lock lets everybody who shares it pass by whoever waits to have it alone, for as long as they come: a company that
asks without a pause would hold up its own suspension, and its owner's freeze. An advisory lock has a queue. SQLite needs
none, for one writes at a time there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, func
from sqlmodel import Session

from vault.db import Prepared

_NEEDLESS: Final = ContextVar("needless", default=False)


@contextmanager
def needless() -> Iterator[None]:
    """Take no turns: nobody else is there, and PostgreSQL has room for some thousands of advisory locks at once only."""
    token = _NEEDLESS.set(True)
    try:
        yield
    finally:
        _NEEDLESS.reset(token)


class Turns:
    """How a transaction takes its turns, before it locks the rows.

    Args:
        statement: Selects `shared` and `alone` of one row, by its key.
    """

    def __init__(self, statement: Select[Any]) -> None:
        self._statement = Prepared(statement)

    def take(self, session: Session, **key: object) -> None:
        """Wait for whoever came before, and hold the turns until the transaction ends; where there is no row, do nothing."""
        if session.connection().dialect.name == "postgresql" and not _NEEDLESS.get():
            self._statement.one(session, **key)


def shared(name: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return a turn beside all others that share the row of this name: a person's vault in hex, or a company's id."""
    return func.pg_advisory_xact_lock_shared(func.hashtextextended(name, 0)).label("shared")


def alone(name: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return a turn that whoever shares the row of this name waits for, if they come later."""
    return func.pg_advisory_xact_lock(func.hashtextextended(name, 0)).label("alone")
