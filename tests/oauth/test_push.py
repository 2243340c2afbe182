"""The pushed authorization request endpoint: everything is refused here, before a browser is involved."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

import pytest
import sqlalchemy

from tests.company_kit import REDIRECT, CompanyKit, new_key
from tests.consent_kit import S, terms
from vault.parties import companies
from vault.parties.companies import CompanyId, CompanyStatus
from vault.schema.details import dump_details
from vault.schema.terms import ConsentKind

PAR = "/v1/par"


def test_a_request_is_kept_and_named_once(server: Any) -> None:
    first, second = server.push(), server.push()
    assert first.status_code == second.status_code == 201, first.text
    assert first.headers["cache-control"] == "no-store"
    assert first.headers["dpop-nonce"] == server.nonce
    assert first.json()["expires_in"] == 90
    assert first.json()["request_uri"].startswith("urn:ietf:params:oauth:request_uri:")
    assert first.json()["request_uri"] != second.json()["request_uri"]


def test_no_secret_of_a_request_lies_in_the_database(server: Any) -> None:
    landed, _ = server.authorize()
    uri = server.push().json()["request_uri"]
    with server.database.snapshot() as session:
        rows = repr(session.execute(sqlalchemy.text("SELECT * FROM oauth_authorization")).all())
    assert "af0ifjsldkj" in rows, "the state is there: the search can find something"
    assert landed["code"] not in rows
    assert uri.rpartition(":")[2] not in rows


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"code_challenge": None, "code_challenge_method": None}, "invalid_request"),
        ({"code_challenge": None}, "invalid_request"),
        ({"code_challenge_method": None}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge": "short"}, "invalid_request"),
    ],
)
def test_only_pkce_with_s256_is_taken(quick: Any, changes: dict[str, Any], error: str) -> None:
    """Trap 1: Authlib takes `plain`, and asks for PKCE only of public clients."""
    response = quick.push(**changes)
    assert (response.status_code, response.json()["error"]) == (400, error)


@pytest.mark.parametrize("algorithm", ["ES256", "Ed25519", "PS256"])
def test_every_fapi_algorithm_authenticates_a_push(quick: Any, algorithm: str) -> None:
    """Trap 2: Authlib names the method otherwise, takes RS256, and refuses PS256 and EdDSA."""
    quick.acme = quick.world.company = CompanyKit(algorithm)
    with quick.database.transaction() as session:
        companies.register(session, quick.acme.record(quick.now), now=quick.now)
    assert quick.push().status_code == 201


@pytest.mark.parametrize(
    "uri",
    [
        None,
        "",
        REDIRECT + "/",
        REDIRECT + "?a=1",
        REDIRECT.upper(),
        "https://evil.example/cb",
        'https://acme.example/"\\',
        "é",
    ],
)
def test_a_redirect_uri_must_be_registered_to_the_letter(quick: Any, uri: str | None) -> None:
    response = quick.push(redirect_uri=uri)
    assert (response.status_code, response.json()["error"]) == (400, "invalid_request")
    assert "location" not in response.headers


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"response_type": "token"}, "invalid_request"),
        ({"response_type": 'code "id_token'}, "invalid_request"),
        ({"response_type": None}, "invalid_request"),
        ({"response_mode": "fragment"}, "invalid_request"),
        ({"request": "a.b.c"}, "invalid_request"),
        ({"request_uri": "urn:ietf:params:oauth:request_uri:x"}, "invalid_request"),
        ({"scope": "admin"}, "invalid_scope"),
        ({"resource": "https://other.example"}, "invalid_target"),
        ({"state": "s" * 2049}, "invalid_request"),
        ({"dpop_jkt": "A" * 43}, "invalid_request"),
        ({"client_id": "A" * 22}, "invalid_client"),
        ({"client_assertion": None}, "invalid_client"),
        ({"grant_management_action": "merge"}, "invalid_request"),
        ({"grant_management_action": "replace"}, "invalid_request"),
        ({"grant_id": "c" * 22}, "invalid_request"),
        ({"grant_management_action": "replace", "grant_id": "A" * 22}, "invalid_grant"),
        ({"grant_management_action": "replace", "grant_id": "x"}, "invalid_request"),
    ],
)
def test_other_requests_refuse(quick: Any, changes: dict[str, Any], error: str) -> None:
    response = quick.push(**changes)
    assert (response.status_code, response.json()["error"]) == (400, error), response.text


@pytest.mark.parametrize("name", ["redirect_uri", "state", "code_challenge", "authorization_details"])
def test_a_parameter_given_twice_refuses(quick: Any, name: str) -> None:
    form = quick.push_form()
    response = quick.post(urlencode(form) + "&" + urlencode({name: form[name]}), path=PAR)
    assert (response.status_code, response.json()["error"]) == (400, "invalid_request")


def test_the_resource_may_be_named(quick: Any) -> None:
    assert quick.push(resource="https://vault.example", response_mode="query", scope="twin:ask").status_code == 201


def test_without_the_nonce_the_same_push_works_on_the_second_try(quick: Any) -> None:
    """Trap 5: the proof comes before client authentication, so the assertion is still unused."""
    form = quick.push_form()
    first = quick.post(form, proof=quick.proof("POST", PAR, nonce=None), path=PAR)
    assert (first.status_code, first.json()["error"]) == (400, "use_dpop_nonce")
    assert (
        quick.post(form, proof=quick.proof("POST", PAR, nonce=first.headers["dpop-nonce"]), path=PAR).status_code == 201
    )


def test_a_proof_is_for_this_endpoint_and_works_once(server: Any) -> None:
    elsewhere = server.push(proof=server.proof("POST", "/v1/token"))
    assert elsewhere.json()["error"] == "invalid_dpop_proof"
    proof = server.proof("POST", PAR)
    assert server.push(proof=proof).status_code == 201
    assert server.push(proof=proof).json()["error"] == "invalid_dpop_proof"


def test_each_code_is_bound_to_a_key(quick: Any) -> None:
    assert quick.push(dpop="").json()["error"] == "invalid_request"
    assert quick.push(dpop="", dpop_jkt="short").json()["error"] == "invalid_request"
    assert quick.push(dpop="", dpop_jkt=quick.acme.dpop.thumbprint()).status_code == 201
    assert quick.push(dpop_jkt=quick.acme.dpop.thumbprint()).status_code == 201


def test_a_suspended_company_asks_nobody(quick: Any) -> None:
    with quick.database.transaction() as session:
        companies.set_status(session, CompanyId(quick.acme.company_id), CompanyStatus.SUSPENDED, now=quick.now)
    assert quick.push().json()["error"] == "unauthorized_client"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "x",
        "[1]",
        "[[]]",
        "null",
        '[{"type":"twin_query"}]',
        '[{}],"details":[{}]',
        "[" * 5000,
        "\ud7ff",
    ],
)
def test_details_that_are_none_refuse(quick: Any, text: str) -> None:
    response = quick.push(text)
    assert (response.status_code, response.json()["error"]) == (400, "invalid_authorization_details")


def test_one_query_at_a_time(quick: Any) -> None:
    _, details = quick.asked()
    assert quick.push(json.dumps([details, details])).json()["error"] == "invalid_authorization_details"


@pytest.mark.parametrize(
    "changes",
    [
        {"type": "account_information"},
        {"questions": ["next_choice", "propensity", "recommend"]},
        {"questions": ["recommend", "next_choice"]},
        {"purposes": ["dpv:Marketing"]},
        {"categories": {"necessary": ["pd:Health", "pd:Purchase"], "optional": []}},
        {"window": {"from": "1970-01", "to": "2026-11"}},
        {"quota": {"n": 10**6, "per": "P1M"}},
        {"duration": {"from": S, "to": S + 10**9}},
        {"options": {"explicit_special": [], "influence_opt_in": 1, "agent_allowed": 0, "post_mortem": []}},
        {"scope": "everything"},
        {"request": "a.b.c"},
        {"request": 5},
    ],
)
def test_details_must_spell_what_is_signed(quick: Any, changes: dict[str, Any]) -> None:
    _, details = quick.asked()
    response = quick.push({**details, **changes})
    assert (response.status_code, response.json()["error"]) == (400, "invalid_authorization_details"), response.text


@pytest.mark.parametrize(
    "missing", ["questions", "categories", "window", "quota", "duration", "options", "request", "type"]
)
def test_details_miss_nothing(quick: Any, missing: str) -> None:
    _, details = quick.asked()
    del details[missing]
    assert quick.push(details).json()["error"] == "invalid_authorization_details"


def test_a_request_signed_by_another_or_for_another_refuses(quick: Any) -> None:
    other = CompanyKit()
    for grantee, key in ((quick.acme.company_id, new_key()), (other.company_id, quick.acme.question), ("operator", quick.acme.question)):  # fmt: skip
        kind = ConsentKind.COHORT if grantee == "operator" else ConsentKind.COMPANY
        wanted = terms(kind, grantee)
        quick.world.company.question, kept = key, quick.world.company.question
        details = {**dump_details(wanted), "request": quick.world.request(wanted)}
        quick.world.company.question = kept
        assert quick.push(details).json()["error"] == "invalid_authorization_details"


def test_what_is_over_is_not_asked(quick: Any) -> None:
    _, details = quick.asked(not_before=S - 100, not_after=S)
    assert quick.push(details).json()["error"] == "invalid_authorization_details"


def test_strangers_keep_nothing_here(quick: Any) -> None:
    quick.acme = CompanyKit()
    for _ in range(3):
        assert quick.push(quick.asked()[1]).status_code == 400
    with quick.database.snapshot() as session:
        for table in ("spent", "oauth_authorization"):
            assert session.execute(sqlalchemy.text(f"SELECT count(*) FROM {table}")).scalar_one() == 0


def test_old_requests_are_swept(quick: Any) -> None:
    from datetime import timedelta

    quick.push()
    quick.clock.at += timedelta(days=2)
    _, details = quick.asked(not_after=S + 10 * 86_400)
    assert quick.push(details).status_code == 201
    with quick.database.snapshot() as session:
        assert session.execute(sqlalchemy.text("SELECT count(*) FROM oauth_authorization")).scalar_one() == 1
