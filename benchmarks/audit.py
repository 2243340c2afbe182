"""Does the certificate refute every broken trainer and no right one?

`claimed` is the epsilon that the accountant gives for the audited run, `lower_bound` what the run refutes from
below at 95 % confidence, `refuted` whether any part of the certificate fails: the canaries, or the deterministic
checks of noise, its repetition and the largest contribution. `wrong_unit` loads each person by month, through the
loader of the training data, so that somebody of four months is four people.

The right trainer is then audited again and again: `false_alarm_rate_at_most` is the 95 % upper bound that so many
right runs allow. It is a bound on what was seen, not the probability itself, which theory keeps below 5 %.

`served` attacks what the twin answers: somebody who knows all of a person but one day sees every score that could be
served, of two people who differ in that day, and tells them apart by the best linear rule. `advantage` is true less
false alarms, `low` what it is at least at 97.5 %, `bound` what no attack can pass under the charged noise. With a third
of the noise the same attack must pass it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from typing import Any

import torch
from scipy.stats import beta

from tests.served_attack import attack
from tests.trainer_kit import AUDITS, judge
from vault.proof.certificate import CertificateInvalid
from vault.twin.audit import CANARIES, AuditResult


def refuted(found: AuditResult) -> str:
    """Return the certificate's reason, or nothing."""
    try:
        judge(found)
    except CertificateInvalid as error:
        return str(error)
    return ""


def measure(*, quick: bool) -> dict[str, Any]:
    """Run every audit and return the figures."""
    torch.set_num_threads(1)
    started_s = time.perf_counter()
    trainers: dict[str, dict[str, Any]] = {}
    for name, run in AUDITS.items():
        found = run()
        reason = refuted(found)
        trainers[name] = {
            "claimed": round(found.claimed, 4),
            "lower_bound": round(found.lower_bound, 4),
            "refuted": bool(reason),
            "refuted_by_canaries_alone": found.lower_bound > found.claimed,
            "reason": reason,
        }
        print(f"{name}: {reason or 'not refuted'}", file=sys.stderr, flush=True)
    seconds = time.perf_counter() - started_s
    right = [AUDITS["correct"]() for _ in range(10 if quick else 300)]
    alarms = sum(bool(refuted(found)) for found in right)
    answers = 1_000 if quick else 20_000
    served = {"noise_as_charged": attack(answers), "noise_third": attack(answers, noise_over_charged=1 / 3)}
    return {
        "trainers": trainers,
        "seconds": round(seconds, 1),
        "canaries": CANARIES,
        "served": {
            name: {
                "advantage": round(found.advantage, 4),
                "low": round(found.low, 4),
                "bound": round(found.bound, 4),
                "passes_the_bound": found.low > found.bound,
            }
            for name, found in served.items()
        },
        "right_runs": len(right),
        "false_alarms": alarms,
        "false_alarm_rate_at_most": round(float(beta.ppf(0.95, alarms + 1, len(right) - alarms)), 4),
        "lower_bound_of_right_runs_median": round(statistics.median(found.lower_bound for found in right), 4),
        "lower_bound_of_right_runs_highest": round(max(found.lower_bound for found in right), 4),
    }


def main() -> None:
    """Print the figures as a table, or with --json as one object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    figures = measure(quick=options.quick)
    if options.json:
        sys.stdout.write(json.dumps(figures) + "\n")
        return
    for name, found in figures.pop("trainers").items():
        print(f"{name:12} claimed {found['claimed']}, lower bound {found['lower_bound']}: {found['reason'] or 'holds'}")
    for key, value in figures.items():
        print(f"{key:36} {value}")


if __name__ == "__main__":
    main()
