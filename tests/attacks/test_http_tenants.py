"""Nobody reaches what is another's, and nothing tells apart what is another's from what does not exist."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import httpx
import pytest

from tests.client_kit import purchases
from tests.http_kit import (
    QUESTION,
    Town,
    answer_path,
    changed,
    device_session_of,
    dump,
    serving,
    session_of,
    slug,
    together,
)
from twinvault.owner import Owner
from vault.clock import SystemClock, unix_s
from vault.encoding import b64u, dump_json
from vault.evidence.auditors import register_auditor
from vault.schema.question import dump_question
from vault.schema.terms import ConsentKind
from vault.seal.audit import AuditRequest, sign_audit_request
from vault.seal.ids import ConsentId, new_id
from vault.seal.signing import SigningKey, new_seed
from vault.seal.slot import Slot, recovery_key, seal_slot
from vault.store.slots import MAX_SLOTS

BODY = dump_json(dump_question(QUESTION))
_DEVICE_ROUTES = {("POST", "/v1/vaults/{vault}/batches"), ("GET", "/v1/vaults/{vault}/ring")}


def told(response: httpx.Response) -> tuple[Any, ...]:
    """Everything that a response says but its own number, its time and the next nonce."""
    fixed = {k: v for k, v in response.headers.items() if k not in {"x-request-id", "date", "dpop-nonce"}}
    return response.status_code, fixed, re.sub(rb"/requests/[0-9a-f]{16}", b"", response.content)


def vault_requests(town: Town, vault: str) -> list[tuple[str, str, httpx.Request]]:
    """Return method, template and a request, with a body that its owner sent, for each route of a vault."""
    spec = town.house.http.get("/openapi.json").json()["paths"]
    found = []
    for template, methods in spec.items():
        if "{vault}" not in template:
            continue
        for method in (name.upper() for name in methods):
            shape = re.sub(r"\{[^}]+\}", "[^/]+", template)
            honest = next(
                (r for r in reversed(town.house.sent.sent) if r.method == method and re.fullmatch(shape, r.url.path)),
                None,
            )
            path = template.replace("{vault}", vault).replace("{consent}", b64u(town.bob_to_rival))
            path = path.replace("{locator_hash}", b64u(bytes(32)))
            body = honest.content if honest else b'{"account":"AAAA","slot":"AAAA"}'
            if path.endswith(("freezes", "erasures")):
                body = b'{"order":"AAAA"}'
            if path.endswith("erasures/preview"):
                body = b"{}"
            if method == "PUT" and honest is None:
                body = b'{"account":"AAAA"}' if path.endswith("account") else b'{"slot":"AAAA"}'
            kind = honest.headers.get("content-type") if honest else "application/json"
            headers = {"content-type": kind} if kind and body else {}
            query = f"?compartment={b64u(new_id())}" if (method, path.rpartition("/")[2]) == ("GET", "batches") else ""
            found.append(
                (method, template, httpx.Request(method, town.house.url + path + query, content=body, headers=headers))
            )
    assert len(found) >= 12
    return found


def test_a_session_opens_no_other_vault_and_does_not_tell_whether_there_is_one(town: Town) -> None:
    session = session_of(town.ann)
    before = dump(town.house.database)
    for there, nowhere in zip(
        vault_requests(town, b64u(town.bob.vault)), vault_requests(town, b64u(new_id())), strict=True
    ):
        answers = [town.house.send(request, headers=session) for _, _, request in (there, nowhere)]
        place = (there[0], there[1], answers[0].text)
        assert slug(answers[0]) in {"not-your-vault", "unknown-vault", "wrong-role"}, place
        assert told(answers[0]) == told(answers[1]), place
    assert changed(before, dump(town.house.database)) == set()


def test_a_device_does_nothing_but_upload_and_read_the_ring(town: Town) -> None:
    before = dump(town.house.database)
    device, owner = device_session_of(town.ann), session_of(town.ann)
    for method, template, request in vault_requests(town, b64u(town.ann.vault)):
        if (method, template) not in _DEVICE_ROUTES:
            assert slug(town.house.send(request, headers=device)) == "wrong-role", (method, template)
        for header in ({}, {"authorization": "Bearer " + "A" * 43}, {"authorization": device["Authorization"][:-1]}):
            assert slug(town.house.send(request, headers=header)) == "not-signed-in", (method, template, header)
        both = [("authorization", device["Authorization"]), ("authorization", owner["Authorization"])]
        answer = town.house.http.request(method, request.url.raw_path.decode(), content=request.content, headers=both)
        assert answer.status_code in {401, 422}, (method, template)
    ring = town.house.http.get(f"/v1/vaults/{b64u(town.ann.vault)}/ring", headers=device).json()
    assert all(not page["locked"] for page in ring["pages"])
    assert changed(before, dump(town.house.database)) == set()


def test_all_consents_that_are_not_a_companys_look_alike(town: Town) -> None:
    own = next(item.id for item in town.ann.consents() if item.current.terms.kind is ConsentKind.SELF)
    ended = town.house.consent(town.bob, town.rival.company)
    town.bob.withdraw(ended)
    tokens = [town.acme.token(), town.acme.token(town.ann_to_acme)]
    answers = [
        town.acme.ask(consent, token=token) for token in tokens for consent in (new_id(), town.bob_to_rival, own, ended)
    ]
    assert slug(answers[0]) == "not-permitted"
    assert {repr(told(answer)) for answer in answers} == {repr(told(answers[0]))}
    owner = session_of(town.ann)
    answers += [
        town.house.http.put(answer_path(consent, new_id()), content=BODY, headers=owner)
        for consent in (new_id(), town.ann_to_acme, town.bob_to_rival)
    ]
    assert {answer.content.partition(b'"instance"')[0] for answer in answers} == {
        answers[0].content.partition(b'"instance"')[0]
    }


def test_a_token_serves_the_one_consent_that_it_names(town: Town) -> None:
    other = town.house.consent(town.bob, town.acme.company)
    token = town.acme.token(town.ann_to_acme)
    assert town.acme.ask(town.ann_to_acme, token=token).status_code == 200
    assert slug(town.acme.ask(other, token=token)) == "not-permitted"
    refusals = [town.acme.token_response(ConsentId(consent)) for consent in (new_id(), town.bob_to_rival)]
    assert told(refusals[0]) == told(refusals[1])
    assert refusals[0].json()["error"] == "invalid_grant"
    assert slug(town.rival.ask(town.bob_to_rival, token=token)) == "unauthenticated"


def test_nothing_signed_for_one_place_serves_another(town: Town) -> None:
    acme, question_id = town.acme, new_id()
    other = town.house.consent(town.bob, acme.company)
    other_body = dump_json(dump_question(replace(QUESTION, top_n=1)))
    before = dump(town.house.database)
    elsewhere = {
        acme.signature(town.ann_to_acme, question_id, BODY): (other, question_id, BODY),
        acme.signature(town.ann_to_acme, new_id(), BODY): (town.ann_to_acme, question_id, BODY),
        acme.signature(town.ann_to_acme, question_id, BODY, aud="https://other.example"): (town.ann_to_acme, question_id, BODY),
        acme.signature(town.ann_to_acme, question_id, BODY, iss=town.rival.company.company_id): (town.ann_to_acme, question_id, BODY),
        acme.signature(town.ann_to_acme, question_id, BODY, key=town.rival.key("question")): (town.ann_to_acme, question_id, BODY),
        acme.signature(town.ann_to_acme, question_id, BODY, key=acme.key("auth")): (town.ann_to_acme, question_id, BODY),
        acme.signature(town.ann_to_acme, question_id, BODY, iat=1): (town.ann_to_acme, question_id, BODY),
        acme.signature(town.ann_to_acme, question_id, other_body): (town.ann_to_acme, question_id, BODY),
        "": (town.ann_to_acme, question_id, BODY),
        "e30.e30.": (town.ann_to_acme, question_id, BODY),
    }  # fmt: skip
    for signature, (consent, asked, body) in elsewhere.items():
        response = acme.ask(consent, body, asked, question_signature=signature)
        assert slug(response) == "bad-question-signature", signature
    path, token = answer_path(town.ann_to_acme, question_id), acme.plain_token
    for proof in (
        acme.proof("PUT", answer_path(other, question_id), token=token),
        acme.proof("POST", path, token=token),
        acme.proof("PUT", path, token=acme.token()),
        acme.proof("PUT", path),
        acme.proof("PUT", path, token=token, key=acme.key("auth")),
        acme.proof("PUT", path, token=token, iat=1),
        acme.proof("PUT", path, token=token, nonce="A" * 22),
        acme.proof("PUT", path, token=token, htu="https://other.example" + path),
    ):
        assert slug(acme.ask(town.ann_to_acme, BODY, question_id, dpop=proof)) == "unauthenticated"
    assert slug(acme.ask(town.ann_to_acme, BODY, question_id, authorization=f"Bearer {token}")) == "not-signed-in"
    assert changed(before, dump(town.house.database)) == set()


# --- replays -------------------------------------------------------------------------------------------------------


def test_a_question_and_its_proof_are_used_once(town: Town) -> None:
    question_id = new_id()
    headers = town.acme.headers(town.ann_to_acme, question_id, BODY)
    path = answer_path(town.ann_to_acme, question_id)
    first = town.house.http.put(path, content=BODY, headers=headers)
    assert first.status_code == 200
    before = dump(town.house.database)
    assert slug(town.house.http.put(path, content=BODY, headers=headers)) == "unauthenticated"
    # The signature alone may be sent again under a new proof: the answer is the stored one and costs nothing.
    again = town.acme.ask(town.ann_to_acme, BODY, question_id, question_signature=headers["Question-Signature"])
    assert again.status_code == 200
    assert changed(before, dump(town.house.database)) == set()
    assert slug(town.acme.ask(town.ann_to_acme, replace(QUESTION, top_n=1), question_id)) == "question-id-used"


def test_an_assertion_and_its_proof_are_used_once(town: Town) -> None:
    assertion, proof = town.acme.assertion(), town.acme.proof("POST", "/v1/token")
    assert town.acme.token_response(client_assertion=assertion, proof=proof).status_code == 200
    again = [
        town.acme.token_response(client_assertion=assertion, proof=proof),
        town.acme.token_response(client_assertion=assertion),
        town.acme.token_response(proof=proof),
        town.acme.token_response(client_assertion=town.acme.assertion(aud="https://other.example")),
        town.acme.token_response(client_assertion=town.acme.assertion(aud=town.house.url + "/v1/token")),
        town.acme.token_response(client_assertion=town.acme.assertion(key=town.rival.key("auth"))),
        town.acme.token_response(client_assertion=town.acme.assertion(sub=town.rival.company.company_id)),
        town.acme.token_response(client_assertion=town.acme.assertion(exp=1)),
    ]
    for response in again:
        assert response.status_code in {400, 401}, response.text
        assert response.json()["error"] in {"invalid_client", "invalid_dpop_proof"}


def test_records_of_a_vault_cannot_be_played_again(town: Town) -> None:
    house = town.house
    owner = house.owner()
    given = house.consent(owner, town.acme.company)
    owner.import_traces(purchases(2, month=2))
    owner.withdraw(given)
    sent = list(house.sent.sent)
    session = session_of(owner)
    mine = [r for r in sent if b64u(owner.vault) in r.url.path and r.method in {"PUT", "POST"}]
    begun = [r for r in sent if r.url.path == "/v1/vaults"][-1]
    before = dump(house.database, but=frozenset({"party_session", "spent"}))
    assert slug(house.send(begun)) == "vault-exists"
    answers = [r for r in sent if r.url.path == "/v1/sessions"]
    assert {slug(house.send(r)) for r in answers} == {"sign-in-refused"}
    refused: dict[str, set[str]] = {}
    newest = [r for r in mine if r.url.path.endswith("/ring")][-1]
    for request in mine:
        if request.url.path.endswith("/batches"):
            assert (
                house.send(request, headers=device_session_of(owner)).status_code == 200
            )  # acknowledged again, stored once
            continue
        response = house.send(request, headers=session)
        if request is newest:  # says what is in force already: nothing to do
            assert response.status_code == 204
            continue
        refused.setdefault(request.url.path.rpartition("/")[2], set()).add(slug(response))
        other = request.url.path.replace(b64u(owner.vault), b64u(town.ann.vault))
        crossed = house.send(request, url=house.url + other, headers=session_of(town.ann))
        assert slug(crossed) in {"bad-seal", "bad-consent", "unknown-consent", "consent-exists", "version-conflict"}, (
            crossed.text
        )
    assert refused["consents"] == {"consent-exists"}
    assert refused["versions"] <= {"bad-consent"}
    batches = [r for r in mine if r.url.path.endswith("/batches")]
    stranger = batches[0].url.path.replace(b64u(owner.vault), b64u(town.ann.vault))
    crossed = house.send(batches[0], url=house.url + stranger, headers=device_session_of(town.ann))
    assert slug(crossed) in {"bad-seal", "unknown-compartment"}
    assert changed(before, dump(house.database, but=frozenset({"party_session", "spent"}))) == set()


def test_slots_and_accounts_stay_their_owners(town: Town) -> None:
    house = town.house
    taken = next(json.loads(r.content)["slots"][0] for r in reversed(house.sent.sent) if r.url.path == "/v1/vaults")
    before = dump(house.database)
    path = f"/v1/vaults/{b64u(town.ann.vault)}/slots/{taken['locator_hash']}"
    stolen = house.http.put(path, json={"slot": taken["slot"]}, headers=session_of(town.ann))
    assert stolen.status_code in {403, 409}, stolen.text
    assert house.http.delete(path, headers=session_of(town.ann)).status_code == 204  # not there, as far as ann can tell
    assert changed(before, dump(house.database)) == set()
    missing = [house.http.get(f"/v1/slots/{b64u(secrets.token_bytes(32))}") for _ in range(3)]
    assert {repr(told(answer)) for answer in missing} == {repr(told(missing[0]))}
    assert slug(missing[0]) == "not-stored"


def test_an_auditor_is_registered_fresh_and_heard_once(town: Town) -> None:
    house, auditor = town.house, SigningKey(new_seed())
    now = SystemClock().now()

    def ask(key: SigningKey = auditor, **forged: Any) -> httpx.Response:
        honest = AuditRequest(house.url, secrets.token_bytes(32), unix_s(now), 0, 3)
        return house.http.post("/v1/audit/bundle", content=sign_audit_request(replace(honest, **forged), key).encoded)

    before = dump(house.database)
    assert slug(ask()) == "audit-refused"
    assert slug(ask(town.ann._keys.signer)) == "audit-refused"
    assert changed(before, dump(house.database)) == set()
    with house.database.transaction() as session:
        leaf = register_auditor(session, "Audit", auditor.public_key, now + timedelta(days=1))
    house.service.app.state.sequencer.wait(leaf.id, 10)
    before = dump(house.database)
    for forged in (
        {"origin": "https://other.example"},
        {"issued_at": unix_s(now) - 90},
        {"issued_at": unix_s(now) + 90},
    ):
        assert slug(ask(**forged)) == "audit-refused"
    for first, last in ((0, 10**9), (0, 10_001), (10**9, 10**9)):
        assert slug(ask(first=first, last=last)) == "bad-audit-range"
    assert slug(ask(first=3, last=2)) == "audit-refused"
    assert changed(before, dump(house.database)) == set()
    request = sign_audit_request(AuditRequest(house.url, secrets.token_bytes(32), unix_s(now), 0, 3), auditor).encoded
    answers = together(*[lambda: house.http.post("/v1/audit/bundle", content=request)] * 4)
    assert sorted(answer.status_code for answer in answers) == [200, 403, 403, 403]
    text = next(answer for answer in answers if answer.status_code == 200).content
    assert not any(b64u(owner.vault).encode() in text for owner in (town.ann, town.bob))


def test_what_one_server_accepts_another_refuses(town: Town, tmp_path: Any) -> None:
    with serving(tmp_path) as other:
        sent = [r for r in town.house.sent.sent if r.url.path == "/v1/sessions"][-1]
        assert (
            slug(other.send(httpx.Request("POST", other.url + "/v1/sessions", content=sent.content)))
            == "sign-in-refused"
        )
        question_id = new_id()
        headers = town.acme.headers(town.ann_to_acme, question_id, BODY)
        response = other.http.put(answer_path(town.ann_to_acme, question_id), content=BODY, headers=headers)
        assert slug(response) == "unauthenticated"
        begun = [r for r in town.house.sent.sent if r.url.path == "/v1/vaults"][-1]
        assert other.send(httpx.Request("POST", other.url + "/v1/vaults", content=begun.content, headers={"content-type": "application/json"})).status_code == 201  # fmt: skip
        for token in (session_of(town.bob), device_session_of(town.bob)):
            assert slug(other.http.get(f"/v1/vaults/{b64u(town.bob.vault)}/ring", headers=token)) == "not-signed-in"


# --- twice at once -------------------------------------------------------------------------------------------------


def twice(town: Town, request: httpx.Request, **changed_: Any) -> list[httpx.Response]:
    return together(*[lambda: town.house.send(request, **changed_)] * 2)  # type: ignore[return-value]


@pytest.fixture
def fresh(town: Town) -> Owner:
    return town.house.owner()


def test_a_vault_begins_once(town: Town) -> None:
    request = town.house.sent.hold_back("POST", "/v1/vaults", town.house.owner)
    answers = twice(town, request)
    assert sorted(answer.status_code for answer in answers) == [201, 409], [a.text for a in answers]
    vault = next(answer.json()["vault"] for answer in answers if answer.status_code == 201)
    assert sum(b64u(row[0]) == vault for row in dump(town.house.database)["person"]) == 1


def _consent(town: Town, owner: Owner) -> httpx.Request:
    return town.house.sent.hold_back("POST", "/consents", lambda: town.house.consent(owner, town.acme.company))


def _withdrawal(town: Town, owner: Owner) -> httpx.Request:
    given = town.house.consent(owner, town.acme.company)
    return town.house.sent.hold_back("POST", "/versions", lambda: owner.withdraw(given))


@pytest.mark.parametrize("prepare", [_consent, _withdrawal])
def test_of_two_equal_changes_one_takes_effect(
    town: Town, fresh: Owner, prepare: Callable[[Town, Owner], httpx.Request]
) -> None:
    request = prepare(town, fresh)
    leaves = len(dump(town.house.database)["log_opening"])
    answers = twice(town, request)
    refused = [answer for answer in answers if not answer.is_success]
    assert len(refused) == 1, [answer.text for answer in answers]
    assert slug(refused[0]) in {"consent-exists", "bad-consent"}
    made = len(dump(town.house.database)["log_opening"]) - leaves
    assert made == (2 if prepare is _consent else 1)  # a consent and the keys handed over; a withdrawal


def test_of_two_equal_rings_one_is_published(town: Town, fresh: Owner) -> None:
    request = town.house.sent.hold_back("PUT", "/ring", lambda: fresh.import_traces(purchases(1, month=7)))
    leaves = len(dump(town.house.database)["log_opening"])
    assert [answer.status_code for answer in twice(town, request)] == [204, 204]  # the second says what is in force
    assert len(dump(town.house.database)["log_opening"]) == leaves + 1
    fresh.import_traces(purchases(1, month=8))
    assert slug(town.house.send(request)) == "version-conflict"


def test_slots_put_at_once_are_kept_once_and_are_no_more_than_a_vault_may_have(town: Town, fresh: Owner) -> None:
    house, session = town.house, session_of(fresh)
    folder = f"/v1/vaults/{b64u(fresh.vault)}/slots/"
    made = [seal_slot(fresh._keys.root, recovery_key(secrets.token_bytes(32))) for _ in range(24)]

    def put(slot: Slot) -> httpx.Response:
        return house.http.put(folder + b64u(slot.slot_id), json={"slot": b64u(slot.encoded)}, headers=session)

    assert [answer.status_code for answer in together(*[lambda: put(made[0])] * 6)] == [204] * 6
    answers = together(*[lambda slot=slot: put(slot) for slot in made])
    assert {answer.status_code for answer in answers} == {204, 409}, {answer.text for answer in answers}
    assert sum(row[1] == fresh.vault for row in dump(house.database)["slot"]) == MAX_SLOTS


def test_of_two_equal_sign_ins_one_opens_a_session(town: Town, fresh: Owner) -> None:
    fresh._auth._token = ""
    request = town.house.sent.hold_back("POST", "/v1/sessions", fresh.consents)
    answers = twice(town, request)
    assert sorted(answer.status_code for answer in answers) == [200, 401]


def test_of_two_equal_uploads_one_is_stored(town: Town, fresh: Owner) -> None:
    fresh.import_traces(purchases(1, month=8))
    device = device_session_of(fresh)
    fresh.device.add(purchases(3, month=8)[1:])
    request = town.house.sent.hold_back("POST", "/batches", fresh.device.flush)
    stored = len(dump(town.house.database)["batch"])
    answers = twice(town, request, headers=device)
    assert [answer.status_code for answer in answers] == [200, 200], [answer.text for answer in answers]
    assert len(dump(town.house.database)["batch"]) == stored + 1


def test_of_two_equal_questions_one_is_charged(town: Town, fresh: Owner) -> None:
    consent = town.house.consent(town.ann, town.acme.company, quota_per_month=5)
    question_id = new_id()
    _ = town.acme.plain_token
    answers = together(*[lambda: town.acme.ask(consent, BODY, question_id)] * 4)
    assert [answer.status_code for answer in answers] == [200] * 4, [answer.text for answer in answers]
    quota = next(item.quota_left for item in town.ann.consents() if item.id == consent)
    assert quota == 4
    proof = town.acme.proof("PUT", answer_path(consent, question_id), token=town.acme.plain_token)
    answers = together(*[lambda: town.acme.ask(consent, BODY, question_id, dpop=proof)] * 4)
    assert sorted(answer.status_code for answer in answers) == [200, 401, 401, 401]


def test_of_two_equal_token_requests_one_is_answered(town: Town) -> None:
    assertion, proof = town.acme.assertion(), town.acme.proof("POST", "/v1/token")
    answers = together(*[lambda: town.acme.token_response(client_assertion=assertion, proof=proof)] * 4)
    assert sum(answer.is_success for answer in answers) == 1
