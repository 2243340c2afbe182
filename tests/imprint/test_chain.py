"""Chains: an exact bound that is attained, whole rows that hold their own day, the claimed covariance."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from vault.imprint.chain import MAX_HORIZON, Strategy, errors, power, prefix
from vault.imprint.level import covariance
from vault.imprint.noise import DiscreteGaussian, Integers

ALARM = 1e-9  # each statistical test here fails by chance once in a thousand million runs
STRATEGIES = [prefix(365), prefix(1), prefix(40), power(50, 365), power(65, 90), power(0, 7), power(100, 30)]
names = {"ids": lambda strategy: strategy.name}


def whole_sums(strategy: Strategy, days: Integers) -> Integers:
    """Return C x, exact and without noise, for the rows of `days` int64[days, N]."""
    return strategy.matrix[: len(days), : len(days)] @ days


@st.composite
def small_strategies(draw: st.DrawFn) -> Strategy:
    n = draw(st.integers(1, 5))
    matrix = np.zeros((n, n), dtype=np.int64)
    for row, column in itertools.combinations_with_replacement(range(n), 2):
        matrix[column, row] = draw(st.integers(1 if row == column else -3, 4))
    return Strategy("drawn", matrix)


def within(clip: int, coordinates: int) -> list[np.ndarray]:
    reach = range(-clip, clip + 1)
    points = itertools.product(reach, repeat=coordinates)
    return [np.array(point, dtype=np.int64) for point in points if sum(v * v for v in point) <= clip * clip]


@settings(max_examples=30)
@given(small_strategies(), st.integers(1, 4), st.randoms())
def test_the_sensitivity_is_the_largest_move_of_all_rows_by_any_one_day(strategy: Strategy, clip: int, rng) -> None:
    """Brute force: every day, every whole vector in the ball; the other days do not matter and are drawn."""
    others = np.array([[rng.randint(-clip, clip) for _ in range(2)] for _ in range(strategy.horizon)])
    worst = 0
    for day in range(strategy.horizon):
        without = others.copy()
        without[day] = 0
        for vector in within(clip, 2):
            with_day = without.copy()
            with_day[day] = vector
            move = whole_sums(strategy, with_day) - whole_sums(strategy, without)
            worst = max(worst, int((move**2).sum()))
    assert worst == clip**2 * strategy.column_square
    assert strategy.sensitivity(clip) == math.isqrt(worst - 1) + 1
    assert strategy.sensitivity(clip) ** 2 >= worst


@pytest.mark.parametrize("strategy", STRATEGIES, **names)
def test_published_strategies_show_no_day_longer_than_they_say(strategy: Strategy) -> None:
    columns = (strategy.matrix.astype(object) ** 2).sum(0)  # Python's integers: nothing wraps
    assert strategy.column_square == max(columns)
    for clip in (1, 48, 256):
        assert strategy.sensitivity(clip) ** 2 >= clip**2 * int(max(columns))


@settings(max_examples=50)
@given(small_strategies(), st.integers(0, 2**32 - 1))
def test_stored_rows_come_from_the_released_sums_alone(strategy: Strategy, seed: int) -> None:
    rng = np.random.default_rng(seed)
    days = rng.integers(-9, 10, (strategy.horizon, 3))
    noise = rng.integers(-500, 501, (strategy.horizon, 3))
    released = whole_sums(strategy, days) + noise
    rows = errors(strategy, released)
    assert np.array_equal(rows, days + errors(strategy, noise))
    # By the book, in Python's integers.
    for column in range(3):
        for at in range(strategy.horizon):
            before = sum(int(strategy.matrix[at, s]) * int(rows[s, column]) for s in range(at))
            diagonal = int(strategy.matrix[at, at])
            assert rows[at, column] == math.floor(
                (2 * (int(released[at, column]) - before) + diagonal) / (2 * diagonal)
            )


@pytest.mark.parametrize("strategy", STRATEGIES, **names)
def test_zero_noise_gives_the_plain_days_and_sums(strategy: Strategy) -> None:
    days = np.random.default_rng(1).integers(-256, 257, (strategy.horizon, 4))
    nothing = np.zeros_like(days)
    assert not errors(strategy, nothing).any()
    assert np.array_equal(errors(strategy, whole_sums(strategy, days)), days)


def test_neighbours_have_the_same_support() -> None:
    """What a day adds is whole, and noise reaches every whole number: whatever one releases, so may the other."""
    strategy = prefix(16)
    day = np.zeros((16, 1), dtype=np.int64)
    day[3] = 5
    move = whole_sums(strategy, day)
    assert move.dtype == np.int64
    noise = DiscreteGaussian(2)
    draws = noise.sample((40_000, 1, 1))
    for at in range(16):
        a = set((move[at] + draws).ravel().tolist())
        shifted = set(range(int(move[at, 0]) - 4, int(move[at, 0]) + 5))
        assert shifted <= a  # all residues: no lattice tells x from x'
    fractional = np.tril(np.full((3, 3), 1.5))
    with pytest.raises(ValueError, match="whole"):
        Strategy("fractional", fractional)  # type: ignore[arg-type]


@pytest.mark.parametrize("strategy", [prefix(60), power(65, 60)], **names)
def test_a_row_holds_no_other_day(strategy: Strategy) -> None:
    noise = DiscreteGaussian(900).sample((60, 5))
    days = np.random.default_rng(2).integers(-48, 49, (60, 5))
    rows = errors(strategy, whole_sums(strategy, days) + noise)
    days[17] = 0  # as if it had never been
    other = errors(strategy, whole_sums(strategy, days) + noise)
    assert np.flatnonzero((rows != other).any(1)).tolist() == [17]


@pytest.mark.parametrize("strategy", [prefix(365), power(65, 365)], **names)
def test_rows_made_day_by_day_are_those_made_at_once(strategy: Strategy) -> None:
    noise = DiscreteGaussian(3000).sample((365, 6))
    whole = errors(strategy, noise)
    for first in (1, 15, 16, 17, 200, 364):
        assert np.array_equal(errors(strategy, noise[first:], whole[:first]), whole[first:])
    remainder = strategy.matrix @ whole - noise
    assert (2 * np.abs(remainder) <= np.diag(strategy.matrix)[:, None]).all()


@pytest.mark.parametrize("strategy", [prefix(24), power(50, 24), power(65, 24)], **names)
def test_the_empirical_covariance_is_the_claimed_one(strategy: Strategy) -> None:
    """Whitened rows have unit variance and no correlation: 300 statistics, Bonferroni, two-sided at `ALARM`."""
    n, sigma = 40_000, 4000
    rows = errors(strategy, DiscreteGaussian(sigma).sample((24, n))).astype(float)
    claimed = covariance(strategy) * sigma**2
    white = np.linalg.solve(np.linalg.cholesky(claimed), rows)
    z = scipy.stats.norm.isf(ALARM / 2 / 300)
    products = white @ white.T / n
    assert np.abs(np.diag(products) - 1).max() < z * math.sqrt(2 / n) * 1.01
    assert np.abs(products - np.diag(np.diag(products))).max() < z / math.sqrt(n) * 1.01
    assert np.abs(white.mean(1)).max() < z / math.sqrt(n) * 1.01


def test_a_chain_has_no_row_beyond_its_horizon() -> None:
    with pytest.raises(ValueError, match="no row 7"):
        errors(prefix(7), np.zeros((8, 1), dtype=np.int64))
    for horizon in (0, MAX_HORIZON + 1):
        with pytest.raises(ValueError, match="days"):
            Strategy("x", np.eye(horizon, dtype=np.int64))
    with pytest.raises(ValueError, match="positive"):
        Strategy("x", np.zeros((2, 2), dtype=np.int64))
    with pytest.raises(ValueError, match="triangular"):
        Strategy("x", np.ones((2, 2), dtype=np.int64))
    with pytest.raises(ValueError, match="percent"):
        power(101, 3)


def test_numbers_beyond_exact_arithmetic_are_refused() -> None:
    with pytest.raises(ValueError, match="exact"):
        errors(prefix(3), np.full((3, 1), 2**50))
    explosive = np.tril(np.full((60, 60), 100), -1) + np.eye(60, dtype=np.int64)
    with pytest.raises(ValueError, match="exact"):
        errors(Strategy("explosive", explosive), np.full((60, 1), 100))


def test_weighted_prefix_sums_estimate_a_steady_habit_better_than_any_power() -> None:
    """The standard deviation of the best estimate of a sum, in units of a single release: see docs/twin-quality.md."""

    def deviation(strategy: Strategy, days: int) -> float:
        used = strategy.matrix[:days, :days].sum(1).astype(float)  # regress u on C 1
        return days * math.sqrt(strategy.column_square / (used @ used))

    for days, claimed in ((60, 2.05), (120, 1.76), (240, 1.53), (300, 1.52), (365, 1.65)):
        ours = deviation(prefix(365), days)
        assert ours <= claimed
        assert ours < min(deviation(power(percent, 365), days) for percent in (50, 65, 80))
    assert deviation(power(50, 365), 365) == pytest.approx(2.15, abs=0.01)
