"""A company's three calls: it asks, it waits, it gets an answer; and everything that may come back instead."""

from __future__ import annotations

import shlex
import socket
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx
import pytest

from tests.client_kit import REDIRECT, Service, Tamper, company_terms, json_answer, purchases
from tests.waiting import until
from twinvault.api import Api, ApiError, ClientError, Unreachable
from twinvault.asking import (
    Granted,
    NotDecided,
    NotGranted,
    Requested,
    WrongLanding,
    dump_requested,
    listen,
    new_asked,
    parse_requested,
    poll,
)
from twinvault.company import Company
from twinvault.owner import Owner
from twinvault.receipts import verify_answered
from vault.clock import SystemClock
from vault.encoding import b64u, parse_b64u, parse_json
from vault.parties import companies
from vault.schema.category import Category, Purpose
from vault.schema.question import NextChoice
from vault.schema.terms import ConsentKind

HERE = "http://127.0.0.1/back"
QUESTION = NextChoice(Category("pd:Purchase"), Purpose("dpv:ProvideProductRecommendations"), 1)


@pytest.fixture
def shop(service: Service, api: Api, tmp_path: Path) -> Company:
    """A company whose browsers come back to this machine, or to a web server of its own."""
    made, record = Company.register(
        tmp_path / "shop", service.trust, name="Shop", contact="s@shop.example", redirect_uris=[HERE, REDIRECT], api=api
    )
    with service.app.state.database.transaction() as session:
        companies.register(session, record, now=SystemClock().now())
    return made


@pytest.fixture
def owner_with_twin(owner: Owner, work: Callable[[], None]) -> Owner:
    owner.import_traces(purchases())
    owner.give(owner.terms_for(ConsentKind.SELF, [Category("pd:Purchase")]))
    owner.refresh()
    work()
    return owner


class Browser:
    """What an owner's browser does: shows the code, waits, follows the redirect."""

    def __init__(self, url: str) -> None:
        self._url = url
        page = httpx.get(url, timeout=30)
        self._cookies = dict(page.cookies)
        assert page.status_code == 200, page.text
        self.code = page.text.partition("<code>")[2].partition("</code>")[0]

    def back(self) -> str:
        """Return where the browser is sent, once it is."""
        response = httpx.get(self._url, timeout=30, headers={"cookie": "; ".join(map("=".join, self._cookies.items()))})
        assert response.status_code == 303, response.text
        return response.headers["location"]


def landed(owner: Owner, asked: Requested, *, allow: bool = True) -> str:
    """Let the owner decide; return the address that the browser is sent back to."""
    browser = Browser(asked.url)
    waiting = owner.approvals.read(browser.code)
    if allow:
        owner.answer(waiting, replace(waiting.asked.request.terms, quota_per_month=2))
    else:
        owner.approvals.deny(waiting.name)
    return browser.back()


def test_three_calls_lead_to_a_verified_answer(owner_with_twin: Owner, shop: Company) -> None:
    owner = owner_with_twin
    asked = shop.request_consent(company_terms(shop, owner))
    assert asked.comes_back_here
    url = landed(owner, asked)
    assert url.startswith(asked.redirect_uri)
    pages: list[httpx.Response] = []
    browser = threading.Thread(target=lambda: pages.append(_get_when_open(url)))
    browser.start()
    granted = shop.wait(asked)
    browser.join(240)
    assert pages[0].text == "You may close this window.\n"
    assert granted.details["quota"] == {"n": 2, "per": "P1M"}
    assert [item.id for item in owner.consents() if item.current.terms.kind is ConsentKind.COMPANY] == [
        granted.consent_id
    ]
    assert shop.ask(granted.consent_id, QUESTION).answer.consent_id == granted.consent_id


def _get_when_open(url: str) -> httpx.Response:
    def get() -> httpx.Response | None:
        try:
            return httpx.get(url, timeout=30)
        except httpx.ConnectError:
            return None

    return until(get, "somebody listens")


def test_a_web_server_passes_on_what_came_back_and_a_code_is_traded_once(owner: Owner, shop: Company) -> None:
    owner.import_traces(purchases())
    asked = shop.request_consent(company_terms(shop, owner), redirect_uri=REDIRECT)
    with pytest.raises(ClientError, match="web server"):
        shop.wait(asked)
    url = landed(owner, asked)
    assert shop.wait(asked, landed=url).details["type"] == "twin_query"
    with pytest.raises(ApiError) as refusal:
        shop.wait(asked, landed=url)
    assert refusal.value.slug == "invalid_grant"


def test_an_owner_who_refuses_ends_the_wait(owner: Owner, shop: Company) -> None:
    owner.import_traces(purchases())
    asked = shop.request_consent(company_terms(shop, owner))
    with pytest.raises(NotGranted):
        shop.wait(asked, landed=landed(owner, asked, allow=False))


def test_what_does_not_answer_this_request_is_not_used(owner: Owner, shop: Company, tamper: Tamper) -> None:
    owner.import_traces(purchases())
    asked, other = (shop.request_consent(company_terms(shop, owner), redirect_uri=REDIRECT) for _ in range(2))
    url = landed(owner, asked)
    fields = dict(parse_qsl(urlsplit(url).query))
    tamper.sent.clear()
    wrong = [
        {**fields, "state": other.state},
        {name: value for name, value in fields.items() if name != "state"},
        {**fields, "iss": "https://evil.example"},
        {name: value for name, value in fields.items() if name != "iss"},
        {name: value for name, value in fields.items() if name != "code"},
        {**fields, "code": ""},
        {"state": fields["state"], "iss": fields["iss"], "error": "server_error"},
    ]
    for changed in wrong:
        with pytest.raises(WrongLanding):
            shop.wait(asked, landed=f"{REDIRECT}?{urlencode(changed)}")
    for repeated in ("code", "state", "iss"):
        with pytest.raises(WrongLanding):
            shop.wait(asked, landed=f"{url}&{repeated}=x")
    for text in ("x", "https://[", REDIRECT):
        with pytest.raises(WrongLanding):
            shop.wait(asked, landed=text)
    assert tamper.sent == [], "no code was sent anywhere"
    assert shop.wait(asked, landed=url)


# --- renewals: no browser -----------------------------------------------------------------------------------------


def renewal(owner: Owner, shop: Company) -> tuple[Requested, Any]:
    owner.import_traces(purchases())
    terms = company_terms(shop, owner)
    given = owner.give_company(owner.read_request(shop.sign_request(terms))).version
    return shop.request_consent(replace(terms, quota_per_month=9), renew=given.consent_id), given


def test_a_renewal_is_waited_for_without_a_browser_ever_more_slowly(owner: Owner, shop: Company) -> None:
    asked, given = renewal(owner, shop)
    pauses: list[float] = []

    def decide(pause_s: float) -> None:
        pauses.append(pause_s)
        if len(pauses) == 7:
            owner.answer(owner.requests()[0])

    granted = shop.wait(asked, deadline_s=10_000, sleep=decide)
    assert granted.consent_id == given.consent_id
    assert granted.details["quota"] == {"n": 9, "per": "P1M"}
    assert pauses == [1, 2, 4, 8, 16, 30, 30]


def test_a_refused_renewal_ends_the_wait_and_leaves_the_consent(owner: Owner, shop: Company) -> None:
    asked, given = renewal(owner, shop)
    owner.approvals.deny(owner.requests()[0].name)
    with pytest.raises(NotGranted, match="stays as it was"):
        shop.wait(asked)
    assert owner.consent(given.consent_id).current == given


def test_a_wait_for_a_renewal_ends_at_its_deadline_or_when_another_request_was_answered(
    owner: Owner, shop: Company
) -> None:
    asked, given = renewal(owner, shop)
    with pytest.raises(NotDecided, match="wait again"):
        shop.wait(asked, deadline_s=0, sleep=lambda _: None)
    later = shop.request_consent(company_terms(shop, owner), renew=given.consent_id)
    owner.answer(owner.requests()[0])
    assert shop.wait(later, deadline_s=0)
    with pytest.raises(NotDecided, match="Ask again"):
        shop.wait(asked, deadline_s=1000)
    owner.withdraw(given.consent_id)
    with pytest.raises(ApiError) as ended:
        shop.wait(later)
    assert ended.value.slug == "unknown-consent"


def test_polling_outlives_a_service_that_is_away_and_nothing_else() -> None:
    answers: list[Any] = [
        Unreachable("gone"), ApiError("busy", 503, "x", retry_after_s=7), ApiError("slow", 429, "x"), None, "done",
    ]  # fmt: skip
    pauses: list[float] = []

    def read() -> Any:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert poll(read, deadline_s=10_000, sleep=pauses.append) == "done"
    assert pauses == [1, 7, 14, 28]
    answers.append(ApiError("unknown-consent", 404, "x"))
    with pytest.raises(ApiError):
        poll(read, deadline_s=10_000, sleep=pauses.append)


# --- a browser that comes back to this machine --------------------------------------------------------------------


def test_only_the_awaited_browser_ends_the_wait_on_this_machine() -> None:
    asked = new_asked("jws", HERE, None)
    host, port = "127.0.0.1", urlsplit(asked.redirect_uri).port or 0
    seen: list[int] = []

    def strangers() -> None:
        _get_when_open(f"http://{host}:{port}/")
        with socket.create_connection((host, port)) as stalled:
            stalled.sendall(b"G")  # and breaks off in the middle of a request
        paths = ("/back?state=x&code=c", "/back", f"/other?state={asked.state}", f"/back?state={asked.state}&state=x")
        paths += (f"/back?code=c&state={asked.state}",)
        seen.extend(httpx.get(f"http://{host}:{port}{path}").status_code for path in paths)

    thread = threading.Thread(target=strangers)
    thread.start()
    assert listen(asked, deadline_s=60) == f"/back?code=c&state={asked.state}"
    thread.join(240)
    assert seen == [404, 404, 404, 404, 200]


def test_nobody_comes_back_or_nobody_can_listen() -> None:
    asked = new_asked("jws", HERE, None)
    with pytest.raises(NotDecided):
        listen(asked, deadline_s=0)
    with (
        socket.create_server(("127.0.0.1", urlsplit(asked.redirect_uri).port or 0)),
        pytest.raises(ClientError) as busy,
    ):
        listen(asked, deadline_s=60)
    assert "listen" in busy.value.detail


def test_what_was_asked_is_kept_for_another_process_and_shown_to_nobody() -> None:
    asked = new_asked("jws", REDIRECT, None)
    assert asked.redirect_uri == REDIRECT
    for item in (asked, replace(asked, renew=parse_b64u("A" * 22))):
        assert parse_requested(parse_json(dump_requested(item))) == item
    assert asked.verifier not in repr(asked)
    with pytest.raises(ApiError):
        parse_requested({})


# --- any HTTP client ----------------------------------------------------------------------------------------------


def test_prepared_requests_need_nothing_but_http(owner_with_twin: Owner, shop: Company, service: Service) -> None:
    owner = owner_with_twin
    given = owner.give_company(owner.read_request(shop.sign_request(company_terms(shop, owner)))).version
    nonce = httpx.post(f"{service.url}/v1/token").headers["dpop-nonce"]

    def send(prepared: Any) -> httpx.Response:
        words = shlex.split(prepared.curl)
        headers = dict(words[i + 1].split(": ", 1) for i, word in enumerate(words) if word == "-H")
        body = words[words.index("--data-binary") + 1]
        assert words[0] == "curl"
        return httpx.request(words[words.index("-X") + 1], words[-1], headers=headers, content=body)

    prepared = shop.prepare_token(nonce)
    token = send(prepared).json()["access_token"]
    assert send(prepared).status_code == 400, "good once"
    question = shop.prepare_question(given.consent_id, QUESTION, token=token, nonce=nonce)
    answer = send(question)
    assert answer.status_code == 200, answer.text
    found = verify_answered(
        answer.content, service.trust, consent=given.consent_id,
        question_id=parse_b64u(question.url.rpartition("/")[2]), question=QUESTION, requester=shop.company_id,
    )  # fmt: skip
    assert b64u(found.answer.consent_id) == b64u(given.consent_id)
    assert send(question).status_code == 401, "its proof is used up"


def test_a_company_files_itself(service: Service, api: Api, tmp_path: Path) -> None:
    made, _ = Company.register(
        tmp_path / "filed", service.trust, name="Filed", contact="f@f.example", redirect_uris=[HERE], api=api
    )
    assert made.apply() == "pending"
    with pytest.raises(ApiError):
        made.apply(sandbox=True)  # this server has no sandbox


def test_an_answer_of_another_shape_is_not_believed(owner: Owner, shop: Company, tamper: Tamper) -> None:
    owner.import_traces(purchases())
    asked = shop.request_consent(company_terms(shop, owner), redirect_uri=REDIRECT)
    url = landed(owner, asked)
    for answer in ({}, {"grant_id": "A" * 22}, {"grant_id": "A" * 22, "authorization_details": []}):
        tamper.rules.clear()
        tamper.on("POST", "/v1/token", lambda _, answer=answer: json_answer(answer))  # type: ignore[misc]  # bound now
        with pytest.raises(ApiError):
            shop.wait(asked, landed=url)


def test_a_company_without_an_address_says_so(service: Service, owner: Owner, api: Api, tmp_path: Path) -> None:
    owner.import_traces(purchases())
    made, _ = Company.register(tmp_path / "nowhere", service.trust, name="Acme", contact="a@acme.example", api=api)
    with pytest.raises(ClientError, match="register with one"):
        made.request_consent(company_terms(made, owner))


def test_granted_is_compared_by_value() -> None:
    assert Granted(parse_b64u("A" * 22), {}) == Granted(parse_b64u("A" * 22), {})
