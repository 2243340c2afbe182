"""A whole log, built through the domains' own verbs, verifies offline, whole and in parts; what is cut from it is named."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest

from tests.answer_kit import NEXT
from tests.audit_kit import OPENED, Audited, bodies, failed, kind_of, leaf_of, verify, without
from tests.consent_kit import NOW, PURPOSE
from tests.leaves import leaves
from vault.clock import unix_s
from vault.encoding import b64u, dump_json, parse_json
from vault.proof.bundle import Bundle, Withheld, dump_bundle, parse_bundle, records_by_hash
from vault.proof.established import SKEW_S, Carried
from vault.proof.leaf import LeafKind
from vault.proof.verify import Report, Step, verify_bundle
from vault.schema.question import dump_question
from vault.seal.dsse import PayloadType, parse_envelope, sign_record
from vault.seal.signing import SigningKey, new_seed


def test_a_whole_log_verifies(site: Audited) -> None:
    site.live()
    bundle = site.bundle()
    report = verify(site, bundle)
    assert report.failures == ()
    assert report.leaves == bundle.complete_to == len(bundle.leaves)
    assert bundle.complete_from == 0
    # Nothing was erased, no company flooded, the pinned keys name no witness, auditors are shown nobody's legacy,
    # and this one everybody's decisions.
    for step in set(Step) - {Step.BUNDLE, Step.ERASURE, Step.WITNESSES, Step.LEGACY, Step.GROUPS, Step.LISTING}:
        withheld = step in {Step.ANSWER, Step.QUESTION}
        assert (report.checked.get(step, 0), report.withheld.get(step, 0)) > ((0, 2) if withheld else (0, 0)), step
    assert report.withheld == {Step.ANSWER: 3, Step.QUESTION: 3}
    assert Step.ANSWER not in report.checked
    assert report.checked[Step.DECISION] == 5, "three answers and the two denials that were decided"


def test_no_vault_no_question_and_no_answer_is_shown(site: Audited) -> None:
    site.live()
    service = site.service
    found = site.bundle()
    data = b"\n".join([dump_bundle(found), *found.records.values(), *bodies(found)])
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
    assert not any("vault" in body for body in map(parse_json, bodies(found)))
    assert str(PURPOSE).encode() in data, "the scan looks at what was really sent"


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


def test_a_part_whose_events_lag_behind_does_not_set_the_time_of_an_audit_back(quick: Audited) -> None:
    quick.live()
    carried = Carried(latest_s=unix_s(NOW) + SKEW_S)
    assert verify_bundle(quick.bundle(), quick.service.trust, carried).failures == ()
    assert carried.latest_s == unix_s(NOW) + SKEW_S


def test_a_removed_leaf_is_named(quick: Audited) -> None:
    quick.live()
    bundle = quick.bundle()
    for kind in (LeafKind.CONSENT, LeafKind.ANSWER, LeafKind.RING_HEAD):
        gone = leaf_of(bundle, kind)
        assert (Step.OPENINGS, gone.index) in failed(verify(quick, without(bundle, gone)))


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


def test_a_decision_that_was_never_logged_is_named(quick: Audited) -> None:
    quick.live()
    bundle = quick.bundle()
    decision = next(record for record in bundle.records.values() if b'"quota_left"' in record)
    spare = re.sub(rb'"quota_left":\d+', b'"quota_left":77', decision)
    assert spare != decision
    report = verify(quick, replace(bundle, records={**bundle.records, **records_by_hash([spare])}))
    assert failed(report) == {(Step.RECORDS, None)}


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
