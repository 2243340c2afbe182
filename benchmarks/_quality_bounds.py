"""What keeps the twin from more: the same days and reader under other noise, owner-day epsilon 3, all folds.

`python -m benchmarks._quality_bounds --json`: people, folds, asked shops and the strongest raw reader as in
`benchmarks.quality --data complete_journey`, fewer draws. Each row changes what the noise is or whether statistics of
other households are released or exact; rows of one draw are read with the same statistics. Four rows cannot be had: a
release made for each question would spend a day's epsilon again with each, and two or four times the mu^2 is another
epsilon, which `owner_day_epsilon` says.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks._grocery import DAYS, Floats, Ints, Shops
from benchmarks._grocery_chain import DELTA, Filter, filter_of, levels
from benchmarks._grocery_reader import CLIP, Learned, Settings, learn, read
from benchmarks._quality_grocery import (
    DRIFT,
    FOLDS,
    STRATEGY,
    Figures,
    Results,
    _interval,
    _say,
    _split,
    asked,
    evaluate,
    ndcg,
)
from vault.budget.accounting import sigma_for
from vault.imprint.block import on_time_sensitivity
from vault.imprint.noise import DiscreteGaussian
from vault.proof.accounting import gaussian

EPSILON = 3.0
DRAWS = 3
RELEASED = Settings()
EXACT = Settings(private=False, product=9.0, inflation=1.25)

Levels = Iterator[tuple[np.ndarray, Floats, Floats, Floats]]


@dataclass(frozen=True)
class Chain:
    """Rows of a year's chain.

    Args:
        times: What a day's mu^2 at `EPSILON` is multiplied by.
    """

    times: int = 1

    @property
    def filter(self) -> Filter:
        """What a question reads."""
        return filter_of(STRATEGY, CLIP, EPSILON, DRIFT, times=self.times)

    def epsilon(self) -> float:
        """Return what a day costs, its late row included."""
        return gaussian(on_time_sensitivity(STRATEGY.sensitivity(CLIP)), self.filter.sigma).epsilon(DELTA)

    def levels(self, shops: Shops, which: np.ndarray, vectors: Ints) -> Levels:
        """Yield asked shops, their levels, and the noise and squared weights in them."""
        chosen = self.filter
        for wanted, found in levels(shops, which, vectors, chosen):
            day = shops.day[wanted]
            yield wanted, found, chosen.noise_variance[day], chosen.square[day]


@dataclass(frozen=True)
class Once:
    """One release for each question, made when the day before it ends, as if no other were ever made."""

    @property
    def sigma(self) -> int:
        """Noise of a sum of days."""
        return sigma_for(EPSILON, DELTA, CLIP)

    def epsilon(self) -> float:
        """Return what a day costs, asked about once."""
        return gaussian(CLIP, self.sigma).epsilon(DELTA)

    def window(self) -> int:
        """Return how many days are summed.

        No day may weigh more than the noise allows, and of weights that keep to this the equal ones of the last days
        drift least; their mean is off by sigma^2 / n^2 of noise and drift clip^2 n / 3 of drift, least at this n.
        """
        return round(float(np.cbrt(6 * self.sigma**2 / (DRIFT * CLIP**2))))

    def levels(self, shops: Shops, which: np.ndarray, vectors: Ints) -> Levels:
        """Yield asked shops, their levels, and the noise and squared weights in them."""
        noise, window = DiscreteGaussian(self.sigma), self.window()
        bounds = np.searchsorted(shops.person, np.arange(len(shops.people) + 1))
        for start, stop in itertools.pairwise(bounds):
            here = np.arange(start, stop)
            wanted = here[which[here]]
            if not len(wanted):
                continue
            total = np.zeros((DAYS + 1, vectors.shape[1]))
            np.add.at(total, shops.day[here] + 1, vectors[here])
            total = total.cumsum(0)  # of the days before
            day = shops.day[wanted]
            days = np.minimum(day, window)
            summed = total[day] - total[day - days] + noise.sample((len(wanted), vectors.shape[1]))
            yield (
                wanted,
                (summed / days[:, None]).astype(np.float32),
                (self.sigma**2 / days**2).astype(np.float32),
                (1 / days).astype(np.float32),
            )


# name: noise, statistics
ROWS: dict[str, tuple[Chain | Once, Settings]] = {
    "as measured": (Chain(), RELEASED),
    "as measured, exact statistics": (Chain(), EXACT),
    "one release for each question": (Once(), RELEASED),
    "one release for each question, exact statistics": (Once(), EXACT),
    "twice the mu^2": (Chain(2), RELEASED),
    "four times the mu^2": (Chain(4), RELEASED),
    "four times the mu^2, exact statistics": (Chain(4), EXACT),
}


def predict(noise: Chain | Once, learned: Learned, tested: Shops, where: np.ndarray) -> Floats:
    """Return NDCG@10 of each asked shop."""
    scores = np.zeros((len(tested.day), tested.bought.shape[1]), dtype=np.float32)
    for wanted, found, variance, square in noise.levels(tested, where, learned.projection.day_vectors(tested.bought)):
        scores[wanted] = read(learned, found, variance, square)
    return ndcg(scores[where], tested.bought[where])


def _fold(fold: int, draws: int) -> Results:
    """Return the raw readers' values and those of every row, a mean over draws."""
    trained, tested = _split(fold)
    results, where = evaluate(fold, quick=False), asked(tested)
    found: dict[str, list[Floats]] = {name: [] for name in ROWS}
    for draw in range(draws):
        learned = {settings: learn(trained, DAYS, settings) for settings in (RELEASED, EXACT)}
        for name, (noise, settings) in ROWS.items():
            found[name].append(predict(noise, learned[settings], tested, where))
        _say(f"{fold}: draw {draw + 1}")
    results.values |= {name: np.mean(values, axis=0) for name, values in found.items()}
    return results


def measure(folds: int, draws: int) -> dict[str, Any]:
    """Return the shares of every row."""
    found = [_fold(fold, draws) for fold in range(folds)]
    values = {name: np.concatenate([one.values[name] for one in found]) for name in found[0].values}
    person = np.unique(np.concatenate([one.person for one in found]), return_inverse=True)[1]
    figures = Figures(values, person, np.concatenate([one.day for one in found]))
    raw = [name for name in values if name not in ROWS and name != "popularity"]
    best, alone = (max(raw, key=lambda name: float(mean(name)[0])) for mean in (figures.pooled, figures.per_person))
    rows = {}
    for name, (noise, _) in ROWS.items():
        pooled, single = (
            (mean(name) - mean("popularity")) / (mean(strongest) - mean("popularity"))
            for mean, strongest in ((figures.pooled, best), (figures.per_person, alone))
        )
        rows[name] = {
            "every_day": isinstance(noise, Chain),
            "owner_day_epsilon": round(noise.epsilon(), 2),
            "value": float(figures.pooled(name)[0]),
            "share_pooled": float(pooled[0]),
            "share_pooled_interval": _interval(pooled),
            "share_per_person": float(single[0]),
            "share_per_person_interval": _interval(single),
            "share_per_person_by_asked_shops": figures.share_by_shops(name, alone),
        }
    return {
        "epsilon": EPSILON,
        "folds": folds,
        "draws": draws,
        "window_days": Once().window(),
        "noise_of_a_chain": {str(day): round(_noise(day), 2) for day in (60, 120, 240, 300, DAYS - 1)},
        "people_tested": int(person.max()) + 1,
        "best_non_private": best,
        "best_non_private_per_person": alone,
        "bounds": rows,
    }


def _noise(day: int) -> float:
    """Return the noise in a chain's estimate of a sum of all days before, one release of it being 1."""
    return float(np.sqrt(Chain().filter.noise_variance[day])) * day / Once().sigma


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--folds", type=int, default=FOLDS)
    parser.add_argument("--draws", type=int, default=DRAWS)
    chosen = parser.parse_args()
    print(json.dumps(measure(chosen.folds, chosen.draws), indent=2 if chosen.json else None))


if __name__ == "__main__":
    main()
