"""The closed forms agree with dp_accounting and Opacus, and every rounding is against the spender."""

import math
from fractions import Fraction

import dp_accounting
import numpy as np
import pytest
from dp_accounting.rdp import rdp_privacy_accountant
from hypothesis import given
from hypothesis import strategies as st
from opacus.accountants.analysis import rdp as opacus_rdp

from vault.budget.accounting import sigma_for
from vault.proof.accounting import NOTHING, ORDERS, Cap, Curve, from_renyi, gaussian, pure

scales = st.tuples(st.integers(1, 2_000), st.integers(1, 16_384))


@given(scales, st.integers(1, 24))
def test_gaussian_curves_are_dp_accounting_s(scale: tuple[int, int], releases: int) -> None:
    sensitivity, sigma = scale
    accountant = rdp_privacy_accountant.RdpAccountant(ORDERS)
    accountant.compose(dp_accounting.GaussianDpEvent(sigma / sensitivity), releases)
    ours = gaussian(sensitivity, sigma, releases)
    assert np.array(ours.nano) / 1e9 == pytest.approx(np.array(accountant._rdp), rel=1e-9, abs=1e-9 * releases)


@given(st.floats(0.4, 40), st.integers(1, 12), st.sampled_from([1e-5, 1e-6, 1e-9]))
def test_epsilon_is_opacus_s_and_of_gaussian_noise_the_exact_one(
    multiplier: float, releases: int, delta: float
) -> None:
    sigma = math.ceil(256 * multiplier)
    ours = gaussian(256, sigma, releases)
    curve = opacus_rdp.compute_rdp(q=1.0, noise_multiplier=sigma / 256, steps=releases, orders=list(ORDERS))
    theirs, _ = _opacus_epsilon(curve, delta)
    assert Curve(ours.nano).epsilon(delta) == pytest.approx(max(0.0, theirs), abs=1e-6)
    exact = _exact_gaussian(math.sqrt(releases) * 256 / sigma, delta)
    assert exact <= ours.epsilon(delta) <= exact * 1.002 + 1e-6


def test_subsampled_training_curves_pass_through_unchanged() -> None:
    bounds = opacus_rdp.compute_rdp(q=0.05, noise_multiplier=2.0, steps=500, orders=list(ORDERS))
    curve = from_renyi(list(bounds))
    assert curve.epsilon(1e-6) == pytest.approx(_opacus_epsilon(bounds, 1e-6)[0], abs=1e-6)
    assert all(n >= b * 1e9 for n, b in zip(curve.nano, bounds, strict=True))


@pytest.mark.parametrize(("epsilon", "delta"), [(0.5, 1e-6), (1, 1e-6), (3, 1e-6), (8, 1e-6), (3, 1e-5)])
@pytest.mark.parametrize("releases", [1, 2, 12])
def test_sigma_is_the_least_that_the_cap_admits(epsilon: float, delta: float, releases: int) -> None:
    sigma = sigma_for(epsilon, delta, 256, releases)
    assert gaussian(256, sigma, releases).epsilon(delta) <= epsilon
    assert gaussian(256, sigma - 1, releases).epsilon(delta) > epsilon
    assert Cap(epsilon, delta).admits(sum([gaussian(256, sigma)] * releases, NOTHING))
    best = dp_accounting.get_sigma_gaussian(epsilon, delta) * math.sqrt(releases) * 256
    assert best <= sigma <= best * 1.001 + 1
    renyi = [
        Cap(epsilon, delta).admits(Curve(gaussian(256, at, releases).nano)) for at in (sigma, math.ceil(sigma * 1.1))
    ]
    assert renyi == [False, True]


def test_sigma_that_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(ValueError, match="more noise"):
        sigma_for(0.001, 1e-9, 256)


def test_the_exact_discrete_gaussian_stays_under_the_reported_epsilon() -> None:
    for epsilon in (0.5, 1.0, 3.0):
        sigma = sigma_for(epsilon, 1e-6, 16)
        z = np.arange(-40 * sigma, 40 * sigma + 1)
        log_p = -(z**2) / (2 * sigma**2)
        log_q = -((z - 16) ** 2) / (2 * sigma**2)
        p, q = np.exp(log_p), np.exp(log_q)
        delta = np.maximum(p - math.exp(epsilon) * q, 0).sum() / p.sum()
        assert delta <= 1e-6


@pytest.mark.parametrize("sigma", [3, 4, 7])
@pytest.mark.parametrize("shift", [(3, 4), (0, 5), (1, 0), (8, 6), (12, 16)])
def test_what_two_coordinates_of_exact_discrete_noise_show_is_what_is_charged_at_most(
    shift: tuple[int, int], sigma: int
) -> None:
    z = np.arange(-14 * sigma - 16, 14 * sigma + 17, dtype=np.float64)
    one, two = (np.exp(-((z - by) ** 2) / (2 * sigma**2)) for by in (0, shift[0]))
    three, four = (np.exp(-((z - by) ** 2) / (2 * sigma**2)) for by in (0, shift[1]))
    p, q = np.outer(one, three), np.outer(two, four)
    curve = gaussian(math.isqrt(shift[0] ** 2 + shift[1] ** 2), sigma)
    for delta in (1e-2, 1e-4, 1e-6):
        shown = np.maximum(p - math.exp(curve.epsilon(delta)) * q, 0).sum() / p.sum()
        assert shown <= delta


@given(st.floats(-0.5, 0.5), st.sampled_from([9, 12, 40]))
def test_continuous_noise_rounded_at_random_is_discrete_noise(offset: float, square: int) -> None:
    whole, fine = np.arange(-60, 61), np.linspace(-60, 60, 24_001) + offset
    continuous = np.exp(-(fine**2) / (2 * (square - 8)))
    rounding = np.exp(-((whole[:, None] - fine) ** 2) / (2 * 8))
    made = (rounding / rounding.sum(0)) @ continuous
    discrete = np.exp(-(whole**2) / (2 * square))
    inner = np.abs(whole) < 20  # the sums stop at 60
    assert made[inner] / made.sum() == pytest.approx(discrete[inner] / discrete.sum(), rel=1e-9)


def test_discrete_noise_is_charged_as_what_is_left_of_it_before_rounding() -> None:
    assert gaussian(1, 3).mu2_nano == 10**9
    assert gaussian(3, 4, 5).mu2_nano == 5 * math.ceil(9 * 10**9 / 8)
    assert gaussian(1, 2).mu2_nano is None
    assert gaussian(2**30, 3).mu2_nano is None  # no record holds it
    assert gaussian(7, 16_384).mu2_nano == math.ceil(Fraction(49 * 10**9, 16_384**2 - 8))


def test_what_is_not_gaussian_is_not_counted_as_if_it_were() -> None:
    sigma = sigma_for(3.0, 1e-6, 256)
    noise = gaussian(256, sigma)
    assert Cap(3.0, 1e-6).admits(noise)
    assert Cap(3.0, 1e-6).admits(noise + NOTHING)
    for other in (pure(1e-9), from_renyi([1e-12] * len(ORDERS))):
        assert (noise + other).mu2_nano is (other + noise).mu2_nano is None
        assert not Cap(3.0, 1e-6).admits(noise + other)
        assert (noise + other).epsilon(1e-6) > 3.1


def test_categories_of_one_day_compose_as_the_continuous_figures_say() -> None:
    sigma = sigma_for(3, 1e-6, 256)
    two, four = (gaussian(256, sigma, k).epsilon(1e-6) for k in (2, 4))
    assert two == pytest.approx(4.45, abs=0.1)
    assert four == pytest.approx(6.7, abs=0.15)


@given(scales, scales)
def test_composition_adds_and_never_lowers(a: tuple[int, int], b: tuple[int, int]) -> None:
    one, both = gaussian(*a), gaussian(*a) + gaussian(*b)
    assert both == gaussian(*b) + gaussian(*a)
    assert both.epsilon(1e-6) >= one.epsilon(1e-6)
    assert one + NOTHING == one


def test_rounding_is_upwards() -> None:
    exact = [Fraction(order) * 10**9 / (2 * 16_384**2) for order in ORDERS]
    assert all(nano >= bound for nano, bound in zip(gaussian(1, 16_384).nano, exact, strict=True))
    tiny = from_renyi([1e-30] * len(ORDERS))
    assert tiny.nano == (1,) * len(ORDERS)
    assert NOTHING.epsilon(1e-6) == 0.0


def test_pure_mechanisms_never_cost_more_than_their_epsilon() -> None:
    assert pure(0.5).epsilon(1e-6) <= pure(1.0).epsilon(1e-6)
    assert max(pure(0.5).nano) == 500_000_000
    assert Cap(1.1, 1e-6).admits(pure(1.0))


def test_what_has_no_bound_fits_no_cap() -> None:
    unbounded = from_renyi([math.inf] * len(ORDERS))
    assert not Cap(20, 0.5).admits(unbounded)
    assert not Cap(20, 0.5).admits(unbounded + unbounded)


@pytest.mark.parametrize("bounds", [[math.nan] * len(ORDERS), [-1.0] * len(ORDERS), [1.0]])
def test_bounds_that_are_none_are_refused(bounds: list[float]) -> None:
    with pytest.raises(ValueError, match="bound"):
        from_renyi(bounds)


@pytest.mark.parametrize(("epsilon", "delta"), [(0, 1e-6), (21, 1e-6), (3, 0), (3, 1), (math.nan, 1e-6)])
def test_caps_out_of_range_are_refused(epsilon: float, delta: float) -> None:
    with pytest.raises(ValueError, match="cap"):
        Cap(epsilon, delta)


def test_a_curve_fits_the_grid() -> None:
    with pytest.raises(ValueError, match="order"):
        Curve((1, 2))
    with pytest.raises(ValueError, match="non-negative"):
        Curve(NOTHING.nano, -1)
    assert list(ORDERS) == sorted(set(ORDERS))


def _opacus_epsilon(curve: np.ndarray, delta: float) -> tuple[float, float]:
    # Opacus warns when the best order is the grid's last; its formula is what is compared.
    orders = np.array(ORDERS)
    epsilons = curve - (np.log(delta) + np.log(orders)) / (orders - 1) + np.log((orders - 1) / orders)
    best = int(np.nanargmin(epsilons))
    if best not in {0, len(ORDERS) - 1}:
        assert opacus_rdp.get_privacy_spent(orders=list(ORDERS), rdp=curve, delta=delta)[0] == epsilons[best]
    return float(epsilons[best]), float(orders[best])


def _exact_gaussian(mu: float, delta: float) -> float:
    return dp_accounting.get_epsilon_gaussian(1 / mu, delta)
