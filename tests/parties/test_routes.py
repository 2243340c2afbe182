from __future__ import annotations

from datetime import datetime

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from tests.company_kit import CompanyKit, b64
from vault.db import Database
from vault.encoding import parse_b64u
from vault.http.problems import install_problems
from vault.parties import companies, people
from vault.parties.routes import DeviceDep, OwnerDep, parties_router
from vault.parties.sessions import SignInDesk
from vault.seal.ids import DeviceId, VaultId, sha256
from vault.seal.person import Role, SignIn, sign_genesis, sign_sign_in
from vault.seal.signing import SigningKey, new_seed

ORIGIN = "https://vault.example"
OWNER, DEVICE = SigningKey(new_seed()), SigningKey(new_seed())
GENESIS = sign_genesis(OWNER, DEVICE.public_key, created_at=1, time_zone="UTC")
VAULT = VaultId(sha256(GENESIS.payload)[:16])
DEVICE_ID = DeviceId(b"d" * 16)


@pytest.fixture
def client(database: Database, now: datetime) -> TestClient:
    class Clock:
        def now(self) -> datetime:
            return now

    app = FastAPI()
    install_problems(app)
    app.state.database, app.state.clock = database, Clock()
    app.state.sign_in_desk = SignInDesk(ORIGIN, b"s" * 32, lambda *_: DEVICE.public_key)
    app.include_router(parties_router)

    @app.get("/owner")
    def owner(caller: OwnerDep) -> str:
        return caller.vault_id.hex()

    @app.get("/device")
    def device(caller: DeviceDep) -> str:
        return caller.device_id.hex()

    with database.transaction() as session:
        people.create(session, GENESIS, now=now)
    return TestClient(app)


def _token(client: TestClient, role: Role) -> str:
    asked = client.post("/v1/challenges", json={"vault": b64(VAULT), "role": role})
    assert asked.json()["origin"] == ORIGIN
    nonce = parse_b64u(asked.json()["nonce"])
    signer, device_id = (OWNER, None) if role is Role.OWNER else (DEVICE, DEVICE_ID)
    envelope = sign_sign_in(signer, SignIn(VAULT, role, device_id, nonce, ORIGIN))
    opened = client.post("/v1/sessions", content=envelope.encoded)
    assert (opened.status_code, opened.json()["expires_in"]) == (200, 900)
    assert client.post("/v1/sessions", content=envelope.encoded).status_code == 401
    return str(opened.json()["token"])


def test_owner_and_device_routes_take_their_own_sessions_only(client: TestClient) -> None:
    owner, device = _token(client, Role.OWNER), _token(client, Role.DEVICE)
    for path, right, wrong in (("/owner", owner, device), ("/device", device, owner)):
        assert client.get(path, headers={"authorization": f"Bearer {right}"}).status_code == 200
        refused = client.get(path, headers={"authorization": f"Bearer {wrong}"})
        assert (refused.status_code, refused.json()["type"]) == (403, "/problems/wrong-role")


@pytest.mark.parametrize("sent", [[], ["Bearer x"], ["DPoP x"], ["Bearer"], ["Bearer a", "Bearer b"]])
def test_without_a_session_the_answer_is_a_problem(client: TestClient, sent: list[str]) -> None:
    refused = client.get("/owner", headers=[("authorization", value) for value in sent])
    assert (refused.status_code, refused.json()["type"]) == (401, "/problems/not-signed-in")
    assert refused.headers["www-authenticate"] == "Bearer"


def test_a_challenge_does_not_tell_whether_a_vault_exists(client: TestClient) -> None:
    answers = [
        client.post("/v1/challenges", json={"vault": vault, "role": "owner"}) for vault in (b64(VAULT), b64(b"u" * 16))
    ]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert [answer.json().keys() for answer in answers] == [answers[0].json().keys()] * 2
    assert client.post("/v1/challenges", json={"vault": "x", "role": "owner"}).status_code == 400
    assert client.post("/v1/challenges", json={"vault": b64(VAULT), "role": "operator"}).status_code == 422


@pytest.mark.parametrize("body", [b"", b"{}", b"\0" * 100])
def test_bytes_that_are_no_envelope_refuse(client: TestClient, body: bytes) -> None:
    refused = client.post("/v1/sessions", content=body)
    assert refused.status_code == 400
    assert refused.headers["content-type"] == "application/problem+json"


def test_anyone_reads_a_companys_logged_record(client: TestClient, database: Database, now: datetime) -> None:
    acme = CompanyKit()
    with database.transaction() as session:
        companies.register(session, acme.record(now), now=now)
    found = client.get(f"/v1/companies/{acme.company_id}").json()
    assert (found["name"], found["status"]) == ("Acme Groceries", "active")
    assert found["question_key"]["kid"] == acme.question.thumbprint()
    assert companies.verify_company_record(found["record"], signer=None, now=now).company_id == acme.company_id
    for unknown in ("A" * 22, "x", "%2e%2e"):
        assert client.get(f"/v1/companies/{unknown}").status_code == 404
