"""Bad input through real HTTP: each refusal is a stable problem that says what to do, and nothing is half-written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from tests.client_kit import purchases
from tests.http_kit import (
    CODES,
    PURPOSE,
    QUESTION,
    Caller,
    Town,
    answer_path,
    changed,
    device_session_of,
    dump,
    new_databases,
    serving,
    session_of,
    settle,
    slug,
)
from twinvault.api import ApiError
from twinvault.owner import Owner
from twinvault.receipts import verify_answered
from vault.encoding import b64u, dump_json
from vault.errors import VaultError
from vault.http.problems import problem_response
from vault.schema.category import Category, Purpose
from vault.schema.question import NextChoice, QuestionKind, dump_question
from vault.schema.terms import ConsentKind
from vault.seal.ids import ConsentId, new_id

_BODY = dump_json(dump_question(QUESTION))
_NOTHING: frozenset[str] = frozenset()


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def town(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    urls: tuple[str | None, str | None] = (None, None)
    if request.param == "postgresql":
        urls = new_databases(request.getfixturevalue("postgresql_server"))
    with serving(tmp_path_factory.mktemp("town"), *urls) as house:
        yield settle(house)


@pytest.fixture
def clock(town: Town) -> Iterator[Any]:
    """Let the service live later, for as long as the test runs."""
    state, real = town.house.service.app.state, town.house.clock

    class Later:
        ahead = timedelta(0)

        def now(self) -> datetime:
            return datetime.now(UTC) + self.ahead

    state.clock = town.house.clock = later = Later()
    yield later
    state.clock = town.house.clock = real


def refused(town: Town, response: httpx.Response, status: int, kind: str) -> None:
    assert (slug(response), response.status_code) == (kind, status), response.text


@pytest.mark.parametrize(
    "kind",
    [
        "bad-question", "bad-question-signature", "bad-seal", "broken-chain", "consent-not-active", "invalid-request",
        "malformed-input", "not-covered", "outside-window", "quota-spent", "unauthenticated", "unknown-company",
    ],
)  # fmt: skip
def test_what_was_wrong_is_followed_by_what_to_do(kind: str) -> None:
    class Wrong(VaultError):
        slug, title, status = kind, "Wrong", 400

    detail = json.loads(bytes(problem_response(Wrong("The seventh byte is wrong.")).body))["detail"]
    assert detail.startswith("The seventh byte is wrong. ")
    assert len(detail.partition(" wrong. ")[2]) > 20


@pytest.fixture
def unchanged(town: Town) -> Iterator[None]:
    """Whatever the test sends leaves every table as it was."""
    before = dump(town.house.database)
    yield
    assert changed(before, dump(town.house.database)) == _NOTHING


# --- what the edge refuses -----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(
    "body", [b"{", b"\xff\xfe", b"", b"null", b"[]", b'{"genesis": 1}', b"{" * 5000, b'{"a":' * 5000]
)
def test_malformed_json(town: Town, body: bytes) -> None:
    headers = session_of(town.ann) | {"Content-Type": "application/json"}
    vault = f"/v1/vaults/{b64u(town.ann.vault)}"
    for method, path in (("POST", "/v1/vaults"), ("PUT", vault + "/ring"), ("POST", vault + "/consents")):
        response = town.house.http.request(method, path, content=body, headers=headers)
        assert slug(response) in {"unreadable-body", "invalid-request"}
        assert response.status_code in {400, 422}
    answer = town.acme.ask(town.ann_to_acme, body)
    assert slug(answer) in {"malformed-input", "bad-question"}, answer.text
    assert answer.status_code in {400, 422}


@pytest.mark.usefixtures("unchanged")
def test_no_detail_repeats_a_key_that_only_the_sender_knows(town: Town) -> None:
    secret = "correct horse battery staple"
    page = {"page": "AAAA", "locked": {secret: 1}}
    for body in ({secret: "x"}, {"ring": {"head": "AAAA", "pages": [page]}}, {"ring": {secret: {}}}):
        response = town.house.http.post("/v1/vaults", json=body)
        refused(town, response, 422, "invalid-request")
        assert "horse" not in response.text


@pytest.mark.usefixtures("unchanged")
def test_an_oversized_body(town: Town) -> None:
    limit = town.house.service.app.state.settings.max_body_bytes
    batches = f"/v1/vaults/{b64u(town.ann.vault)}/batches"
    for headers in ({}, device_session_of(town.ann)):
        refused(town, town.house.http.post(batches, content=bytes(limit + 1), headers=headers), 413, "body-too-large")
        chunks = iter([bytes(1 << 20)] * (limit // (1 << 20) + 2))
        response = town.house.http.post(batches, content=chunks, headers=headers)
        assert slug(response) == ("body-too-large" if headers else "not-signed-in")
    refused(town, town.acme.ask(town.ann_to_acme, b'"' + b"a" * 200_000 + b'"'), 400, "malformed-input")


# --- uploads -------------------------------------------------------------------------------------------------------


def upload_of(town: Town, owner: Owner, day: int) -> httpx.Request:
    """Return an upload that the owner's device signed and never sent."""
    owner.device.add([replace(item, id=f"{item.id}-{day}") for item in purchases(2, month=1)])
    return town.house.sent.hold_back("POST", "/batches", owner.device.flush)


def test_uploads_that_are_altered_replayed_out_of_order_or_from_nobody(town: Town) -> None:
    owner = town.house.owner()
    owner.import_traces(purchases(2, month=1))
    first = upload_of(town, owner, 1)
    assert town.house.send(first, headers=device_session_of(owner)).status_code == 200
    owner.device.flush()
    second, session = upload_of(town, owner, 2), device_session_of(owner)
    before = dump(town.house.database)
    for at in (8, len(second.content) // 2, len(second.content) - 8):
        flipped = bytearray(second.content)
        flipped[at] ^= 1
        response = town.house.send(second, content=bytes(flipped), headers=session)
        assert slug(response) in {"bad-seal", "broken-chain", "unknown-compartment"}, response.text
    refused(town, town.house.send(second, content=second.content[:-1], headers=session), 400, "bad-seal")
    assert town.house.send(first, headers=session).status_code == 200  # acknowledged again and stored once
    stranger = town.house.owner()
    path = f"{town.house.url}/v1/vaults/{b64u(stranger.vault)}/batches"
    response = town.house.send(second, url=path, headers=device_session_of(stranger))
    assert slug(response) in {"bad-seal", "unknown-compartment", "broken-chain"}
    assert changed(before, dump(town.house.database)) <= {
        "person", "person_record", "slot", "account", "ring_head", "ring_page", "ring_device", "compartment", "store_leaf",
        "consent", "consent_version", "handover", "log_opening", "log_entry", "log_tile", "log_head",
    }  # fmt: skip
    assert dump(town.house.database)["batch"] == before["batch"]


def test_an_unknown_device(town: Town) -> None:
    owner, stranger = town.house.owner(), town.house.owner()
    stranger.device._auth._vault, stranger.device._auth._token = owner.vault, ""
    before = dump(town.house.database)
    with pytest.raises(ApiError) as refusal:
        device_session_of(stranger)
    assert (refusal.value.slug, refusal.value.status) == ("sign-in-refused", 401)
    assert changed(before, dump(town.house.database)) == _NOTHING


def test_a_closed_epoch(town: Town) -> None:
    owner, now = town.house.owner(), datetime.now(UTC)
    traces = purchases(4, month=now.month, year=now.year)
    owner.import_traces(traces[:1])
    owner.device.add(traces[1:2])
    late, session = town.house.sent.hold_back("POST", "/batches", owner.device.flush), device_session_of(owner)
    own = next(item for item in owner.consents() if item.current.terms.kind is ConsentKind.SELF)
    owner.withdraw(own.id)  # the owner's client closes the epochs that the worker could open
    before = dump(town.house.database)["batch"]
    refused(town, town.house.send(late, headers=session), 409, "closed-epoch")
    assert dump(town.house.database)["batch"] == before


# --- questions -----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("unchanged")
def test_questions_that_are_none(town: Town) -> None:
    good = dump_question(QUESTION)
    for bad in (
        {**good, "kind": "mind_reading"},
        {**good, "category": "pd:Unheard"},
        {**good, "category": "Purchase"},
        {**good, "purpose": "dpv:"},
        {**good, "top_n": 0},
        {**good, "top_n": 10**6},
        {**good, "top_n": "2"},
        {**good, "extra": "x"},
        {**good, "candidates": []},
        {name: value for name, value in good.items() if name != "purpose"},
    ):
        response = town.acme.ask(town.ann_to_acme, dump_json(bad))
        assert slug(response) == "bad-question", (bad, response.text)
        assert response.status_code == 422
        assert "Unheard" not in response.text
    refused(town, town.acme.ask(town.ann_to_acme, b" " + _BODY), 422, "bad-question")
    for path in ("x", "A" * 21, "%00" * 22, "A" * 5000):
        response = town.house.http.put(f"/v1/consents/{path}/answers/{b64u(new_id())}", content=_BODY)
        assert slug(response) == "unauthenticated"
        response = town.acme.ask(town.ann_to_acme, path=answer_path(town.ann_to_acme, new_id())[:-1])
        assert slug(response) == "unauthenticated"


@pytest.mark.usefixtures("unchanged")
def test_wrong_keys_audiences_and_companies(town: Town) -> None:
    acme, question = town.acme, new_id()
    ask = {"consent": town.ann_to_acme, "question": _BODY, "question_id": question}
    for forged in (
        {"aud": "https://other.example"},
        {"key": town.rival.key("question")},
        {"iat": 1},
        {"iss": "A" * 22},
    ):
        signature = acme.signature(town.ann_to_acme, question, _BODY, **forged)  # type: ignore[arg-type]  # forged
        refused(town, acme.ask(**ask, question_signature=signature), 401, "bad-question-signature")
    for claim in (
        {"aud": "https://other.example"},
        {"sub": "A" * 22, "iss": "A" * 22},
        {"key": town.rival.key("auth")},
    ):
        response = acme.token_response(client_assertion=acme.assertion(**claim))
        assert (response.status_code, response.json()["error"]) == (
            400,
            "invalid_client",
        ) or response.status_code == 401
        assert len(response.json()["error_description"]) > 20
    refused(town, town.house.http.get("/v1/companies/" + "A" * 22), 404, "unknown-company")
    refused(town, town.house.http.get("/v1/companies/%00"), 404, "unknown-company")


def told_to_a_company(town: Town, response: httpx.Response, kind: str, rule: str) -> None:
    """The company is told `kind`; the owner's feed names the rule."""
    assert slug(response) == kind, response.text
    if kind == "not-permitted":
        assert response.json()["detail"] == "This is not permitted."
    town.bob.withdraw(town.house.consent(town.bob, town.acme.company))  # waits until the log holds the denial
    denials = [event for event in town.ann.history() if event["kind"] == "denial"]
    assert [item["rule"] for item in denials[-1]["rules"]] == [rule], denials[-1]


def test_what_the_consent_does_not_cover(town: Town) -> None:
    cases = [
        (replace(QUESTION, purpose=Purpose("dpv:Marketing")), "purpose-not-covered"),
        (NextChoice(QUESTION.category, PURPOSE, 3), "question-not-covered"),
    ]
    consent = town.house.consent(town.ann, town.acme.company, questions=frozenset({QuestionKind.RECOMMEND}))
    for question, rule in cases:
        before = dump(town.house.database)
        response = town.acme.ask(consent, question)
        told_to_a_company(town, response, slug(response), rule)
        assert response.status_code == 403
        after = dump(town.house.database)
        assert after["answer"] == before["answer"]
        assert len(after["denial"]) == len(before["denial"]) + 1
    response = town.acme.ask(consent, NextChoice(Category("pd:Health"), PURPOSE, 3))
    assert response.status_code in {403, 409, 422}
    assert slug(response) in {"not-permitted", "not-covered", "no-feature-map"}


def test_a_withdrawn_an_expired_and_a_spent_consent(town: Town, clock: Any) -> None:
    spent = town.house.consent(town.ann, town.acme.company, quota_per_month=1)
    assert town.acme.ask(spent).status_code == 200
    before = dump(town.house.database)
    refused(town, town.acme.ask(spent), 429, "quota-spent")
    assert dump(town.house.database)["answer"] == before["answer"]
    ended = town.house.consent(town.ann, town.acme.company)
    kept = new_id()
    assert town.acme.ask(ended, question_id=kept).status_code == 200
    town.ann.withdraw(ended)
    refused(town, town.acme.ask(ended), 403, "consent-not-active")
    refused(town, town.acme.ask(ended, question_id=kept), 403, "consent-not-active")  # not even what was given before
    assert town.acme.token_response(ended).json()["error"] == "invalid_grant"
    clock.ahead = timedelta(days=4000)
    late = Caller(town.house, town.acme.company)
    response = late.ask(town.ann_to_acme)
    assert (slug(response), response.status_code) == ("outside-window", 403), response.text


def test_no_certified_model(town: Town) -> None:
    state = town.house.service.app.state
    desk = state.answer_desk
    path, session = _own_path(town.ann), session_of(town.ann)
    before = dump(town.house.database)
    state.answer_desk = replace(desk, worker_statements={})  # no key is left whose manifests count
    try:
        for response in (town.acme.ask(town.ann_to_acme), town.house.http.put(path, content=_BODY, headers=session)):
            refused(town, response, 409, "no-certified-model")
            assert int(response.headers["retry-after"]) > 0
    finally:
        state.answer_desk = desk
    assert changed(before, dump(town.house.database)) == _NOTHING


def _own_path(owner: Owner) -> str:
    own = next(item.id for item in owner.consents() if item.current.terms.kind is ConsentKind.SELF)
    return answer_path(own, new_id())


def test_a_twin_that_is_still_being_prepared(town: Town) -> None:
    """The owner is told to wait; a company gets what any vault of little information answers."""
    empty = town.house.owner()
    empty.import_traces(purchases(2, month=1))
    own = next(item for item in empty.consents() if item.current.terms.kind is ConsentKind.SELF)
    purpose = min(own.current.terms.purposes)
    body = dump_json(dump_question(replace(QUESTION, purpose=purpose)))
    before = dump(town.house.database)
    response = town.house.http.put(answer_path(own.id, new_id()), content=body, headers=session_of(empty))
    refused(town, response, 409, "twin-not-ready")
    assert int(response.headers["retry-after"]) > 0
    assert changed(before, dump(town.house.database)) == _NOTHING
    consent = town.house.consent(empty, town.acme.company)
    question_id = new_id()
    answer = town.acme.ask(consent, question_id=question_id)
    assert answer.status_code == 200, answer.text
    found = verify_answered(
        answer.content, town.house.service.trust, consent=ConsentId(consent), question_id=question_id, question=QUESTION,
        requester=town.acme.company.company_id,
    )  # fmt: skip
    assert {item.code for item in found.answer.predictions} <= set(CODES)
