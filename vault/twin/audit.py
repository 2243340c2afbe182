"""The audit: does the trainer that made a model do what its accountant says?

It runs the production descent and grouping, at a small epsilon, on canaries: people whose gradient lies
in one coordinate of a block of parameters added for the audit, in the same clipped vector as the
rest. Half of them, by coin, take part; how well the result tells which is evidence against epsilon.
The sums that popularity and habits are made of are checked for noise and length beside it.
Audits refute implementations; the mechanism and its accountant prove.

Source: Steinke, Nasr, Jagielski, "Privacy Auditing with One (1) Training Run" (2023), theorem 5.2.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import binom
from torch import Tensor

from vault.proof.charge import epsilon_of
from vault.twin.bookkeeping import Tensors
from vault.twin.habits import HABITS_SIGMA, LONGEST, UNIT, noisy_sum
from vault.twin.reader import START, Reader
from vault.twin.train import Descent, Integers, Loss, group_people, private_descent, reading_loss

Group: TypeAlias = Callable[[Integers, Mapping[str, npt.NDArray[np.generic]]], Tensors]
Add: TypeAlias = Callable[[Iterable[npt.NDArray[np.float64]], int, int], npt.NDArray[np.float64]]
Descend: TypeAlias = Callable[[Loss, Tensors, Tensors, Descent, float], Tensors]

CANARIES: Final = 4_000
AUDITED: Final = Descent(noise_multiplier=7.5, sample_rate=0.8, steps=4, learning_rate=1.0)
DELTA: Final = 1e-6

_CONFIDENCE: Final = 0.95
_GUESSES: Final = (200, 600, 1_200, 2_400, 4_000)
_RECORDS: Final = 4  # months of each canary: a grouping by anything but the person quadruples its influence
_STRENGTH: Final = 10.0  # a canary's gradient before clipping, in clips
_CODES: Final = 6  # the audited reader is small: its gradients only have to be there


@dataclass(frozen=True, slots=True)
class AuditResult:
    """What the audit found.

    Args:
        claimed: Epsilon that the accountant gives for the audited run.
        lower_bound: Epsilon that the run refutes from below, at 95 % confidence.
        noise_ratio: Measured over configured noise of steps that draw nobody, or of sums over nobody: the one further
            from 1.
        noise_repeats: Correlation between the noises of two such runs, or sums: the larger.
        contribution_ratio: Length of the step that one person with a huge gradient and many records
            causes, over the clipping norm; or of what they add to a sum, over the longest charged: the larger.
    """

    claimed: float
    lower_bound: float
    noise_ratio: float
    noise_repeats: float
    contribution_ratio: float


def audit(descend: Descend = private_descent, group: Group = group_people, add: Add = noisy_sum) -> AuditResult:
    """Audit the trainer.

    Args:
        descend: The descent under audit; production's unless a test breaks it.
        group: The grouping of records into people under audit.
        add: The noisy sum under audit.

    Returns:
        The findings; `verify_certificate` judges them. A correct trainer is refuted by chance in fewer
        than 5 % of runs: the bound is Bonferroni-corrected over the numbers of guesses tried, and the
        accountant's epsilon is itself an upper bound.
    """
    taken = np.frombuffer(os.urandom(CANARIES), dtype=np.uint8) % 2 == 1
    people = group(*_canaries(np.flatnonzero(taken)))
    result = descend(_canary_loss(), _start(), people, AUDITED, float(taken.sum()))
    ratios, repeats, contributions = zip(_checks(descend, group), _checks_of_sums(add), strict=True)
    return AuditResult(
        claimed=epsilon_of([AUDITED.charge()], DELTA),
        lower_bound=_lower_bound(-result["canary"].numpy(), taken),
        noise_ratio=max(ratios, key=lambda ratio: abs(ratio - 1.0)),
        noise_repeats=max(repeats, key=abs),
        contribution_ratio=max(contributions),
    )


def one_run_p_value(guesses: int, right: int, epsilon: float, delta: float, canaries: int) -> float:
    """Return how probable it is that an (epsilon, delta)-private run allows so many right guesses.

    Source: Steinke et al. 2023, theorem 5.2, with the maximum over i taken in one pass.
    """
    chance = 1.0 / (1.0 + math.exp(-epsilon))
    mass = np.cumsum(binom.pmf(np.arange(right - 1, -1, -1), guesses, chance))  # P[v > W >= v - i], i = 1, 2, ...
    slack = float(np.max(mass / np.arange(1, right + 1), initial=0.0))
    return min(1.0, float(binom.sf(right - 1, guesses, chance)) + 2 * canaries * delta * slack)


def _lower_bound(scores: npt.NDArray[np.float32], taken: npt.NDArray[np.bool_]) -> float:
    order = np.argsort(scores, kind="stable")
    best = 0.0
    for guesses in _GUESSES:
        right = int((~taken[order[: guesses // 2]]).sum() + taken[order[-(guesses // 2) :]].sum())
        low, high = 0.0, 10.0
        for _ in range(20):
            middle = (low + high) / 2
            p = one_run_p_value(guesses, right, middle, DELTA, CANARIES)
            low, high = (middle, high) if p < (1 - _CONFIDENCE) / len(_GUESSES) else (low, middle)
        best = max(best, low)
    return best


def _canaries(taken: Integers, records: int = _RECORDS) -> tuple[Integers, dict[str, npt.NDArray[np.generic]]]:
    """Return the records of the canaries, shuffled as they would lie in a store."""
    order = np.random.default_rng().permutation(len(taken) * records)
    person, month = np.repeat(taken, records)[order], np.tile(np.arange(records), len(taken))[order]
    count = len(person)
    return person, {
        "month": month,
        "rows": np.zeros((count, _CODES + 1)),
        "sigma": np.ones(count, dtype=np.int64),
        "days": np.zeros(count, dtype=np.int64),
        "chosen": np.zeros((count, _CODES), dtype=np.int64),
        "mark": person.copy(),
    }


def _canary_loss(strength: float = _STRENGTH) -> Loss:
    codes, usual = torch.eye(_CODES), torch.full((_CODES,), 0.1)
    reading = reading_loss(Reader(usual, codes, 1, 1, codes[:0], codes[0, :0], codes[0, :0], usual))

    def loss(parameters: Tensors, person: Tensors) -> Tensor:
        marked = parameters["canary"][person["mark"].long()] * person["present"]
        return reading(parameters, person) + strength * marked.sum() / person["present"].sum().clamp(min=1.0)

    return loss


def _start() -> Tensors:
    return {"scalars": torch.tensor(list(START.values())), "canary": torch.zeros(CANARIES)}


def _checks(descend: Descend, group: Group) -> tuple[float, float, float]:
    """Return noise ratio, repetition and contribution ratio: see `AuditResult`."""
    loss, nobody = _canary_loss(), group(*_canaries(np.zeros(0, dtype=np.int64)))
    one, two = (descend(loss, _start(), nobody, AUDITED, 1.0)["canary"].double().numpy() for _ in range(2))
    # Independent noises add up to sqrt(steps); one noise used again in each step to steps.
    per_step = AUDITED.noise_multiplier * AUDITED.clip * AUDITED.learning_rate / AUDITED.sample_rate
    ratio = float(np.std(one)) / (per_step * math.sqrt(AUDITED.steps))
    repeats = float(np.corrcoef(one, two)[0, 1]) if one.any() and two.any() else 1.0
    somebody = group(*_canaries(np.zeros(1, dtype=np.int64), records=1_000))
    quiet = replace(AUDITED, noise_multiplier=1e-6, sample_rate=1.0, steps=1)
    moved = descend(_canary_loss(1e6), _start(), somebody, quiet, 1.0)
    step = math.hypot(*((moved[name] - value).double().norm().item() for name, value in _start().items()))
    return ratio, repeats, step / quiet.clip


def _checks_of_sums(add: Add) -> tuple[float, float, float]:
    """Return the same three of the sums over people."""
    one, two = (add([], CANARIES, HABITS_SIGMA) * LONGEST for _ in range(2))
    repeats = float(np.corrcoef(one, two)[0, 1]) if one.any() and two.any() else 1.0
    moved = add([np.full((1, 1), 1e9)], 1, 1) * LONGEST
    return float(np.std(one)) / HABITS_SIGMA, repeats, float(np.abs(moved[0])) / UNIT
