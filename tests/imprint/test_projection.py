"""Projected days: whole, inside the clip whatever comes in, zero where nothing happened."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from vault.imprint.projection import Projection, whole_within

anything = st.floats(allow_nan=True, allow_infinity=True, width=64)
RNG = np.random.default_rng(0)


def projection(size: int = 12, directions: int = 5, clip: int = 48, length: float = 0.3) -> Projection:
    return Projection(RNG.uniform(0, 0.3, size), RNG.normal(size=(directions, size)), length, clip)


def squares(rows: np.ndarray) -> list[int]:
    return [sum(int(v) ** 2 for v in row) for row in rows]


@given(nps.arrays(np.float64, (3, 12), elements=anything), st.integers(1, 300), st.floats(1e-6, 1e3))
def test_no_day_exceeds_the_clip_whatever_it_held(present: np.ndarray, clip: int, length: float) -> None:
    vectors = projection(clip=clip, length=length).day_vectors(present)
    assert vectors.dtype == np.int64
    assert vectors.shape == (3, 6)
    assert max(squares(vectors)) <= clip**2


def test_what_is_not_a_finite_positive_number_did_not_occur() -> None:
    mapped = projection(4)
    odd = np.array([[np.nan, np.inf, -np.inf, -1.0], [0.0, np.nan, 2.0, np.inf], [0.0, 0.0, 1.0, 0.0]])
    vectors = mapped.day_vectors(odd)
    assert not vectors[0].any()
    assert np.array_equal(vectors[1], vectors[2])
    assert vectors[2, -1] == mapped.active_day


def test_how_often_a_code_occurred_changes_nothing_and_a_quiet_day_is_zero() -> None:
    mapped = projection()
    once = (RNG.random((1, 12)) < 0.5).astype(float)
    assert np.array_equal(mapped.day_vectors(once), mapped.day_vectors(once * 10_000))
    assert not mapped.day_vectors(np.zeros((1, 12))).any()


def test_a_short_day_keeps_its_length_and_a_long_one_fills_the_clip() -> None:
    mapped = Projection(np.zeros(4), np.diag([1.0, 1.0, 0.1, 0.1]), 1.0, 100)
    long, short = mapped.day_vectors(np.array([[1, 0, 0, 0], [0, 0, 1, 0]], dtype=bool))
    assert long[0] == round(mapped.scale)
    assert short[2] == round(mapped.scale / 10)
    assert 95**2 < sum(int(v) ** 2 for v in long) <= 100**2


@given(nps.arrays(np.float64, (4, 7), elements=st.floats(-1e6, 1e6)), st.integers(0, 10**6))
def test_rows_are_rounded_shortened_or_dropped_but_never_too_long(rows: np.ndarray, square: int) -> None:
    whole = whole_within(rows, square)
    assert max(squares(whole)) <= square
    near = np.rint(rows).astype(np.int64)
    for row, rounded, result in zip(rows, near, whole, strict=True):
        if squares([rounded])[0] <= square:
            assert np.array_equal(result, rounded)
        else:
            assert np.array_equal(result, np.trunc(row)) or not result.any()


@pytest.mark.parametrize("clip", [1, 5, 48])
def test_the_worst_rounding_is_caught(clip: int) -> None:
    rows = np.full((1, 2 * clip * clip), 0.5 + 1e-9)
    assert squares(whole_within(rows, clip**2))[0] <= clip**2
