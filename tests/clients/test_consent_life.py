"""A consent's life from the owner's side: approve, freeze, keep receipts; and the end of a device."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from tests.client_kit import (
    PURCHASE,
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
from twinvault import consents
from twinvault.api import Api, ApiError
from twinvault.company import Company
from twinvault.consent_receipts import LANGUAGES, verify_consent_receipt
from twinvault.owner import Owner
from twinvault.receipts import NoReceipt
from twinvault.rings import RevokedDevice, UnknownDevice
from twinvault.terms import BadRequest
from vault.clock import SystemClock, unix_s
from vault.consent import changes
from vault.encoding import b64u, parse_b64u
from vault.errors import VaultError
from vault.parties import companies
from vault.schema.category import Category
from vault.schema.consent import ConsentEvent
from vault.schema.terms import ConsentKind
from vault.seal.errors import SealError
from vault.seal.ids import ConsentId, DeviceId
from vault.seal.signing import SigningKey


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
    elsewhere = owner.give_company(owner.read_request(company.request_consent(company_terms(company, owner)))).version
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


def test_a_freeze_stops_every_answer_until_it_is_lifted(owner: Owner, company: Company, tamper: Tamper) -> None:
    owner.import_traces(purchases())
    given = owner.give_company(owner.read_request(company.request_consent(company_terms(company, owner)))).version
    assert not owner.frozen()
    owner.freeze(frozen=True)
    assert owner.frozen()
    orders = [request for request in tamper.sent if request.url.path.endswith("/freezes")]
    with pytest.raises(ApiError) as replayed:
        owner._api.request("POST", orders[0].url.path, auth=owner._auth, json=json.loads(orders[0].content))
    assert "sequence" in replayed.value.detail
    assert all(consent.live for consent in owner.consents())  # consents stay; the vault is shut
    owner.freeze(frozen=False)
    assert not owner.frozen()
    kinds = [event["kind"] for event in owner.history()]
    assert kinds.count("freeze") == 2
    assert owner.withdraw(ConsentId(given.consent_id)).version.event is ConsentEvent.WITHDRAWN


def test_a_freeze_that_the_service_only_claims_is_noticed(owner: Owner, tamper: Tamper) -> None:
    tamper.on("POST", "/freezes", lambda _: json_answer({"state": "active", "sequence": 1}))
    with pytest.raises(ApiError, match="did not follow"):
        owner.freeze(frozen=True)


def test_another_owners_order_freezes_nothing(owner: Owner, new_owner: Callable[..., Any], tamper: Tamper) -> None:
    other, _ = new_owner()
    other.freeze(frozen=True)
    order = json.loads(tamper.sent[-1].content)
    with pytest.raises(ApiError):
        owner._api.request("POST", f"{owner._path}/freezes", auth=owner._auth, json=order)
    with pytest.raises(ApiError) as refusal:
        owner._api.request("POST", f"{other._path}/freezes", auth=owner._auth, json=order)
    assert refusal.value.status == 403
    assert not owner.frozen()


def test_a_revoked_device_seals_nothing_more_and_keeps_what_was_acknowledged(owner: Owner, tmp_path: Path) -> None:
    owner.import_traces(purchases())
    (mine,) = owner.devices()
    assert mine.accepted is None
    revoked = owner.revoke_device(mine.id)
    assert revoked.accepted is not None
    assert {head.seq for head in revoked.accepted.values()} == {1}
    (listed,) = owner.devices()
    assert listed == revoked
    with pytest.raises(VaultError):
        owner.import_traces(purchases(2, month=2))
    with pytest.raises(RevokedDevice):
        owner.revoke_device(mine.id)
    with pytest.raises(RevokedDevice):
        owner.enrol(mine.public_key)
    with pytest.raises(UnknownDevice):
        owner.revoke_device(DeviceId(bytes(16)))


def test_a_device_that_never_sealed_is_revoked_with_no_batch(owner: Owner) -> None:
    key = SigningKey(bytes(range(32))).public_key
    owner.enrol(key)
    assert len(owner.devices()) == 2
    device = next(device for device in owner.devices() if device.public_key == key)
    assert owner.revoke_device(device.id).accepted == {}


def test_a_forged_head_list_revokes_nothing(owner: Owner, new_owner: Callable[..., Any], tamper: Tamper) -> None:
    owner.import_traces(purchases())
    other, _ = new_owner()
    other.import_traces(purchases())
    theirs = other._api.get(f"{other._path}/heads", auth=other._auth)["heads"]
    (mine,) = owner.devices()
    tamper.on("GET", "/heads", lambda _: json_answer({"heads": {b64u(mine.id): next(iter(theirs.values()))}}))
    with pytest.raises(SealError):
        owner.revoke_device(mine.id)
    assert owner.devices() == [mine]


def life(owner: Owner, company: Company) -> ConsentId:
    owner.import_traces(purchases())
    asked = owner.read_request(company.request_consent(company_terms(company, owner)))
    given = owner.give_company(asked).version
    consent = ConsentId(given.consent_id)
    owner.narrow(consent, replace(given.terms, quota_per_month=2))
    owner.renew(consent)
    owner.withdraw(consent)
    return consent


def test_every_version_has_a_receipt_in_two_languages(owner: Owner, company: Company, service: Service) -> None:
    consent = life(owner, company)
    events = []
    for version in (1, 2, 3, 4):
        receipt, kept = owner.receipt(consent, version)
        again = verify_consent_receipt(json.loads(json.dumps(kept)), service.trust)
        assert again == receipt
        events.append(receipt.version.event)
        for language in LANGUAGES:
            text = receipt.text(language)
            assert all(part in text for part in (b64u(consent), company.company_id, "2026", "Purchase"))
    assert events == [ConsentEvent.GIVEN, ConsentEvent.NARROWED, ConsentEvent.RENEWED, ConsentEvent.WITHDRAWN]
    assert "withdrawn by you" in receipt.text("en")
    assert "retiré par vous" in receipt.text("fr")
    with pytest.raises(ApiError) as refusal:
        owner.receipt(consent, 5)
    assert refusal.value.status == 404


def test_an_ending_by_others_has_a_receipt_that_says_so(owner: Owner, company: Company, service: Service) -> None:
    owner.import_traces(purchases())
    given = owner.give_company(owner.read_request(company.request_consent(company_terms(company, owner)))).version
    state = service.app.state
    with state.database.transaction() as session:
        changed = changes.end(
            session, ConsentId(given.consent_id), ConsentEvent.REVOKED, service=state.service, now=SystemClock().now()
        )
    state.sequencer.wait(changed.pending.id, 10)
    receipt, _ = owner.receipt(ConsentId(given.consent_id), 2)
    assert receipt.version.event is ConsentEvent.REVOKED
    assert "revoked by somebody else" in receipt.text("en")
    assert [c.current.event for c in owner.consents()] == [ConsentEvent.REVOKED]


def test_a_changed_receipt_does_not_hold(owner: Owner, company: Company, service: Service) -> None:
    consent = life(owner, company)
    kept = [owner.receipt(consent, version)[1] for version in (1, 2)]
    first, second = kept
    wrong: list[Any] = [
        {**first, "receipt": second["receipt"]},
        {**first, "envelope": second["envelope"]},
        {**first, "receipt": {**first["receipt"], "index": first["receipt"]["index"] + 1}},
        {**first, "receipt": {**first["receipt"], "public": second["receipt"]["personal"]}},
        {"envelope": first["envelope"]},
        {},
        [],
        None,
    ]
    signed = bytearray(parse_b64u(first["envelope"]))
    signed[-1] ^= 1
    wrong.append({**first, "envelope": b64u(bytes(signed))})
    for item in wrong:
        with pytest.raises(VaultError):
            verify_consent_receipt(item, service.trust)


def test_a_receipt_of_another_version_is_not_taken(owner: Owner, company: Company, tamper: Tamper) -> None:
    consent = life(owner, company)
    _, second = owner.receipt(consent, 2)
    tamper.on("GET", "/versions/4/receipt", lambda _: json_answer(second))
    with pytest.raises(NoReceipt, match="another version"):
        owner.receipt(consent, 4)


def test_another_owner_reads_no_receipt(owner: Owner, new_owner: Callable[..., Any], company: Company) -> None:
    consent = life(owner, company)
    other, _ = new_owner()
    with pytest.raises(ApiError) as refusal:
        other.receipt(consent, 1)
    assert refusal.value.status == 404


def test_consents_keep_every_version_and_the_request(owner: Owner, company: Company) -> None:
    consent = owner.consent(life(owner, company))
    assert [version.version for version in consent.versions] == [1, 2, 3, 4]
    assert owner.read_request(consent.request).company == "Acme"
    own = owner.give(owner.terms_for(ConsentKind.SELF, [PURCHASE])).version
    assert owner.consent(ConsentId(own.consent_id)).request == ""


def test_the_notice_tells_necessary_from_optional(owner: Owner, company: Company) -> None:
    asked = company_terms(company, owner, optional=frozenset({Category("pd:Location")}))
    text = owner.notice(asked, "Acme")
    assert "Purchase (necessary); Location (optional)" in text
    assert "(optional)" not in owner.notice(replace(asked, optional=frozenset()), "Acme")


def test_a_consents_id_is_never_taken_for_an_option(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = iter([b"\xf8" + bytes(15), b"\xfb" + bytes(15), bytes(16)])
    monkeypatch.setattr(secrets, "token_bytes", lambda _: next(drawn))
    assert consents._new_id() == bytes(16)
