"""Codes and refresh tokens: what a company makes of a grant."""

from __future__ import annotations

import base64
import json
import threading
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy

from tests.company_kit import CompanyKit, b64, new_key
from tests.consent_kit import S
from vault.oauth import authorizations, families
from vault.oauth.server import Endpoint
from vault.parties import companies
from vault.parties.companies import CompanyId, CompanyStatus
from vault.schema.consent import ConsentEvent


def claims_of(token: str) -> dict[str, Any]:
    return dict(json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "==")))


def refused(response: Any) -> str:
    assert response.status_code == 400, response.text
    assert response.headers["cache-control"] == "no-store"
    return str(response.json()["error"])


def rival(server: Any) -> CompanyKit:
    rival = CompanyKit(name="Rival")
    with server.database.transaction() as session:
        companies.register(session, rival.record(server.now), now=server.now)
    return rival


def test_a_code_gives_tokens_for_the_one_consent(server: Any) -> None:
    body, given = server.tokens()
    assert body["grant_id"] == b64(given.consent_id)
    assert (body["token_type"], body["expires_in"], body["scope"]) == ("DPoP", 600, "twin:ask")
    assert body["authorization_details"][0]["type"] == "twin_query"
    assert "request" not in body["authorization_details"][0]
    claims = claims_of(body["access_token"])
    assert claims["grant_id"] == b64(given.consent_id)
    assert claims["cnf"] == {"jkt": server.acme.dpop.thumbprint()}
    assert server.ask(body["access_token"]).json()["grant"] is True
    with server.database.snapshot() as session:
        assert body["refresh_token"] not in repr(session.execute(sqlalchemy.text("SELECT * FROM oauth_family")).all())


def test_a_code_is_consumed_before_tokens_exist_and_its_reuse_ends_them(server: Any, other_process: Any) -> None:
    """Trap 3: Authlib deletes the code only after it has saved the tokens."""
    landed, _ = server.authorize()
    body = server.post(server.code_form(landed["code"])).json()
    assert server.ask(body["access_token"]).status_code == 200
    assert refused(other_process.post(server.code_form(landed["code"]))) == "invalid_grant"
    assert server.ask(body["access_token"]).status_code == 401
    assert refused(server.post(server.refresh_form(body["refresh_token"]))) == "invalid_grant"


def test_of_many_requests_with_one_code_at_most_one_wins_and_none_keeps_tokens(server: Any, other_process: Any) -> None:
    landed, _ = server.authorize()
    responses: list[Any] = []
    sent = [(p, p.code_form(landed["code"]), p.proof("POST", "/v1/token")) for p in (server, other_process) * 3]
    threads = [
        threading.Thread(target=lambda p=p, form=form, proof=proof: responses.append(p.post(form, proof=proof)))
        for p, form, proof in sent
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(240)
    assert sorted(response.status_code for response in responses) == [200] + [400] * 5
    token = next(response.json()["access_token"] for response in responses if response.status_code == 200)
    assert server.ask(token).status_code == 401


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"code_verifier": None}, "invalid_request"),
        ({"code_verifier": "w" * 43}, "invalid_grant"),
        ({"code_verifier": "short"}, "invalid_request"),
        ({"redirect_uri": "https://acme.example/other"}, "invalid_grant"),
        ({"redirect_uri": None}, "invalid_grant"),
        ({"resource": "https://other.example"}, "invalid_target"),
        ({"authorization_details": "[]"}, "invalid_request"),
        ({"code": None}, "invalid_request"),
        ({"code": "x" * 43}, "invalid_grant"),
        ({"code": ""}, "invalid_request"),
    ],
)
def test_a_code_needs_all_that_it_was_bound_to(quick: Any, changes: dict[str, Any], error: str) -> None:
    landed, _ = quick.authorize()
    assert refused(quick.post(quick.code_form(landed["code"], **changes))) == error
    if "code" not in changes:
        assert refused(quick.post(quick.code_form(landed["code"]))) == "invalid_grant", "one try"


def test_a_code_is_bound_to_the_key_of_its_request(quick: Any) -> None:
    landed, _ = quick.authorize()
    quick.acme.dpop = new_key()
    assert refused(quick.post(quick.code_form(landed["code"]))) == "invalid_grant"


def test_a_code_bound_by_dpop_jkt_works_with_that_key(quick: Any) -> None:
    landed, _ = quick.authorize(dpop="", dpop_jkt=quick.acme.dpop.thumbprint())
    assert quick.post(quick.code_form(landed["code"])).status_code == 200


def test_without_the_nonce_the_same_code_works_on_the_second_try(server: Any) -> None:
    """Trap 5: the proof is verified before client authentication and before the code is consumed."""
    landed, _ = server.authorize()
    form = server.code_form(landed["code"])
    assert refused(server.post(form, proof=server.proof("POST", "/v1/token", nonce=None))) == "use_dpop_nonce"
    assert server.post(form).status_code == 200


def test_a_code_lives_a_minute(quick: Any) -> None:
    landed, _ = quick.authorize()
    quick.clock.at += timedelta(seconds=authorizations.CODE_S)
    assert refused(quick.post(quick.code_form(landed["code"]))) == "invalid_grant"


def test_another_company_gets_nothing_for_a_code_and_ends_nothing(quick: Any) -> None:
    landed, _ = quick.authorize()
    acme = quick.acme
    quick.acme = rival(quick)
    assert refused(quick.post(quick.code_form(landed["code"]))) == "invalid_grant"
    quick.acme = acme
    assert quick.post(quick.code_form(landed["code"])).status_code == 200


def test_a_consent_withdrawn_before_the_code_is_used_gives_no_token(server: Any) -> None:
    landed, given = server.authorize()
    server.world.withdraw(given)
    assert refused(server.post(server.code_form(landed["code"]))) == "invalid_grant"


def test_a_suspended_company_gets_no_token_for_a_code(quick: Any) -> None:
    landed, _ = quick.authorize()
    with quick.database.transaction() as session:
        companies.set_status(session, CompanyId(quick.acme.company_id), CompanyStatus.SUSPENDED, now=quick.now)
    assert refused(quick.post(quick.code_form(landed["code"]))) == "unauthorized_client"


def test_software_agents_get_short_tokens(quick: Any) -> None:
    agent = quick.acme = quick.world.company = CompanyKit(name="Agent")
    with quick.database.transaction() as session:
        companies.register(session, agent.record(quick.now, agent=1), now=quick.now)
    body, _ = quick.tokens()
    assert body["expires_in"] == 300
    assert claims_of(body["access_token"])["exp"] == S + 300


# --- refresh -------------------------------------------------------------------------------------------------------


def test_a_refresh_token_is_taken_for_the_next_one(server: Any) -> None:
    first, given = server.tokens()
    second = server.post(server.refresh_form(first["refresh_token"]))
    assert second.status_code == 200, second.text
    body = second.json()
    assert body["refresh_token"] != first["refresh_token"]
    assert body["grant_id"] == b64(given.consent_id)
    assert server.ask(body["access_token"]).status_code == 200
    assert server.post(server.refresh_form(body["refresh_token"])).status_code == 200


def test_a_used_refresh_token_ends_its_family(server: Any, other_process: Any) -> None:
    first, _ = server.tokens()
    second = server.post(server.refresh_form(first["refresh_token"])).json()
    third = server.post(server.refresh_form(second["refresh_token"])).json()
    assert refused(other_process.post(server.refresh_form(first["refresh_token"]))) == "invalid_grant"
    assert refused(server.post(server.refresh_form(third["refresh_token"]))) == "invalid_grant"
    for body in (first, second, third):
        assert server.ask(body["access_token"]).status_code == 401


def test_a_lost_answer_may_be_asked_for_again_within_a_minute_and_kills_the_lost_token(server: Any) -> None:
    first, _ = server.tokens()
    lost = server.post(server.refresh_form(first["refresh_token"])).json()
    again = server.post(server.refresh_form(first["refresh_token"]))
    assert again.status_code == 200
    assert refused(server.post(server.refresh_form(lost["refresh_token"]))) == "invalid_grant"
    assert refused(server.post(server.refresh_form(again.json()["refresh_token"]))) == "invalid_grant"


def test_who_got_no_answer_revokes_with_the_token_that_it_has(server: Any) -> None:
    first, _ = server.tokens()
    lost = server.post(server.refresh_form(first["refresh_token"])).json()
    assert server.introspect(first["refresh_token"])["active"], "it works for a minute more"
    form = server.form(grant_type=None, scope=None, token=first["refresh_token"])
    assert server.post(form, path=Endpoint.REVOKE).status_code == 200
    for left in (first, lost):
        assert refused(server.post(server.refresh_form(left["refresh_token"]))) == "invalid_grant"
        assert server.ask(left["access_token"]).status_code == 401
    assert not server.introspect(first["refresh_token"])["active"]


def test_after_the_minute_a_used_token_is_worth_nothing(quick: Any) -> None:
    first, _ = quick.tokens()
    following = quick.post(quick.refresh_form(first["refresh_token"])).json()
    quick.clock.at += timedelta(seconds=families.RETRY_S)
    assert not quick.introspect(first["refresh_token"])["active"]
    assert quick.introspect(following["refresh_token"])["active"]


def test_the_minute_is_not_extended_by_retrying(server: Any) -> None:
    first, _ = server.tokens()
    for _ in range(3):
        assert server.post(server.refresh_form(first["refresh_token"])).status_code == 200
        server.clock.at += timedelta(seconds=families.RETRY_S // 3)
    assert refused(server.post(server.refresh_form(first["refresh_token"]))) == "invalid_grant"


def test_of_concurrent_refreshes_one_token_is_in_force(server: Any, other_process: Any) -> None:
    first, _ = server.tokens()
    responses: list[Any] = []
    sent = [
        (p, p.refresh_form(first["refresh_token"]), p.proof("POST", "/v1/token")) for p in (server, other_process) * 2
    ]
    threads = [
        threading.Thread(target=lambda p=p, form=form, proof=proof: responses.append(p.post(form, proof=proof)))
        for p, form, proof in sent
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(240)
    assert [response.status_code for response in responses] == [200] * 4
    made = {response.json()["refresh_token"] for response in responses}
    assert len(made) == 4
    assert len([token for token in made if server.introspect(token)["active"]]) == 1


def test_a_refresh_token_dies_with_its_consent(server: Any) -> None:
    body, given = server.tokens()
    server.world.withdraw(given)
    assert refused(server.post(server.refresh_form(body["refresh_token"]))) == "invalid_grant"


def test_no_token_survives_a_withdrawal_that_was_acknowledged_while_it_was_made(
    server: Any, other_process: Any
) -> None:
    body, given = server.tokens()
    got = [body]

    def refresh() -> None:
        for _ in range(12):
            response = other_process.post(other_process.refresh_form(got[-1]["refresh_token"]))
            if response.status_code != 200:
                return
            got.append(response.json())
            started.set()

    started, thread = threading.Event(), threading.Thread(target=refresh)
    thread.start()
    assert started.wait(240)
    server.world.withdraw(given)
    active = [
        server.introspect(item[name])["active"] for item in list(got) for name in ("access_token", "refresh_token")
    ]
    thread.join(240)
    assert len(got) > 1
    assert not any(active)
    assert refused(server.post(server.refresh_form(got[-1]["refresh_token"]))) == "invalid_grant"


def test_a_refresh_token_ends_with_the_consents_window(quick: Any) -> None:
    body, given = quick.tokens()
    quick.clock.at += timedelta(seconds=given.terms.not_after - S)
    assert refused(quick.post(quick.refresh_form(body["refresh_token"]))) == "invalid_grant"


def test_another_company_neither_uses_nor_ends_a_refresh_token(quick: Any) -> None:
    body, _ = quick.tokens()
    acme = quick.acme
    quick.acme = rival(quick)
    for _ in range(2):
        assert refused(quick.post(quick.refresh_form(body["refresh_token"]))) == "invalid_grant"
    quick.acme = acme
    assert quick.post(quick.refresh_form(body["refresh_token"])).status_code == 200


@pytest.mark.parametrize("token", ["x", "A" * 64, "A" * 63 + "=", "é", "\x00"])
def test_no_refresh_token_at_all(quick: Any, token: str) -> None:
    assert refused(quick.post(quick.refresh_form(token))) == "invalid_grant"


def test_narrowing_the_consent_narrows_the_next_token(quick: Any) -> None:
    body, given = quick.tokens()
    from dataclasses import replace

    narrowed = quick.world.next(given, ConsentEvent.NARROWED, terms=replace(given.terms, quota_per_month=1))
    quick.world.amend(narrowed)
    after = quick.post(quick.refresh_form(body["refresh_token"])).json()
    assert after["authorization_details"][0]["quota"]["n"] == 1


# --- introspection and revocation ----------------------------------------------------------------------------------
