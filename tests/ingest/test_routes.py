from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from tests.vault_kit import MONTH, NOW, Owner, Source, publish
from vault.db import Database
from vault.encoding import b64u, parse_b64u
from vault.http.problems import install_problems
from vault.ingest.routes import ingest_router
from vault.ingest.vaults import vaults_router
from vault.parties.routes import parties_router
from vault.parties.sessions import SignInDesk
from vault.seal.account import open_account, verify_account
from vault.seal.device import Device
from vault.seal.dsse import parse_envelope
from vault.seal.ids import sha256
from vault.seal.person import Role, SignIn, sign_sign_in, verify_genesis
from vault.seal.ring import open_seed, verify_ring
from vault.seal.signing import SigningKey, new_seed
from vault.seal.slot import open_slot, parse_slot, recovery_key, seal_slot
from vault.seal.upload import parse_upload, verify_acknowledgement
from vault.store import devices

ORIGIN = "https://vault.example"
SERVICE = SigningKey(new_seed())


class FixedClock:
    def now(self) -> datetime:
        return NOW


@dataclass
class Server:
    """A client and a person that it created a vault for."""

    http: TestClient
    database: Database
    shortkeys: Database

    def sign_in(self, key: SigningKey, owner: Owner, source: Source | None = None) -> dict[str, str]:
        role = Role.OWNER if source is None else Role.DEVICE
        asked = self.http.post("/v1/challenges", json={"vault": b64u(owner.vault), "role": role})
        nonce = parse_b64u(asked.json()["nonce"])
        answer = SignIn(owner.vault, role, None if source is None else source.device.id, nonce, ORIGIN)
        opened = self.http.post("/v1/sessions", content=sign_sign_in(key, answer).encoded)
        assert opened.status_code == 200, opened.text
        return {"Authorization": f"Bearer {opened.json()['token']}"}


@pytest.fixture
def server(database: Database, shortkeys: Database) -> Iterator[Server]:
    app = FastAPI()
    install_problems(app)
    for router in (parties_router, vaults_router, ingest_router):
        app.include_router(router)
    app.state.database, app.state.shortkeys, app.state.clock = database, shortkeys, FixedClock()
    app.state.service = SERVICE
    app.state.sign_in_desk = SignInDesk(ORIGIN, bytes(32), devices.live_key)
    with TestClient(app) as client:
        yield Server(client, database, shortkeys)


def vault_body(owner: Owner, slot_key: Any) -> dict[str, Any]:
    page = owner.extend()
    slot = seal_slot(owner.root, slot_key)
    locked = {b64u(name): b64u(seed) for name, seed in owner.locked.items()}
    return {
        "genesis": b64u(owner.genesis.encoded),
        "account": b64u(owner.account().encoded),
        "slots": [{"locator_hash": b64u(slot.slot_id), "slot": b64u(slot.encoded)}],
        "ring": {"head": b64u(owner.sign().encoded), "pages": [{"page": b64u(page.encoded), "locked": locked}]},
    }


def begin(server: Server) -> tuple[Owner, Source, Any]:
    owner, key = Owner(), recovery_key(new_seed())
    source = owner.source()
    made = server.http.post("/v1/vaults", json=vault_body(owner, key))
    assert made.status_code == 201, made.text
    assert made.json() == {"vault": b64u(owner.vault)}
    return owner, source, key


def problem(response: Any, status: int, slug: str) -> None:
    assert (response.status_code, response.json()["type"]) == (status, f"/problems/{slug}"), response.text
    assert response.headers["content-type"] == "application/problem+json"


def test_a_vault_is_created_found_by_its_slot_and_opened(server: Server) -> None:
    owner, _, key = begin(server)
    found = server.http.get(f"/v1/slots/{b64u(key.slot_id)}").json()
    root = open_slot(parse_slot(parse_b64u(found["slot"])), key)
    genesis = verify_genesis(parse_envelope(parse_b64u(found["genesis"])))
    account = verify_account(parse_envelope(parse_b64u(found["account"])), genesis.owner_key, genesis.vault_id)
    seeds = open_account(account, root, genesis.owner_key)
    assert seeds == owner.seeds
    assert found["successions"] == []
    session = server.sign_in(SigningKey(seeds.signing), owner)
    ring = server.http.get(f"/v1/vaults/{found['vault']}/ring", headers=session).json()
    pages = [parse_envelope(parse_b64u(page["page"])) for page in ring["pages"]]
    verified = verify_ring(parse_envelope(parse_b64u(ring["head"])), pages, genesis.owner_key, genesis.vault_id)
    for compartment in verified.compartments.values():
        locked = parse_b64u(ring["pages"][0]["locked"][b64u(compartment.id)])
        assert len(open_seed(genesis.vault_id, compartment, root, locked)) == 32


def test_creation_is_all_or_nothing_and_happens_once(server: Server) -> None:
    owner, key = Owner(), recovery_key(new_seed())
    body = vault_body(owner, key)
    bad = {**body, "ring": {**body["ring"], "pages": [{**body["ring"]["pages"][0], "locked": {}}]}}
    problem(server.http.post("/v1/vaults", json=bad), 422, "bad-ring")
    missing = server.http.get(f"/v1/slots/{b64u(key.slot_id)}")
    problem(missing, 404, "not-stored")
    assert server.http.post("/v1/vaults", json=body).status_code == 201
    problem(server.http.post("/v1/vaults", json=body), 409, "vault-exists")
    problem(server.http.post("/v1/vaults", json={**body, "plan": "gold"}), 422, "invalid-request")
    problem(server.http.post("/v1/vaults", json={**body, "genesis": "AA"}), 400, "bad-seal")


def test_an_upload_is_acknowledged_by_the_service_and_read_back(server: Server) -> None:
    owner, source, _ = begin(server)
    device = server.sign_in(source.key, owner, source)
    body = source.upload(owner.compartment(), count=2)
    url = f"/v1/vaults/{b64u(owner.vault)}/batches"
    answer = server.http.post(url, content=body, headers=device)
    assert answer.status_code == 200, answer.text
    acknowledged = verify_acknowledgement(parse_envelope(answer.content), SERVICE.public_key)
    assert (acknowledged.upload, acknowledged.heads) == (sha256(body), source.heads)
    session = server.sign_in(owner.key, owner)
    query = {"compartment": b64u(owner.compartment().id)}
    page = server.http.get(url, params=query, headers=session).json()
    assert [parse_b64u(batch) for batch in page["batches"]] == [b.encoded for b in parse_upload(body).batches]
    last = server.http.get(url, params={**query, "after": str(page["next"])}, headers=session).json()
    assert last == {"batches": [], "next": None}
    heads = server.http.get(f"/v1/vaults/{b64u(owner.vault)}/heads", headers=session).json()
    assert heads == {"heads": {b64u(source.device.id): b64u(parse_upload(body).head_list.encoded)}}


def test_refusals_of_uploads_are_problems(server: Server) -> None:
    owner, source, _ = begin(server)
    device = server.sign_in(source.key, owner, source)
    url = f"/v1/vaults/{b64u(owner.vault)}/batches"
    problem(server.http.post(url, content=b"", headers=device), 400, "bad-seal")
    old = owner.compartment()
    publish(server.database, server.shortkeys, owner, *_next(owner))
    problem(server.http.post(url, content=source.upload(old), headers=device), 409, "closed-epoch")
    source.heads = {}
    source.seal(owner.compartment())
    problem(server.http.post(url, content=source.upload(owner.compartment()), headers=device), 409, "broken-chain")
    problem(server.http.post(url, content=b""), 401, "not-signed-in")
    owner_session = server.sign_in(owner.key, owner)
    problem(server.http.post(url, content=b"", headers=owner_session), 403, "wrong-role")


def _next(owner: Owner) -> tuple[Any, list[Any]]:
    page = owner.extend()
    return owner.sign(), [page]


def test_one_vault_cannot_reach_into_another(server: Server) -> None:
    owner, source, key = begin(server)
    victim, _, victim_key = begin(server)
    mine, device = server.sign_in(owner.key, owner), server.sign_in(source.key, owner, source)
    base = f"/v1/vaults/{b64u(victim.vault)}"
    slot = {"slot": b64u(seal_slot(owner.root, key).encoded)}
    for refused in (
        server.http.get(f"{base}/ring", headers=mine),
        server.http.get(f"{base}/ring", headers=device),
        server.http.get(f"{base}/account", headers=mine),
        server.http.get(f"{base}/heads", headers=mine),
        server.http.get(f"{base}/batches", params={"compartment": b64u(bytes(16))}, headers=mine),
        server.http.put(f"{base}/account", json={"account": b64u(owner.account().encoded)}, headers=mine),
        server.http.put(f"{base}/ring", json={"head": b64u(owner.sign().encoded), "pages": []}, headers=mine),
        server.http.put(f"{base}/slots/{b64u(key.slot_id)}", json=slot, headers=mine),
        server.http.delete(f"{base}/slots/{b64u(victim_key.slot_id)}", headers=mine),
        server.http.post(f"{base}/batches", content=source.upload(owner.compartment()), headers=device),
    ):
        problem(refused, 403, "not-your-vault")
    taken = {"slot": b64u(seal_slot(owner.root, victim_key).encoded)}
    mine_base = f"/v1/vaults/{b64u(owner.vault)}"
    problem(
        server.http.put(f"{mine_base}/slots/{b64u(victim_key.slot_id)}", json=taken, headers=mine),
        409,
        "already-stored",
    )
    assert server.http.delete(f"{mine_base}/slots/{b64u(victim_key.slot_id)}", headers=mine).status_code == 204
    assert server.http.get(f"/v1/slots/{b64u(victim_key.slot_id)}").status_code == 200


def test_slots_are_added_replaced_and_deleted(server: Server) -> None:
    owner, _, key = begin(server)
    session, base = server.sign_in(owner.key, owner), f"/v1/vaults/{b64u(owner.vault)}/slots"
    other = recovery_key(new_seed())
    slot = {"slot": b64u(seal_slot(owner.root, other).encoded)}
    problem(server.http.put(f"{base}/{b64u(key.slot_id)}", json=slot, headers=session), 422, "misnamed-slot")
    for _ in range(2):
        assert server.http.put(f"{base}/{b64u(other.slot_id)}", json=slot, headers=session).status_code == 204
    assert server.http.delete(f"{base}/{b64u(key.slot_id)}", headers=session).status_code == 204
    problem(server.http.get(f"/v1/slots/{b64u(key.slot_id)}"), 404, "not-stored")
    assert server.http.get(f"/v1/slots/{b64u(other.slot_id)}").json()["slot"] == slot["slot"]


def test_a_device_gets_pages_without_locked_seeds_and_waits_for_months_without(server: Server) -> None:
    owner, source, _ = begin(server)
    device = server.sign_in(source.key, owner, source)
    url = f"/v1/vaults/{b64u(owner.vault)}/ring"
    pages = server.http.get(url, params={"period": MONTH}, headers=device).json()["pages"]
    assert [page["locked"] for page in pages] == [{}]
    refused = server.http.get(url, params={"period": "2027-01"}, headers=device)
    problem(refused, 503, "no-compartment")
    assert refused.headers["retry-after"] == "3600"
    problem(server.http.get(url, params={"period": "2027-13"}, headers=device), 400, "bad-seal")
    session = server.sign_in(owner.key, owner)
    assert server.http.get(url, params={"period": "2027-01"}, headers=session).json()["pages"] == []


def test_ring_and_account_are_compared_and_swapped(server: Server) -> None:
    owner, source, _ = begin(server)
    session = server.sign_in(owner.key, owner)
    device = server.sign_in(source.key, owner, source)
    base = f"/v1/vaults/{b64u(owner.vault)}"
    owner.devices[source.device.id] = Device(source.key.public_key, source.device.role, {})
    head = {"head": b64u(owner.sign().encoded), "pages": []}
    for _ in range(2):
        assert server.http.put(f"{base}/ring", json=head, headers=session).status_code == 204
    owner.version = 1
    problem(
        server.http.put(f"{base}/ring", json={"head": b64u(owner.sign().encoded), "pages": []}, headers=session),
        409, "version-conflict",
    )  # fmt: skip
    problem(server.http.get(f"{base}/ring", headers=device), 401, "not-signed-in")
    stored = server.http.get(f"{base}/account", headers=session).json()
    after = owner.account(2, parse_envelope(parse_b64u(stored["account"])).digest)
    assert server.http.put(f"{base}/account", json={"account": b64u(after.encoded)}, headers=session).status_code == 204
    again = owner.account(2, parse_envelope(parse_b64u(stored["account"])).digest)
    problem(
        server.http.put(f"{base}/account", json={"account": b64u(again.encoded)}, headers=session),
        409, "version-conflict",
    )  # fmt: skip
