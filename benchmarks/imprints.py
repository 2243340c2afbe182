"""Daily imprint rows: what a vault-day costs once its traces are open, many vaults at once and one by one.

A vault-day is one calendar day of one vault under the published daily map of purchases, made as the worker makes it
(`vault.twin.pieces`): its traces become a vector, noise is drawn and correlated with the days before, and the two are
added, whether or not there was a trace. `vault_days_per_s` makes whole years, a block a month and `at_once` vaults to a
draw; `one_by_one_vault_days_per_s` makes them a vault and a day at a time. `next_day_vault_days_per_s` makes one more
day in the middle of the year for many vaults, whose earlier errors are at hand. `sealed_vault_days_per_s` adds to the
batched figure the blocks' payloads, their encryption and signature, and the sealed errors that a chain goes on with.
`by_draw` says what one vault costs by how many share a draw: its year of monthly rows, and its January of daily ones, of
vectors that are at hand. Decryption of batches, and the database, are in none of them. Medians of interleaved rounds, CPU time of one process with
one thread.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from calendar import monthrange
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np

from vault.budget.charge import owner_day
from vault.budget.days import Days, sigma_of
from vault.budget.ledger import Reservation, State
from vault.imprint.block import DAILY, block_id, sensitivity, strategy_from
from vault.imprint.chain import errors
from vault.imprint.features import Cadence, feature_map
from vault.imprint.noise import DiscreteGaussian, Integers
from vault.imprint.rows import MONTHLY, objects_by_day
from vault.schema.category import Category
from vault.schema.trace import Action, Period, Trace, period_of
from vault.seal.derive import imprint_key
from vault.seal.ids import VaultId, new_id
from vault.seal.row import RowHeader, seal_row
from vault.seal.signing import SigningKey, new_seed
from vault.twin.chains import seal_carried
from vault.twin.months import Month
from vault.twin.opening import Ask, Made, Wanted
from vault.twin.pieces import Drawn, Piece, Run, draw, nothing
from vault.twin.refresh import noise_of

Year = defaultdict[Period, list[Trace]]
START = date(2026, 1, 1)
DAYS = 365
RETAIL = feature_map(Category("pd:Purchase"), Cadence.DAILY)
MONTHLY_RETAIL = feature_map(Category("pd:Purchase"))
SIGMA = sigma_of(RETAIL, late=False)
ZONE = ZoneInfo("Europe/Berlin")
MONTHS = [Days(date(2026, month, 1), date(2026, month, monthrange(2026, month)[1])) for month in range(1, 13)]
NOTHING_BEFORE = np.zeros((0, RETAIL.size), dtype=np.int64)
NEXT_AT_ONCE = 40
SIZES = (1, 10, 50, 200, 1000)  # vaults to a draw


def traces_of(rng: np.random.Generator) -> Year:
    """Return a household's year: a shop a week, eight categories each."""
    found: Year = defaultdict(list)
    for day in rng.choice(DAYS, size=DAYS // 7, replace=False):
        at = datetime(2026, 1, 1, 12, tzinfo=UTC) + timedelta(days=int(day))
        for code in rng.choice(len(RETAIL.codes) - 2, size=8, replace=False):
            trace = Trace(f"{day}-{code}", "till", at, RETAIL.category, Action.BUY, RETAIL.codes[code])
            found[period_of(at.date())].append(trace)
    return found


def run_of(blocks: Sequence[Days], known: Integers = NOTHING_BEFORE) -> Run:
    """Return what one vault's refresh makes of consecutive days."""
    run, vault = Run(RETAIL, START, SIGMA, known), new_id()
    for days in blocks:
        period = period_of(days.first)
        ask = Ask(Wanted.VECTORS, RETAIL, period, (Made(days.first, len(days), {}),))
        name = block_id(RETAIL, vault, START, (days.first, days.last), sigma=SIGMA, batch_hashes=())
        charge = Reservation(owner_day(vault, period), name, State.RESERVED, {})
        month = Month(RETAIL.category, period, (), (), {})
        run.pieces.append(Piece(month, RETAIL, DAILY, sensitivity(RETAIL.clip), SIGMA, charge, ask, days, run))
    return run


def exact(run: Run, traces: Year) -> dict[Piece, Integers]:
    """Return every day's vector, as the process that opens batches makes it of a month's traces."""
    found = {}
    for piece in run.pieces:
        (made,) = piece.ask.made
        objects = objects_by_day(RETAIL, piece.ask.period, ZONE, traces[piece.ask.period])
        vectors = [RETAIL.day_vector(objects.get(made.first + timedelta(days=at), ())) for at in range(made.days)]
        found[piece] = np.stack(vectors)
    return found


def batched(years: Sequence[Year]) -> dict[Piece, Drawn]:
    """Return the rows of many vaults' years."""
    asked: dict[Piece, Integers] = {}
    for traces in years:
        asked |= exact(run_of(MONTHS), traces)
    return draw(asked)


def one_by_one(years: Sequence[Year]) -> None:
    """Make each vault's year a day at a time."""
    for traces in years:
        known = NOTHING_BEFORE
        for at in range(DAYS):
            day = START + timedelta(days=at)
            ((_, drawn),) = draw(exact(run_of([Days(day, day)], known), traces)).items()
            assert drawn.errors is not None
            known = np.concatenate([known, drawn.errors])


def next_day(known: Integers) -> None:
    """Make one more day of many vaults that left no trace on it."""
    day = START + timedelta(days=len(known))
    runs = [run_of([Days(day, day)], known) for _ in range(NEXT_AT_ONCE)]
    draw({piece: np.zeros(piece.ask.shape, dtype=np.int64) for run in runs for piece in run.pieces})


def months_of() -> list[Piece]:
    """Return what one vault's refresh makes of a year where rows are monthly."""
    vault, sigma, found = new_id(), noise_of(MONTHLY_RETAIL).sigma, []
    for days in MONTHS:
        period = period_of(days.first)
        charge = Reservation(owner_day(vault, period), new_id(), State.RESERVED, {})
        month = Month(RETAIL.category, period, (), (), {})
        ask = Ask(Wanted.SUM, MONTHLY_RETAIL, period)
        found.append(Piece(month, MONTHLY_RETAIL, MONTHLY, MONTHLY_RETAIL.clip, sigma, charge, ask))
    return found


def draw_by(size: int, vaults: Sequence[Sequence[Piece]]) -> float:
    """Return the CPU seconds that one of `vaults` costs, `size` of them to a draw; their exact numbers are zero."""
    spent = 0.0
    for start in range(0, len(vaults), size):
        asked = nothing(piece for pieces in vaults[start : start + size] for piece in pieces)
        spent += _seconds(lambda asked=asked: draw(asked))
    return spent / len(vaults)


def by_draw(rounds: int, most: int) -> dict[str, dict[str, int]]:
    """Return microseconds a vault for each size of a draw."""
    yearly = [months_of() for _ in range(most)]
    january = [run_of(MONTHS[:1]).pieces for _ in range(most)]
    spent: defaultdict[tuple[int, str], list[float]] = defaultdict(list)
    for _ in range(rounds):
        for size in SIZES:
            for name, vaults in (("monthly_us", yearly), ("january_us", january)):
                spent[size, name].append(draw_by(size, vaults[: max(size, most // 5)]))
    return {
        str(size): {name: round(1e6 * statistics.median(spent[size, name])) for name in ("monthly_us", "january_us")}
        for size in SIZES
    }


def seal(rows: Mapping[Piece, Drawn]) -> None:
    """Seal one vault's blocks, and what its chain goes on with."""
    vault, compartment, seed, signer = VaultId(new_id()), new_id(), new_seed(), SigningKey(new_seed())
    for piece, drawn in rows.items():
        name = piece.reservation.release_id
        header = RowHeader(vault, compartment, name, RETAIL.version, 0)
        seal_row(piece.payload(drawn), header, imprint_key(seed), signer)
        seal_carried(piece.carried(drawn), vault, name, seed)


def _seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def measure(*, quick: bool) -> dict[str, Any]:
    """Return the figures."""
    rng = np.random.default_rng(0)
    at_once, rounds, alone = (40, 3, 1) if quick else (200, 7, 4)
    years = [traces_of(rng) for _ in range(at_once)]
    known = errors(strategy_from(START), DiscreteGaussian(SIGMA).sample((DAYS // 2, RETAIL.size)))  # its table, too
    spent: dict[str, list[float]] = {"batched": [], "alone": [], "next": [], "seal": []}
    for turn in range(rounds):
        spent["batched"].append(_seconds(lambda: batched(years)) / (at_once * DAYS))
        spent["alone"].append(_seconds(lambda: one_by_one(years[:alone])) / (alone * DAYS))
        spent["next"].append(_seconds(lambda: next_day(known)) / NEXT_AT_ONCE)
        rows = batched(years[:1])
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
        "by_draw": by_draw(rounds, SIZES[-1]),
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
