"""An old backup put back forgets no freeze, no profile and no suspension that came since."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from tests.http_kit import await_sequencer, serving
from tests.site_kit import app_settings, restore
from vault.app import create_app
from vault.clock import SystemClock
from vault.ops.archive import back_up
from vault.ops.site import Site
from vault.parties import companies, people
from vault.parties.companies import CompanyId, CompanyStatus
from vault.parties.people import VaultState
from vault.seal.ids import VaultId
from vault.seal.person import Profile, sign_profile


@dataclass
class Ordered:
    """A site that was backed up before owners and the operator said who may not be asked and who may not ask."""

    site: Site
    backup: Path
    frozen: VaultId
    thawed: VaultId
    minor: VaultId
    suspended: CompanyId
    back: CompanyId
    long_suspended: CompanyId


@pytest.fixture
def ordered(urls: tuple[str | None, str | None], tmp_path: Path) -> Ordered:
    with serving(tmp_path / "house", *urls) as house:
        frozen, thawed, minor = house.owner(), house.owner(), house.owner()
        shop, back, long_suspended = (CompanyId(house.company(name).company_id) for name in ("Shop", "Back", "Long"))

        def put(company: CompanyId, status: CompanyStatus) -> None:
            with house.database.transaction() as session:
                companies.set_status(session, company, status, now=SystemClock().now())

        put(long_suspended, CompanyStatus.SUSPENDED)
        back_up(house.service.site, tmp_path / "backup")
        frozen.freeze(frozen=True)
        thawed.freeze(frozen=True)
        thawed.freeze(frozen=False)
        profile = sign_profile(minor._keys.signer, Profile(minor=True), vault_id=minor.vault, sequence=1)
        with house.database.transaction() as session:
            people.set_profile(session, minor.vault, profile, now=SystemClock().now())
        for company in shop, back:
            put(company, CompanyStatus.SUSPENDED)
        for company in back, long_suspended:
            put(company, CompanyStatus.ACTIVE)
        await_sequencer(house.database)
        vaults = frozen.vault, thawed.vault, minor.vault
        return Ordered(house.service.site, tmp_path / "backup", *vaults, shop, back, long_suspended)


def test_freezes_profiles_and_suspensions_since_are_in_force_again(ordered: Ordered) -> None:
    database, short_keys = ordered.site.databases()
    for _ in range(2):  # as often as it takes
        told = restore(ordered.site, ordered.backup)
        assert (told["freezes_and_profiles"], told["companies_suspended"]) == (4, 1)
        with database.snapshot() as session:
            states = [people.get(session, vault).state for vault in (ordered.frozen, ordered.thawed, ordered.minor)]
            assert states == [VaultState.FROZEN, VaultState.ACTIVE, VaultState.ACTIVE]
            assert people.get(session, ordered.minor).profile == Profile(minor=True)
            named = ordered.suspended, ordered.back, ordered.long_suspended
            found = [companies.get(session, company).status for company in named]
            # The operator repeats a reinstatement: nobody signed for it.
            assert found == [CompanyStatus.SUSPENDED, CompanyStatus.ACTIVE, CompanyStatus.SUSPENDED]
        database.close()
        with TestClient(create_app(app_settings(ordered.site))) as client:
            assert client.get("/readyz").status_code == 200  # and logs, and so journals, what was repeated
    short_keys.close()
