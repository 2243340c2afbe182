"""Daily imprint rows: what a vault-day costs once its traces are open, many vaults at once and one by one.

A vault-day is one calendar day of one vault under the published map of purchases: its traces become a vector,
noise is drawn and correlated with the days before, and the two are added to a whole row, whether or not there was
a trace. `vault_days_per_s` makes whole years, `at_once` vaults to a tensor; `one_by_one_vault_days_per_s` makes
them a vault and a day at a time. `next_day_vault_days_per_s` makes one more day in the middle of the year for
many vaults, whose earlier errors are at hand. `sealed_vault_days_per_s` adds to the batched figure the payload, its
encryption and the signature of every row. Decryption of batches is in none of them. Medians of interleaved rounds,
CPU time of one process with one thread.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np

from vault.budget.accounting import sigma_for
from vault.imprint.chain import errors, prefix
from vault.imprint.daily import Chain, on_time_sensitivity
from vault.imprint.features import feature_map
from vault.imprint.noise import DiscreteGaussian, Integers
from vault.imprint.rows import Row, dump_row
from vault.proof.accounting import OWNER_DAY_CAP
from vault.schema.category import Category
from vault.schema.trace import Action, Period, Trace
from vault.seal.ids import new_id
from vault.seal.row import RowHeader, seal_row
from vault.seal.signing import SigningKey, new_seed

START = date(2026, 1, 1)
DAYS = 365
CLIP = 48
SIGMA = sigma_for(OWNER_DAY_CAP.epsilon, OWNER_DAY_CAP.delta, on_time_sensitivity(prefix(DAYS).sensitivity(CLIP)))
RETAIL = feature_map(Category("pd:Purchase"))
ZONE = ZoneInfo("Europe/Berlin")


def traces_of(rng: np.random.Generator) -> list[Trace]:
    """Return a household's year: a shop a week, eight categories each."""
    found = []
    for day in rng.choice(DAYS, size=DAYS // 7, replace=False):
        at = datetime(2026, 1, 1, 12, tzinfo=UTC) + timedelta(days=int(day))
        for code in rng.choice(len(RETAIL.codes) - 2, size=8, replace=False):
            found.append(Trace(str(len(found)), "till", at, RETAIL.category, Action.BUY, RETAIL.codes[code]))
    return found


def chain(vault_id: bytes) -> Chain:
    """Return one vault's chain of the year."""
    return Chain(RETAIL, vault_id, START, prefix(DAYS), SIGMA, late=False, number=0)


def batched(years: list[list[Trace]]) -> Integers:
    """Return int64[days, vaults, K], the rows of many vaults."""
    noise = DiscreteGaussian(SIGMA).sample((DAYS, len(years) * RETAIL.size))
    rows = errors(prefix(DAYS), noise).reshape(DAYS, len(years), RETAIL.size)
    for at, traces in enumerate(years):
        rows[:, at] += chain(b"v" * 16).day_vectors(ZONE, traces)
    return rows


def one_by_one(years: list[list[Trace]], days: int) -> list[Integers]:
    """Return the rows of the last `days` days of each vault, made a day at a time."""
    noise, found = DiscreteGaussian(SIGMA), []
    for traces in years:
        vectors = chain(b"v" * 16).day_vectors(ZONE, traces)
        known = errors(prefix(DAYS), noise.sample((DAYS - days, RETAIL.size)))
        for day in range(DAYS - days, DAYS):
            fresh = errors(prefix(DAYS), noise.sample((1, RETAIL.size)), known)
            known = np.concatenate([known, fresh])
            found.append(fresh[0] + vectors[day])
    return found


def seal(rows: Integers) -> list[bytes]:
    """Return the sealed rows of one vault."""
    vault, compartment, key, signer = new_id(), new_id(), new_seed(), SigningKey(new_seed())
    sealed = []
    for day, values in enumerate(rows):
        name = chain(vault).row_id(day, [])
        payload = dump_row(Row(name, RETAIL.digest, Period("2026-01"), day, RETAIL.clip, SIGMA, values))
        sealed.append(seal_row(payload, RowHeader(vault, compartment, name, RETAIL.version, day), key, signer))
    return sealed


def _seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def measure(*, quick: bool) -> dict[str, Any]:
    """Return the figures."""
    rng = np.random.default_rng(0)
    at_once, rounds, alone = (40, 3, 1) if quick else (200, 7, 4)
    years = [traces_of(rng) for _ in range(at_once)]
    DiscreteGaussian(SIGMA).sample(1)  # its table is made once a process
    middle = DAYS // 2
    known = errors(prefix(DAYS), DiscreteGaussian(SIGMA).sample((middle, 40 * RETAIL.size)))
    spent: dict[str, list[float]] = {"batched": [], "alone": [], "next": [], "seal": []}
    for turn in range(rounds):
        spent["batched"].append(_seconds(lambda: batched(years)) / (at_once * DAYS))
        spent["alone"].append(_seconds(lambda: one_by_one(years[:alone], DAYS)) / (alone * DAYS))
        fresh = DiscreteGaussian(SIGMA)
        spent["next"].append(
            _seconds(lambda fresh=fresh: errors(prefix(DAYS), fresh.sample((1, 40 * RETAIL.size)), known)) / 40
        )
        rows = batched(years[:1])[:, 0]
        spent["seal"].append(_seconds(lambda rows=rows: seal(rows)) / DAYS)
        print(f"round {turn + 1} of {rounds}", file=sys.stderr, flush=True)
    cost = {name: statistics.median(values) for name, values in spent.items()}
    return {
        "vault_days_per_s": round(1 / cost["batched"]),
        "one_by_one_vault_days_per_s": round(1 / cost["alone"]),
        "ratio": round(statistics.median(a / b for a, b in zip(spent["alone"], spent["batched"], strict=True)), 1),
        "core_hours_per_million_vault_days": round(cost["batched"] * 1e6 / 3600, 3),
        "next_day_vault_days_per_s": round(1 / cost["next"]),
        "sealed_vault_days_per_s": round(1 / (cost["batched"] + cost["seal"])),
        "coordinates": RETAIL.size,
        "at_once": at_once,
        "rounds": rounds,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer vaults and rounds, at most 45 seconds")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    figures = measure(quick=chosen.quick)
    text = "\n".join(f"{key:40} {value}" for key, value in figures.items())
    print(json.dumps(figures, indent=2) if chosen.json else text)


if __name__ == "__main__":
    main()
