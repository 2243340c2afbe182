"""Feature maps: how one local day of traces becomes one bounded vector of integers.

A map is public, versioned and hashed; nothing in it is learned from people.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib import resources
from math import isqrt
from typing import TYPE_CHECKING, Final, cast

from vault.encoding import dump_json, parse_json
from vault.errors import VaultError
from vault.schema.category import Category

if TYPE_CHECKING:
    from vault.imprint.noise import Integers

OTHER: Final = "other"
ACTIVE_DAY: Final = "active-day"

_FILES: Final = {Category("pd:Purchase"): "retail-1.json"}

MAPPED: Final = frozenset(_FILES)
"""Categories for which a map is published."""


class NoFeatureMap(VaultError):
    """A category that no published feature map summarises."""

    slug = "no-feature-map"
    title = "No feature map for this category"
    status = 422


@dataclass(frozen=True)
class FeatureMap:
    """One category's published coordinates and the bound on what a day may add to them.

    A day's vector holds which codes occurred, not how often: every code that occurred gets the same
    value, the largest for which the whole vector stays within the clip. A day of one purchase and a
    day of a hundred thus move an imprint by the same length, and the noise hides either.

    Args:
        category: Personal-data term whose traces it reads.
        version: Name that changes with any change of meaning.
        codes: The coordinates: published codes, then `other` for every unknown code, then
            `active-day` for a day with any trace.
        names: Each coordinate in words.
        clip: L2 norm, in quantised units, that no day's vector exceeds: the sensitivity.
        active_day: What an active day adds to its own coordinate, in quantised units.
        digest: SHA-256 of the published file's canonical JSON.

    Guarantees: for any traces whatever, the day vector has integer values and an L2 norm of at most
    `clip`; with none it is zero.
    """

    category: Category
    version: str
    codes: tuple[str, ...]
    names: tuple[str, ...]
    clip: int
    active_day: int
    digest: bytes

    @property
    def size(self) -> int:
        """Number of coordinates, K."""
        return len(self.codes)

    @property
    def content(self) -> int:
        """What the only code of a day gets, in quantised units: the clip less the active day's share."""
        return isqrt(self._room)

    @property
    def _room(self) -> int:
        return self.clip**2 - self.active_day**2

    @cached_property
    def _index(self) -> dict[str, int]:
        return {code: at for at, code in enumerate(self.codes[:-2])}

    def day_vector(self, objects: Iterable[str]) -> Integers:
        """Return the vector of one local day.

        Args:
            objects: The `object` of every trace of that day; order and repetition change nothing.

        Returns:
            int64[K], zero if there is no trace.
        """
        import numpy as np  # noqa: PLC0415  whoever only reads a map, such as an owner's client, has none

        vector = np.zeros(self.size, dtype=np.int64)
        present = {self._index.get(code, self.size - 2) for code in objects}
        if present:
            # n values of isqrt(room // n) have squares that sum to at most room: exact, in integers.
            vector[list(present)] = isqrt(self._room // len(present))
            vector[-1] = self.active_day
        return vector


@lru_cache
def feature_map(category: Category) -> FeatureMap:
    """Return the published map of a category.

    Raises:
        NoFeatureMap: There is none; the category's traces stay sealed and are not summarised.
    """
    name = _FILES.get(category)
    if name is None:
        raise NoFeatureMap(f"No feature map is published for {category}, so nothing can be learned from it.")
    record = parse_json((resources.files("vault.imprint") / "data" / name).read_bytes())
    clip = cast("int", record["clip"])
    coordinates = cast("list[list[str]]", record["coordinates"])
    return FeatureMap(
        category=category,
        version=cast("str", record["version"]),
        codes=(*(code for code, _ in coordinates), OTHER, ACTIVE_DAY),
        names=(*(name for _, name in coordinates), "anything else", "days with a trace"),
        clip=clip,
        active_day=isqrt(clip**2 * cast("int", record["active_day_percent"]) // 100),
        digest=hashlib.sha256(dump_json(record)).digest(),
    )
