"""The rows that households' days become, by the mechanism that ships, many households at once."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from benchmarks._grocery import DAYS, Floats, Ints, Shops
from vault.budget.accounting import sigma_for
from vault.imprint.block import on_time_sensitivity
from vault.imprint.chain import Strategy, errors
from vault.imprint.level import Span, weights
from vault.imprint.noise import DiscreteGaussian

DELTA = 1e-6
CLOSES_AFTER = 2  # whole days between a day's end and its row
_AT_ONCE = 40  # people


@dataclass(frozen=True, eq=False)
class Filter:
    """What a question reads on each day of the year.

    Args:
        weights: float32[days, days], the asked day by the row's day.
        noise_variance: float32[days].
        square: float32[days] sum of squared weights.
        sigma: The chain's noise.
        strategy: The chain's.
        freshness: Days in one row.
    """

    weights: Floats
    noise_variance: Floats
    square: Floats
    sigma: int
    strategy: Strategy
    freshness: int


@lru_cache(maxsize=8)
def filter_of(
    strategy: Strategy, clip: int, epsilon: float, drift: float, freshness: int = 1, *, times: int = 1
) -> Filter:
    """Return the weights for every day under an owner-day epsilon.

    Args:
        strategy: Of one row for each `freshness` days.
        clip: Of a day.
        epsilon: At `DELTA`, a late row's reserved share included.
        drift: Variance of a level's daily change, relative to the squared clip.
        freshness: Days in one row.
        times: What mu^2 is multiplied by: above 1 a day is shown more than its epsilon allows.
    """
    sigma = sigma_for(epsilon, DELTA, on_time_sensitivity(strategy.sensitivity(clip)))
    sigma = math.ceil(sigma / math.sqrt(times))
    found, variance = np.zeros((DAYS, DAYS), dtype=np.float32), np.zeros(DAYS, dtype=np.float32)
    for day in range(DAYS):
        rows = (day - CLOSES_AFTER) // freshness  # all that closed before the day began
        if rows < 1:
            variance[day] = np.inf
            continue
        rows = min(rows, strategy.horizon)
        one = weights((Span(strategy, 0, sigma, tuple(range(rows))),), rows, drift * clip**2 * freshness**2 * freshness)
        found[day, : rows * freshness : freshness] = one.of_rows / freshness
        variance[day] = one.noise_variance / freshness**2
    return Filter(found, variance, np.square(found).sum(1) * freshness, sigma, strategy, freshness)


def levels(shops: Shops, asked: np.ndarray, vectors: Ints, chosen: Filter) -> Iterator[tuple[np.ndarray, Floats]]:
    """Yield the estimates at each asked shop: the shops' indices and float32[n, R].

    Rows are drawn anew on each call: real noise of real rows, `errors` of a whole year for each household.

    Args:
        shops: The people asked about.
        asked: bool[N] which shops are predicted.
        vectors: int64[N, R] of each shop's day.
        chosen: The chain's filter.
    """
    noise, size, strategy, freshness = (
        DiscreteGaussian(chosen.sigma),
        vectors.shape[1],
        chosen.strategy,
        chosen.freshness,
    )
    bounds = np.searchsorted(shops.person, np.arange(len(shops.people) + 1))
    for start in range(0, len(shops.people), _AT_ONCE):
        stop = min(start + _AT_ONCE, len(shops.people))
        drawn = errors(strategy, noise.sample((strategy.horizon, (stop - start) * size)))
        drawn = drawn.reshape(strategy.horizon, stop - start, size)
        for person in range(start, stop):
            here = np.arange(bounds[person], bounds[person + 1])
            wanted = here[asked[here]]
            if not len(wanted):
                continue
            rows = np.ascontiguousarray(drawn[:, person - start]).astype(np.float32)
            np.add.at(rows, np.minimum(shops.day[here] // freshness, strategy.horizon - 1), vectors[here])
            yield wanted, chosen.weights[shops.day[wanted]][:, ::freshness][:, : strategy.horizon] @ rows
