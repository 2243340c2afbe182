"""What is learned from other households, all of it charged to them, and how it reads a noisy imprint.

Three releases, each the sum of one bounded vector of whole numbers a household, with discrete Gaussian noise:

1. the mean unit vector of its shops, how often it shops, and a constant that counts households;
2. how households' habits vary together: the mean product of its deviations from that mean in two different
   shops, over all pairs of them, which leaves out the accidents of single shops;
3. the mean projected day.

The reader is the posterior mean of a habit under a normal prior whose width, as the person's shopping rate, is one of a
few (a scale mixture); its covariance is a public shape (variance by popularity, departments) with a few weights fitted
to release 2, and what release 2 shows beyond that after its noise is taken out. Nothing is trained on the person who
asks.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from functools import cached_property
from math import isqrt
from typing import NamedTuple

import numpy as np
from scipy.optimize import nnls
from scipy.special import softmax

from benchmarks._grocery import Floats, Ints, Shops, retail_map
from vault.budget.accounting import sigma_for
from vault.imprint.noise import DiscreteGaussian
from vault.imprint.projection import Projection, whole_within
from vault.proof.accounting import Curve, gaussian
from vault.twin.reader import taxonomy

PERSON_EPSILON = 3.0
PERSON_DELTA = 5e-5  # under 1 / (10 n) for 1,976 households
CLIP = 48  # of a day, in quantised units

_SHARES = (0.10, 0.88, 0.02)  # of a person's mu^2, by release
_UNIT = 2048  # a first or third contribution of norm 1
_FILLED = 0.97  # of the second's norm before rounding, which may lengthen
_MEAN, _RATE = 0.93, 0.2  # parts of the first vector: mean; rate, its square, and the constant
_USUAL = 0.5  # to which a household's mean vectors are shortened: most are no longer
_AT_ONCE = 128  # people whose products are held in memory
_RATES, _STEPS = (0.01, 0.9), 14  # shops a day that a person may make, in equal ratios


@dataclass(frozen=True)
class Settings:
    """What is set by hand; docs/twin-quality.md says on which people it was chosen."""

    codes: int = 160
    directions: int = 80
    power: float = 0.15  # of a direction's variance, in its weight
    product: float = 0.04  # Frobenius norm to which a household's products are clipped
    doubted: float = 12.0  # shops beyond the first at which a household's products count half
    inflation: float = 2.4  # makes up for what clip and doubt take
    length: float = 0.85  # of a projected day before it is shortened, relative to its root mean square
    departments: bool = False  # rows of the public hierarchy's departments only
    centred: bool = True  # take out what people do on average before the clip
    differing: tuple[float, ...] = (0.3, 1.0, 3.0)  # how much habits may vary relative to most people's, alike probable
    private: bool = True  # False: exact statistics, to see what their noise costs


class Lens(NamedTuple):
    """The axes in which habits and noise are independent.

    Args:
        axes: float64[R, R], a column each.
        values: float64[R] variance of habits along them, in squared quantised units.
        accident: float64[R] variance of a single shop.
        back: float64[R, M] what a unit along them says about each code.
    """

    axes: np.ndarray
    values: np.ndarray
    accident: np.ndarray
    back: np.ndarray


@dataclass(frozen=True, eq=False)
class Learned:
    """Everything released about households.

    Args:
        mean: float64[K] mean unit vector of a shop.
        keep: int64[M] codes whose habits are modelled.
        covariance: float64[M, M] of habits between people.
        rate: Mean of shops a day over people, and its standard deviation.
        projected: float64[R] mean projected day, in quantised units.
        projection: Map of a day.
        people: Noisy number of households.
        differing: As in `Settings`.
    """

    mean: np.ndarray
    keep: Ints
    covariance: np.ndarray
    rate: tuple[float, float]
    projected: np.ndarray
    projection: Projection
    people: float
    differing: tuple[float, ...]

    @cached_property
    def lens(self) -> Lens:
        """How projected days are read, the same for everyone."""
        directions, projection = self.projection.directions[:, self.keep], self.projection
        scale = projection.scale * min(1.0, projection.length / math.sqrt(mean_square(self)))  # most are shortened
        values, axes = np.linalg.eigh(scale**2 * directions @ self.covariance @ directions.T)
        values, turned = values.clip(1e-9), axes.T @ directions
        accident = scale**2 * np.einsum("ij,jk,ik->i", turned, self.accidents, turned).clip(0)
        return Lens(axes, values, accident, (self.covariance @ directions.T @ axes * (scale / values)).T)

    @cached_property
    def accidents(self) -> np.ndarray:
        """Covariance of single shops, from the identity that a unit vector's squares sum to 1."""
        mean = self.mean[self.keep]
        return np.diag(mean / self.mean.sum()) - np.outer(mean, mean)


def unit_vectors(bought: np.ndarray) -> Floats:
    """Return equal parts of the codes of each shop, of norm 1."""
    return (bought / np.sqrt(np.maximum(bought.sum(1, keepdims=True), 1))).astype(np.float32)


def _sigma(sensitivity: int, share: float) -> int:
    return sigma_for(PERSON_EPSILON, PERSON_DELTA, isqrt(int(sensitivity**2 / share)) + 1)


def person_charge() -> Curve:
    """Return what the three releases together cost a household."""
    one, two, three = (gaussian(_UNIT, _sigma(_UNIT, share)) for share in _SHARES)
    return one + two + three


def _release(contributions: np.ndarray, share: float, *, private: bool) -> np.ndarray:
    """Return the noisy sum of rows of norm at most 1."""
    if not private:
        return contributions.sum(0, dtype=np.float64)
    exact = whole_within(contributions.astype(np.float64) * _UNIT, _UNIT**2).sum(0)
    return (exact + DiscreteGaussian(_sigma(_UNIT, share)).sample(exact.shape)) / _UNIT


def person_means(vectors: Floats, person: Ints, people: int) -> Floats:
    """Return the mean vector of each of `people`, zero for those without one; rows are sorted by person."""
    total = np.zeros((people, vectors.shape[1]), dtype=np.float32)
    starts = np.flatnonzero(np.diff(person, prepend=-1))
    if len(starts):
        total[person[starts]] = np.add.reduceat(vectors, starts, axis=0)
    return total / np.maximum(np.bincount(person, minlength=people), 1)[:, None].astype(np.float32)


def learn(shops: Shops, days: int, settings: Settings) -> Learned:
    """Release what the reader needs from the households of `shops`; noise is drawn anew on each call."""
    vectors, people, private = unit_vectors(shops.bought), len(shops.people), settings.private
    means = _shortened(person_means(vectors, shops.person, people))
    rates = np.bincount(shops.person, minlength=people)[:, None] / days
    parts = (_MEAN / _USUAL * means, _RATE * rates, _RATE * rates**2, np.full((people, 1), _RATE))
    first = _release(np.hstack(parts), _SHARES[0], private=private)
    count = max(first[-1] / _RATE, 1.0)
    noise = _sigma(_UNIT, _SHARES[0]) / _UNIT / _MEAN * _USUAL / count if private else 1e-9
    seen = first[:-3] / _MEAN * _USUAL / count
    trusted = np.square(seen.clip(0)) / (np.square(seen) + noise**2)
    prior = taxonomy(retail_map()).prior[: len(seen)].astype(np.float64)
    mean = trusted * seen + (1 - trusted) * np.minimum(prior, noise) / 2
    rate = float(np.clip(first[-3] / _RATE / count, 0.01, 1))
    spread = math.sqrt(max(first[-2] / _RATE / count - rate**2, rate**2 / 4))

    keep = np.argsort(-mean, kind="stable")[: settings.codes]
    seen, entry = _covariance(shops, vectors[:, keep] - mean[keep], count, settings)
    covariance = _habits(seen, entry, mean[keep], keep)
    found_directions = _directions(covariance, keep, settings)
    directions = np.zeros((len(found_directions), len(mean)))
    directions[:, keep] = found_directions
    centre = mean if settings.centred else np.zeros_like(mean)
    found = Learned(
        mean,
        keep,
        covariance,
        (rate, spread),
        np.zeros(0),
        Projection(centre, directions, 1.0, CLIP),
        count,
        settings.differing,
    )
    length = settings.length * math.sqrt(mean_square(found))
    projection = Projection(centre, directions, length, CLIP)
    projected = projection.day_vectors(shops.bought)[:, :-1].astype(np.float32) / CLIP
    third = _release(_shortened(person_means(projected, shops.person, people)) / _USUAL, _SHARES[2], private=private)
    return replace(found, projected=third * _USUAL / count * CLIP, projection=projection)


def _shortened(means: Floats) -> Floats:
    return means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True) / _USUAL, 1.0).astype(np.float32)


def _covariance(shops: Shops, deviations: np.ndarray, count: float, settings: Settings) -> tuple[np.ndarray, float]:
    """Release the mean product of two shops' deviations; return it and the noise in an entry off the diagonal.

    Both values of an entry off the diagonal are one, times the root of 2: lengths are Frobenius norms.
    """
    size = deviations.shape[1]
    rows, columns = np.triu_indices(size)
    both = np.where(rows == columns, 1.0, math.sqrt(2.0))
    total = np.zeros(len(rows))
    for start in range(0, len(shops.people), _AT_ONCE):
        products = _products(shops, deviations, range(start, min(start + _AT_ONCE, len(shops.people))), settings)
        shares = products[:, rows, columns] * both / settings.product
        total += whole_within(shares * _FILLED * _UNIT, _UNIT**2).sum(0) if settings.private else shares.sum(0)
    scale, sigma = settings.product * settings.inflation / count, 0
    if settings.private:
        scale, sigma = scale / (_FILLED * _UNIT), _sigma(_UNIT, _SHARES[1])
        total += DiscreteGaussian(sigma).sample(len(rows))
    seen = np.zeros((size, size))
    seen[rows, columns] = total / both * scale
    return seen + np.triu(seen, 1).T, sigma / math.sqrt(2.0) * scale


def _products(shops: Shops, deviations: np.ndarray, people: range, settings: Settings) -> np.ndarray:
    """Return float64[people, M, M], each of Frobenius norm at most `settings.product`; zero for one shop or none."""
    bounds = np.searchsorted(shops.person, np.arange(people.start, people.stop + 1))
    found = np.zeros((len(people), deviations.shape[1], deviations.shape[1]))
    for at, (start, stop) in enumerate(itertools.pairwise(bounds)):
        if stop - start > 1:
            own, others = deviations[start:stop], stop - start - 1
            total = own.sum(0)
            found[at] = (np.outer(total, total) - own.T @ own) / ((stop - start) * (others + settings.doubted))
    length = np.linalg.norm(found, axis=(1, 2), keepdims=True)
    return found / np.maximum(length / settings.product, 1.0)


def _habits(seen: np.ndarray, entry: float, mean: np.ndarray, keep: Ints) -> np.ndarray:
    """Return the covariance of habits: public shapes fitted to a noisy one, its diagonal, and its larger eigenvalues.

    Source: Gavish and Donoho, "Optimal shrinkage of singular values" (2017), for a symmetric matrix.
    """
    department = taxonomy(retail_map()).department[keep].astype(np.float64)
    same, root = department @ department.T, np.sqrt(mean * (0.8 - mean).clip(0.1))
    squares = (np.outer(root, root), np.outer(mean, mean))
    shapes = [shape * square for shape in (np.eye(len(mean)), np.ones_like(same), same) for square in squares]
    weights, _ = nnls(np.stack([shape.ravel() for shape in shapes], axis=1), seen.ravel())
    found = sum((weight * shape for weight, shape in zip(weights, shapes, strict=True)), np.zeros_like(seen))
    usual = np.diag(found)
    trusted = usual**2 / (usual**2 + 2 * entry**2)
    found = found + np.diag(np.maximum(trusted * (np.diag(seen) - usual), -0.7 * usual))
    values, axes = np.linalg.eigh(seen - found)
    kept = np.sign(values) * np.sqrt(np.maximum(values**2 - 4 * len(seen) * entry**2, 0.0))
    values, axes = np.linalg.eigh(found + (axes * kept) @ axes.T)
    return (axes * values.clip(1e-7)) @ axes.T


def _directions(covariance: np.ndarray, keep: Ints, settings: Settings) -> np.ndarray:
    """Return the directions in which people differ most, the larger differences weighing more."""
    basis = np.eye(len(keep))
    if settings.departments:
        department = taxonomy(retail_map()).department[keep].astype(np.float64)
        department = department[:, department.any(0)]
        basis = department / np.linalg.norm(department, axis=0)
    values, axes = np.linalg.eigh(basis.T @ covariance @ basis)
    top = np.argsort(-values)[: settings.directions]
    return np.asarray(((basis @ axes[:, top]) * (values[top] / values[top[0]]) ** settings.power).T)


def mean_square(learned: Learned) -> float:
    """Return the mean squared length of a projected day, from what was released."""
    directions = learned.projection.directions[:, learned.keep]
    offset = learned.projection.directions @ (learned.mean - learned.projection.centre)
    return float(np.trace(directions @ (learned.covariance + learned.accidents) @ directions.T) + offset @ offset)


def read(learned: Learned, estimates: Floats, noise_variance: Floats, square: Floats) -> Floats:
    """Return the score of every code: how much of a shop it makes up, [N, K].

    How often a person shops and how much they differ from others are not known either: what is read is the mean
    over a grid of both, each pair weighed by how probable it makes what the rows show.

    Args:
        learned: From other households.
        estimates: float32[N, R + 1] levels of projected days, in quantised units a day.
        noise_variance: float32[N] of the noise in them.
        square: float32[N] sums of squared weights.
    """
    lens, usual = learned.lens, learned.projected @ learned.lens.axes
    seen, active = estimates[:, :-1].astype(np.float64) @ lens.axes, estimates[:, -1].astype(np.float64)
    rate, differing, prior = _grid(*learned.rate, learned.differing)
    variance = (rate**2 * differing)[:, None] * lens.values
    habits = np.empty_like(seen)
    # Shops of one day were read through equal noise: everything but the values themselves is the same for them.
    pairs, alike = np.unique(np.stack([noise_variance, square]).astype(np.float64), axis=1, return_inverse=True)
    for at, (noise, squared) in enumerate(pairs.T):
        here = alike == at
        values, precision = seen[here], 1 / (variance + noise + (rate * squared)[:, None] * lens.accident)
        log = np.square(values) @ precision.T - 2 * rate * (values @ (usual * precision).T)
        log += rate**2 * (np.square(usual) * precision).sum(1) - np.log(precision).sum(1)
        log += np.square(active[here, None] - rate * learned.projection.active_day) / noise
        weights = softmax(prior - log / 2, axis=1)
        gain = variance / rate[:, None] * precision
        habits[here] = values * (weights @ gain) - weights @ (gain * rate[:, None] * usual)
    scores = np.tile(learned.mean.astype(np.float32), (len(estimates), 1))
    scores[:, learned.keep] += (habits @ lens.back).astype(np.float32)
    return scores


def _grid(rate: float, spread: float, differing: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return pairs of a rate and of how much someone differs, [G] each, and the logarithm of how probable they are.

    Args:
        rate: Mean of shops a day over people.
        spread: Its standard deviation; rates are taken to be log-normal.
        differing: As in `Settings`.
    """
    rates = np.geomspace(*_RATES, _STEPS)
    log_variance = math.log(1 + (spread / rate) ** 2)
    prior = -np.square(np.log(rates / rate) + log_variance / 2) / (2 * log_variance)
    return np.repeat(rates, len(differing)), np.tile(differing, _STEPS), np.repeat(prior, len(differing))
