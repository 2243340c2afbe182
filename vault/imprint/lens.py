"""A lens: how days are seen through what a cohort's released habits say people differ in.

A day's codes are taken relative to what is usual and projected on the directions in which people differ most, the
larger differences weighing more, before noise is added: less of it then covers what is a person's own. A lens is made
of a released backbone, so it costs nobody anything more; rows that were made through it are of a map of their own,
which the lens's digest names. It is frozen: later backbones of the same map keep its axes, and read both kinds of rows.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

from vault.imprint.features import FeatureMap
from vault.imprint.projection import Projection

Floats = npt.NDArray[np.float32]

DIRECTIONS: Final = 80
"""How many directions days are projected on: public, as are the other numbers here; docs/twin-quality.md compares them."""
_POWER: Final = 0.15  # of a direction's variance, relative to the largest, in its weight
_SHORTENED: Final = 0.85  # length from which on a projected day is shortened, relative to its root mean square


@dataclass(frozen=True, eq=False)
class Lens:
    """How days are projected.

    Args:
        centre: float32[K - 1] what an average day with a trace looks like, as part of a unit vector.
        axes: float32[R, K - 1] orthonormal directions.
        weights: float32[R] in (0, 1], of each direction.
        length: From which length on a projected day is shortened.
    """

    centre: Floats
    axes: Floats
    weights: Floats
    length: float

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of all numbers, as little-endian float32."""
        numbers = [self.centre, self.axes.ravel(), self.weights, np.array([self.length], dtype=np.float32)]
        return hashlib.sha256(b"twinvault/lens/v1" + np.concatenate(numbers).astype("<f4").tobytes()).digest()

    @property
    def usual(self) -> Floats:
        """How probable each code was on a day with a trace, where the lens was made: [K - 1]."""
        usual: Floats = self.centre * self.centre.sum(dtype=np.float32)
        return usual

    def projection(self, clip: int) -> Projection:
        """Return how a day becomes whole numbers of norm at most `clip`."""
        directions = (self.weights[:, None] * self.axes).astype(np.float64)
        return Projection(self.centre.astype(np.float64), directions, self.length, clip)


def make_lens(popularity: Floats, axes: Floats, variance: Floats) -> Lens:
    """Return the lens of released habits.

    Args:
        popularity: float32[K - 1] how probable each code is on a day with a trace.
        axes: float32[R, K - 1] orthonormal directions of habits, the largest variance first.
        variance: float32[R] along each, positive, in squared probabilities.
    """
    axes, variance = axes[:DIRECTIONS], np.maximum(variance[:DIRECTIONS].astype(np.float64), 1e-12)
    codes = float(
        popularity.sum(dtype=np.float64)
    )  # of a day: each is 1 / square root of their number of its unit vector
    weights = (variance / variance[0]) ** _POWER
    centre = popularity.astype(np.float64) / math.sqrt(codes)
    accident = np.square(axes.astype(np.float64)) @ popularity / codes - np.square(axes @ centre)
    square = float(weights**2 @ (accident.clip(min=0.0) + variance / codes))
    return Lens(
        centre.astype(np.float32), axes, weights.astype(np.float32), float(np.float32(_SHORTENED * math.sqrt(square)))
    )


def through(feature_map: FeatureMap, lens: Lens) -> FeatureMap:
    """Return the map of days that are seen through a lens: other coordinates, the same codes, clip and cadence."""
    digest = hashlib.sha256(feature_map.digest + lens.digest).digest()
    return replace(
        feature_map,
        version=f"{feature_map.version}-projected",
        digest=digest,
        projection=lens.projection(feature_map.clip),
    )


def unit_of(lens: Lens, clip: int) -> Floats:
    """Return what one part of a day along each axis becomes in rows, in quantised units, as days are shortened on average."""
    return (lens.weights * np.float32(lens.projection(clip).scale * _SHORTENED)).astype(np.float32)
