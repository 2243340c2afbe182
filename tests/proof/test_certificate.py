"""A model serves only with a certificate: every requirement has a manifest that misses only that one."""

from __future__ import annotations

import contextlib
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vault.encoding import dump_json, parse_json
from vault.proof.certificate import (
    Activity,
    Certificate,
    CertificateInvalid,
    Group,
    Manifest,
    Required,
    dump_manifest,
    parse_manifest,
    verify_certificate,
)
from vault.proof.charge import Charge, People, epsilon_of, rdp_curve

NOW = datetime(2026, 6, 1, tzinfo=UTC)
TRAINED_AT = int(NOW.timestamp()) - 60
CERTIFICATE = Certificate(
    audit_claimed_ppm=990_000,
    audit_lower_bound_ppm=300_000,
    audit_canaries=4_000,
    noise_ratio_ppm=1_010_000,
    noise_repeats_ppm=-12_000,
    contribution_ratio_ppm=1_000_000,
    rows_noise_ratio_ppm=1_000_000,
    rows_noise_repeats_ppm=0,
    rows_contribution_ratio_ppm=1_000_000,
    gain_ppm=11_000,
    calibration_gap_ppm=-30_000,
    noise_sd_ppm=5_000,
    held_out=80,
    groups=(Group(Activity.LIGHT, 30, 5_000, -20_000, 15_000), Group(Activity.HEAVY, 50, 14_000, -35_000, 9_000)),
)
CHARGES = (
    Charge("popularity", People.TRAINED, 2_096_000, 1_000_000, 1),
    Charge("training", People.TRAINED, 5_000_000, 200_000, 40),
    Charge("certificate", People.HELD_OUT, 1_767_000, 1_000_000, 1),
)


def _manifest(charges: tuple[Charge, ...] = CHARGES, **changes: Any) -> Manifest:
    manifest = Manifest(
        model_sha256=b"m" * 32,
        map_sha256=b"f" * 32,
        code_sha256=b"c" * 32,
        trained_at=TRAINED_AT,
        cohort=400,
        epsilon_ppm=round(epsilon_of(charges, 1e-6) * 1e6),
        delta_inverse=1_000_000,
        charges=charges,
        certificate=CERTIFICATE,
    )
    return replace(manifest, **changes)


def test_a_good_manifest_is_accepted_and_has_one_spelling() -> None:
    manifest = _manifest()
    verify_certificate(manifest, NOW)
    assert parse_manifest(dump_manifest(manifest)) == manifest


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("audit_claimed_ppm", 1_000_001),
        ("audit_claimed_ppm", 0),
        ("audit_lower_bound_ppm", 990_001),
        ("audit_canaries", 3_999),
        ("noise_ratio_ppm", 940_000),
        ("noise_ratio_ppm", 1_060_000),
        ("noise_repeats_ppm", 110_000),
        ("noise_repeats_ppm", -110_000),
        ("contribution_ratio_ppm", 1_010_000),
        ("rows_noise_ratio_ppm", 1_100_000),
        ("rows_noise_ratio_ppm", 900_000),
        ("rows_noise_repeats_ppm", -200_000),
        ("rows_contribution_ratio_ppm", 1_000_001),
        ("gain_ppm", -20_001),
        ("calibration_gap_ppm", 90_001),
        ("calibration_gap_ppm", -90_001),
        ("noise_sd_ppm", 60_000),
        ("held_out", 10),
    ],
)
def test_a_measurement_beyond_its_threshold_is_refused(field: str, value: int) -> None:
    with pytest.raises(CertificateInvalid):
        verify_certificate(_manifest(certificate=replace(CERTIFICATE, **{field: value})), NOW)


def test_every_measurement_has_a_threshold() -> None:
    tested = {
        mark.args[1][at][0]
        for mark in test_a_measurement_beyond_its_threshold_is_refused.pytestmark  # type: ignore[attr-defined]  # pytest's
        for at in range(len(mark.args[1]))
    }
    assert tested == {field.name for field in fields(Certificate)} - {"groups"}


@pytest.mark.parametrize(
    ("field", "value"),
    [("people", 10), ("gain_ppm", -60_001), ("calibration_gap_ppm", 130_001), ("calibration_gap_ppm", -130_001)],
)
def test_a_model_that_is_shown_to_fail_a_group_is_refused(field: str, value: int) -> None:
    light, heavy = CERTIFICATE.groups
    worse = replace(light, **{field: value})
    with pytest.raises(CertificateInvalid, match="group"):
        verify_certificate(_manifest(certificate=replace(CERTIFICATE, groups=(worse, heavy))), NOW)


def test_a_group_within_its_noise_is_no_reason_to_refuse() -> None:
    light, heavy = CERTIFICATE.groups
    doubtful = replace(light, gain_ppm=-59_999, calibration_gap_ppm=129_999)
    verify_certificate(_manifest(certificate=replace(CERTIFICATE, groups=(doubtful, heavy))), NOW)


def test_one_group_twice_is_no_certificate() -> None:
    light, _ = CERTIFICATE.groups
    with pytest.raises(CertificateInvalid, match="twice"):
        parse_manifest(dump_manifest(_manifest(certificate=replace(CERTIFICATE, groups=(light, light)))))


@pytest.mark.parametrize(
    "changes",
    [
        {"trained_at": TRAINED_AT + 3_600},
        {"trained_at": TRAINED_AT - 401 * 86_400},
        {"cohort": 90},
        {"cohort": 100_010},
        {"epsilon_ppm": 1_000_000},
        {"epsilon_ppm": _manifest().epsilon_ppm - 10},
        {"delta_inverse": 999_999},
        {"certificate": None},
        {"charges": CHARGES[:2]},
        {"charges": CHARGES[2:]},
        {"charges": ()},
        {"charges": (CHARGES[0], replace(CHARGES[1], steps=4_000), CHARGES[2])},
        {"charges": (CHARGES[0], replace(CHARGES[1], noise_multiplier_ppm=2_000_000), CHARGES[2])},
        {"charges": (CHARGES[0], replace(CHARGES[1], sample_rate_ppm=900_000), CHARGES[2])},
    ],
)
def test_a_false_statement_about_privacy_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(CertificateInvalid):
        verify_certificate(_manifest(**changes), NOW)


def test_an_honest_statement_of_too_much_privacy_loss_is_refused() -> None:
    charges = (replace(CHARGES[0], noise_multiplier_ppm=1_000_000), *CHARGES[1:])
    with pytest.raises(CertificateInvalid, match="cost its contributors"):
        verify_certificate(_manifest(charges), NOW)


def test_a_person_is_charged_for_the_worse_of_the_two_sets() -> None:
    both = epsilon_of(CHARGES, 1e-6)
    assert both == max(epsilon_of(CHARGES[:2], 1e-6), epsilon_of(CHARGES[2:], 1e-6))
    assert epsilon_of((), 1e-6) == 0.0
    full, sampled = (rdp_curve(replace(CHARGES[1], sample_rate_ppm=rate)) for rate in (1_000_000, 999_999))
    assert all(abs(a - b) < 1e-3 * a for a, b in zip(full, sampled, strict=True))


def test_only_a_known_built_in_model_needs_no_certificate() -> None:
    built_in = _manifest((), certificate=None, cohort=0, trained_at=0)
    assert built_in.epsilon_ppm == 0
    known = Required(built_in=frozenset({built_in.model_sha256}))
    verify_certificate(built_in, NOW + timedelta(days=3_000), known)
    with pytest.raises(CertificateInvalid, match="built-in"):
        verify_certificate(replace(built_in, trained_at=TRAINED_AT), NOW)
    for changed in (replace(built_in, charges=CHARGES), replace(built_in, epsilon_ppm=1), replace(built_in, cohort=10)):
        with pytest.raises(CertificateInvalid):
            verify_certificate(changed, NOW, known)


def test_any_changed_field_changes_the_digest_or_is_refused() -> None:
    manifest = _manifest()
    record = parse_json(dump_manifest(manifest))
    for name, value in record.items():
        changed = {**record, name: value + 1 if isinstance(value, int) else "x"}
        try:
            assert parse_manifest(dump_json(changed)).digest != manifest.digest
        except CertificateInvalid:
            continue
    for missing in record:
        with pytest.raises(CertificateInvalid):
            parse_manifest(dump_json({name: value for name, value in record.items() if name != missing}))
    with pytest.raises(CertificateInvalid):
        parse_manifest(dump_json({**record, "note": "more"}))
    with pytest.raises(CertificateInvalid):
        parse_manifest(dump_manifest(manifest) + b" ")


GOOD = dump_manifest(_manifest())


@given(st.binary(max_size=200))
def test_the_parser_raises_one_family(data: bytes) -> None:
    with pytest.raises(CertificateInvalid):
        parse_manifest(data)


@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
def test_a_flipped_byte_never_passes_as_the_same_manifest(at: int, mask: int) -> None:
    data = bytearray(GOOD)
    data[at] ^= mask
    with contextlib.suppress(CertificateInvalid):
        assert dump_manifest(parse_manifest(bytes(data))) != GOOD
