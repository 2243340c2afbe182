"""The sampler is the discrete Gaussian: no zero, no bias, right tails, ties decided by all 256 bits."""

import io
import math

import numpy as np
import opendp.prelude as dp
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from vault.imprint.noise import _CHUNK, MAX_SIGMA, DiscreteGaussian, _below, _thresholds

ALARM = 1e-9  # each statistical test here fails by chance once in a thousand million runs


def exact(sigma: int, reach: int) -> np.ndarray:
    z = np.arange(-reach, reach + 1)
    weight = np.exp(-(z**2) / (2 * sigma**2))
    return weight / weight.sum()


@pytest.mark.parametrize("sigma", [0, -1, MAX_SIGMA + 1, 1.5, True, float("nan")])
def test_a_release_without_noise_cannot_be_written_down(sigma: int) -> None:
    with pytest.raises(ValueError, match="sigma"):
        DiscreteGaussian(sigma)


@pytest.mark.parametrize("sigma", [1, 3, 40])
def test_counts_follow_the_exact_probabilities(sigma: int) -> None:
    n = 300_000
    draws = DiscreteGaussian(sigma).sample(n)
    reach = 3 * sigma
    inner = np.bincount(np.clip(draws, -reach - 1, reach + 1) + reach + 1, minlength=2 * reach + 3)
    pmf = exact(sigma, 18 * sigma)
    middle = pmf[len(pmf) // 2 - reach : len(pmf) // 2 + reach + 1]
    tail = (1 - middle.sum()) / 2
    expected = n * np.concatenate([[tail], middle, [tail]])
    assert scipy.stats.chisquare(inner, expected * inner.sum() / expected.sum()).pvalue > ALARM


def test_mean_variance_and_tails_at_the_served_scale() -> None:
    sigma, n = 421, 1_000_000
    draws = DiscreteGaussian(sigma).sample(n)
    z = scipy.stats.norm.isf(ALARM / 2)
    assert abs(draws.mean()) < z * sigma / math.sqrt(n)
    assert abs(draws.var() / sigma**2 - 1) < z * math.sqrt(2 / n)
    for sigmas in (2, 3, 4):
        beyond = int((np.abs(draws) > sigmas * sigma).sum())
        pmf = exact(sigma, 18 * sigma)
        mass = pmf[np.abs(np.arange(-18 * sigma, 18 * sigma + 1)) > sigmas * sigma].sum()
        assert scipy.stats.binomtest(beyond, n, mass).pvalue > ALARM


def test_opendp_draws_from_the_same_distribution() -> None:
    dp.enable_features("contrib")
    space = dp.vector_domain(dp.atom_domain(T="i64")), dp.l2_distance(T=float)
    theirs = np.array(dp.m.make_gaussian(*space, scale=20.0)(np.zeros(20_000, dtype=np.int64)))
    ours = DiscreteGaussian(20).sample(20_000)
    edges = np.arange(-60, 61, 5)
    table = [np.histogram(np.clip(x, -60, 60), bins=edges)[0] for x in (ours, theirs)]
    assert scipy.stats.chi2_contingency(table).pvalue > ALARM


def test_successive_draws_are_independent() -> None:
    draws = DiscreteGaussian(50).sample((2, 200_000)).astype(float)
    assert not np.array_equal(draws[0], draws[1])
    bound = scipy.stats.norm.isf(ALARM / 2) / math.sqrt(200_000)
    assert abs(np.corrcoef(draws[0], draws[1])[0, 1]) < bound
    assert abs(np.corrcoef(draws[0][1:], draws[0][:-1])[0, 1]) < bound


def test_thresholds_are_exact_to_far_beyond_a_float() -> None:
    mass = {z: math.exp(-z * z / 18) for z in range(-54, 55)}
    thresholds, high = _thresholds(3)
    assert len(thresholds) == 108
    total = sum(mass.values())
    for z in range(-54, 54):
        below = sum(m for y, m in mass.items() if y <= z) / total
        assert thresholds[z + 54] / 2**256 == pytest.approx(below, rel=1e-12)
    # Symmetry holds only if hardly any of the 256 bits was lost on the way.
    assert all(abs(thresholds[53 - i] + thresholds[54 + i] - 2**256) < 2**20 for i in range(54))
    assert [int(h) for h in high] == [t >> 192 for t in thresholds]


@given(st.integers(0, 107), st.booleans())
def test_a_tie_in_64_bits_is_decided_by_the_other_192(at: int, below: bool) -> None:
    thresholds, _ = _thresholds(3)
    uniform = thresholds[at] - below
    high, low = uniform >> 192, uniform & (2**192 - 1)
    answers = iter([high.to_bytes(8, "little"), low.to_bytes(24, "little")])
    drawn = DiscreteGaussian(3).sample(1, lambda size: next(answers))
    assert drawn[0] == at - 54 + (0 if below else 1)


@pytest.mark.parametrize("sigma", [1, 5, 700, 7000])
def test_the_guided_search_finds_what_a_plain_one_does(sigma: int) -> None:
    _, high = _thresholds(sigma)
    edges = np.arange(2**12, dtype=np.uint64) << np.uint64(52)
    drawn = np.random.default_rng(sigma).integers(0, 2**64, 100_000, dtype=np.uint64)
    last = np.array([2**64 - 1], dtype=np.uint64)
    for uniform in (high, high - np.uint64(1), high + np.uint64(1), edges, edges[1:] - np.uint64(1), drawn, last):
        assert np.array_equal(_below(sigma, uniform), np.searchsorted(high, uniform, side="right"))


def test_a_long_draw_reads_its_bytes_in_order_and_decides_ties_in_every_part() -> None:
    thresholds, high = _thresholds(700)
    rng = np.random.default_rng(3)
    count = 2 * _CHUNK + 5
    uniform = rng.integers(0, 2**64, count, dtype=np.uint64)
    tied = {at: int(rng.integers(0, len(high))) for at in (0, _CHUNK - 1, _CHUNK, count - 1)}
    for at, threshold in tied.items():
        uniform[at] = high[threshold]
    lows = iter(
        thresholds[threshold] % 2**192 - 1 for threshold in tied.values()
    )  # just below: what 64 bits cannot tell
    read = io.BytesIO(uniform.tobytes()).read
    found = DiscreteGaussian(700).sample(
        count, lambda size: next(lows).to_bytes(24, "little") if size == 24 else read(size)
    )
    expected = np.searchsorted(high, uniform, side="right")
    for at, threshold in tied.items():
        expected[at] = threshold
    assert np.array_equal(found, expected - len(thresholds) // 2)
    assert next(lows, None) is None
    assert not read()


@pytest.mark.parametrize("given", [0, 8, 8 * 99])
def test_too_few_bytes_are_refused_and_not_used_again(given: int) -> None:
    with pytest.raises(ValueError, match="buffer"):
        DiscreteGaussian(5).sample(100, lambda size: bytes(given))


def test_extreme_uniforms_stay_inside_the_table() -> None:
    assert DiscreteGaussian(5).sample(1, bytes)[0] == -90
    assert DiscreteGaussian(5).sample(1, lambda size: b"\xff" * size)[0] == 90
    assert DiscreteGaussian(5).sample(0).shape == (0,)
