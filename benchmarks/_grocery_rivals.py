"""What a twin is held against: readers of the raw history, and counts at the twin's own budget."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from benchmarks._grocery import Floats, Shops
from benchmarks._grocery_chain import filter_of, levels
from benchmarks._grocery_reader import Learned, unit_vectors
from vault.imprint.chain import power
from vault.imprint.projection import Projection

HALF_LIVES = (60.0, 100.0, 160.0)
SMOOTHING = (2.0, 4.0, 8.0)
SPREADS = (0.0005, 0.002, 0.01)
RIDGE = (3.0, 10.0, 30.0)
CLIP = 24  # of a counted day, in quantised units
_COUNTED = 128
_PAIRED = 16
_EPOCHS = 4
NEVER = 1e9  # days in which a steady history loses half its weight


@dataclass(frozen=True, eq=False)
class History:
    """For each shop, what its person bought on earlier days, older days weighing less.

    Args:
        total: float32[N, K] weighted sum of vectors.
        weight: float32[N, 1] weighted number of shops.
    """

    total: Floats
    weight: Floats

    def smoothed(self, prior: Floats, strength: float) -> Floats:
        """Return the mean with `strength` shops of the prior added."""
        return (self.total + strength * prior) / (self.weight + strength)

    def rows(self, which: np.ndarray) -> History:
        """Return those of some shops."""
        return History(self.total[which], self.weight[which])


def history(shops: Shops, vectors: Floats, half_life: float) -> History:
    """Return the history before each shop's day."""
    total, weight = np.zeros_like(vectors), np.zeros((len(vectors), 1), dtype=np.float32)
    bounds = np.searchsorted(shops.person, np.arange(len(shops.people) + 1))
    for start, stop in itertools.pairwise(bounds):
        day = shops.day[start:stop]
        age = day[:, None] - day[None, :]
        faded = np.where(age > 0, 0.5 ** (age / half_life), 0.0).astype(np.float32)
        total[start:stop], weight[start:stop, 0] = faded @ vectors[start:stop], faded.sum(1)
    return History(total, weight)


@dataclass(frozen=True, eq=False)
class Examples:
    """What the two trained readers learn from and are asked.

    Args:
        inputs: float32[N, 2 K] smoothed deviations of the unit vectors, fading and not.
        base: float32[N, K] the fading one as a score.
        target: float32[N, K] unit vector bought.
        bought: bool[N, K].
    """

    inputs: Floats
    base: Floats
    target: Floats
    bought: np.ndarray

    def part(self, which: slice) -> Examples:
        """Return some of the examples."""
        return Examples(self.inputs[which], self.base[which], self.target[which], self.bought[which])


def examples(shops: Shops, fading: History, steady: History, mean: Floats, which: np.ndarray) -> Examples:
    """Return the examples of the asked shops."""
    one, two = fading.rows(which).smoothed(mean, 4.0), steady.rows(which).smoothed(mean, 4.0)
    bought = shops.bought[which]
    return Examples(np.hstack([one - mean, two - mean]), one, unit_vectors(bought), bought)


def linear(trained: Examples, asked: Examples, judge: Callable[[Floats, np.ndarray], Floats]) -> Floats:
    """Return the scores of a ridge regression of what the fading mean misses.

    The ridge is the one that `judge` likes best on the last fifth of the people trained on, learnt from the others.
    """
    cut = len(trained.base) * 4 // 5
    parts = [trained.part(slice(0, cut)), trained.part(slice(cut, None))]
    grams = [part.inputs.T @ part.inputs for part in parts]
    crosses = [part.inputs.T @ (part.target - part.base) for part in parts]

    def fitted(gram: Floats, cross: Floats, ridge: float) -> Floats:
        return np.linalg.solve(gram + ridge * np.eye(len(gram)), cross).astype(np.float32)

    def quality(ridge: float) -> float:
        held = parts[1]
        scores = held.base + held.inputs @ fitted(grams[0], crosses[0], ridge)
        return float(judge(scores, held.bought).mean())

    ridge = max(RIDGE, key=quality)
    return asked.base + asked.inputs @ fitted(grams[0] + grams[1], crosses[0] + crosses[1], ridge)


def network(trained: Examples, asked: Examples) -> Floats:
    """Return the scores of a network on the same inputs, trained with a softmax over what was bought."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    size = trained.base.shape[1]
    layers = torch.nn.Sequential(torch.nn.Linear(2 * size, 256), torch.nn.ReLU(), torch.nn.Linear(256, size))
    torch.nn.init.zeros_(layers[2].weight)
    torch.nn.init.zeros_(layers[2].bias)
    factor = torch.nn.Parameter(torch.tensor(10.0))
    optimizer = torch.optim.Adam([*layers.parameters(), factor], lr=1e-3)
    share = trained.bought / trained.bought.sum(1, keepdims=True)
    inputs, base, target = (torch.from_numpy(x.astype(np.float32)) for x in (trained.inputs, trained.base, share))
    for _ in range(_EPOCHS):
        for batch in torch.randperm(len(inputs)).split(512):
            scores = factor * base[batch] + layers(inputs[batch] * 10.0)
            loss = -(target[batch] * torch.log_softmax(scores, dim=1)).sum(1).mean()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    with torch.inference_mode():
        found = factor * torch.from_numpy(asked.base) + layers(torch.from_numpy(asked.inputs) * 10.0)
    return found.numpy()


def unigrams(shops: Shops, which: np.ndarray, learned: Learned, epsilon: float) -> Iterator[tuple[np.ndarray, Floats]]:
    """Yield scores from DP counts of codes: square-root chain, uncentred, added to the prior as pseudo-counts.

    The prior is the one that was released; yields float32[spreads, n, K], one for each of `SPREADS`.
    """
    keep = learned.keep[:_COUNTED]
    counted = Projection(np.zeros(len(learned.mean)), np.eye(len(learned.mean))[keep], 1.0, CLIP)
    chosen = filter_of(power(50, 365), CLIP, epsilon, 0.0)
    for wanted, found in levels(shops, which, counted.day_vectors(shops.bought), chosen):
        days = (shops.day[wanted] - 1)[:, None]
        count = found[:, :-1] * days / counted.scale
        doubt = np.sqrt(chosen.noise_variance[shops.day[wanted]])[:, None] * days / counted.scale
        seen = np.maximum(found[:, -1:] * days / counted.active_day, 0)
        yield wanted, _strengths(learned, keep, count, seen, doubt)


def bigrams(shops: Shops, which: np.ndarray, learned: Learned, epsilon: float) -> Iterator[tuple[np.ndarray, Floats]]:
    """Yield scores from DP counts of pairs (code of the last shop, code of this one).

    In the rival's favour the last shop is read raw, which leaks it. A day is in two pairs of shops, so the clip
    of a pair is half the day's.
    """
    keep = learned.keep[:_PAIRED]
    vectors = unit_vectors(shops.bought)[:, keep]
    last = np.zeros_like(vectors)
    last[1:] = np.where((shops.person[1:] == shops.person[:-1])[:, None], vectors[:-1], 0)
    pairs = (last[:, :, None] * vectors[:, None, :]).reshape(len(vectors), -1)
    whole = np.trunc(pairs * (CLIP / 2 * (1 - 1e-6))).astype(np.int64)
    chosen = filter_of(power(50, 365), CLIP, epsilon, 0.0)
    for wanted, found in levels(shops, which, whole, chosen):
        days = (shops.day[wanted] - 1)[:, None]
        count = (found * days / (CLIP / 2)).reshape(-1, _PAIRED, _PAIRED)
        doubt = np.sqrt(chosen.noise_variance[shops.day[wanted]])[:, None] * days / (CLIP / 2)
        context = (last[wanted] > 0).astype(np.float32)
        followed = np.einsum("ij,ijk->ik", context, count)
        yield wanted, _strengths(learned, keep, followed, np.maximum(followed.sum(1, keepdims=True), 0), doubt)


def _strengths(learned: Learned, keep: np.ndarray, count: Floats, seen: Floats, doubt: Floats) -> Floats:
    """Return float32[spreads, n, K]: counts added to the prior, which is worth more shops the noisier they are.

    With habits of variance `spread` the best worth is doubt^2 / (spread seen); at infinite noise this is popularity.
    """
    found = np.tile(learned.mean.astype(np.float32), (len(SPREADS), len(count), 1))
    rest = np.setdiff1d(np.arange(found.shape[2]), keep)
    for at, spread in enumerate(SPREADS):
        worth = 2.0 + doubt**2 / (spread * np.maximum(seen, 1.0))
        found[at][:, keep] = np.maximum((count + worth * learned.mean[keep]) / (seen + worth), 0.0)
        found[at][:, rest] *= worth / (seen + worth)
    return found
