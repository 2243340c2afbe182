"""What is kept of answers: opened by the serving key alone, under its own name alone, until it is forgotten."""

from __future__ import annotations

from dataclasses import replace

import pytest
import sqlalchemy

from tests.answer_kit import NEXT, Service, answer_in, slug_of
from tests.leaves import leaves
from vault.answers import records
from vault.encoding import b64u
from vault.schema.answer import parse_answer
from vault.schema.question import QuestionKind
from vault.seal.errors import SealError
from vault.seal.ids import ConsentId, new_id, sha256
from vault.tlog.log import PendingId


def test_an_auditors_records_are_what_the_leaves_name(service: Service) -> None:
    consent = service.consent(questions=frozenset({QuestionKind.NEXT_CHOICE}), quota_per_month=1)
    answer, _ = answer_in(service.ask(consent))
    assert slug_of(service.ask(consent)) == "quota-spent"
    desk = service.desk()
    with service.database.snapshot() as session:
        named = {kind: personal for kind, _, personal in leaves(session) if kind in {"answer", "denial"}}
        ids = session.connection().execute(sqlalchemy.text("SELECT id FROM log_entry")).scalars()
        found = records.read(session, desk.serving, [PendingId(leaf) for leaf in ids])
    assert len(found) == 2
    for kept in found.values():
        leaf = named["answer" if kept.answer else "denial"]
        assert leaf is not None
        assert leaf["decision"] == b64u(sha256(kept.decision))
        assert leaf["question"] == b64u(sha256(kept.question))
        if kept.answer:
            assert parse_answer(kept.answer) == answer


def test_a_sealed_answer_opens_under_no_other_question_or_consent(quick: Service) -> None:
    consent, question_id = quick.consent(), new_id()
    answer_in(quick.ask(consent, NEXT, question_id))
    with quick.database.snapshot() as session:
        kept = records.find(session, ConsentId(consent.consent_id), question_id)
        assert records.find(session, ConsentId(consent.consent_id), new_id()) is None
        assert records.find(session, ConsentId(new_id()), question_id) is None
    assert kept is not None
    serving = quick.desk().serving
    assert parse_answer(kept.open(serving).answer).question_id == question_id
    flipped = kept.sealed[:-1] + bytes([kept.sealed[-1] ^ 1])
    for changed in (
        replace(kept, question_id=new_id()), replace(kept, consent_id=ConsentId(new_id())),
        replace(kept, sealed=flipped), replace(kept, sealed=b""),
    ):  # fmt: skip
        with pytest.raises(SealError):
            changed.open(serving)


def test_forgetting_leaves_nothing_of_a_consent_and_all_of_others(service: Service) -> None:
    gone, stays = service.consent(quota_per_month=1), service.consent()
    for consent in (gone, stays, gone):
        service.ask(consent)
    with service.database.transaction() as session:
        leaf_ids = records.forget(session, [ConsentId(gone.consent_id)])
    assert len(leaf_ids) == 2
    with service.database.snapshot() as session:
        left = session.connection().execute(sqlalchemy.text("SELECT consent_id FROM answer")).scalars().all()
        denied = session.connection().execute(sqlalchemy.text("SELECT count(*) FROM denial")).scalar_one()
    assert [bytes(consent) for consent in left] == [stays.consent_id]
    assert denied == 0
