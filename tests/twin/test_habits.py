"""What a cohort's habits are learned from: two sums, in which nobody counts for more than is charged."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final

import numpy as np
import pytest
import torch

from vault.imprint.features import FeatureMap
from vault.twin import habits
from vault.twin.certify import CHARGES
from vault.twin.habits import HABITS_CHARGE, HABITS_SIGMA, LONGEST, POPULARITY_CHARGE, UNIT, noisy_sum, release_habits
from vault.twin.reader import START, Backbone, Months, Reader, _Surprise, closed_form
from vault.twin.train import PersonMonths, accounted_epsilon

MakeCohort = Callable[..., PersonMonths]


class _Silent:
    def __init__(self, sigma: int) -> None:
        self.sigma = sigma

    def sample(self, size: int) -> np.ndarray:
        return np.zeros(size, dtype=np.int64)


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(habits, "DiscreteGaussian", _Silent)


@pytest.mark.usefixtures("silent")
@pytest.mark.parametrize("value", [1.0, 1e9, 1e300, math.inf, -math.inf, math.nan])
def test_no_vector_adds_more_than_is_charged(value: float) -> None:
    hostile = np.random.default_rng(1).normal(size=(3, 50))
    hostile[:, :25] *= value
    for one in hostile:
        moved = noisy_sum([one[None]], 50, 1) * LONGEST
        assert np.linalg.norm(moved) <= UNIT
        assert np.abs(moved - np.rint(moved)).max() < 1e-9


def test_noise_is_of_the_charged_scale_and_fresh() -> None:
    one, two = (noisy_sum([], 20_000, HABITS_SIGMA) * LONGEST for _ in range(2))
    assert np.std(one) == pytest.approx(HABITS_SIGMA, rel=0.03)
    assert abs(np.corrcoef(one, two)[0, 1]) < 0.04
    assert HABITS_CHARGE.noise_multiplier_ppm / 1e6 <= HABITS_SIGMA / UNIT
    assert POPULARITY_CHARGE.noise_multiplier_ppm / 1e6 <= habits._MEAN_SIGMA / UNIT
    assert accounted_epsilon(CHARGES) <= 2.8


def test_each_person_is_one_vector_in_either_sum(
    make_cohort: MakeCohort, retail: FeatureMap, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, float]] = []

    def recorded(contributions: Iterable[np.ndarray], size: int, sigma: int) -> np.ndarray:
        parts = list(contributions)
        seen.append((sum(map(len, parts)), sigma))
        return noisy_sum(parts, size, sigma)

    monkeypatch.setattr(habits, "noisy_sum", recorded)
    monkeypatch.setattr(habits, "_AT_ONCE", 8)
    release_habits(make_cohort(30, months=9).grouped(), retail)
    assert seen == [(30, habits._MEAN_SIGMA), (30, HABITS_SIGMA)]


@pytest.mark.usefixtures("silent")
def test_popularity_counts_each_person_once(
    make_cohort: MakeCohort, retail: FeatureMap, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(habits, "_MEAN_SIGMA", 1)  # what is seen is trusted
    cohort = make_cohort(30)
    loud = replace(cohort, chosen=cohort.chosen.copy(), sums=cohort.sums.copy(), days=cohort.days.copy())
    first = loud.person == 0
    loud.chosen[first], loud.sums[first], loud.days[first] = 10**9, 10**9, 1
    (quiet, breadth, people), (moved, _, counted) = (
        habits._release_mean(habits._some(one.grouped(), retail), retail) for one in (cohort, loud)
    )
    assert people == pytest.approx(30, rel=0.01)
    assert counted == pytest.approx(people, rel=0.1)
    assert 0 < np.linalg.norm(moved - quiet) <= 2 * habits._USUAL / 30
    assert breadth == pytest.approx(math.sqrt(cohort.chosen.sum() / cohort.days.sum()), rel=0.2)


def test_a_product_is_the_mean_over_days_of_different_months() -> None:
    rng = np.random.default_rng(2)
    months = [rng.normal(size=(count, 4)) * 0.01 for count in (3, 2, 4)]
    sums = np.stack([days.sum(0) for days in months])[None]
    found = habits._products(sums, np.array([[3.0, 2.0, 4.0]]))
    pairs = [
        np.outer(a, b) for one, other in itertools.permutations(months, 2) for a, b in itertools.product(one, other)
    ]
    expected = np.mean(pairs, axis=0) * 8 / (8 + habits._DOUBTED) / habits._PRODUCT
    rows, columns = np.triu_indices(4)
    lengths = np.where(rows == columns, 1, math.sqrt(2))
    assert found[0] == pytest.approx(expected[rows, columns] * lengths)
    assert np.linalg.norm(found[0]) == pytest.approx(np.linalg.norm(expected))


def test_people_without_two_months_say_nothing_of_habits() -> None:
    sums, days = np.zeros((2, 3, 4)), np.zeros((2, 3))
    sums[1, 0], days[1, 0] = 0.5, 1
    found = habits._products(sums, days)
    assert not found.any()


def test_habits_of_a_cohort_are_found_and_accidents_are_not(
    make_cohort: MakeCohort, retail: FeatureMap, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(habits, "HABITS_SIGMA", 2)
    monkeypatch.setattr(habits, "_MEAN_SIGMA", 2)
    rng, size = np.random.default_rng(5), retail.size
    # Two kinds of people: those of one kind have both of the first two codes on most of their days.
    chosen, sums = np.zeros((240, size - 1), np.int64), np.zeros((240, size), np.int64)
    for record, _ in np.ndindex(240, 8):
        often = 0.8 if record // 4 % 2 else 0.2
        day = {2} | ({0, 1} if rng.random() < often else set()) | ({3, 4} if rng.random() < 0.5 else set())
        day |= set(rng.integers(50, 110, 9).tolist())
        vector = retail.day_vector(retail.codes[code] for code in day)
        sums[record] += vector
        chosen[record] += vector[:-1] > 0
    cohort = PersonMonths(
        person=np.repeat(np.arange(60), 4),
        month=np.tile(np.arange(4), 60),
        rows=np.zeros_like(sums),
        days=np.full(240, 8),
        chosen=chosen,
        sums=sums,
        sigma=np.ones(240, dtype=np.int64),
    )
    found = release_habits(cohort.grouped(), retail)
    covariance = found.axes.T @ np.diag(found.variance) @ found.axes
    assert covariance[0, 1] > 10 * abs(covariance[3, 4])  # bought together as often, but by everyone alike
    assert covariance[0, 1] / math.sqrt(covariance[0, 0] * covariance[1, 1]) > 0.7
    assert found.popularity[2] > found.popularity[0] > found.popularity[60]


QUIET: Final = torch.tensor([-torch.inf if name == "sampling" else value for name, value in START.items()]).double()
"""The ten numbers, but that days have no accidents of their own."""


def test_habits_are_read_as_the_normal_posterior_mean(retail: FeatureMap) -> None:
    rng, public = np.random.default_rng(3), closed_form(retail)
    axes = np.linalg.qr(rng.normal(size=(retail.size - 1, 5)))[0].T.astype(np.float32)
    variance = np.array([0.5, 0.2, 0.1, 0.02, 0.0], dtype=np.float32)
    reader = Reader.of(
        retail, Backbone(retail.digest, public.scalars, public.popularity, axes, variance), torch.float64
    )
    values, g, noise = rng.normal(size=retail.size - 1), 7.0, 1.7
    seen = _Surprise(
        torch.from_numpy(values)[None], torch.tensor([[g]]), torch.tensor([[noise]]), torch.tensor([[True]])
    )
    change, reliance = reader._by_habits(QUIET, seen, None)
    prior = axes.T.astype(float) @ np.diag(variance.astype(float)) @ axes
    gain = g * prior @ np.linalg.inv(g**2 * prior + noise * np.eye(len(values)))
    assert change[0].numpy() == pytest.approx(gain @ values, abs=1e-6)
    assert float(reliance) == pytest.approx(g * np.trace(gain @ prior) / variance.sum(), rel=1e-5)


def test_what_is_seen_of_one_code_is_believed_of_those_bought_with_it(retail: FeatureMap) -> None:
    axes = np.zeros((1, retail.size - 1), dtype=np.float32)
    axes[0, [10, 20]] = math.sqrt(0.5)
    popularity = np.full(retail.size - 1, 0.05, dtype=np.float32)
    scalars = np.array(list(START.values()), dtype=np.float32)
    backbone = Backbone(retail.digest, scalars, popularity, axes, np.array([0.1], dtype=np.float32))
    rows = np.zeros((6, retail.size))
    rows[:, 10], rows[:, -1] = 4 * retail.content, 4 * retail.active_day
    month = torch.arange(6, dtype=torch.float64)
    seen = Months(torch.from_numpy(rows), torch.full((6,), 100.0).double(), month, torch.ones(6).double())
    scalars_of = torch.from_numpy(scalars).double()
    odds = Reader.of(retail, backbone, torch.float64).log_odds(scalars_of, seen, torch.tensor([6.0]).double())[0][0]
    assert odds[20] > odds[30] + 0.5
    assert odds[10] == pytest.approx(odds[20].item())


@pytest.mark.parametrize("people", [0, 3])
def test_a_cohort_that_noise_drowns_still_gives_numbers(
    make_cohort: MakeCohort, retail: FeatureMap, people: int
) -> None:
    everyone = np.arange(3)
    found = release_habits(make_cohort(3).of(everyone < people, everyone).grouped(), retail)
    assert ((found.popularity > 0) & (found.popularity < 1)).all()
    assert (found.variance >= 0).all()
    assert np.isfinite(found.axes).all()
    assert found.people >= 1


@pytest.mark.usefixtures("silent")
def test_kept_axes_stay_and_differences_are_stated_along_them(make_cohort: MakeCohort, retail: FeatureMap) -> None:
    cohort = make_cohort(40, months=6).grouped()
    free = release_habits(cohort, retail)
    assert (np.diff(free.variance) <= 0).all()  # the lens keeps the first
    rng, kept = np.random.default_rng(2), np.zeros((30, retail.size - 1), dtype=np.float32)
    modelled = np.flatnonzero(free.axes.any(0))
    kept[:, modelled] = np.linalg.qr(rng.normal(size=(len(modelled), 30)))[0].T
    found = release_habits(cohort, retail, kept)
    assert found.axes is kept
    covariance = free.axes.T.astype(float) @ np.diag(free.variance.astype(float)) @ free.axes
    assert found.variance == pytest.approx(np.einsum("ij,jk,ik->i", kept, covariance, kept), rel=1e-3)
    assert found.popularity == pytest.approx(free.popularity)
