"""What was sent has its effect once: sent again later, for another vault, or twice at the same moment."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import replace
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
    session_of,
    slug,
)
from tests.waiting import together
from twinvault.owner import Owner
from vault.encoding import b64u, dump_json
from vault.schema.question import dump_question
from vault.seal.ids import new_id
from vault.seal.slot import Slot, recovery_key, seal_slot
from vault.store.slots import MAX_SLOTS

BODY = dump_json(dump_question(QUESTION))


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
