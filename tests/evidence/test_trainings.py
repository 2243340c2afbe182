"""Every model learned from people was charged what it cost, and whatever was charged is a published model."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.audit_kit import Audited, failed, training_row, verify
from tests.proof.test_certificate import CHARGES, _manifest
from vault.encoding import JsonValue, b64u
from vault.proof.accounting import person_curve
from vault.proof.charge import dump_charge
from vault.proof.established import Carried
from vault.proof.leaf import LeafKind
from vault.proof.verify import Step, verify_bundle
from vault.tlog import log
from vault.twin import release

MODEL = _manifest()
CHEAPER = replace(CHARGES[1], steps=20)


def _sentences(site: Audited) -> dict[int | None, str]:
    report = verify(site, site.bundle())
    assert {failure.step for failure in report.failures} <= {Step.LEDGER}
    return {failure.leaf_index: failure.detail for failure in report.failures}


def test_a_model_that_was_charged_and_published_is_counted_as_checked(quick: Audited) -> None:
    quick.live()
    before = verify(quick, quick.bundle()).checked[Step.LEDGER]
    quick.publish_trained(MODEL)
    quick.log_training(MODEL, training_row(MODEL))
    report = verify(quick, quick.bundle())
    assert (report.failures, report.checked[Step.LEDGER]) == ((), before + 2)


def test_a_model_learned_from_people_is_charged_or_named(quick: Audited) -> None:
    quick.live()
    with quick.service.database.transaction() as session:
        release.publish_shipped(session, quick.service.worker_key)  # learned from a public set, and from nobody here
    index = quick.publish_trained(MODEL)
    assert verify(quick, quick.bundle()).failures == (), "its training may lie just beyond the range"
    other = replace(MODEL, cohort=410)
    quick.log_training(other, training_row(other), outcome="certificate-invalid", model="")
    with quick.service.database.transaction() as session:
        for _ in range(64):
            last = log.append(session, LeafKind.FREEZE, {}, {})
    quick.service.sequencer.wait(last.id, 20)
    assert failed(verify(quick, quick.bundle(0, index + 65))) == {(Step.LEDGER, index)}


def test_a_charged_training_whose_model_was_not_published_is_named(quick: Audited) -> None:
    quick.live()
    index = quick.log_training(MODEL, training_row(MODEL))
    assert "not the one that was published" in _sentences(quick)[index]


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({"renyi_nano": [n - 3 for n in person_curve(CHARGES).nano]}, "another sum than its mechanism costs"),
        ({"renyi_nano": [1]}, "one bound for every order"),
        ({"renyi_nano": "none"}, "must be a list"),
        ({"renyi_nano": [-1] * len(person_curve(CHARGES).nano)}, "must list integers"),
        ({"unit": "owner-day"}, "must be 'person'"),
        ({"orders": "grid/0"}, "must be 'grid/1'"),
        ({"window": "26"}, "must be a text of the form"),
        ({"code": b64u(bytes(32))}, "do not say the same"),
        ({"mechanism": {"name": "backbone/1", "map": b64u(b"f" * 32), "charges": []}}, "charged nothing"),
    ],
)
def test_a_row_of_the_ledger_that_is_not_what_the_training_costs_is_named(
    quick: Audited, row: dict[str, JsonValue], sentence: str
) -> None:
    quick.publish_trained(MODEL)
    index = quick.log_training(MODEL, training_row(MODEL, **row))
    assert sentence in _sentences(quick)[index]


def test_a_model_that_was_charged_as_a_cheaper_one_is_named(quick: Audited) -> None:
    quick.publish_trained(MODEL)
    charges = (CHARGES[0], CHEAPER, CHARGES[2])
    cheap = {"name": "backbone/1", "map": b64u(MODEL.map_sha256), "charges": [dump_charge(one) for one in charges]}
    row = training_row(MODEL, mechanism=cheap, renyi_nano=[*person_curve(charges).nano])
    index = quick.log_training(MODEL, row)
    assert "and the training that was charged for it" in _sentences(quick)[index]


def test_a_published_epsilon_is_recomputed_although_the_model_never_answered(quick: Audited) -> None:
    lying = _manifest(epsilon_ppm=1_000_000)
    index = quick.publish_trained(lying)
    quick.log_training(lying, training_row(lying))
    assert "not what its charges add up to" in _sentences(quick)[index]


def test_two_trainings_under_one_charge_are_named(quick: Audited) -> None:
    row, second = training_row(MODEL), _manifest(cohort=410)
    for manifest in (MODEL, second):
        quick.publish_trained(manifest)
        index = quick.log_training(manifest, row)
    assert _sentences(quick) == {index: "Two trainings are logged under one charge."}


def test_the_cap_of_a_year_is_counted_over_all_parts_of_an_audit(quick: Audited) -> None:
    """The first was refused, and is charged all the same."""
    carried, begin, reports = Carried(), 0, []
    for cohort in (400, 410):
        manifest = _manifest(cohort=cohort)
        quick.publish_trained(manifest)
        refused: dict[str, JsonValue] = {"outcome": "certificate-invalid", "model": ""} if cohort == 400 else {}
        end = quick.log_training(manifest, training_row(manifest), **refused)
        reports.append(verify_bundle(quick.bundle(begin, end), quick.service.trust, carried))
        begin = end + 1
    assert [len(report.failures) for report in reports] == [0, 1]
    [failure] = reports[1].failures
    assert (failure.step, failure.leaf_index) == (Step.LEDGER, begin - 1)


def test_a_training_whose_charge_is_not_shown_is_named(quick: Audited) -> None:
    quick.publish_trained(MODEL)
    index = quick.log_training(MODEL, training_row(MODEL))
    bundle = quick.bundle()
    shut = replace(
        bundle, leaves=tuple(replace(leaf, personal=None) if leaf.index == index else leaf for leaf in bundle.leaves)
    )
    assert failed(verify(quick, shut)) == {(Step.LEDGER, index)}
