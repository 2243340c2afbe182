from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy

from tests.company_kit import CompanyKit, b64, new_key, public
from vault.oauth.resource import BadQuestionSignature, GrantMismatch, require_grant, verify_question_signature
from vault.parties import companies
from vault.parties.caller import CompanyCaller
from vault.parties.companies import CompanyId, CompanyStatus
from vault.proof.jose import Thumbprint, read_jwk
from vault.seal.ids import ConsentId

ISSUER = "https://vault.example"
CONSENT, QUESTION, BODY = ConsentId(b"c" * 16), b"q" * 16, b'{"kind":"next_choice"}'


def test_a_bound_token_with_its_proof_names_the_company(server: Any) -> None:
    response = server.ask(server.token())
    assert response.status_code == 200, response.text
    assert response.json() == {"company": server.acme.company_id, "status": "active", "grant": False, "bound": True}
    assert response.headers["dpop-nonce"] == server.nonce
    assert server.ask(server.token(grant_id=b64(CONSENT))).json()["grant"] is True


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
        thread.join(30)
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
    plain, bound = quick.token(), quick.token(grant_id=b64(CONSENT))
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
        lambda token, acme: acme.assertion(ISSUER, _noon(), header={"typ": "at+jwt", "kid": acme.auth.thumbprint()}),
        lambda token, acme: acme.assertion(ISSUER, _noon(), header={"typ": "at+jwt", "jwk": public(acme.auth)}),
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


def test_a_token_for_one_consent_asks_under_no_other() -> None:
    acme = CompanyKit()
    require_grant(_caller(acme), CONSENT)
    require_grant(_caller(acme, CONSENT), CONSENT)
    with pytest.raises(GrantMismatch):
        require_grant(_caller(acme, ConsentId(b"d" * 16)), CONSENT)


@pytest.mark.parametrize("algorithm", ["ES256", "Ed25519", "PS256"])
def test_a_signed_question_verifies(algorithm: str) -> None:
    acme = CompanyKit(algorithm)
    signed = acme.signed_question(ISSUER, CONSENT, QUESTION, BODY, _noon())
    assert _verify(acme, signed) == int(_noon().timestamp())


@pytest.mark.parametrize(
    "changes",
    [
        {"issuer": "https://other.example"},
        {"consent_id": ConsentId(b"d" * 16)},
        {"question_id": b"r" * 16},
        {"body": BODY + b" "},
        {"body": b""},
    ],
)
def test_a_question_signed_for_something_else_refuses(changes: dict[str, Any]) -> None:
    acme = CompanyKit()
    signed = acme.signed_question(ISSUER, CONSENT, QUESTION, BODY, _noon())
    with pytest.raises(BadQuestionSignature, match="over another"):
        _verify(acme, signed, **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "someone"},
        {"aud": None},
        {"extra": 1},
        {"iat": 1},
        {"iat": None},
        {"iat": "now"},
        {"header": {"typ": "dpop+jwt"}},
        {"header": {"kid": None}},
        {"header": {"kid": "k1"}},
        {"header": {"crit": ["kid"]}},
    ],
)
def test_a_wrongly_signed_question_refuses(changes: dict[str, Any]) -> None:
    acme = CompanyKit()
    with pytest.raises(BadQuestionSignature):
        _verify(acme, acme.signed_question(ISSUER, CONSENT, QUESTION, BODY, _noon(), **changes))


def test_a_question_signed_by_another_key_refuses() -> None:
    acme, thief = CompanyKit(), new_key()
    for key in (thief, acme.auth):
        for header in ({}, {"kid": acme.question.thumbprint()}, {"jwk": public(key)}):
            signed = acme.signed_question(ISSUER, CONSENT, QUESTION, BODY, _noon(), key=key, header=header)
            with pytest.raises(BadQuestionSignature):
                _verify(acme, signed)


@pytest.mark.parametrize("age_s", [61, -11])
def test_an_old_or_future_question_refuses(age_s: int) -> None:
    acme = CompanyKit()
    signed = acme.signed_question(ISSUER, CONSENT, QUESTION, BODY, _noon() - timedelta(seconds=age_s))
    with pytest.raises(BadQuestionSignature, match="within"):
        _verify(acme, signed)


@pytest.mark.parametrize("text", ["", ".", "..", "a.b.c", "é..", "A" * 9000])
def test_any_text_in_the_header_raises_one_family(text: str) -> None:
    with pytest.raises(BadQuestionSignature):
        _verify(CompanyKit(), text)


def _verify(acme: CompanyKit, signed: str, **changes: Any) -> int:
    expected: dict[str, Any] = {"issuer": ISSUER, "consent_id": CONSENT, "question_id": QUESTION, "body": BODY}
    return verify_question_signature(signed, _caller(acme), **(expected | changes), now=_noon())


def _caller(acme: CompanyKit, grant_id: ConsentId | None = None) -> CompanyCaller:
    return CompanyCaller(
        company_id=CompanyId(acme.company_id),
        status=CompanyStatus.ACTIVE,
        agent=False,
        question_key=read_jwk(public(acme.question)),
        jkt=Thumbprint(acme.dpop.thumbprint()),
        grant_id=grant_id,
        sender_constrained=True,
    )


def _noon() -> Any:
    from datetime import UTC, datetime

    return datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def _refused(response: Any, error: str | None) -> Any:
    assert response.status_code == 401, response.text
    assert response.headers["content-type"] == "application/problem+json"
    challenge = response.headers["www-authenticate"]
    assert challenge.startswith("DPoP ")
    assert (f'error="{error}"' in challenge) if error else "error=" not in challenge
    assert response.headers["dpop-nonce"]
    return response
