"""What a service, or whoever holds it, could tell an owner's client that is not so: each is refused."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.client_kit import (
    PURCHASE,
    Service,
    Tamper,
    company_terms,
    json_answer,
    posted_handovers,
    purchases,
)
from twinvault.api import Api, ApiError
from twinvault.company import Company
from twinvault.jws import sign_jws
from twinvault.keys import KEPT_S
from twinvault.owner import Owner
from twinvault.profile import RolledBack
from twinvault.receipts import NoReceipt
from twinvault.signin import WrongOrigin
from twinvault.terms import BadRequest
from vault.encoding import b64u, parse_b64u
from vault.errors import VaultError
from vault.proof.errors import InvalidProof
from vault.proof.jose import COMPANY_TYPE, parse_jws
from vault.schema.terms import ConsentKind
from vault.schema.trace import Period
from vault.seal.dsse import parse_envelope
from vault.seal.errors import SealError
from vault.seal.handover import open_handover, parse_handover, verify_handover
from vault.seal.identity import Identity
from vault.seal.kit import RecoveryKit
from vault.seal.recipient import Recipient
from vault.seal.signing import SigningKey, new_seed
from vault.seal.statement import KeyName, KeyStatement, sign_key_statement, verify_key_statement

Begin = Callable[..., tuple[Owner, RecoveryKit]]


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
