"""Questions that wait hold no thread, wait for a clerk or a checkpoint only so long, and lose nothing by it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import wait
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from queue import Queue

import pytest
from httpx import Response

from tests.answer_kit import NEXT, Service, answer_in, running, slug_of
from tests.leaves import leaves
from tests.waiting import together, until
from vault.answers import clerks, records
from vault.db import Database
from vault.proof.verify import verify_bundle
from vault.seal.ids import ConsentId, new_id


def prepared(database: Database, shortkeys: Database, tmp_path: Path) -> Service:
    service = Service(database, shortkeys, keyring=tmp_path / "keyring")
    service.release_model()
    service.put_rows("completejourney:bread")
    return service


def test_many_more_questions_than_threads_wait_for_one_checkpoint(
    database: Database, shortkeys: Database, tmp_path: Path
) -> None:
    service = prepared(database, shortkeys, tmp_path)
    consent = service.consent(quota_per_month=100)
    service.client.app.state.answer_desk = replace(service.desk(), checkpoint_wait_s=120)  # type: ignore[attr-defined]

    def sign_once_all_wait() -> None:
        until(lambda: len(service.sequencer._waiting) == 6, "six questions wait for the checkpoint and nothing else")
        service.sequencer.start()

    with service.client:  # one event loop for all of them, as in the app
        try:
            *answers, _ = together(*[lambda: service.ask(consent, NEXT)] * 6, sign_once_all_wait)
        finally:
            service.sequencer.stop()
    for answer in answers:
        assert verify_bundle(answer_in(answer)[1], service.trust).failures == ()


def test_a_late_checkpoint_is_said_and_the_same_question_brings_the_answer(
    database: Database, shortkeys: Database, tmp_path: Path
) -> None:
    service = prepared(database, shortkeys, tmp_path)
    consent, question_id = service.consent(), new_id()
    service.client.app.state.answer_desk = replace(service.desk(), checkpoint_wait_s=0.05)  # type: ignore[attr-defined]
    assert slug_of(service.ask(consent, NEXT, question_id)) == "log-busy"
    assert service.sequencer._waiting == {}
    service.client.app.state.answer_desk = service.desk()  # type: ignore[attr-defined]
    with running(service):
        answer_in(service.ask(consent, NEXT, question_id))
        with database.snapshot() as session:
            assert [kind for kind, _, _ in leaves(session)].count("answer") == 1


@contextmanager
def all_clerks_held_up(service: Service) -> Iterator[None]:
    """Let none be free, and nobody wait for one, as where a process of the service was stopped in its turn to write.

    When this ends, all that was queued meanwhile is done.
    """
    held, free = service.client.app.state.clerks, threading.Event()  # type: ignore[attr-defined]
    count = held._count
    held_up = [held._submit(clerks._Turn.DECIDE, free.wait) for _ in range(count)]
    all_done = threading.Barrier(count)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clerks, "_FREE_WITHIN_S", 0.05)
        try:
            yield
        finally:
            free.set()
            wait([*held_up, *(held._submit(clerks._Turn.DECIDE, all_done.wait) for _ in range(count))])


def test_who_finds_no_free_clerk_is_refused_and_nothing_is_written(
    database: Database, shortkeys: Database, tmp_path: Path
) -> None:
    service = prepared(database, shortkeys, tmp_path)
    consent, question_id = service.consent(quota_per_month=1), new_id()
    with running(service):
        with all_clerks_held_up(service):
            assert slug_of(service.ask(consent, NEXT, question_id)) == "database-busy"
        with database.snapshot() as session:
            assert records.find(session, ConsentId(consent.consent_id), question_id) is None
        answer_in(service.ask(consent, NEXT, question_id))


def test_who_finds_no_free_clerk_after_the_checkpoint_is_told_so_and_may_ask_again(
    database: Database, shortkeys: Database, tmp_path: Path
) -> None:
    service = prepared(database, shortkeys, tmp_path)
    consent, question_id = service.consent(quota_per_month=1), new_id()

    def sign_once_none_is_free() -> Response:
        until(lambda: service.sequencer._waiting, "the question waits for its checkpoint")
        with all_clerks_held_up(service):
            service.sequencer.start()
            return asked.get(timeout=60)

    asked: Queue[Response] = Queue()
    with service.client:
        try:
            _, late = together(lambda: asked.put(service.ask(consent, NEXT, question_id)), sign_once_none_is_free)
            assert slug_of(late) == "log-busy"
            answer_in(service.ask(consent, NEXT, question_id))
        finally:
            service.sequencer.stop()
    with database.snapshot() as session:
        assert [kind for kind, _, _ in leaves(session)].count("answer") == 1


def test_who_only_waits_for_the_proof_goes_before_new_questions(tmp_path: Path) -> None:
    office, free, done = clerks.Clerks(Database(f"sqlite:///{tmp_path}/one-clerk")), threading.Event(), list[str]()
    office._submit(clerks._Turn.DECIDE, free.wait)
    tasks = [(clerks._Turn.DECIDE, "first"), (clerks._Turn.DECIDE, "second"), (clerks._Turn.PROVE, "begun before")]
    for turn, name in tasks:
        office._submit(turn, partial(done.append, name))
    free.set()
    office.close()
    assert done == ["begun before", "first", "second"]
