"""One owner, one company and the service between them, on each kind of database."""

from __future__ import annotations

import pytest

from tests.consent_kit import World
from vault.db import Database


@pytest.fixture
def world(database: Database, shortkeys: Database) -> World:
    return World(database, shortkeys)
