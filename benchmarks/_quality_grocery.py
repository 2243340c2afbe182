"""Quality on the grocery year: the next shop's product categories, NDCG@10.

A shop is a day on which a person shopped; relevant are the published codes bought on it; every person
with at least 3 earlier shops counts, from day 60 on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks._grocery import Floats, Ints, Shops, load
from benchmarks._shared import data_folder

FOLDS = 5
FIRST_DAY = 60
POOLED_FROM = 240
EARLIER = 3
CUTOFF = 10

_DISCOUNT = (1.0 / np.log2(np.arange(2, CUTOFF + 2))).astype(np.float32)
_IDEAL = np.concatenate([[0.0], np.cumsum(_DISCOUNT)])


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


def measure(people: Path | None, *, quick: bool) -> dict[str, Any]:
    """Return the figures of `benchmarks.quality --data complete_journey`."""
    folder = data_folder("complete_journey")
    trained = load(folder, folder / "products.parquet")
    tested = load(people, folder / "products.parquet") if people else trained
    popularity = trained.bought.mean(0, dtype=np.float32)
    which = asked(tested)
    if quick:
        which &= folds_of(tested.people)[tested.person] == 0
    scores = np.broadcast_to(popularity, (int(which.sum()), len(popularity)))
    value = float(ndcg(scores, tested.bought[which]).mean())
    return {"measure": "NDCG@10", "baseline": value, "people_tested": len(np.unique(tested.person[which]))}
