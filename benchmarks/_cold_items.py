"""How well `recommend` ranks what the rows have no code for, from its text alone.

The grocery year, NDCG@10 of shops from day 240 on, through the service's own reader, text and shaping (daily rows,
owner-day epsilon 3, noise drawn once; `closed_form` knows no other person, with `--train` the shipped trainer's
backbone of the other four fifths answers).

`hidden_codes`: a fifth of the published codes at a time is offered under codes that the map does not know, with its
name in words; no text reads a hidden code's rows. `kinds`: the 500 most stocked kinds of product, finer than any
code, by their names. Beside the twin: chance; what is popular among the other households, counted without privacy
for the very candidates (which a cold item never has); and what is popular by code, read by the same texts.
`known_code` is the twin (the trained one, if any) asked by code, where there is one. An answer that abstains ranks nothing and counts as 0.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch

from benchmarks._coordinate_words import spelled
from benchmarks._grocery import DAYS, Floats, Ints, Shops
from benchmarks._quality_grocery import CUTOFF, POOLED_FROM, _split, asked, ndcg
from benchmarks._served import Person, interval, learn, vectors
from benchmarks._shared import data_folder
from vault.imprint.features import Cadence, FeatureMap, feature_map
from vault.imprint.words import words_digest, words_of
from vault.schema.category import Category, Purpose
from vault.schema.question import MAX_CANDIDATES, Candidate, Recommend
from vault.twin.infer import Reading, infer
from vault.twin.reader import Backbone, closed_form

_PARTS = 5
_PURPOSE = Purpose("dpv:ServicePersonalisation")
Bools = npt.NDArray[np.bool_]


class Offer:
    """Candidates that are asked by text.

    Args:
        mapped: The map.
        texts: What is said about each.
        codes: Their codes, if they have any: no text may read the rows of these.
    """

    def __init__(self, mapped: FeatureMap, texts: Sequence[str], codes: Sequence[str] = ()) -> None:
        self.codes = codes
        words = words_of(mapped)
        assert words is not None
        candidates = tuple(Candidate(f"x:{number:03}", text) for number, text in enumerate(texts))
        self.question = Recommend(mapped.category, _PURPOSE, candidates, min(2 * CUTOFF, len(texts)))
        self.about = words.about(texts, frozenset(words.codes) - frozenset(codes))

    def ranked(self, reading: Reading) -> Floats:
        """Return scores of the candidates in the order that the service answers; all zero if it abstains."""
        found = infer(reading, self.question, self.about).predictions
        scores = np.zeros(len(self.question.candidates), dtype=np.float32)
        for rank, prediction in enumerate(found):
            scores[int(prediction.code[2:])] = len(found) - rank
        return scores

    def blurred(self, popular: Floats) -> Floats:
        """Return what is popular by code, as the texts read it."""
        weights = self.about.astype(np.float32)
        blurred: Floats = weights @ popular / np.maximum(weights.sum(1), 1.0)
        return blurred


def kinds_bought(shops: Shops) -> tuple[list[str], Bools]:
    """Return the most stocked kinds of product in words, and bool[shops, kinds] which were bought."""
    folder = data_folder("complete_journey")
    table = pq.read_table(folder / "products.parquet", columns=["product_id", "product_type"])
    names = [spelled(name) if name else "" for name in table["product_type"].to_pylist()]
    stocked = Counter(filter(None, names))
    chosen = sorted(stocked, key=lambda name: (-stocked[name], name))[:MAX_CANDIDATES]
    at = {name: number for number, name in enumerate(chosen)}
    kind_of = {product: at.get(name, -1) for product, name in zip(table["product_id"].to_pylist(), names, strict=True)}
    columns = ["household_id", "product_id", "transaction_timestamp"]
    sold = pq.read_table(folder / "transactions.parquet", columns=columns)
    day = np.clip(pc.day_of_year(sold["transaction_timestamp"]).to_numpy() - 1, 0, DAYS - 1)
    year = pc.year(sold["transaction_timestamp"]).to_numpy()
    day = np.where(year > year.min(), DAYS - 1, day)
    kind = np.array([kind_of.get(product, -1) for product in sold["product_id"].to_pylist()])
    shop_of = {
        shop: row for row, shop in enumerate(zip(shops.people[shops.person].tolist(), shops.day.tolist(), strict=True))
    }
    bought = np.zeros((len(shops.day), len(chosen)), dtype=np.bool_)
    for person, when, one in zip(sold["household_id"].to_pylist(), day.tolist(), kind.tolist(), strict=True):
        row = shop_of.get((person, when), -1)
        if row >= 0 and one >= 0:
            bought[row, one] = True
    return chosen, bought


def compare(
    offers: Mapping[str, tuple[Offer, Bools, Floats, Floats]],
    mapped: FeatureMap,
    models: Mapping[str, Backbone],
    shops: Shops,
    where: Bools,
) -> dict[str, dict[str, Floats]]:
    """Return, by offer and ranking, NDCG@10 of each shop in which something of the offer was bought; else NaN.

    Args:
        offers: Each with bool[shops, candidates] bought, what is popular of the candidates and what is by code.
        mapped: Daily.
        models: Who reads.
        shops: Of the tested.
        where: Which of them are asked about.
    """
    made, random = vectors(mapped, shops.bought), np.random.default_rng(7)
    count = int(where.sum())
    names = [*models, "known_code", "popularity", "popularity_by_text", "random", "abstained"]
    found = {offer: {name: np.full(count, np.nan, dtype=np.float32) for name in names} for offer in offers}
    for number in range(len(shops.people)):
        mine = shops.person == number
        person = Person(mapped, shops.day[mine], made[mine])
        for row, shop in zip(np.cumsum(where)[mine & where] - 1, np.flatnonzero(mine & where), strict=True):
            readings = {name: person.read(model, int(shops.day[shop])) for name, model in models.items()}
            for name, (offer, bought, popular, by_code) in offers.items():
                if not bought[shop].any():
                    continue
                into, relevant = found[name], bought[shop : shop + 1]
                scores = {model: offer.ranked(reading) for model, reading in readings.items()}
                if offer.codes:
                    known = next(reversed(readings.values())).score_ppm
                    scores["known_code"] = np.array([known[code] for code in offer.codes], dtype=np.float32)
                into["abstained"][row] = float(not next(iter(scores.values())).any())
                scores |= {"popularity": popular, "popularity_by_text": offer.blurred(by_code)}
                scores["random"] = random.random(len(popular)).astype(np.float32)
                for ranking, each in scores.items():
                    into[ranking][row] = ndcg(each[None], relevant)[0] if each.any() else 0.0
    return found


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fold", type=int, default=2, help="whose households are tested")
    parser.add_argument("--households", type=int, default=10_000, help="at most so many are tested")
    parser.add_argument("--train", action="store_true", help="train a backbone too, which takes minutes")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    trained, tested = _split(chosen.fold)
    tested = tested.of(np.arange(len(tested.people)) < chosen.households)
    mapped = feature_map(Category("pd:Purchase"), Cadence.DAILY)
    models = {"closed_form": closed_form(mapped)}
    if chosen.train:
        models["trained"] = learn(mapped, trained)
    by_code = trained.bought.mean(0).astype(np.float32)
    where = asked(tested) & (tested.day >= POOLED_FROM)
    part = np.random.default_rng(11).permutation(len(by_code)) % _PARTS
    codes, names = np.array(mapped.codes[:-2]), np.array(mapped.names[:-2])
    offers: dict[str, tuple[Offer, Bools, Floats, Floats]] = {}
    for number in range(_PARTS):
        mine = part == number
        offer = Offer(mapped, [spelled(name) for name in names[mine]], list(codes[mine]))
        offers[f"hidden_{number}"] = (offer, tested.bought[:, mine], by_code[mine], by_code)
    kinds, bought = kinds_bought(tested)
    offers["kinds"] = (
        Offer(mapped, kinds),
        bought,
        kinds_bought(trained)[1].mean(0).astype(np.float32),
        by_code,
    )
    found = compare(offers, mapped, models, tested, where)
    hidden: dict[str, list[Floats]] = {}
    for number in range(_PARTS):
        for ranking, values in found[f"hidden_{number}"].items():
            hidden.setdefault(ranking, []).append(values)
    tables = {"hidden_codes": {name: np.concatenate(each) for name, each in hidden.items()}, "kinds": found["kinds"]}
    people = {"hidden_codes": np.tile(tested.person[where], _PARTS), "kinds": tested.person[where]}
    print(
        json.dumps(
            {
                "households_tested": len(tested.people),
                "words": words_digest(mapped).hex()[:16],
                **{name: _figures(table, people[name], list(models)) for name, table in tables.items()},
            }
        )
    )


def _figures(table: Mapping[str, Floats], person: Ints, models: Sequence[str]) -> dict[str, Any]:
    shown = ~np.isnan(table["random"])
    _, number = np.unique(person[shown], return_inverse=True)
    lead = {
        model: {
            rival: interval(table[model][shown] - table[rival][shown], number)
            for rival in ("random", "popularity", "popularity_by_text")
        }
        for model in models
    }
    return {
        "asked": int(shown.sum()),
        "ndcg_at_10": {
            name: round(float(values[shown].mean()), 4)
            for name, values in table.items()
            if name != "abstained" and not np.isnan(values[shown]).any()
        },
        "abstained": round(float(table["abstained"][shown].mean()), 4),
        "lead": lead,
    }


if __name__ == "__main__":
    main()
