"""The discrete Gaussian: the only noise an imprint row ever carries.

Source: Canonne, Kamath, Steinke, "The Discrete Gaussian for Differential Privacy" (2020), theorem 4:
an integer vector of L2 sensitivity C plus independent N_Z(0, sigma^2) per coordinate is rho-zCDP with
rho = C^2 / (2 sigma^2).
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Context, Decimal
from functools import lru_cache
from itertools import accumulate
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

Integers: TypeAlias = npt.NDArray[np.int64]
RandomBytes: TypeAlias = Callable[[int], bytes]

MAX_SIGMA: Final = 65_536
# 2,400,000 thresholds at most, each off by less than 2**-255, and less than 2**-232 of the mass beyond
# the table: together under 2**-228.
TOTAL_VARIATION: Final = 2.0**-200

_BITS: Final = 256
_LOW_BITS: Final = _BITS - 64
_DECIMAL: Final = Context(prec=100)
_REACH: Final = 18  # in sigma
_GUIDE_BITS: Final = 18
_CHUNK: Final = 1 << 14  # draws whose every step a processor's cache holds


@dataclass(frozen=True, slots=True)
class DiscreteGaussian:
    """N_Z(0, sigma^2): integer z has probability proportional to exp(-z^2 / (2 sigma^2)).

    Samples come from the operating system's cryptographic generator by inversion: a 256-bit uniform
    is compared with exact thresholds; 64 bits decide all but one draw in 2**44 or more.

    Args:
        sigma: Whole number of quantised units, 1 to 65,536. There is no zero: a release
            without noise cannot be written down.

    Raises:
        ValueError: Another sigma.

    Guarantees: each draw is independent and within `TOTAL_VARIATION` of the exact distribution;
    `vault.proof.accounting` takes that out of delta.
    """

    sigma: int

    def __post_init__(self) -> None:
        if type(self.sigma) is not int or not 1 <= self.sigma <= MAX_SIGMA:
            raise ValueError(f"sigma must be a whole number from 1 to {MAX_SIGMA}")

    def sample(self, shape: int | tuple[int, ...], random_bytes: RandomBytes = os.urandom) -> Integers:
        """Draw independent noise.

        Args:
            shape: Shape of the result; draw many rows at once, it is faster.
            random_bytes: Source of uniform bytes; anything but the default is for tests of this
                function alone.

        Returns:
            int64 array of that shape.
        """
        thresholds, high = _thresholds(self.sigma)
        count = int(np.prod(shape))
        found = np.empty(count, dtype=np.int64)
        for start in range(0, count, _CHUNK):
            chunk = found[start : start + _CHUNK]
            uniform = np.frombuffer(random_bytes(8 * len(chunk)), dtype="<u8", count=len(chunk))
            chunk[:] = _below(self.sigma, uniform)
            # Where the first 64 bits equal a threshold's, only the other 192 can tell the side.
            undecided = (chunk > 0) & (high[chunk - 1] == uniform)
            for at in np.flatnonzero(undecided):
                low = int.from_bytes(random_bytes(_LOW_BITS // 8), "little")
                chunk[at] = bisect_right(thresholds, (int(uniform[at]) << _LOW_BITS) | low)
            chunk -= len(thresholds) // 2
        return found.reshape(shape)


def _below(sigma: int, uniform: npt.NDArray[np.uint64]) -> Integers:
    """Return how many thresholds lie at or below each uniform: a search that mostly ends where it starts."""
    _, high = _thresholds(sigma)
    guide = _guide(sigma)
    top = (uniform >> np.uint64(64 - _GUIDE_BITS)).astype(np.int64)
    index = guide[top]
    several = np.flatnonzero(guide[top + 1] - index > 1)
    # Where one threshold at most has a uniform's leading bits, one comparison decides; after the last there is none.
    index = index + ((high[np.minimum(index, len(high) - 1)] <= uniform) & (index < len(high)))
    index[several] = np.searchsorted(high, uniform[several], side="right")
    return index


@lru_cache(maxsize=12)
def _guide(sigma: int) -> Integers:
    """Return how many thresholds lie below each value of the leading `_GUIDE_BITS` bits, and below the end."""
    _, high = _thresholds(sigma)
    starts = np.arange(1 << _GUIDE_BITS, dtype=np.uint64) << np.uint64(64 - _GUIDE_BITS)
    return np.append(np.searchsorted(high, starts, side="left"), len(high)).astype(np.int64)


@lru_cache(maxsize=12)
def _thresholds(sigma: int) -> tuple[tuple[int, ...], npt.NDArray[np.uint64]]:
    """Return floor(2**256 P[Z <= z]) for z from -18 sigma to 18 sigma - 1, and the top 64 bits of each."""
    reach = _REACH * sigma
    # exp(-(z+1)^2 / 2s^2) is its predecessor times exp(-(2z+1) / 2s^2): two multiplications a term.
    step = _DECIMAL.exp(_DECIMAL.divide(Decimal(-1), Decimal(2 * sigma * sigma)))
    double_step = _DECIMAL.multiply(step, step)
    weights = [Decimal(1)]
    for _ in range(reach):
        weights.append(_DECIMAL.multiply(weights[-1], step))
        step = _DECIMAL.multiply(step, double_step)
    cumulative = list(accumulate(weights[:0:-1] + weights, _DECIMAL.add))
    unit = _DECIMAL.divide(Decimal(1 << _BITS), cumulative[-1])
    thresholds = tuple(int(_DECIMAL.multiply(value, unit)) for value in cumulative[:-1])
    high = np.array([value >> _LOW_BITS for value in thresholds], dtype=np.uint64)
    return thresholds, high
