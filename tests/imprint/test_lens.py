"""Days seen through a lens: bounded whatever is in them, named by every number of the lens, and the same for everyone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vault.imprint.features import Cadence, feature_map
from vault.imprint.lens import DIRECTIONS, Lens, make_lens, through, unit_of
from vault.schema.category import Category

DAILY = feature_map(Category("pd:Purchase"), Cadence.DAILY)
CODES = len(DAILY.codes) - 1


def habits(seed: int = 1, axes: int = 100) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Make up a cohort's habits."""
    rng = np.random.default_rng(seed)
    popularity = rng.dirichlet(np.full(CODES, 0.3)).clip(1e-3, None) * 7
    directions = np.linalg.qr(rng.normal(size=(CODES, axes)))[0].T
    variance = np.sort(rng.gamma(0.5, 0.01, size=axes))[::-1]
    return popularity.clip(None, 0.9).astype(np.float32), directions.astype(np.float32), variance.astype(np.float32)


LENS = make_lens(*habits())
SEEN = through(DAILY, LENS)


@given(st.lists(st.sampled_from([*DAILY.codes[:-1], "unheard-of"]), max_size=300))
def test_a_day_is_whole_and_within_the_clip(codes: list[str]) -> None:
    vector = SEEN.day_vector(codes)
    assert vector.dtype == np.int64
    assert len(vector) == SEEN.size == DIRECTIONS + 1
    assert int(np.square(vector).sum()) <= DAILY.clip**2
    assert vector.any() == bool(codes)


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf, 1e30, 0.0])
def test_no_lens_whatever_makes_a_day_longer_than_the_clip(number: float) -> None:
    """A forged lens may blind the twin; what it costs an owner is bounded by the clip alone."""
    centre, weights = LENS.centre.copy(), LENS.weights.copy()
    centre[:40], weights[:3] = number, number
    for lens in (replace(LENS, centre=centre), replace(LENS, weights=weights), replace(LENS, length=number or 1e-30)):
        seen = through(DAILY, lens)
        with np.errstate(all="ignore"):
            vectors = seen.project(np.stack([DAILY.day_vector(DAILY.codes[: count + 1]) for count in range(200)]))
        assert (np.square(vectors.astype(float)).sum(1) <= DAILY.clip**2).all()


def test_order_repetition_and_company_change_nothing() -> None:
    days = [DAILY.codes[at : at + 3 + at % 5] for at in range(0, 60, 4)]
    together = SEEN.project(np.stack([DAILY.day_vector(day) for day in days]))
    for day, vector in zip(days, together, strict=True):
        assert (SEEN.day_vector([*reversed(day), *day]) == vector).all()


def test_days_without_noise_add_up_to_what_differs_from_the_usual_along_each_axis() -> None:
    """Short days are scaled alike, so a sum over them is the sum of their deviations, in the lens's directions."""
    lens = replace(LENS, length=10.0)
    days = [DAILY.codes[at : at + 2] for at in range(0, 40, 2)]
    plain = np.stack([DAILY.day_vector(day) for day in days])[:, :-1] > 0
    unit = plain / np.sqrt(plain.sum(1, keepdims=True))
    exact = ((unit - lens.centre) @ lens.axes.T * lens.weights).sum(0) * lens.projection(DAILY.clip).scale
    seen = sum(through(DAILY, lens).day_vector(day) for day in days)
    assert np.abs(seen[:-1] - exact).max() <= 0.5 * len(days)
    assert seen[-1] == len(days) * lens.projection(DAILY.clip).active_day


def test_the_map_is_another_one_with_each_number_of_its_lens() -> None:
    names = {DAILY.digest, SEEN.digest}
    for lens in (
        replace(LENS, centre=np.roll(LENS.centre, 1)),
        replace(LENS, axes=-LENS.axes),
        replace(LENS, weights=LENS.weights[::-1].copy()),
        replace(LENS, length=LENS.length * 1.001),
    ):
        names.add(through(DAILY, lens).digest)
    assert len(names) == 6
    assert through(DAILY, make_lens(*habits())).digest == SEEN.digest
    assert (SEEN.clip, SEEN.codes, SEEN.category, SEEN.cadence) == (
        DAILY.clip,
        DAILY.codes,
        DAILY.category,
        DAILY.cadence,
    )
    assert SEEN.version != DAILY.version


def test_a_lens_weighs_the_larger_differences_more_and_keeps_the_first_directions() -> None:
    popularity, axes, variance = habits()
    lens = make_lens(popularity, axes, variance)
    assert len(lens.weights) == DIRECTIONS
    assert (np.diff(lens.weights) <= 0).all()
    assert lens.weights[0] == 1
    assert (lens.axes == axes[:DIRECTIONS]).all()
    assert lens.usual == pytest.approx(popularity, rel=1e-4)
    assert len(make_lens(popularity, axes[:7], variance[:7]).weights) == 7


def test_a_habit_of_nobody_still_gives_a_lens() -> None:
    popularity, axes, variance = habits()
    for lens in (make_lens(popularity, axes, np.zeros_like(variance)), make_lens(popularity, axes, variance * 1e-30)):
        assert np.isfinite(lens.weights).all()
        assert (lens.weights > 0).all()
        assert lens.length > 0


def test_a_unit_is_what_days_of_one_code_become_on_average() -> None:
    """Days drawn from the popularity that the lens was made of: how far one along an axis moves a row, shortened ones included."""
    popularity, axes, _ = habits()
    axes = np.eye(CODES, dtype=np.float32)[np.argsort(-popularity)[:90]]
    lens: Lens = make_lens(popularity, axes, np.full(90, 1e-3, dtype=np.float32))
    seen, rng = through(DAILY, lens), np.random.default_rng(5)
    occurred = rng.random((4_000, CODES)) < popularity
    occurred = occurred[occurred.any(1)]
    vectors = seen.project(np.column_stack([occurred, np.ones(len(occurred))]))[:, :-1]
    parts = occurred / np.sqrt(occurred.sum(1, keepdims=True)) - lens.centre
    for at in range(5):
        along = parts @ lens.axes[at]
        slope = along @ vectors[:, at] / (along @ along)
        assert slope == pytest.approx(float(unit_of(lens, DAILY.clip)[at]), rel=0.15)
