"""From daily rows to what a backbone reads: today's level of a habit, put as one month of it.

A backbone's formula knows rows of months, each a sum with noise. A level per day times the days of a month is
such a sum; how many months' worth of days it averages says how much of their own accident is left in it. As of
monthly rows, those of the asked month and of the `MAX_MONTHS` before it are read, however many there are.
Late rows are not read: their noise is so much larger that adding them would drown what is on time.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from vault.imprint.block import Block, strategy_from
from vault.imprint.features import FeatureMap
from vault.imprint.level import Span, level, weights
from vault.twin.reader import MAX_MONTHS
from vault.twin.rows import Place

MONTH_DAYS: Final = 365.25 / 12
DRIFT: Final = 5e-7
"""Variance of a level's change from one day to the next, relative to the squared clip: a public constant."""


@dataclass(frozen=True, eq=False)
class Level:
    """A habit's level.

    Args:
        values: float64[K] sum over a month at this level, in quantised units.
        sigma: Standard deviation of the noise in it.
        months: How many months' worth of days it averages.
    """

    values: npt.NDArray[np.float64]
    sigma: float
    months: float


def read_level(feature_map: FeatureMap, blocks: Iterable[Block], asked: date) -> Level | None:
    """Return the level on a day; None without any row before it.

    Args:
        feature_map: The map of every block.
        blocks: In any order, of whichever chains; those of days before `asked` are read.
        asked: The day.

    Raises:
        ValueError: Two blocks hold one day of a chain, or one chain's blocks have different noise.
    """
    chains: defaultdict[date, list[Block]] = defaultdict(list)
    for block in sorted(blocks, key=lambda block: block.first):
        if _is_read(block.first, block.last, asked):
            chains[block.start].append(block)
    if not chains:
        return None
    spans = tuple(
        _span(
            start,
            tuple((block.first, len(block.values)) for block in chains[start]),
            frozenset(one.sigma for one in chains[start]),
        )
        for start in sorted(chains)
    )
    rows = [np.concatenate([block.values for block in chains[start]]) for start in sorted(chains)]
    values, found = level(rows, spans, asked.toordinal(), DRIFT * feature_map.clip**2)
    months = 1.0 / (found.square * MONTH_DAYS)
    return Level(values * MONTH_DAYS, math.sqrt(found.noise_variance) * MONTH_DAYS, months)


def noise_of_level(feature_map: FeatureMap, made: Mapping[Place, int], asked: date) -> float | None:
    """Return the standard deviation of the noise in a level a day, in quantised units: a public fact.

    Args:
        feature_map: The map of the rows.
        made: Where its daily rows lie, and the noise of each one's chain.
        asked: The day.

    Returns:
        None if no row is of a day before.

    Raises:
        ValueError: One chain's rows have different noise.
    """
    chains: defaultdict[date, list[tuple[date, int]]] = defaultdict(list)
    sigmas: defaultdict[date, set[int]] = defaultdict(set)
    for place, sigma in sorted(made.items(), key=lambda one: one[0].first):
        last = place.first + timedelta(days=place.days - 1)
        if place.chain_start is not None and _is_read(place.first, last, asked):
            chains[place.chain_start].append((place.first, place.days))
            sigmas[place.chain_start].add(sigma)
    if not chains:
        return None
    spans = tuple(_span(start, tuple(chains[start]), frozenset(sigmas[start])) for start in sorted(chains))
    return math.sqrt(weights(spans, asked.toordinal(), DRIFT * feature_map.clip**2).noise_variance)


def _is_read(first: date, last: date, asked: date) -> bool:
    return last < asked and 12 * (asked.year - first.year) + asked.month - first.month <= MAX_MONTHS


@lru_cache(maxsize=1024)
def _span(start: date, made: tuple[tuple[date, int], ...], sigmas: frozenset[int]) -> Span:
    present = tuple((first - start).days + at for first, days in made for at in range(days))
    (sigma,) = sigmas
    return Span(strategy_from(start), start.toordinal(), sigma, present)
