"""The page at /authorize, and the owner's client that decides behind it."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy

from tests.company_kit import CompanyKit, b64
from tests.consent_kit import S
from tests.vault_kit import begin
from vault.consent import consents
from vault.oauth import authorizations, page
from vault.parties import companies
from vault.parties.companies import CompanyId
from vault.schema.consent import ConsentEvent
from vault.schema.question import QuestionKind
from vault.seal.ids import ConsentId, new_id

NOWHERE = "/v1/authorizations/BBBB-CCCC"


def pushed(server: Any, **changes: Any) -> str:
    response = server.push(**changes)
    assert response.status_code == 201, response.text
    return str(response.json()["request_uri"])


def shown(server: Any) -> tuple[Any, str, str]:
    """Return a browser that waits, what it opened, and the code it shows."""
    uri, browser = pushed(server), server.browser()
    return browser, uri, server.code_on(server.open(browser, uri))


def decide(server: Any, code: str, verb: str, session: dict[str, str], **body: str) -> Any:
    return server.client.post(f"/v1/authorizations/{code}/{verb}", json=body or {}, headers=session)


def test_a_whole_flow_ends_with_code_state_and_iss(server: Any) -> None:
    landed, given = server.authorize()
    assert landed.keys() == {"code", "state", "iss"}
    assert (landed["state"], landed["iss"]) == ("af0ifjsldkj", "https://vault.example")
    assert len(landed["code"]) == 43
    with server.database.snapshot() as session:
        assert consents.get_own(session, ConsentId(given.consent_id), server.world.owner.vault).live


def test_a_browser_never_comes_back_in_the_clear(quick: Any) -> None:
    browser, uri, code = shown(quick)
    owner = quick.session()
    quick.client.get(f"/v1/authorizations/{code}", headers=owner)
    assert decide(quick, code, "deny", owner).status_code == 204
    sent = [
        quick.open(quick.browser(), "urn:nothing"),
        quick.open(browser, uri),
        quick.open(quick.browser(), pushed(quick)),
    ]
    assert [response.status_code for response in sent] == [400, 303, 200]
    for response in sent:
        assert response.headers["strict-transport-security"] == "max-age=63072000"
    assert "Strict-Transport-Security" not in page.headers("http://127.0.0.1:8000")


def test_the_page_shows_the_logged_name_and_a_code_without_script(quick: Any) -> None:
    company = quick.world.company = quick.acme = CompanyKit(name='<b>"Acme" & Söhne</b>')
    with quick.database.transaction() as session:
        companies.register(session, company.record(quick.now), now=quick.now)
    response = quick.open(quick.browser(), pushed(quick))
    assert re.fullmatch(r"[B-Z]{4}-[B-Z]{4}", quick.code_on(response))
    assert "&lt;b&gt;&quot;Acme&quot; &amp; Söhne&lt;/b&gt;" in response.text
    assert "<b>" not in response.text
    assert '<meta http-equiv="refresh" content="3">' in response.text
    assert "<script" not in response.text
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert response.headers["referrer-policy"] == "no-referrer"
    assert response.headers["cache-control"] == "no-store"
    cookie = response.headers["set-cookie"]
    assert cookie.startswith("__Host-authorize=")
    assert all(part in cookie for part in ("Secure", "HttpOnly", "SameSite=lax", "Path=/"))


@pytest.mark.parametrize(
    ("accepted", "language"),
    [
        ("", "en"),
        ("fr", "fr"),
        ("fr-CH, fr;q=0.9, en;q=0.8", "fr"),
        ("en-GB,en;q=0.9,fr;q=0.8", "en"),
        ("de-DE, fr;q=0.5, en;q=0.3", "fr"),
        ("fr;q=0, en;q=0.1", "en"),
        ("fr;q=0", "en"),
        ("tlh, *;q=0.5", "en"),
        ("fr;q=x", "en"),
        ("," * 5000 + "fr", "fr"),
    ],
)
def test_the_page_speaks_the_browsers_language(quick: Any, accepted: str, language: str) -> None:
    browser, uri = quick.browser(), pushed(quick)
    browser.headers["accept-language"] = accepted
    page = quick.open(browser, uri)
    assert re.fullmatch(r"[B-Z]{4}-[B-Z]{4}", quick.code_on(page))
    dead = browser.get("/authorize", params={"client_id": quick.acme.company_id, "request_uri": "urn:x"})
    for shown in (page, dead):
        assert f'<html lang="{language}">' in shown.text
        assert not set("{}") & set(shown.text.partition("</head>")[2])
    assert ("demande votre consentement" in page.text) is (language == "fr")
    assert ("Ce lien ne fonctionne pas" in dead.text) is (language == "fr")


def test_another_sites_script_reads_nothing(quick: Any) -> None:
    uri, browser = pushed(quick), quick.browser()
    for method in ("GET", "OPTIONS"):
        sent = {"origin": "https://evil.example", "access-control-request-method": "GET"}
        params = {"client_id": quick.acme.company_id, "request_uri": uri}
        response = browser.request(method, "/authorize", params=params, headers=sent)
        assert not [name for name in response.headers if name.startswith("access-control")]


def test_the_page_waits_until_the_owner_decides(quick: Any) -> None:
    browser, uri, code = shown(quick)
    assert quick.code_on(quick.open(browser, uri)) == code
    quick.clock.at += timedelta(seconds=authorizations.SHOWN_S - 1)
    assert quick.code_on(quick.open(browser, uri)) == code


@pytest.mark.parametrize(
    "query",
    [
        "",
        "?client_id={id}",
        "?request_uri={uri}",
        "?client_id={id}&request_uri={uri}&state=x",
        "?client_id={id}&client_id={id}&request_uri={uri}",
        "?client_id={id}&request_uri={uri}&request_uri={uri}",
        "?client_id={id}&response_type=code&redirect_uri=https%3A%2F%2Facme.example%2Fcb&code_challenge=x",
        "?client_id=%00&request_uri={uri}",
        "?client_id=%ff&request_uri={uri}",
        "?client_id={other}&request_uri={uri}",
        "?client_id={id}&request_uri=urn:ietf:params:oauth:request_uri:x",
        "?client_id={id}&request_uri=",
    ],
)
def test_the_page_takes_client_id_and_request_uri_alone(quick: Any, query: str) -> None:
    """Trap 6: whatever else a browser brings was not authenticated."""
    other = CompanyKit()
    with quick.database.transaction() as session:
        companies.register(session, other.record(quick.now), now=quick.now)
    uri = pushed(quick)
    response = quick.browser().get(
        "/authorize" + query.format(id=quick.acme.company_id, other=other.company_id, uri=uri)
    )
    assert response.status_code == 400
    assert "location" not in response.headers
    assert "<code>" not in response.text


def test_a_request_uri_opens_in_one_browser_only(server: Any, other_process: Any) -> None:
    """Trap 6: redeemed once."""
    browser, uri, code = shown(server)
    for process in (server, other_process):
        again = process.open(process.browser(), uri)
        assert again.status_code == 400
        assert code not in again.text
    assert server.code_on(server.open(browser, uri)) == code


def test_a_request_uri_is_short_lived(quick: Any) -> None:
    uri = pushed(quick)
    quick.clock.at += timedelta(seconds=authorizations.PUSHED_S)
    assert quick.open(quick.browser(), uri).status_code == 400


def test_denial_goes_back_with_state_and_iss(server: Any) -> None:
    browser, uri, code = shown(server)
    owner = server.session()
    server.client.get(f"/v1/authorizations/{code}", headers=owner)
    assert decide(server, code, "deny", owner).status_code == 204
    landed = server.landed(server.open(browser, uri))
    assert landed.pop("error_description")
    assert landed == {"error": "access_denied", "state": "af0ifjsldkj", "iss": "https://vault.example"}
    given = server.give(server.asked()[0])
    assert decide(server, code, "approve", owner, consent=b64(given.consent_id)).status_code == 404


def test_an_owner_who_never_decides_denies(quick: Any) -> None:
    browser, uri, code = shown(quick)
    quick.clock.at += timedelta(seconds=authorizations.SHOWN_S)
    assert quick.landed(quick.open(browser, uri))["error"] == "access_denied"
    assert quick.client.get(f"/v1/authorizations/{code}", headers=quick.session()).status_code == 404


def test_the_browser_is_sent_back_with_a_code_once(server: Any) -> None:
    browser, uri, code = shown(server)
    owner = server.session()
    jws = server.client.get(f"/v1/authorizations/{code}", headers=owner).json()["request"]
    assert decide(server, code, "approve", owner, consent=b64(server.give(jws).consent_id)).status_code == 204
    assert server.open(server.browser(), uri).status_code == 400, "another browser gets no code"
    assert server.landed(server.open(browser, uri))["code"]
    assert server.open(browser, uri).status_code == 400


def test_iss_is_added_through_a_response_of_our_own(quick: Any) -> None:
    """Trap 4: Authlib reads and writes `response.location`, which Starlette's responses do not have."""
    from vault.oauth.client import Reply
    from vault.oauth.grants import Issuer

    reply = Reply(302, "", {"Location": "https://acme.example/cb?code=x"})
    Issuer("https://vault.example").add_issuer_parameter(None, reply)
    assert reply.headers["Location"] == "https://acme.example/cb?code=x&iss=https%3A%2F%2Fvault.example"


# --- the owner's client --------------------------------------------------------------------------------------------


def test_the_client_reads_what_the_company_signed(quick: Any) -> None:
    jws, details = quick.asked()
    uri, browser = pushed(quick, details=details), quick.browser()
    code = quick.code_on(quick.open(browser, uri))
    for typed in (code, code.lower(), code.replace("-", ""), code.replace("-", " ")):
        read = quick.client.get(f"/v1/authorizations/{typed}", headers=quick.session())
        told = read.json()
        assert len(told.pop("name")) == 43
        assert told == {
            "company": quick.acme.company_id, "request": jws, "renew": "", "expires_at": S + authorizations.SHOWN_S,
        }  # fmt: skip
        assert read.headers["cache-control"] == "no-store"


def test_a_code_that_nothing_waits_under_looks_like_another_vaults(server: Any) -> None:
    _, _, code = shown(server)
    mine, stranger = server.session(), server.session(_another_vault(server))
    assert server.client.get(f"/v1/authorizations/{code}", headers=mine).status_code == 200
    answers = [
        server.client.get(path, headers=stranger) for path in (f"/v1/authorizations/{code}", NOWHERE, NOWHERE[:-4])
    ]
    assert {answer.status_code for answer in answers} == {404}
    assert len({_without_instance(answer) for answer in answers}) == 1
    for verb, body in (("approve", {"consent": b64(new_id())}), ("deny", {})):
        assert decide(server, code, verb, stranger, **body).status_code == 404
    assert server.client.get(f"/v1/authorizations/{code}", headers=mine).status_code == 200


def test_codes_cannot_be_tried_one_after_the_other(server: Any, other_process: Any) -> None:
    _, _, code = shown(server)
    owner = server.session()
    for _ in range(2 * authorizations.MISSES_PER_MINUTE):  # what the owner reads rightly is not counted
        assert server.client.get(f"/v1/authorizations/{code}", headers=owner).status_code == 200
    tried = [process.client.get(NOWHERE, headers=owner).status_code for process in (server, other_process) * 4]
    assert tried == [404] * authorizations.MISSES_PER_MINUTE + [429] * 2
    limited = server.client.get(f"/v1/authorizations/{code}", headers=owner)
    assert (limited.status_code, limited.headers["retry-after"]) == (429, "60")
    server.clock.at += timedelta(seconds=60)
    assert server.client.get(f"/v1/authorizations/{code}", headers=owner).status_code == 200


def test_nobody_decides_without_a_session_or_before_reading(quick: Any) -> None:
    _, _, code = shown(quick)
    for method, path in (("GET", ""), ("POST", "/approve"), ("POST", "/deny")):
        response = quick.client.request(method, f"/v1/authorizations/{code}{path}", json={"consent": b64(new_id())})
        assert response.status_code == 401
    assert decide(quick, code, "deny", quick.session()).status_code == 404


@pytest.mark.parametrize(
    ("case", "status"),
    [
        ("another request", 422),
        ("withdrawn", 422),
        ("over", 422),
        ("unknown", 404),
        ("another vault", 404),
        ("malformed", 400),
    ],
)
def test_only_the_consent_that_answers_the_request_approves(server: Any, case: str, status: int) -> None:
    browser, uri, code = shown(server)
    owner = server.session()
    jws = server.client.get(f"/v1/authorizations/{code}", headers=owner).json()["request"]
    consent = new_id()
    match case:
        case "another request":
            consent = server.world.give().consent_id
        case "withdrawn":
            given = server.give(jws)
            server.world.withdraw(given)
            consent = given.consent_id
        case "over":
            consent = server.give(jws, not_after=S + 60).consent_id
            server.clock.at += timedelta(seconds=60)
        case "another vault":
            consent, other = server.give(jws).consent_id, _another_vault(server)
            with server.database.transaction() as session:
                session.execute(sqlalchemy.text("UPDATE consent SET vault_id = :other"), {"other": other})
    sent = "x" if case == "malformed" else b64(consent)
    assert decide(server, code, "approve", owner, consent=sent).status_code == status
    assert server.code_on(server.open(browser, uri)) == code, "it waits on"


def test_a_narrower_consent_approves(quick: Any) -> None:
    browser, uri, code = shown(quick)
    owner = quick.session()
    jws = quick.client.get(f"/v1/authorizations/{code}", headers=owner).json()["request"]
    given = quick.give(jws, questions=frozenset({QuestionKind.RECOMMEND}), quota_per_month=1)
    assert decide(quick, code, "approve", owner, consent=b64(given.consent_id)).status_code == 204
    code = quick.landed(quick.open(browser, uri))["code"]
    body = quick.post(quick.code_form(code)).json()
    assert body["authorization_details"][0]["questions"] == ["recommend"]
    assert body["authorization_details"][0]["quota"] == {"n": 1, "per": "P1M"}


def test_a_renewed_consent_keeps_its_grant_id(server: Any) -> None:
    import hashlib

    from tests.consent_kit import terms
    from vault.schema.terms import ConsentKind

    first = server.world.give()
    jws, details = server.asked(quota_per_month=7)
    renewal = {"grant_management_action": "replace", "grant_id": b64(first.consent_id)}
    uri, browser = pushed(server, details=details, **renewal), server.browser()
    code, owner = server.code_on(server.open(browser, uri)), server.session()
    stranger = server.session(_another_vault(server))
    assert server.client.get(f"/v1/authorizations/{code}", headers=stranger).status_code == 404, "not whose it is"
    read = server.client.get(f"/v1/authorizations/{code}", headers=owner).json()
    assert read["renew"] == b64(first.consent_id)
    other = server.give(jws, quota_per_month=7)
    assert decide(server, code, "approve", owner, consent=b64(other.consent_id)).status_code == 422
    renewed = server.world.next(
        first, ConsentEvent.RENEWED, terms=terms(ConsentKind.COMPANY, server.acme.company_id, quota_per_month=7),
        request_sha256=hashlib.sha256(jws.encode()).digest(),
    )  # fmt: skip
    server.world.amend(renewed, jws)
    assert decide(server, code, "approve", owner, consent=b64(first.consent_id)).status_code == 204
    body = server.post(server.code_form(server.landed(server.open(browser, uri))["code"])).json()
    assert body["grant_id"] == b64(first.consent_id)
    assert body["authorization_details"][0]["quota"]["n"] == 7


def test_a_company_renews_no_grant_of_another(quick: Any) -> None:
    given = quick.world.give()
    rival = quick.acme = quick.world.company = CompanyKit(name="Rival")
    with quick.database.transaction() as session:
        companies.register(session, rival.record(quick.now), now=quick.now)
    refused = quick.push(grant_management_action="replace", grant_id=b64(given.consent_id))
    assert refused.json()["error"] == "invalid_grant"


def test_a_redirect_uri_taken_back_meanwhile_gets_no_code(quick: Any) -> None:
    browser, uri, code = shown(quick)
    owner = quick.session()
    jws = quick.client.get(f"/v1/authorizations/{code}", headers=owner).json()["request"]
    record = quick.acme.record(quick.now, version=2, redirect_uris=["https://acme.example/new"])
    given = quick.give(jws)
    with quick.database.transaction() as session:
        companies.rotate(session, record, now=quick.now)
        assert companies.get(session, CompanyId(quick.acme.company_id)).redirect_uris == ("https://acme.example/new",)
    assert decide(quick, code, "approve", owner, consent=b64(given.consent_id)).status_code == 204
    response = quick.open(browser, uri)
    assert response.status_code == 400
    assert "location" not in response.headers


def _another_vault(server: Any) -> bytes:
    other, _ = begin(server.database, server.world.shortkeys)
    return bytes(other.vault)


def _without_instance(response: Any) -> str:
    return str({name: value for name, value in response.json().items() if name != "instance"})
