from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.answer_kit import running
from tests.erasure_kit import Erasing
from vault.db import Database


@pytest.fixture
def site(database: Database, shortkeys: Database, tmp_path: Path) -> Iterator[Erasing]:
    """A running service with a model, rows and traces, on each database."""
    with running(_made(database, shortkeys, tmp_path)) as found:
        assert isinstance(found, Erasing)
        yield found


@pytest.fixture
def quick(sqlite_database: Database, shortkeys: Database, tmp_path: Path) -> Iterator[Erasing]:
    """The same on SQLite only, for what no database decides."""
    with running(_made(sqlite_database, shortkeys, tmp_path)) as found:
        assert isinstance(found, Erasing)
        yield found


def _made(database: Database, shortkeys: Database, folder: Path) -> Erasing:
    site = Erasing(database, shortkeys, keyring=folder / "keyring")
    site.release_model()
    site.put_rows("completejourney:bread", "completejourney:cheese")
    site.buy("completejourney:bread")
    site.buy("completejourney:bread", period=site.september)
    return site
