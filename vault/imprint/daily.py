"""Daily rows: which days, which numbers, which names. One chain for each owner, category and year.

Every calendar day of a chain has a row when it closes, whether or not it left a trace. What arrives later has a
share of mu^2 that is reserved before either exists: here a second chain of the same strategy, a row a day; what
the service makes of it is one row a month (`vault.imprint.block`, ADR 0017).
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from math import isqrt
from typing import Final
from zoneinfo import ZoneInfo

import numpy as np

from vault.encoding import JsonObject, b64u, dump_json
from vault.imprint.chain import Strategy
from vault.imprint.features import FeatureMap
from vault.imprint.noise import Integers
from vault.schema.trace import Trace, local_date

DAILY: Final = "daily/1"
LATE_PERCENT: Final = 5
"""What part of a day's mu^2 its late row may use."""
LATE_AFTER: Final = timedelta(days=30)
"""How long after a month closed its late row is made."""


def late_sigma(sigma: int) -> int:
    """Return the noise of late rows beside on-time rows of `sigma`, rounded up.

    With S the strategy's sensitivity, S^2 / sigma^2 + S^2 / late^2 <= S^2 / sigma^2 * 100 / (100 - `LATE_PERCENT`):
    a day that has everything on time, everything late or something in both is within both charges together.
    """
    square = -(-(sigma**2) * (100 - LATE_PERCENT) // LATE_PERCENT)
    return isqrt(square - 1) + 1


def on_time_sensitivity(sensitivity: int) -> int:
    """Return what to divide by mu for the noise of on-time rows, so that late rows fit under the same mu."""
    square = -(-(sensitivity**2) * 100 // (100 - LATE_PERCENT))
    return isqrt(square - 1) + 1


@dataclass(frozen=True, eq=False)
class Chain:
    """What is fixed before a chain's first row.

    Args:
        feature_map: Map of every day in it; another version applies to another chain's days.
        vault_id: 16 bytes.
        start: First local date.
        strategy: Its horizon is the number of days; it ends within `start`'s calendar year.
        sigma: Noise of its rows, in units of u.
        late: Whether its rows hold what arrived after the days closed.
        number: How many chains of this vault, category and year were begun before: after an erasure a fresh one is.
    """

    feature_map: FeatureMap
    vault_id: bytes
    start: date
    strategy: Strategy
    sigma: int
    late: bool
    number: int

    def __post_init__(self) -> None:
        if (self.start + timedelta(days=self.strategy.horizon - 1)).year != self.start.year:
            raise ValueError("a chain ends with its calendar year")

    def row_id(self, index: int, batch_hashes: Iterable[bytes]) -> bytes:
        """Return the name of one row: the same inputs give the same name, any other input another.

        As for monthly rows, noise is drawn once for a name that is stored; another name for the same index
        belongs to a fresh chain and is a new charge.

        Args:
            index: Days since `start`.
            batch_hashes: SHA-256 of every batch read for this day, in any order.

        Raises:
            ValueError: A batch hash is not 32 bytes long, or the index lies beyond the horizon.
        """
        hashes = sorted(set(batch_hashes))
        if any(len(digest) != 32 for digest in hashes):
            raise ValueError("a batch hash has 32 bytes; others could be cut differently and name the same release")
        if not 0 <= index < self.strategy.horizon:
            raise ValueError("a row lies inside its chain's horizon")
        record: JsonObject = {
            "mechanism": DAILY,
            "vault": b64u(self.vault_id),
            "category": str(self.feature_map.category),
            "map": b64u(self.feature_map.digest),
            "strategy": b64u(self.strategy.digest),
            "start": self.start.isoformat(),
            "number": self.number,
            "rows": "late" if self.late else "on-time",
            "index": index,
            "clip": self.feature_map.clip,
            "sigma": self.sigma,
            "inputs": b64u(hashlib.sha256(b"".join(hashes)).digest()),
        }
        return hashlib.sha256(dump_json(record)).digest()

    def day_vectors(self, time_zone: ZoneInfo, traces: Iterable[Trace]) -> Integers:
        """Return the exact, private vector of every day; it never leaves the caller's memory.

        Args:
            time_zone: The vault's fixed time zone.
            traces: The opened traces, in any order; those of other categories or days add nothing.

        Returns:
            int64[horizon, K], zero for a day without a trace; no row's L2 norm exceeds the map's clip.
        """
        objects: defaultdict[int, set[str]] = defaultdict(set)
        for trace in traces:
            if trace.category == self.feature_map.category:
                objects[(local_date(trace.occurred_at, time_zone) - self.start).days].add(trace.object)
        vectors = np.zeros((self.strategy.horizon, self.feature_map.size), dtype=np.int64)
        for index in objects.keys() & range(self.strategy.horizon):
            vectors[index] = self.feature_map.day_vector(objects[index])
        return vectors
