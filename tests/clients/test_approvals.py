"""An owner answers what a company asks through a browser or for a renewal, and nobody else does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from tests.client_kit import (
    REDIRECT,
    Service,
    Tamper,
    code_on,
    company_terms,
    json_answer,
    open_page,
    purchases,
    push,
)
from tests.waiting import until
from twinvault.api import Api, ApiError
from twinvault.company import Company
from twinvault.owner import Owner
from twinvault.terms import BadRequest
from vault.clock import SystemClock, unix_s
from vault.encoding import b64u
from vault.parties import companies
from vault.schema.consent import ConsentEvent, ConsentVersion
from vault.seal.ids import ConsentId


@pytest.fixture
def shop(service: Service, api: Api, tmp_path: Path) -> Company:
    """A company that sends browsers."""
    made, record = Company.register(
        tmp_path / "shop", service.trust, name="Shop", contact="s@shop.example", redirect_uris=[REDIRECT], api=api
    )
    with service.app.state.database.transaction() as session:
        companies.register(session, record, now=SystemClock().now())
    return made


@pytest.fixture
def browser(service: Service) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.url) as found:
        yield found


def replacing(given: ConsentVersion) -> dict[str, str]:
    return {"grant_management_action": "replace", "grant_id": b64u(given.consent_id)}


def landed(response: httpx.Response) -> dict[str, list[str]]:
    assert response.status_code == 303, response.text
    return parse_qs(urlsplit(response.headers["location"]).query)


def test_the_browser_moves_on_when_the_owners_client_approves(
    service: Service, owner: Owner, shop: Company, browser: httpx.Client
) -> None:
    owner.import_traces(purchases())
    uri = push(service, shop, company_terms(shop, owner))
    code = code_on(open_page(browser, shop, uri))
    waiting = owner.approvals.read(code.lower())
    assert (waiting.asked.company, waiting.renew) == ("Shop", None)
    assert waiting.expires_at_s > unix_s(SystemClock().now())
    given = owner.give_company(waiting.asked, replace(waiting.asked.request.terms, quota_per_month=1)).version
    assert open_page(browser, shop, uri).status_code == 200  # given, and not yet named as the answer
    owner.approvals.approve(code, ConsentId(given.consent_id))
    answer = landed(open_page(browser, shop, uri))
    assert answer["code"]
    assert answer["iss"] == [service.url]


def test_a_denied_request_gives_access_denied_and_no_consent(
    service: Service, owner: Owner, shop: Company, browser: httpx.Client
) -> None:
    owner.import_traces(purchases())
    uri = push(service, shop, company_terms(shop, owner))
    code = code_on(open_page(browser, shop, uri))
    owner.approvals.read(code)
    owner.approvals.deny(code)
    assert landed(open_page(browser, shop, uri))["error"] == ["access_denied"]
    assert owner.consents() == []
    with pytest.raises(ApiError):
        owner.approvals.deny(code)


def test_a_code_is_answered_only_by_the_vault_that_read_it_and_with_what_was_asked(
    *,
    service: Service,
    owner: Owner,
    new_owner: Callable[..., Any],
    shop: Company,
    company: Company,
    browser: httpx.Client,
) -> None:
    owner.import_traces(purchases())
    code = code_on(open_page(browser, shop, push(service, shop, company_terms(shop, owner))))
    owner.approvals.read(code)
    other, _ = new_owner()
    with pytest.raises(ApiError):
        other.approvals.read(code)
    elsewhere = owner.give_company(owner.read_request(company.sign_request(company_terms(company, owner)))).version
    with pytest.raises(ApiError) as refusal:
        owner.approvals.approve(code, ConsentId(elsewhere.consent_id))
    assert refusal.value.slug == "not-what-was-asked"
    with pytest.raises(BadRequest):
        owner.approvals.read("--")


def test_a_service_that_shows_another_company_than_signed_is_not_believed(
    *, service: Service, owner: Owner, shop: Company, company: Company, browser: httpx.Client, tamper: Tamper
) -> None:
    owner.import_traces(purchases())
    code = code_on(open_page(browser, shop, push(service, shop, company_terms(shop, owner))))
    swap = lambda response: json_answer({**response.json(), "company": company.company_id})  # noqa: E731
    tamper.on("GET", f"/v1/authorizations/{code.replace('-', '')}", swap)
    with pytest.raises(BadRequest, match="another company"):
        owner.approvals.read(code)


def test_a_consent_is_renewed_from_the_list_without_a_browser_and_the_log_tells(
    *, service: Service, owner: Owner, new_owner: Callable[..., Any], shop: Company
) -> None:
    owner.import_traces(purchases())
    given = owner.give_company(owner.read_request(shop.sign_request(company_terms(shop, owner)))).version
    push(service, shop, company_terms(shop, owner, quota_per_month=5), **replacing(given))
    other, _ = new_owner()
    assert other.requests() == []
    (waiting,) = owner.requests()
    assert (waiting.asked.company, waiting.renew) == ("Shop", given.consent_id)
    asked = until(
        lambda: [event for event in owner.history() if event["kind"] == "consent-request"],
        "the request is logged, a moment after it is pushed",
    )
    assert [event["personal"]["consent"] for event in asked] == [b64u(given.consent_id)]
    assert asked[0]["sentence"].startswith("Shop asks you to renew a consent")
    renewed = owner.answer(waiting, replace(waiting.asked.request.terms, quota_per_month=4)).version
    assert (renewed.event, renewed.consent_id) == (ConsentEvent.RENEWED, given.consent_id)
    assert owner.requests() == []
    assert owner.consent(ConsentId(given.consent_id)).quota_left == 4
    with pytest.raises(ApiError):
        owner.approvals.deny(waiting.name)


def test_a_consent_is_renewed_by_the_code_that_a_browser_shows(
    service: Service, owner: Owner, shop: Company, browser: httpx.Client
) -> None:
    owner.import_traces(purchases())
    given = owner.give_company(owner.read_request(shop.sign_request(company_terms(shop, owner)))).version
    uri = push(service, shop, company_terms(shop, owner, quota_per_month=5), **replacing(given))
    waiting = owner.approvals.read(code_on(open_page(browser, shop, uri)))
    assert waiting.renew == given.consent_id
    renewed = owner.answer(waiting).version
    assert (renewed.event, renewed.version, renewed.terms.quota_per_month) == (ConsentEvent.RENEWED, 2, 5)
    assert landed(open_page(browser, shop, uri))["code"]
    assert [item.id for item in owner.consents()] == [given.consent_id]


def test_giving_and_saying_so_is_one_step_and_leaves_nothing_open_if_it_fails(
    *, service: Service, owner: Owner, shop: Company, browser: httpx.Client, tamper: Tamper
) -> None:
    owner.import_traces(purchases())
    uri = push(service, shop, company_terms(shop, owner))
    waiting = owner.approvals.read(code_on(open_page(browser, shop, uri)))
    assert owner.requests() == [waiting]
    tamper.on("POST", f"/{waiting.name}/approve", lambda _: json_answer({"type": "/problems/gone"}, 404))
    with pytest.raises(ApiError):
        owner.answer(waiting)
    assert [item.current.event for item in owner.consents()] == [ConsentEvent.WITHDRAWN]
