"""Accounting on one fixed grid of Renyi orders, and exactly where all noise is Gaussian; rounded against the spender.

Sources: zCDP of the discrete Gaussian: Canonne, Kamath, Steinke 2020, theorem 4; composition: Mironov 2017,
proposition 1; conversion to (epsilon, delta): Canonne, Kamath, Steinke 2020, proposition 12. Of Gaussian noise alone:
composition by Dong, Roth, Su 2022, corollary 3.3; conversion by Balle, Wang 2018, theorem 8.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Final

from vault.proof.charge import Charge, People, rdp_curve

GRID: Final = "grid/1"
"""Name of the grid below; charges name it, so that no other grid is ever read as this one."""

# Dense where a day's or a year's epsilon of 0.5 to 8 has its best order.
ORDERS: Final[tuple[float, ...]] = (
    *(1.25, 1.5, 1.75),
    *(n / 2 for n in range(4, 21)),
    *range(11, 33),
    *(36, 40, 48, 56, 64, 96, 128, 192, 256, 512),
)

_NANO: Final = 10**9
_MOST: Final = 2**53 - 1  # stands for "no bound": the largest integer a signed record may hold
# Released noise is within 2**-200 a draw of the exact distribution. This share of delta pays for it
# many times over: 2**40 draws at epsilon 20 cost (1 + e**20) * 2**-160 < 2**-130, and no delta is below 2**-60.
_DELTA_FOR_ANALYSIS: Final = 1 - 2.0**-40
_DELTA_FOR_EXACT: Final = 1 - 2.0**-20  # the last digits of the error function too
_ROUNDED: Final = 8  # variance of a random rounding that makes continuous noise discrete: see `gaussian`
_NEAR: Final = 1e-12  # part of an epsilon that the search for it leaves open
_OVERFLOWS: Final = 700.0  # an epsilon whose exponential is no number


@dataclass(frozen=True, slots=True)
class Curve:
    """A mechanism's Renyi divergence bound at every order of `ORDERS`, and what is known beyond it of Gaussian noise.

    Args:
        nano: Billionths, rounded up, one for each order.
        mu2_nano: Billionths of mu^2, rounded up, where all noise is Gaussian: it is then mu-Gaussian private. None
            where any is not, or that is not known.

    Raises:
        ValueError: Another number of orders, or a negative bound.
    """

    nano: tuple[int, ...]
    mu2_nano: int | None = None

    def __post_init__(self) -> None:
        if len(self.nano) != len(ORDERS) or min(self.nano) < 0 or (self.mu2_nano or 0) < 0:
            raise ValueError("a curve has one non-negative bound for every order")

    def __add__(self, other: Curve) -> Curve:
        """Return the cost of releasing both (adaptive composition at each order, and of mu^2)."""
        known = None if self.mu2_nano is None or other.mu2_nano is None else self.mu2_nano + other.mu2_nano
        return Curve(tuple(a + b for a, b in zip(self.nano, other.nano, strict=True)), known)

    def epsilon(self, delta: float) -> float:
        """Return the smallest epsilon that the curve proves at this delta.

        Args:
            delta: Between 2**-60 and 1.
        """
        if not any(self.nano):
            return 0.0
        low, high = 0.0, max(0.0, min(n / _NANO + tax for n, tax in zip(self.nano, _taxes(delta), strict=True)))
        if self.mu2_nano is None or high > _OVERFLOWS or not _keeps(self.mu2_nano, high, delta):
            return high
        while high - low > _NEAR * high:
            middle = (low + high) / 2
            low, high = (low, middle) if _keeps(self.mu2_nano, middle, delta) else (middle, high)
        return high


NOTHING: Final = Curve((0,) * len(ORDERS), 0)


@lru_cache(maxsize=256)
def gaussian(sensitivity: int, sigma: int, releases: int = 1) -> Curve:
    """Return the cost of discrete (or continuous) Gaussian noise.

    Discrete noise of variance sigma^2 around whole numbers v is continuous noise of variance sigma^2 - s^2 around
    them, each number y of it rounded at random: to z with probability in proportion to exp(-(z - y)^2 / (2 s^2)). By
    Poisson's sum these weights add up to s (2 pi)^0.5 (1 +- e) whatever y is, e = 2.1 exp(-2 pi^2 s^2), so each
    probability of z is off by a factor of 1 +- 3 e at most: below 2**-220 at s^2 = 8, less than what `delta` keeps
    for the sampler. What is made of continuous noise costs no more than that noise, whose mu is exact.

    Args:
        sensitivity: L2 norm of the largest change between neighbours, whole in every coordinate, in quantised units.
        sigma: Noise in the same units, at least 1.
        releases: How many such releases of the same data.

    Raises:
        ValueError: One of the three is below what it may be.

    Source: Peikert, "An Efficient and Parallel Gaussian Sampler for Lattices" (2010), theorem 3.1, for the rounding.
    """
    if sigma < 1 or sensitivity < 0 or releases < 0:
        raise ValueError("sigma is at least 1, sensitivity and releases are not negative")
    rho = Fraction(sensitivity**2, 2 * sigma**2)
    nano = tuple(releases * math.ceil(Fraction(order) * rho * _NANO) for order in ORDERS)
    if sigma**2 <= _ROUNDED:
        return Curve(nano)
    mu2_nano = releases * math.ceil(Fraction(sensitivity**2 * _NANO, sigma**2 - _ROUNDED))
    return Curve(nano, mu2_nano if mu2_nano <= _MOST else None)


def pure(epsilon: float) -> Curve:
    """Return the cost of an epsilon-DP mechanism.

    Source: Bun and Steinke 2016, proposition 3.3.

    Args:
        epsilon: Positive.
    """
    return from_renyi([min(epsilon, order * epsilon**2 / 2) for order in ORDERS])


def from_renyi(bounds: Sequence[float]) -> Curve:
    """Return the curve of bounds that an accountant computed, such as one training run's.

    Args:
        bounds: Renyi divergence at each of `ORDERS`; infinity where there is no bound.

    Raises:
        ValueError: A bound is negative or not a number, or their number is wrong.
    """
    if any(math.isnan(bound) or bound < 0 for bound in bounds):
        raise ValueError("a Renyi bound is a non-negative number")
    return Curve(tuple(math.ceil(min(bound * _NANO, _MOST)) for bound in bounds))


def person_curve(charges: Iterable[Charge]) -> Curve:
    """Return what releases cost a person at every order: the worse of being trained on and held out.

    The sampled Gaussian's bound is known at whole orders only; Renyi divergence grows with the order, so
    the next whole one bounds the others.
    """
    sets = {people: [charge for charge in charges if charge.people is people] for people in People}
    orders = [math.ceil(order) for order in ORDERS]
    totals = [
        [math.fsum(bounds) for bounds in zip(*(rdp_curve(charge, orders) for charge in found), strict=True)]
        for found in sets.values()
        if found
    ]
    return from_renyi([max(bounds) for bounds in zip(*totals, strict=True)])


@dataclass(frozen=True, slots=True)
class Cap:
    """The most that all releases about one unit may prove against it.

    Args:
        epsilon: Over 0, at most 20.
        delta: 2**-60 to less than 1.

    Raises:
        ValueError: Another epsilon or delta.
    """

    epsilon: float
    delta: float

    def __post_init__(self) -> None:
        if not (0 < self.epsilon <= 20 and 2.0**-60 <= self.delta < 1):
            raise ValueError("a cap's epsilon lies between 0 and 20, its delta between 2**-60 and 1")

    def admits(self, total: Curve) -> bool:
        """Say whether some order stays under the cap, the Renyi filter; or mu, where all noise is Gaussian.

        Source: Feldman and Zrnic 2021, theorem 4.5, for each order by itself. Which order it is, or whether
        mu, may not depend on what was released: here every mechanism's parameters are public
        constants, chosen before any data is read.
        """
        if total.mu2_nano is not None and _keeps(total.mu2_nano, self.epsilon, self.delta):
            return True
        return any(
            n <= math.floor((self.epsilon - tax) * _NANO) for n, tax in zip(total.nano, _taxes(self.delta), strict=True)
        )


OWNER_DAY_CAP: Final = Cap(3.0, 1e-6)
PERSON_YEAR_CAP: Final = Cap(3.0, 1e-6)


def _taxes(delta: float) -> list[float]:
    """Return, for each order, what epsilon exceeds the Renyi bound by."""
    log_delta = math.log(delta * _DELTA_FOR_ANALYSIS)
    return [math.log1p(-1 / order) - (log_delta + math.log(order)) / (order - 1) for order in ORDERS]


def _keeps(mu2_nano: int, epsilon: float, delta: float) -> bool:
    """Say whether Gaussian noise of that mu^2 is (epsilon, delta)-private: exactly when, but for the last digits."""
    if mu2_nano == 0:
        return True
    mu = math.sqrt(mu2_nano / _NANO)
    near, far = (math.erfc((epsilon / mu + shift) / math.sqrt(2)) / 2 for shift in (-mu / 2, mu / 2))
    return near - math.exp(epsilon) * far <= delta * _DELTA_FOR_EXACT
