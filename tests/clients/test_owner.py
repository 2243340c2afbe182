from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.client_kit import PASSPHRASE, PURCHASE, Service, Tamper, company_terms, json_answer, purchases
from twinvault.api import Api, ApiError
from twinvault.company import Company
from twinvault.consenting import this_month
from twinvault.consents import NothingToGive, UnknownConsent
from twinvault.jws import sign_jws
from twinvault.keys import KEPT_S
from twinvault.owner import Owner
from twinvault.profile import Profile, RolledBack
from twinvault.receipts import NoReceipt
from twinvault.signin import WrongOrigin
from twinvault.terms import OWN_PURPOSE, BadRequest
from vault.clock import SystemClock
from vault.encoding import b64u, parse_b64u
from vault.errors import VaultError
from vault.proof.errors import InvalidProof
from vault.proof.jose import COMPANY_TYPE, parse_jws
from vault.schema.category import CATEGORIES, Category
from vault.schema.consent import ConsentEvent
from vault.schema.question import NextChoice, QuestionKind
from vault.schema.terms import ConsentKind
from vault.schema.trace import Period, periods_from
from vault.seal.dsse import parse_envelope
from vault.seal.errors import SealError
from vault.seal.handover import KeyKind, open_handover, parse_handover, verify_handover
from vault.seal.identity import Identity
from vault.seal.kit import RecoveryKit
from vault.seal.recipient import Recipient
from vault.seal.ring import MONTHS_AHEAD
from vault.seal.signing import SigningKey, new_seed
from vault.seal.statement import KeyName, KeyStatement, sign_key_statement, verify_key_statement

Begin = Callable[..., tuple[Owner, RecoveryKit]]


def posted_handovers(tamper: Tamper) -> list[bytes]:
    import json

    bodies = [
        request.content for request in tamper.sent if "/consents" in request.url.path and request.method == "POST"
    ]
    return [parse_b64u(item) for item in json.loads(bodies[-1]).get("handovers", [])]


def test_a_vault_opens_by_passphrase_and_by_kit_and_by_nothing_else(
    service: Service, api: Api, new_owner: Begin, tmp_path: Path
) -> None:
    owner, kit = new_owner(passphrase=PASSPHRASE)
    profile = Profile.load(owner.profile.folder)
    stored = b"".join(path.read_bytes() for path in profile.folder.iterdir())
    assert PASSPHRASE.encode() not in stored
    assert Owner.unlock(profile, passphrase=PASSPHRASE, api=api).vault == owner.vault
    assert Owner.unlock(profile, kit=kit, api=api).vault == owner.vault
    with pytest.raises(ApiError) as refusal:
        Owner.unlock(profile, passphrase=PASSPHRASE + "r", api=api)
    assert (refusal.value.slug, refusal.value.status) == ("not-stored", 404)
    assert "passphrase" in refusal.value.next_step
    with pytest.raises(VaultError):
        Owner.unlock(profile, passphrase="", api=api)


def many_categories() -> list[Category]:
    return sorted(CATEGORIES)[:20]


def test_a_vault_of_many_categories_begins_with_the_months_that_a_stranger_may_send_and_gets_the_others(
    new_owner: Begin, tamper: Tamper
) -> None:
    owner, _ = new_owner(categories=many_categories())
    begun = next(one for one in tamper.sent if one.url.path == "/v1/vaults")
    assert len(begun.content) <= 1 << 18
    ring = owner._rings.read().ring
    assert {(c.category, c.period) for c in ring.compartments.values()} == {
        (category, period) for category in many_categories() for period in ring.pages
    }
    assert len(ring.pages) == MONTHS_AHEAD + 1


def test_a_vault_whose_later_months_do_not_get_through_still_gives_its_kit(
    new_owner: Begin, tamper: Tamper, api: Api
) -> None:
    tamper.lose("PUT", "/ring")
    owner, kit = new_owner(categories=many_categories())
    tamper.lost.clear()
    assert Owner.unlock(Profile.load(owner.profile.folder), kit=kit, api=api).vault == owner.vault
    now = this_month(SystemClock())
    assert not owner.publish(many_categories(), [now])
    assert owner.publish(many_categories(), periods_from(now, MONTHS_AHEAD + 1))


def test_a_self_and_a_cohort_consent_at_once_take_one_reading_and_both_are_proven(owner: Owner, tamper: Tamper) -> None:
    owner.import_traces(purchases())
    wanted = [owner.terms_for(kind, [PURCHASE]) for kind in (ConsentKind.SELF, ConsentKind.COHORT)]
    tamper.sent.clear()
    given = owner.give_all(wanted)
    assert [one.version.terms for one in given] == wanted
    paths = [(request.method, request.url.path.rpartition("/")[2]) for request in tamper.sent]
    assert [paths.count(("GET", name)) for name in ("consents", "ring", "consistency")] == [1, 1, 1]
    assert paths.count(("POST", "consents")) == 2
    assert {one.current.terms.kind for one in owner.consents() if one.live} == {ConsentKind.SELF, ConsentKind.COHORT}
    assert all(owner.receipt(one.version.consent_id, 1)[0].version == one.version for one in given)


def test_the_kit_brings_the_vault_to_another_machine(
    new_owner: Begin, service: Service, api: Api, tmp_path: Path
) -> None:
    owner, kit = new_owner()
    owner.import_traces(purchases())
    moved = Owner.recover(tmp_path / "elsewhere", service.trust, kit, api=api)
    assert moved.vault == owner.vault
    flushed = moved.import_traces(purchases(2, month=2))
    assert (flushed.sent, flushed.waiting) == (2, 0)
    assert len(moved._rings.read().ring.head.devices) == 2


def test_another_vaults_kit_is_refused(new_owner: Begin, api: Api) -> None:
    owner, _ = new_owner()
    _, other = new_owner()
    with pytest.raises(VaultError, match="another vault"):
        Owner.unlock(owner.profile, kit=other, api=api)


def test_importing_publishes_months_seals_and_widens_the_self_consent(owner: Owner) -> None:
    given = owner.give(owner.terms_for(ConsentKind.SELF, [PURCHASE])).version
    flushed = owner.import_traces(purchases(5) + purchases(5, month=3, year=2017))
    assert (flushed.sent, flushed.waiting) == (10, 0)
    (consent,) = owner.consents()
    assert consent.id == given.consent_id
    assert (consent.current.event, consent.current.version, consent.live) == (ConsentEvent.RENEWED, 2, True)
    assert consent.current.terms.data_from == "2017-03"
    assert owner.import_traces(purchases(5)).sent == 0  # each trace counts once
    assert owner.consents()[0].current.version == 2  # and nothing was missing


def test_handovers_hold_what_the_kind_of_consent_allows_and_nothing_more(
    owner: Owner, company: Company, tamper: Tamper, service: Service
) -> None:
    owner.import_traces(purchases())
    owner.give(owner.terms_for(ConsentKind.SELF, [PURCHASE]))
    kinds = [parse_handover(item).terms.kind for item in posted_handovers(tamper)]
    assert kinds == [KeyKind.RAW, KeyKind.IMPRINT]
    owner.give(owner.terms_for(ConsentKind.COHORT, [PURCHASE]))
    assert [parse_handover(item).terms.kind for item in posted_handovers(tamper)] == [KeyKind.RAW]
    terms = company_terms(company, owner, data_to=Period("2026-01"))
    owner.give_company(owner.read_request(company.sign_request(terms)))
    (handed,) = [parse_handover(item) for item in posted_handovers(tamper)]
    assert handed.terms.kind is KeyKind.IMPRINT
    ring = owner._rings.read().ring
    assert {ring.compartments[name].period for name in handed.terms.compartments} == {"2026-01"}


def test_a_company_gets_what_it_asked_for_or_less(owner: Owner, company: Company) -> None:
    owner.import_traces(purchases())
    asked = owner.read_request(company.sign_request(company_terms(company, owner)))
    assert asked.company == "Acme"
    narrowed = replace(asked.request.terms, quota_per_month=1)
    notice = owner.notice(narrowed, asked.company)
    assert "Acme" in notice
    assert "at most 1 answers a month" in notice
    given = owner.give_company(asked, narrowed).version
    renewed = owner.renew(given.consent_id).version
    assert (renewed.version, renewed.terms.quota_per_month) == (2, 1)
    less = replace(narrowed, questions=frozenset({QuestionKind.RECOMMEND}))
    assert owner.narrow(given.consent_id, less).version.terms == less
    with pytest.raises(ApiError):
        owner.narrow(given.consent_id, asked.request.terms)
    with pytest.raises(ApiError):
        owner.give_company(asked, replace(asked.request.terms, quota_per_month=10))
    assert owner.withdraw(given.consent_id).new_epoch == ()
    with pytest.raises(VaultError):
        owner.withdraw(given.consent_id)
    (consent,) = owner.consents()
    assert not consent.live


def test_withdrawing_the_last_self_consent_replaces_the_keys_of_the_future(owner: Owner) -> None:
    owner.import_traces(purchases())
    given = owner.give(owner.terms_for(ConsentKind.SELF, [PURCHASE])).version
    before = f"{datetime.now(UTC):%Y-%m}"
    assert owner.withdraw(given.consent_id).new_epoch == (PURCHASE,)
    current = {period: page.current(PURCHASE) for period, page in owner._rings.read().ring.pages.items()}
    epochs = {period: key and key.epoch for period, key in current.items()}
    months = {before, f"{datetime.now(UTC):%Y-%m}"}
    assert any(epochs == {period: 2 if period >= this else 1 for period in epochs} for this in months)


def test_history_names_the_events(owner: Owner) -> None:
    owner.import_traces(purchases())
    owner.withdraw(owner.give(owner.terms_for(ConsentKind.SELF, [PURCHASE])).version.consent_id)
    events = owner.history()
    assert [event["kind"] for event in events].count("consent") == 2
    indexes = [event["index"] for event in events]
    assert indexes == sorted(indexes)
    assert all(event["index"] > indexes[2] for event in owner.history(indexes[2]))


def test_refresh_and_twin_state(owner: Owner) -> None:
    with pytest.raises(UnknownConsent):
        owner.ask(NextChoice(PURCHASE, OWN_PURPOSE, 3))
    owner.give(owner.terms_for(ConsentKind.SELF, [PURCHASE]))
    job = owner.refresh()
    assert owner.twin()["job"]["job"] == job


def test_nothing_to_give(owner: Owner) -> None:
    with pytest.raises(NothingToGive):
        owner.give(owner.terms_for(ConsentKind.SELF, [Category("pd:Location")]))


# --- a server that lies -------------------------------------------------------------------------------------------


def swap_key(service: Service, name: KeyName, signer: SigningKey, recipient: Recipient, *, epoch: int) -> Any:
    def change(response: httpx.Response) -> httpx.Response:
        kept = []
        for item in response.json()["statements"]:
            statement = verify_key_statement(parse_envelope(parse_b64u(item)), service.trust.operator)
            if statement.name is not name:
                kept.append(item)
        forged = sign_key_statement(KeyStatement(name, epoch, recipient.public, 0), signer)
        return json_answer({"statements": [*kept, b64u(forged.encoded)]})

    return change


@pytest.mark.parametrize("name", [KeyName.PROCESSOR, KeyName.SERVING])
def test_a_key_that_the_operator_did_not_sign_gets_nothing(
    owner: Owner, service: Service, tamper: Tamper, name: KeyName
) -> None:
    thief = Identity(new_seed())
    before = len(tamper.sent)
    tamper.on("GET", "/v1/keys", swap_key(service, name, SigningKey(new_seed()), thief.recipient, epoch=9))
    with pytest.raises(SealError, match="not signed by the expected keys"):
        owner.give(owner.terms_for(ConsentKind.SELF, [PURCHASE]))
    assert not [r for r in tamper.sent[before:] if r.method == "POST" and r.url.path.endswith("/consents")]


def test_keys_are_fetched_once_and_a_new_epoch_after_a_moment(
    owner: Owner, service: Service, tamper: Tamper, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetched() -> int:
        return sum(request.url.path == "/v1/keys" for request in tamper.sent)

    owner.import_traces(purchases())
    owner.give(owner.terms_for(ConsentKind.SELF, [PURCHASE]))
    owner.give(owner.terms_for(ConsentKind.COHORT, [PURCHASE]))
    assert fetched() == 1
    now_s = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now_s + KEPT_S)
    thief = Identity(new_seed())
    tamper.on("GET", "/v1/keys", swap_key(service, KeyName.SERVING, SigningKey(new_seed()), thief.recipient, epoch=9))
    with pytest.raises(SealError, match="not signed by the expected keys"):
        owner.give(owner.terms_for(ConsentKind.SELF, [PURCHASE]))
    assert fetched() == 2


def test_an_epoch_is_never_rolled_back(owner: Owner, service: Service) -> None:
    from vault.seal.version import Remembered

    owner.profile.remember("key/serving", Remembered(2, bytes(32)))
    with pytest.raises(RolledBack):
        owner.give(owner.terms_for(ConsentKind.SELF, [PURCHASE]))


def test_a_ring_rolled_back_forked_or_cut_is_refused(owner: Owner, tamper: Tamper, new_owner: Begin) -> None:
    path = f"/v1/vaults/{b64u(owner.vault)}/ring"
    old = owner._api.get(path, auth=owner._auth)
    owner.publish([PURCHASE], [Period("2025-01")])
    new = owner._api.get(path, auth=owner._auth)
    other, _ = new_owner()
    foreign = other._api.get(f"/v1/vaults/{b64u(other.vault)}/ring", auth=other._auth)
    for forged in (old, {**new, "pages": new["pages"][1:]}, {**new, "pages": old["pages"]}, foreign):
        tamper.rules.clear()
        tamper.on("GET", "/ring", lambda _, forged=forged: json_answer(forged))
        with pytest.raises(SealError):
            owner.publish([PURCHASE], [Period("2025-02")])
        with pytest.raises(SealError):
            owner.give(owner.terms_for(ConsentKind.SELF, [PURCHASE]))
    tamper.rules.clear()
    assert owner.publish([PURCHASE], [Period("2025-02")])


def test_an_account_rolled_back_or_swapped_is_refused(owner: Owner, new_owner: Begin, tamper: Tamper, api: Api) -> None:
    owner2, kit = new_owner()
    _, other = new_owner()
    from vault.seal.slot import recovery_key

    swapped = api.get(f"/v1/slots/{b64u(recovery_key(other.recovery_code).slot_id)}")
    own = api.get(f"/v1/slots/{b64u(recovery_key(kit.recovery_code).slot_id)}")
    for forged in (swapped, {**own, "account": swapped["account"]}, {**own, "genesis": swapped["genesis"]}):
        tamper.rules.clear()
        tamper.on("GET", b64u(recovery_key(kit.recovery_code).slot_id), lambda _, forged=forged: json_answer(forged))
        with pytest.raises(VaultError):
            Owner.unlock(owner2.profile, kit=kit, api=api)


@pytest.mark.parametrize("part", ["proof", "entry", "personal", "public", "missing", "another"])
def test_an_acknowledgement_without_a_receipt_that_holds_is_refused(owner: Owner, tamper: Tamper, part: str) -> None:
    kept: dict[str, Any] = {}

    def change(response: httpx.Response) -> httpx.Response:
        document = response.json()
        if part == "missing":
            del document["receipt"]
        elif part == "another":
            kept.setdefault("receipt", document["receipt"])
            document["receipt"] = kept["receipt"]
        elif part == "proof":
            document["receipt"]["proof"] = document["receipt"]["proof"].replace("test.example/log", "evil.example/log")
        elif part == "entry":
            document["receipt"]["entry"] = b64u(b"\1" + bytes(64))
        else:
            document["receipt"][part]["salt"] = b64u(bytes(64))
        return json_answer(document, 201)

    if part == "another":
        tamper.on("POST", "/consents", change)
        owner.give(owner.terms_for(ConsentKind.SELF, [PURCHASE]))
        with pytest.raises(NoReceipt):
            owner.give(owner.terms_for(ConsentKind.COHORT, [PURCHASE]))
        return
    tamper.on("POST", "/consents", change)
    with pytest.raises((NoReceipt, InvalidProof, ApiError)):
        owner.give(owner.terms_for(ConsentKind.SELF, [PURCHASE]))


def test_a_withheld_withdrawal_and_a_forged_consent_show(owner: Owner, new_owner: Begin, tamper: Tamper) -> None:
    given = owner.give(owner.terms_for(ConsentKind.SELF, [PURCHASE])).version
    path = f"/v1/vaults/{b64u(owner.vault)}/consents"
    before = owner._api.get(path, auth=owner._auth)
    owner.withdraw(given.consent_id)
    tamper.on("GET", "/consents", lambda _: json_answer(before))
    with pytest.raises(RolledBack):
        owner.consents()
    tamper.rules.clear()
    other, _ = new_owner()
    other.give(other.terms_for(ConsentKind.SELF, [PURCHASE]))
    foreign = other._api.get(f"/v1/vaults/{b64u(other.vault)}/consents", auth=other._auth)
    tamper.on("GET", "/consents", lambda _: json_answer(foreign))
    with pytest.raises(VaultError, match="never signed"):
        owner.consents()


def test_a_challenge_of_another_server_is_not_signed(owner: Owner, tamper: Tamper) -> None:
    tamper.on(
        "POST", "/v1/challenges",
        lambda _: json_answer({"nonce": b64u(secrets.token_bytes(32)), "origin": "https://evil.example", "expires_in": 9}),
    )  # fmt: skip
    fresh = Owner(owner._api, owner.profile, owner._keys, owner._clock)
    before = len(tamper.sent)
    with pytest.raises(WrongOrigin):
        fresh.consents()
    assert not [request for request in tamper.sent[before:] if request.url.path == "/v1/sessions"]


def test_a_company_whose_key_was_swapped_is_refused(
    owner: Owner, company: Company, tamper: Tamper, service: Service, tmp_path: Path
) -> None:
    thief, record = Company.register(tmp_path / "thief", service.trust, name="Acme", contact="a@acme.example")
    request = company.sign_request(company_terms(company, owner))

    def change(response: httpx.Response) -> httpx.Response:
        return json_answer({**response.json(), "record": record})  # as it then is

    tamper.on("GET", f"/v1/companies/{company.company_id}", change)
    with pytest.raises(BadRequest):
        owner.read_request(request)
    # A record that claims the victim's id, under a key that does not make it.
    question_key = SigningKey(thief.profile.binary("question_seed", 32))
    claims = {**parse_jws(record, COMPANY_TYPE).unverified_claims, "company_id": company.company_id}
    record = sign_jws(question_key, {"typ": COMPANY_TYPE}, claims)
    forged = Company(thief.profile)
    forged.company_id = company.company_id
    with pytest.raises(BadRequest):
        owner.read_request(forged.sign_request(company_terms(company, owner)))
    tamper.rules.clear()
    with pytest.raises(VaultError):
        owner.read_request(forged.sign_request(company_terms(company, owner)))


def test_a_log_that_forked_is_refused(owner: Owner, tamper: Tamper) -> None:
    from vault.seal.version import Remembered

    owner.give(owner.terms_for(ConsentKind.SELF, [PURCHASE]))
    last = owner.profile.remembered("checkpoint")
    assert last is not None
    path = owner.profile.folder / "memory.json"
    path.write_bytes(path.read_bytes().replace(b64u(last.digest).encode(), b64u(bytes(32)).encode()))
    assert owner.profile.remembered("checkpoint") == Remembered(last.version, bytes(32))
    with pytest.raises(VaultError):
        owner.give(owner.terms_for(ConsentKind.COHORT, [PURCHASE]))


def test_handover_opens_only_for_the_identity(owner: Owner, tamper: Tamper, service: Service) -> None:
    owner.give(owner.terms_for(ConsentKind.SELF, [PURCHASE]))
    thief = Identity(new_seed())
    ring = owner._rings.read().ring
    for item in posted_handovers(tamper):
        verified = verify_handover(parse_handover(item), owner.vault, owner._keys.signer.public_key)
        with pytest.raises(SealError):
            open_handover(verified, thief, ring.compartments)
