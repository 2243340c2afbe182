"""What daily rows say about today's habit: the best linear estimate under the known covariance.

Everything here is post-processing of released rows: it reads nothing private and costs no budget. The
rows of one chain carry correlated noise, y = x + C^-1 z up to remainders far below it; chains are
independent of one another. With the level of a habit drifting as a random walk, the estimate of its
value on the asked day is the generalised least squares one, w = V^-1 1 / (1' V^-1 1).

Source: Aitken (1936) for V the noise alone; Kalman (1960) for the drift, which lets old days fade.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from vault.imprint.chain import Strategy
from vault.imprint.noise import Integers

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Span:
    """Rows of one chain.

    Args:
        strategy: The chain's strategy.
        start: Day number of the chain's first row, on one calendar for all spans.
        sigma: The chain's noise, in units of u.
        present: Which rows there are, rising; after an erasure there are holes.
    """

    strategy: Strategy
    start: int
    sigma: int
    present: tuple[int, ...]

    def __post_init__(self) -> None:
        inside = all(0 <= at < self.strategy.horizon for at in self.present)
        if not inside or any(a >= b for a, b in zip(self.present, self.present[1:], strict=False)):
            raise ValueError("a span's rows are rising and inside its chain's horizon")


@dataclass(frozen=True, eq=False)
class Weights:
    """How to add rows up, and what is known about the result.

    Args:
        of_rows: float64[rows], in the order of the spans and their rows; they sum to 1.
        noise_variance: Of the noise in the weighted sum, in each coordinate, in the rows' units.
        square: Sum of squared weights: what a day's own accident adds to the variance.
    """

    of_rows: Floats
    noise_variance: float
    square: float


@lru_cache(maxsize=64)
def covariance(strategy: Strategy) -> Floats:
    """Return float64[horizon, horizon]: the covariance of a whole chain's stored noise at sigma 1, without remainders."""
    inverse = np.linalg.inv(strategy.matrix.astype(np.float64))
    return inverse @ inverse.T


@lru_cache(maxsize=1024)
def weights(spans: tuple[Span, ...], asked: int, drift: float) -> Weights:
    """Return the weights of the best estimate of a level.

    Args:
        spans: All rows there are; of different chains, or of one before and after a hole.
        asked: Day number; every row's day lies before it.
        drift: Variance of a level's change from one day to the next, in the rows' squared units.

    Raises:
        ValueError: No row, a row of the asked day or later, or one chain twice.
    """
    days = np.concatenate([span.start + np.array(span.present, dtype=np.float64) for span in spans]) if spans else None
    if days is None or not len(days) or days.max() >= asked:
        raise ValueError("a level is estimated from at least one row, all of days before the asked one")
    if len({(span.strategy, span.start) for span in spans}) != len(spans):
        raise ValueError("one chain's rows are one span, or their noise would count as independent")
    noise, at = np.zeros((len(days), len(days))), 0
    for span in spans:
        here = slice(at, at + len(span.present))
        noise[here, here] = float(span.sigma) ** 2 * covariance(span.strategy)[np.ix_(span.present, span.present)]
        at = here.stop
    age = asked - days
    total = noise + drift * np.minimum(age[:, None], age[None, :])
    found = np.linalg.solve(total, np.ones(len(days)))
    found /= found.sum()
    return Weights(found, float(found @ noise @ found), float(found @ found))


def level(rows: Sequence[Integers], spans: tuple[Span, ...], asked: int, drift: float) -> tuple[Floats, Weights]:
    """Return today's level: float64[K], unbiased for a steady habit, and the weights that made it.

    Args:
        rows: For each span int64[rows, K], all under the same feature map: another map's rows are another habit.
        spans: See `weights`.
        asked: See `weights`.
        drift: See `weights`.

    Raises:
        ValueError: See `weights`; or rows that are not those of the spans.
    """
    if [len(part) for part in rows] != [len(span.present) for span in spans]:
        raise ValueError("there must be one row for each that a span names")
    found = weights(spans, asked, drift)
    return found.of_rows @ np.concatenate(rows).astype(np.float64), found
