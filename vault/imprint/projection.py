"""Projected days: what is usual taken out, so that the noise hides only what is a person's own.

A day's codes are a unit vector (equal parts, whatever the number of codes). What people do on average is
subtracted, the rest is turned into a few directions, weighed by how much people differ in them, and
brought to whole numbers inside the clip. A day without a trace is zero and stays zero. Centre and
directions are public constants or outputs of a charged release about people, frozen for a chain's life.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from vault.imprint.noise import Integers

Floats = npt.NDArray[np.float64]

_FILLED: Final = 0.98  # of the clip before rounding, which may lengthen
_ACTIVE_PERCENT: Final = 5


@dataclass(frozen=True, eq=False)
class Projection:
    """How one day of a category becomes one bounded vector of whole numbers.

    Args:
        centre: float64[K], what an average day with a trace looks like.
        directions: float64[R, K].
        length: From which length on a projected day is shortened to the clip; shorter ones are scaled alike.
        clip: L2 norm, in quantised units, that no day's vector exceeds.

    Guarantees: for any input whatever and any centre, directions and length, not-a-number and infinities included, a
    day's vector is whole and its L2 norm at most `clip`; a day with no code is zero.
    """

    centre: Floats
    directions: Floats
    length: float
    clip: int

    @property
    def size(self) -> int:
        """Number of coordinates: the directions, then the active day."""
        return len(self.directions) + 1

    @property
    def active_day(self) -> int:
        """What a day with a trace adds to the last coordinate."""
        return math.isqrt(self.clip**2 * _ACTIVE_PERCENT // 100)

    @property
    def scale(self) -> float:
        """What one unit of length becomes for a day that is not shortened."""
        return _FILLED * math.sqrt(self.clip**2 - self.active_day**2) / self.length

    def day_vectors(self, present: npt.NDArray[np.bool_] | npt.NDArray[np.float64]) -> Integers:
        """Return the vectors of many days.

        Args:
            present: [N, K], whether each code occurred; anything but a finite positive number counts as absent.

        Returns:
            int64[N, R + 1].
        """
        occurred = (present > 0) & np.isfinite(present)
        count = occurred.sum(1)
        active = count > 0
        unit = occurred / np.sqrt(np.maximum(count, 1))[:, None]
        projected = (unit - self.centre) @ self.directions.T
        longer = np.maximum(np.linalg.norm(projected, axis=1) / self.length, 1.0)
        scaled = projected * (self.scale / longer)[:, None]
        # What is no number has no length to shorten: such a day would be as long as the largest whole number.
        scaled = np.where((active & np.isfinite(scaled).all(1))[:, None], scaled, 0.0)
        whole = whole_within(scaled, self.clip**2 - self.active_day**2)
        return np.concatenate([whole, np.where(active, self.active_day, 0)[:, None]], axis=1)


def whole_within(rows: Floats, square: int) -> Integers:
    """Round rows to whole numbers whose squares sum to at most `square`: towards zero, or to zero, where rounding is too long.

    Args:
        rows: float64[N, K], finite.
        square: Of the longest row allowed.
    """
    whole = np.rint(rows).astype(np.int64)
    for shorter in (np.trunc(rows).astype(np.int64), np.zeros_like(whole)):
        too_long = np.square(whole).sum(1) > square
        whole[too_long] = shorter[too_long]
    return whole
