"""A whole log, built through the domains' own verbs, verifies offline; every lie about it is named."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.answer_kit import NEXT
from tests.audit_kit import Audited
from tests.clients.test_witness import listening
from tests.consent_kit import NOW, PURPOSE
from tests.leaves import leaves
from tests.proof.test_certificate import _manifest
from tests.twin.worker_kit import RETAIL
from twinvault.witness import Witness
from vault.answers import records
from vault.clock import unix_s
from vault.consent import changes, consents
from vault.consent.events import record_event
from vault.encoding import b64u, dump_json, parse_b64u, parse_json
from vault.evidence.auditors import BadAuditor, Scope, register_auditor
from vault.oauth.named import REQUESTED_STATE
from vault.parties import companies
from vault.parties.companies import CompanyId, CompanyStatus
from vault.proof.bundle import Bundle, LoggedLeaf, Withheld, dump_bundle, parse_bundle, records_by_hash
from vault.proof.checkpoint import verify_checkpoint
from vault.proof.established import Carried
from vault.proof.leaf import LeafKind
from vault.proof.note import parse_note
from vault.proof.tombstone import is_tombstone
from vault.proof.verify import Report, Step, verify_bundle
from vault.proof.witness import Witnessed, WitnessPolicy, cosign
from vault.schema.consent import ConsentVersion
from vault.schema.question import dump_question
from vault.seal.dsse import PayloadType, parse_envelope, sign_record
from vault.seal.ids import ConsentId
from vault.seal.signing import SigningKey, new_seed
from vault.tlog import log
from vault.tlog.models import log_entry
from vault.tlog.witnesses import Witnesses, WitnessPlan, WitnessSite
from vault.twin import release
from vault.twin.reader import closed_form

OPENED = {"consent", "answer", "denial"}


def verify(site: Audited, bundle: Bundle) -> Report:
    return verify_bundle(parse_bundle(dump_bundle(bundle)), site.service.trust)


def kind_of(leaf: LoggedLeaf) -> str:
    return str(parse_json(leaf.public.body)["kind"])


def leaf_of(bundle: Bundle, kind: LeafKind, place: int = 0, **personal: str | int) -> LoggedLeaf:
    """Return one leaf of a kind whose personal half says this."""
    found = [leaf for leaf in bundle.leaves if kind_of(leaf) == kind]
    said = [
        leaf for leaf in found if personal.items() <= (parse_json(leaf.personal.body) if leaf.personal else {}).items()
    ]
    return said[place]


def without(bundle: Bundle, *gone: LoggedLeaf) -> Bundle:
    return replace(bundle, leaves=tuple(leaf for leaf in bundle.leaves if leaf not in gone))


def closed(bundle: Bundle, *hidden: LoggedLeaf) -> Bundle:
    """Keep the leaves but not what opens their personal halves."""
    shown = (replace(leaf, personal=None) if leaf in hidden else leaf for leaf in bundle.leaves)
    return replace(bundle, leaves=tuple(shown))


def failed(report: Report) -> set[tuple[Step, int | None]]:
    return {(failure.step, failure.leaf_index) for failure in report.failures}


def test_a_whole_log_verifies(site: Audited) -> None:
    site.live()
    bundle = site.bundle()
    report = verify(site, bundle)
    assert report.failures == ()
    assert report.leaves == bundle.complete_to == len(bundle.leaves)
    assert bundle.complete_from == 0
    for step in set(Step) - {
        Step.BUNDLE,
        Step.ERASURE,
        Step.WITNESSES,
    }:  # nothing was erased, the pinned keys name no witness
        withheld = step in {Step.ANSWER, Step.QUESTION}
        assert (report.checked.get(step, 0), report.withheld.get(step, 0)) > ((0, 2) if withheld else (0, 0)), step
    assert report.withheld == {Step.ANSWER: 3, Step.QUESTION: 3}
    assert Step.ANSWER not in report.checked
    assert report.checked[Step.DECISION] == 5, "three answers and the two denials that were decided"


def test_no_vault_no_question_and_no_answer_is_shown(site: Audited) -> None:
    site.live()
    service = site.service
    found = site.bundle()
    data = b"\n".join([dump_bundle(found), *found.records.values(), *_bodies(found)])
    asked = dump_json(dump_question(NEXT))
    with service.database.snapshot() as session:
        answers = [personal for kind, _, personal in leaves(session) if kind == "answer"]
    assert len(answers) == 3
    for secret in (
        b64u(service.owner.vault).encode(), service.owner.vault, service.owner.vault.hex().encode(),
        asked, b64u(asked).encode(), b'"top_n"', b"twinvault-answer/1", b"predictions", b"score_ppm",
        b"completejourney", b"bread",
    ):  # fmt: skip
        assert secret not in data, secret
    shown = {kind_of(leaf) for leaf in found.leaves if leaf.personal is not None}
    assert shown == OPENED
    assert not any("vault" in body for body in map(parse_json, _bodies(found)))
    assert str(PURPOSE).encode() in data, "the scan looks at what was really sent"


def _bodies(bundle: Bundle) -> list[bytes]:
    return [leaf.personal.body for leaf in bundle.leaves if leaf.personal is not None]


def test_a_part_of_the_log_verifies_with_the_versions_before_it(quick: Audited) -> None:
    consent = quick.live()
    whole = quick.bundle()
    second = leaf_of(whole, LeafKind.ANSWER, place=-1, consent=b64u(consent.consent_id))
    found = quick.bundle(second.index, second.index)
    assert (found.complete_from, found.complete_to) == (second.index, second.index + 1)
    assert verify(quick, found).failures == ()
    before = [kind_of(leaf) for leaf in found.leaves if leaf.index < second.index]
    assert before.count("consent") == 2
    assert {"key", "manifest", "policy-set"} <= set(before)
    assert before.count("answer") == 0


def test_a_removed_leaf_is_named(quick: Audited) -> None:
    quick.live()
    bundle = quick.bundle()
    for kind in (LeafKind.CONSENT, LeafKind.ANSWER, LeafKind.RING_HEAD):
        gone = leaf_of(bundle, kind)
        assert (Step.OPENINGS, gone.index) in failed(verify(quick, without(bundle, gone)))


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


def erase_all(site: Audited) -> None:
    """Forget everything about the owner that auditors are shown, as erasing a person does."""
    vault = site.service.owner.vault
    with site.service.database.transaction() as session:
        about = [leaf.pending_id for leaf in log.find(session, about=vault, limit=1_000)]
        records.forget(session, [consent.consent_id for consent in consents.list_for(session, vault)])
        changes.forget(session, vault)
        log.delete_personal_openings(session, about)


def test_erased_openings_have_tombstones_and_every_other_proof_stays(site: Audited) -> None:
    consent = site.live()
    before = site.bundle()
    erase_all(site)
    found = site.bundle(0, before.complete_to - 1)
    erased = {leaf.index for leaf in before.leaves if leaf.personal is not None} - {_unlinked(found)}
    assert erased == {leaf.index for leaf in found.leaves if kind_of(leaf) in OPENED and leaf.personal is None}
    report = verify(site, found)
    assert report.failures == ()
    assert report.checked[Step.ERASURE] == len(erased) > 5
    data = dump_bundle(found)
    assert b64u(consent.consent_id).encode() in b"".join(_bodies(before))
    assert not any(text.encode() in data for text in (b64u(consent.consent_id), b64u(consent.subject)))
    # The next bundle needs no group of its own, and a later erasure makes another one.
    assert verify(site, site.bundle(0, before.complete_to - 1)).failures == ()
    with site.service.database.snapshot() as session:
        groups = [public for kind, public, _ in leaves(session) if kind == "tombstones"]
    assert len(groups) == 1
    assert groups[0]["count"] >= len(erased)


def _unlinked(bundle: Bundle) -> int:
    """Return the denial of a question under a consent that does not exist: it concerns nobody."""
    return next(leaf.index for leaf in bundle.leaves if kind_of(leaf) == "denial" and leaf.personal is not None)


def _other_leaf(record: bytes) -> bytes:
    return re.sub(rb'"leaf":(\d+)', lambda found: b'"leaf":%d' % (int(found[1]) + 1), record)


@pytest.mark.parametrize(
    "change",
    [
        lambda record: b"",
        _other_leaf,
        lambda record: re.sub(rb'"position":\d+', b'"position":0', record),
        lambda record: re.sub(rb'"size":\d+', b'"size":99', record),
        lambda record: re.sub(rb'"salt":"[^"]{43}', b'"salt":"' + b64u(bytes(32)).encode(), record),
        lambda record: re.sub(rb'"group":\d+', b'"group":0', record),
        lambda record: record.replace(b'"path":[', b'"path":["",'),
        lambda record: record.replace(b'"salt"', b'"salts"'),
        lambda record: record[:-1],
    ],
    ids=["missing", "leaf", "position", "size", "salt", "group", "path", "field", "cut"],
)
def test_a_tombstone_that_does_not_hold_accounts_for_nothing(quick: Audited, change: Callable[[bytes], bytes]) -> None:
    quick.live()
    erase_all(quick)
    found = quick.bundle()
    assert failed(verify(quick, found)) == set()
    forged = [change(record) if is_tombstone(record) else record for record in found.records.values()]
    failures = failed(verify(quick, replace(found, records=records_by_hash(forged))))
    assert Step.ERASURE in {step for step, _ in failures} <= {Step.ERASURE, Step.RECORDS}
    assert len(failures) >= len([record for record in found.records.values() if is_tombstone(record)]) - 1


def test_a_group_that_is_not_in_the_log_accounts_for_nothing(quick: Audited) -> None:
    quick.live()
    last = quick.size() - 1
    erase_all(quick)
    found = quick.bundle(0, last)
    group = leaf_of(found, LeafKind.TOMBSTONES)
    assert group.index > last
    failures = failed(verify(quick, without(found, group)))
    assert Step.ERASURE in {step for step, _ in failures} <= {Step.ERASURE, Step.RECORDS}


def test_nothing_is_erased_without_a_tombstone(quick: Audited) -> None:
    quick.live()
    erase_all(quick)
    with quick.service.database.snapshot() as session:
        query = "SELECT count(*) FROM log_opening LEFT JOIN log_tombstone USING (entry_id)"
        bare = session.connection().exec_driver_sql(f"{query} WHERE personal_salt IS NULL AND salt IS NULL")
        assert bare.scalar_one() == 0


def _resigned_manifest(bundle: Bundle) -> Bundle:
    forger = SigningKey(new_seed())
    records = [
        sign_record(PayloadType.MANIFEST, parse_json(parse_envelope(record).payload), forger).encoded
        if PayloadType.MANIFEST.encode() in record[:40]
        else record
        for record in bundle.records.values()
    ]
    return replace(bundle, records=records_by_hash(records))


def _swapped_policy_set(bundle: Bundle) -> Bundle:
    records = [
        record.replace(b"context.now >= context.consent.not_after", b"context.now >= 9000000000000000")
        for record in bundle.records.values()
    ]
    return replace(bundle, records=records_by_hash(records))


def _changed_decision(bundle: Bundle) -> Bundle:
    records = [re.sub(rb'"quota_left":\d+', b'"quota_left":77', record) for record in bundle.records.values()]
    return replace(bundle, records=records_by_hash(records))


@pytest.mark.parametrize(
    ("forge", "step"),
    [(_resigned_manifest, Step.CERTIFICATE), (_swapped_policy_set, Step.DECISION), (_changed_decision, Step.DECISION)],
)
def test_an_exchanged_record_is_named_at_every_answer(
    quick: Audited, forge: Callable[[Bundle], Bundle], step: Step
) -> None:
    quick.live()
    bundle = quick.bundle()
    forged = forge(bundle)
    assert set(forged.records) != set(bundle.records)
    answers = {(step, leaf.index) for leaf in bundle.leaves if kind_of(leaf) == "answer"}
    assert answers <= failed(verify(quick, forged))


def test_what_is_withheld_must_be_announced(quick: Audited) -> None:
    quick.live()
    bundle = quick.bundle()
    assert bundle.withheld == {Withheld.ANSWER, Withheld.QUESTION}
    silent = verify(quick, replace(bundle, withheld=frozenset()))
    answers = [leaf.index for leaf in bundle.leaves if kind_of(leaf) == "answer"]
    assert {(Step.ANSWER, index) for index in answers} <= failed(silent)


def test_an_answer_that_says_it_is_withheld_is_no_receipt(quick: Audited) -> None:
    """A company's bundle with its answer record taken out and announced as withheld counts nothing as checked."""
    consent = quick.service.consent()
    bundle = parse_bundle(quick.service.ask(consent).content)
    assert bundle.withheld == frozenset()
    records = [record for record in bundle.records.values() if b"twinvault-answer/1" not in record]
    stripped = replace(bundle, records=records_by_hash(records), withheld=frozenset({Withheld.ANSWER}))
    report = verify(quick, stripped)
    assert (report.checked.get(Step.ANSWER, 0), report.withheld[Step.ANSWER]) == (0, 1)


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


def test_ended_and_never_registered_auditors_are_refused(site: Audited) -> None:
    stranger, ended = SigningKey(new_seed()), SigningKey(new_seed())
    site.register(ended, days=-1)
    site.settle()
    for signer in (stranger, ended):
        assert site.send(site.request(signer=signer)).status_code == 403
    site.register(ended, days=1)
    assert site.send(site.request(signer=ended)).status_code == 200
    site.register(ended, days=0)
    assert site.send(site.request(signer=ended)).status_code == 403


def test_a_request_works_once_here_and_now(site: Audited) -> None:
    site.settle()
    request = site.request()
    assert site.send(request).status_code == 200
    assert site.send(request).status_code == 403
    at = site.service.clock.at
    for forged in (
        {"origin": "https://other.example"},
        {"issued_at": int(at.timestamp()) - 61},
        {"issued_at": int(at.timestamp()) + 61},
    ):
        assert site.send(site.request(**forged)).status_code == 403
    for seconds in (-60, 60):
        assert site.send(site.request(issued_at=int(at.timestamp()) + seconds)).status_code == 200
    early = site.request(issued_at=int(at.timestamp()) + 60)
    assert site.send(early).status_code == 200
    site.service.clock.at = at + timedelta(seconds=120)  # the last moment at which it is fresh
    assert site.send(early).status_code == 403


def test_a_forged_signature_is_refused_and_costs_the_request_nothing(quick: Audited) -> None:
    quick.settle()
    request = quick.request()
    for position in (len(request) - 1, len(request) - 64, len(request) // 2):
        flipped = bytearray(request)
        flipped[position] ^= 1
        assert quick.send(bytes(flipped)).status_code == 403
    assert quick.send(request[:-1]).status_code == 400
    assert quick.send(b"").status_code == 400
    assert quick.send(request).status_code == 200


def test_a_range_that_the_log_does_not_have_is_refused(quick: Audited) -> None:
    size = quick.settle()
    for first, last, status in ((0, size, 422), (size, size, 422), (2**40, 2**40, 422), (3, 2, 403)):
        assert quick.send(quick.request(first, last)).status_code == status
    assert quick.send(quick.request(size - 1, size - 1)).status_code == 200


def test_a_range_wider_than_a_bundle_is_refused(quick: Audited, monkeypatch: pytest.MonkeyPatch) -> None:
    size = quick.settle()
    monkeypatch.setattr("vault.evidence.auditors.MAX_LEAVES", size - 1)
    assert quick.send(quick.request(0, size - 1)).status_code == 422
    assert quick.send(quick.request(1, size - 1)).status_code == 200


def test_every_access_is_logged_before_anything_is_shown(site: Audited) -> None:
    size = site.settle()
    bundle = site.bundle(0, size - 1)
    with site.service.database.snapshot() as session:
        accesses = [public for kind, public, _ in leaves(session) if kind == "auditor-access" and "first" in public]
    (access,) = accesses
    assert (access["first"], access["last"]) == (0, size - 1)
    assert int(bundle.checkpoint.splitlines()[1]) > size, "the checkpoint sent covers the access itself"
    site.send(site.request(0, size))
    with site.service.database.snapshot() as session:
        assert sum("first" in public for _, public, _ in leaves(session)) == 2


def test_a_caller_who_trusts_witnesses_believes_no_bundle_without_them(quick: Audited, tmp_path: Path) -> None:
    """The answer's proof and the month's alike are joined to a tree that the witness saw."""
    consent = quick.live()
    key = quick.service.log
    witness = Witness.init(tmp_path / "witness", "witness.example/1").watch(key)
    trust = replace(quick.service.trust, witnesses=WitnessPolicy((witness.key,), 1, 600))
    alone = verify_bundle(quick.bundle(), trust)
    assert failed(alone) == {(Step.WITNESSES, None)}
    with listening(witness) as url:
        plan = WitnessPlan((WitnessSite(witness.key, url),), 1, 600)
        assert Witnesses(key, plan).ask(quick.service.database) == 1
    other = quick.service.consent()
    assert other.consent_id != consent.consent_id
    answered = parse_bundle(quick.service.ask(other).content)
    for found in (answered, quick.bundle()):
        report = verify_bundle(found, trust)
        assert (report.failures, report.checked[Step.WITNESSES]) == ((), 1)
        assert found.witnessed is not None
        assert found.witnessed.proof
        for lie in (None, replace(found.witnessed, proof=found.witnessed.proof[1:])):
            lying = verify_bundle(replace(found, witnessed=lie), trust)
            assert (Step.WITNESSES, None) in failed(lying)
    strict = replace(trust, witnesses=WitnessPolicy((witness.key,), 1, 1))
    old = replace(answered, witnessed=_older_view(quick, witness, answered))
    assert failed(verify_bundle(old, strict)) == {(Step.WITNESSES, None)}


def _older_view(site: Audited, witness: Witness, found: Bundle) -> Witnessed:
    """Return what the same witness would have signed a day before the newest event."""
    assert found.witnessed is not None
    key = site.service.log
    checkpoint = verify_checkpoint(found.witnessed.note, key, key.name)
    private = SigningKey(parse_b64u(parse_json((witness.folder / "witness.json").read_bytes())["seed"], size=32))
    [log_line, _] = parse_note(found.witnessed.note).signatures
    line = cosign(checkpoint, witness.key, private.sign, unix_s(NOW) - 86_400).line
    return replace(found.witnessed, note=f"{checkpoint.text}\n{log_line.line}{line}")


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


def test_a_decision_that_was_never_logged_is_named(quick: Audited) -> None:
    quick.live()
    bundle = quick.bundle()
    decision = next(record for record in bundle.records.values() if b'"engine"' in record)
    spare = re.sub(rb'"quota_left":\d+', b'"quota_left":77', decision)
    assert spare != decision
    report = verify(quick, replace(bundle, records={**bundle.records, **records_by_hash([spare])}))
    assert failed(report) == {(Step.RECORDS, None)}


def _trained(site: Audited, **changed: int) -> int:
    """Log a training that was charged for a model that was never published."""
    public = {"map": "m" * 43, "code": "c" * 43, "cohort": 100, "epsilon_ppm": 1, "delta_inverse": 10**6}
    with site.service.database.transaction() as session:
        pending = log.append(session, LeafKind.TRAINING, {**public, **changed, "outcome": "released"}, {"charge": ""})
    return site.service.sequencer.wait(pending.id, 20)


def test_a_charged_training_whose_model_was_not_published_is_named(quick: Audited) -> None:
    quick.live()
    index = _trained(quick)
    assert failed(verify(quick, quick.bundle())) == {(Step.LEDGER, index)}


def test_a_model_learned_from_people_is_published_and_charged_or_named(quick: Audited) -> None:
    quick.live()
    learned, model = _manifest(), closed_form(RETAIL)
    with quick.service.database.transaction() as session:
        published = release.publish(session, model, learned, quick.service.worker_key)
    index = quick.service.sequencer.wait(published, 20)
    assert verify(quick, quick.bundle()).failures == (), "its training may lie just beyond the range"
    said = {
        "map": b64u(learned.map_sha256), "code": b64u(learned.code_sha256), "cohort": learned.cohort,
        "epsilon_ppm": learned.epsilon_ppm, "delta_inverse": learned.delta_inverse, "outcome": "released",
    }  # fmt: skip
    with quick.service.database.transaction() as session:
        for n in range(64):
            last = log.append(session, LeafKind.TRAINING, {"outcome": "refused", "n": n}, {})
    quick.service.sequencer.wait(last.id, 20)
    assert failed(verify(quick, quick.bundle())) == {(Step.LEDGER, index)}
    with quick.service.database.transaction() as session:
        charged = log.append(session, LeafKind.TRAINING, {**said}, {"charge": ""})
    quick.service.sequencer.wait(charged.id, 20)
    report = verify(quick, quick.bundle())
    assert (report.failures, report.checked[Step.LEDGER]) == ((), 3), "two models and one training"


def test_a_month_in_parts_is_verified_as_one(quick: Audited) -> None:
    """Chains, quotas and times run on from part to part; a part left out or shown twice is noticed."""
    quick.live()
    last = quick.size() - 1
    cuts = [0, last // 3, 2 * last // 3, last + 1]
    parts = [quick.bundle(first, after - 1) for first, after in pairwise(cuts)]

    def run(*shown: Bundle) -> list[Report]:
        carried = Carried()
        return [verify_bundle(part, quick.service.trust, carried) for part in shown]

    reports = run(*parts)
    assert [report.failures for report in reports] == [()] * 3
    whole = verify(quick, quick.bundle(0, last))
    for step in (Step.DECISION, Step.QUOTA, Step.TIME):
        assert sum(report.checked.get(step, 0) for report in reports) == whole.checked[step], step
    assert (Step.OPENINGS, None) in failed(run(parts[0], parts[2])[1])
    assert (Step.OPENINGS, None) in failed(run(parts[0], parts[0])[1])


def test_an_engagement_shows_the_time_that_it_is_about_and_no_more(site: Audited) -> None:
    site.live()
    last = site.size() - 1
    early, late = 1_700_000_000, 1_710_000_000
    with site.service.database.transaction() as session:
        for leaf in log.find(session, limit=1_000):
            at_s = early if leaf.index < 5 else late
            session.connection().execute(
                log_entry.update().where(log_entry.c.id == leaf.pending_id).values(recorded_s=at_s)
            )
    key = SigningKey(new_seed())
    with site.service.database.transaction() as session:
        register_auditor(session, "Scoped", key.public_key, NOW + timedelta(days=1), Scope(early + 1, late + 1))
    for first, end, status in ((5, last, 200), (4, last, 403), (0, 4, 403), (5, last + 1, 403)):
        response = site.send(site.request(first, end, key))
        assert response.status_code == status, response.text
    for scope in (Scope(5, 5), Scope(-1, 5), Scope(9, 8), Scope(0, 2**33)):
        with pytest.raises(BadAuditor), site.service.database.transaction() as session:
            register_auditor(session, "Scoped", key.public_key, NOW, scope)
