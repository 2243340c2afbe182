from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.audit_kit import Audited, audited
from vault.db import Database


@pytest.fixture
def site(database: Database, shortkeys: Database, tmp_path: Path) -> Iterator[Audited]:
    """A running service with an auditor, on each database."""
    with audited(database, shortkeys, tmp_path) as found:
        yield found


@pytest.fixture
def quick(sqlite_database: Database, shortkeys: Database, tmp_path: Path) -> Iterator[Audited]:
    """The same on SQLite only, for what no database decides."""
    with audited(sqlite_database, shortkeys, tmp_path) as found:
        yield found
