"""What a share of a day's cap costs daily rows, what a fresh chain costs, and what a small clip rounds away (ADR 0033).

Everything is computed from public constants; nothing is drawn and nobody's data is read:
`python -m benchmarks._daily_shares`.
"""

from __future__ import annotations

import sys
import time
from calendar import monthrange
from collections.abc import Callable
from datetime import date
from math import sqrt

from vault.budget.days import sigma_of
from vault.imprint.features import Cadence, FeatureMap, feature_map, mapped_for
from vault.imprint.noise import DiscreteGaussian, _thresholds
from vault.schema.category import Category
from vault.twin.levels import noise_of_level
from vault.twin.rows import Place

ASKED = date(2027, 1, 1)
JULY = 7
CODES = (1, 5, 10, 20, 40)
MONTHLY = feature_map(Category("pd:BrowsingBehaviour"))
DAILY = feature_map(Category("pd:BrowsingBehaviour"), Cadence.DAILY)
SHARES = range(1, len(mapped_for(Cadence.DAILY)) + 1)


def noise_of_a_year(chain_of: Callable[[int], int], share_of: Callable[[int], int]) -> float:
    """Return the noise in the level after a year of daily rows, in parts of what a lone code adds to a day.

    Args:
        chain_of: The month in which a month's chain began.
        share_of: For how many categories a month was made.
    """
    made = {
        Place(date(2026, month, 1), monthrange(2026, month)[1], date(2026, chain_of(month), 1)): sigma_of(
            DAILY, share_of(month), late=False
        )
        for month in range(1, 13)
    }
    noise = noise_of_level(DAILY, made, ASKED)
    assert noise is not None
    return noise / DAILY.content


def table_of(sigma: int) -> tuple[float, float]:
    """Return how many MiB the sampler's table holds, and in how many seconds it was made."""
    _thresholds.cache_clear()
    began = time.perf_counter()
    DiscreteGaussian(sigma).sample(1)
    seconds = time.perf_counter() - began
    thresholds, high = _thresholds(sigma)
    held = sys.getsizeof(thresholds) + sum(map(sys.getsizeof, thresholds)) + high.nbytes
    return held / 2**20, seconds


def loss(mapped: FeatureMap, codes: int) -> float:
    """Return which part of each code's value is lost where a day has so many."""
    return 1 - int(mapped.day_vector(mapped.codes[:codes])[0]) / sqrt((mapped.clip**2 - mapped.active_day**2) / codes)


def main() -> None:
    """Print three tables."""
    print("| categories | sigma | late sigma | MiB | s | sd of a year's level |")
    print("| --- | --- | --- | --- | --- | --- |")
    for count in SHARES:
        sigma, late = sigma_of(DAILY, count, late=False), sigma_of(DAILY, count, late=True)
        mib, seconds = table_of(sigma)
        level = noise_of_a_year(lambda _: 1, dict.fromkeys(range(1, 13), count).__getitem__)
        print(f"| {count} | {sigma} | {late} | {mib:.0f} | {seconds:.1f} | {level:.4f} |")
    print("\n| one category joins, one leaves | sd of a year's level |")
    print("| --- | --- |")
    for said, chain_of, share_of in (
        ("never: 1 all year", lambda _: 1, lambda _: 1),
        ("2 from July on", lambda month: 1 if month < JULY else JULY, lambda month: 1 if month < JULY else 2),
        ("1 from July on, 2 before", lambda month: 1 if month < JULY else JULY, lambda month: 2 if month < JULY else 1),
        ("never: 2 all year", lambda _: 1, lambda _: 2),
        ("every month anew, 1 and 2", lambda month: month, lambda month: 1 + month % 2),
    ):
        print(f"| {said} | {noise_of_a_year(chain_of, share_of):.4f} |")
    print("\n| codes of a day | lost of each, monthly (clip 256) | daily (clip 64) |")
    print("| --- | --- | --- |")
    for codes in CODES:
        print(f"| {codes} | {loss(MONTHLY, codes):.1%} | {loss(DAILY, codes):.1%} |")
    worst = max(range(1, 41), key=lambda codes: loss(DAILY, codes))
    print(f"| worst up to 40: {worst} | {loss(MONTHLY, worst):.1%} | {loss(DAILY, worst):.1%} |")


if __name__ == "__main__":
    main()
