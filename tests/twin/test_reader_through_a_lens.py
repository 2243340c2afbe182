"""Reading rows of days that were seen through a lens: the posterior mean of both kinds of rows, and bytes that say which lens."""

from __future__ import annotations

import struct
from dataclasses import replace
from datetime import date
from typing import Final

import numpy as np
import pytest
import torch

from vault.imprint.block import Block, strategy_from
from vault.imprint.features import Cadence, FeatureMap, feature_map
from vault.imprint.lens import Lens, make_lens, through, unit_of
from vault.schema.answer import Confidence
from vault.schema.category import Category
from vault.twin.infer import read_days
from vault.twin.reader import (
    START,
    Backbone,
    BadBackbone,
    Months,
    Reader,
    closed_form,
    dump_backbone,
    maps_of,
    parse_backbone,
)

DAILY: Final = feature_map(Category("pd:Purchase"), Cadence.DAILY)
CODES: Final = DAILY.size - 1
YEAR: Final = date(2026, 1, 1)
ASKED: Final = date(2026, 11, 24)


def backbone(seed: int = 1, directions: int = 100) -> Backbone:
    """Make up what a cohort's release might be, with its lens."""
    rng = np.random.default_rng(seed)
    popularity = (rng.dirichlet(np.full(CODES, 0.3)).clip(1e-3, None) * 7).clip(None, 0.9).astype(np.float32)
    axes = np.linalg.qr(rng.normal(size=(CODES, directions)))[0].T.astype(np.float32)
    variance = np.sort(rng.gamma(0.5, 0.01, size=directions))[::-1].astype(np.float32)
    scalars = np.array(list(START.values()), dtype=np.float32)
    return Backbone(DAILY.digest, scalars, popularity, axes, variance, make_lens(popularity, axes, variance))


MODEL: Final = backbone()


def lens_of(model: Backbone) -> Lens:
    assert model.lens is not None
    return model.lens


def months(rows: np.ndarray, sigma: float) -> Months:
    """Return one level, worth one month."""
    row = torch.from_numpy(rows).double()[None]
    return Months(row, torch.tensor([sigma]).double(), torch.tensor([9.0]).double(), torch.ones(1).double())


NOTHING: Final = Months(
    torch.zeros(0, DAILY.size).double(), torch.zeros(0).double(), torch.zeros(0).double(), torch.zeros(0).double()
)


def read(model: Backbone, seen: Months, projected: Months | None) -> tuple[np.ndarray, float]:
    """Return log-odds without temperature and offset, as probabilities, and reliance."""
    scalars = torch.from_numpy(np.where(np.isin(list(START), ["temperature", "offset"]), 0.0, model.scalars))
    found = Reader.of(DAILY, model, torch.float64).log_odds(scalars, seen, torch.tensor([10.0]).double(), projected)
    return torch.sigmoid(found[0][0]).numpy(), float(found[1])


def test_both_kinds_of_rows_give_the_normal_posterior_mean() -> None:
    """The same, written out with matrices over codes in place of axes."""
    rng, lens = np.random.default_rng(4), lens_of(MODEL)
    codes = np.append(rng.normal(0, 200, CODES), 9 * DAILY.active_day)
    along = np.append(rng.normal(0, 200, len(lens.weights)), 5 * through(DAILY, lens).projection.active_day)  # type: ignore[union-attr]
    e = {name: float(np.exp(value)) for name, value in zip(START, MODEL.scalars.astype(float), strict=True)}
    p, axes, unit = MODEL.popularity.astype(float), MODEL.axes.astype(float), np.zeros(len(MODEL.variance))
    unit[: len(lens.weights)] = unit_of(lens, DAILY.clip)

    def intensity(days: float, sigma: float, total: np.ndarray | None) -> float:
        doubt = (e["mismatch"] * e["intensity"]) ** 2
        guesses = [
            (e["intensity"], 1 / (e["intensity_spread"] + 1e-3) ** 2),
            (e["per_day"] * days, 1 / (sigma**2 * (e["per_day"] / DAILY.active_day) ** 2 + doubt)),
        ]
        if total is not None:
            guesses.append((total @ p / (p @ p), 1 / (sigma**2 / DAILY.content**2 / (p @ p) + doubt)))
        mean = sum(value * precision for value, precision in guesses) / sum(precision for _, precision in guesses)
        return float(np.log1p(np.exp(4 * mean)) / 4)

    total = codes[:-1] / DAILY.content
    g0, g1 = intensity(9, 300.0, total), intensity(5, 200.0, None)
    accident = axes**2 @ p
    design = np.vstack([g0 * np.eye(len(unit)), np.diag(g1 * unit)])
    values = np.concatenate([(total - g0 * p) @ axes.T, np.pad(along[:-1], (0, len(unit) - len(lens.weights)))])
    noise = np.concatenate(
        [
            (300.0 / DAILY.content) ** 2 + e["sampling"] * g0 * accident,
            200.0**2 + e["sampling"] * g1 * accident * unit**2,
        ]
    )
    precision = np.diag(1 / MODEL.variance.astype(float)) + design.T @ (design / noise[:, None])
    habits = np.linalg.solve(precision, design.T @ (values / noise))
    expected = (p + habits @ axes).clip(1e-4, 0.95)
    assert read(MODEL, months(codes, 300.0), months(along, 200.0))[0] == pytest.approx(expected, rel=1e-4)


def test_rows_through_a_lens_that_say_nothing_change_nothing() -> None:
    rows = months(np.random.default_rng(2).normal(0, 300, DAILY.size), 300.0)
    projected = through(DAILY, lens_of(MODEL))
    plain, reliance = read(MODEL, rows, None)
    for said in (months(np.zeros(projected.size), 1e12), NOTHING._replace(rows=NOTHING.rows[:, : projected.size])):
        both, too = read(MODEL, rows, said)
        assert both == pytest.approx(plain, rel=1e-6)
        assert too == pytest.approx(reliance, rel=1e-6)


def test_what_was_usual_when_the_lens_was_made_is_put_back_where_it_has_changed() -> None:
    """Somebody who does what was usual then, read by a model for which something else is usual now."""
    lens, other = lens_of(MODEL), backbone(seed=7)
    now = replace(MODEL, popularity=other.popularity)
    projected, g = through(DAILY, lens), 4.0
    assert projected.projection is not None
    usual = months(np.append(np.zeros(len(lens.weights)), g * 30 * projected.projection.active_day), 1e-3)
    loud = replace(now, variance=now.variance + np.float32(1e3))  # believes rows rather than the prior
    said = read(loud, NOTHING, usual)[0]
    within = lens.axes.T @ lens.axes
    wanted = (now.popularity + within @ (lens.usual - now.popularity)).clip(1e-4, 0.95)
    assert np.abs(said - wanted).max() < 0.02
    assert (
        np.abs(read(replace(MODEL, variance=loud.variance), NOTHING, usual)[0] - MODEL.popularity.clip(1e-4)).max()
        < 1e-3
    )


def block(mapped: FeatureMap, values: np.ndarray, first: date = YEAR) -> Block:
    return Block(bytes(32), mapped.digest, YEAR, first, mapped.clip, 1, values.astype(np.int64))


def test_a_habit_is_read_through_the_lens_and_by_equal_rows_alike() -> None:
    lens = lens_of(MODEL)
    person = DAILY.codes[: CODES - 1][int(np.argmax(np.abs(lens.axes[0][: CODES - 1])))]
    projected = through(DAILY, lens)
    days = np.stack([projected.day_vector([person])] * 31)
    made = [block(projected, days, date(2026, month, 1)) for month in (1, 3, 5, 7, 8, 10)]
    said = read_days(MODEL, DAILY, made, ASKED)
    assert read_days(MODEL, DAILY, made[::-1], ASKED) == said
    nobody = read_days(MODEL, DAILY, [], ASKED)
    assert said.score_ppm[person] > nobody.score_ppm[person] + 100_000
    assert (said.confidence, nobody.confidence) == (Confidence.HIGH, Confidence.LOW)


@pytest.mark.parametrize("wrong", ["another lens", "no lens", "unknown"])
def test_rows_that_the_model_cannot_read_are_refused(wrong: str) -> None:
    strange = {
        "another lens": through(DAILY, lens_of(backbone(seed=9))).digest,
        "no lens": through(DAILY, lens_of(MODEL)).digest,
        "unknown": bytes(32),
    }[wrong]
    model = replace(MODEL, lens=None) if wrong == "no lens" else MODEL
    values = np.zeros((31, through(DAILY, lens_of(MODEL)).size), dtype=np.int64)
    with pytest.raises(BadBackbone):
        read_days(model, DAILY, [replace(block(DAILY, values), map_digest=strange)], ASKED)


def test_a_backbone_with_a_lens_has_one_spelling() -> None:
    data = dump_backbone(MODEL)
    found = parse_backbone(data)
    assert dump_backbone(found) == data
    assert found.digest == MODEL.digest != replace(MODEL, lens=None).digest
    assert lens_of(found).digest == lens_of(MODEL).digest
    assert [one.digest for one in maps_of(DAILY, found)] == [DAILY.digest, through(DAILY, lens_of(MODEL)).digest]
    assert maps_of(DAILY, closed_form(DAILY)) == (DAILY,)


def test_a_backbone_without_a_lens_is_spelt_as_ever() -> None:
    assert dump_backbone(closed_form(DAILY)).startswith(b"TVBACKB2")
    assert parse_backbone(dump_backbone(replace(MODEL, lens=None))).lens is None


def _broken() -> dict[str, bytes]:
    data, lens = dump_backbone(MODEL), lens_of(MODEL)
    count = struct.calcsize("<8s32sII")
    return {
        "cut": data[:-4],
        "longer": data + bytes(4),
        "directions that are no axes": data[:count] + struct.pack("<I", 101) + data[count + 4 :] + bytes(4 * 21),
        "no direction": data[:count] + struct.pack("<I", 0) + data[count + 4 :][: -4 * len(lens.weights)],
        "header alone": data[:count],
        "plain magic": b"TVBACKB2" + data[8:],
        "heavy": dump_backbone(replace(MODEL, lens=replace(lens, weights=lens.weights * 2))),
        "weightless": dump_backbone(replace(MODEL, lens=replace(lens, weights=lens.weights * 0))),
        "short": dump_backbone(replace(MODEL, lens=replace(lens, length=0.0))),
        "endless": dump_backbone(replace(MODEL, lens=replace(lens, length=float("inf")))),
        "below nothing": dump_backbone(replace(MODEL, lens=replace(lens, centre=-lens.centre))),
        "no number": dump_backbone(replace(MODEL, lens=replace(lens, centre=lens.centre * np.float32("nan")))),
    }


@pytest.mark.parametrize("wrong", sorted(_broken()))
def test_a_lens_that_no_training_writes_is_refused(wrong: str) -> None:
    with pytest.raises(BadBackbone):
        parse_backbone(_broken()[wrong])


def test_a_chain_through_a_lens_is_of_the_strategy_that_its_start_says() -> None:
    """The clip is the plain map's, so a day costs what it did."""
    projected = through(DAILY, lens_of(MODEL))
    longest = max(float(np.linalg.norm(projected.day_vector(DAILY.codes[:count]))) for count in range(1, 250))
    assert longest * strategy_from(YEAR).column_square ** 0.5 <= DAILY.clip * 16_697**0.5
