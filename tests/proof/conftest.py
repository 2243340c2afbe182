"""One real answer to a company, to attack."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.answer_kit import OFFER, Service, answer_in, running
from tests.proof.forge import Honest
from vault.db import Database
from vault.store.shortkeys import create_table


@pytest.fixture(scope="module")
def honest(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Honest]:
    """One real answer to a company, from a real service."""
    folder = tmp_path_factory.mktemp("verify")
    shutil.copy(sqlite_template, folder / "vault.sqlite")
    database, shortkeys = Database(f"sqlite:///{folder}/vault.sqlite"), Database(f"sqlite:///{folder}/short.sqlite")
    create_table(shortkeys)
    service = Service(database, shortkeys, keyring=folder / "keyring")
    service.release_model()
    service.put_rows("completejourney:bread")
    with running(service):
        response = service.ask(service.consent(), OFFER)
        answer_in(response)
        yield Honest(service, response.content)
    database.close()
    shortkeys.close()
