"""What the service itself predicts from monthly and from daily rows, beside the twin that `benchmarks.quality` measures.

The grocery year, next shop's categories, NDCG@10 of shops from day 240 on. Both cadences and the measured twin cost
an owner-day epsilon 3 at delta 1e-6 and draw their noise once. Rows are read on the day of the shop, as far as they
had closed: daily ones two days after their day, and once more (`by_week`, `by_month`) as if the owner had days close with
their week or their month, the same rows and models. `closed_form` knows no other person, `trained` is the shipped
trainer's backbone of the other four fifths, at its shipped person-level charge, and `lens` the same backbone reading days
that were seen through its lens, as chains that begin after it was trained are. `measured` is the twin of
`benchmarks.quality` on the same households.
`frequency` reads the raw history: counts before the shop, smoothed by eight days of what is popular.
"""

from __future__ import annotations

import argparse
import json
import sys
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import torch

from benchmarks._grocery import DAYS, Floats, Ints, Shops
from benchmarks._grocery_chain import filter_of
from benchmarks._grocery_reader import CLIP, Settings
from benchmarks._grocery_reader import learn as learn_statistics
from benchmarks._quality_grocery import DRIFT, POOLED_FROM, STRATEGY, _split, _twin, asked, ndcg
from vault.budget.days import sigma_of
from vault.imprint.block import Block, strategy_from
from vault.imprint.chain import errors
from vault.imprint.features import Cadence, FeatureMap, feature_map
from vault.imprint.noise import DiscreteGaussian
from vault.imprint.rows import Row
from vault.schema.category import Category
from vault.schema.freshness import Freshness, last_closed_day
from vault.schema.trace import Period, period_of, periods_from
from vault.twin.certify import code_digest
from vault.twin.infer import Reading, month_number, read, read_days
from vault.twin.levels import read_level
from vault.twin.reader import Backbone, closed_form, maps_of
from vault.twin.refresh import noise_of
from vault.twin.train import PersonMonths, train

YEAR = date(2017, 1, 1)
MONTHS = periods_from(Period("2017-01"), 12)
_STARTS = [(date(2017, month, 1) - YEAR).days for month in range(1, 13)] + [DAYS]
_NOON = time(12, tzinfo=UTC)  # when it is asked
_SMOOTHED = 8.0


def vectors(mapped: FeatureMap, bought: npt.NDArray[np.bool_]) -> Ints:
    """Return int64[N, K]: each day's vector, as the map makes it."""
    codes = np.array(mapped.codes[:-2])
    return np.stack([mapped.day_vector(codes[row]) for row in bought])


class Person:
    """One household's rows, drawn once.

    Args:
        mapped: Monthly or daily, or daily through a lens.
        day: int64[n] days of its shops.
        rows: int64[n, K] their vectors.
    """

    def __init__(self, mapped: FeatureMap, day: Ints, rows: Ints) -> None:
        days = np.zeros((DAYS, mapped.size), dtype=np.int64)
        np.add.at(days, day, rows)
        self._mapped = mapped
        if mapped.cadence is Cadence.MONTHLY:
            sums = np.add.reduceat(days, _STARTS[:-1])
            self._values = sums + noise_of(mapped).sample(sums.shape)
        else:
            sigma = sigma_of(mapped, late=False)
            self._values = days + errors(strategy_from(YEAR), DiscreteGaussian(sigma).sample(days.shape))

    def rows(self, until: int) -> list[Row]:
        """Return the rows of the months that closed with day `until` or before."""
        mapped, sigma = self._mapped, noise_of(self._mapped).sigma
        return [
            Row(bytes(32), mapped.digest, period, 0, mapped.clip, sigma, self._values[at])
            for at, period in enumerate(MONTHS)
            if _STARTS[at + 1] - 1 <= until
        ]

    def blocks(self, until: int) -> list[Block]:
        """Return the rows of the days up to `until`."""
        mapped, sigma = self._mapped, sigma_of(self._mapped, late=False)
        ends = [min(end, until + 1) for end in _STARTS[1:]]
        return [
            Block(bytes(32), mapped.digest, YEAR, YEAR + timedelta(start), mapped.clip, sigma, self._values[start:end])
            for start, end in zip(_STARTS[:-1], ends, strict=True)
            if start < end
        ]

    def read(self, model: Backbone, day: int, freshness: Freshness) -> Reading:
        """Return what the service reads on a day, where days close as chosen."""
        at = YEAR + timedelta(days=day)
        closed = (last_closed_day(datetime.combine(at, _NOON), ZoneInfo("UTC"), freshness) - YEAR).days
        if self._mapped.cadence is Cadence.MONTHLY:
            return read(model, self._mapped, self.rows(closed), period_of(at))
        return read_days(model, feature_map(self._mapped.category, Cadence.DAILY), self.blocks(closed), at)


def learn(mapped: FeatureMap, shops: Shops) -> Backbone:
    """Train the shipped backbone on these households' rows and shops."""
    columns: dict[str, list[Any]] = {
        name: [] for name in ("person", "month", "rows", "days", "chosen", "sums", "sigma", "worth")
    }
    made, monthly = vectors(mapped, shops.bought), mapped.cadence is Cadence.MONTHLY
    for number in range(len(shops.people)):
        mine = shops.person == number
        person, when = Person(mapped, shops.day[mine], made[mine]), shops.day[mine]
        rows = person.rows(DAYS) if monthly else []
        for at, period in enumerate(MONTHS):
            inside = (when >= _STARTS[at]) & (when < _STARTS[at + 1])
            blocks = [] if monthly else person.blocks(_STARTS[at] - 1)
            level = None if monthly else read_level(mapped, blocks, YEAR + timedelta(days=_STARTS[at]))
            chosen = np.append(shops.bought[mine][inside].sum(0), 0)
            values = rows[at].values if monthly else np.zeros(mapped.size) if level is None else np.rint(level.values)
            noise = rows[at].sigma if monthly else 1 if level is None else max(round(level.sigma), 1)
            worth = 0.0 if level is None else level.months
            line = (number, month_number(period), values, inside.sum(), chosen, made[mine][inside].sum(0), noise, worth)
            for name, value in zip(columns, line, strict=True):
                columns[name].append(value)
    records = PersonMonths(
        person=np.array(columns["person"]),
        month=np.array(columns["month"]),
        rows=np.stack(columns["rows"]).astype(np.int64),
        days=np.array(columns["days"]),
        chosen=np.stack(columns["chosen"]).astype(np.int64),
        sums=np.stack(columns["sums"]).astype(np.int64),
        sigma=np.array(columns["sigma"]),
        worth=None if monthly else np.array(columns["worth"]),
    )
    return train(records, mapped)[0]


def evaluate(mapped: FeatureMap, models: dict[str, Backbone], shops: Shops) -> dict[str, Floats]:
    """Return NDCG@10 of each late shop by each model, and by how fresh its rows are."""
    where, made = asked(shops) & (shops.day >= POOLED_FROM), vectors(mapped, shops.bought)
    monthly = mapped.cadence is Cadence.MONTHLY
    closing = (
        {"": Freshness.MONTH}
        if monthly
        else {"": Freshness.DAY, "_by_week": Freshness.WEEK, "_by_month": Freshness.MONTH}
    )
    readers = {f"{name}{by}": (model, freshness) for name, model in models.items() for by, freshness in closing.items()}
    found: dict[str, list[Floats]] = {name: [] for name in readers}
    for number in range(len(shops.people)):
        mine = shops.person == number
        person = Person(mapped, shops.day[mine], made[mine])
        for shop in np.flatnonzero(mine & where):
            for name, (model, freshness) in readers.items():
                reading = person.read(model, int(shops.day[shop]), freshness)
                score = np.array(list(reading.score_ppm.values()), dtype=np.float32)
                score -= np.arange(len(score), dtype=np.float32) * 1e-3  # ties go by code, as answers do
                found[name].append(ndcg(score[None], shops.bought[shop : shop + 1]))
    return {name: np.concatenate(values) for name, values in found.items()}


def raw(popular: Floats, shops: Shops) -> dict[str, Floats]:
    """Return NDCG@10 of each late shop by what is popular, and by the raw history."""
    where = asked(shops) & (shops.day >= POOLED_FROM)
    starts = np.searchsorted(shops.person, np.arange(len(shops.people)))
    before = np.cumsum(shops.bought, axis=0, dtype=np.float32) - shops.bought
    first = starts[shops.person]
    counts = before - before[first]
    past = (np.arange(len(shops.day)) - first)[:, None]
    shares = (counts + _SMOOTHED * popular) / (past + _SMOOTHED)
    bought = shops.bought[where]
    return {
        "popularity": ndcg(np.tile(popular, (len(bought), 1)), bought),
        "frequency": ndcg(shares[where].astype(np.float32), bought),
    }


def interval(lead: Floats, person: Ints) -> list[float]:
    """Return a mean lead over shops and what it is at least and at most: a bootstrap over people, 95 %."""
    sums = np.bincount(person, lead)
    counts = np.bincount(person)
    drawn = np.random.default_rng(0).integers(len(sums), size=(2_000, len(sums)))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return [round(float(value), 4) for value in (lead.mean(), low, high)]


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--fold", type=int, default=2, help="whose households are tested; settings were chosen on 0 and 1"
    )
    parser.add_argument("--households", type=int, default=10_000, help="at most so many are tested")
    parser.add_argument("--train", action="store_true", help="train backbones too, which takes minutes")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    trained, tested = _split(chosen.fold)
    tested = tested.of(np.arange(len(tested.people)) < chosen.households)
    popular = trained.bought.mean(0).astype(np.float32)
    values = raw(popular, tested)
    for cadence in Cadence:
        mapped = feature_map(Category("pd:Purchase"), cadence)
        models = {"closed_form": closed_form(mapped)}
        if chosen.train:
            sys.stderr.write(f"{cadence}: training\n")
            models["trained"] = learn(mapped, trained)
        values |= {f"{cadence}_{name}": one for name, one in evaluate(mapped, models, tested).items()}
        if chosen.train and cadence is Cadence.DAILY:
            model = models["trained"]
            seen = evaluate(maps_of(mapped, model)[-1], {"trained": model}, tested)
            values |= {f"lens_{name}": one for name, one in seen.items()}
    where = asked(tested) & (tested.day >= POOLED_FROM)
    person = tested.person[where]
    values["measured"] = _twin(
        learn_statistics(trained, DAYS, Settings()), tested, where, filter_of(STRATEGY, CLIP, 3.0, DRIFT)
    )
    leads = {
        f"daily over monthly, {name}": interval(values[f"daily_{name}"] - values[f"monthly_{name}"], person)
        for name in (["closed_form", "trained"] if chosen.train else ["closed_form"])
    }
    for name in ["closed_form", "trained"] if chosen.train else ["closed_form"]:
        for by in ("week", "month"):
            leads[f"daily over daily by {by}, {name}"] = interval(
                values[f"daily_{name}"] - values[f"daily_{name}_by_{by}"], person
            )
            leads[f"daily by {by} over monthly, {name}"] = interval(
                values[f"daily_{name}_by_{by}"] - values[f"monthly_{name}"], person
            )
    if chosen.train:
        leads["lens over daily, trained"] = interval(values["lens_trained"] - values["daily_trained"], person)
        leads["measured over daily, trained"] = interval(values["measured"] - values["daily_trained"], person)
        leads["measured over lens, trained"] = interval(values["measured"] - values["lens_trained"], person)
    means = {name: float(one.mean()) for name, one in values.items()}
    span = means["frequency"] - means["popularity"]
    print(
        json.dumps(
            {
                "households_tested": len(tested.people),
                "households_trained_on": len(trained.people),
                "shops": len(values["popularity"]),
                "ndcg_at_10": {name: round(mean, 4) for name, mean in means.items()},
                "share_of_frequency": {
                    name: round((mean - means["popularity"]) / span, 3) for name, mean in means.items()
                },
                "leads": leads,
                "code": code_digest().hex()[:16],
            }
        )
    )


if __name__ == "__main__":
    main()
