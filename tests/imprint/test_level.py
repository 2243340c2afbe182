"""Levels: unbiased, under the known covariance, through holes and fresh chains, and no better than they claim."""

import math

import numpy as np
import pytest
import scipy.stats

from vault.imprint.chain import errors, power, prefix
from vault.imprint.level import Span, level, weights
from vault.imprint.noise import DiscreteGaussian

ALARM = 1e-9
SIGMA = 2000


def span(days: range | tuple[int, ...] = range(60), *, start: int = 0, sigma: int = SIGMA, horizon: int = 90) -> Span:
    return Span(prefix(horizon), start, sigma, tuple(days))


def test_without_drift_it_is_the_regression_of_the_released_sums() -> None:
    """GLS on rows = least squares of u = C y on C 1: one accumulator would do."""
    found = weights((span(),), 60, 0.0)
    matrix = prefix(90).matrix[:60, :60].astype(float)
    used = matrix.sum(1)
    assert np.allclose(found.of_rows, (used @ matrix) / (used @ used), atol=1e-9)
    assert found.noise_variance == pytest.approx(SIGMA**2 / (used @ used))
    assert found.of_rows.sum() == pytest.approx(1.0)


@pytest.mark.parametrize("drift", [0.0, 3.0, 1e4])
def test_a_steady_habit_is_estimated_without_bias_and_with_the_claimed_variance(drift: float) -> None:
    """A hole of a month and a fresh chain after it; 20,000 coordinates, two statistics, alarm `ALARM` each."""
    spans = (span((*range(20), *range(50, 60))), span(range(40), start=60, horizon=305, sigma=1500))
    rows = [
        errors(one.strategy, DiscreteGaussian(one.sigma).sample((max(one.present) + 1, 20_000)))[list(one.present)] + 7
        for one in spans
    ]
    estimate, found = level(rows, spans, 100, drift)
    z = scipy.stats.norm.isf(ALARM / 2)
    sd = math.sqrt(found.noise_variance)
    assert abs(estimate.mean() - 7) < z * sd / math.sqrt(20_000)
    assert abs(estimate.var() / found.noise_variance - 1) < z * math.sqrt(2 / 20_000) * 1.01


def test_a_hole_costs_more_than_its_days() -> None:
    full = weights((span(range(90)),), 90, 0.0).noise_variance
    holed = weights((span(tuple(d for d in range(90) if not 30 <= d < 60)),), 90, 0.0).noise_variance
    assert holed > full * 1.5


def test_a_drifting_habit_leans_on_recent_days() -> None:
    steady, drifting = (weights((Span(power(65, 90), 0, 10, tuple(range(90))),), 90, drift) for drift in (0.0, 100.0))
    age = 90 - np.arange(90)
    assert drifting.of_rows @ age < steady.of_rows @ age / 2
    assert drifting.noise_variance > steady.noise_variance


def test_only_rows_of_earlier_days_are_read_and_each_once() -> None:
    for spans, asked in (((span(),), 59), ((), 3), ((span(()),), 3)):
        with pytest.raises(ValueError, match="before the asked"):
            weights(spans, asked, 0.0)
    with pytest.raises(ValueError, match="one span"):
        weights((span(range(5)), span(range(5, 9))), 60, 0.0)
    with pytest.raises(ValueError, match="rising"):
        span((3, 2))
    with pytest.raises(ValueError, match="rising"):
        span((3, 90))
    with pytest.raises(ValueError, match="one row for each"):
        level([np.zeros((59, 2), dtype=np.int64)], (span(),), 60, 0.0)
