"""What measured series lose as ranges of a day rather than as sums and squares, and what a month's row foretells.

`python -m benchmarks._measured` reads the public Fitbit days of 26 people and answers two questions. First: a
year of days is drawn from each person's own, and both encodings, under the same clip and the noise of the same
owner-day epsilon, are asked for the mean and the spread of a day. Second: the row of each person's April is read by the
service's closed-form reader, and asked in which range a day of May lies.
"""

from __future__ import annotations

import csv
import gzip
import json
import sys
from collections import defaultdict
from datetime import datetime
from itertools import pairwise
from math import isqrt
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from benchmarks._shared import data_folder
from vault.imprint.features import feature_map
from vault.imprint.measured import Metric
from vault.imprint.rows import Row, noisy
from vault.proof.accounting import OWNER_DAY_CAP
from vault.schema.category import Category
from vault.schema.trace import Period
from vault.twin.infer import read
from vault.twin.reader import closed_form
from vault.twin.refresh import noise_of

Floats = npt.NDArray[np.float64]

MAP: Final = feature_map(Category("pd:Health"))
APRIL, MAY = Period("2016-04"), Period("2016-05")
_COLUMNS: Final = {
    "metric:steps": ("TotalSteps", 1_000),
    "metric:distance": ("TotalDistance", 1_000),
    "metric:energy": ("Calories", 1_000),
}
_DRAWS: Final = 20
_DAYS: Final = 360
_MONTHS: Final = 12
# Of a sum's clip: half for the day itself, seven tenths for its value, half for its square.
_DAY, _VALUE, _SQUARE = 0.5, 0.7, 0.5


def people() -> dict[str, dict[datetime, dict[str, int]]]:
    """Return each person's days: thousandths by metric; a day on which nothing was worn is none."""
    found: defaultdict[str, defaultdict[datetime, dict[str, int]]] = defaultdict(lambda: defaultdict(dict))
    folder = data_folder("fitbit_tracker")
    with gzip.open(folder / "dailyActivity_merged.csv.gz", "rt") as file:
        for row in csv.DictReader(file):
            if float(row["TotalSteps"]) > 0:
                day = found[row["Id"]][datetime.strptime(row["ActivityDate"], "%m/%d/%Y")]  # noqa: DTZ007  a local date
                day |= {code: int(float(row[name]) * scale) for code, (name, scale) in _COLUMNS.items()}
                day["metric:exercise"] = 1_000 * (int(row["VeryActiveMinutes"]) + int(row["FairlyActiveMinutes"]))
    with gzip.open(folder / "sleepDay_merged.csv.gz", "rt") as file:
        for row in csv.DictReader(file):
            at = datetime.strptime(row["SleepDay"].split()[0], "%m/%d/%Y")  # noqa: DTZ007  as above
            found[row["Id"]][at]["metric:sleep"] = int(row["TotalMinutesAsleep"]) * 1_000 // 60
    return {name: dict(days) for name, days in found.items()}


def middles(metric: Metric) -> Floats:
    """Return the number that stands for each range: its middle, at the ends half a neighbour's width beyond the bound."""
    bounds = np.array(metric.ranges_milli, dtype=np.float64)
    inner = [(low + high) / 2 for low, high in pairwise(bounds)]
    return np.array([(3 * bounds[0] - bounds[1]) / 2, *inner, (3 * bounds[-1] - bounds[-2]) / 2])


def by_ranges(days: list[dict[str, int]], rng: np.random.Generator, sigma: float) -> dict[str, tuple[float, float]]:
    """Return the mean and standard deviation of every metric, from a year of noisy rows of ranges."""
    total = sum((MAP.day_vector(_ranges(day)) for day in days), np.zeros(MAP.size, np.int64)).astype(np.float64)
    total += rng.normal(0, sigma * _MONTHS**0.5, MAP.size)
    found = {}
    for metric in MAP.metrics:
        places = [MAP.codes.index(code) for code, _ in metric.coordinates]
        weight, middle = total[places], middles(metric)
        count = max(weight.sum(), MAP.content)
        mean = float(weight @ middle / count)
        found[metric.code] = mean, _root(float(weight @ middle**2 / count) - mean**2)
    return found


def by_sums(days: list[dict[str, int]], rng: np.random.Generator, sigma: float) -> dict[str, tuple[float, float]]:
    """Return the same from sums and squares of values between the same ends, under the same clip."""
    found = {}
    room = MAP.clip**2 - MAP.active_day**2
    for metric in MAP.metrics:
        ends = middles(metric)[[0, -1]]
        centre, half = ends.mean(), (ends[1] - ends[0]) / 2
        sums = np.zeros(3)
        for day in days:
            if metric.code in day:
                x = float(np.clip((day[metric.code] - centre) / half, -1, 1))
                sums += isqrt(room // len(day)) * np.array([_DAY, _VALUE * x, _SQUARE * x * x])
        sums = (sums + rng.normal(0, sigma * _MONTHS**0.5, 3)) / np.array([_DAY, _VALUE, _SQUARE])
        count = max(sums[0], MAP.content)
        mean, square = sums[1] / count, sums[2] / count
        found[metric.code] = float(centre + half * mean), half * _root(square - mean**2)
    return found


def year(everyone: dict[str, dict[datetime, dict[str, int]]], rng: np.random.Generator) -> dict[str, Any]:
    """Return the median distance of both from the truth over people and draws, in each metric's own unit."""
    sigma = float(noise_of(MAP).sigma)
    errors: defaultdict[tuple[str, str, str], list[float]] = defaultdict(list)
    for days in everyone.values():
        own = list(days.values())
        for _ in range(_DRAWS):
            drawn = [own[at] for at in rng.integers(0, len(own), _DAYS)]
            for name, made in (("ranges", by_ranges(drawn, rng, sigma)), ("sums", by_sums(drawn, rng, sigma))):
                for metric in MAP.metrics:
                    values = np.array([day[metric.code] for day in drawn if metric.code in day], dtype=np.float64)
                    if len(values) >= _DAYS // 2:
                        mean, spread = made[metric.code]
                        errors[metric.code, name, "mean"].append(abs(mean - values.mean()) / 1_000)
                        errors[metric.code, name, "spread"].append(abs(spread - values.std()) / 1_000)
    found: defaultdict[str, dict[str, Any]] = defaultdict(dict)
    for (code, name, what), values in errors.items():
        found[code].setdefault(what, {})[name] = round(float(np.median(values)), 3)
    return dict(found)


def next_days(everyone: dict[str, dict[datetime, dict[str, int]]]) -> dict[str, Any]:
    """Return the mean probability that each guess gave the range in which a day of May lay, over people."""
    guesses: defaultdict[str, list[float]] = defaultdict(list)
    noise, backbone = noise_of(MAP), closed_form(MAP)
    for days in everyone.values():
        april = [_ranges(day) for at, day in days.items() if at.month == 4]
        may = [_ranges(day) for at, day in days.items() if at.month == 5]
        if len(april) < 14 or len(may) < 5:
            continue
        total = sum((MAP.day_vector(codes) for codes in april), np.zeros(MAP.size, np.int64))
        for _ in range(_DRAWS):
            row = Row(bytes(32), MAP.digest, APRIL, 0, MAP.clip, noise.sigma, noisy([total], noise)[0])
            guesses["the twin"].append(_mass(dict(read(backbone, MAP, [row], MAY).score_ppm), may))
        guesses["no row"].append(_mass(dict(read(backbone, MAP, [], MAY).score_ppm), may))
        counted = {code: sum(code in codes for codes in april) + 0.5 for code in MAP.objects}
        guesses["April itself"].append(_mass(counted, may))
    return {"people": len(guesses["no row"]), **{name: round(float(np.mean(of)), 4) for name, of in guesses.items()}}


def _mass(score: dict[str, float], days: list[set[str]]) -> float:
    """Return the mean share of a metric's score that lay on the range in which a day turned out to lie."""
    found = []
    for code in (code for codes in days for code in codes):
        metric = next(one for one in MAP.metrics if code.startswith(f"{one.code}:"))
        mine = sum(score[name] for name, _ in metric.coordinates)
        found.append(score[code] / mine if mine else 1 / len(metric.coordinates))
    return float(np.mean(found))


def _ranges(day: dict[str, int]) -> set[str]:
    found = set()
    for metric in MAP.metrics:
        if metric.code in day:
            found.add(metric.range_of(day[metric.code]))
    return found


def _root(variance: float) -> float:
    return max(variance, 0.0) ** 0.5


def main() -> None:
    """Print one JSON object."""
    everyone = people()
    found = {
        "people": len(everyone),
        "epsilon": OWNER_DAY_CAP.epsilon,
        "delta": OWNER_DAY_CAP.delta,
        "draws": _DRAWS,
        "year": year(everyone, np.random.default_rng(1)),
        "next_days": next_days(everyone),
    }
    json.dump(found, sys.stdout, indent=2)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
