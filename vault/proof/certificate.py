"""The manifest of a model and its certificate: what must be shown before a model may answer.

The signed manifest is logged; anyone can check it again with `verify_certificate`. Reals are written
in millionths, since signed records hold integers only.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final, cast

from vault.clock import DAY_S, unix_s
from vault.encoding import JsonObject, b64u, dump_json, parse_json
from vault.errors import MalformedInput
from vault.proof.charge import Charge, People, dump_charge, epsilon_of, parse_charge
from vault.proof.errors import InvalidProof
from vault.schema.reader import Reader

MANIFEST_TYPE: Final = "twinvault-manifest/1"
NEIGHBOURS: Final = "one person added or removed"
BUILT_IN: Final = frozenset(
    map(
        bytes.fromhex,
        (
            "a64c545cf43f7506ebf291a74d27ea05a8f47a5a974ef3e1418737a3bfae3c91",
            "d9c85ea0fc3294144f61bf1ad5f69991a33a23082f70a4016f784d22e1152b84",
            "56bb6314e68a482f1af3043cf26a2fb2c92274f7dba36f00687d7ebf8b10a64a",
            "93742fe67541745f9bf24d0ceb4ea0c1108ba154d20f9ca0803a46e07b292134",
            "7640b3188e9168556e092d8c864db25566fccf63ae619678186fd967c860d303",
            "ab194a064754801c098027000ec5f229b99554ada7cc07ba72bddd6a2ddcf797",
            "bf544d81addc140c5ef7b969c84d43c96576157718db6837226e3f8286da4684",
            "2846c82f99992b8d199a8d0ef97b458ce98a90bb129603363e81df0ca8a456fa",
        ),
    )
)
"""Digests of the closed-form readers that this release ships: learned from nobody, so they need no certificate."""

VISITS: Final = frozenset({bytes.fromhex("d197bcc52c1191bd10f6ee42a22a313c7987270bdcad72fa1e1d2964263d9a8b")})
"""Digests of the published funnels: a model of one reads a company's session, and no imprint row."""

SHIPPED: Final = frozenset({bytes.fromhex("9b09d458d81772aaa72137e79cbc7828b9283935638c729bdef3a8e75e847832")})
"""Digests of the manifests of the heads that releases ship: learned from a public set, so no owner here was charged."""

_MAX_PPM: Final = 10**12
_CLOCK_SKEW_S: Final = 300


class CertificateInvalid(InvalidProof):
    """A manifest that is malformed or does not show what a model needs to serve."""

    slug = "certificate-invalid"
    title = "Model certificate is not valid"


class Activity(StrEnum):
    """Groups of people, by a public bound on their own days with a trace in a month."""

    LIGHT = "light"
    HEAVY = "heavy"


@dataclass(frozen=True, slots=True)
class Group:
    """What was measured on the held-out people of one group; groups that are too small are not shown.

    Args:
        activity: Which group.
        people: Number of people, noisy, rounded to 10.
        gain_ppm, calibration_gap_ppm, noise_sd_ppm: As in `Certificate`, of this group.
    """

    activity: Activity
    people: int
    gain_ppm: int
    calibration_gap_ppm: int
    noise_sd_ppm: int


@dataclass(frozen=True, slots=True)
class Certificate:
    """What was measured of a model and its trainer.

    Args:
        audit_claimed_ppm: Epsilon that the audited run of the trainer was configured for.
        audit_lower_bound_ppm: Epsilon that the audit refutes from below, at 95 % confidence.
        audit_canaries: Number of canaries.
        noise_ratio_ppm: Measured over configured noise of several empty steps; a noise that repeats,
            within a run or between two, shows here.
        noise_repeats_ppm: Correlation between the noises of two runs.
        contribution_ratio_ppm: Largest step of one person over the clipping norm.
        rows_noise_ratio_ppm, rows_noise_repeats_ppm, rows_contribution_ratio_ppm: The same three of the imprint rows
            that it reads, made for nobody: of daily ones the noise as it was before a chain carried it on. A model of
            visits reads none; of it they are those that the same release makes.
        gain_ppm: Noisy mean over held-out people of NDCG@10 beyond popularity's; of visits, of the squared error
            below that of always saying the published base rate.
        calibration_gap_ppm: Noisy mean over held-out people of predicted minus observed frequency.
        noise_sd_ppm: Standard deviation of the noise in each of these two means.
        held_out: Number of held-out people, noisy, rounded to 10.
        groups: The same by group, at most one each.
    """

    audit_claimed_ppm: int
    audit_lower_bound_ppm: int
    audit_canaries: int
    noise_ratio_ppm: int
    noise_repeats_ppm: int
    contribution_ratio_ppm: int
    rows_noise_ratio_ppm: int
    rows_noise_repeats_ppm: int
    rows_contribution_ratio_ppm: int
    gain_ppm: int
    calibration_gap_ppm: int
    noise_sd_ppm: int
    held_out: int
    groups: tuple[Group, ...] = ()


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a model is, what it cost and what was shown about it.

    Args:
        model_sha256: Digest of the model's canonical bytes.
        map_sha256: Digest of the feature map it reads.
        code_sha256: Digest of the trainer's and auditor's source.
        trained_at: Unix seconds.
        cohort: Number of people, noisy, rounded to 10; 0 for a model learned from nobody.
        epsilon_ppm: Person-level epsilon of all charges together.
        delta_inverse: 1 / delta.
        charges: Every release that read people.
        certificate: None only for a model learned from nobody.
    """

    model_sha256: bytes
    map_sha256: bytes
    code_sha256: bytes
    trained_at: int
    cohort: int
    epsilon_ppm: int
    delta_inverse: int
    charges: tuple[Charge, ...]
    certificate: Certificate | None

    @property
    def digest(self) -> bytes:
        """SHA-256 of the manifest's bytes."""
        return hashlib.sha256(dump_manifest(self)).digest()


@dataclass(frozen=True, slots=True)
class Required:
    """Thresholds that a model must meet; the defaults are production's and the demo's alike."""

    built_in: frozenset[bytes] = BUILT_IN
    epsilon_ppm: int = 3_000_000
    delta_inverse: int = 1_000_000
    age_s: int = 400 * DAY_S
    cohort: int = 100
    held_out: int = 20
    group: int = 20
    audit_claimed_ppm: int = 1_000_000
    audit_canaries: int = 4_000
    noise_ratio_off_ppm: int = 50_000
    noise_repeats_ppm: int = 100_000
    contribution_ratio_ppm: int = 1_001_000
    worst_gain_ppm: int = -30_000
    calibration_gap_ppm: int = 100_000


def verify_certificate(manifest: Manifest, now: datetime, required: Required | None = None) -> None:
    """Refuse a model that may not serve.

    Args:
        manifest: A manifest whose signature and leaf were verified.
        now: The verifier's time.
        required: Thresholds; production's by default.

    Raises:
        CertificateInvalid: The first of the requirements that is not met.

    Guarantees: epsilon is recomputed from the charges, not believed.
    """
    r = required or Required()
    if not -_CLOCK_SKEW_S <= unix_s(now) - manifest.trained_at <= r.age_s and manifest.model_sha256 not in r.built_in:
        raise CertificateInvalid("The model was trained too long ago or in the future; train it again.")
    if manifest.certificate is None:
        if manifest.model_sha256 not in r.built_in or manifest.charges or manifest.epsilon_ppm or manifest.cohort:
            raise CertificateInvalid("Only a built-in model that learned from nobody needs no certificate.")
        return
    _verify_privacy(manifest, r)
    _verify_measurements(manifest.certificate, r)
    if manifest.cohort < r.cohort:
        raise CertificateInvalid("The cohort is too small to train a model on.")


def verify_epsilon(manifest: Manifest) -> None:
    """Refuse a manifest whose epsilon is not what its charges add up to.

    Raises:
        CertificateInvalid: It is not.
    """
    epsilon_ppm = math.ceil(epsilon_of(manifest.charges, 1 / manifest.delta_inverse) * 1e6 - 1)
    if abs(epsilon_ppm - manifest.epsilon_ppm) > 2:  # the last digit of two accountants may differ
        raise CertificateInvalid("The manifest's epsilon is not what its charges add up to.")


def _verify_privacy(manifest: Manifest, r: Required) -> None:
    if {charge.people for charge in manifest.charges} != set(People):
        raise CertificateInvalid("The manifest does not charge both the people trained on and those held out.")
    if manifest.delta_inverse < max(r.delta_inverse, 10 * manifest.cohort):
        raise CertificateInvalid("The manifest's delta is too large for its cohort.")
    verify_epsilon(manifest)
    if manifest.epsilon_ppm > r.epsilon_ppm:
        raise CertificateInvalid("The model cost its contributors more privacy than is allowed.")


def _verify_measurements(certificate: Certificate, r: Required) -> None:
    c = certificate
    margin = 2 * c.noise_sd_ppm  # 97.7 % one-sided over the release's own noise
    for met, sentence in (
        (0 < c.audit_claimed_ppm <= r.audit_claimed_ppm, "The trainer was audited at too large an epsilon."),
        (c.audit_canaries >= r.audit_canaries, "The trainer was audited with too few canaries."),
        (c.audit_lower_bound_ppm <= c.audit_claimed_ppm, "The audit refuted the trainer's claimed epsilon."),
        (abs(c.noise_ratio_ppm - 1_000_000) <= r.noise_ratio_off_ppm, "The trainer's noise is not what is charged."),
        (abs(c.noise_repeats_ppm) <= r.noise_repeats_ppm, "The trainer repeats its noise."),
        (c.contribution_ratio_ppm <= r.contribution_ratio_ppm, "One person moves the model beyond the clip."),
        (abs(c.rows_noise_ratio_ppm - 1_000_000) <= r.noise_ratio_off_ppm, "The rows' noise is not what is charged."),
        (abs(c.rows_noise_repeats_ppm) <= r.noise_repeats_ppm, "Rows repeat their noise."),
        (c.rows_contribution_ratio_ppm <= 1_000_000, "One day moves the rows beyond what is charged."),
        (c.held_out >= r.held_out, "Too few people were held out to measure the model on."),
        (c.gain_ppm - margin >= r.worst_gain_ppm, "The model is not shown to predict as well as popularity."),
        (abs(c.calibration_gap_ppm) + margin <= r.calibration_gap_ppm, "The model is not shown to be calibrated."),
    ):
        if not met:
            raise CertificateInvalid(sentence)
    for group in c.groups:
        _verify_group(group, r)


def _verify_group(g: Group, r: Required) -> None:
    """Refuse a model that is shown to fail a group; a small group's figures prove neither, and are not published."""
    margin = 2 * g.noise_sd_ppm
    for met, sentence in (
        (g.people >= r.group, "The certificate shows a group that is too small to be shown."),
        (g.gain_ppm + margin >= r.worst_gain_ppm, "The model is shown to predict worse than popularity for a group."),
        (abs(g.calibration_gap_ppm) - margin <= r.calibration_gap_ppm, "The model is badly calibrated for a group."),
    ):
        if not met:
            raise CertificateInvalid(sentence)


def dump_manifest(manifest: Manifest) -> bytes:
    """Return the one JSON spelling that is signed and logged."""
    c = manifest.certificate
    record: JsonObject = {
        "type": MANIFEST_TYPE,
        "neighbours": NEIGHBOURS,
        "model_sha256": b64u(manifest.model_sha256),
        "map_sha256": b64u(manifest.map_sha256),
        "code_sha256": b64u(manifest.code_sha256),
        "trained_at": manifest.trained_at,
        "cohort": manifest.cohort,
        "epsilon_ppm": manifest.epsilon_ppm,
        "delta_inverse": manifest.delta_inverse,
        "charges": [dump_charge(charge) for charge in manifest.charges],
        "certificate": [] if c is None else [_dump_certificate(c)],
    }
    return dump_json(record)


def _dump_certificate(c: Certificate) -> JsonObject:
    groups = [{"activity": g.activity.value} | {name: getattr(g, name) for name in _GROUP} for g in c.groups]
    return {**{name: getattr(c, name) for name in _CERTIFICATE}, "groups": [*groups]}


def parse_manifest(unverified_data: bytes) -> Manifest:
    """Read a manifest's bytes.

    Raises:
        CertificateInvalid: The bytes are no manifest, or spell one in another way than `dump_manifest`.
    """
    try:
        record = parse_json(unverified_data)
    except MalformedInput as error:
        raise CertificateInvalid("A manifest is not one JSON object of strings and integers.") from error
    manifest = _parse_record(record)
    if dump_manifest(manifest) != unverified_data:
        raise CertificateInvalid("A manifest is not in its one JSON spelling.")
    return manifest


def _parse_record(record: JsonObject) -> Manifest:
    r = Reader(record, CertificateInvalid, "manifest")
    r.exactly("type", MANIFEST_TYPE)
    r.exactly("neighbours", NEIGHBOURS)
    manifest = Manifest(
        model_sha256=r.binary("model_sha256", 32),
        map_sha256=r.binary("map_sha256", 32),
        code_sha256=r.binary("code_sha256", 32),
        trained_at=r.time("trained_at"),
        cohort=r.integer("cohort", 0),
        epsilon_ppm=r.integer("epsilon_ppm", 0),
        delta_inverse=r.integer("delta_inverse", 1),
        charges=tuple(parse_charge(item) for item in r.objects("charges", at_most=64)),
        certificate=next((_parse_certificate(item) for item in r.objects("certificate", at_most=1)), None),
    )
    r.end()
    return manifest


def _parse_certificate(r: Reader) -> Certificate:
    values = {name: r.integer(name, low, _MAX_PPM) for name, low in _CERTIFICATE.items()}
    groups = tuple(_parse_group(item) for item in r.objects("groups", at_most=len(Activity)))
    r.end()
    if len({group.activity for group in groups}) != len(groups):
        raise CertificateInvalid("A certificate shows one group twice.")
    return Certificate(**values, groups=groups)


def _parse_group(r: Reader) -> Group:
    activity = r.word("activity", Activity)
    group = Group(activity, **{name: r.integer(name, low, _MAX_PPM) for name, low in _GROUP.items()})
    r.end()
    return group


def _measures(of: type[Certificate | Group]) -> dict[str, int]:
    signed = {"noise_repeats_ppm", "rows_noise_repeats_ppm", "gain_ppm", "calibration_gap_ppm"}
    names = (name for name in cast("tuple[str, ...]", of.__slots__) if name not in {"groups", "activity"})
    return {name: -_MAX_PPM if name in signed else 0 for name in names}


_CERTIFICATE: Final = _measures(Certificate)
_GROUP: Final = _measures(Group)
