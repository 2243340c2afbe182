from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy

from tests.company_kit import CompanyKit, b64, public
from vault.parties import companies
from vault.parties.companies import CompanyId, CompanyStatus
from vault.seal.ids import ConsentId

ISSUER = "https://vault.example"
NOON = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
CONSENT, QUESTION, BODY = ConsentId(b"c" * 16), b"q" * 16, b'{"kind":"next_choice"}'


def test_a_bound_token_with_its_proof_names_the_company(server: Any) -> None:
    response = server.ask(server.token())
    assert response.status_code == 200, response.text
    assert response.json() == {"company": server.acme.company_id, "status": "active", "grant": False, "bound": True}
    assert response.headers["dpop-nonce"] == server.nonce
    assert server.ask(server.token(grant_id=b64(server.world.give().consent_id))).json()["grant"] is True


def test_a_nonce_of_another_process_is_accepted(server: Any, other_process: Any) -> None:
    token = other_process.token()
    proof = server.proof("GET", "/who", token=token, nonce=other_process.client.get("/who").headers["dpop-nonce"])
    assert server.ask(token, proof=proof).status_code == 200


def test_a_proof_works_once_in_all_processes(server: Any, other_process: Any) -> None:
    token = server.token()
    proof = server.proof("GET", "/who", token=token)
    assert server.ask(token, proof=proof).status_code == 200
    for process in (server, other_process):
        _refused(process.ask(token, proof=proof), "invalid_dpop_proof")


def test_of_many_requests_with_one_proof_one_wins(server: Any, other_process: Any) -> None:
    token = server.token()
    proof, statuses = server.proof("GET", "/who", token=token), list[int]()
    threads = [
        threading.Thread(target=lambda process=process: statuses.append(process.ask(token, proof=proof).status_code))
        for process in (server, other_process) * 4
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(240)
    assert sorted(statuses) == [200] + [401] * 7


@pytest.mark.parametrize(
    "changes",
    [
        {"htm": "POST"},
        {"htm": "get"},
        {"htm": None},
        {"htu": "https://vault.example/other"},
        {"htu": "https://internal.host:9/who"},
        {"htu": "http://vault.example/who"},
        {"htu": "https://vault.example/who/"},
        {"htu": None},
        {"htu": 5},
        {"ath": None},
        {"ath": "A" * 43},
        {"iat": 1},
        {"iat": 2**40},
        {"iat": "now"},
        {"iat": None},
        {"jti": None},
        {"jti": ""},
        {"jti": "j" * 129},
        {"jti": 7},
        {"header": {"typ": "JWT"}},
        {"header": {"typ": None}},
        {"header": {"jwk": None}},
        {"header": {"jwk": {"kty": "oct", "k": "AA"}}},
        {"header": {"alg": "none"}},
        {"header": {"crit": ["typ"]}},
    ],
)
def test_a_wrong_proof_refuses(quick: Any, changes: dict[str, Any]) -> None:
    token = quick.token()
    if changes.get("header", {}).get("alg") == "none":
        parts = quick.proof("GET", "/who", token=token).split(".")
        proof = ".".join([b64(b'{"alg":"none","typ":"dpop+jwt"}'), parts[1], ""])
    else:
        proof = quick.proof("GET", "/who", token=token, **changes)
    _refused(quick.ask(token, proof=proof), "invalid_dpop_proof")


@pytest.mark.parametrize("age_s", [61, 3600, -11, -3600])
def test_a_stale_or_future_proof_refuses(quick: Any, age_s: int) -> None:
    token = quick.token()
    iat = int(quick.now.timestamp()) - age_s
    _refused(quick.ask(token, proof=quick.proof("GET", "/who", token=token, iat=iat)), "invalid_dpop_proof")


def test_a_missing_or_old_nonce_asks_for_the_next_one(quick: Any) -> None:
    token, old = quick.token(), quick.nonce
    quick.clock.at += timedelta(seconds=120)
    for nonce in (None, old, "A" * 22, "é", ""):
        refused = _refused(
            quick.ask(token, proof=quick.proof("GET", "/who", token=token, nonce=nonce)), "use_dpop_nonce"
        )
        proof = quick.proof("GET", "/who", token=token, nonce=refused.headers["dpop-nonce"])
        assert quick.ask(token, proof=proof).status_code == 200


def test_a_proof_cannot_be_used_again_after_its_row_is_gone(quick: Any) -> None:
    token, proof = quick.token(), None
    proof = quick.proof("GET", "/who", token=token)
    assert quick.ask(token, proof=proof).status_code == 200
    start = quick.now
    for after_s in range(1, 130):
        quick.clock.at = start + timedelta(seconds=after_s)
        with quick.database.transaction() as session:
            session.execute(
                sqlalchemy.text("DELETE FROM spent WHERE expires_at_s <= :now"), {"now": int(quick.now.timestamp())}
            )
        assert quick.ask(token, proof=proof).status_code == 401


def test_a_stolen_token_is_worth_nothing(quick: Any) -> None:
    token = quick.token()
    _refused(quick.ask(token, scheme="Bearer"), "invalid_token")
    thief = CompanyKit()
    proof = thief.proof("GET", ISSUER + "/who", quick.now, nonce=quick.nonce, token=token)
    _refused(quick.ask(token, proof=proof), "invalid_token")
    borrowed = quick.acme.dpop.as_dict(private=False)
    forged = thief.proof("GET", ISSUER + "/who", quick.now, nonce=quick.nonce, token=token, header={"jwk": borrowed})
    _refused(quick.ask(token, proof=forged), "invalid_dpop_proof")


def test_a_proof_for_one_token_does_not_carry_another(quick: Any) -> None:
    plain, bound = quick.token(), quick.token(grant_id=b64(quick.world.give().consent_id))
    _refused(quick.ask(bound, proof=quick.proof("GET", "/who", token=plain)), "invalid_dpop_proof")


def test_headers_given_twice_or_missing_refuse(quick: Any) -> None:
    token = quick.token()
    proofs = [quick.proof("GET", "/who", token=token) for _ in range(2)]
    for headers, error in (
        ([("authorization", f"DPoP {token}"), ("dpop", proofs[0]), ("dpop", proofs[1])], "invalid_dpop_proof"),
        ([("authorization", f"DPoP {token}")], "invalid_dpop_proof"),
        ([("authorization", f"DPoP {token}")] * 2 + [("dpop", proofs[0])], "invalid_token"),
        ([("dpop", proofs[0])], None),
    ):
        _refused(quick.client.get("/who", headers=headers), error)


def test_a_token_in_the_query_is_none(quick: Any) -> None:
    token = quick.token()
    proof = quick.proof("GET", "/who", token=token)
    assert quick.client.get("/who", params={"access_token": token}, headers={"dpop": proof}).status_code == 401


def test_a_token_expires(quick: Any) -> None:
    token = quick.token()
    quick.clock.at += timedelta(seconds=599)
    assert quick.ask(token).status_code == 200
    quick.clock.at += timedelta(seconds=1)
    _refused(quick.ask(token), "invalid_token")


@pytest.mark.parametrize(
    "forge",
    [
        lambda token, acme: token[:-6] + "AAAAAA",
        lambda token, acme: token.replace("DPoP", "") + "x" * 9000,
        lambda token, acme: "",
        lambda token, acme: "a.b.c",
        lambda token, acme: ".".join([b64(b'{"alg":"none","typ":"at+jwt"}'), token.split(".")[1], ""]),
        lambda token, acme: acme.assertion(ISSUER, NOON, header={"typ": "at+jwt", "kid": acme.auth.thumbprint()}),
        lambda token, acme: acme.assertion(ISSUER, NOON, header={"typ": "at+jwt", "jwk": public(acme.auth)}),
    ],
)
def test_a_forged_token_refuses(quick: Any, forge: Any) -> None:
    token = forge(quick.token(), quick.acme)
    _refused(quick.ask(token), "invalid_token")


def test_a_suspension_shows_at_once_in_all_processes(server: Any, other_process: Any) -> None:
    token = server.token()
    assert other_process.ask(token).json()["status"] == "active"
    with server.database.transaction() as session:
        companies.set_status(session, CompanyId(server.acme.company_id), CompanyStatus.SUSPENDED, now=server.now)
    for process in (server, other_process):
        assert process.ask(token).json()["status"] == "suspended"


def test_a_token_without_its_company_refuses(quick: Any) -> None:
    token = quick.token()
    with quick.database.transaction() as session:
        session.execute(sqlalchemy.text("DELETE FROM company"))
    _refused(quick.ask(token), "invalid_token")


def _refused(response: Any, error: str | None) -> Any:
    assert response.status_code == 401, response.text
    assert response.headers["content-type"] == "application/problem+json"
    challenge = response.headers["www-authenticate"]
    assert challenge.startswith("DPoP ")
    assert (f'error="{error}"' in challenge) if error else "error=" not in challenge
    assert response.headers["dpop-nonce"]
    return response
