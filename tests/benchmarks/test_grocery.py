"""The grocery benchmark: what it charges households bounds what it releases; a question reads closed days only."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import norm

from benchmarks import _grocery_chain as chain
from benchmarks import _grocery_reader as reader
from benchmarks._grocery import DAYS, Shops, retail_map
from benchmarks._grocery_chain import CLOSES_AFTER, filter_of
from benchmarks._quality_bounds import Chain, Once
from benchmarks._quality_grocery import DRIFT, folds_of, ndcg
from vault.imprint.chain import prefix
from vault.imprint.noise import DiscreteGaussian
from vault.proof.accounting import gaussian

K = len(retail_map().codes) - 2


def shops_of(people: int, seed: int, per_person: int = 9) -> Shops:
    rng = np.random.default_rng(seed)
    person = np.repeat(np.arange(people), per_person)
    day = np.concatenate([np.sort(rng.choice(DAYS, per_person, replace=False)) for _ in range(people)])
    return Shops(np.arange(people), person, day, rng.random((len(person), K)) < 0.02)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, object]]:
    """Record sigma and shape of every draw, and draw nothing: what is released is the exact sum."""
    seen: list[tuple[int, object]] = []

    def nothing(self: DiscreteGaussian, shape: object) -> np.ndarray:
        seen.append((self.sigma, shape))
        return np.zeros(shape, dtype=np.int64)  # type: ignore[call-overload]

    monkeypatch.setattr(DiscreteGaussian, "sample", nothing)
    return seen


@pytest.mark.parametrize("extreme", [False, True])
def test_a_household_moves_the_products_by_at_most_what_is_charged(drawn: list, extreme: bool) -> None:
    settings = reader.Settings(codes=30)
    everyone = shops_of(6, 1)
    if extreme:  # one category in every shop: the longest products there are
        everyone.bought[everyone.person == 5] = np.arange(K) == 3
    without = everyone.of(np.arange(6) < 5)
    released = []
    for shops in (everyone, without):
        deviations = reader.unit_vectors(shops.bought)[:, :30] - 0.05
        seen, _ = reader._covariance(shops, deviations, 1.0, settings)
        released.append(seen)
    scale = settings.product * settings.inflation / (reader._FILLED * reader._UNIT)
    both = np.where(np.eye(30, dtype=bool), 1.0, np.sqrt(2.0))
    move = ((released[0] - released[1]) / scale * both)[np.triu_indices(30)]
    assert np.abs(move - np.rint(move)).max() < 1e-6
    assert 0 < np.linalg.norm(move) <= reader._UNIT
    assert {sigma for sigma, _ in drawn} == {reader._sigma(reader._UNIT, reader._SHARES[1])}


def test_products_are_of_different_shops_of_one_household() -> None:
    shops, settings = shops_of(3, 5, per_person=4), reader.Settings(product=1e9, doubted=0.0)
    deviations = reader.unit_vectors(shops.bought)[:, :20] - 0.1
    found = reader._products(shops, deviations, range(1, 3), settings)
    for at, person in enumerate((1, 2)):
        own = deviations[shops.person == person]
        pairs = [np.outer(own[i], own[j]) for i in range(4) for j in range(4) if i != j]
        assert found[at] == pytest.approx(np.mean(pairs, axis=0), abs=1e-6)
    lonely = shops.of(np.arange(3) < 1)
    single = Shops(lonely.people, lonely.person[:1], lonely.day[:1], lonely.bought[:1])
    assert not reader._products(single, deviations[:1], range(1), settings).any()


def test_without_noise_the_covariance_is_the_mean_of_products() -> None:
    shops = shops_of(5, 6)
    settings = reader.Settings(private=False, product=0.5, doubted=0.0, inflation=1.0)
    deviations = reader.unit_vectors(shops.bought)[:, :20] - 0.1
    seen, entry = reader._covariance(shops, deviations, 5.0, settings)
    assert seen == pytest.approx(reader._products(shops, deviations, range(5), settings).mean(0))
    assert entry == 0.0


def test_a_household_moves_the_means_by_at_most_what_is_charged(drawn: list) -> None:
    people = 40
    contributions = np.random.default_rng(2).normal(size=(people, 50))
    contributions /= np.linalg.norm(contributions, axis=1, keepdims=True)
    whole = [reader._release(rows, reader._SHARES[0], private=True) for rows in (contributions, contributions[1:])]
    assert np.linalg.norm((whole[0] - whole[1]) * reader._UNIT) <= reader._UNIT
    too_long = reader._release(contributions * 1.5, reader._SHARES[0], private=True)
    assert not too_long.any()  # a contribution that broke its promise is dropped, not released


def test_what_is_drawn_is_what_is_charged(drawn: list) -> None:
    learned = reader.learn(shops_of(30, 3), DAYS, reader.Settings(codes=40, directions=20))
    assert len(drawn) == 3
    curves = [gaussian(reader._UNIT, sigma) for sigma, _ in drawn]
    assert sum(curves[1:], curves[0]) == reader.person_charge()
    assert reader.person_charge().epsilon(reader.PERSON_DELTA) <= reader.PERSON_EPSILON
    assert drawn[1][1] == 40 * 41 // 2
    assert learned.projection.size == 21


def test_a_reading_is_the_mean_over_how_often_people_shop_and_how_much_they_differ() -> None:
    learned = reader.learn(shops_of(30, 3), DAYS, reader.Settings(codes=40, directions=6, private=False))
    learned = replace(learned, covariance=learned.covariance + 0.002 * np.eye(40))  # habits that show
    rng, lens, count = np.random.default_rng(4), learned.lens, learned.projection.active_day
    estimates = rng.normal(0, 3, size=(4, 7)).astype(np.float32)
    noise, square = np.array([2.0, 2.0, 30.0, 2.0]), np.array([0.01, 0.01, 0.02, 0.02])
    scores = reader.read(learned, estimates, noise.astype(np.float32), square.astype(np.float32))
    rates, differing, prior = reader._grid(*learned.rate, learned.differing)
    usual, habits = learned.projected @ lens.axes, np.zeros((4, 6))
    for at in range(4):
        seen, weights, means = estimates[at, :-1].astype(float) @ lens.axes, [], []
        for rate, width, log in zip(rates, differing, prior, strict=True):
            variance = rate**2 * width * lens.values + noise[at] + rate * square[at] * lens.accident
            inside = norm.logpdf(seen, rate * usual, np.sqrt(variance)).sum()
            weights.append(log + inside + norm.logpdf(estimates[at, -1], rate * count, np.sqrt(noise[at])))
            means.append(rate * width * lens.values / variance * (seen - rate * usual))
        habits[at] = softmax(weights) @ np.array(means)
    expected = np.tile(learned.mean, (4, 1))
    expected[:, learned.keep] += habits @ lens.back
    assert np.abs(habits).max() > 0.01
    assert scores == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_what_differs_less_than_most_is_believed_less() -> None:
    learned = reader.learn(shops_of(30, 3), DAYS, reader.Settings(codes=40, directions=6, private=False))
    quiet, loud = (
        np.append(size * np.sqrt(learned.lens.values) @ learned.lens.axes.T, learned.projection.active_day * 0.1)
        for size in (0.01, 1.0)
    )
    noise, square = np.float32([1e-4]), np.float32([0.003])
    one, all_ = learned, replace(learned, differing=(1.0,))
    for seen, less in ((quiet, True), (loud, False)):
        both = [
            reader.read(each, seen[None].astype(np.float32), noise, square)[0] - learned.mean for each in (one, all_)
        ]
        assert (np.linalg.norm(both[0]) < np.linalg.norm(both[1])) == less


def test_a_question_reads_only_days_that_had_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chain, "DAYS", 70)  # a short year: every day of it is solved for
    chosen = filter_of(prefix(70), 48, 3.0, 0.0)
    for day in (5, 40, 69):
        assert not chosen.weights[day, day - CLOSES_AFTER :].any()
        assert chosen.weights[day].sum() == pytest.approx(1.0, abs=1e-4)
    assert np.isinf(chosen.noise_variance[CLOSES_AFTER])


def test_ndcg_by_hand_and_folds_of_equal_size() -> None:
    scores = np.arange(12.0, dtype=np.float32)[None]
    bought = np.zeros((1, 12), dtype=bool)
    bought[0, [11, 9]] = True
    assert ndcg(scores, bought)[0] == pytest.approx((1 + 1 / np.log2(4)) / (1 + 1 / np.log2(3)))
    counts = np.bincount(folds_of(np.arange(1, 2501)))
    assert counts.min() > 490


def test_one_release_adds_up_the_last_days_before_a_question(drawn: list, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Once, "window", lambda self: 90)
    shops, rng = shops_of(5, 8), np.random.default_rng(9)
    which, vectors = (shops.day >= 60) & (shops.person != 3), rng.integers(-40, 40, (len(shops.day), 4))
    seen = 0
    for wanted, found, variance, square in Once().levels(shops, which, vectors):
        for at, level in zip(wanted, found, strict=True):
            day = shops.day[at]
            days = min(day, 90)
            mine = (shops.person == shops.person[at]) & (shops.day < day) & (shops.day >= day - days)
            assert level == pytest.approx(vectors[mine].sum(0) / days, abs=1e-4)
        assert variance == pytest.approx(Once().sigma ** 2 / np.minimum(shops.day[wanted], 90) ** 2)
        assert square == pytest.approx(1 / np.minimum(shops.day[wanted], 90))
        seen += len(wanted)
    assert seen == which.sum()
    assert {sigma for sigma, _ in drawn} == {Once().sigma}
    assert sum(shape[0] for _, shape in drawn) == seen  # a draw for each question


def test_the_window_is_the_best_for_habits_that_drift() -> None:
    age, drift = np.arange(1, DAYS), DRIFT * reader.CLIP**2
    off = [Once().sigma ** 2 / n**2 + drift * np.minimum.outer(age[:n], age[:n]).mean() for n in range(1, DAYS)]
    assert abs(1 + int(np.argmin(off)) - Once().window()) <= 2


def test_what_a_bound_costs_is_what_it_says() -> None:
    assert 2.9 < Once().epsilon() <= 3.0
    assert Chain().epsilon() <= 3.0
    assert Chain(4).filter.sigma * 2 == pytest.approx(Chain().filter.sigma, abs=2)
    assert 6 < Chain(4).epsilon() < 7
