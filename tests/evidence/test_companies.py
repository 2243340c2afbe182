"""A company's keys are replaced by the company alone: every record from its first on is shown, each signed by the key before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.answer_kit import ISSUER, NEXT, slug_of
from tests.audit_kit import Audited, failed, kind_of, leaf_of, verify
from tests.company_kit import new_key, public
from tests.proof.forge import Forge, Told
from tests.verifying import verify_both
from vault.answers import ask as asking
from vault.answers import records
from vault.answers.floods import ALONE
from vault.encoding import parse_b64u, parse_json
from vault.parties import companies
from vault.proof.bundle import Bundle, parse_bundle, records_by_hash
from vault.proof.established import Carried
from vault.proof.leaf import LeafKind
from vault.proof.report import Step
from vault.schema.category import parse_purpose
from vault.schema.question import Question
from vault.seal.ids import new_id
from vault.tlog import log


def rotated(site: Audited, version: int = 2, key: Any = None, **changed: Any) -> str:
    """Let the company sign its next record, with a new question key or the one that is given; return that record."""
    company, now = site.service.company, site.service.clock.at
    signer, company.question = company.question, key or new_key()
    record = company.record(now, version=version, signer=signer, **changed)
    with site.service.database.transaction() as session:
        companies.rotate(session, record, now=now)
    return record


def changed_keys(site: Audited) -> tuple[Bundle, Bundle]:
    """Ask, change keys twice, ask again; return what the company is shown of its last answer, and the auditor of all."""
    consent = site.service.consent()
    assert site.service.ask(consent).status_code == 200
    rotated(site)
    rotated(site, 3)
    question = new_id()
    given = site.service.ask(consent, question_id=question)
    assert given.status_code == 200, given.text
    site.settle()
    return parse_bundle(given.content), site.bundle()


def signed_anew(site: Audited, bundle: Bundle, change: Callable[[Forge], None]) -> tuple[Forge, Bundle]:
    forge = Forge.of(site.service, bundle)
    change(forge)
    return forge, replace(forge.bundle(whole=True), withheld=bundle.withheld)


def put_by_thief(site: Audited) -> Callable[[Forge], None]:
    """Return what puts a fourth record in force that a thief signed, with the thief's key."""
    company, thief = site.service.company, new_key()
    record = company.record(site.service.clock.at, version=4, signer=thief, question_key=public(thief)).encode()

    def put(forge: Forge) -> None:
        said = {"company": company.company_id, "version": 4, "record_sha256": ""}
        forge.events.append(Told(LeafKind.COMPANY, said, {}, opened=False))
        forge.swap(said, "record_sha256", record)

    return put


def told_as(agent: int) -> Callable[[Forge], None]:
    """Return what has the last answer decided about an agent, or about none."""

    def tell(forge: Forge) -> None:
        event = forge.event(LeafKind.ANSWER)
        context = parse_json(forge.named(event.personal, "decision"))["context"]
        forge.swap_json(event.personal, "decision", context={**context, "agent": agent})  # type: ignore[dict-item]

    return tell


def asked_with(key: Any, site: Audited) -> Callable[[Forge], None]:
    """Return what has the last answered question signed by another key."""

    def sign(forge: Forge) -> None:
        said = forge.event(LeafKind.ANSWER).personal
        signed = forge.named(said, "question")
        consent, question, body = map(parse_b64u, (said["consent"], said["question_id"], parse_json(signed)["body"]))
        jws = site.service.company.signed_question(ISSUER, consent, question, body, site.service.clock.at, key=key)
        forge.swap_json(said, "question", jws=jws)
        forge.records = {name: record for name, record in forge.records.items() if record != signed}

    return sign


def versions(bundle: Bundle) -> list[int]:
    """Return which of a company's records are shown beside their leaves."""
    said = [parse_json(leaf.public.body) for leaf in bundle.leaves if kind_of(leaf) == LeafKind.COMPANY]
    return [int(str(one["version"])) for one in said if parse_b64u(one["record_sha256"]) in bundle.records]


def test_every_record_of_a_company_is_shown_to_who_verifies_its_questions(quick: Audited) -> None:
    answer, month = changed_keys(quick)
    assert versions(answer) == versions(month) == [1, 2, 3]
    assert failed(verify(quick, answer)) == failed(verify(quick, month)) == set()
    last = leaf_of(month, LeafKind.COMPANY, 2).index
    later = quick.bundle(last + 1)  # a range after all of them
    assert versions(later) == [1, 2, 3]
    assert failed(verify(quick, later)) == set()
    only = quick.bundle(last, last)  # nobody asked in it
    assert versions(only) == [1, 2, 3]
    assert failed(verify(quick, only)) == set()


def test_a_record_that_the_key_before_did_not_sign_fails(quick: Audited) -> None:
    """The service puts its own key in the company's place: with it, it could ask what the company never asked."""
    _, month = changed_keys(quick)
    forge, bundle = signed_anew(quick, month, put_by_thief(quick))
    assert failed(verify_both(bundle, quick.service.trust)) == {(Step.RECORDS, len(forge.events) - 1)}


def test_a_record_that_is_not_shown_fails_with_what_rests_on_it(quick: Audited) -> None:
    _, month = changed_keys(quick)
    second = leaf_of(month, LeafKind.COMPANY, 1)
    digest = parse_b64u(parse_json(second.public.body)["record_sha256"])
    kept = {name: data for name, data in month.records.items() if name != digest}
    later = leaf_of(month, LeafKind.COMPANY, 2).index
    found = failed(verify(quick, replace(month, records=kept)))
    assert {(Step.RECORDS, second.index), (Step.RECORDS, later)} <= found


def test_a_leaf_of_a_company_that_is_left_out_before_the_range_fails(quick: Audited) -> None:
    changed_keys(quick)
    month = quick.bundle()
    first, last = leaf_of(month, LeafKind.COMPANY, 0), leaf_of(month, LeafKind.COMPANY, 2)
    later = quick.bundle(last.index + 1)
    gone = tuple(leaf for leaf in later.leaves if leaf.index != first.index)
    record = parse_b64u(parse_json(first.public.body)["record_sha256"])
    kept = {name: data for name, data in later.records.items() if name != record}
    found = failed(verify(quick, replace(later, leaves=gone, records=kept)))
    assert (Step.RECORDS, leaf_of(month, LeafKind.COMPANY, 1).index) in found


def test_a_part_that_hides_a_later_record_than_the_one_before_fails(quick: Audited) -> None:
    _, month = changed_keys(quick)
    last = leaf_of(month, LeafKind.COMPANY, 2)
    before, after = quick.bundle(0, last.index), quick.bundle(last.index + 1)
    record = parse_b64u(parse_json(last.public.body)["record_sha256"])
    hidden = replace(
        after,
        leaves=tuple(leaf for leaf in after.leaves if leaf.index != last.index),
        records={name: data for name, data in after.records.items() if name != record},
    )
    for shown, expected in ((after, set()), (hidden, {(Step.RECORDS, None)})):
        carried = Carried()
        assert failed(verify_both(before, quick.service.trust, carried)) == set()
        assert failed(verify_both(shown, quick.service.trust, carried)) == expected


@pytest.mark.parametrize("agent", [0, 1])
def test_an_agent_that_registered_as_one_later_is_told_as_one(quick: Audited, agent: int) -> None:
    consent = quick.service.consent(agent_allowed=True)
    rotated(quick, agent=1)
    assert quick.service.ask(consent).status_code == 200
    quick.settle()
    month = quick.bundle()
    forge, bundle = signed_anew(quick, month, told_as(agent))
    found = failed(verify_both(bundle, quick.service.trust))
    assert ((Step.DECISION, forge.index(LeafKind.ANSWER)) in found) == (not agent)


def changed_before(step: str, site: Audited, monkeypatch: pytest.MonkeyPatch, key: Any = None, **changed: Any) -> None:
    """Let the company's next record come into force when the service is about to commit what it decided, once."""
    does = getattr(asking, step)

    def change_first(*arguments: Any) -> Any:
        monkeypatch.setattr(asking, step, does)
        rotated(site, key=key, **changed)
        return does(*arguments)

    monkeypatch.setattr(asking, step, change_first)


def shown(site: Audited, month: Bundle) -> Bundle:
    """Return the month with the questions and answers that its companies hold, for whoever they show them to."""
    desk = site.service.client.app.state.answer_desk  # type: ignore[attr-defined]  # FastAPI
    with site.service.database.snapshot() as session:
        leaves = [leaf.pending_id for leaf in log.find(session, limit=1_000)]
        kept = records.read(session, desk.serving, leaves).values()
    held = [record for one in kept for record in (one.answer, one.question) if record]
    return replace(month, records={**month.records, **records_by_hash(held)}, withheld=frozenset())


def kinds(site: Audited) -> list[LeafKind]:
    site.settle()
    with site.service.database.snapshot() as session:
        return [leaf.kind for leaf in log.find(session, limit=1_000)]


FORBIDDEN = replace(NEXT, purpose=parse_purpose("dpv:Advertising"))
STEPS = [
    pytest.param("_commit", NEXT, 200, id="answer"),
    pytest.param("_log_denial", FORBIDDEN, 403, id="denial"),
]


@pytest.mark.parametrize(("step", "question", "status"), STEPS)
def test_what_was_decided_under_a_replaced_record_is_asked_anew(
    site: Audited, monkeypatch: pytest.MonkeyPatch, step: str, question: Question, status: int
) -> None:
    """Logged after the next record, it would be a question that the company's key in force never signed."""
    consent, question_id = site.service.consent(), new_id()
    changed_before(step, site, monkeypatch, agent=1)
    assert slug_of(site.service.ask(consent, question, question_id)) == "bad-question-signature"
    assert not {LeafKind.ANSWER, LeafKind.DENIAL} & {*kinds(site)}
    rotated(site, 3, agent=0)
    assert site.service.ask(consent, question, question_id).status_code == status
    site.settle()
    report = verify(site, shown(site, site.bundle()))
    assert (report.failures, report.checked[Step.QUESTION]) == ((), 1)


@pytest.mark.parametrize(("step", "question", "status"), STEPS)
def test_a_record_with_the_same_key_decides_the_question_again(
    site: Audited, monkeypatch: pytest.MonkeyPatch, step: str, question: Question, status: int
) -> None:
    consent = site.service.consent(agent_allowed=True)
    changed_before(step, site, monkeypatch, key=site.service.company.question, agent=1)
    assert site.service.ask(consent, question).status_code == status
    logged = kinds(site)
    event = LeafKind.ANSWER if status == 200 else LeafKind.DENIAL
    assert logged.index(event) > max(at for at, kind in enumerate(logged) if kind is LeafKind.COMPANY)
    report = verify(site, shown(site, site.bundle()))
    assert (report.failures, report.checked[Step.QUESTION]) == ((), 1)


def test_denials_that_wait_for_their_minute_are_logged_before_the_next_record(site: Audited) -> None:
    consent = site.service.consent()
    for _ in range(ALONE + 2):
        assert site.service.ask(consent, FORBIDDEN).status_code == 403
    rotated(site, agent=1)
    logged = kinds(site)
    assert logged.index(LeafKind.DENIALS) < max(at for at, kind in enumerate(logged) if kind is LeafKind.COMPANY)
    report = verify(site, site.bundle())
    assert (report.failures, report.checked[Step.DECISION]) == ((), ALONE + 2)


def test_a_key_that_a_company_replaced_signs_no_later_question(quick: Audited) -> None:
    """It may be stolen, and the service may be the thief."""
    service, consent, stolen = quick.service, quick.service.consent(), quick.service.company.question
    rotated(quick)
    assert service.ask(consent).status_code == 200
    quick.settle()
    month = shown(quick, quick.bundle())
    assert failed(verify(quick, month)) == set()
    forge, bundle = signed_anew(quick, month, asked_with(stolen, quick))
    assert failed(verify_both(bundle, service.trust)) == {(Step.QUESTION, forge.index(LeafKind.ANSWER))}
