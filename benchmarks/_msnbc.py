"""The news site's day as arrays, and its rivals: noisy counts of what followed the last pages."""

from __future__ import annotations

import gzip
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.stats import norm

from benchmarks._private import only_file

Ints = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float64]

PAGES = 17
VIEWS = 20
ORDERS = (1, 2, 3, 4)
_CUTS, _STRENGTHS = (0.0, 1.0, 2.0), (5.0, 50.0, 200.0, 1_000.0)


def load(folder: Path) -> npt.NDArray[np.int8]:
    """Return [people, VIEWS]: each person's first pages as 1 to `PAGES`, then zeros; in the file's order."""
    with gzip.open(only_file(folder, "*.seq.gz"), "rt") as file:
        lines = (line.split(maxsplit=VIEWS)[:VIEWS] for line in itertools.islice(file, 7, None))
        seen = list(filter(None, lines))
    flat = np.fromiter((int(page) for pages in seen for page in pages), dtype=np.int8)
    counts = np.fromiter(map(len, seen), dtype=np.int64)
    people = np.zeros((len(seen), VIEWS), dtype=np.int8)
    people[np.arange(VIEWS) < counts[:, None]] = flat
    return people


def followed(people: npt.NDArray[np.int8], order: int) -> Ints:
    """Return, for each page seen, one number for the `order` pages before it and itself, -1 where none was seen."""
    pages = people.astype(np.int32)
    padded = np.pad(pages, ((0, 0), (order, 0)))
    before = np.zeros_like(pages)
    for back in range(order):
        before = before * (PAGES + 1) + padded[:, back : back + VIEWS]
    return np.where(pages > 0, before * PAGES + pages - 1, -1)


def squared_counts(cells: Ints) -> Floats:
    """Return, for each person, the sum over cells of the squared number of times that they are in it."""
    ordered = np.sort(cells, axis=1)
    total, run, last = np.zeros(len(cells)), np.zeros(len(cells)), np.full(len(cells), -2)
    for at in range(cells.shape[1]):
        run = np.where(ordered[:, at] == last, run + 1, 1)
        last = ordered[:, at]
        total += np.where(last >= 0, 2 * run - 1, 0)
    return total


def gaussian_noise_multiplier(epsilon: float, delta: float) -> float:
    """Return the least noise of one Gaussian release. Source: Balle, Wang (2018), theorem 8."""

    def excess(sigma: float) -> float:
        low, high = 1 / (2 * sigma) - epsilon * sigma, -1 / (2 * sigma) - epsilon * sigma
        return float(norm.cdf(low) - np.exp(epsilon) * norm.cdf(high) - delta)

    return float(brentq(excess, 0.01, 200.0))


@dataclass(frozen=True)
class Rule:
    """How counts are released and read.

    Args:
        order: Pages looked back on at most; all shorter orders are released too and mixed in.
        ratio: Weight of each order in a person's vector over that of the next longer one.
        clip: L2 norm that a person's weighted counts are scaled to.
        cut: Counts below this many standard deviations of their noise are dropped.
        strength: How many counts the shorter order is worth.
    """

    order: int
    ratio: float
    clip: float
    cut: float
    strength: float


class Counts:
    """Counts of the people trained on, from which any number of private tables can be made.

    Args:
        people: [people, VIEWS].
    """

    def __init__(self, people: npt.NDArray[np.int8]) -> None:
        self._seen = people > 0
        self._cells = [followed(people, order) for order in range(max(ORDERS) + 1)]
        self._squares = [squared_counts(cells) for cells in self._cells]

    def release(
        self, rule: Rule, noise_multiplier: float, generator: np.random.Generator
    ) -> list[tuple[Floats, float]]:
        """Return for each order its noisy counts and the noise's standard deviation; 0 and no clip give plain counts.

        One person added or removed moves all of them together by at most `rule.clip` in L2 norm.
        """
        weights = [rule.ratio ** (rule.order - order) for order in range(rule.order + 1)]
        lengths = np.sqrt(sum(w**2 * square for w, square in zip(weights, self._squares, strict=False)))
        scale = np.minimum(1.0, rule.clip / lengths) if noise_multiplier else np.ones_like(lengths)
        each = np.broadcast_to(scale[:, None], self._seen.shape)[self._seen]
        tables = []
        for order, weight in enumerate(weights):
            size = (PAGES + 1) ** order * PAGES
            counts = np.bincount(self._cells[order][self._seen], weights=each, minlength=size)
            deviation = noise_multiplier * rule.clip / weight
            tables.append((counts + generator.normal(size=size) * deviation, deviation))
        return tables


@dataclass(frozen=True, eq=False)
class Asked:
    """Pages to be predicted.

    Args:
        people: [people, VIEWS].
    """

    people: npt.NDArray[np.int8]

    @cached_property
    def cells(self) -> list[Ints]:
        """For each order, [pages] as in `followed`."""
        return [followed(self.people, order)[self.people > 0] for order in range(max(ORDERS) + 1)]

    def missed(self, tables: list[tuple[Floats, float]], rule: Rule) -> Floats:
        """Return [pages]: the negative log-likelihood of each page, each order mixed with the next shorter."""
        before = self.cells[rule.order] // PAGES
        missed: Floats = -np.log(_mixed(tables, rule, before)[np.arange(len(before)), self.cells[0] % PAGES])
        return missed


def chances(tables: list[tuple[Floats, float]], rule: Rule) -> Floats:
    """Return [(PAGES + 1) ** order, PAGES]: how probable each page is after each row of `rule.order` pages."""
    return _mixed(tables, rule, np.arange((PAGES + 1) ** rule.order, dtype=np.int32))


def _mixed(tables: list[tuple[Floats, float]], rule: Rule, before: Ints) -> Floats:
    chance = np.full((len(before), PAGES), 1.0 / PAGES)
    for order, (table, deviation) in enumerate(tables[: rule.order + 1]):
        kept = np.where(table > max(rule.cut * deviation, 0.0), table, 0.0).reshape(-1, PAGES)
        found = kept[before % (PAGES + 1) ** order]
        chance = (found + rule.strength * chance) / (found.sum(1, keepdims=True) + rule.strength)
    return chance


def best_reading(tables: list[tuple[Floats, float]], tuning: Asked, rule: Rule) -> Rule:
    """Return how one release reads best on people set apart; what is done with it after its noise costs nothing."""
    tried = [
        replace(rule, order=order, cut=cut, strength=strength)
        for order, cut, strength in itertools.product(range(1, rule.order + 1), _CUTS, _STRENGTHS)
    ]
    return min(tried, key=lambda one: float(tuning.missed(tables, one).mean()))


def _rules(order: int, *, quick: bool) -> Iterator[Rule]:
    for ratio, clip in itertools.product((0.5,) if quick else (0.5, 1.0), (2.0,) if quick else (2.0, 4.0, 8.0)):
        yield Rule(order, ratio, clip, 0.0, 0.0)


def best_rule(counts: Counts, tuning: Asked, order: int, noise_multiplier: float, *, quick: bool) -> Rule:
    """Return the rule that reads noisy counts best on people who are neither trained on nor tested."""
    generator = np.random.default_rng(order)
    found: list[tuple[float, Rule]] = []
    for rule in _rules(order, quick=quick):
        tables = counts.release(rule, noise_multiplier, generator)
        for cut, strength in itertools.product(_CUTS, _STRENGTHS):
            tried = replace(rule, cut=cut, strength=strength)
            found.append((float(tuning.missed(tables, tried).mean()), tried))
    return min(found, key=lambda one: one[0])[1]
