"""Correlated noise for daily rows: whole coefficients, whole noise, whole rows.

A chain has one row for each day of a horizon that is fixed before its first row. With day vectors x_s of
norm at most `clip`, a lower triangular matrix C and independent discrete Gaussian z, all whole numbers,

    u_t = sum over s <= t of C[t, s] x_s + z_t                                       is released,
    y_t = round((u_t - sum over s < t of C[t, s] y_s) / C[t, t]), halves up,         is stored.

Nothing is rounded before the noise is added, so a day moves u by C[:, s] x_s and by nothing else: the
sensitivity is exactly `clip` times the longest column of C, and neighbours have the same support, all
whole numbers. (Fractional coefficients need a rounded sum, whose later rows each add up to one unit to
the sensitivity; whole noise on an unrounded sum would tell neighbours apart with certainty.)

y is post-processing of u. As x is whole, y_t = x_t + e_t, where e is what the same recursion makes of z
alone: a stored row holds its own day and noise, and dropping it drops the day. The remainders of the
division stay in the recursion: C e = z + r, |r_t| <= C[t, t] / 2, so they never add up.

Sources: Li et al., "The matrix mechanism" (2015); Denisov et al., "Improved differential privacy for SGD
via optimal private linear operators on adaptive streams" (2022), theorem 2.1: the guarantee holds though
a later day's vector may depend on rows already released; Henzinger, Upadhyay (2025) for (1 - q)^-p.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import isqrt
from typing import Final

import numpy as np

from vault.imprint.noise import Integers

MAX_HORIZON: Final = 366
"""A chain covers one calendar year at most."""

_UNIT: Final = 128  # what a coefficient of 1 is written as; finer gains under 1 % of noise
_BLOCK: Final = 16
_EXACT: Final = 2**52  # whole numbers below it are exact as float64


@dataclass(frozen=True, eq=False)
class Strategy:
    """A published matrix: which days each row adds up, and with what weight.

    Args:
        name: Says how the matrix was made.
        matrix: int64[horizon, horizon], lower triangular with a positive diagonal, read-only.
    """

    name: str
    matrix: Integers

    def __post_init__(self) -> None:
        matrix = self.matrix
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not 1 <= len(matrix) <= MAX_HORIZON:
            raise ValueError(f"a strategy is a square matrix of 1 to {MAX_HORIZON} days")
        if matrix.dtype != np.int64 or np.triu(matrix, 1).any() or (np.diag(matrix) < 1).any():
            raise ValueError("a strategy is whole, lower triangular and positive on its diagonal")
        matrix.flags.writeable = False

    @property
    def horizon(self) -> int:
        """Number of days, and of rows."""
        return len(self.matrix)

    @property
    def column_square(self) -> int:
        """Squared norm of the longest column: what all rows of a chain together show of one day."""
        return int((self.matrix**2).sum(0).max())

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of the matrix as little-endian 32-bit numbers."""
        return hashlib.sha256(self.matrix.astype("<i4").tobytes()).digest()

    def sensitivity(self, clip: int) -> int:
        """Return the L2 sensitivity of u to one day of norm at most `clip`, rounded up to a whole number.

        The worst day has all its length in one coordinate; any other day of that norm moves u as far.
        """
        square = clip**2 * self.column_square
        return isqrt(square - 1) + 1


@lru_cache
def power(exponent_percent: int, horizon: int) -> Strategy:
    """Return the strategy with the coefficients of (1 - q)^-p: p = 0.5 is the square root of prefix sums.

    Args:
        exponent_percent: 100 p, 0 to 100; 0 is a release of each day by itself.
        horizon: Number of days.

    Raises:
        ValueError: Another exponent.
    """
    if not 0 <= exponent_percent <= 100:
        raise ValueError("an exponent lies between 0 and 100 percent")
    coefficients = np.ones(horizon)
    for lag in range(1, horizon):
        coefficients[lag] = coefficients[lag - 1] * (lag - 1 + exponent_percent / 100) / lag
    whole = np.rint(coefficients * _UNIT).astype(np.int64)
    lags = np.subtract.outer(np.arange(horizon), np.arange(horizon))
    return Strategy(f"power-{exponent_percent}/{horizon}", np.where(lags >= 0, whole[np.abs(lags)], 0))


@lru_cache
def prefix(horizon: int) -> Strategy:
    """Return the strategy for a steady habit: sums of all days so far, later days and earlier sums weighing more.

    Among all strategies, those that estimate a constant rate best have C[t, s] = a_t b_s (the gradient of the
    information that rows hold about the rate is that product), and b_s^2 = 1 / (a_s^2 + ... + a_last^2), for
    then every day is shown exactly as much as the privacy allows. What is left to choose is how much of a
    day's allowance is still unspent after each row. Here a first eighth of the horizon shows next to nothing,
    its last day a fifth, and the rest is spent as `(8 s / n)^-0.25 ((n - s) / (n - n / 8))^3` falls: found by
    search over public formulas alone, for the least noise from that eighth on.

    Args:
        horizon: Number of days.
    """
    quiet = horizon // 8
    day = np.maximum(np.arange(horizon), quiet) + 1.0
    unspent = 0.8 * (day / (quiet + 1)) ** -0.25 * ((horizon + 1 - day) / (horizon - quiet)) ** 3
    unspent[: quiet + 1] = 1.0
    spent = unspent - np.append(unspent[1:], 0.0)
    spent[:quiet] = 0.0
    product = np.sqrt(spent)[:, None] / np.sqrt(unspent)[None, :]
    whole = np.tril(np.rint(product * _UNIT)).astype(np.int64)
    np.fill_diagonal(whole, np.maximum(np.diag(whole), 1))
    return Strategy(f"prefix/{horizon}", whole)


def errors(strategy: Strategy, noise: Integers, known: Integers | None = None) -> Integers:
    """Return e, what stored rows y hold beside their own day.

    Args:
        strategy: The chain's strategy.
        noise: int64[days, N] z of consecutive days, a column for every coordinate of every chain: thousands
            of chains of one strategy cost little more than one.
        known: int64[first, N] e of the days before; none at the start of a chain.

    Returns:
        int64[days, N] e of the same days as `noise`.

    Raises:
        ValueError: More days than the horizon has, or numbers beyond exact arithmetic.
    """
    first = 0 if known is None else len(known)
    last = first + len(noise)
    if last > strategy.horizon:
        raise ValueError(f"a chain of {strategy.horizon} days has no row {last - 1}")
    found = np.zeros((last, noise.shape[1]))  # float64, for its fast products; every number in it is whole
    if known is not None:
        found[:first] = known
    matrix = strategy.matrix.astype(np.float64)
    most = _EXACT / (4 * strategy.horizon * matrix.max())  # so that no partial sum of products leaves exactness
    if max(np.abs(noise).max(initial=0), np.abs(found).max(initial=0)) >= most:
        raise ValueError("noise is too large for exact arithmetic")
    for start in range(first, last, _BLOCK):
        stop = min(start + _BLOCK, last)
        left = noise[start - first : stop - first] - matrix[start:stop, :start] @ found[:start]
        for at in range(start, stop):
            numerator = left[at - start] - matrix[at, start:at] @ found[start:at]
            if np.abs(numerator).max(initial=0) >= most:
                raise ValueError("noise is too large for exact arithmetic")
            diagonal = int(strategy.matrix[at, at])
            found[at] = (2 * numerator.astype(np.int64) + diagonal) // (2 * diagonal)
    return found[first:].astype(np.int64)
