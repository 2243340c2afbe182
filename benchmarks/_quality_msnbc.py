"""Quality on the news site's day: each next page, in nats (lower is better).

One person is one visitor; of each the first 20 pages are predicted, each from those before it, the first
from none. Ours is a small network over the last pages and how often each was seen so far, trained by the
service's own `private_training`; the rivals are noisy counts of orders 1 to 4 with interpolation, at the same
epsilon and delta.

A tenth of the people is set apart as public: settings of ours and of every rival are chosen on them, and nobody
of them is trained or tested on. What a person saw so far is read as it is, on their side: person-level epsilon
covers the model's contributors, not the person who asks. A quick run stops after 80 steps on fewer people, where
counts, which need no steps, are still ahead: only the full run compares. There are no days of history in one day: shares are
given by pages seen before.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from benchmarks._msnbc import ORDERS, PAGES, VIEWS, Asked, Counts, Rule, best_rule, gaussian_noise_multiplier, load
from benchmarks._private import EPSILONS, NEIGHBOURS, charged, decaying, descent_for, interval, rounded
from benchmarks._shared import data_folder
from vault.twin.bookkeeping import Tensors
from vault.twin.train import private_training

Floats = npt.NDArray[np.float64]
Pages = npt.NDArray[np.int8]

DELTA = 1e-7
WINDOW = 4
HIDDEN = 64
CLIP = 3.0
_TUNING_SHARE, _TESTED_SHARE = 0.10, 0.18
_GROUPS = ((0, 1), (1, 2), (2, 5), (5, 10), (10, VIEWS))  # pages seen before
_ONE_HOT = torch.cat([torch.zeros(1, PAGES), torch.eye(PAGES)])


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


FULL = Size(None, None, sample_rate=0.01, steps=400, learning_rate=0.02, seeds=3, plain_steps=2_000, tuning=20_000)
QUICK = Size(300_000, 20_000, sample_rate=0.008, steps=80, learning_rate=0.03, seeds=1, plain_steps=60, tuning=4_000)


class Network(nn.Module):
    """Two hidden layers, and one that skips them, over the last pages, how often each was seen, and how many."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear((WINDOW + 1) * PAGES + 2, HIDDEN), nn.Linear(HIDDEN, HIDDEN)
        self.direct, self.scores = nn.Linear((WINDOW + 1) * PAGES + 2, PAGES), nn.Linear(HIDDEN, PAGES)
        for layer in (self.direct, self.scores):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, pages: Tensor) -> Tensor:
        """Return scores [people, views, PAGES] of each page from those before it."""
        seen = _ONE_HOT[pages]
        people, views, _ = seen.shape
        padded = torch.cat([torch.zeros(people, WINDOW, PAGES), seen], 1)
        last = [padded[:, WINDOW - back : WINDOW - back + views] for back in range(1, WINDOW + 1)]
        often = torch.log1p(seen.cumsum(1) - seen)
        at = torch.arange(views).float().view(1, views, 1).expand(people, views, 1)
        facts = torch.cat([*last, often, (at == 0).float(), torch.log1p(at) / 3], 2)
        out: Tensor = self.direct(facts) + self.scores(torch.relu(self.second(torch.relu(self.first(facts)))))
        return out


class Recurrent(nn.Module):
    """The usual network for sequences, without privacy."""

    def __init__(self) -> None:
        super().__init__()
        self.pages, self.memory = nn.Embedding(PAGES + 1, 32), nn.GRU(32, 96, batch_first=True)
        self.scores = nn.Linear(96, PAGES)

    def forward(self, pages: Tensor) -> Tensor:
        """Return scores [people, views, PAGES] of each page from those before it."""
        before = nn.functional.pad(pages, (1, 0))[:, :-1]
        out: Tensor = self.scores(self.memory(self.pages(before))[0])
        return out


def each_missed(model: nn.Module, pages: Tensor) -> tuple[Tensor, Tensor]:
    """Return negative log-likelihoods [people, views], 0 where nothing was seen, and where something was."""
    pages = pages[:, : int((pages > 0).sum(1).max())].long()
    scores, seen = model(pages), pages > 0
    missed = nn.functional.cross_entropy(scores.flatten(0, 1), (pages - 1).clamp(min=0).flatten(), reduction="none")
    return missed.view(pages.shape) * seen, seen


def person_loss(model: nn.Module, people: Tensors) -> Tensor:
    """Return each person's sum over pages: a constant times the mean over the 20 places that anybody has."""
    return each_missed(model, people["pages"])[0].sum(1)


def pieces(pages: Tensor, size: int = 1_000) -> Iterator[Tensor]:
    """Yield people in order, a few at a time."""
    yield from torch.split(pages, size)


@torch.no_grad()
def tested(model: nn.Module, pages: Tensor) -> Floats:
    """Return [pages seen] negative log-likelihoods, people in order and each person's pages in order."""
    found = []
    for some in pieces(pages):
        missed, seen = each_missed(model, some)
        found.append(missed[seen].double().numpy())
    return np.concatenate(found)


def train_private(pages: Tensor, tests: Tensor, size: Size, epsilon: float, seed: int) -> Floats:
    """Train at an epsilon and return what is missed in the tests."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)  # of the start alone: sampling and noise are cryptographic
    model = Network()
    descent = descent_for(epsilon, DELTA, size.sample_rate, size.steps, CLIP)
    optimizer = decaying(model, size.learning_rate, size.steps)
    private_training(model, person_loss, {"pages": pages}, descent, float(len(pages)), optimizer=optimizer)
    print(f"epsilon {epsilon:g}, seed {seed}: trained", file=sys.stderr, flush=True)
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
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        counted = pool.submit(count_rivals, trained, tuning, tests, quick=quick)
        runs = {
            epsilon: [pool.submit(train_private, pages, asked, size, epsilon, seed) for seed in range(size.seeds)]
            for epsilon in EPSILONS
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
        "charges": [
            charged(descent_for(epsilon, DELTA, size.sample_rate, size.steps, CLIP), epsilon, DELTA)
            for epsilon in EPSILONS
        ],
        "search": f"on {len(tuning)} people set apart as public, who are neither trained nor tested on",
        "people_trained": len(trained),
        "people_tested": len(tests),
        "freshness_days": None,
        "seeds": size.seeds,
    }


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
