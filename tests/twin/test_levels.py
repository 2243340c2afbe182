"""Levels: a habit is read from the days that answers read, however many there are."""

from __future__ import annotations

from calendar import monthrange
from datetime import date

import numpy as np
import pytest

from tests.twin.worker_kit import RETAIL_DAILY
from vault.imprint.block import Block
from vault.twin.levels import MONTH_DAYS, noise_of_level, read_level
from vault.twin.reader import MAX_MONTHS
from vault.twin.rows import Place

ASKED = date(2026, 11, 23)
SIGMA = 13_948


def month(number: int) -> Block:
    """One month's days, counted from year 0, in its year's chain."""
    first = date(number // 12, number % 12 + 1, 1)
    values = np.random.default_rng(number).integers(-SIGMA, SIGMA, (monthrange(first.year, first.month)[1], 305))
    return Block(bytes(32), RETAIL_DAILY.digest, date(first.year, 1, 1), first, RETAIL_DAILY.clip, SIGMA, values)


def noise(blocks: list[Block]) -> float | None:
    places = {Place(block.first, len(block.values), block.start): block.sigma for block in blocks}
    return noise_of_level(RETAIL_DAILY, places, ASKED)


def test_days_older_than_answers_read_change_neither_a_level_nor_the_noise_that_is_stated() -> None:
    asked = 12 * ASKED.year + ASKED.month - 1
    read = [month(number) for number in range(asked - MAX_MONTHS, asked)]
    older = [month(number) for number in range(asked - MAX_MONTHS - 14, asked - MAX_MONTHS)]
    level, same = read_level(RETAIL_DAILY, read, ASKED), read_level(RETAIL_DAILY, [*older, *read], ASKED)
    assert level is not None
    assert same is not None
    assert (level.values == same.values).all()
    assert (level.sigma, level.months) == (same.sigma, same.months)
    assert noise([*older, *read]) == noise(read) == pytest.approx(level.sigma / MONTH_DAYS)
    assert read_level(RETAIL_DAILY, older, ASKED) is None
    assert noise(older) is None
    fewer = read_level(RETAIL_DAILY, read[1:], ASKED)
    assert fewer is not None
    assert fewer.sigma != level.sigma  # the oldest month that answers read does count
