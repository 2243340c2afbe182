"""What was compared before the twin's settings were fixed: one change at a time, owner-day epsilon 3, one noise each.

`python -m benchmarks._quality_variants --json`: folds 0 and 1 of the grocery year are tested, the others trained
on, as in `benchmarks.quality`; statistics of households are those released under a person's epsilon 3.
`share` is against recency-weighted frequency (half-life 100 days) on the same shops. Two runs of one row differ by
about 0.015 from noise alone.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks import _grocery_rivals as rivals
from benchmarks._grocery import DAYS, Floats, Ints, Shops
from benchmarks._grocery_chain import filter_of
from benchmarks._grocery_reader import CLIP, Settings, learn
from benchmarks._quality_grocery import DRIFT, POOLED_FROM, _split, _twin, asked, ndcg
from vault.imprint.chain import Strategy, power, prefix

FOLDS = (0, 1)
EPSILON = 3.0
SHIPPED = Settings()
WEEKS, MONTHS = DAYS // 7, DAYS // 30

# name: settings, strategy, days in a row, drift
VARIANTS: dict[str, tuple[Settings, Strategy, int, float]] = {
    "as measured": (SHIPPED, prefix(DAYS), 1, DRIFT),
    "once more": (SHIPPED, prefix(DAYS), 1, DRIFT),
    "independent days": (SHIPPED, power(0, DAYS), 1, DRIFT),
    "p = 0.50": (SHIPPED, power(50, DAYS), 1, DRIFT),
    "p = 0.65": (SHIPPED, power(65, DAYS), 1, DRIFT),
    "p = 0.75": (SHIPPED, power(75, DAYS), 1, DRIFT),
    "weekly rows": (SHIPPED, prefix(WEEKS), 7, DRIFT),
    "monthly rows": (SHIPPED, prefix(MONTHS), 30, DRIFT),
    "independent months": (SHIPPED, power(0, MONTHS), 30, DRIFT),
    "no drift": (SHIPPED, prefix(DAYS), 1, 0.0),
    "drift x 10": (SHIPPED, prefix(DAYS), 1, 10 * DRIFT),
    "not centred": (replace(SHIPPED, centred=False), prefix(DAYS), 1, DRIFT),
    "departments only": (replace(SHIPPED, departments=True), prefix(DAYS), 1, DRIFT),
    "people differ alike": (replace(SHIPPED, differing=(1.0,)), prefix(DAYS), 1, DRIFT),
    "120 directions": (replace(SHIPPED, directions=120), prefix(DAYS), 1, DRIFT),
    "20 directions": (replace(SHIPPED, directions=20), prefix(DAYS), 1, DRIFT),
    "all directions alike": (replace(SHIPPED, power=0.0, directions=160), prefix(DAYS), 1, DRIFT),
    "clip at 0.5": (replace(SHIPPED, length=0.5), prefix(DAYS), 1, DRIFT),
    "clip at 1.2": (replace(SHIPPED, length=1.2), prefix(DAYS), 1, DRIFT),
    "64 codes": (replace(SHIPPED, codes=64, directions=64), prefix(DAYS), 1, DRIFT),
    "exact statistics": (replace(SHIPPED, private=False, product=9.0, inflation=1.25), prefix(DAYS), 1, DRIFT),
}


def _means(person: Ints, day: Ints, values: Floats) -> tuple[float, float]:
    numbers = np.unique(person, return_inverse=True)[1]
    each = np.bincount(numbers, values) / np.bincount(numbers)
    return float(values[day >= POOLED_FROM].mean()), float(each.mean())


def _references(trained: Shops, tested: Shops, where: np.ndarray) -> tuple[Floats, Floats]:
    popularity = trained.bought.mean(0, dtype=np.float32)
    past = rivals.history(tested, tested.bought.astype(np.float32), 100.0).rows(where)
    bought = tested.bought[where]
    return ndcg(np.broadcast_to(popularity, bought.shape), bought), ndcg(past.smoothed(popularity, 4.0), bought)


def measure(names: list[str]) -> dict[str, Any]:
    """Return the shares of the named variants."""
    splits = [_split(fold) for fold in FOLDS]
    wheres = [asked(tested) for _, tested in splits]
    person = np.concatenate(
        [tested.people[tested.person[where]] for (_, tested), where in zip(splits, wheres, strict=True)]
    )
    day = np.concatenate([tested.day[where] for (_, tested), where in zip(splits, wheres, strict=True)])
    references = [_references(*split, where) for split, where in zip(splits, wheres, strict=True)]
    low, high = (_means(person, day, np.concatenate(parts)) for parts in zip(*references, strict=True))
    found = {}
    for name in names:
        settings, strategy, freshness, drift = VARIANTS[name]
        chosen = filter_of(strategy, CLIP, EPSILON, drift, freshness)
        values = np.concatenate(
            [
                _twin(learn(trained, DAYS, settings), tested, where, chosen)
                for (trained, tested), where in zip(splits, wheres, strict=True)
            ]
        )
        pooled, alone = _means(person, day, values)
        found[name] = {
            "value": round(pooled, 4),
            "share_pooled": round((pooled - low[0]) / (high[0] - low[0]), 3),
            "share_per_person": round((alone - low[1]) / (high[1] - low[1]), 3),
        }
        print(name, found[name], file=sys.stderr, flush=True)
    return {"epsilon": EPSILON, "folds": list(FOLDS), "variants": found}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("names", nargs="*", help="only these variants")
    chosen = parser.parse_args()
    print(json.dumps(measure(chosen.names or list(VARIANTS)), indent=2 if chosen.json else None))
