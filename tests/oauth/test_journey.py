"""The shipped app over real HTTP: a company is let in by the owner's own client, asks, and gives the grant back."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from tests.client_kit import company_terms
from tests.company_kit import REDIRECT
from tests.http_kit import PURPOSE, Caller, House, serving, session_of
from tests.oauth.conftest import CHALLENGE, VERIFIER
from twinvault.consent_receipts import verify_consent_receipt
from twinvault.owner import Owner
from vault.encoding import b64u, parse_b64u
from vault.parties import people
from vault.schema.consent import ConsentEvent, dump_consent
from vault.schema.details import dump_details
from vault.schema.language import Language
from vault.seal.ids import ConsentId
from vault.seal.person import Profile, sign_profile


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with serving(Path(tmp_path_factory.mktemp("house"))) as house:
        yield house


@pytest.fixture(scope="module")
def owner(house: House) -> Owner:
    return house.owner_with_twin((1,))


@pytest.fixture
def caller(house: House) -> Caller:
    return Caller(house, house.company(f"Acme {secrets.token_hex(3)}", redirect_uris=[REDIRECT]))


def let_in(caller: Caller, owner: Owner) -> dict[str, Any]:
    """Play the flow with the owner's client deciding; return the token response."""
    house, company = caller.house, caller.company
    wanted = replace(company_terms(company, owner), purposes=frozenset({PURPOSE}), quota_per_month=50)
    details = {**dump_details(wanted), "request": company.sign_request(wanted)}
    authentic = {
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        "client_assertion": caller.assertion(),
    }
    form = {
        "response_type": "code", "redirect_uri": REDIRECT, "state": "s", "code_challenge": CHALLENGE,
        "code_challenge_method": "S256", "authorization_details": json.dumps([details]), **authentic,
    }  # fmt: skip
    pushed = house.http.post("/v1/par", data=form, headers={"DPoP": caller.proof("POST", "/v1/par")})
    assert pushed.status_code == 201, pushed.text
    page = {"client_id": company.company_id, "request_uri": pushed.json()["request_uri"]}
    with httpx.Client(base_url=house.url) as browser:
        code = browser.get("/authorize", params=page).text.partition("<code>")[2][:9]
        asked = house.http.get(f"/v1/authorizations/{code}", headers=session_of(owner)).json()
        given = owner.give_company(owner.read_request(asked["request"])).version
        approved = house.http.post(
            f"/v1/authorizations/{code}/approve", json={"consent": b64u(given.consent_id)}, headers=session_of(owner)
        )
        assert approved.status_code == 204, approved.text
        back = browser.get("/authorize", params=page)
    landed = parse_qs(urlsplit(back.headers["location"]).query)
    assert landed["iss"] == [house.url]
    response = caller.token_response(
        grant_type="authorization_code", code=landed["code"][0], redirect_uri=REDIRECT, code_verifier=VERIFIER
    )
    assert response.status_code == 200, response.text
    return dict(response.json())


def test_a_token_of_the_flow_asks_under_its_consent_and_no_other(caller: Caller, owner: Owner) -> None:
    body = let_in(caller, owner)
    grant = parse_b64u(body["grant_id"])
    assert caller.ask(grant, token=body["access_token"]).status_code == 200
    other = caller.house.consent(owner, caller.company)
    refused = caller.ask(other, token=body["access_token"])
    unknown = caller.ask(secrets.token_bytes(16), token=body["access_token"])
    assert refused.status_code == unknown.status_code >= 400, "to this token another consent looks like none"
    assert refused.json()["type"] == unknown.json()["type"]
    assert caller.ask(other).status_code == 200


def test_from_the_withdrawal_on_the_token_opens_nothing(caller: Caller, owner: Owner) -> None:
    body, other = let_in(caller, owner), let_in(caller, owner)
    grant = ConsentId(parse_b64u(body["grant_id"]))
    owner.withdraw(grant)
    assert caller.ask(grant, token=body["access_token"]).status_code >= 400
    refreshed = caller.token_response(grant_type="refresh_token", refresh_token=body["refresh_token"])
    assert refreshed.json()["error"] == "invalid_grant"
    assert caller.ask(parse_b64u(other["grant_id"]), token=other["access_token"]).status_code == 200


def test_no_word_about_a_token_or_a_grant_changes_with_the_person(caller: Caller, house: House) -> None:
    owner = house.owner_with_twin((1,))
    body = let_in(caller, owner)
    token, path = body["access_token"], f"/v1/grants/{body['grant_id']}"
    authentic = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

    def seen() -> tuple[Any, ...]:
        form = {"token": token, "client_assertion_type": authentic, "client_assertion": caller.assertion()}
        described = house.http.post("/v1/introspect", data=form)
        proof = caller.proof("GET", path, token=token)
        grant = house.http.get(path, headers={"Authorization": f"DPoP {token}", "DPoP": proof})
        fresh = caller.token_response(ConsentId(parse_b64u(body["grant_id"]))).json()
        fresh.pop("access_token")
        assert described.json()["active"] is True
        return described.status_code, described.json(), grant.status_code, grant.json(), fresh

    before = seen()
    for profile in (Profile(minor=True), Profile(minor=True, guardian_ok=True), Profile(deceased=True)):
        with house.database.transaction() as session:
            sequence = people.get(session, owner.vault).sequence + 1
            signed = sign_profile(owner._keys.signer, profile, vault_id=owner.vault, sequence=sequence)
            people.set_profile(session, owner.vault, signed, now=house.clock.now())
        assert seen() == before
    owner.freeze(frozen=True)
    assert seen() == before


def test_a_grant_that_a_company_gives_back_ends_under_the_companys_name(caller: Caller, owner: Owner) -> None:
    body = let_in(caller, owner)
    path, token = f"/v1/grants/{body['grant_id']}", body["access_token"]

    def send(method: str) -> httpx.Response:
        proof = caller.proof(method, path, token=token)
        return caller.house.http.request(method, path, headers={"Authorization": f"DPoP {token}", "DPoP": proof})

    assert send("GET").json()["grant_id"] == body["grant_id"]
    assert send("DELETE").status_code == 204
    assert send("GET").status_code == send("DELETE").status_code == 404
    assert caller.ask(parse_b64u(body["grant_id"]), token=token).status_code >= 400
    found = next(item for item in owner.consents() if b64u(item.current.consent_id) == body["grant_id"])
    assert found.current.event is ConsentEvent.RETURNED
    receipt, kept = owner.receipt(found.id, 2)
    assert verify_consent_receipt(kept, caller.house.service.trust) == receipt
    assert "by the recipient" in receipt.text(Language.EN)
    assert dump_consent(receipt.version)["entity_id"] == caller.company.company_id
    ended = [event for event in owner.history() if event["personal"].get("event") == "returned"]
    assert [event["personal"]["consent"] for event in ended] == [body["grant_id"]]
    assert ended[0]["sentence"].endswith("version 2 of your consent was given back, and so ended, by them.")


def test_what_the_server_says_about_itself_is_there(house: House) -> None:
    metadata = house.http.get("/.well-known/oauth-authorization-server").json()
    assert house.http.get("/.well-known/openid-configuration").json() == metadata
    assert not {name for name in metadata if name.startswith(("id_token_", "subject_", "userinfo_"))}
    assert metadata["issuer"] == house.url
    assert metadata["require_pushed_authorization_requests"] is True
    assert metadata["authorization_response_iss_parameter_supported"] is True
    assert metadata["code_challenge_methods_supported"] == ["S256"]
    assert metadata["token_endpoint_auth_methods_supported"] == ["private_key_jwt"]
    assert "RS256" not in metadata["token_endpoint_auth_signing_alg_values_supported"]
    endpoints = {name: url for name, url in metadata.items() if name.endswith("_endpoint")}
    assert len(endpoints) == 7
    assert house.http.get(endpoints.pop("authorization_endpoint")).status_code == 400
    assert house.http.get(endpoints.pop("grant_management_endpoint") + "/" + "A" * 22).status_code == 401
    assert house.http.post(endpoints.pop("registration_endpoint"), json={}).json()["error"] == "invalid_client_metadata"
    for url in endpoints.values():
        assert "error" in house.http.post(url, data={"a": "b"}).json(), url
    resource = house.http.get("/.well-known/oauth-protected-resource").json()
    assert resource["authorization_servers"] == [house.url]
    assert resource["dpop_bound_access_tokens_required"] is True
