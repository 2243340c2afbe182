"""kill -9 after an answer is committed and before it is sent: it is logged once, and asking again returns it."""

from __future__ import annotations

import os
import signal
from concurrent.futures import Future
from pathlib import Path

from tests.answer_kit import NEXT, Service, answer_in, running
from tests.leaves import leaves
from vault.db import Database
from vault.proof.verify import verify_bundle
from vault.seal.ids import new_id
from vault.tlog.log import PendingId
from vault.tlog.sequencer import Sequencer


class DeadlyWait(Sequencer):
    """Kills its process where an answer waits for its checkpoint: the transaction is over, nothing is sent."""

    def follow(self, pending_id: PendingId) -> Future[int]:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


def test_an_answer_committed_before_a_kill_is_returned_once_asked_again(
    database: Database, shortkeys: Database, tmp_path: Path
) -> None:
    service = Service(database, shortkeys, keyring=tmp_path / "keyring")
    service.release_model()
    service.put_rows("completejourney:bread")
    consent, question_id = service.consent(), new_id()
    database.close()
    shortkeys.close()
    child = os.fork()  # nothing runs beside this thread yet
    if child == 0:
        service.sequencer = DeadlyWait(database, service.log, service.log_key.sign)
        service.client.app.state.answer_desk = service.desk()  # type: ignore[attr-defined]  # FastAPI
        service.client.__enter__()
        service.sequencer.start()
        service.ask(consent, NEXT, question_id)
        os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGKILL
    with running(service):
        answer, bundle = answer_in(service.ask(consent, NEXT, question_id))
        assert verify_bundle(bundle, service.trust).failures == ()
        with database.snapshot() as session:
            logged = [personal for kind, _, personal in leaves(session) if kind == "answer"]
        assert len(logged) == 1
        assert logged[0] is not None
        assert logged[0]["at"] == answer.asked_at
        assert logged[0]["quota_left"] == consent.terms.quota_per_month - 1
