"""Every model learned from people was charged, and whatever was charged is a published model."""

from __future__ import annotations

from tests.audit_kit import Audited, failed, verify
from tests.proof.test_certificate import _manifest
from tests.twin.worker_kit import RETAIL
from vault.encoding import b64u
from vault.proof.leaf import LeafKind
from vault.proof.verify import Step
from vault.tlog import log
from vault.twin import release
from vault.twin.reader import closed_form


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
