"""Both encodings of measured days say what they should where there is no noise: their figures differ by noise alone."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks._measured import MAP, _mass, _ranges, by_ranges, by_sums, middles


def test_without_noise_sums_are_exact_and_ranges_within_half_of_one() -> None:
    rng = np.random.default_rng(3)
    days = [{"metric:steps": int(rng.integers(2_500_000, 12_500_000)), "metric:sleep": 7_500} for _ in range(400)]
    truth = np.array([day["metric:steps"] for day in days], dtype=np.float64)
    by_sum, by_range = by_sums(days, rng, 0.0), by_ranges(days, rng, 0.0)
    assert by_sum["metric:steps"] == pytest.approx((truth.mean(), truth.std()), rel=0.01)
    assert by_range["metric:steps"][0] == pytest.approx(truth.mean(), abs=1_250_000 / 2)
    assert by_range["metric:sleep"] == pytest.approx((7_500.0, 0.0), abs=1.0)


def test_ranges_at_the_ends_stand_for_half_a_neighbour_beyond_the_bound() -> None:
    steps = MAP.metric_of["metric:steps"]
    assert middles(steps).tolist() == [1_250_000, 3_750_000, 6_250_000, 8_750_000, 11_250_000, 13_750_000]


def test_a_guess_is_scored_within_each_metric() -> None:
    day = _ranges({"metric:steps": 6_000_000})
    assert day == {"metric:steps:2"}
    score = dict.fromkeys(MAP.objects, 1.0)
    assert _mass(score, [day]) == pytest.approx(1 / 6)
    assert _mass(score | {"metric:steps:2": 5.0}, [day, day]) == pytest.approx(0.5)
