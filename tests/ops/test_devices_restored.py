"""An old backup put back lets no device in again that its owner revoked since."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from tests.http_kit import await_sequencer, serving
from tests.site_kit import app_settings, put_back_by_hand, restore
from vault.app import create_app
from vault.encoding import b64u, parse_b64u, parse_json
from vault.ops.archive import back_up
from vault.ops.site import Site
from vault.proof.leaf import LeafKind
from vault.seal.device import ChainHead, DeviceRole
from vault.seal.ids import CompartmentId, DeviceId, VaultId, key_id, new_id
from vault.seal.person import Role, SignIn, sign_sign_in
from vault.seal.signing import SigningKey, new_seed
from vault.store import devices


@dataclass
class Revoked:
    """A site that was backed up before two devices of a vault were revoked, one after the other, and one was not."""

    site: Site
    backup: Path
    vault: VaultId
    gone: list[SigningKey]
    kept: SigningKey

    def admitted(self, client: TestClient) -> list[bool]:
        """Say which of the three devices get a session."""
        return [self._signs_in(client, key) for key in [*self.gone, self.kept]]

    def _signs_in(self, client: TestClient, key: SigningKey) -> bool:
        asked = client.post("/v1/challenges", json={"vault": b64u(self.vault), "role": "device"}).json()
        device, nonce = DeviceId(key_id(key.public_key)), parse_b64u(asked["nonce"])
        answer = sign_sign_in(key, SignIn(self.vault, Role.DEVICE, device, nonce, asked["origin"]))
        return client.post("/v1/sessions", content=answer.encoded).status_code == 200


@pytest.fixture
def revoked(urls: tuple[str | None, str | None], tmp_path: Path) -> Revoked:
    first, second, kept = (SigningKey(new_seed()) for _ in range(3))
    with serving(tmp_path / "house", *urls) as house:
        owner = house.owner()
        for key in (first, second, kept):
            owner.enrol(key.public_key)
        back_up(house.service.site, tmp_path / "backup")
        for key in (first, second):  # the second before the log took the head that revoked the first, or after
            owner.revoke_device(DeviceId(key_id(key.public_key)))
        later = house.owner()  # of whom the backup knows nothing
        later.enrol(first.public_key)
        later.revoke_device(DeviceId(key_id(first.public_key)))
        await_sequencer(house.database)
        return Revoked(house.service.site, tmp_path / "backup", owner.vault, [first, second], kept)


def test_no_device_that_was_revoked_since_is_let_in_again(revoked: Revoked) -> None:
    for _ in range(2):  # as often as it takes
        assert restore(revoked.site, revoked.backup)["devices_revoked"] == 2
        with TestClient(create_app(app_settings(revoked.site))) as client:
            assert client.get("/readyz").status_code == 200
            assert revoked.admitted(client) == [False, False, True]
    database, short_keys = revoked.site.databases()
    with database.snapshot() as session:
        found = devices.find(session, revoked.vault, DeviceId(key_id(revoked.gone[0].public_key)))
    assert found is not None
    assert (found.role, found.accepted) == (DeviceRole.SOURCE, {})
    for opened in (database, short_keys):
        opened.close()


@pytest.mark.parametrize("urls", ["sqlite"], indirect=True)
def test_nor_by_a_copy_that_is_put_back_by_hand(revoked: Revoked) -> None:
    put_back_by_hand(revoked.site, revoked.backup)
    with TestClient(create_app(app_settings(revoked.site))) as client:
        assert revoked.admitted(client) == [False, False, True]


def test_what_anybody_signs_about_devices_does_not_fill_the_journal(tmp_path: Path) -> None:
    with serving(tmp_path / "house") as house:
        owner = house.owner()
        key = SigningKey(new_seed())
        owner.enrol(key.public_key)
        known = owner.revoke_device(DeviceId(key_id(key.public_key)))
        await_sequencer(house.database)
        journal = house.service.site.journal
        assert journal is not None
        sizes = [journal._path.stat().st_size]
        for seq in (1, 2):  # batches that nobody sent
            heads = {CompartmentId(new_id()): ChainHead(seq, new_seed()) for _ in range(500)}
            owner._rings._publish(
                lambda _own: {}, lambda _own, known=known, heads=heads: replace(known, accepted=heads)
            )
            await_sequencer(house.database)
            sizes.append(journal._path.stat().st_size)
        found = journal.read()
        heads_of = [leaf for leaf in found.leaves if leaf.kind is LeafKind.RING_HEAD]
    assert sizes[2] - sizes[1] == sizes[1] - sizes[0] < 1_000
    assert not {leaf.entry for leaf in heads_of} & found.signed.keys()
    bodies = [parse_json(leaf.personal.body) for leaf in heads_of if leaf.personal]
    assert [body.get("revoked") for body in bodies] == [None, None, [b64u(known.id)], None, None]
