"""The head that answers `propensity`, as it is shipped: trained, measured, and made anew with `--ship`.

The public set online_shoppers, a session = a person, five folds: area under the ROC curve with the page value and
without it, by one head, and how far its mean is from what happened. Everything at person epsilon 3, delta 1e-6.
`--ship` trains on everybody and writes `vault/twin/data/funnel-1.*`, which every installation serves.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np
import torch

from benchmarks._grocery import retail_map
from benchmarks._private import only_file
from benchmarks._quality_shoppers import FOLDS, area
from benchmarks._shared import data_folder
from vault.imprint.funnel import facts, without_page_value
from vault.proof.certificate import dump_manifest, verify_certificate
from vault.schema.session import Session, Visitor
from vault.twin.funnel import dump_head
from vault.twin.train import accounted_epsilon
from vault.twin.visits import CALIBRATED_SHARE, CHARGES, TRAINED_SHARE, Visits, build_head, calibrate, train_head

_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "June", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_VISITORS: Final = {"Returning_Visitor": Visitor.RETURNING, "New_Visitor": Visitor.NEW, "Other": Visitor.OTHER}
_TARGET: Final = Path("vault/twin/data")


def session_of(row: dict[str, str]) -> Session:
    """Return a line of the set as a company asks about it."""
    return Session(
        administrative_pages=int(row["Administrative"]),
        administrative_s=round(float(row["Administrative_Duration"])),
        informational_pages=int(row["Informational"]),
        informational_s=round(float(row["Informational_Duration"])),
        product_pages=int(row["ProductRelated"]),
        product_s=round(float(row["ProductRelated_Duration"])),
        bounce_rate_ppm=round(float(row["BounceRates"]) * 1e6),
        exit_rate_ppm=round(float(row["ExitRates"]) * 1e6),
        special_day_ppm=round(float(row["SpecialDay"]) * 1e6),
        page_value_milli=round(float(row["PageValues"]) * 1e3),
        month=_MONTHS.index(row["Month"]) + 1,
        weekend=row["Weekend"] == "True",
        visitor=_VISITORS[row["VisitorType"]],
    )


def load() -> Visits:
    """Read the set."""
    with only_file(data_folder("online_shoppers"), "*.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    bought = np.array([row["Revenue"] == "True" for row in rows], dtype=np.float32)
    return Visits(np.stack([facts(session_of(row)) for row in rows]), bought)


def measure(visits: Visits, seeds: int) -> dict[str, float]:
    """Return means over folds and seeds."""
    order = np.random.default_rng(468).permutation(len(visits.bought)) % FOLDS
    found = []
    for fold in range(FOLDS):
        tested = visits.of(order == fold)
        for seed in range(seeds):
            torch.manual_seed(seed)
            rest = np.flatnonzero(order != fold)
            kept = np.random.default_rng(seed).random(len(rest)) < CALIBRATED_SHARE / (CALIBRATED_SHARE + TRAINED_SHARE)
            marks = np.zeros((2, len(order)), dtype=np.bool_)
            marks[kept.astype(int), rest] = True
            head = train_head(visits.of(marks[0]), float(marks[0].sum()))
            head = calibrate(head, visits.of(marks[1]))
            line = []
            for read in (tested.facts, without_page_value(tested.facts)):
                odds = head.log_odds(read)
                line.append(float(area(odds, tested.bought.astype(np.int64), np.ones((1, len(odds))))[0]))
                line.append(float((1.0 / (1.0 + np.exp(-odds)) - tested.bought).mean()))
            found.append(line)
            print(f"fold {fold} seed {seed}: {line[0]:.4f} {line[2]:.4f}", file=sys.stderr, flush=True)
    means = np.mean(found, axis=0)
    gaps = np.abs(found).mean(0)
    return {
        "auroc": round(float(means[0]), 4),
        "auroc_without_page_value": round(float(means[2]), 4),
        "calibration_gap": round(float(gaps[1]), 4),
        "calibration_gap_without_page_value": round(float(gaps[3]), 4),
    }


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--ship", action="store_true")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    visits = load()
    if chosen.ship:
        now = datetime.now(UTC)
        head, manifest = build_head(visits, retail_map(), now)
        verify_certificate(manifest, now)
        (_TARGET / "funnel-1.head").write_bytes(dump_head(head))
        (_TARGET / "funnel-1.manifest.json").write_bytes(dump_manifest(manifest))
        print(dump_manifest(manifest).decode())
        print(f"{manifest.digest.hex()} belongs into vault.proof.certificate.SHIPPED", file=sys.stderr)
        return
    figures = {"people": len(visits.bought), "person_epsilon": round(accounted_epsilon(CHARGES), 4), "delta": 1e-6}
    print(json.dumps(figures | {"seeds": chosen.seeds} | measure(visits, chosen.seeds)))


if __name__ == "__main__":
    main()
