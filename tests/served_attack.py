"""An attacker who knows everything of a person but one day, and sees every score that the twin can ever serve."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.stats import beta, norm

from vault.budget.days import sigma_of
from vault.imprint.block import Block, strategy_from
from vault.imprint.chain import errors
from vault.imprint.features import Cadence, FeatureMap, feature_map
from vault.imprint.noise import DiscreteGaussian
from vault.imprint.rows import Row, noisy
from vault.schema.answer import Confidence
from vault.schema.category import parse_category
from vault.schema.trace import parse_period
from vault.twin.infer import Reading, read, read_days
from vault.twin.reader import Backbone, closed_form, maps_of, taxonomy
from vault.twin.refresh import noise_of

_MONTH, _ASKED = parse_period("2026-08"), parse_period("2026-09")
_CODE = 40
PURCHASE = parse_category("pd:Purchase")
_CHAIN, _SHOWN, _DAY = date(2026, 10, 3), 90, 70  # a chain to the end of the year, whole, and a day of its later part
Floats: TypeAlias = npt.NDArray[np.float64]


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
    """Serve two neighbouring people over and over, from a month's row, and tell them apart.

    Args:
        answers: How many of each person; half to choose the rule on, half to count.
        noise_over_charged: 1 for the service as it is; less breaks it on purpose.

    Returns:
        What was found.
    """
    retail = feature_map(PURCHASE)
    noise = noise_of(retail)
    drawn = DiscreteGaussian(max(round(noise.sigma * noise_over_charged), 1))
    day = retail.day_vector([retail.codes[_CODE]])
    served = (_served(retail, drawn, noise.sigma, days * day, answers) for days in (3, 2))
    return _told_apart(*served, float(np.linalg.norm(day)) / noise.sigma)


def attack_days(answers: int, noise_over_charged: float = 1.0, model: Backbone | None = None) -> Attack:
    """Serve two neighbouring people over and over, from a quarter's daily rows, and tell them apart; see `attack`.

    The days of a model with a lens are seen through it.
    """
    retail = feature_map(PURCHASE, Cadence.DAILY)
    model = model or closed_form(retail)
    mapped, sigma = maps_of(retail, model)[-1], sigma_of(retail, late=False)
    drawn = DiscreteGaussian(max(round(sigma * noise_over_charged), 1))
    day = mapped.day_vector([retail.codes[_CODE]])
    served = (_served_days(retail, model, drawn, sigma, days * day, answers) for days in (1, 0))
    column = float(np.linalg.norm(strategy_from(_CHAIN).matrix[:_SHOWN, _DAY]))
    return _told_apart(*served, float(np.linalg.norm(day)) * column / sigma)


def _told_apart(with_day: Floats, without: Floats, mu: float) -> Attack:
    answers = len(with_day)
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
    return Attack((hits - alarms) / counted, least - most, float(2 * norm.cdf(mu / 2) - 1))


def _served(
    retail: FeatureMap, drawn: DiscreteGaussian, sigma: int, total: npt.NDArray[np.int64], answers: int
) -> Floats:
    """Return what a day's code could move, [answers, 5]: its score, its department's, everybody's, the confidence."""
    model = closed_form(retail)
    rows = (
        Row(bytes(32), retail.digest, _MONTH, 0, retail.clip, sigma, one) for one in noisy([total] * answers, drawn)
    )
    return np.array([_seen(retail, read(model, retail, [row], _ASKED)) for row in rows], dtype=np.float64)


def _served_days(  # noqa: PLR0917  (what a twin is made of)
    retail: FeatureMap,
    model: Backbone,
    drawn: DiscreteGaussian,
    sigma: int,
    vector: npt.NDArray[np.int64],
    answers: int,
) -> Floats:
    mapped, strategy, served = maps_of(retail, model)[-1], strategy_from(_CHAIN), []
    for _ in range(answers):
        values = errors(strategy, drawn.sample((_SHOWN, mapped.size)))
        values[_DAY] += vector
        blocks = [
            Block(
                bytes(32), mapped.digest, _CHAIN, _CHAIN + timedelta(days=at), mapped.clip, sigma, values[at : at + 30]
            )
            for at in (0, 30, 60)
        ]
        served.append(_seen(retail, read_days(model, retail, blocks, _CHAIN + timedelta(days=_SHOWN))))
    return np.array(served, dtype=np.float64)


def _seen(retail: FeatureMap, reading: Reading) -> list[float]:
    department = taxonomy(retail).department[: retail.size - 2]
    near = department @ department[_CODE] > 0
    score = np.array(list(reading.score_ppm.values()), dtype=np.float64) / 1e6
    sure = (reading.confidence is Confidence.HIGH, reading.confidence is Confidence.MEDIUM)
    return [score[_CODE], score[near].mean(), score.mean(), *sure]
