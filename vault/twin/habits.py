"""What a cohort's days have in common, and how its people's habits vary together: two sums, each charged.

The parts of a day are what its codes get in a day's vector: equal ones, of length 1 together. Each person adds

1. the mean parts of their days, how many codes a day has, and a constant that counts people;
2. the mean product of their deviations from the released mean in two days of different months, over all pairs
   of such days: habits show in it, the accidents of single days and months do not.

What is made of the second is post-processing: public shapes (variance by popularity, departments) with a few
weights fitted to it, its diagonal, and the eigenvalues that stand out of its noise.

Source: Gavish, Donoho, "Optimal Shrinkage of Singular Values" (2017), for a symmetric matrix.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls

from vault.imprint.features import FeatureMap
from vault.imprint.noise import DiscreteGaussian
from vault.imprint.projection import whole_within
from vault.proof.charge import Charge, People
from vault.twin.bookkeeping import Tensors
from vault.twin.reader import POPULARITY_FLOOR, taxonomy

Floats = npt.NDArray[np.float64]

MODELLED: Final = 160
"""How many codes' habits are modelled, the most popular ones; the others are read as popularity has them."""

UNIT: Final = 2_048
"""In whole units, the norm that no person's vector exceeds."""
LONGEST: Final = 0.97 * UNIT
"""What a vector of length 1 has before it is rounded, which may lengthen it."""

_MEAN: Final = 0.95  # part of the first vector's norm that a person's mean parts have at most
_USUAL: Final = 0.45  # to which they are shortened: they are that long for most
_BREADTH: Final = 0.2  # what `_MOST_CODES` codes a day become
_COUNTED: Final = 0.2  # and a person
_MOST_CODES: Final = 40.0
_PRODUCT: Final = 0.04  # Frobenius norm to which a person's products are clipped
_DOUBTED: Final = 12.0  # days beyond the first at which a person's products count half
_INFLATION: Final = 2.4  # makes up for what clip and doubt take
_HUGE: Final = 1e100  # whose square is a number still
_AT_ONCE: Final = 128  # people whose products are held in memory

_MEAN_SIGMA: Final = 7_740
HABITS_SIGMA: Final = 4_550
"""Noise of the second sum, in whole units."""


def _charge(release: str, sigma: int) -> Charge:
    return Charge(release, People.TRAINED, int(sigma / UNIT * 1e6), 1_000_000, 1)


POPULARITY_CHARGE: Final = _charge("popularity", _MEAN_SIGMA)
HABITS_CHARGE: Final = _charge("habits", HABITS_SIGMA)


@dataclass(frozen=True, eq=False)
class Habits:
    """What was released.

    Args:
        popularity: float32[K - 1]: how probable each code is on a day with a trace.
        axes: float32[R, K - 1] orthonormal directions in which people differ independently, of the same unit; those in
            which they differ most come first.
        variance: float32[R] of their differences along each.
        people: Noisy number of people.
    """

    popularity: npt.NDArray[np.float32]
    axes: npt.NDArray[np.float32]
    variance: npt.NDArray[np.float32]
    people: float


def release_habits(people: Tensors, feature_map: FeatureMap, kept: npt.NDArray[np.float32] | None = None) -> Habits:
    """Release what habits a cohort has; noise is drawn anew on each call.

    Args:
        people: `days`, `chosen` and `sums`, grouped as `vault.twin.train.PersonMonths.grouped` does.
        feature_map: The map of `sums`.
        kept: Axes of an earlier release, which rows are made along since: people's differences are stated along them.

    Guarantees: with one person added or removed, the outcome is that of two Gaussian mechanisms, charged as
        `POPULARITY_CHARGE` and `HABITS_CHARGE`: each person adds one vector of whole numbers and norm at most
        `UNIT` to either sum, whatever their data.
    """
    mean, breadth, counted = _release_mean(_some(people, feature_map), feature_map)
    keep = np.argsort(-mean, kind="stable")[:MODELLED] if kept is None else np.flatnonzero(kept.any(0))
    products = (
        _products(one.parts[..., keep] - one.days[..., None] * mean[keep], one.days)
        for one in _some(people, feature_map)
    )
    seen, entry = _release_products(products, len(keep), counted)
    covariance = _fitted(seen, entry, mean[keep], taxonomy(feature_map).department[keep].astype(np.float64))
    if kept is None:
        found = np.linalg.eigh(covariance)[1].T[::-1]
        axes = np.zeros((len(keep), len(mean)), dtype=np.float32)
        axes[:, keep] = found
    else:
        found, axes = kept[:, keep].astype(np.float64), kept
    variance = np.einsum("ij,jk,ik->i", found, covariance, found)
    popularity = (mean * breadth).clip(POPULARITY_FLOOR, 0.9).astype(np.float32)
    return Habits(popularity, axes, (variance * breadth**2).astype(np.float32), counted)


def noisy_sum(contributions: Iterable[Floats], size: int, sigma: int) -> Floats:
    """Return the noisy sum of one vector a person, in units of the longest one allowed.

    Args:
        contributions: float64[people, size] at a time: whatever is longer than 1 is shortened to it, and what is
            not finite counts as zero.
        size: Length of a vector.
        sigma: Of the noise, in whole units, of which the longest vector has `UNIT`.
    """
    total = np.zeros(size, dtype=np.int64)
    for some in contributions:
        finite = np.nan_to_num(some, nan=0.0, posinf=0.0, neginf=0.0).clip(-_HUGE, _HUGE)
        longer = np.maximum(np.linalg.norm(finite, axis=1, keepdims=True), 1.0)
        total += whole_within(finite / longer * LONGEST, UNIT**2).sum(0)
    noisy: Floats = (total + DiscreteGaussian(sigma).sample(size)) / LONGEST
    return noisy


class _Some(NamedTuple):
    """Some of the people.

    Args:
        parts: float64[people, months, K - 1] summed over a month's days.
        days: float64[people, months].
        codes: float64[people] on how many days each code occurred, added up.
    """

    parts: Floats
    days: Floats
    codes: Floats


def _some(people: Tensors, feature_map: FeatureMap) -> Iterator[_Some]:
    """Yield all people, few at a time: a large cohort would not fit into memory twice."""
    for start in range(0, len(people["days"]), _AT_ONCE):
        sums, days, chosen = (
            people[name][start : start + _AT_ONCE].double().numpy() for name in ("sums", "days", "chosen")
        )
        yield _Some(sums[..., :-1] / feature_map.content, days, chosen.sum((1, 2)))


def _mean_of_each(some: _Some) -> Floats:
    """Return [people, K + 1]: the mean parts of each person's days, their codes a day, and a one, as they are added up."""
    active = np.maximum(some.days.sum(1), 1.0)
    breadth = np.minimum(some.codes / active / _MOST_CODES, 1.0) * _BREADTH
    own = some.parts.sum(1) / active[:, None]
    longer = np.maximum(np.linalg.norm(own, axis=1, keepdims=True) / _USUAL, 1.0)
    return np.column_stack([_MEAN / _USUAL * own / longer, breadth, np.full(len(active), _COUNTED)])


def _release_mean(people: Iterable[_Some], feature_map: FeatureMap) -> tuple[Floats, float, float]:
    """Return the mean parts of a day [K - 1], what turns parts into probabilities, and the noisy number of people."""
    released = noisy_sum(map(_mean_of_each, people), feature_map.size + 1, _MEAN_SIGMA)
    counted = max(float(released[-1]) / _COUNTED, 1.0)
    codes_a_day = float(np.clip(released[-2] / _BREADTH / counted * _MOST_CODES, 1.0, _MOST_CODES))
    seen, sd = released[:-2] * _USUAL / _MEAN / counted, _MEAN_SIGMA / LONGEST * _USUAL / _MEAN / counted
    trusted = np.square(seen.clip(min=0)) / (np.square(seen) + sd**2)
    guess = taxonomy(feature_map).prior / math.sqrt(codes_a_day)
    mean = np.maximum(trusted * seen + (1.0 - trusted) * np.minimum(guess, sd) / 2, 0.0) + 1e-6
    return mean, max(codes_a_day / float(mean.sum()), 1.0), counted


def _products(deviations: Floats, days: Floats) -> Floats:
    """Return the upper triangle of each person's mean product, lengths as of the whole matrix, 1 for `_PRODUCT`.

    Args:
        deviations: float64[people, months, M], summed over a month's days.
        days: float64[people, months].
    """
    rows, columns = np.triu_indices(deviations.shape[2])
    both = np.where(rows == columns, 1.0, math.sqrt(2.0)) / _PRODUCT
    total, many = deviations.sum(1), days.sum(1)
    pairs = np.maximum(many**2 - np.square(days).sum(1), 1.0)
    believed = (many - 1).clip(0) / ((many - 1).clip(0) + _DOUBTED) / pairs
    found = np.einsum("pi,pj->pij", total, total) - np.matmul(deviations.transpose(0, 2, 1), deviations)
    products: Floats = found[:, rows, columns] * both * believed[:, None]
    return products


def _release_products(products: Iterable[Floats], codes: int, people: float) -> tuple[Floats, float]:
    """Return the mean product [M, M], and the noise in an entry of it off the diagonal."""
    rows, columns = np.triu_indices(codes)
    scale = _PRODUCT * _INFLATION / people
    seen = np.zeros((codes, codes))
    both = np.where(rows == columns, 1.0, math.sqrt(2.0))
    seen[rows, columns] = noisy_sum(products, len(rows), HABITS_SIGMA) * scale / both
    return seen + np.triu(seen, 1).T, HABITS_SIGMA / LONGEST * scale / math.sqrt(2.0)


def _fitted(seen: Floats, entry: float, mean: Floats, department: Floats) -> Floats:
    """Return the covariance of habits: public shapes fitted to a noisy one, its diagonal, and its larger eigenvalues."""
    same, root = department @ department.T, np.sqrt(mean * (0.8 - mean).clip(0.1))
    squares = (np.outer(root, root), np.outer(mean, mean))
    shapes = [shape * square for shape in (np.eye(len(mean)), np.ones_like(same), same) for square in squares]
    weights, _ = nnls(np.stack([shape.ravel() for shape in shapes], axis=1), seen.ravel())
    found = sum((weight * shape for weight, shape in zip(weights, shapes, strict=True)), np.zeros_like(seen))
    usual = np.diag(found)
    trusted = (0.7 * usual) ** 2 / ((0.7 * usual) ** 2 + 2 * entry**2 + 1e-30)
    found = found + np.diag(np.maximum(trusted * (np.diag(seen) - usual), -0.7 * usual))
    values, axes = np.linalg.eigh(seen - found)
    kept = np.sign(values) * np.sqrt(np.maximum(values**2 - 4 * len(seen) * entry**2, 0.0))
    values, axes = np.linalg.eigh(found + (axes * kept) @ axes.T)
    covariance: Floats = (axes * values.clip(1e-7)) @ axes.T
    return covariance
