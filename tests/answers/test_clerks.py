"""Questions that wait for their checkpoint hold no thread, and lose nothing if it does not come."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tests.answer_kit import NEXT, Service, answer_in, running, slug_of
from tests.leaves import leaves
from tests.waiting import together, until
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
