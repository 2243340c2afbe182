"""An old backup put back does not bring a stolen owner key back, nor what it opened."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient

from tests.client_kit import PURCHASE
from tests.http_kit import await_sequencer, serving
from tests.site_kit import app_settings, operate, restore
from twinvault.api import Api, ApiError
from twinvault.owner import Owner
from twinvault.profile import Profile
from vault.app import create_app
from vault.encoding import b64u
from vault.ops.archive import back_up
from vault.ops.site import Site
from vault.parties import people
from vault.parties.people import VaultState
from vault.proof.trust import TrustedRoot
from vault.seal.errors import SealError
from vault.seal.kit import RecoveryKit, new_kit
from vault.seal.slot import new_device_secret


class Inside(httpx.BaseTransport):
    """The way of a client to a service that runs in this process."""

    def __init__(self, client: TestClient) -> None:
        self._client = client

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        headers = {name: value for name, value in request.headers.items() if name != "content-length"}
        url = request.url.raw_path.decode()
        answer = self._client.request(request.method, url, content=request.read(), headers=headers)
        return httpx.Response(answer.status_code, headers=dict(answer.headers), content=answer.content)


@dataclass
class Succeeded:
    """A site that was backed up before an owner replaced the key twice and froze the vault with the newest."""

    site: Site
    backup: Path
    trust: TrustedRoot
    thief: Owner
    keys: tuple[bytes, ...]
    kits: tuple[RecoveryKit, ...]


@pytest.fixture
def succeeded(urls: tuple[str | None, str | None], tmp_path: Path) -> Succeeded:
    with serving(tmp_path / "house", *urls) as house:
        api, trust = house.api(), house.service.trust
        thief, kit = Owner.init(tmp_path / "vault", trust, passphrase=None, categories=[PURCHASE], api=api)
        back_up(house.service.site, tmp_path / "backup")
        owner, kits = thief, [kit]
        for _ in range(2):
            kits.append(new_kit(new_device_secret()))
            owner = Owner.succeed(owner.profile, kits[-2], kits[-1], api=api)
        owner.freeze(frozen=True)
        await_sequencer(house.database)
        return Succeeded(house.service.site, tmp_path / "backup", trust, thief, owner._keys.owner_keys, tuple(kits))


def test_the_stolen_key_stays_out_and_the_newest_kit_brings_the_vault_back(
    succeeded: Succeeded, tmp_path: Path
) -> None:
    site, thief, newest = succeeded.site, succeeded.thief, succeeded.kits[-1]
    for _ in range(2):  # as often as it takes
        told = restore(site, succeeded.backup)
        assert (told["successions"], told["freezes_and_profiles"]) == (2, 1)
        database, short_keys = site.databases()
        with database.snapshot() as session:
            person = people.get(session, thief.vault)
        database.close()
        short_keys.close()
        assert (person.owner_keys, person.state) == (succeeded.keys, VaultState.FROZEN)
    with TestClient(create_app(app_settings(site))) as client:
        api = Api(succeeded.trust.issuer, transport=Inside(client), sleep=lambda _: None)
        for kit in succeeded.kits[:-1]:
            with pytest.raises(ApiError, match="No slot lies there"):
                Owner.recover(tmp_path / "stolen", succeeded.trust, kit, api=api)
        with pytest.raises(ApiError) as refusal:
            api.get(f"/v1/vaults/{b64u(thief.vault)}/account", auth=thief._auth)
        assert refusal.value.slug == "sign-in-refused"
        # The ring is as the backup has it, by the former key: it counts for nobody until the owner signs another.
        with pytest.raises(SealError):
            Owner.recover(tmp_path / "machine", succeeded.trust, newest, api=api)
        profile, last = Profile.load(tmp_path / "machine"), new_kit(new_device_secret())
        with pytest.raises(SealError):
            Owner.succeed(profile, newest, last, api=api)
        owner = Owner.succeed(profile, newest, last, restored=True, api=api)
        assert len(owner.devices()) == 1
        assert owner.frozen()
    assert operate(["doctor", "--site", str(site.folder)]).exit_code == 0
