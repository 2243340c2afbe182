"""The one path: an answer only with permit, quota and logged leaf; every refusal says no more than it may."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy

from tests.answer_kit import (
    NEXT,
    OCTOBER,
    OFFER,
    REFRESH_WINDOW,
    RETAIL,
    SEPTEMBER,
    SIGMA,
    Service,
    answer_in,
    freeze,
    neighbour,
    slug_of,
    suspend,
)  # fmt: skip
from tests.company_kit import CompanyKit
from tests.consent_kit import PURPOSE
from tests.leaves import leaves
from tests.twin.test_release import trained
from tests.vault_kit import MONTH, PURCHASE
from tests.waiting import together
from vault.clock import unix_s
from vault.encoding import b64u, dump_json
from vault.imprint.rows import Row
from vault.parties import companies
from vault.parties.people import VaultState
from vault.proof.verify import verify_bundle
from vault.schema.answer import answer_bytes, release_name
from vault.schema.category import Purpose
from vault.schema.consent import ConsentVersion
from vault.schema.question import Candidate, NextChoice, Question, QuestionKind, Recommend, dump_question
from vault.schema.terms import ConsentKind
from vault.seal.ids import new_id, sha256
from vault.seal.signing import SigningKey, new_seed
from vault.twin import release, rows
from vault.twin.infer import infer, read
from vault.twin.reader import closed_form


def events(service: Service, kind: str) -> list[dict[str, Any]]:
    with service.database.snapshot() as session:
        return [{"public": public, **(personal or {})} for name, public, personal in leaves(session) if name == kind]


def counted(service: Service) -> tuple[int, int]:
    with service.database.snapshot() as session:
        rows = session.connection().execute(
            sqlalchemy.text("SELECT (SELECT count(*) FROM answer), (SELECT count(*) FROM denial)")
        )
        answers, denials = rows.one()
        return answers, denials


def test_a_company_gets_an_answer_that_verifies(service: Service) -> None:
    consent = service.consent()
    question_id = new_id()
    response = service.ask(consent, question_id=question_id)
    answer, bundle = answer_in(response)
    assert response.headers["content-type"] == "application/x-ndjson"
    assert response.headers["cache-control"] == "no-store"
    assert (answer.question_id, answer.consent_id, answer.subject) == (question_id, consent.consent_id, consent.subject)
    assert verify_bundle(bundle, service.trust).failures == ()
    stored = service.stored()
    assert answer.releases == {release_name(consent.subject, row.release_id) for row in stored}
    expected = infer(read(closed_form(RETAIL), RETAIL, [service.read(row) for row in stored], MONTH), NEXT)
    kept = [item for item in expected.predictions if "bread" in item.code or "cheese" in item.code]
    assert all(item in answer.predictions for item in kept)
    (logged,) = events(service, "answer")
    assert logged["quota_left"] == consent.terms.quota_per_month - 1
    assert b64u(service.owner.vault) not in json.dumps(logged)


def test_the_owner_asks_the_own_twin_by_session(service: Service) -> None:
    consent = service.give(ConsentKind.SELF, **REFRESH_WINDOW)
    answer, bundle = answer_in(service.ask_own(consent, OFFER))
    assert {item.code for item in answer.predictions} <= {item.code for item in OFFER.candidates}
    assert verify_bundle(bundle, service.trust).failures == ()
    assert events(service, "answer")[0]["requester"] == "owner"


def test_a_closed_window_is_read_as_of_its_end(quick: Service) -> None:
    consent = quick.consent(data_to=OCTOBER)
    answer, _ = answer_in(quick.ask(consent, OFFER))
    later, request = quick.first(data_from=SEPTEMBER, data_to=OCTOBER, not_after=consent.terms.not_after + 86_400 * 200)
    quick.give_this(quick.submission(later, request))
    quick.clock.at += timedelta(days=150)
    aged, _ = answer_in(quick.ask(later, OFFER))
    assert aged.predictions == answer.predictions


def test_the_same_question_gets_the_same_answer_for_one_quota(service: Service) -> None:
    consent, question_id = service.consent(), new_id()
    first, _ = answer_in(service.ask(consent, question_id=question_id))
    service.clock.at += timedelta(minutes=30)
    second, again = answer_in(service.ask(consent, question_id=question_id))
    assert first == second
    assert verify_bundle(again, service.trust).failures == ()
    assert len(events(service, "answer")) == 1
    assert counted(service) == (1, 0)


def test_another_body_key_or_day_under_the_same_id_refuses(quick: Service) -> None:
    consent, question_id = quick.consent(), new_id()
    answer_in(quick.ask(consent, question_id=question_id))
    other = NextChoice(PURCHASE, PURPOSE, 6)
    assert slug_of(quick.ask(consent, other, question_id)) == "question-id-used"
    key = quick.company.dpop
    quick.company.dpop = CompanyKit().dpop
    assert slug_of(quick.ask(consent, question_id=question_id)) == "question-id-used"
    quick.company.dpop = key
    quick.clock.at += timedelta(hours=25)
    assert slug_of(quick.ask(consent, question_id=question_id)) == "question-id-used"
    assert len(events(quick, "answer")) == 1


def test_a_withdrawn_consent_repeats_no_answer(service: Service) -> None:
    consent, question_id = service.consent(), new_id()
    answer_in(service.ask(consent, question_id=question_id))
    service.withdraw(consent)
    assert slug_of(service.ask(consent, question_id=question_id)) == "consent-not-active"


def test_a_frozen_vault_and_a_suspended_company_repeat_no_answer(quick: Service) -> None:
    consent, question_id = quick.consent(), new_id()
    answer_in(quick.ask(consent, question_id=question_id))
    freeze(quick)
    assert slug_of(quick.ask(consent, question_id=question_id)) == "not-permitted"
    freeze(quick, VaultState.ACTIVE)
    suspend(quick)
    assert slug_of(quick.ask(consent, question_id=question_id)) == "company-suspended"


def _spent(service: Service) -> ConsentVersion:
    consent = service.consent(quota_per_month=1)
    answer_in(service.ask(consent))
    return consent


def _withdrawn(service: Service) -> ConsentVersion:
    consent = service.consent()
    service.withdraw(consent)
    return consent


def _narrow_questions(service: Service) -> ConsentVersion:
    return service.consent(questions=frozenset({QuestionKind.RECOMMEND}))


PILLS = Recommend(PURCHASE, PURPOSE, (Candidate("acme:9", "Vitamin C tablets"),), 1)
STEER = NextChoice(PURCHASE, Purpose("x:Persuasion"), 3)
DENIALS: list[tuple[str, str, Callable[[Service], ConsentVersion], Question]] = [
    ("quota-spent", "quota-spent", _spent, NEXT),
    ("not-covered", "question-not-covered", _narrow_questions, NEXT),
    ("not-covered", "purpose-not-covered", lambda s: s.consent(), STEER),
    ("not-covered", "special-health", lambda s: s.consent(), PILLS),
    ("consent-not-active", "consent-not-active", _withdrawn, NEXT),
    ("company-suspended", "company-suspended", lambda s: (s.consent(), suspend(s))[0], NEXT),
    ("not-permitted", "vault-frozen", lambda s: (s.consent(), freeze(s))[0], NEXT),
]


@pytest.mark.parametrize(("slug", "rule", "given", "question"), DENIALS, ids=[rule for _, rule, _, _ in DENIALS])
def test_a_denial_names_what_it_may_and_is_logged(
    service: Service, slug: str, rule: str, given: Callable[[Service], ConsentVersion], question: Question
) -> None:
    consent = given(service)
    answered = len(events(service, "answer"))
    response = service.ask(consent, question)
    assert slug_of(response) == slug, response.text
    assert len(events(service, "answer")) == answered
    (denial,) = events(service, "denial")
    assert rule in denial["rules"]
    assert (denial["consent"], denial["requester"]) == (b64u(consent.consent_id), service.company.company_id)
    assert set(denial["public"]) == {"kind", "question_kind", "policy_set", "period", "bound"}
    assert counted(service) == (answered, 1)


def test_a_consent_outside_its_window_refuses(quick: Service) -> None:
    consent = quick.consent()
    quick.clock.at += timedelta(days=31)
    assert slug_of(quick.ask(consent)) == "outside-window"


def test_an_unknown_and_a_foreign_consent_and_another_grant_look_the_same(service: Service) -> None:
    mine, other = service.consent(), CompanyKit()
    with service.database.transaction() as session:
        companies.register(session, other.record(service.clock.at), now=service.clock.at)
    own = service.give(ConsentKind.SELF, **REFRESH_WINDOW)
    answers = [service.ask(new_id()), service.ask(own), service.ask(mine, token=service.token(new_id()))]
    service.company = other
    answers.append(service.ask(mine))
    bodies = {re.sub(rb'"instance":[^,}]*', b"", response.content) for response in answers}
    assert [response.status_code for response in answers] == [403] * 4
    assert len(bodies) == 1
    logged = events(service, "denial")
    assert len(logged) == 4
    assert all("consent" not in denial and "subject" not in denial for denial in logged)
    assert counted(service) == (0, 0)


def test_an_owner_asks_under_no_other_consent(quick: Service) -> None:
    assert slug_of(quick.ask_own(quick.consent())) == "not-permitted"


def test_a_proof_works_once_for_answers_and_denials(service: Service) -> None:
    consent = service.consent(quota_per_month=1)
    for expected in (200, 429):
        question_id = new_id()
        path = f"/v1/consents/{b64u(consent.consent_id)}/answers/{b64u(question_id)}"
        sent = service.headers(path, consent.consent_id, question_id, dump_json(dump_question(NEXT)))
        assert service.ask(consent, question_id=question_id, headers=sent).status_code == expected
        replayed = service.ask(consent, question_id=question_id, headers=sent)
        assert (replayed.status_code, slug_of(replayed)) == (401, "unauthenticated")
    assert counted(service) == (1, 1)


def test_an_unsigned_question_refuses_and_leaves_nothing(quick: Service) -> None:
    consent = quick.consent()
    other = quick.company.signed_question("https://vault.example", consent.consent_id, new_id(), b"{}", quick.clock.at)
    for signature in ("", "a.b.c", other):
        response = quick.ask(consent, **{"question-signature": signature})
        assert (response.status_code, slug_of(response)) == (401, "bad-question-signature")
    assert slug_of(quick.ask(consent, headers={"authorization": f"Bearer {quick.token()}"})) == "not-signed-in"
    assert slug_of(quick.ask(consent, headers={"dpop": "x"})) == "unauthenticated"
    assert counted(quick) == (0, 0)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"[]", 400),
        (b'{"kind":"next_choice"}', 422),
        (b'{"category":"pd:Purchase", "kind":"next_choice"}', 422),
        (
            b'{"top_n":5,"category":"pd:Purchase","kind":"next_choice","purpose":"dpv:ProvideProductRecommendations"}',
            422,
        ),
        (b'{"category":"pd:Purchase","kind":"propensity"}', 422),
        (
            b'{"category":"pd:Purchase","kind":"population_map","purpose":"dpv:ProvideProductRecommendations","top_n":5}',
            422,
        ),
    ],
)
def test_a_body_that_is_no_question_in_its_one_spelling_refuses(quick: Service, body: bytes, status: int) -> None:
    response = quick.ask(quick.consent(), body)
    assert response.status_code == status, response.text
    assert quick.ask(b"short", NEXT).status_code == 400


def test_without_a_model_nothing_answers(service: Service) -> None:
    with service.database.transaction() as session:
        on = "" if service.database.is_sqlite else " ON model"
        session.connection().exec_driver_sql(f"DROP TRIGGER model_no_delete{on}")
        session.connection().exec_driver_sql("DELETE FROM model")
    response = service.ask(service.consent())
    assert (response.status_code, slug_of(response)) == (409, "no-certified-model")
    assert int(response.headers["retry-after"]) > 0


def test_a_model_whose_certificate_lapsed_answers_nothing(quick: Service) -> None:
    consent = quick.consent(not_after=unix_s(quick.clock.at + timedelta(days=600)))
    backbone, manifest = trained()
    with quick.database.transaction() as session:
        release.publish(session, backbone, manifest, quick.worker_key)
    answer, _ = answer_in(quick.ask(consent))
    assert answer.model_sha256 == manifest.digest
    quick.clock.at += timedelta(days=401)
    before = counted(quick)
    response = quick.ask(consent)
    assert (response.status_code, slug_of(response)) == (409, "no-certified-model")
    assert int(response.headers["retry-after"]) > 0
    assert counted(quick) == before  # no answer and no leaf: the quota is as it was
    anew = replace(manifest, trained_at=unix_s(quick.clock.at))
    with quick.database.transaction() as session:
        release.publish(session, backbone, anew, quick.worker_key)
    answer, _ = answer_in(quick.ask(consent))
    assert answer.model_sha256 == anew.digest


def test_a_twin_without_rows_tells_its_owner_only(quick: Service) -> None:
    with quick.database.transaction() as session:
        session.connection().exec_driver_sql("DELETE FROM imprint_row")
    response = quick.ask_own(quick.give(ConsentKind.SELF, **REFRESH_WINDOW))
    assert (response.status_code, slug_of(response)) == (409, "twin-not-ready")
    assert int(response.headers["retry-after"]) > 0
    answer, bundle = answer_in(quick.ask(quick.consent()))
    assert answer.releases == frozenset()
    assert verify_bundle(bundle, quick.trust).failures == ()


def test_rows_that_the_worker_did_not_sign_are_not_read(quick: Service) -> None:
    consent = quick.consent()
    values = quick.read(quick.stored()[0]).values
    with quick.database.transaction() as session:
        session.connection().exec_driver_sql("DELETE FROM imprint_row")
    forged = Row(bytes(32), RETAIL.digest, OCTOBER, 0, RETAIL.clip, 1, values)
    quick.put(forged, signer=SigningKey(new_seed()))
    assert quick.ask(consent).status_code >= 400
    assert counted(quick) == (0, 0)


def test_an_answer_at_rest_is_sealed(quick: Service) -> None:
    answer, _ = answer_in(quick.ask(quick.consent(), OFFER))
    with quick.database.snapshot() as session:
        (sealed,) = session.connection().execute(sqlalchemy.text("SELECT sealed FROM answer")).scalars()
    for secret in (answer.predictions[0].code.encode(), b"predictions", b64u(answer.question_id).encode()):
        assert secret not in sealed


def test_no_answer_follows_a_withdrawal_in_the_log(service: Service) -> None:
    consent = service.consent(quota_per_month=3)
    statuses: list[int] = []
    asks = [lambda: statuses.append(service.ask(consent).status_code) for _ in range(6)]
    together(*asks[:3], lambda: service.withdraw(consent), *asks[3:])
    with service.database.snapshot() as session:
        chain = [
            (kind, personal["consent_seq"])
            for kind, _, personal in leaves(session)
            if personal and personal.get("consent") == b64u(consent.consent_id) and "consent_seq" in personal
        ]
    kinds = [kind for kind, _ in chain]
    assert [number for _, number in chain] == list(range(1, len(chain) + 1))
    withdrawn_at = len(kinds) - 1 - kinds[::-1].index("consent")
    assert "answer" not in kinds[withdrawn_at:]
    assert kinds.count("answer") == statuses.count(200) <= 3
    assert len(statuses) == 6


def test_quota_is_never_overdrawn_and_one_id_costs_one(service: Service) -> None:
    consent, question_id = service.consent(quota_per_month=3), new_id()
    same = together(*[lambda: service.ask(consent, question_id=question_id)] * 4)
    assert {answer_in(response)[0].asked_at for response in same} == {int(service.clock.at.timestamp())}
    assert len(events(service, "answer")) == 1
    statuses = together(*[lambda: service.ask(consent).status_code] * 6)
    assert statuses.count(200) == 2
    assert len(events(service, "answer")) == 3


def test_two_vaults_with_equal_rows_cannot_be_told_apart(quick: Service) -> None:
    """Invariant 7: the first vault holds traces beside its rows, the second nothing at all."""
    quick.buy("completejourney:beef", "completejourney:sushi")
    values = [quick.read(stored).values for stored in quick.stored()]
    answers = []
    for world in (quick, neighbour(quick)):
        with world.database.transaction() as session:
            rows.forget(session, world.owner.vault)
        world.put(
            *(
                Row(sha256(bytes([at])), RETAIL.digest, period, 0, RETAIL.clip, SIGMA, values[at])
                for at, period in enumerate((SEPTEMBER, OCTOBER))
            )
        )
        answers.append(answer_in(world.ask(world.consent()))[0])
    first, second = answers
    assert first.predictions
    # Ids and the salt are random; nothing else may differ.
    ids = {"consent_id": b"c" * 16, "subject": b"s" * 16, "question_id": b"q" * 16, "salt": b"z" * 16}
    private = {**ids, "releases": frozenset()}
    assert answer_bytes(replace(first, **private)) == answer_bytes(replace(second, **private))
    assert len(first.releases) == len(second.releases) == 2
    assert not first.releases & second.releases  # the same release is named differently towards each grantee
