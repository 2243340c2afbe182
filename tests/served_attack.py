"""An attacker who knows everything of a person but one day, and sees every score that the twin can ever serve."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import beta, norm

from vault.imprint.features import FeatureMap, feature_map
from vault.imprint.noise import DiscreteGaussian
from vault.imprint.rows import Row, noisy
from vault.schema.answer import Confidence
from vault.schema.category import parse_category
from vault.schema.trace import parse_period
from vault.twin.infer import read
from vault.twin.reader import closed_form, taxonomy
from vault.twin.refresh import noise_of

_MONTH, _ASKED = parse_period("2026-08"), parse_period("2026-09")
_CODE = 40


@dataclass(frozen=True)
class Attack:
    """How well served scores with and without one day are told apart.

    Args:
        advantage: True less false alarms of the best linear rule, chosen on other answers.
        low: What it is at least, at 97.5 % confidence.
        bound: What no attack on the released rows can pass, from the charged noise alone.
    """

    advantage: float
    low: float
    bound: float


def attack(answers: int, noise_over_charged: float = 1.0) -> Attack:
    """Serve two neighbouring people over and over and tell them apart.

    Args:
        answers: How many of each person; half to choose the rule on, half to count.
        noise_over_charged: 1 for the service as it is; less breaks it on purpose.

    Returns:
        What was found.
    """
    retail = feature_map(parse_category("pd:Purchase"))
    noise = noise_of(retail)
    drawn = DiscreteGaussian(max(round(noise.sigma * noise_over_charged), 1))
    day = retail.day_vector([retail.codes[_CODE]])
    with_day, without = (_served(retail, drawn, noise.sigma, days * day, answers) for days in (3, 2))
    half = answers // 2
    known, label = np.concatenate([with_day[:half], without[:half]]), np.repeat([1.0, -1.0], half)
    spread = np.cov(known, rowvar=False) + 1e-9 * np.eye(known.shape[1])
    rule = np.linalg.solve(spread, with_day[:half].mean(0) - without[:half].mean(0))
    chosen = known @ rule
    cut = max(np.quantile(chosen, np.linspace(0.01, 0.99, 99)), key=lambda at: float(((chosen >= at) * label).sum()))
    hits, alarms = (int((one[half:] @ rule >= cut).sum()) for one in (with_day, without))
    counted = answers - half
    least = float(beta.ppf(0.0125, hits, counted - hits + 1)) if hits else 0.0
    most = float(beta.ppf(0.9875, alarms + 1, counted - alarms)) if alarms < counted else 1.0
    mu = float(np.linalg.norm(day)) / noise.sigma
    return Attack((hits - alarms) / counted, least - most, float(2 * norm.cdf(mu / 2) - 1))


def _served(
    retail: FeatureMap, drawn: DiscreteGaussian, sigma: int, total: npt.NDArray[np.int64], answers: int
) -> npt.NDArray[np.float64]:
    """Return what a day's code could move, [answers, 5]: its score, its department's, everybody's, the confidence."""
    model, department = closed_form(retail), taxonomy(retail).department[: retail.size - 2]
    near = department @ department[_CODE] > 0
    served = []
    for values in noisy([total] * answers, drawn):
        row = Row(bytes(32), retail.digest, _MONTH, 0, retail.clip, sigma, values)
        reading = read(model, retail, [row], _ASKED)
        score = np.array(list(reading.score_ppm.values()), dtype=np.float64) / 1e6
        sure = (reading.confidence is Confidence.HIGH, reading.confidence is Confidence.MEDIUM)
        served.append([score[_CODE], score[near].mean(), score.mean(), *sure])
    return np.array(served, dtype=np.float64)
