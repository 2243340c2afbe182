"""What a company may know and end of the tokens and grants that it holds: introspection, revocation, grants."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from tests.company_kit import b64
from tests.consent_kit import S
from tests.oauth.test_code_and_refresh import refused, rival


def test_introspection_says_what_a_token_is_worth(server: Any) -> None:
    body, given = server.tokens()
    access = server.introspect(body["access_token"])
    assert access["active"] is True
    assert access["client_id"] == server.acme.company_id
    assert access["grant_id"] == b64(given.consent_id)
    assert access["cnf"] == {"jkt": server.acme.dpop.thumbprint()}
    assert access["exp"] == S + 600
    assert access["authorization_details"] == body["authorization_details"]
    refresh = server.introspect(body["refresh_token"], token_type_hint="refresh_token")
    assert (refresh["active"], refresh["exp"]) == (True, given.terms.not_after)
    server.world.withdraw(given)
    assert server.introspect(body["access_token"]) == server.introspect(body["refresh_token"]) == {"active": False}


def test_introspection_tells_nothing_about_anothers_token(quick: Any) -> None:
    body, _ = quick.tokens()
    quick.acme = rival(quick)
    for token in (body["access_token"], body["refresh_token"], "x", "a.b.c"):
        assert quick.introspect(token) == {"active": False}


def test_an_expired_token_is_not_active(quick: Any) -> None:
    body, _ = quick.tokens()
    quick.clock.at += timedelta(seconds=600)
    assert quick.introspect(body["access_token"]) == {"active": False}


@pytest.mark.parametrize("path", ["/v1/introspect", "/v1/revoke"])
def test_both_endpoints_ask_who_is_there(quick: Any, path: str) -> None:
    body, _ = quick.tokens()
    form = quick.form(grant_type=None, scope=None, token=body["access_token"], client_assertion=None)
    assert refused(quick.post(form, path=path)) == "invalid_client"
    assert refused(quick.post(quick.form(grant_type=None, scope=None), path=path)) == "invalid_request"
    assert quick.ask(body["access_token"]).status_code == 200


def test_a_revoked_access_token_is_refused_at_once_and_the_consent_stays(server: Any, other_process: Any) -> None:
    body, _ = server.tokens()
    plain = server.token()
    response = server.post(server.form(grant_type=None, scope=None, token=body["access_token"]), path="/v1/revoke")
    assert (response.status_code, response.json()) == (200, {})
    refusal = other_process.ask(body["access_token"])
    assert refusal.status_code == 401
    assert 'error="invalid_token"' in refusal.headers["www-authenticate"]
    assert server.introspect(body["access_token"]) == {"active": False}
    assert server.ask(plain).status_code == 200
    assert server.post(server.refresh_form(body["refresh_token"])).status_code == 200


def test_a_revoked_refresh_token_takes_its_access_tokens_along(server: Any) -> None:
    body, _ = server.tokens()
    form = server.form(grant_type=None, scope=None, token=body["refresh_token"])
    assert server.post(form, path="/v1/revoke").status_code == 200
    assert server.ask(body["access_token"]).status_code == 401
    assert refused(server.post(server.refresh_form(body["refresh_token"]))) == "invalid_grant"


def test_a_company_cannot_revoke_anothers_tokens(quick: Any) -> None:
    body, _ = quick.tokens()
    acme = quick.acme
    quick.acme = rival(quick)
    for token in (body["access_token"], body["refresh_token"], "x"):
        form = quick.form(grant_type=None, scope=None, token=token)
        assert quick.post(form, path="/v1/revoke").status_code == 200
    quick.acme = acme
    assert quick.ask(body["access_token"]).status_code == 200
    assert quick.post(quick.refresh_form(body["refresh_token"])).status_code == 200


# --- grant management ----------------------------------------------------------------------------------------------


def grant(server: Any, method: str, consent: bytes, token: str) -> Any:
    path = f"/v1/grants/{b64(consent)}"
    headers = {"authorization": f"DPoP {token}", "dpop": server.proof(method, path, token=token)}
    return server.client.request(method, path, headers=headers)


def test_a_company_queries_its_own_grants_only(server: Any) -> None:
    body, given = server.tokens()
    found = grant(server, "GET", given.consent_id, body["access_token"])
    assert found.json() == {
        "grant_id": body["grant_id"], "authorization_details": body["authorization_details"],
        "request_sha256": b64(given.request_sha256),
    }  # fmt: skip
    assert grant(server, "GET", given.consent_id, server.token()).status_code == 200
    other = server.world.give()
    assert grant(server, "GET", other.consent_id, body["access_token"]).status_code == 404, "a token for one grant"
    acme, server.acme = server.acme, rival(server)
    stranger = server.token()
    answers = [
        grant(server, method, consent, stranger)
        for method in ("GET", "DELETE")
        for consent in (given.consent_id, b"x" * 16)
    ]
    assert {answer.status_code for answer in answers} == {404}
    assert len({str({**answer.json(), "instance": ""}) for answer in answers}) == 1
    server.acme = acme
    server.world.withdraw(given)
    assert grant(server, "GET", given.consent_id, server.token()).status_code == 404
