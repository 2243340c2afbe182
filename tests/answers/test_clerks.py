"""Questions that wait for their checkpoint hold no thread, and lose nothing if it does not come."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path

from tests.answer_kit import NEXT, Service, answer_in, running, slug_of
from tests.leaves import leaves
from vault.db import Database
from vault.proof.verify import verify_bundle
from vault.seal.ids import new_id


def prepared(database: Database, shortkeys: Database, tmp_path: Path) -> Service:
    service = Service(database, shortkeys, keyring=tmp_path / "keyring")
    service.release_model()
    service.put_rows("completejourney:bread")
    return service


def test_many_more_questions_than_threads_wait_for_one_checkpoint(
    database: Database, shortkeys: Database, tmp_path: Path
) -> None:
    service = prepared(database, shortkeys, tmp_path)
    consent, answers = service.consent(quota_per_month=100), []
    service.client.app.state.answer_desk = replace(service.desk(), checkpoint_wait_s=120)  # type: ignore[attr-defined]
    asking = [threading.Thread(target=lambda: answers.append(service.ask(consent, NEXT))) for _ in range(6)]
    deadline_s = time.monotonic() + 60
    with service.client:  # one event loop for all of them, as in the app
        for thread in asking:
            thread.start()
        while len(service.sequencer._waiting) < 6:
            assert time.monotonic() < deadline_s, "they wait for something else than the checkpoint"
            time.sleep(0.01)
        assert answers == []
        service.sequencer.start()
        for thread in asking:
            thread.join()
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
