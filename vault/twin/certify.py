"""From a cohort to a backbone with its manifest: split, train, audit, measure on people held out."""

from __future__ import annotations

import hashlib
import math
import os
from datetime import datetime
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from vault.clock import unix_s
from vault.imprint import lens as lenses
from vault.imprint.features import FeatureMap
from vault.imprint.noise import DiscreteGaussian
from vault.proof.certificate import Activity, Certificate, Group, Manifest, Required
from vault.proof.charge import Charge, People
from vault.twin import audit as auditing
from vault.twin import habits as habits_of
from vault.twin import reader as reading
from vault.twin import train as training
from vault.twin.audit import CANARIES, AuditResult, audit
from vault.twin.audit_rows import audit_all_rows
from vault.twin.habits import HABITS_CHARGE, POPULARITY_CHARGE
from vault.twin.reader import Backbone, Reader, maps_of
from vault.twin.train import (
    DELTA_INVERSE,
    DESCENT,
    Integers,
    PersonMonths,
    accounted_epsilon,
    read_odds,
    train,
)

HELD_OUT_SHARE: Final = 0.2

_UNIT: Final = 1024  # in integers, what `_LARGEST` becomes
_LARGEST: Final = 0.15  # one person's gain and calibration gap are clipped to this
_COUNTED: Final = 256
_DIFFERENCE: Final = 2  # what people of the two groups differ in is released divided by this
_SENSITIVITY: Final = math.hypot(_UNIT, _UNIT, _COUNTED) * math.hypot(1.0, 1.0 / _DIFFERENCE)
_SIGMA: Final = 2_907
_LIGHT_BELOW: Final = 4.0  # days with a trace in a month: a public bound between the groups
_RANKS: Final = 10
_CERTIFICATE_CHARGE: Final = Charge("certificate", People.HELD_OUT, int(_SIGMA / _SENSITIVITY * 1e6), 1_000_000, 1)

CHARGES: Final = (POPULARITY_CHARGE, HABITS_CHARGE, DESCENT.charge(), _CERTIFICATE_CHARGE)
"""What every backbone costs, known before anyone is read: reserve it first."""


def build_backbone(
    records: PersonMonths, feature_map: FeatureMap, trained_at: datetime, known: Backbone | None = None
) -> tuple[Backbone, Manifest]:
    """Train and certify a backbone; `verify_certificate` then decides whether it may serve.

    Args:
        records: The cohort: people under a live cohort consent.
        feature_map: The map of their rows.
        trained_at: Now.
        known: The backbone whose lens rows are made through since.

    Raises:
        CohortTooSmall: Nobody to learn from, or too many people for the published delta.

    Guarantees: with one person added or removed, everything returned changes by at most the manifest's
        epsilon at delta 1 / `DELTA_INVERSE`. Each person is trained on or held out by a coin of their own,
        so that nobody pays for both.
    """
    everyone = np.unique(records.person)
    coins = np.frombuffer(os.urandom(4 * len(everyone)), dtype=np.uint32)
    held_out = coins < HELD_OUT_SHARE * 2**32
    backbone, people, charges = train(records.of(~held_out, everyone), feature_map, known)
    certificate, charge = measure(backbone, records.of(held_out, everyone), feature_map, audit())
    charges = (*charges, charge)
    manifest = Manifest(
        model_sha256=backbone.digest,
        map_sha256=feature_map.digest,
        code_sha256=code_digest(),
        trained_at=unix_s(trained_at),
        cohort=max(round((people + certificate.held_out) / 10) * 10, 0),
        epsilon_ppm=math.ceil(accounted_epsilon(charges) * 1e6),
        delta_inverse=DELTA_INVERSE,
        charges=charges,
        certificate=certificate,
    )
    return backbone, manifest


def code_digest() -> bytes:
    """Return SHA-256 over the sources of reader, lens, habits, trainer, audit and certificate."""
    sources = (
        Path(str(module)).read_bytes()
        for module in (
            reading.__file__,
            lenses.__file__,
            habits_of.__file__,
            training.__file__,
            auditing.__file__,
            __file__,
        )
    )
    return hashlib.sha256(b"".join(hashlib.sha256(source).digest() for source in sources)).digest()


def measure(
    backbone: Backbone, held_out: PersonMonths, feature_map: FeatureMap, found: AuditResult
) -> tuple[Certificate, Charge]:
    """Release how well a backbone predicts people it was not trained on.

    Args:
        backbone: The trained model.
        held_out: Everything of the people held out.
        feature_map: The map of their rows.
        found: What the audit found; it reads nobody.

    Returns:
        The certificate, and what each person held out is charged.

    Guarantees: each person adds one integer vector of norm at most `_SENSITIVITY`, and a discrete
        Gaussian hides it.
    """
    made = audit_all_rows(maps_of(feature_map, backbone))
    exact = _contributions(backbone, held_out, feature_map).sum(0)
    together, apart = exact + DiscreteGaussian(_SIGMA).sample(exact.shape)
    people, (gain, gap), noise_sd = _means(together, _SIGMA)
    # Sum and difference give each group's own sum, with the noise of both.
    halves = {
        Activity.LIGHT: (together + _DIFFERENCE * apart) / 2,
        Activity.HEAVY: (together - _DIFFERENCE * apart) / 2,
    }
    certificate = Certificate(
        audit_claimed_ppm=round(found.claimed * 1e6),
        audit_lower_bound_ppm=round(found.lower_bound * 1e6),
        audit_canaries=CANARIES,
        noise_ratio_ppm=round(found.noise_ratio * 1e6),
        noise_repeats_ppm=round(found.noise_repeats * 1e6),
        contribution_ratio_ppm=round(min(found.contribution_ratio, 1e6) * 1e6),
        rows_noise_ratio_ppm=round(min(made.noise_ratio, 1e6) * 1e6),
        rows_noise_repeats_ppm=round(made.noise_repeats * 1e6),
        rows_contribution_ratio_ppm=round(min(made.contribution_ratio, 1e6) * 1e6),
        gain_ppm=gain,
        calibration_gap_ppm=gap,
        noise_sd_ppm=noise_sd,
        held_out=people,
        groups=tuple(
            group for activity, sums in halves.items() if (group := _group(activity, sums)).people >= Required().group
        ),
    )
    return certificate, _CERTIFICATE_CHARGE


def _group(activity: Activity, sums: Integers) -> Group:
    people, (gain, gap), noise_sd = _means(sums, _SIGMA * math.hypot(1.0, _DIFFERENCE) / 2)
    return Group(activity, people, gain, gap, noise_sd)


def _means(sums: Integers, sigma: float) -> tuple[int, tuple[int, int], int]:
    """Return people rounded to 10, mean gain and gap in millionths, and the standard deviation of their noise."""
    people = max(float(sums[-1]) / _COUNTED, 1.0)
    gain, gap = (round(float(value) * _LARGEST / _UNIT / people * 1e6) for value in sums[:-1])
    return round(people / 10) * 10, (gain, gap), math.ceil(sigma * _LARGEST / _UNIT / people * 1e6)


def _contributions(backbone: Backbone, held_out: PersonMonths, feature_map: FeatureMap) -> Integers:
    """Return [people, 2, 3]: gain, calibration gap and a one, once as they are and once divided, minus for the heavy."""
    figures = _figures(backbone, held_out, feature_map).clip(-_LARGEST, _LARGEST) / _LARGEST
    people = held_out.grouped()
    days_a_month = people["days"].sum(1) / people["present"].sum(1).clamp(min=1.0)
    sign = np.where(days_a_month.numpy() < _LIGHT_BELOW, 1, -1)[:, None]
    each = np.column_stack([np.trunc(figures * _UNIT), np.full(len(figures), _COUNTED)]).astype(np.int64)
    return np.stack([each, sign * np.trunc(each / _DIFFERENCE).astype(np.int64)], axis=1)


@torch.inference_mode()
def _figures(backbone: Backbone, held_out: PersonMonths, feature_map: FeatureMap) -> npt.NDArray[np.float64]:
    """Return [people, 2]: gain in NDCG@10 over popularity, and predicted minus observed frequency of the best ten.

    A month's codes are graded by the days on which they occurred; months are weighted by days.
    """
    people = held_out.grouped()
    reader = Reader.of(feature_map, backbone)
    odds = read_odds(reader, torch.from_numpy(backbone.scalars), people)
    days = people["days"]
    frequency = people["chosen"] / days.clamp(min=1.0).unsqueeze(-1)
    gain = _ndcg(odds, frequency) - _ndcg(reader.popularity.expand_as(odds), frequency)
    best = odds.topk(min(_RANKS, odds.shape[-1]), dim=-1)
    gap = (torch.sigmoid(best.values) - frequency.gather(-1, best.indices)).mean(-1)
    share = days / days.sum(-1, keepdim=True).clamp(min=1.0)
    figures: npt.NDArray[np.float64] = torch.stack([(gain * share).sum(-1), (gap * share).sum(-1)], -1).double().numpy()
    return figures


def _ndcg(scores: torch.Tensor, relevance: torch.Tensor) -> torch.Tensor:
    ranks = min(_RANKS, scores.shape[-1])
    discount = 1.0 / torch.log2(torch.arange(2.0, ranks + 2.0))
    got = (relevance.gather(-1, scores.topk(ranks, dim=-1).indices) * discount).sum(-1)
    ideal = (relevance.topk(ranks, dim=-1).values * discount).sum(-1)
    return got / ideal.clamp(min=1e-9)
