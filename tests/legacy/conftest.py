from __future__ import annotations

import pytest

from tests.legacy_kit import Heirs
from vault.db import Database


@pytest.fixture
def heirs(database: Database, shortkeys: Database) -> Heirs:
    """An owner without a plan yet, on each database."""
    return Heirs(database, shortkeys)


@pytest.fixture
def quick(sqlite_database: Database, shortkeys: Database) -> Heirs:
    """The same on SQLite only, for what no database decides."""
    return Heirs(sqlite_database, shortkeys)
