"""Estimates are unbiased, know their own noise, and shrink as the closed form says."""

import numpy as np
import pytest

from vault.imprint.estimate import estimate, posterior
from vault.imprint.features import feature_map
from vault.imprint.noise import DiscreteGaussian
from vault.imprint.rows import Row, noisy
from vault.schema.category import Category
from vault.schema.trace import Period, periods_from

RETAIL = feature_map(Category("pd:Purchase"))
SIGMA = 421


def rows(values: list[np.ndarray]) -> list[Row]:
    months = periods_from(Period("2026-01"), len(values))
    return [
        Row(b"r" * 32, RETAIL.digest, month, 0, RETAIL.clip, SIGMA, value)
        for month, value in zip(months, values, strict=True)
    ]


def test_without_noise_it_counts_full_days() -> None:
    month = 3 * RETAIL.day_vector([RETAIL.codes[4]]) + RETAIL.day_vector(RETAIL.codes[:4])
    seen = estimate(RETAIL, rows([month, month]))
    assert seen.total[4] == pytest.approx(6.0)
    assert seen.total[:4] == pytest.approx(1.0, rel=0.01)
    assert seen.active_days == pytest.approx(8.0)
    assert seen.months == 2
    assert seen.total.shape == (RETAIL.size - 1,)


def test_its_variance_is_the_noise_s() -> None:
    empty = [np.zeros(RETAIL.size, dtype=np.int64)] * 300
    released = rows(list(noisy(empty, DiscreteGaussian(SIGMA))))
    seen = [estimate(RETAIL, rows([r.values for r in released[i : i + 3]]), [1, 0.5, 2]) for i in range(0, 300, 3)]
    totals = np.array([s.total for s in seen])
    # 30,400 values: the variance's standard error is 0.8 %, so 6 % is more than seven of them.
    assert totals.var() == pytest.approx(seen[0].noise_variance, rel=0.06)
    assert seen[0].noise_variance == pytest.approx(5.25 * (SIGMA / RETAIL.content) ** 2)
    assert seen[0].active_days_variance == pytest.approx(5.25 * (SIGMA / RETAIL.active_day) ** 2)


def test_no_rows_know_nothing() -> None:
    seen = estimate(RETAIL, [])
    assert not seen.total.any()
    assert (seen.noise_variance, seen.active_days, seen.months) == (0.0, 0.0, 0)


def test_rows_that_do_not_belong_together_are_refused() -> None:
    one = rows([np.zeros(RETAIL.size, dtype=np.int64)])
    foreign = Row(b"r" * 32, b"m" * 32, Period("2026-02"), 0, 1, 1, one[0].values)
    short = Row(b"r" * 32, RETAIL.digest, Period("2026-02"), 0, 1, 1, one[0].values[:-1])
    for bad in ([*one, foreign], [*one, short], one * 2):
        with pytest.raises(ValueError, match="row"):
            estimate(RETAIL, bad)
    with pytest.raises(ValueError, match="one weight per row"):
        estimate(RETAIL, one, [1.0, 1.0])


def test_the_posterior_is_bayes_rule_for_normals() -> None:
    seen = estimate(RETAIL, rows([100 * RETAIL.day_vector([RETAIL.codes[0]])]))
    k = RETAIL.size - 1
    prior = np.full(k, 10.0), np.full(k, 2.0)
    after = posterior(seen, *prior)
    precision = 1 / 2.0 + 1 / seen.noise_variance
    assert after.variance == pytest.approx(1 / precision)
    assert after.mean[0] == pytest.approx((10.0 / 2.0 + 100.0 / seen.noise_variance) / precision)
    certain = posterior(seen, np.full(k, 10.0), np.zeros(k))
    assert (certain.mean == 10.0).all()
    assert not certain.variance.any()
    flat = posterior(seen, np.zeros(k), np.full(k, 1e12))
    assert flat.mean == pytest.approx(seen.total, abs=1e-6)
