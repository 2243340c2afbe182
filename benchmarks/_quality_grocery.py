"""Quality on the grocery year: the next shop's product categories, NDCG@10.

A shop is a day on which a person shopped; relevant are the published codes bought on it; every person with at
least 3 earlier shops counts, from day 60 on. The twin reads the daily rows that had closed (local midnight and
48 hours) before the shop's day; the raw rivals read everything up to the day before. `value`, `baseline` and
`non_private` are means over the shops from day 240 on; `value_per_person` and its like are averaged within a
person first, over all asked shops. `low` and `high` bound `value`; a bootstrap over people, 95 %.
"""

from __future__ import annotations

import itertools
import os
import sys
import time
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks import _grocery_rivals as rivals
from benchmarks._grocery import DAYS, Floats, Ints, Shops, load
from benchmarks._grocery_chain import DELTA, Filter, filter_of, levels
from benchmarks._grocery_reader import (
    CLIP,
    PERSON_DELTA,
    PERSON_EPSILON,
    Learned,
    Settings,
    learn,
    person_charge,
    read,
    unit_vectors,
)
from benchmarks._shared import data_folder
from vault.imprint.block import on_time_sensitivity
from vault.imprint.chain import prefix
from vault.proof.accounting import gaussian

FOLDS = 5
LOOKED_AT = 2  # the first folds, whose people the settings were chosen by
FIRST_DAY = 60
POOLED_FROM = 240
EARLIER = 3
CUTOFF = 10
EPSILONS = (0.5, 1.0, 3.0, 8.0)
HISTORY = (60, 120, 240, 300)
SEEDS = 10
DRIFT = 5e-7
STRATEGY = prefix(DAYS)
LEAST_BEST, LEAST_POPULARITY = 0.385, 0.26

_DISCOUNT = (1.0 / np.log2(np.arange(2, CUTOFF + 2))).astype(np.float32)
_IDEAL = np.concatenate([[0.0], np.cumsum(_DISCOUNT)])
_DRAWS = 2000


def ndcg(scores: Floats, bought: npt.NDArray[np.bool_]) -> Floats:
    """Return NDCG@10 of each row; scores [N, K], bought bool [N, K] with at least one each."""
    top = np.argpartition(-scores, CUTOFF, axis=1)[:, :CUTOFF]
    order = np.argsort(-np.take_along_axis(scores, top, axis=1), axis=1, kind="stable")
    hits = np.take_along_axis(bought, np.take_along_axis(top, order, axis=1), axis=1)
    return (hits @ _DISCOUNT) / _IDEAL[np.minimum(bought.sum(1), CUTOFF)]


def folds_of(people: Ints) -> Ints:
    """Return each household's fold: a fixed shuffle of the ids."""
    return (people * 2_654_435_761 % 2**32) // (2**32 // FOLDS + 1)


def asked(shops: Shops) -> npt.NDArray[np.bool_]:
    """Return which shops are predicted."""
    starts = np.searchsorted(shops.person, np.arange(len(shops.people)))
    earlier = np.arange(len(shops.day)) - starts[shops.person]
    return (shops.day >= FIRST_DAY) & (earlier >= EARLIER) & shops.bought.any(1)


def _splits(people: Path | None, *, quick: bool) -> list[int | Path]:
    """Return the splits: folds of the named set by number, or the folder of people who are not in it."""
    return [people] if people else list(range(1 if quick else FOLDS))


def _split(split: int | Path) -> tuple[Shops, Shops]:
    """Return who is trained on and who is tested."""
    folder = data_folder("complete_journey")
    everyone = load(folder, folder / "products.parquet")
    if isinstance(split, Path):
        return everyone, load(split, folder / "products.parquet")
    fold = folds_of(everyone.people)
    return everyone.of(fold != split), everyone.of(fold == split)


@dataclass
class Results:
    """NDCG@10 of every asked shop of a split, by model; of the twin also by seed, in the late shops alone.

    Args:
        person: int64[N] household ids.
        day: int64[N].
        trained: Number of households trained on.
        values: Each model's float64[N].
        late: By epsilon, for each seed, the values of the late shops.
    """

    person: Ints
    day: Ints
    trained: int
    values: dict[str, Floats] = field(default_factory=dict)
    late: dict[float, list[Floats]] = field(default_factory=dict)


def _say(text: str) -> None:
    print(f"{time.process_time():7.0f} s  {text}", file=sys.stderr, flush=True)


def _raw_readers(trained: Shops, tested: Shops, results: Results, *, quick: bool) -> None:
    """Add the readers of raw histories, their settings chosen on the people trained on."""
    where, learns = asked(tested), asked(trained)
    if quick:
        learns &= trained.person % 4 == 0
    bought, tuning = tested.bought[where], learns & (trained.person % 3 == 0)
    rel = trained.bought[tuning]
    popularity = trained.bought.mean(0, dtype=np.float32)
    results.values["popularity"] = ndcg(np.broadcast_to(popularity, bought.shape), bought)
    mean = unit_vectors(trained.bought).mean(0)
    for name, halves, vectors_of, prior in (
        ("smoothed frequency", (rivals.NEVER,), lambda shops: shops.bought.astype(np.float32), popularity),
        ("recency-weighted frequency", rivals.HALF_LIVES, lambda shops: shops.bought.astype(np.float32), popularity),
        ("recency-weighted shares", rivals.HALF_LIVES, lambda shops: unit_vectors(shops.bought), mean),
    ):
        best, half, strength = 0.0, halves[0], 4.0
        for candidate in halves[:1] if quick else halves:
            past = rivals.history(trained, vectors_of(trained), candidate).rows(tuning)
            for smoothing in rivals.SMOOTHING:
                value = float(ndcg(past.smoothed(prior, smoothing), rel).mean())
                if value > best:
                    best, half, strength = value, candidate, smoothing
        past = rivals.history(tested, vectors_of(tested), half).rows(where)
        results.values[name] = ndcg(past.smoothed(prior, strength), bought)
    pairs = []
    for shops, which in ((trained, learns), (tested, where)):
        vectors = unit_vectors(shops.bought)
        fading, steady = (rivals.history(shops, vectors, half) for half in (100.0, rivals.NEVER))
        pairs.append(rivals.examples(shops, fading, steady, mean, which))
    learned, asking = pairs
    results.values["linear reader"] = ndcg(rivals.linear(learned, asking, ndcg), bought)
    results.values["network"] = ndcg(rivals.network(learned, asking), bought)


def _twin(learned: Learned, tested: Shops, where: npt.NDArray[np.bool_], chosen: Filter) -> Floats:
    scores = np.zeros((len(tested.day), tested.bought.shape[1]), dtype=np.float32)
    for wanted, found in levels(tested, where, learned.projection.day_vectors(tested.bought), chosen):
        day = tested.day[wanted]
        scores[wanted] = read(learned, found, chosen.noise_variance[day], chosen.square[day])
    return ndcg(scores[where], tested.bought[where])


def _counts(name: str, learned: Learned, tested: Shops, where: npt.NDArray[np.bool_], epsilon: float) -> list[Floats]:
    """Return NDCG@10 at each of `SPREADS`."""
    counted = rivals.unigrams if name == "dp unigram counts" else rivals.bigrams
    scores = np.zeros((len(rivals.SPREADS), len(tested.day), tested.bought.shape[1]), dtype=np.float32)
    for wanted, found in counted(tested, where, learned, epsilon):
        scores[:, wanted] = found
    return [ndcg(one[where], tested.bought[where]) for one in scores]


@lru_cache(maxsize=1)
def _tested(split: int | Path, *, quick: bool) -> tuple[Shops, Shops]:
    trained, tested = _split(split)
    return trained, tested.of(np.arange(len(tested.people)) % 4 == 0) if quick else tested


def evaluate(split: int | Path, *, quick: bool) -> Results:
    """Return popularity and the readers of raw histories on one split: a fold's number, or the folder of other people."""
    trained, tested = _tested(split, quick=quick)
    where = asked(tested)
    results = Results(tested.people[tested.person[where]], tested.day[where], len(trained.people))
    _raw_readers(trained, tested, results, quick=quick)
    _say(f"{split}: raw readers of {len(tested.people)} people")
    return results


def draw(split: int | Path, seed: int, *, quick: bool) -> dict[str, Floats]:
    """Return what is predicted with all noise drawn once; the first draw's statistics are those that counts add to."""
    trained, tested = _tested(split, quick=quick)
    where, learned = asked(tested), learn(trained, DAYS, Settings())
    values = {
        f"twin {epsilon:g}": _twin(learned, tested, where, filter_of(STRATEGY, CLIP, epsilon, DRIFT))
        for epsilon in EPSILONS
    }
    _say(f"{split}: draw {seed + 1}")
    if seed == 0:
        for epsilon, name in itertools.product(EPSILONS, ("dp unigram counts", "dp bigram counts")):
            for spread, value in enumerate(_counts(name, learned, tested, where, epsilon)):
                values[f"{name} {epsilon:g} {spread}"] = value
        _say(f"{split}: counts")
    return values


def gather(results: Results, draws: list[dict[str, Floats]]) -> Results:
    """Add what was drawn to a split's results."""
    late = results.day >= POOLED_FROM
    for name in draws[0]:
        drawn = [values[name] for values in draws if name in values]
        results.values[name] = np.mean(drawn, axis=0)
        if name.startswith("twin "):
            results.late[float(name.removeprefix("twin "))] = [value[late] for value in drawn]
    return results


class Figures:
    """Means over shops and over people, with a paired bootstrap over people."""

    def __init__(self, values: dict[str, Floats], person: Ints, day: Ints) -> None:
        people = int(person.max()) + 1
        pooled = day >= POOLED_FROM
        self._count = np.bincount(person[pooled], minlength=people)
        self._late = {name: np.bincount(person[pooled], one[pooled], people) for name, one in values.items()}
        self._each = np.bincount(person, minlength=people)
        self._mean = {name: np.bincount(person, one, people) / self._each for name, one in values.items()}
        draws = np.random.default_rng(0).multinomial(people, np.full(people, 1 / people), size=_DRAWS)
        self._weights = np.vstack([np.ones(people), draws])  # the first row is the point estimate
        self._bins = {
            start: {name: float(one[(day >= start) & (day < stop)].mean()) for name, one in values.items()}
            for start, stop in zip(HISTORY, (*HISTORY[1:], DAYS), strict=True)
        }

    def pooled(self, name: str) -> Floats:
        """Return the mean over late shops, then of each bootstrap draw."""
        return (self._weights @ self._late[name]) / (self._weights @ self._count)

    def per_person(self, name: str) -> Floats:
        """Return the mean over people of their means, then of each bootstrap draw."""
        return (self._weights @ self._mean[name]) / self._weights.sum(1)

    def share_by_history(self, name: str, best: str) -> dict[str, float]:
        """Return the share in the shops from each number of days on to the next."""
        return {
            str(start): (found[name] - found["popularity"]) / (found[best] - found["popularity"])
            for start, found in self._bins.items()
        }

    def share_by_shops(self, name: str, best: str) -> dict[str, float]:
        """Return the share per person of each fifth of the people, by how many of their shops are asked."""
        found = {}
        for fifth in np.array_split(np.argsort(self._each, kind="stable"), 5):
            low, mean, high = (float(self._mean[one][fifth].mean()) for one in ("popularity", name, best))
            found[f"{self._each[fifth].min()} to {self._each[fifth].max()}"] = (mean - low) / (high - low)
        return found


def _interval(values: Floats) -> tuple[float, float]:
    low, high = np.quantile(values[1:], [0.025, 0.975])
    return float(low), float(high)


def measure(people: Path | None, *, quick: bool) -> dict[str, Any]:
    """Return the figures of `benchmarks.quality --data complete_journey`."""
    splits, seeds = _splits(people, quick=quick), range(1 if quick else SEEDS)
    # A fresh interpreter each: torch and its threads do not survive a fork.
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), mp_context=get_context("spawn")) as pool:
        readers = [pool.submit(evaluate, split, quick=quick) for split in splits]
        draws = [[pool.submit(draw, split, seed, quick=quick) for seed in seeds] for split in splits]
        found = [
            gather(reader.result(), [one.result() for one in drawn])
            for reader, drawn in zip(readers, draws, strict=True)
        ]
    figures = summarise(found, quick=quick)
    if people is None and len(found) > LOOKED_AT:
        kept = ("share_pooled", "share_pooled_interval", "share_per_person", "share_per_person_interval")
        unseen = summarise(found[LOOKED_AT:], quick=quick)["by_epsilon"]
        figures["folds_not_looked_at"] = {
            epsilon: {name: one[name] for name in kept} for epsilon, one in unseen.items()
        }
    return figures


def summarise(found: list[Results], *, quick: bool) -> dict[str, Any]:
    """Return the figures of all splits together."""
    values = {name: np.concatenate([one.values[name] for one in found]) for name in found[0].values}
    person = np.unique(np.concatenate([one.person for one in found]), return_inverse=True)[1]
    figures = Figures(values, person, np.concatenate([one.day for one in found]))
    seeds = range(len(found[0].late[EPSILONS[0]]))
    by_seed = {
        epsilon: [float(np.concatenate([one.late[epsilon][seed] for one in found]).mean()) for seed in seeds]
        for epsilon in EPSILONS
    }
    raw = [name for name in values if not name.startswith(("twin", "dp ", "popularity"))]
    non_private = {name: float(figures.pooled(name)[0]) for name in raw}
    alone = {name: float(figures.per_person(name)[0]) for name in raw}
    best, best_alone = max(non_private, key=lambda name: non_private[name]), max(alone, key=lambda name: alone[name])
    baseline = float(figures.pooled("popularity")[0])
    if not quick and (non_private[best] < LEAST_BEST or baseline < LEAST_POPULARITY):
        raise SystemExit(f"the rivals are too weak to compare with: {best} {non_private[best]}, popularity {baseline}")

    def share(name: str, best: str, mean: Any) -> Floats:
        return (mean(name) - mean("popularity")) / (mean(best) - mean("popularity"))

    by_epsilon, counts, above = {}, defaultdict(dict), defaultdict(dict)
    for epsilon in EPSILONS:
        key, name = f"{epsilon:g}", f"twin {epsilon:g}"
        pooled, single = share(name, best, figures.pooled), share(name, best_alone, figures.per_person)
        low, high = _interval(figures.pooled(name))
        by_epsilon[key] = {
            "value": float(figures.pooled(name)[0]),
            "low": low,
            "high": high,
            "share_pooled": float(pooled[0]),
            "share_pooled_interval": _interval(pooled),
            "share_per_person": float(single[0]),
            "share_per_person_interval": _interval(single),
            "value_per_person": float(figures.per_person(name)[0]),
            "seed_sd": float(np.std(by_seed[epsilon])),
            "share_pooled_of_recency_weighted_frequency": float(
                share(name, "recency-weighted frequency", figures.pooled)[0]
            ),
        }
        for rival in ("dp unigram counts", "dp bigram counts", "popularity"):
            tried = [one for one in values if one.startswith(f"{rival} {key} ")] or [rival]
            strongest = max(tried, key=lambda one: figures.pooled(one)[0])
            counts[rival][key] = float(figures.pooled(strongest)[0])
            gap = figures.pooled(name) - figures.pooled(strongest)
            above[rival][key] = {"difference": float(gap[0]), "interval": _interval(gap)}
    return {
        "measure": "NDCG@10 of the next shop's product categories, shops from day 240 on",
        "baseline": baseline,
        "baseline_per_person": float(figures.per_person("popularity")[0]),
        "non_private": non_private,
        "non_private_per_person": alone,
        "best_non_private": best,
        "by_epsilon": by_epsilon,
        "share_by_history_days": figures.share_by_history("twin 3", best),
        "share_per_person_by_asked_shops": figures.share_by_shops("twin 3", best_alone),
        "rivals": dict(counts),
        "above_rivals": dict(above),
        "people_trained": max(one.trained for one in found),
        "people_tested": int(person.max()) + 1,
        "freshness_days": 1,
        "closes_after_days": 2,
        "seeds": len(seeds),
        "folds": len(found),
        **_budget(),
    }


def _budget() -> dict[str, Any]:
    sensitivity = STRATEGY.sensitivity(CLIP)
    sigma = filter_of(STRATEGY, CLIP, 3.0, DRIFT).sigma
    day = gaussian(on_time_sensitivity(sensitivity), sigma)  # late rows included
    return {
        "person_epsilon": PERSON_EPSILON,
        "person_delta": PERSON_DELTA,
        "composed_owner_day_epsilon": round((day + person_charge()).epsilon(DELTA), 3),
        "delta": DELTA,
        "neighbours": "owner-day: with or without all traces of one local date of one owner; person: with or without one household",
        "charges": [
            "owner-day: all rows of one chain of a year (discrete Gaussian, sensitivity = clip times the longest column), 99 % of mu^2; the day count is a coordinate of it, with 5 % of a day's squared length",
            "owner-day: late rows, 1 % of mu^2, reserved and charged though no trace of this data set is late",
            "person: mean unit vector, shopping rate and number of households, 10 % of mu^2",
            "person: mean product of deviations in two different shops (covariance), 88 % of mu^2",
            "person: mean projected day, 2 % of mu^2",
            "public: product hierarchy, strategy, clip, and the settings in benchmarks/_grocery_reader.py, chosen by looking at two of the five folds of this public data set (docs/twin-quality.md)",
        ],
    }
