"""Somebody who alters a bundle's file: whatever is changed, the verifier names the step and the leaf."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.answer_kit import ORIGIN
from tests.proof.forge import Honest, failures, flip
from twinvault import processes
from twinvault.processes import ProcessDied, Processes
from vault.imprint.features import Cadence, feature_map, mapped_for
from vault.proof.bundle import LoggedLeaf
from vault.proof.certificate import BUILT_IN, SHIPPED
from vault.proof.leaf import LeafKind, Opening
from vault.proof.note import VerifierKey
from vault.proof.verify import Step, verify_bundle
from vault.seal.ids import sha256
from vault.seal.signing import SigningKey, new_seed
from vault.twin.funnel import shipped
from vault.twin.reader import closed_form


def test_an_honest_bundle_verifies_and_every_step_looked_at_something(honest: Honest) -> None:
    report = honest.verify(honest.bundle)
    assert report.failures == ()
    unneeded = {Step.BUNDLE, Step.ERASURE, Step.WITNESSES, Step.LEDGER, Step.LEGACY, Step.GROUPS, Step.LISTING}
    assert set(report.checked) == set(Step) - unneeded, (
        "nothing was erased, no witness demanded, the range is not whole, no legacy shown, no flood of denials, all opened"
    )
    assert report.leaves == 5


def test_nothing_is_believed_under_another_trust(honest: Honest) -> None:
    trust, other = honest.service.trust, SigningKey(new_seed()).public_key
    for changed, step in (
        (replace(trust, log=VerifierKey(ORIGIN, other)), Step.CHECKPOINT),
        (replace(trust, origin="log.example/other"), Step.CHECKPOINT),
        (replace(trust, operator=other), Step.KEYS),
        (replace(trust, issuer="https://other.example"), Step.QUESTION),
    ):
        assert step in {failure.step for failure in verify_bundle(honest.bundle, changed).failures}


def _end(_check: object) -> tuple[object, str]:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def test_other_processes_find_what_this_one_finds_or_nothing(honest: Honest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "CHUNK", 1)  # even the few checks of one answer are then worth it
    trust = honest.service.trust
    elsewhere = replace(trust, issuer="https://other.example")
    with Processes(2) as each:
        for pinned, found in ((trust, 0), (elsewhere, 1)):
            report = verify_bundle(honest.bundle, pinned, each=each)
            assert len(report.failures) == found
            assert report == verify_bundle(honest.bundle, pinned)
        with pytest.raises(ProcessDied):
            verify_bundle(honest.bundle, trust, each=lambda _run, checks: each(_end, checks))


@pytest.mark.parametrize("lost", [slice(0, 0), slice(0, 1), slice(1, None)])
def test_who_loses_a_check_gets_no_report(honest: Honest, lost: slice) -> None:
    with pytest.raises(ValueError, match="zip"):
        verify_bundle(honest.bundle, honest.service.trust, each=lambda run, checks: [*map(run, checks)][lost])


FILE_ATTACKS: dict[str, tuple[Step, Callable[[LoggedLeaf], LoggedLeaf]]] = {
    "entry": (Step.INCLUSION, lambda leaf: replace(leaf, entry=flip(leaf.entry))),
    "path": (Step.INCLUSION, lambda leaf: replace(leaf, path=(flip(leaf.path[0]), *leaf.path[1:]))),
    "path cut": (Step.INCLUSION, lambda leaf: replace(leaf, path=leaf.path[1:])),
    "index": (Step.INCLUSION, lambda leaf: replace(leaf, index=leaf.index + 100)),
    "public salt": (Step.OPENINGS, lambda leaf: replace(leaf, public=Opening(flip(leaf.public.salt), leaf.public.body))),
    "public body": (Step.OPENINGS, lambda leaf: replace(leaf, public=Opening(leaf.public.salt, leaf.public.body[:-1] + b" }"))),
    "parts exchanged": (Step.OPENINGS, lambda leaf: replace(leaf, public=leaf.personal or leaf.public, personal=leaf.public)),
    "personal half of another": (Step.OPENINGS, lambda leaf: replace(leaf, personal=leaf.public)),
}  # fmt: skip


@pytest.mark.parametrize("name", FILE_ATTACKS)
def test_a_changed_leaf_is_named(honest: Honest, name: str) -> None:
    step, change = FILE_ATTACKS[name]
    for at in range(len(honest.bundle.leaves)):
        leaves = list(honest.bundle.leaves)
        leaves[at] = change(leaves[at])
        report = honest.verify(replace(honest.bundle, leaves=tuple(leaves)))
        assert (step, leaves[at].index) in failures(report), at


def test_a_changed_checkpoint_is_named(honest: Honest) -> None:
    note = honest.bundle.checkpoint
    origin, size, root, *rest = note.split("\n")
    for changed in ("", "x", note[:-2], "\n".join([origin, str(int(size) + 1), root, *rest])):
        report = honest.verify(replace(honest.bundle, checkpoint=changed))
        assert failures(report) == [(Step.CHECKPOINT, None)]
        assert set(report.checked) == {Step.CHECKPOINT}


def test_a_record_that_is_missing_or_changed_is_named(honest: Honest) -> None:
    """Every record but the consent request, which the person's signature stands for, is needed; none may differ."""
    needed = 0
    for digest, data in honest.bundle.records.items():
        rest = {key: value for key, value in honest.bundle.records.items() if key != digest}
        changed = flip(data)
        for records in (rest, {**rest, sha256(changed): changed}):
            needed += bool(honest.verify(replace(honest.bundle, records=records)).failures)
    assert needed == 2 * len(honest.bundle.records) - 1


def test_a_leaf_that_is_missing_is_named(honest: Honest) -> None:
    answer = honest.bundle.leaves[-1].index
    steps = {
        LeafKind.POLICY_SET: Step.DECISION,
        LeafKind.MANIFEST: Step.CERTIFICATE,
        LeafKind.COMPANY: Step.QUESTION,
        LeafKind.CONSENT: Step.ORDER,
    }
    for leaf in honest.bundle.leaves[:-1]:
        kind = LeafKind(json.loads(leaf.public.body)["kind"])
        leaves = tuple(other for other in honest.bundle.leaves if other is not leaf)
        assert (steps[kind], answer) in failures(honest.verify(replace(honest.bundle, leaves=leaves))), kind


def test_the_built_in_model_is_the_one_that_needs_no_certificate() -> None:
    maps = [feature_map(category, cadence) for cadence in Cadence for category in mapped_for(cadence)]
    assert {closed_form(one).digest for one in maps} == BUILT_IN


def test_the_shipped_head_is_one_that_nobody_here_was_charged_for() -> None:
    assert shipped()[1].digest in SHIPPED


def test_an_empty_bundle_checks_nothing(honest: Honest) -> None:
    report = honest.verify(replace(honest.bundle, leaves=(), records={}))
    assert set(report.checked) == {Step.CHECKPOINT, Step.OPENINGS}
