"""What a consent that covers some months of a year reads of a daily chain, by how chains begin.

Each figure is the standard deviation of the best estimate of a sum over the window's days, in units of one single
release of that sum at the same owner-day epsilon: exact, from the published matrices alone.
"""

from __future__ import annotations

import json
import math
from calendar import monthrange

import numpy as np

from vault.imprint.chain import Strategy, power, prefix
from vault.imprint.level import Span, weights

DAYS = [monthrange(2026, month)[1] for month in range(1, 13)]
STARTS = np.concatenate([[0], np.cumsum(DAYS)])
WINDOWS = {
    "January": (0, 1), "March": (2, 3), "June": (5, 6), "November": (10, 11), "January to March": (0, 3),
    "April to June": (3, 6), "October to December": (9, 12), "January to June": (0, 6), "July to December": (6, 12),
    "the year": (0, 12),
}  # fmt: skip


def deviation(spans: tuple[Span, ...], lengths: list[float], days: int) -> float:
    """Return the deviation of the sum over `days` days, in units of one release of it."""
    # Spans of different strategies: noise 1 for the longest column of each.
    scaled = tuple(
        Span(span.strategy, span.start, round(1_000_000 / length), span.present)
        for span, length in zip(spans, lengths, strict=True)
    )
    found = weights(scaled, int(STARTS[-1]) + 1, 0.0)
    return math.sqrt(found.noise_variance) * days / 1_000_000


def of(strategy: Strategy, start: int, first: int, last: int) -> tuple[Span, float]:
    """Return the span of a chain's rows from one day to before another, and what its noise is divided by."""
    rows = tuple(range(first - start, last - start))
    return Span(strategy, start, 1, rows), 1 / math.sqrt(strategy.column_square)


def main() -> None:
    """Print one JSON object."""
    found = {}
    for name, (one, two) in WINDOWS.items():
        first, last = int(STARTS[one]), int(STARTS[two])
        year = {
            label: [of(make, 0, first, last)]
            for label, make in (("prefix", prefix(365)), ("power(50)", power(50, 365)))
        }
        months = [(int(STARTS[at]), int(STARTS[at + 1])) for at in range(one, two)]
        restarted = {"a chain a month": [of(prefix(end - start), start, start, end) for start, end in months]}
        figures = {
            label: deviation(tuple(span for span, _ in spans), [length for _, length in spans], last - first)
            for label, spans in (year | restarted).items()
        }
        figures["independent months"] = math.sqrt(two - one)
        found[name] = {label: round(figure, 2) for label, figure in figures.items()}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
