"""The events of a consent: none can be hidden, dated back, or told otherwise than the rules decide."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.answer_kit import NEXT, OFFER
from tests.answers.test_guards import another_company
from tests.audit_kit import Audited, bodies, closed, failed, leaf_of, verify, without
from tests.consent_kit import NOW
from tests.proof.forge import Forge
from tests.twin.worker_kit import RETAIL
from vault.answers import records
from vault.clock import unix_s
from vault.consent.events import record_event
from vault.encoding import b64u, parse_json
from vault.oauth.named import REQUESTED_STATE
from vault.parties import companies
from vault.parties.companies import CompanyId, CompanyStatus
from vault.proof.bundle import Bundle, records_by_hash
from vault.proof.established import SKEW_S
from vault.proof.leaf import LeafKind
from vault.proof.verify import Step
from vault.schema.category import parse_purpose
from vault.schema.consent import ConsentVersion
from vault.seal.ids import ConsentId
from vault.tlog import log
from vault.twin import release
from vault.twin.reader import closed_form_manifest


def test_a_hidden_withdrawal_is_named(quick: Audited) -> None:
    consent = quick.live()
    bundle = quick.bundle()
    withdrawal = leaf_of(bundle, LeafKind.CONSENT, consent=b64u(consent.consent_id), version=3)
    denial = leaf_of(bundle, LeafKind.DENIAL, place=-1, consent=b64u(consent.consent_id))
    left_out = failed(verify(quick, without(bundle, withdrawal)))
    assert {(Step.OPENINGS, withdrawal.index), (Step.ORDER, denial.index)} <= left_out
    shut = failed(verify(quick, closed(bundle, withdrawal)))
    assert {(Step.ERASURE, withdrawal.index), (Step.ORDER, denial.index)} <= shut


def test_a_request_to_renew_is_a_link_of_the_consents_chain(quick: Audited) -> None:
    consent = ConsentId(quick.service.give().consent_id)
    asked = {"grantee": "A" * 22, "at": 0, "record": b64u(bytes(32))}
    with quick.service.database.transaction() as session:
        record_event(session, consent, LeafKind.CONSENT_REQUEST, {"event_state": REQUESTED_STATE}, asked)
        record_event(session, consent, LeafKind.DENIAL, {"period": "2026-11"}, {"rules": [], "at": unix_s(NOW)})
    quick.settle()
    bundle = quick.bundle()
    assert verify(quick, bundle).failures == ()
    request = leaf_of(bundle, LeafKind.CONSENT_REQUEST)
    after = leaf_of(bundle, LeafKind.DENIAL, place=-1)
    lies = {Step.OPENINGS: without(bundle, request), Step.ERASURE: closed(bundle, request)}
    for step, lie in lies.items():
        assert {(step, request.index), (Step.ORDER, after.index)} <= failed(verify(quick, lie))


def test_hiding_the_end_of_a_consent_is_named(quick: Audited) -> None:
    """Nothing follows, so no number shows a gap: the leaf itself must be there and open."""
    consent = quick.live()
    bundle = quick.bundle()
    last = [
        leaf_of(bundle, LeafKind.CONSENT, consent=b64u(consent.consent_id), version=3),
        leaf_of(bundle, LeafKind.DENIAL, place=-1, consent=b64u(consent.consent_id)),
    ]
    assert {(Step.ERASURE, leaf.index) for leaf in last} <= failed(verify(quick, closed(bundle, *last)))


def _again(site: Audited, consent: ConsentVersion, kind: LeafKind, **changed: Any) -> int:
    """Let the service itself log a copy of a consent's first event of a kind with its personal half changed."""
    first = leaf_of(site.bundle(), kind, consent=b64u(consent.consent_id))
    assert first.personal is not None
    public, personal = parse_json(first.public.body), parse_json(first.personal.body)
    del public["kind"]
    with site.service.database.transaction() as session:
        pending = record_event(session, ConsentId(consent.consent_id), kind, public, personal | changed)
    return site.service.sequencer.wait(pending.id, 20)


def test_a_service_that_lies_about_why_it_denied_is_named(quick: Audited) -> None:
    consent = quick.live()
    for rules in (["purpose-not-covered"], [], ["not-spent"], "quota-spent"):
        index = _again(quick, consent, LeafKind.DENIAL, rules=rules)
        assert failed(verify(quick, quick.bundle())) >= {(Step.DECISION, index)}


def test_a_service_that_answers_whom_it_may_not_is_named_without_question_and_answer(quick: Audited) -> None:
    consent = quick.service.consent(quota_per_month=9)
    assert quick.service.ask(consent).status_code == 200
    quick.settle()
    assert failed(verify(quick, quick.bundle())) == set()
    honest = _again(quick, consent, LeafKind.ANSWER, quota_left=7)
    assert failed(verify(quick, quick.bundle())) == set(), "a copy alone is no lie that the leaves show"
    to_another = _again(quick, consent, LeafKind.ANSWER, quota_left=6, requester="B" * 22)
    at_another_time = _again(quick, consent, LeafKind.ANSWER, quota_left=5, at=1_795_435_201)
    overdrawn = _again(quick, consent, LeafKind.ANSWER, quota_left=9)
    with quick.service.database.transaction() as session:
        companies.set_status(session, CompanyId(quick.service.company.company_id), CompanyStatus.SUSPENDED, now=NOW)
    suspended = _again(quick, consent, LeafKind.ANSWER, quota_left=3)
    quick.service.withdraw(consent)
    ended = _again(quick, consent, LeafKind.ANSWER, quota_left=2)
    found = failed(verify(quick, quick.bundle()))
    assert {
        (Step.DECISION, to_another), (Step.DECISION, at_another_time), (Step.QUOTA, overdrawn),
        (Step.DECISION, suspended), (Step.ORDER, ended),
    } <= found  # fmt: skip
    assert honest not in {index for _, index in found}
    alone = quick.bundle(suspended, suspended)
    assert (Step.DECISION, suspended) in failed(verify(quick, alone)), "the suspension lies before the range"


def test_an_answer_dated_back_or_inserted_late_is_named(quick: Audited) -> None:
    consent = quick.live()
    with quick.service.database.transaction() as session:
        late = record_event(
            session,
            ConsentId(consent.consent_id),
            LeafKind.DENIAL,
            {"period": "2026-11"},
            {"rules": [], "at": unix_s(NOW) - 301},
        )
    index = quick.service.sequencer.wait(late.id, 20)
    assert failed(verify(quick, quick.bundle())) == {(Step.TIME, index)}


def test_every_answer_is_counted_one_by_one(quick: Audited) -> None:
    """A number that stands still or jumps would let a service answer more often than it says."""
    consent = quick.service.consent(quota_per_month=9)
    for _ in range(2):
        assert quick.service.ask(consent).status_code == 200
    quick.settle()
    assert failed(verify(quick, quick.bundle())) == set()
    for counted in (7, 4):  # twice the same, then two left out
        index = _again(quick, consent, LeafKind.ANSWER, quota_left=counted)
        assert (Step.QUOTA, index) in failed(verify(quick, quick.bundle()))
    alone = verify(quick, quick.bundle(index, index))
    assert Step.QUOTA not in {step for step, _ in failed(alone)}, "what went before is not shown"


def _decided_anew(site: Audited, index: int, **context: int) -> Bundle:
    """Return the log with one decision made on other facts, signed anew."""
    bundle = site.bundle()
    forge = Forge.of(site.service, bundle)
    event = forge.events[index]
    said: Any = parse_json(forge.named(event.personal, "decision"))["context"]
    forge.swap_json(event.personal, "decision", context=said | context)
    return replace(forge.bundle(whole=True), withheld=bundle.withheld)


def test_a_denial_tells_what_was_left_when_it_was_decided(quick: Audited) -> None:
    """A quota said to be spent is told apart from one that is; how others were answered meanwhile is not."""
    service = quick.service
    consent = service.consent(quota_per_month=3)
    assert service.ask(consent).status_code == 200
    service.clock.at += timedelta(hours=1)
    assert service.ask(consent).status_code == 200
    assert service.ask(consent, replace(NEXT, purpose=parse_purpose("dpv:Advertising"))).status_code == 403
    service.clock.at = NOW
    quick.settle()
    bundle = quick.bundle()
    assert verify(quick, bundle).failures == ()
    denial = leaf_of(bundle, LeafKind.DENIAL).index
    for left, told in {0: True, 1: False, 2: False, 3: True}.items():
        report = verify(quick, _decided_anew(quick, denial, quota_left=left, agent_quota_left=left))
        assert ((Step.DECISION, denial) in failed(report)) is told, left


def test_the_question_of_a_denial_is_checked_where_it_is_shown(quick: Audited) -> None:
    service = quick.service
    consent = service.consent(quota_per_month=1)
    assert [service.ask(consent).status_code, service.ask(consent, OFFER).status_code] == [200, 429]
    quick.settle()
    bundle, desk = quick.bundle(), service.client.app.state.answer_desk  # type: ignore[attr-defined]  # FastAPI
    with service.database.snapshot() as session:
        kept = [
            one for leaf in log.find(session) for one in records.read(session, desk.serving, [leaf.pending_id]).values()
        ]
    answered, refused = kept
    denial = leaf_of(bundle, LeafKind.DENIAL)
    shown = {**bundle.records, **records_by_hash([refused.question])}
    report = verify(quick, replace(bundle, records=shown))
    assert (report.failures, report.checked[Step.QUESTION]) == ((), 1)
    forge = Forge.of(service, replace(bundle, records=shown))
    event = forge.events[denial.index]
    for other in (answered.question, refused.question.replace(b'"jws":"ey', b'"jws":"fy')):
        forge.swap(event.personal, "question", other)
        lie = replace(forge.bundle(whole=True), withheld=bundle.withheld)
        assert (Step.QUESTION, denial.index) in failed(verify(quick, lie))


def test_a_clock_that_lags_over_the_end_of_a_month_counts_on(quick: Audited) -> None:
    service = quick.service
    consent = service.consent(quota_per_month=9)
    begins = datetime(2026, 12, 1, tzinfo=UTC)
    for at in (NOW, begins + timedelta(seconds=30), begins - timedelta(seconds=30), begins + timedelta(seconds=31)):
        service.clock.at = at
        assert service.ask(consent).status_code == 200
    service.clock.at = NOW
    quick.settle()
    bundle = quick.bundle()
    left = [parse_json(body)["quota_left"] for body in bodies(bundle) if b"quota_left" in body]
    assert left == [8, 8, 7, 6]
    assert verify(quick, bundle).failures == ()


def test_an_agent_s_smaller_quota_is_counted_too(quick: Audited) -> None:
    service = quick.service
    service.company = another_company(service, agent=1)
    consent = service.consent(agent_allowed=True, quota_per_month=50)
    for _ in range(2):
        assert service.ask(consent).status_code == 200
    quick.settle()
    assert verify(quick, quick.bundle()).failures == ()
    answer = leaf_of(quick.bundle(), LeafKind.ANSWER).index
    assert (Step.DECISION, answer) in failed(verify(quick, _decided_anew(quick, answer, agent=0)))
    index = _again(quick, consent, LeafKind.ANSWER, quota_left=47)
    assert (Step.QUOTA, index) in failed(verify(quick, quick.bundle()))


def test_a_model_that_was_withdrawn_answers_no_more(quick: Audited) -> None:
    service = quick.service
    consent = service.consent(quota_per_month=9)
    assert service.ask(consent).status_code == 200
    manifest = closed_form_manifest(RETAIL)
    with service.database.transaction() as session:
        release.withdraw(session, manifest.digest, "It was refuted.", now=NOW)
    assert service.ask(consent).json()["type"].endswith("no-certified-model")
    just_then = _again(quick, consent, LeafKind.ANSWER, quota_left=7, at=unix_s(NOW) + SKEW_S)
    assert Step.CERTIFICATE not in {step for step, _ in failed(verify(quick, quick.bundle()))}
    later = _again(quick, consent, LeafKind.ANSWER, quota_left=6, at=unix_s(NOW) + SKEW_S + 1)
    found = failed(verify(quick, quick.bundle()))
    assert {index for step, index in found if step is Step.CERTIFICATE} == {later} != {just_then}
    assert (Step.CERTIFICATE, later) in failed(verify(quick, quick.bundle(later, later))), "it lies before the range"
