"""Training and certifying the head of visits: person-level private, one visit a person, by the audited descent.

Each person is trained on, calibrated with or held out by a coin of their own. A person has two examples, with the
page value and without, so that one head serves shops of either kind; both together are one clipped vector.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vault.clock import unix_s
from vault.imprint.features import FeatureMap
from vault.imprint.funnel import DIGEST, SIZE, without_page_value
from vault.imprint.noise import DiscreteGaussian
from vault.proof.certificate import Certificate, Manifest
from vault.proof.charge import Charge, People
from vault.twin import audit as auditing
from vault.twin import funnel
from vault.twin import train as training
from vault.twin.audit import CANARIES, AuditResult, audit
from vault.twin.audit_rows import audit_rows
from vault.twin.bookkeeping import Tensors
from vault.twin.funnel import BASE_RATE, HIDDEN, Floats, Head
from vault.twin.train import DELTA_INVERSE, Descent, Integers, accounted_epsilon, private_descent

Bools = npt.NDArray[np.bool_]

TRAINED_SHARE: Final = 0.7
CALIBRATED_SHARE: Final = 0.1
DESCENT: Final = Descent(noise_multiplier=4.83, sample_rate=0.2, steps=200, clip=2.0)

_LEARNING_RATE: Final = 0.1
_UNIT: Final = 1024
_NOISE: Final = 2.4  # of the two releases of integer sums, in sensitivities
_CALIBRATION_LENGTH: Final = math.sqrt(2 * (1.0 + 1.0 / 16))  # two gaps of at most 1, two variances of at most 1/4
_MEASURED_LENGTH: Final = math.sqrt(3.0)

CHARGES: Final = (
    DESCENT.charge(),
    Charge("calibration", People.HELD_OUT, int(_NOISE * 1e6), 1_000_000, 1),
    Charge("certificate", People.HELD_OUT, int(_NOISE * 1e6), 1_000_000, 1),
)


@dataclass(frozen=True, eq=False)
class Visits:
    """Visits that ended, one of each person.

    Args:
        facts: float32[people, SIZE] with page values.
        bought: float32[people], 0 or 1.
    """

    facts: Floats
    bought: Floats

    def of(self, people: Bools) -> Visits:
        """Return those of the marked people."""
        return Visits(self.facts[people], self.bought[people])


class _Averaged:
    """Adam with a rate that falls to zero, and the mean of the second half of its steps: both follow the noise."""

    def __init__(self, steps: int) -> None:
        self._steps, self._done, self._parameters, self._sums = steps, 0, list[Any](), list[Tensor]()

    def optimizer(self, parameters: Iterable[Any]) -> torch.optim.Optimizer:
        self._parameters = list(parameters)
        self._sums = [torch.zeros_like(p) for p in self._parameters]
        made = torch.optim.Adam(self._parameters, lr=_LEARNING_RATE, betas=(0.9, 0.99))
        schedule = torch.optim.lr_scheduler.LambdaLR(made, lambda step: max(1.0 - step / self._steps, 0.0))

        def after(*_: Any) -> None:
            if self._done >= self._steps // 2:
                for total, parameter in zip(self._sums, self._parameters, strict=True):
                    total.add_(parameter.detach())
            self._done += 1
            schedule.step()

        made.register_step_post_hook(after)
        return made

    def mean(self) -> list[Floats]:
        """Return the mean of each parameter, in the order in which they were given."""
        halved = self._steps - self._steps // 2
        return [(total / halved).numpy().astype(np.float32) for total in self._sums]


def train_head(visits: Visits, people: float, descent: Descent = DESCENT) -> Head:
    """Train the network.

    Args:
        visits: Of the people trained on.
        people: Their number: public, or a release.
        descent: Settings.

    Guarantees: those of `private_descent`; what is done after its noise reads nobody.
    """
    both = np.stack([visits.facts, without_page_value(visits.facts)], axis=1)
    tensors = {
        "facts": torch.from_numpy(both),
        "bought": torch.from_numpy(visits.bought)[:, None].expand(-1, 2).contiguous(),
        "present": torch.ones(len(both), 2),
    }
    start = {
        "first": torch.nn.init.uniform_(torch.empty(HIDDEN, SIZE), -1.0 / math.sqrt(SIZE), 1.0 / math.sqrt(SIZE)),
        "first_bias": torch.zeros(HIDDEN),
        "second": torch.zeros(HIDDEN),
        "bias": torch.tensor([math.log(BASE_RATE / (1.0 - BASE_RATE))]),
    }
    averaged = _Averaged(descent.steps)
    private_descent(_loss, start, tensors, descent, people, optimizer=averaged.optimizer)
    first, first_bias, second, bias = averaged.mean()
    return Head(DIGEST, first, first_bias, second, bias, np.zeros(2, dtype=np.float32))


def calibrate(head: Head, visits: Visits) -> Head:
    """Return the head with the offsets that a release about other people asks for: one step of Newton's.

    Args:
        head: Trained.
        visits: Of people it was not trained on.

    Guarantees: each person adds one integer vector of norm at most `_UNIT` times `_CALIBRATION_LENGTH`, hidden by a
        discrete Gaussian.
    """
    gaps, spreads = [], []
    for facts in (visits.facts, without_page_value(visits.facts)):
        probable = 1.0 / (1.0 + np.exp(-head.log_odds(facts)))
        gaps.append(visits.bought - probable)
        spreads.append(probable * (1.0 - probable))
    sums = _release(np.column_stack([*gaps, *spreads]), _CALIBRATION_LENGTH)
    offset = head.offset + np.clip(sums[:2] / np.maximum(sums[2:], 1.0), -1.0, 1.0).astype(np.float32)
    return Head(head.map_digest, head.first, head.first_bias, head.second, head.bias, offset)


def build_head(visits: Visits, mapped: FeatureMap, trained_at: datetime) -> tuple[Head, Manifest]:
    """Train, calibrate and certify a head; `verify_certificate` then decides whether it may serve.

    Args:
        visits: Of everybody. How many they are is public.
        mapped: Map of the rows that the same service makes; the certificate shows their audit, though no head reads rows.
        trained_at: Now.

    Guarantees: with one person added or removed, what is returned changes by at most the manifest's epsilon at
        delta 1 / `DELTA_INVERSE`.
    """
    coins = np.frombuffer(os.urandom(4 * len(visits.bought)), dtype=np.uint32) / 2**32
    trained, calibrated = coins < TRAINED_SHARE, coins >= 1.0 - CALIBRATED_SHARE
    head = train_head(visits.of(trained), TRAINED_SHARE * len(coins))
    head = calibrate(head, visits.of(calibrated))
    certificate = measure_head(head, visits.of(~trained & ~calibrated), mapped, audit())
    manifest = Manifest(
        model_sha256=head.digest,
        map_sha256=DIGEST,
        code_sha256=code_digest(),
        trained_at=unix_s(trained_at),
        cohort=len(coins) // 10 * 10,
        epsilon_ppm=math.ceil(accounted_epsilon(CHARGES) * 1e6),
        delta_inverse=DELTA_INVERSE,
        charges=CHARGES,
        certificate=certificate,
    )
    return head, manifest


def measure_head(head: Head, visits: Visits, mapped: FeatureMap, found: AuditResult) -> Certificate:
    """Release how well a head foretells the visits of people it was not trained on, page values known.

    The gain is in squared error below always saying the published base rate.
    """
    probable = 1.0 / (1.0 + np.exp(-head.log_odds(visits.facts)))
    gain = np.square(BASE_RATE - visits.bought) - np.square(probable - visits.bought)
    sums = _release(np.column_stack([gain, probable - visits.bought, np.ones(len(gain))]), _MEASURED_LENGTH)
    people, made = max(float(sums[2]), 1.0), audit_rows(mapped)
    return Certificate(
        audit_claimed_ppm=round(found.claimed * 1e6),
        audit_lower_bound_ppm=round(found.lower_bound * 1e6),
        audit_canaries=CANARIES,
        noise_ratio_ppm=round(found.noise_ratio * 1e6),
        noise_repeats_ppm=round(found.noise_repeats * 1e6),
        contribution_ratio_ppm=round(min(found.contribution_ratio, 1e6) * 1e6),
        rows_noise_ratio_ppm=round(min(made.noise_ratio, 1e6) * 1e6),
        rows_noise_repeats_ppm=round(made.noise_repeats * 1e6),
        rows_contribution_ratio_ppm=round(min(made.contribution_ratio, 1e6) * 1e6),
        gain_ppm=round(float(sums[0]) / people * 1e6),
        calibration_gap_ppm=round(float(sums[1]) / people * 1e6),
        noise_sd_ppm=math.ceil(_NOISE * _MEASURED_LENGTH / people * 1e6),
        held_out=round(people / 10) * 10,
    )


def code_digest() -> bytes:
    """Return SHA-256 over the sources of head, trainer and audit."""
    files = (str(module) for module in (funnel.__file__, training.__file__, auditing.__file__, __file__))
    return hashlib.sha256(b"".join(hashlib.sha256(Path(file).read_bytes()).digest() for file in files)).digest()


def _loss(parameters: Tensors, person: Tensors) -> Tensor:
    inner = torch.tanh(person["facts"] @ parameters["first"].T + parameters["first_bias"])
    odds = inner @ parameters["second"] + parameters["bias"]
    missed: Tensor = torch.nn.functional.softplus(odds) - odds * person["bought"]
    return missed.mean()


def _release(each: npt.NDArray[np.floating], length: float) -> npt.NDArray[np.float64]:
    """Return noisy sums of the rows of `each`, whose norm is at most `length`: summed in integers, towards zero."""
    whole: Integers = np.trunc(each * (_UNIT * (1 - 1e-9))).astype(np.int64)
    noisy = whole.sum(0) + DiscreteGaussian(math.ceil(_NOISE * length * _UNIT)).sample(whole.shape[1:])
    released: npt.NDArray[np.float64] = noisy / _UNIT
    return released
