"""Nobody reaches what is another's, and nothing tells apart what is another's from what does not exist."""

from __future__ import annotations

import json
import re
import secrets
from dataclasses import replace
from datetime import timedelta
from typing import Any

import httpx

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
)
from tests.waiting import together
from twinvault.signin import SignedIn
from vault.clock import SystemClock, unix_s
from vault.encoding import b64u, dump_json
from vault.evidence.auditors import register_auditor
from vault.schema.question import dump_question
from vault.schema.terms import ConsentKind
from vault.seal.audit import AuditRequest, sign_audit_request
from vault.seal.ids import ConsentId, new_id
from vault.seal.person import Role
from vault.seal.signing import SigningKey, new_seed

BODY = dump_json(dump_question(QUESTION))


_DEVICE_ROUTES = {("POST", "/v1/vaults/{vault}/batches"), ("GET", "/v1/vaults/{vault}/ring")}
_MADE_UP = {
    ("PUT", "account"): b'{"account":"AAAA"}',
    ("PUT", "legacy"): b'{"plan":"AAAA"}',
    ("PUT", "freshness"): b'{"freshness":"day"}',
    ("PUT", "{locator_hash}"): b'{"slot":"AAAA"}',
    ("POST", "freezes"): b'{"order":"AAAA"}',
    ("POST", "profiles"): b'{"profile":"AAAA"}',
    ("POST", "erasures"): b'{"order":"AAAA"}',
    ("POST", "preview"): b"{}",
}
"""Bodies for routes that nobody in the town has called, by method and last part of the path."""


def told(response: httpx.Response) -> tuple[Any, ...]:
    """Everything that a response says but its own number, its time and the next nonce."""
    fixed = {k: v for k, v in response.headers.items() if k not in {"x-request-id", "date", "dpop-nonce"}}
    return response.status_code, fixed, re.sub(rb"/requests/[0-9a-f]{16}", b"", response.content)


def vault_requests(town: Town, vault: str) -> list[tuple[str, str, httpx.Request]]:
    """Return method, template and a request for each route of a vault, with a body that an owner sent if one did."""
    spec = town.house.http.get("/openapi.json").json()["paths"]
    found = []
    for template, methods in spec.items():
        # A succession takes no session: tests/attacks/test_successions.py.
        if "{vault}" not in template or template.endswith("/successions"):
            continue
        for method in (name.upper() for name in methods):
            shape = re.sub(r"\{[^}]+\}", "[^/]+", template)
            honest = next(
                (r for r in reversed(town.house.sent.sent) if r.method == method and re.fullmatch(shape, r.url.path)),
                None,
            )
            path = template.replace("{vault}", vault).replace("{consent}", b64u(town.bob_to_rival))
            path = path.replace("{locator_hash}", b64u(bytes(32))).replace("{version}", "1")
            last = template.rpartition("/")[2]
            body = honest.content if honest else _MADE_UP.get((method, last), b"")
            kind = honest.headers.get("content-type") if honest else "application/json"
            headers = {"content-type": kind} if kind and body else {}
            query = f"?compartment={b64u(new_id())}" if (method, last) == ("GET", "batches") else ""
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


def test_a_watcher_does_nothing_but_read_what_happened(town: Town) -> None:
    ann = town.ann
    signing = SignedIn(ann.profile.trust, ann.vault, ann._keys.signer, Role.WATCHER)
    watcher = {"Authorization": signing.authorization(town.house.http)}
    before = dump(town.house.database)
    for method, template, request in vault_requests(town, b64u(ann.vault)):
        if "/history" not in template:
            assert slug(town.house.send(request, headers=watcher)) == "wrong-role", (method, template)
    path = answer_path(town.ann_to_acme, new_id())
    assert town.house.http.put(path, content=BODY, headers=watcher).status_code == 403
    assert town.house.http.get(f"/v1/vaults/{b64u(ann.vault)}/history", headers=watcher).status_code == 200
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


def test_slots_and_accounts_stay_their_owners(town: Town) -> None:
    house = town.house
    begun = next(json.loads(r.content) for r in reversed(house.sent.sent) if r.url.path == "/v1/vaults")
    [taken] = begun["slots"]
    before = dump(house.database)
    path = f"/v1/vaults/{b64u(town.ann.vault)}/slots/{taken['locator_hash']}"
    stolen = house.http.put(path, json={"slot": taken["slot"]}, headers=session_of(town.ann))
    assert stolen.status_code in {403, 409}, stolen.text
    assert house.http.delete(path, headers=session_of(town.ann)).status_code == 204  # not there, as far as ann can tell
    account = f"/v1/vaults/{b64u(town.ann.vault)}/account"
    assert slug(house.http.put(account, json={"account": begun["account"]}, headers=session_of(town.ann))) == "bad-seal"
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
