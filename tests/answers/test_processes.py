"""Several processes of one app: what one of them is told holds for all, whatever another has in memory."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace

import pytest
from fastapi.testclient import TestClient

from tests.answer_kit import ISSUER, NEXT, Service, answer_in, running, slug_of
from tests.consent_kit import NOW
from tests.twin.worker_kit import OCTOBER
from tests.waiting import together
from vault.answers.ask import AnswerDesk
from vault.consent import handovers
from vault.db import Database
from vault.encoding import b64u, dump_json
from vault.parties import people
from vault.parties.people import VaultState
from vault.proof.verify import verify_bundle
from vault.schema.consent import ConsentEvent
from vault.schema.question import dump_question
from vault.seal.dsse import PayloadType, sign_record
from vault.seal.ids import new_id
from vault.seal.signing import SigningKey, new_seed
from vault.tlog.sequencer import Sequencer


@pytest.fixture
def other(service: Service) -> Iterator[Service]:
    """A second process of the app: databases, memory and sequencer of its own over the same files."""
    other = copy.copy(service)
    other.database, other.shortkeys = (
        Database(database.url.render_as_string(hide_password=False))
        for database in (service.database, service.shortkeys)
    )
    other.sequencer = Sequencer(other.database, service.log, service.log_key.sign)
    other.client = TestClient(other.app(), base_url=ISSUER)
    with running(other):
        yield other
    other.database.close()
    other.shortkeys.close()


def desk_of(process: Service) -> AnswerDesk:
    desk = process.client.app.state.answer_desk  # type: ignore[attr-defined]  # FastAPI
    assert isinstance(desk, AnswerDesk)
    return desk


def held_by(process: Service) -> set[bytes]:
    """Return the consents whose keys or rows a process has in memory, after it looked for ended ones."""
    desk = desk_of(process)
    with process.database.snapshot() as session:
        desk.forget_ended(session)
    return {*desk.serving.versions, *desk.rows.versions}


def test_each_process_answers_and_every_answer_verifies(service: Service, other: Service) -> None:
    consent = service.consent()
    for process in (other, service, other, other, service):
        _, bundle = answer_in(process.ask(consent))
        assert verify_bundle(bundle, service.trust).failures == ()


def test_keys_that_an_erasure_took_away_leave_the_memory_of_the_others(service: Service, other: Service) -> None:
    consent = service.consent()
    answer_in(other.ask(consent))
    assert held_by(other) == {consent.consent_id}
    with service.database.transaction() as session:
        handovers.close(session, consent.consent_id)  # as erasing months does
    assert held_by(other) == set()


def test_a_withdrawal_through_one_process_holds_for_the_others(service: Service, other: Service) -> None:
    consent, kept, question_id = service.consent(), service.consent(), new_id()
    answer_in(other.ask(kept))
    answer_in(other.ask(consent, question_id=question_id))
    assert held_by(other) == {consent.consent_id, kept.consent_id}
    service.withdraw(consent)
    assert slug_of(other.ask(consent)) == "consent-not-active"
    assert slug_of(other.ask(consent, question_id=question_id)) == "consent-not-active"
    assert held_by(other) == {kept.consent_id}


def test_keys_taken_away_leave_the_memory_of_a_process_that_nobody_asks(service: Service, other: Service) -> None:
    ended, narrowed, kept = (service.consent() for _ in range(3))
    for consent in (ended, narrowed, kept):
        answer_in(other.ask(consent))
    service.withdraw(ended)
    terms = replace(narrowed.terms, data_from=OCTOBER)
    service.amend(service.next(narrowed, ConsentEvent.NARROWED, terms=terms))
    assert held_by(other) == {kept.consent_id}


def test_a_freeze_through_one_process_holds_for_the_others(service: Service, other: Service) -> None:
    consent = service.consent()
    answer_in(other.ask(consent))
    cause = sign_record(PayloadType.FREEZE, {"why": "test"}, SigningKey(new_seed()))
    with service.database.transaction() as session:
        people.freeze(session, service.owner.vault, VaultState.FROZEN, cause, now=NOW)
    assert slug_of(other.ask(consent)) == "not-permitted"


def test_a_proof_that_one_process_has_seen_is_used_up_for_all(service: Service, other: Service) -> None:
    consent, question_id, body = service.consent(), new_id(), dump_json(dump_question(NEXT))
    path = f"/v1/consents/{b64u(consent.consent_id)}/answers/{b64u(question_id)}"
    headers = service.headers(path, consent.consent_id, question_id, body)
    answer_in(service.client.put(path, content=body, headers=headers))
    replayed = other.client.put(path, content=body, headers=headers)
    assert (replayed.status_code, slug_of(replayed)) == (401, "unauthenticated")


def test_one_quota_is_spent_by_all_processes_together(service: Service, other: Service) -> None:
    consent = service.consent(quota_per_month=5)
    found = together(*(lambda process=process: process.ask(consent) for process in (service, other) for _ in range(6)))
    assert sorted(response.status_code for response in found)[:5] == [200] * 5
    refused = [slug_of(response) for response in found if response.status_code != 200]
    assert len(refused) == 7
    assert set(refused) <= {"quota-spent", "not-spent"}


def test_one_question_to_two_processes_at_once_is_answered_once(service: Service, other: Service) -> None:
    consent, question_id = service.consent(), new_id()
    found = together(
        *(lambda process=process: process.ask(consent, question_id=question_id) for process in (service, other))
    )
    answers = [answer_in(response)[0] for response in found]
    assert answers[0] == answers[1]
