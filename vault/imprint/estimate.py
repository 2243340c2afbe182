"""What a reader can know from imprint rows: sums, their noise, and a guess that weighs both.

Everything here is post-processing of released rows: it reads nothing private and costs no budget.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from vault.imprint.features import FeatureMap
from vault.imprint.rows import Row

Floats: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Estimate:
    """Noisy sums over a window of independent monthly rows.

    Args:
        total: float64[K - 1], unbiased; 1.0 is one day on which the code stood alone, 1/sqrt(n) one
            day on which it was one of n. The active-day coordinate is left out.
        noise_variance: Variance of the noise in each coordinate of `total`.
        active_days: Unbiased estimate of the (weighted) number of days with a trace; may be negative.
        active_days_variance: Variance of the noise in it.
        months: Number of rows.
    """

    total: Floats
    noise_variance: float
    active_days: float
    active_days_variance: float
    months: int


@dataclass(frozen=True, eq=False)
class Posterior:
    """Mean and variance of every coordinate after seeing an estimate.

    Args:
        mean: float64[K - 1].
        variance: float64[K - 1], never above the prior's.
    """

    mean: Floats
    variance: Floats


def estimate(feature_map: FeatureMap, rows: Sequence[Row], weights: Sequence[float] | None = None) -> Estimate:
    """Return the weighted sum of rows and what is known about its noise.

    Args:
        feature_map: The map that every row was made under.
        rows: Rows of distinct months; none at all gives zeros with no noise over no months.
        weights: One weight per row, 1 each by default; smaller ones for older months follow habits that drift.

    Returns:
        The estimate. The sampled noise is discrete, its variance at most sigma^2.

    Raises:
        ValueError: Rows of another map, two rows of one month, or another number of weights.
    """
    if any(row.map_digest != feature_map.digest or len(row.values) != feature_map.size for row in rows):
        raise ValueError("rows of another feature map cannot be summed with these")
    if len({row.period for row in rows}) != len(rows):
        raise ValueError("two rows describe the same month; pass the one that is in force")
    weight = np.ones(len(rows)) if weights is None else np.asarray(weights, dtype=np.float64)
    if weight.shape != (len(rows),):
        raise ValueError("there must be one weight per row")
    values = np.array([row.values for row in rows], dtype=np.float64).reshape(len(rows), feature_map.size)
    total = weight @ values
    variance = float(weight**2 @ np.array([row.sigma**2 for row in rows], dtype=np.float64))
    return Estimate(
        total=total[:-1] / feature_map.content,
        noise_variance=variance / feature_map.content**2,
        active_days=float(total[-1]) / feature_map.active_day,
        active_days_variance=variance / feature_map.active_day**2,
        months=len(rows),
    )


def posterior(seen: Estimate, prior_mean: Floats, prior_variance: Floats) -> Posterior:
    """Return the normal posterior of the sums, coordinate by coordinate: shrinkage towards the prior.

    Args:
        seen: The estimate.
        prior_mean: float64[K - 1] expected sums over the same window, in the estimate's units.
        prior_variance: float64[K - 1], non-negative; how much people differ.

    Returns:
        The posterior; where the prior is certain, the prior.
    """
    spread = prior_variance + seen.noise_variance
    gain = np.divide(prior_variance, spread, out=np.zeros_like(spread), where=spread > 0)
    return Posterior(prior_mean + gain * (seen.total - prior_mean), (1.0 - gain) * prior_variance)
