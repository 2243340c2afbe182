"""Quality on shop sessions: will this session end in a purchase, as area under the ROC curve.

One session is one person (the set has one session each). Ours is a network of one hidden layer, trained by the
service's own `private_training`; every feature is scaled by a bound that was set by hand, none by the data. The
rival is diffprivlib's logistic regression (pure epsilon) on the same features, its norm and regularisation
tuned with the same care.

A fifth of the people is set apart as public: settings of ours and of the rival are chosen on them, and nobody
of them is trained or tested on. The others are trained and tested on in five folds.

`PageValues` is nearly the outcome (the value of pages that bought before), so figures without it stand beside.
Chance is 0.5: shares are of what the best non-private model gains over it.
"""

from __future__ import annotations

import csv
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from diffprivlib.models import LogisticRegression as PrivateLogisticRegression
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from benchmarks._private import EPSILONS, NEIGHBOURS, charged, decaying, descent_for, only_file, rounded
from benchmarks._shared import data_folder
from vault.twin.bookkeeping import Tensors
from vault.twin.train import private_training

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

DELTA = 1e-5
FOLDS = 5
HIDDEN = 32
CLIP = 2.0
SAMPLE_RATE, STEPS, LEARNING_RATE = 0.2, 200, 0.1
_TUNING_SHARE = 0.2

# Public bounds, set by hand: pages and seconds of a session, shares, and the shop's own value of a page.
_LOGARITHMIC = {
    "Administrative": 50,
    "Administrative_Duration": 3_600,
    "Informational": 50,
    "Informational_Duration": 3_600,
    "ProductRelated": 500,
    "ProductRelated_Duration": 36_000,
}
_LINEAR = {"BounceRates": 0.2, "ExitRates": 0.2, "SpecialDay": 1.0}
_PAGE_VALUE = 400
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "June", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_VISITORS = ("Returning_Visitor", "New_Visitor", "Other")


@dataclass(frozen=True, eq=False)
class Sessions:
    """Sessions as numbers in [0, 1].

    Args:
        facts: float64[people, features]; the last two are of `PageValues`.
        bought: int64[people], 0 or 1.
    """

    facts: Floats
    bought: Ints

    def of(self, which: Ints) -> Sessions:
        """Return some of them."""
        return Sessions(self.facts[which], self.bought[which])

    def without_page_values(self) -> Sessions:
        """Return them without what is nearly the outcome."""
        return Sessions(self.facts[:, :-2], self.bought)


def _log_share(value: float, bound: float) -> float:
    return math.log1p(min(max(value, 0.0), bound)) / math.log1p(bound)


def _facts(row: dict[str, str]) -> list[float]:
    value = float(row["PageValues"])
    return [
        *(_log_share(float(row[name]), bound) for name, bound in _LOGARITHMIC.items()),
        *(min(max(float(row[name]) / bound, 0.0), 1.0) for name, bound in _LINEAR.items()),
        float(row["Weekend"] == "True"),
        *(float(row["Month"] == month) for month in _MONTHS),
        *(float(row["VisitorType"] == visitor) for visitor in _VISITORS),
        _log_share(value, _PAGE_VALUE),
        float(value > 0),
    ]


def load(folder: Path) -> Sessions:
    """Read a folder's one file."""
    with only_file(folder, "*.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return Sessions(np.array([_facts(row) for row in rows]), np.array([int(row["Revenue"] == "True") for row in rows]))


def person_loss(model: nn.Module, people: Tensors) -> Tensor:
    """Return each person's loss."""
    odds = model(people["facts"])[..., 0]
    missed = nn.functional.binary_cross_entropy_with_logits(odds, people["bought"], reduction="none")
    return missed.mean(1)


def train_network(people: Sessions, epsilon: float, seed: int) -> Callable[[Floats], Floats]:
    """Train at an epsilon, 0 for without privacy, and return what scores others."""
    torch.manual_seed(seed)  # of the start alone: sampling and noise are cryptographic
    model = nn.Sequential(nn.Linear(people.facts.shape[1], HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, 1))
    nn.init.zeros_(model[2].weight)
    nn.init.zeros_(model[2].bias)
    facts = torch.from_numpy(people.facts).float().unsqueeze(1)
    examples = {"facts": facts, "bought": torch.from_numpy(people.bought).float().unsqueeze(1)}
    optimizer = decaying(model, LEARNING_RATE, STEPS)
    # The mean over the second half of the steps hides some of their noise.
    average = torch.optim.swa_utils.AveragedModel(model)
    steps = iter(range(STEPS))
    optimizer.register_step_post_hook(
        lambda *_: average.update_parameters(model) if next(steps) >= STEPS // 2 else None
    )
    if epsilon:
        descent = descent_for(epsilon, DELTA, SAMPLE_RATE, STEPS, CLIP)
        private_training(model, person_loss, examples, descent, float(len(facts)), optimizer=optimizer)
    else:
        for _ in range(STEPS):
            drawn = torch.rand(len(facts)) < SAMPLE_RATE
            optimizer.zero_grad()
            person_loss(model, {name: column[drawn] for name, column in examples.items()}).mean().backward()
            optimizer.step()
    return lambda others: average(torch.from_numpy(others).float()).detach().double().numpy()[:, 0]


@dataclass(frozen=True)
class Tuned:
    """What the rival's settings are: rows are cut to this norm, and the inverse of its regularisation."""

    norm: float
    inverse_penalty: float


def train_rival(people: Sessions, epsilon: float, seed: int, tuned: Tuned) -> Callable[[Floats], Floats]:
    """Train diffprivlib's logistic regression and return what scores others."""
    model = PrivateLogisticRegression(
        epsilon=epsilon, data_norm=tuned.norm, C=tuned.inverse_penalty, max_iter=500, random_state=seed
    )
    model.fit(_cut(people.facts, tuned.norm), people.bought)
    return lambda others: model.decision_function(_cut(others, tuned.norm))


def _cut(facts: Floats, norm: float) -> Floats:
    lengths = np.linalg.norm(facts, axis=1, keepdims=True)
    return facts * np.minimum(1.0, norm * (1 - 1e-9) / lengths)


def area(scores: Floats, bought: Ints, often: Floats) -> Floats:
    """Return the area under the ROC curve for each row of weights; ties count half.

    Args:
        scores: [people].
        bought: [people].
        often: [draws, people], how often each person counts.
    """
    _, rank = np.unique(scores, return_inverse=True)
    order = np.argsort(rank, kind="stable")
    ends = np.flatnonzero(np.diff(rank[order], append=-1))
    sold = np.cumsum((often * bought)[:, order], axis=1)[:, ends]
    not_sold = np.cumsum((often * (1 - bought))[:, order], axis=1)[:, ends]
    new_sold = np.diff(sold, axis=1, prepend=0.0)
    below = not_sold - np.diff(not_sold, axis=1, prepend=0.0) / 2
    found: Floats = (new_sold * below).sum(1) / (sold[:, -1] * not_sold[:, -1])
    return found


@dataclass(frozen=True, eq=False)
class Fold:
    """People to train on and people to test on."""

    trained: Sessions
    tested: Sessions


def folds(people: Sessions, others: Sessions | None) -> Iterator[Fold]:
    """Yield five folds, or everybody against the others; a quick run takes the first two."""
    if others is not None:
        yield Fold(people, others)
        return
    at = np.arange(len(people.bought))
    for number in range(FOLDS):
        yield Fold(people.of(at[at % FOLDS != number]), people.of(at[at % FOLDS == number]))


Train = Callable[[Sessions, int], Callable[[Floats], Floats]]


def tested(cut: Sequence[Fold], train: Train, seeds: int, draws: int) -> tuple[float, Floats]:
    """Return the mean area over folds and seeds, and the same for each bootstrap draw of the people tested."""
    once: list[float] = []
    often: list[Floats] = []
    for number, fold in enumerate(cut):
        count = len(fold.tested.bought)
        weights = np.random.default_rng(95 + number).poisson(1.0, (draws, count)).astype(np.float64)
        for seed in range(seeds):
            scores = train(fold.trained, seed)(fold.tested.facts)
            once.append(float(area(scores, fold.tested.bought, np.ones((1, count)))[0]))
            often.append(area(scores, fold.tested.bought, weights))
    return float(np.mean(once)), np.mean(often, axis=0)


@dataclass(frozen=True)
class Size:
    """How much is computed: seeds of a fold, bootstrap draws, and how many of the folds."""

    seeds: int
    draws: int
    folds: int


FULL, QUICK = Size(10, 500, FOLDS), Size(1, 100, 2)


def best_rival(people: Sessions, epsilon: float, size: Size) -> Tuned:
    """Return the rival's settings that are best on people who are neither trained nor tested on."""
    grid = [Tuned(norm, penalty) for norm in (1.0, 2.0, 3.0) for penalty in (0.1, 1.0, 10.0)]
    cut = list(folds(people, None))[: size.folds]

    def value(tuned: Tuned) -> float:
        return tested(cut, lambda some, seed: train_rival(some, epsilon, seed, tuned), min(size.seeds, 3), draws=1)[0]

    return max(grid, key=value)


def _plain(build: Callable[[], Any]) -> Train:
    def train(people: Sessions, _seed: int) -> Callable[[Floats], Floats]:
        score: Callable[[Floats], Floats] = build().fit(people.facts, people.bought).decision_function
        return score

    return train


_PLAIN: dict[str, Callable[[], Any]] = {
    "logistic_regression": lambda: LogisticRegression(max_iter=1_000),
    "gradient_boosting": lambda: HistGradientBoostingClassifier(max_iter=100, learning_rate=0.05, random_state=0),
}


def compare(tuning: Sessions, people: Sessions, others: Sessions | None, size: Size) -> dict[str, Any]:
    """Return everything with one set of features."""
    torch.set_num_threads(1)
    cut = list(folds(people, others))[: size.folds]
    plain = {name: tested(cut, _plain(build), 1, 1)[0] for name, build in _PLAIN.items()}
    plain["network"] = tested(cut, lambda some, seed: train_network(some, 0.0, seed), size.seeds, 1)[0]
    best = max(plain.values())
    by_epsilon: dict[str, dict[str, float]] = {}
    rival: dict[str, float] = {}
    for epsilon in EPSILONS:
        tuned = best_rival(tuning, epsilon, size)
        value, often = tested(cut, lambda some, seed: train_network(some, epsilon, seed), size.seeds, size.draws)  # noqa: B023  (called before the loop goes on)
        theirs, theirs_often = tested(
            cut,
            lambda some, seed: train_rival(some, epsilon, seed, tuned),  # noqa: B023  (as above)
            size.seeds,
            size.draws,
        )
        low, high = np.quantile(often, [0.025, 0.975])
        gain_low, gain_high = np.quantile(often - theirs_often, [0.025, 0.975])
        share = (value - 0.5) / (best - 0.5)
        by_epsilon[f"{epsilon:g}"] = rounded(
            {
                "value": value,
                "low": float(low),
                "high": float(high),
                "share_pooled": share,
                "share_per_person": share,
                "above_diffprivlib": value - theirs,
                "above_diffprivlib_low": float(gain_low),
                "above_diffprivlib_high": float(gain_high),
            }
        )
        rival[f"{epsilon:g}"] = round(theirs, 5)
        print(f"{people.facts.shape[1]} features, epsilon {epsilon:g}", file=sys.stderr, flush=True)
    return {
        "baseline": 0.5,
        "non_private": rounded(plain),
        "best_non_private": max(plain, key=lambda name: plain[name]),
        "by_epsilon": by_epsilon,
        "share_by_history_days": {},
        "rivals": {"diffprivlib_logistic_regression": rival},
    }


def measure(people: Path | None, *, quick: bool) -> dict[str, Any]:
    """Return the figures of `benchmarks.quality --data online_shoppers`."""
    everyone = load(data_folder("online_shoppers"))
    order = np.random.default_rng(468).permutation(len(everyone.bought))
    apart = round(_TUNING_SHARE * len(order))
    tuning, rest = everyone.of(order[:apart]), everyone.of(order[apart:])
    others = load(people) if people else None
    size = QUICK if quick else FULL
    trained = len(rest.bought) if others else len(rest.bought) * (FOLDS - 1) // FOLDS
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), mp_context=get_context("spawn")) as pool:
        alone = pool.submit(
            compare,
            tuning.without_page_values(),
            rest.without_page_values(),
            others and others.without_page_values(),
            size,
        )
        figures = pool.submit(compare, tuning, rest, others, size).result()
        without = alone.result()
    value = (others or rest).facts[:, -2]
    sold = (others or rest).bought
    return {
        "measure": "area under the ROC curve",
        **figures,
        "without_page_values": without,
        "page_values_alone": round(float(area(value, sold, np.ones((1, len(sold))))[0]), 5),
        "person_epsilon": 3.0,
        "composed_owner_day_epsilon": None,
        "delta": DELTA,
        "neighbours": NEIGHBOURS,
        "charges": [
            charged(descent_for(epsilon, DELTA, SAMPLE_RATE, STEPS, CLIP), epsilon, DELTA) for epsilon in EPSILONS
        ],
        "search": f"on {apart} people set apart as public, who are neither trained nor tested on",
        "people_trained": trained,
        "people_tested": sum(len(fold.tested.bought) for fold in list(folds(rest, others))[: size.folds]),
        "freshness_days": None,
        "seeds": size.seeds,
    }
