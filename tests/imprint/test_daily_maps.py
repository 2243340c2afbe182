"""The daily maps: the coordinates of the monthly ones, a clip whose every share of a day's cap can be drawn."""

from __future__ import annotations

from datetime import date
from math import sqrt

import numpy as np
import pytest

from vault.budget.days import sigma_of
from vault.imprint.block import mu2_micro, sensitivity, sigma_that_costs, strategy_from
from vault.imprint.chain import errors
from vault.imprint.features import Cadence, FeatureMap, feature_map, mapped_for
from vault.imprint.noise import MAX_SIGMA, DiscreteGaussian
from vault.imprint.words import words_digest
from vault.proof.accounting import OWNER_DAY_CAP, gaussian
from vault.proof.certificate import BUILT_IN
from vault.twin.reader import closed_form

PUBLISHED = {
    "retail-1-daily": "cb506e96c45df3b140a70eff7c2793642d60af4d6d9006b0396c933ecb3d6321",
    "content-1-daily": "259fd71b15b4d9a9204252e329b02bfd88f4cdafa37170845c457f83579eb7b1",
    "clicks-1-daily": "c6c9cdea715fe95ae2d97c372337593469c6f50a47fb3ce48a7e2f2011f3753a",
    "health-1-daily": "1c642e6484608e6a7d2748dbe8120f86734a6cf841341011ad0c88059bc71733",
}
CATEGORIES = mapped_for(Cadence.DAILY)
SHARES = range(1, len(CATEGORIES) + 1)
of_each_map = pytest.mark.parametrize("mapped", [feature_map(one, Cadence.DAILY) for one in CATEGORIES])


def test_every_category_that_has_monthly_rows_has_daily_ones_and_digests_stay_what_they_are() -> None:
    assert mapped_for(Cadence.MONTHLY) == CATEGORIES
    shipped = {(one := feature_map(category, Cadence.DAILY)).version: one.digest.hex() for category in CATEGORIES}
    assert shipped == PUBLISHED, "another digest makes the rows there are unreadable"


@of_each_map
def test_a_daily_map_differs_from_the_monthly_one_by_its_clip_alone(mapped: FeatureMap) -> None:
    monthly = feature_map(mapped.category)
    same = ("codes", "names", "hierarchy", "derived", "rules", "metrics")
    assert {name for name in same if getattr(mapped, name) != getattr(monthly, name)} == set()
    assert mapped.digest != monthly.digest
    assert (mapped.clip, monthly.clip) == (64, 256)
    assert words_digest(mapped) == words_digest(monthly)
    assert closed_form(mapped).digest in BUILT_IN


@of_each_map
def test_the_noise_of_every_share_can_be_drawn_and_all_shares_together_stay_under_the_cap(mapped: FeatureMap) -> None:
    for count in SHARES:
        on_time, late = sigma_of(mapped, count, late=False), sigma_of(mapped, count, late=True)
        assert late < on_time <= MAX_SIGMA
        one = gaussian(sensitivity(mapped.clip), on_time) + gaussian(mapped.clip, late)
        assert OWNER_DAY_CAP.admits(sum([one] * (count - 1), one))
        assert not OWNER_DAY_CAP.admits(sum([one] * count, one))
    assert sigma_of(mapped, 1, late=False) == 12_833, "whoever shares one category keeps the noise that daily rows had"


@of_each_map
def test_what_a_row_costs_names_the_noise_that_it_was_made_with(mapped: FeatureMap) -> None:
    length = sensitivity(mapped.clip)
    for sigma in {*range(1, MAX_SIGMA, 97), *(sigma_of(mapped, count, late=False) for count in SHARES)}:
        if sigma < 50_000:
            assert sigma_that_costs(length, mu2_micro(length, sigma)) == sigma
            assert mu2_micro(length, sigma) != mu2_micro(length, sigma + 1)


@of_each_map
def test_a_day_of_many_codes_rounds_down_and_loses_less_than_a_sixth(mapped: FeatureMap) -> None:
    room = mapped.clip**2 - mapped.active_day**2
    for count in range(1, min(100, mapped.size - 2) + 1):
        value = int(mapped.day_vector(mapped.codes[:count])[0])
        assert value**2 * count <= room < (value + 1) ** 2 * count
        assert value > sqrt(room / count) * 5 / 6


@of_each_map
def test_zero_noise_gives_plain_days_and_a_neighbour_differs_by_no_more_than_is_charged(mapped: FeatureMap) -> None:
    start, nothing = date(2026, 1, 1), lambda size: (b"\0" * 7 + b"\x80") * (size // 8)
    days = np.zeros((90, mapped.size), dtype=np.int64)
    days[40] = mapped.day_vector(mapped.codes[:3])
    quiet = DiscreteGaussian(400).sample(days.shape, nothing)
    assert np.array_equal(days + errors(strategy_from(start), quiet), days)
    moved = strategy_from(start).matrix[:90, :90] @ days
    assert 0 < int((moved**2).sum()) <= sensitivity(mapped.clip) ** 2
