"""What a release about the cohort costs each person whose data it may have read, recomputed by whoever is told."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from vault.encoding import JsonObject
from vault.schema.reader import Reader

ORDERS: Final = tuple(range(2, 257))

_MECHANISM: Final = "poisson-subsampled gaussian"


class People(StrEnum):
    """Whose data a release read; a person is in exactly one set, by a coin of their own."""

    TRAINED = "trained"
    HELD_OUT = "held-out"


@dataclass(frozen=True, slots=True)
class Charge:
    """One differentially private release: (Poisson-subsampled) Gaussian noise, composed over steps.

    Args:
        release: What was released, such as "popularity".
        people: Whose data it read.
        noise_multiplier_ppm: Noise standard deviation over the L2 norm of one person's contribution.
        sample_rate_ppm: Probability that a step reads a person; 1,000,000 is everyone.
        steps: How many times noise was drawn, empty batches included.
    """

    release: str
    people: People
    noise_multiplier_ppm: int
    sample_rate_ppm: int
    steps: int


def rdp_curve(charge: Charge, orders: Iterable[int] = ORDERS) -> tuple[float, ...]:
    """Return the Renyi divergence bound of a charge at integer orders.

    Source: Mironov, Talwar, Zhang, "Renyi Differential Privacy of the Sampled Gaussian Mechanism"
    (2019), section 3.3. The discrete Gaussian obeys the same bound at sample rate 1 (Canonne, Kamath,
    Steinke 2020, theorem 4).
    """
    sigma, q = charge.noise_multiplier_ppm / 1e6, charge.sample_rate_ppm / 1e6
    if q == 1.0:
        return tuple(charge.steps * order / (2 * sigma**2) for order in orders)
    return tuple(charge.steps * _sampled_gaussian(sigma, q, order) for order in orders)


def epsilon_of(charges: Iterable[Charge], delta: float) -> float:
    """Return person-level epsilon of all releases: within a set of people they compose, across sets the worst counts.

    Source: Balle et al., "Hypothesis Testing Interpretations and Renyi DP" (2020), theorem 21.
    """
    sums = {people: [0.0] * len(ORDERS) for people in People}
    for charge in charges:
        sums[charge.people] = [a + b for a, b in zip(sums[charge.people], rdp_curve(charge), strict=True)]
    return max(_epsilon(curve, delta) for curve in sums.values())


def _epsilon(curve: list[float], delta: float) -> float:
    if not any(curve):
        return 0.0
    return max(
        0.0,
        min(
            rdp + math.log1p(-1 / order) - (math.log(delta) + math.log(order)) / (order - 1)
            for order, rdp in zip(ORDERS, curve, strict=True)
        ),
    )


def _sampled_gaussian(sigma: float, q: float, order: int) -> float:
    terms = [
        math.log(math.comb(order, k)) + k * math.log(q) + (order - k) * math.log1p(-q) + (k * k - k) / (2 * sigma**2)
        for k in range(order + 1)
    ]
    top = max(terms)
    return (top + math.log(math.fsum(math.exp(term - top) for term in terms))) / (order - 1)


def dump_charge(charge: Charge) -> JsonObject:
    """Return a charge as manifests and the ledger spell it."""
    return {
        "release": charge.release,
        "people": charge.people.value,
        "mechanism": _MECHANISM,
        "noise_multiplier_ppm": charge.noise_multiplier_ppm,
        "sample_rate_ppm": charge.sample_rate_ppm,
        "steps": charge.steps,
    }


def parse_charge(r: Reader) -> Charge:
    """Take a charge out of a record, in whose error family it is refused."""
    r.exactly("mechanism", _MECHANISM)
    charge = Charge(
        release=r.word("release", _release),
        people=r.word("people", People),
        noise_multiplier_ppm=r.integer("noise_multiplier_ppm", 10_000, 10**9),
        sample_rate_ppm=r.integer("sample_rate_ppm", 1, 1_000_000),
        steps=r.integer("steps", 1, 1_000_000),
    )
    r.end()
    return charge


def _release(text: str) -> str:
    if text not in {"popularity", "habits", "training", "calibration", "certificate"}:
        raise ValueError(text)
    return text
