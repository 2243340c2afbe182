"""A thief has the owner's signing key, and every session that it opens: the owner's succession ends that, at any moment."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.client_kit import PURCHASE
from tests.http_kit import House, changed, dump, new_databases, serving, session_of, slug
from tests.waiting import together
from twinvault.owner import Owner
from twinvault.profile import Profile
from vault.encoding import b64u, parse_b64u
from vault.parties import people
from vault.schema.freshness import Freshness
from vault.seal.dsse import Envelope, parse_envelope
from vault.seal.ids import new_id
from vault.seal.kit import RecoveryKit, new_kit
from vault.seal.person import sign_succession
from vault.seal.ring import Head, sign_head
from vault.seal.signing import SigningKey, new_seed
from vault.seal.slot import new_device_secret, recovery_key, seal_slot


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    sqlite = request.param == "sqlite"
    urls = (None, None) if sqlite else new_databases(request.getfixturevalue("postgresql_server"))
    with serving(tmp_path_factory.mktemp("house"), *urls) as house:
        yield house


class Robbed:
    """An owner whose keys a thief has, and the request that would replace them, which was held back."""

    def __init__(self, house: House, folder: Path) -> None:
        self.house = house
        self.thief, self.kit = Owner.init(
            folder, house.service.trust, passphrase=None, categories=[PURCHASE], api=house.api()
        )
        self.new = new_kit(new_device_secret())
        self.request = house.sent.hold_back("POST", "/successions", self.succeed)
        self.body: dict[str, str] = json.loads(self.request.content)
        self.signed = parse_envelope(parse_b64u(self.body["succession"]))

    def succeed(self, kit: RecoveryKit | None = None) -> Owner:
        profile = Profile.load(self.thief.profile.folder)
        return Owner.succeed(profile, kit or self.kit, self.new, api=self.house.api())

    def send(self, **forged: Any) -> httpx.Response:
        url = forged.pop("url", self.request.url)
        return self.house.send(self.request, url=url, content=json.dumps({**self.body, **forged}).encode())

    def head(self, signer: SigningKey, **forged: Any) -> str:
        old = self.thief._rings.read()
        now = old.ring.head
        honest: dict[str, Any] = {
            "vault": now.vault, "version": now.version + 1, "prev": old.head.digest, "issued_at_s": now.issued_at_s,
            "pages": now.pages, "devices": now.devices,
        }  # fmt: skip
        return b64u(sign_head(Head(**{**honest, **forged}), signer).encoded)


@pytest.fixture
def robbed(place: House, tmp_path: Path) -> Robbed:
    return Robbed(place, tmp_path / "vault")


def test_what_is_forged_or_of_another_vault_replaces_nothing(robbed: Robbed, tmp_path: Path) -> None:
    house, thief = robbed.house, robbed.thief._keys.signer
    other = Robbed(house, tmp_path / "other")
    vault, new_key = robbed.thief.vault, SigningKey(robbed.kit.next_owner_seed)
    prev = parse_envelope(parse_b64u(robbed.thief._rings._api.get(
        f"/v1/vaults/{b64u(vault)}/ring", auth=robbed.thief._auth)["identity"][0])).digest  # fmt: skip
    strange = SigningKey(new_seed())
    before = dump(house.database)
    for forged in (
        sign_succession(thief, strange.public_key, vault_id=vault, prev=prev),
        sign_succession(strange, strange.public_key, vault_id=vault, prev=prev),
        sign_succession(new_key, strange.public_key, vault_id=vault, prev=new_id() * 2),
        Envelope(robbed.signed.payload_type, robbed.signed.payload, other.signed.signatures),
        other.signed,
    ):
        assert slug(robbed.send(succession=b64u(forged.encoded))) == "succession-refused"
    for url in (str(other.request.url), str(other.request.url).replace(b64u(other.thief.vault), b64u(new_id()))):
        assert slug(robbed.send(url=url)) == "succession-refused"
    for wrong, slugs in (
        ({"account": other.body["account"]}, {"bad-seal"}),
        ({"head": other.body["head"]}, {"bad-seal"}),
        ({"head": robbed.head(thief)}, {"bad-seal"}),
        ({"head": robbed.head(new_key, pages={})}, {"bad-ring"}),
        ({"head": robbed.head(new_key, version=9)}, {"version-conflict"}),
        ({"slots": []}, {"invalid-request"}),
        ({"slots": [{**robbed.body["slots"][0], "locator_hash": b64u(bytes(32))}]}, {"misnamed-slot"}),  # type: ignore[dict-item]
        ({"succession": "AA"}, {"bad-seal"}),
        ({"plan": "gold"}, {"invalid-request"}),
    ):
        assert slug(robbed.send(**wrong)) in slugs, wrong  # type: ignore[arg-type]
    assert changed(before, dump(house.database)) == set()
    assert robbed.send().status_code == 200
    assert robbed.succeed().vault == vault


def test_the_same_one_again_is_acknowledged_again_and_changes_nothing(robbed: Robbed) -> None:
    answers = together(*[robbed.send] * 4)
    assert {answer.status_code for answer in answers} == {200}
    before = dump(robbed.house.database)
    answers.append(robbed.send())
    answers.append(robbed.send(head="AA", account="AA"))
    assert len({json.dumps(answer.json()["receipt"]["entry"]) for answer in answers}) == 1
    assert changed(before, dump(robbed.house.database)) == set()
    second = new_kit(new_device_secret())
    Owner.succeed(Profile.load(robbed.succeed().profile.folder), robbed.new, second, api=robbed.house.api())
    before = dump(robbed.house.database)
    assert robbed.send().status_code == 200  # it did take effect; that another followed it changes nothing about that
    assert changed(before, dump(robbed.house.database)) == set()


def test_a_ring_or_account_published_meanwhile_lets_none_of_it_through(robbed: Robbed) -> None:
    robbed.thief.enrol(SigningKey(new_seed()).public_key)
    before = dump(robbed.house.database)
    assert slug(robbed.send()) == "version-conflict"
    assert changed(before, dump(robbed.house.database)) == set()
    robbed.thief.consents()  # the key in force is as before
    assert len(robbed.succeed().devices()) == 2


def test_no_session_or_request_of_the_old_key_outlives_it(robbed: Robbed) -> None:
    thief, house = robbed.thief, robbed.house
    old, account = session_of(thief), f"/v1/vaults/{b64u(thief.vault)}/account"
    stolen = seal_slot(thief._keys.root, recovery_key(new_seed()))
    slot = f"/v1/vaults/{b64u(thief.vault)}/slots/{b64u(stolen.slot_id)}"
    body = {"slot": b64u(stolen.encoded)}
    assert house.http.put(slot, json=body, headers=old).status_code == 204
    owner = robbed.succeed()
    assert slug(house.http.get(account, headers=old)) == "not-signed-in"
    assert slug(house.http.put(slot, json=body, headers=old)) == "not-signed-in"
    assert house.http.get(f"/v1/slots/{b64u(stolen.slot_id)}").status_code == 404
    assert owner.consents() == []


@pytest.mark.parametrize("asked", ["account", "put", "delete", "freshness"])
def test_who_was_let_in_just_before_gets_nothing_after(
    robbed: Robbed, asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The session was looked up, then the succession committed, then the request went on."""
    from vault.parties import routes

    thief, house = robbed.thief, robbed.house
    old, path = session_of(thief), f"/v1/vaults/{b64u(thief.vault)}"
    stolen = seal_slot(thief._keys.root, recovery_key(new_seed()))
    kept = robbed.body["slots"][0]["locator_hash"]  # type: ignore[index]
    honest, done = routes.find_caller, []

    def find_caller(*args: Any, **kwargs: Any) -> Any:
        found = honest(*args, **kwargs)
        if not done:
            done.append(True)
            # On SQLite a snapshot keeps nobody from writing.
            assert robbed.send().status_code == 200
        return found

    monkeypatch.setattr(routes, "find_caller", find_caller)
    match asked:
        case "account":
            answer = house.http.get(f"{path}/account", headers=old)
        case "put":
            answer = house.http.put(
                f"{path}/slots/{b64u(stolen.slot_id)}", json={"slot": b64u(stolen.encoded)}, headers=old
            )
        case "freshness":
            answer = house.http.put(f"{path}/freshness", json={"freshness": "day"}, headers=old)
        case _:
            answer = house.http.delete(f"{path}/slots/{kept}", headers=old)
    assert slug(answer) == "not-signed-in"
    with house.database.snapshot() as session:
        assert people.get(session, thief.vault).freshness is Freshness.MONTH
    assert house.http.get(f"/v1/slots/{b64u(stolen.slot_id)}").status_code == 404
    assert house.http.get(f"/v1/slots/{kept}").status_code == 200
