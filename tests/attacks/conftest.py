"""One running service on each database for all attacks over HTTP, with two owners and two companies."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.http_kit import House, Town, new_databases, serving, settle


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def house(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    urls: tuple[str | None, str | None] = (None, None)
    if request.param == "postgresql":
        urls = new_databases(request.getfixturevalue("postgresql_server"))
    with serving(tmp_path_factory.mktemp("house"), *urls) as found:
        yield found


@pytest.fixture(scope="session")
def town(house: House) -> Town:
    return settle(house)
