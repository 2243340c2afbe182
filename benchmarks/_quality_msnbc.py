"""Quality on the news site's day: each next page, in nats (lower is better).

One person is one visitor; of each the first 20 pages are predicted, each from those before it, the first
from none. Ours is two releases under one epsilon: noisy counts of orders up to 4 at `COUNTED` of it, and a small
network over the last pages and how often each was seen so far that starts as those counts and learns, by the
service's own `private_training`, what they miss. The rivals are noisy counts of orders 1 to 4 with interpolation,
at the whole epsilon and the same delta.

A tenth of the people is set apart as public: settings of ours and of every rival are chosen on them, and nobody
of them is trained or tested on. Ours were chosen by training on public people alone, with noise in proportion to
their number, after two trials on a part of the others (with all their noise) had shown that the counts' part may be
large; how the one release of counts is read (order, cut, strength) is chosen after its noise. What a person saw so
far is read as it is, on their side: person-level epsilon covers the model's contributors, not the person who asks.
There are no days of history in one day: shares are given by pages seen before.
"""

from __future__ import annotations

import math
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from benchmarks._msnbc import (
    ORDERS,
    VIEWS,
    Asked,
    Counts,
    Rule,
    best_reading,
    best_rule,
    chances,
    gaussian_noise_multiplier,
    load,
)
from benchmarks._msnbc_network import Network, Recurrent, each_missed, person_loss, tested
from benchmarks._private import EPSILONS, NEIGHBOURS, charged, decaying, descent_for, interval, rounded
from benchmarks._shared import data_folder
from vault.proof.charge import Charge, People, epsilon_of
from vault.twin.train import Descent, private_training

Floats = npt.NDArray[np.float64]
Pages = npt.NDArray[np.int8]

DELTA = 1e-7
CLIP = 6.0
COUNTED = 0.6  # of epsilon: what the counts would cost alone
RELEASE = Rule(order=4, ratio=0.5, clip=2.0, cut=0.0, strength=0.0)
_TUNING_SHARE, _TESTED_SHARE = 0.10, 0.18
_GROUPS = ((0, 1), (1, 2), (2, 5), (5, 10), (10, VIEWS))  # pages seen before


@dataclass(frozen=True)
class Size:
    """How much is computed: the whole set, or a quick look."""

    people: int | None
    tested: int | None
    sample_rate: float
    steps: int
    learning_rate: float
    seeds: int
    plain_steps: int
    tuning: int


FULL = Size(None, None, sample_rate=0.01, steps=200, learning_rate=0.02, seeds=3, plain_steps=2_000, tuning=20_000)
QUICK = Size(300_000, 20_000, sample_rate=0.008, steps=60, learning_rate=0.02, seeds=1, plain_steps=60, tuning=4_000)


@dataclass(frozen=True)
class Plan:
    """Two releases about the same people, and what they cost together.

    Args:
        counted: Noise of the counts over their clip.
        descent: Of the network.
    """

    counted: float
    descent: Descent

    def charges(self) -> list[Charge]:
        """Return both charges."""
        counts = Charge("counts", People.TRAINED, math.floor(self.counted * 1e6), 1_000_000, 1)
        return [counts, self.descent.charge()]


def plan_for(epsilon: float, size: Size) -> Plan:
    """Return the counts at their part of epsilon, and the least noise of the network that keeps both within it."""
    counted = gaussian_noise_multiplier(COUNTED * epsilon, DELTA)
    noise = descent_for(epsilon, DELTA, size.sample_rate, size.steps, CLIP).noise_multiplier
    while True:
        plan = Plan(counted, Descent(noise, size.sample_rate, size.steps, CLIP, size.learning_rate))
        if epsilon_of(plan.charges(), DELTA) <= epsilon:
            return plan
        noise *= 1.002


Start = tuple[Tensor, int]


def starts(people: Pages, tuning: Pages, size: Size) -> dict[float, list[Start]]:
    """Release counts once for every epsilon and seed, and return what networks start from."""
    counts, tuned, generator = Counts(people), Asked(tuning), np.random.default_rng(11)
    found: dict[float, list[Start]] = {}
    for epsilon in EPSILONS:
        for _ in range(size.seeds):
            tables = counts.release(RELEASE, plan_for(epsilon, size).counted, generator)
            rule = best_reading(tables, tuned, RELEASE)
            found.setdefault(epsilon, []).append((torch.from_numpy(np.log(chances(tables, rule))).float(), rule.order))
    print("counts to start from", file=sys.stderr, flush=True)
    return found


def train_private(pages: Tensor, tests: Tensor, descent: Descent, seed: int, start: Start) -> Floats:
    """Train from where counts start and return what is missed in the tests."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)  # of the network's start alone: its sampling and noise are cryptographic
    model = Network(*start)
    optimizer = decaying(model, descent.learning_rate, descent.steps)
    private_training(model, person_loss, {"pages": pages}, descent, float(len(pages)), optimizer=optimizer)
    print(f"noise {descent.noise_multiplier:.3f}, seed {seed}: trained", file=sys.stderr, flush=True)
    return tested(model, tests)


def train_plain(pages: Tensor, tests: Tensor, size: Size, build: type[nn.Module]) -> Floats:
    """Train without privacy and return what is missed in the tests."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model, batch = build(), 1_000
    optimizer = decaying(model, 0.005, size.plain_steps)
    for step in range(size.plain_steps):
        at = step % (len(pages) // batch)
        if at == 0:
            # People of like length lie together, so batches are cut short; the batches come in random order.
            order = torch.randperm(len(pages) // batch)
        some = pages[order[at] * batch : (order[at] + 1) * batch]
        missed, seen = each_missed(model, some)
        optimizer.zero_grad()
        (missed.sum() / seen.sum()).backward()
        optimizer.step()
    print(f"{build.__name__}: trained without privacy", file=sys.stderr, flush=True)
    return tested(model, tests)


@dataclass(frozen=True, eq=False)
class Rivals:
    """What counts miss in the tests.

    Args:
        popularity: [pages] by frequency alone, without privacy.
        plain: By order, [pages], without privacy.
        private: By epsilon and order, [pages].
        rules: By epsilon and order, how they were released and read.
    """

    popularity: Floats
    plain: dict[int, Floats]
    private: dict[float, dict[int, Floats]]
    rules: dict[float, dict[int, Rule]]


def count_rivals(people: Pages, tuning: Pages, tests: Pages, *, quick: bool) -> Rivals:
    """Release and read counts of every order at every epsilon, each by the rule that is best on the tuning people."""
    counts, tuned, asked, generator = Counts(people), Asked(tuning), Asked(tests), np.random.default_rng(7)
    missed: dict[float, dict[int, Floats]] = {}
    rules: dict[float, dict[int, Rule]] = {}
    for epsilon in (0.0, *EPSILONS):
        noise = gaussian_noise_multiplier(epsilon, DELTA) if epsilon else 0.0
        rules[epsilon] = {order: best_rule(counts, tuned, order, noise, quick=quick) for order in ORDERS}
        missed[epsilon] = {
            order: asked.missed(counts.release(rule, noise, generator), rule) for order, rule in rules[epsilon].items()
        }
        print(f"counts at epsilon {epsilon:g} (0: no noise)", file=sys.stderr, flush=True)
    alone = Rule(order=0, ratio=1.0, clip=1.0, cut=0.0, strength=1.0)
    popularity = asked.missed(counts.release(alone, 0.0, generator), alone)
    return Rivals(popularity, missed.pop(0.0), missed, rules)


def _split(people: Pages) -> list[Pages]:
    """Return the people set apart for tuning, those tested and those trained on; the latter by number of pages."""
    order = np.random.default_rng(28_091_999).permutation(len(people))
    tuning, tests = round(_TUNING_SHARE * len(people)), round(_TESTED_SHARE * len(people))
    first, second, third = np.split(people[order], [tuning, tuning + tests])
    return [first, second, third[np.argsort((third > 0).sum(1), kind="stable")]]


def measure(people: Path | None, *, quick: bool) -> dict[str, Any]:
    """Return the figures of `benchmarks.quality --data msnbc`."""
    torch.set_num_threads(1)
    size = QUICK if quick else FULL
    tuning, tests, trained = _split(load(data_folder("msnbc"))[: size.people])
    tests = load(people) if people else tests[: size.tested]
    pages, asked = torch.from_numpy(trained), torch.from_numpy(tests)
    tuning = tuning[: size.tuning]
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), mp_context=get_context("spawn")) as pool:
        released = pool.submit(starts, trained, tuning, size)
        counted = pool.submit(count_rivals, trained, tuning, tests, quick=quick)
        runs = {
            epsilon: [
                pool.submit(train_private, pages, asked, plan_for(epsilon, size).descent, seed, start)
                for seed, start in enumerate(each)
            ]
            for epsilon, each in released.result().items()
        }
        plain = {
            name: pool.submit(train_plain, pages, asked, size, build)
            for name, build in (("gru", Recurrent), ("network", Network))
        }
        ours = {epsilon: [run.result() for run in found] for epsilon, found in runs.items()}
        networks = {name: run.result() for name, run in plain.items()}
        rivals = counted.result()
    return _figures(tests, ours, networks, rivals) | {
        "person_epsilon": 3.0,
        "composed_owner_day_epsilon": None,
        "delta": DELTA,
        "neighbours": NEIGHBOURS,
        "charges": [_charged(epsilon, size) for epsilon in EPSILONS],
        "search": f"on {len(tuning)} people set apart as public, who are neither trained nor tested on",
        "people_trained": len(trained),
        "people_tested": len(tests),
        "freshness_days": None,
        "seeds": size.seeds,
    }


def _charged(epsilon: float, size: Size) -> dict[str, float | str]:
    plan = plan_for(epsilon, size)
    together = {
        "epsilon": round(epsilon_of(plan.charges(), DELTA), 4),
        "counts_noise_multiplier": round(plan.counted, 4),
    }
    return charged(plan.descent, epsilon, DELTA) | {"release": f"counts and training at epsilon {epsilon:g}"} | together


def _figures(
    tests: Pages, ours: dict[float, list[Floats]], networks: dict[str, Floats], rivals: Rivals
) -> dict[str, Any]:
    seen = tests > 0
    pages = seen.sum(1).astype(np.float64)
    person = np.repeat(np.arange(len(tests)), seen.sum(1))
    earlier = np.broadcast_to(np.arange(VIEWS), seen.shape)[seen]
    plain = {f"counts_order_{order}": missed for order, missed in rivals.plain.items()} | networks
    best_name = min(plain, key=lambda name: float(plain[name].mean()))
    best, popularity = plain[best_name], rivals.popularity

    def sums(missed: Floats) -> Floats:
        return np.bincount(person, weights=missed, minlength=len(tests))

    def share(missed: Floats, which: Any = slice(None)) -> float:
        return float((popularity - missed)[which].sum() / (popularity - best)[which].sum())

    by_epsilon: dict[str, dict[str, Any]] = {}
    for epsilon, runs in ours.items():
        missed: Floats = np.mean(runs, axis=0)
        order, rival = min(rivals.private[epsilon].items(), key=lambda one: float(one[1].mean()))
        low, high = interval(sums(missed), pages)
        gain_low, gain_high = interval(sums(rival - missed), pages)
        per_person = [sums(popularity - other) / pages for other in (missed, best)]
        by_epsilon[f"{epsilon:g}"] = rounded(
            {
                "value": float(missed.mean()),
                "low": low,
                "high": high,
                "share_pooled": share(missed),
                "share_per_person": float(per_person[0].mean() / per_person[1].mean()),
                "best_counts": float(rival.mean()),
                "best_counts_order": order,
                "below_best_counts": float((rival - missed).mean()),
                "below_best_counts_low": gain_low,
                "below_best_counts_high": gain_high,
                "after_the_first_page": float(missed[earlier > 0].mean()),
                "best_counts_after_the_first_page": float(rival[earlier > 0].mean()),
                "lowest_seed": min(float(run.mean()) for run in runs),
                "highest_seed": max(float(run.mean()) for run in runs),
            }
        )
    headline = np.mean(ours[3.0], axis=0)
    return {
        "measure": "nats a page, lower is better",
        "baseline": round(float(popularity.mean()), 5),
        "non_private": rounded({name: float(missed.mean()) for name, missed in plain.items()}),
        "best_non_private": best_name,
        "by_epsilon": by_epsilon,
        "share_by_history_days": {},
        "share_by_history_pages": {
            f"{low} to {high - 1}": round(share(headline, (earlier >= low) & (earlier < high)), 3)
            for low, high in _GROUPS
        },
        "rivals": {
            f"counts_order_{order}": {
                f"{epsilon:g}": round(float(missed[order].mean()), 5) for epsilon, missed in rivals.private.items()
            }
            for order in ORDERS
        },
        "rival_rules": {
            f"{epsilon:g}": {f"counts_order_{order}": str(rule) for order, rule in rules.items()}
            for epsilon, rules in rivals.rules.items()
            if epsilon
        },
    }
