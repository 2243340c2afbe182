from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.answer_kit import Service, running
from vault.db import Database


@pytest.fixture
def service(database: Database, shortkeys: Database, tmp_path: Path) -> Iterator[Service]:
    """A running service with a model and rows, on each database."""
    with running(_made(database, shortkeys, tmp_path)) as found:
        yield found


@pytest.fixture
def quick(sqlite_database: Database, shortkeys: Database, tmp_path: Path) -> Iterator[Service]:
    """The same on SQLite only, for what no database decides."""
    with running(_made(sqlite_database, shortkeys, tmp_path)) as found:
        yield found


@pytest.fixture
def crowded(postgresql_database: Database, shortkeys: Database, tmp_path: Path) -> Iterator[Service]:
    """The same on PostgreSQL only, for what many do at once there."""
    with running(_made(postgresql_database, shortkeys, tmp_path)) as found:
        yield found


def _made(database: Database, shortkeys: Database, folder: Path) -> Service:
    service = Service(database, shortkeys, keyring=folder / "keyring")
    service.release_model()
    service.put_rows("completejourney:bread", "completejourney:cheese")
    return service
