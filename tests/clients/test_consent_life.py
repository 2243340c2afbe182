"""A consent's life from the owner's side: freeze it, see the keys it handed over, keep its receipts."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from tests.client_kit import (
    PURCHASE,
    Service,
    Tamper,
    company_terms,
    json_answer,
    purchases,
)
from twinvault.api import ApiError
from twinvault.company import Company
from twinvault.consent_receipts import ConsentReceipt, verify_consent_receipt
from twinvault.owner import Owner
from twinvault.receipts import NoReceipt
from vault.consent import changes
from vault.encoding import b64u, parse_b64u
from vault.errors import VaultError
from vault.parties import people
from vault.proof.trust import TrustedRoot
from vault.schema.category import Category
from vault.schema.consent import ConsentEvent
from vault.schema.language import LABELS, Language
from vault.schema.terms import ConsentKind
from vault.seal.dsse import PayloadType, parse_envelope, sign_record, unverified_record
from vault.seal.handover import KeyKind
from vault.seal.ids import ConsentId, sha256
from vault.seal.person import Profile as Person
from vault.seal.person import verify_genesis
from vault.seal.signing import SigningKey
from vault.seal.statement import KeyName, KeyStatement, sign_key_statement

_NOBODY_IN_PARTICULAR = {"minor": 0, "guardian_ok": 0, "deceased": 0}
SIGNER = SigningKey(bytes(range(32)))


def test_a_freeze_is_seen_and_logged_until_it_is_lifted_and_its_order_counts_once(
    owner: Owner, company: Company, tamper: Tamper
) -> None:
    owner.import_traces(purchases())
    given = owner.give_company(owner.read_request(company.sign_request(company_terms(company, owner)))).version
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


def test_what_the_rules_go_by_is_changed_by_a_signed_and_logged_profile_that_counts_once(
    owner: Owner, tamper: Tamper
) -> None:
    assert owner.person() == Person()
    owner.declare(Person(minor=True, guardian_ok=True))
    assert owner.person() == Person(minor=True, guardian_ok=True)
    sent = next(request for request in tamper.sent if request.url.path.endswith("/profiles"))
    with pytest.raises(ApiError) as replayed:
        owner._api.request("POST", sent.url.path, auth=owner._auth, json=json.loads(sent.content))
    assert "sequence" in replayed.value.detail
    owner.declare(Person())
    assert owner.person() == Person()
    assert [event["kind"] for event in owner.history()].count("profile") == 2


def test_nobody_signs_their_own_death(owner: Owner) -> None:
    with pytest.raises(ApiError) as refused:
        owner.declare(Person(deceased=True))
    assert refused.value.slug == "signed-by-the-dead"
    assert owner.person() == Person()
    assert [event["kind"] for event in owner.history()].count("profile") == 0
    owner.declare(Person(minor=True))  # the number is not used up


def test_no_vault_begins_with_its_owners_death(new_owner: Callable[..., Any], service: Service, tamper: Tamper) -> None:
    with pytest.raises(ApiError) as refused:
        new_owner(person=Person(minor=True, deceased=True))
    assert refused.value.slug == "signed-by-the-dead"
    assert "without it" in refused.value.detail
    sent = next(request for request in tamper.sent if request.url.path == "/v1/vaults")
    genesis = verify_genesis(parse_envelope(parse_b64u(json.loads(sent.content)["genesis"])))
    with service.app.state.database.snapshot() as session:
        assert people.find(session, genesis.vault_id) is None, "nothing of it is kept"
    owner, _ = new_owner(person=Person(minor=True))
    assert owner.person() == Person(minor=True)


def test_a_profile_that_the_service_only_claims_is_noticed(owner: Owner, tamper: Tamper) -> None:
    tamper.on("POST", "/profiles", lambda response: json_answer({**response.json(), "profile": _NOBODY_IN_PARTICULAR}))
    with pytest.raises(ApiError, match="did not put"):
        owner.declare(Person(minor=True))
    tamper.rules.clear()
    owner.freeze(frozen=True)
    frozen = owner._api.get(f"{owner._path}/person", auth=owner._auth)
    receipts: list[Any] = []
    tamper.on("POST", "/freezes", lambda response: receipts.append(response.json()["receipt"]) or response)  # type: ignore[func-returns-value]
    owner.freeze(frozen=False)
    claimed = {**frozen, "profile": _NOBODY_IN_PARTICULAR, "receipt": receipts[0]}
    tamper.on("POST", "/profiles", lambda _: json_answer(claimed))
    with pytest.raises(NoReceipt, match="not about the order"):
        owner.declare(Person())


def test_a_freeze_that_the_service_only_claims_is_noticed(owner: Owner, tamper: Tamper) -> None:
    tamper.on("POST", "/freezes", lambda _: json_answer({"state": "active", "sequence": 1}))
    with pytest.raises(ApiError, match="did not follow"):
        owner.freeze(frozen=True)


def test_a_freeze_without_its_own_receipt_is_noticed(owner: Owner, tamper: Tamper) -> None:
    owner.freeze(frozen=True)
    owner.freeze(frozen=False)
    kept: list[Any] = []

    def swap(response: httpx.Response) -> httpx.Response:
        shown = response.json()
        kept.append(shown["receipt"])
        return json_answer({**shown, "receipt": kept[0]})

    tamper.on("POST", "/freezes", swap)
    owner.freeze(frozen=True)
    with pytest.raises(NoReceipt, match="not about the order"):
        owner.freeze(frozen=False)
    tamper.rules.clear()
    tamper.on("POST", "/freezes", lambda response: json_answer({**response.json(), "receipt": {}}))
    with pytest.raises(ApiError):
        owner.freeze(frozen=True)


def test_an_owner_sees_to_which_keys_a_consent_handed_over_and_believes_no_other(
    owner: Owner, company: Company, tamper: Tamper
) -> None:
    owner.import_traces(purchases())
    asked = owner.read_request(company.sign_request(company_terms(company, owner)))
    given, other = (ConsentId(owner.give_company(asked).version.consent_id) for _ in range(2))
    (held,) = owner.handed_over(given)
    assert (held.keys, held.epochs, len(held.indexes)) == (KeyKind.IMPRINT, (1,), 1)
    assert held.compartments > 0
    path = f"/consents/{b64u(given)}/handovers"
    theirs = owner._api.get(f"{owner._path}/consents/{b64u(other)}/handovers", auth=owner._auth)["handovers"][0]
    mine = owner._api.get(f"{owner._path}{path}", auth=owner._auth)["handovers"][0]
    forged = {
        "another consent": theirs,
        "another kind": {**mine, "keys": "raw"},
        "nothing": {**mine, "steps": []},
        "another receipt": {**mine, "steps": [{**mine["steps"][0], "receipt": theirs["steps"][0]["receipt"]}]},
        "no reseal": {**mine, "steps": [*mine["steps"], theirs["steps"][0]]},
    }
    tamper.on("GET", path, lambda _: json_answer({"handovers": [mine]}))
    assert owner.handed_over(given) == [held]
    for lie in forged.values():
        tamper.rules.clear()
        tamper.on("GET", path, lambda _, lie=lie: json_answer({"handovers": [lie]}))
        with pytest.raises(VaultError):
            owner.handed_over(given)
    tamper.rules.clear()
    owner.withdraw(given)
    assert owner.handed_over(given) == []


def test_another_owners_order_freezes_nothing(owner: Owner, new_owner: Callable[..., Any], tamper: Tamper) -> None:
    other, _ = new_owner()
    other.freeze(frozen=True)
    order = json.loads(next(sent for sent in tamper.sent if sent.url.path.endswith("/freezes")).content)
    with pytest.raises(ApiError):
        owner._api.request("POST", f"{owner._path}/freezes", auth=owner._auth, json=order)
    with pytest.raises(ApiError) as refusal:
        owner._api.request("POST", f"{other._path}/freezes", auth=owner._auth, json=order)
    assert refusal.value.status == 403
    assert not owner.frozen()


def life(owner: Owner, company: Company) -> ConsentId:
    owner.import_traces(purchases())
    asked = owner.read_request(company.sign_request(company_terms(company, owner)))
    given = owner.give_company(asked).version
    consent = ConsentId(given.consent_id)
    owner.narrow(consent, replace(given.terms, quota_per_month=2))
    owner.renew(consent)
    owner.withdraw(consent)
    return consent


def end(service: Service, consent: ConsentId, event: ConsentEvent, at: datetime) -> None:
    """End a consent as the service does, and wait for the log."""
    state = service.app.state
    with state.database.transaction() as session:
        changed = changes.end(session, consent, event, service=state.service, now=at)
    state.sequencer.wait(changed.pending.id, 10)


def held(owner: Owner, consent: ConsentId, version: int, trust: TrustedRoot) -> ConsentReceipt:
    """Return a receipt after checking that it holds by itself, from its JSON form alone."""
    receipt, kept = owner.receipt(consent, version)
    again = verify_consent_receipt(json.loads(json.dumps(kept)), trust)
    assert again == receipt
    for language in Language:
        text = receipt.text(language)
        assert all(part in text for part in (b64u(consent), "Acme", receipt.version.terms.grantee, "2026"))
        assert LABELS[language]["pd:Purchase"] in text
    return receipt


def test_every_version_has_a_receipt_in_two_languages(owner: Owner, company: Company, service: Service) -> None:
    consent = life(owner, company)
    receipts = [held(owner, consent, version, service.trust) for version in (1, 2, 3, 4)]
    events = [receipt.version.event for receipt in receipts]
    assert events == [ConsentEvent.GIVEN, ConsentEvent.NARROWED, ConsentEvent.RENEWED, ConsentEvent.WITHDRAWN]
    assert "withdrawn by you" in receipts[-1].text(Language.EN)
    assert "retiré par vous" in receipts[-1].text(Language.FR)
    with pytest.raises(ApiError) as refusal:
        owner.receipt(consent, 5)
    assert refusal.value.status == 404


@pytest.mark.parametrize(
    ("event", "in_english", "in_french"),
    [
        (ConsentEvent.EXPIRED, "expired", "expiré"),
        (ConsentEvent.REVOKED, "revoked by the operator", "révoqué par l'exploitant"),
        (ConsentEvent.RETURNED, "ended, by the recipient", "terminé, par le destinataire"),
        (ConsentEvent.INVALIDATED, "found invalid", "déclaré invalide"),
    ],
)
def test_an_ending_by_others_has_a_receipt_that_says_who_signed_it(
    *, owner: Owner, company: Company, service: Service, event: ConsentEvent, in_english: str, in_french: str
) -> None:
    owner.import_traces(purchases())
    given = owner.give_company(owner.read_request(company.sign_request(company_terms(company, owner)))).version
    consent = ConsentId(given.consent_id)
    end(service, consent, event, datetime.fromtimestamp(given.terms.not_after, UTC))
    receipt = held(owner, consent, 2, service.trust)
    assert receipt.version.event is event
    assert in_english in receipt.text(Language.EN)
    assert in_french in receipt.text(Language.FR)
    assert [c.current.event for c in owner.consents()] == [event]
    _, kept = owner.receipt(consent, 2)
    statements = owner._api.get("/v1/keys")["statements"]
    others = [statement for statement in statements if statement != kept["signer"]]
    forged = sign_key_statement(KeyStatement(KeyName.SERVICE, 1, SIGNER.public_key, 1), SIGNER)
    for signer in (*others, b64u(forged.encoded), "", None):
        with pytest.raises(VaultError):
            verify_consent_receipt({**kept, "signer": signer}, service.trust)
    with pytest.raises(VaultError):
        verify_consent_receipt({name: kept[name] for name in kept if name != "signer"}, service.trust)
    envelope = parse_envelope(parse_b64u(kept["envelope"]))
    resigned = sign_record(PayloadType.CONSENT, unverified_record(envelope), SIGNER)
    with pytest.raises(VaultError):
        verify_consent_receipt(
            {**kept, "envelope": b64u(resigned.encoded), "signer": b64u(forged.encoded)}, service.trust
        )


def test_a_receipt_shows_the_notice_again_only_if_it_is_the_one_that_was_signed(
    owner: Owner, company: Company, service: Service
) -> None:
    owner.import_traces(purchases())
    owner.language = Language.FR
    asked = owner.read_request(company.sign_request(company_terms(company, owner)))
    given = owner.give_company(asked).version
    assert given.notice.language == "fr"
    receipt, kept = owner.receipt(ConsentId(given.consent_id), 1)
    assert receipt.notice == owner.notice(given.terms, "Acme")
    assert sha256(receipt.notice.encode()) == given.notice.sha256
    assert "Vous autorisez Acme" in receipt.notice
    assert "made again from this receipt word for word" in receipt.text(Language.EN)
    renamed = verify_consent_receipt({**kept, "company": "Acme Inc."}, service.trust)
    assert (renamed.company, renamed.notice) == ("", None)
    assert "cannot make it again" in renamed.text(Language.EN)
    assert "Acme Inc." not in renamed.text(Language.EN)


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
