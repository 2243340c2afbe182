"""The whole way from a cohort to a certified backbone."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from vault.imprint.features import FeatureMap
from vault.proof.certificate import (
    Activity,
    CertificateInvalid,
    Required,
    dump_manifest,
    parse_manifest,
    verify_certificate,
)
from vault.proof.charge import People
from vault.twin import certify
from vault.twin.audit import AuditResult
from vault.twin.certify import build_backbone, measure
from vault.twin.reader import closed_form, closed_form_manifest, parse_backbone, taxonomy
from vault.twin.train import PersonMonths

MakeCohort = Callable[..., PersonMonths]
NOW = datetime(2026, 6, 1, tzinfo=UTC)
CLEAN = AuditResult(claimed=0.99, lower_bound=0.2, noise_ratio=1.0, noise_repeats=0.0, contribution_ratio=1.0)


@pytest.fixture(scope="module")
def cohort(make_cohort: MakeCohort) -> PersonMonths:
    return make_cohort(400)


def test_a_cohort_becomes_a_certified_backbone(cohort: PersonMonths, retail: FeatureMap) -> None:
    backbone, manifest = build_backbone(cohort, retail, NOW)
    verify_certificate(manifest, NOW)
    assert parse_manifest(dump_manifest(manifest)) == manifest
    assert manifest.model_sha256 == backbone.digest
    assert manifest.epsilon_ppm <= 3_000_000
    assert manifest.delta_inverse >= 10 * manifest.cohort
    assert {charge.people for charge in manifest.charges} == set(People)
    assert manifest.cohort % 10 == 0
    assert abs(manifest.cohort - 400) <= 60
    # The learned popularity is the cohort's, not the public guess.
    true = cohort.chosen.sum(0) / cohort.days.sum()
    assert np.corrcoef(backbone.popularity, true)[0, 1] > 0.9 > np.corrcoef(taxonomy(retail).prior, true)[0, 1]


def test_a_useless_model_is_not_certified(cohort: PersonMonths, retail: FeatureMap) -> None:
    true = (cohort.chosen.sum(0) / cohort.days.sum()).clip(1e-3, 0.9).astype(np.float32)
    useful = replace(closed_form(retail), popularity=true)
    # Offset 3 on the log-odds: certain of everything.
    wild = replace(useful, scalars=np.append(useful.scalars[:-1], np.float32(3)))
    _, manifest = build_backbone(cohort, retail, NOW)
    for backbone, good in ((useful, True), (wild, False)):
        certificate, _ = measure(backbone, cohort, retail, CLEAN)
        judged = replace(manifest, certificate=certificate)
        if good:
            verify_certificate(judged, NOW)
        else:
            with pytest.raises(CertificateInvalid, match="calibrated"):
                verify_certificate(judged, NOW)


def test_one_person_moves_the_measurement_no_further_than_charged(cohort: PersonMonths, retail: FeatureMap) -> None:
    everyone = np.arange(400)
    hostile = replace(cohort, chosen=cohort.chosen.copy(), rows=cohort.rows.copy())
    hostile.chosen[cohort.person == 7] = 10**6
    hostile.rows[cohort.person == 7] = 10**9
    backbone = closed_form(retail)
    with_them = certify._contributions(backbone, hostile, retail).sum(0)
    without = certify._contributions(backbone, hostile.of(everyone != 7, everyone), retail).sum(0)
    _, charge = measure(backbone, cohort, retail, CLEAN)
    moved = math.hypot(*(with_them - without).flatten())
    assert 0 < moved * charge.noise_multiplier_ppm / 1e6 <= certify._SIGMA


def test_groups_are_shown_with_their_noise_and_only_if_large_enough(cohort: PersonMonths, retail: FeatureMap) -> None:
    days = cohort.days.copy()
    days[cohort.person < 100] = 2
    lighter = replace(cohort, days=days, chosen=np.minimum(cohort.chosen, days[:, None]))
    exact = certify._figures(closed_form(retail), lighter, retail).clip(-certify._LARGEST, certify._LARGEST) * 1e6
    found = {group.activity: group for group in measure(closed_form(retail), lighter, retail, CLEAN)[0].groups}
    for activity, which, people in ((Activity.LIGHT, slice(0, 100), 100), (Activity.HEAVY, slice(100, 400), 300)):
        group = found[activity]
        assert abs(group.people - people) <= 80
        for shown, true in zip((group.gain_ppm, group.calibration_gap_ppm), exact[which].mean(0), strict=True):
            assert abs(shown - true) <= 6 * group.noise_sd_ppm + 0.3 * abs(true)
    assert found[Activity.LIGHT].noise_sd_ppm > found[Activity.HEAVY].noise_sd_ppm
    few = lighter.of(np.arange(400) < 3, np.arange(400))
    shown = [len(measure(closed_form(retail), few, retail, CLEAN)[0].groups) for _ in range(30)]
    assert np.mean(shown) < 1  # of two groups of 3 and 0 people, noise alone lets one through now and then


def test_the_closed_form_reader_ships_with_a_manifest_that_costs_nothing(retail: FeatureMap) -> None:
    manifest = closed_form_manifest(retail)
    assert manifest.epsilon_ppm == 0
    verify_certificate(manifest, NOW, Required(built_in=frozenset({closed_form(retail).digest})))


def test_nobody_is_both_trained_on_and_held_out(
    cohort: PersonMonths, retail: FeatureMap, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[set[int]] = []
    real_train, real_measure = certify.train, certify.measure
    monkeypatch.setattr(certify, "audit", lambda: CLEAN)
    monkeypatch.setattr(certify, "train", lambda r, m, k: seen.append(set(r.person.tolist())) or real_train(r, m, k))
    monkeypatch.setattr(
        certify, "measure", lambda b, r, m, f: seen.append(set(r.person.tolist())) or real_measure(b, r, m, f)
    )
    backbone, _ = build_backbone(cohort, retail, NOW)
    trained, held_out = seen
    assert not trained & held_out
    assert trained | held_out == set(range(400))
    assert 40 < len(held_out) < 120
    assert parse_backbone(certify.reading.dump_backbone(backbone)).digest == backbone.digest
