from __future__ import annotations

import base64
import json
import threading
from typing import Any
from urllib.parse import urlencode

import pytest
import sqlalchemy
from joserfc.jwk import OctKey

from tests.company_kit import CompanyKit, b64, new_key, public
from vault.parties import companies
from vault.parties.companies import CompanyId, CompanyStatus

ISSUER = "https://vault.example"


def test_a_company_gets_a_token_bound_to_its_key(server: Any) -> None:
    response = server.post(server.form())
    assert response.status_code == 200
    assert response.headers["cache-control"] == "no-store"
    body = response.json()
    assert {name: body[name] for name in ("token_type", "expires_in", "scope")} == {
        "token_type": "DPoP", "expires_in": 600, "scope": "twin:ask",
    }  # fmt: skip
    header, claims = (json.loads(base64.urlsafe_b64decode(part + "==")) for part in body["access_token"].split(".")[:2])
    assert header["typ"] == "at+jwt"
    assert claims["cnf"] == {"jkt": server.acme.dpop.thumbprint()}
    assert claims["sub"] == claims["client_id"] == server.acme.company_id
    assert claims["exp"] - claims["iat"] == 600
    assert claims["aud"] == claims["iss"] == ISSUER


@pytest.mark.parametrize("algorithm", ["ES256", "Ed25519", "PS256"])
def test_every_registered_algorithm_authenticates(quick: Any, algorithm: str) -> None:
    quick.acme = CompanyKit(algorithm)
    with quick.database.transaction() as session:
        companies.register(session, quick.acme.record(quick.now), now=quick.now)
    quick.token()


def test_without_the_nonce_the_same_assertion_works_on_the_second_try(server: Any) -> None:
    form = server.form(grant_type="client_credentials")
    first = server.post(form, proof=server.proof("POST", "/v1/token", nonce=None))
    assert (first.status_code, first.json()["error"]) == (400, "use_dpop_nonce")
    again = server.proof("POST", "/v1/token", nonce=first.headers["dpop-nonce"])
    assert server.post(form, proof=again).status_code == 200


def test_a_token_for_one_consent_says_so(server: Any) -> None:
    consent = b64(server.world.give().consent_id)
    response = server.post(server.form(grant_id=consent))
    assert response.json()["grant_id"] == consent
    for grant_id, error in ((b64(b"d" * 16), "invalid_grant"), ("x", "invalid_request"), ("é", "invalid_request")):
        refused = server.post(server.form(grant_id=grant_id))
        assert (refused.status_code, refused.json()["error"]) == (400, error)


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": "https://vault.example/v1/token"},
        {"aud": ["https://vault.example"]},
        {"aud": "https://vault.example/"},
        {"aud": None},
        {"iss": "someone"},
        {"exp": None},
        {"exp": 1},
        {"exp": 2**40},
        {"exp": "soon"},
        {"jti": None},
        {"jti": ""},
        {"jti": 5},
        {"jti": "j" * 129},
        {"nbf": 2**40},
        {"iat": 2**40},
        {"iat": "now"},
        {"sub": None},
        {"sub": 5},
        {"sub": "A" * 22},
        {"sub": "' OR 1=1 --"},
    ],
)
def test_a_wrong_assertion_refuses(quick: Any, changes: dict[str, Any]) -> None:
    form = quick.form(client_assertion=quick.acme.assertion(ISSUER, quick.now, **changes))
    response = quick.post(form)
    assert (response.status_code, response.json()["error"]) == (400, "invalid_client")


def test_a_clock_ten_seconds_ahead_is_forgiven(quick: Any) -> None:
    ahead_s = int(quick.now.timestamp()) + 10
    assertion = quick.acme.assertion(ISSUER, quick.now, iat=ahead_s, nbf=ahead_s)
    proof = quick.proof("POST", "/v1/token", iat=ahead_s)
    assert quick.post(quick.form(client_assertion=assertion), proof=proof).status_code == 200


@pytest.mark.parametrize("typ", ["dpop+jwt", "at+jwt", "question+jwt", "twinvault-company+jwt"])
def test_another_kind_of_jws_is_no_assertion(quick: Any, typ: str) -> None:
    form = quick.form(client_assertion=quick.acme.assertion(ISSUER, quick.now, header={"typ": typ}))
    assert quick.post(form).json()["error"] == "invalid_client"


def test_the_public_key_is_no_secret_and_none_is_no_algorithm(quick: Any) -> None:
    secret = OctKey.import_key(json.dumps(public(quick.acme.auth)).encode())
    claims = quick.acme.assertion(ISSUER, quick.now).split(".")[1]
    unsigned = ".".join([b64(b'{"alg":"none"}'), claims, ""])
    for forged in (quick.acme.assertion(ISSUER, quick.now, key=secret), unsigned):
        assert quick.post(quick.form(client_assertion=forged)).json()["error"] == "invalid_client"


def test_an_unknown_company_looks_like_a_wrong_key(quick: Any) -> None:
    stranger = CompanyKit()
    answers = [
        quick.post(quick.form(client_assertion=assertion))
        for assertion in (
            stranger.assertion(ISSUER, quick.now),
            quick.acme.assertion(ISSUER, quick.now, key=stranger.auth),
            quick.acme.assertion(ISSUER, quick.now, key=stranger.auth, header={"jwk": public(stranger.auth)}),
            quick.acme.assertion(ISSUER, quick.now, key=quick.acme.question),
        )
    ]
    assert len({(answer.status_code, answer.text) for answer in answers}) == 1
    assert answers[0].json()["error"] == "invalid_client"


def test_an_assertion_works_once(server: Any, other_process: Any) -> None:
    form = server.form()
    assert server.post(form).status_code == 200
    for process in (server, other_process):
        again = process.post(form)
        assert (again.status_code, again.json()["error"]) == (400, "invalid_client")


def test_a_proof_works_once(server: Any) -> None:
    proof = server.proof("POST", "/v1/token")
    assert server.post(server.form(), proof=proof).status_code == 200
    again = server.post(server.form(), proof=proof)
    assert (again.status_code, again.json()["error"]) == (400, "invalid_dpop_proof")


def test_of_many_requests_with_one_assertion_one_wins(server: Any) -> None:
    form, statuses = server.form(), list[int]()
    proofs = [server.proof("POST", "/v1/token") for _ in range(6)]
    threads = [
        threading.Thread(target=lambda proof=proof: statuses.append(server.post(form, proof=proof).status_code))
        for proof in proofs
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(240)
    assert sorted(statuses) == [200] + [400] * 5


def test_a_suspended_company_gets_no_token(server: Any) -> None:
    with server.database.transaction() as session:
        companies.set_status(session, CompanyId(server.acme.company_id), CompanyStatus.SUSPENDED, now=server.now)
    response = server.post(server.form())
    assert (response.status_code, response.json()["error"]) == (400, "unauthorized_client")


def test_a_rotated_key_stops_working(server: Any) -> None:
    new = new_key()
    record = server.acme.record(server.now, version=2, client_auth_key=public(new))
    with server.database.transaction() as session:
        companies.rotate(session, record, now=server.now)
    assert server.post(server.form()).json()["error"] == "invalid_client"
    server.acme.auth = new
    assert server.post(server.form()).status_code == 200


@pytest.mark.parametrize("name", ["grant_type", "client_assertion", "scope", "client_id"])
def test_a_parameter_given_twice_refuses(quick: Any, name: str) -> None:
    form = quick.form(client_id=quick.acme.company_id)
    response = quick.post(urlencode(form) + "&" + urlencode({name: form[name]}))
    assert (response.status_code, response.json()["error"]) == (400, "invalid_request")


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"grant_type": "password"}, "unsupported_grant_type"),
        ({"grant_type": None}, "unsupported_grant_type"),
        ({"grant_type": "authorization_code", "code": "x"}, "invalid_grant"),
        ({"grant_type": 'x" y\\'}, "unsupported_grant_type"),
        ({"resource": "https://other.example"}, "invalid_target"),
        ({"authorization_details": "[]"}, "invalid_request"),
        ({"scope": "admin"}, "invalid_scope"),
        ({"scope": "twin:ask admin"}, "invalid_scope"),
        ({"client_id": "A" * 22}, "invalid_client"),
        ({"client_assertion": None}, "invalid_client"),
        ({"client_assertion": "x"}, "invalid_client"),
        ({"client_assertion": "é.é.é"}, "invalid_client"),
        ({"client_assertion": "A" * 9000}, "invalid_client"),
        ({"client_assertion_type": None}, "invalid_client"),
        ({"client_assertion_type": None, "client_assertion": None, "client_secret": "x"}, "invalid_client"),
    ],
)
def test_other_requests_refuse_as_rfc_6749_says(quick: Any, changes: dict[str, Any], error: str) -> None:
    response = quick.post(quick.form(**changes))
    assert (response.status_code, response.json()["error"]) == (400, error)
    assert response.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    "body", ["", "=", "a", "grant_type", "%ff=1", "a=%zz", "&".join(f"p{i}=1" for i in range(50)), "a=" + "b" * 40_000]
)
def test_a_malformed_form_refuses(quick: Any, body: str) -> None:
    response = quick.post(body)
    assert response.status_code == 400
    assert response.json()["error"] in {"invalid_request", "unsupported_grant_type"}


def test_json_is_no_form(quick: Any) -> None:
    response = quick.post(json.dumps(quick.form()), **{"content-type": "application/json"})
    assert response.json()["error"] == "invalid_request"


def test_strangers_fill_no_table(quick: Any) -> None:
    quick.acme = CompanyKit()
    for _ in range(3):
        assert quick.post(quick.form()).status_code == 400
    with quick.database.snapshot() as session:
        assert session.execute(sqlalchemy.text("SELECT count(*) FROM spent")).scalar_one() == 0


def test_the_published_key_verifies_a_token_for_anyone(quick: Any) -> None:
    from joserfc import jwk, jwt

    keys = quick.client.get("/v1/jwks").json()
    token = jwt.decode(quick.token(), jwk.KeySet.import_key_set(keys), algorithms=["Ed25519"])
    assert token.claims["client_id"] == quick.acme.company_id
    assert all("d" not in key for key in keys["keys"])
