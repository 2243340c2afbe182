"""Feature maps: how one local day of traces becomes one bounded vector of integers.

A map is public, versioned and hashed; nothing in it is learned from people.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property, lru_cache
from importlib import resources
from math import isqrt
from typing import TYPE_CHECKING, Final, cast

from vault.encoding import JsonObject, dump_json, parse_json
from vault.errors import VaultError
from vault.imprint.derived import Derived, parse_derived
from vault.imprint.measured import Metric, Readings, parse_metrics
from vault.schema.category import Category

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

    from vault.imprint.noise import Integers
    from vault.imprint.projection import Projection
    from vault.schema.trace import Trace

OTHER: Final = "other"
ACTIVE_DAY: Final = "active-day"


class Cadence(StrEnum):
    """How a category's days become rows. A map says it, for the clip depends on it: the other one's rows mean something else."""

    MONTHLY = "monthly"
    """One independent row for each closed month."""

    DAILY = "daily"
    """One row for each closed day, in correlated chains of a year."""


_FILES: Final = {
    Category("pd:Purchase"): {Cadence.MONTHLY: "retail-1.json", Cadence.DAILY: "retail-1-daily.json"},
    Category("pd:BrowsingBehaviour"): {Cadence.MONTHLY: "content-1.json", Cadence.DAILY: "content-1-daily.json"},
    Category("pd:LinkClicked"): {Cadence.MONTHLY: "clicks-1.json", Cadence.DAILY: "clicks-1-daily.json"},
    Category("pd:Health"): {Cadence.MONTHLY: "health-1.json", Cadence.DAILY: "health-1-daily.json"},
}


class NoFeatureMap(VaultError):
    """A category that no published feature map summarises."""

    slug = "no-feature-map"
    title = "No feature map for this category"
    status = 422


def mapped_for(cadence: Cadence) -> tuple[Category, ...]:
    """Return the categories for which a map of that cadence is published, first published first."""
    return tuple(category for category, files in _FILES.items() if cadence in files)


@dataclass(frozen=True)
class FeatureMap:
    """One category's published coordinates and the bound on what a day may add to them.

    A day's vector holds which codes occurred, not how often: every code that occurred gets the same
    value, the largest for which the whole vector stays within the clip. A day of one purchase and a
    day of a hundred thus move an imprint by the same length, and the noise hides either.

    Args:
        category: Personal-data term whose traces it reads.
        version: Name that changes with any change of meaning.
        cadence: How days become rows.
        hierarchy: Name of the published departments of its codes.
        codes: The coordinates: published codes, then `other` for every unknown code, then
            `active-day` for a day with any trace.
        names: Each coordinate in words.
        clip: L2 norm, in quantised units, that no day's vector exceeds: the sensitivity.
        active_day: What an active day adds to its own coordinate, in quantised units.
        digest: SHA-256 of the published file's canonical JSON, with what it takes from the file that it is `like`.
        derived: How many codes, the last before `other`, are not objects but what is said of them: see `Derived`.
        rules: How they are found in a trace.
        metrics: Whose ranges the codes are, where they are ranges: then no object is one, and readings are.
        projection: What its days are seen through, of a map that `vault.imprint.lens.through` made; the digest names it.

    Guarantees: for any traces whatever, the day vector has integer values and an L2 norm of at most
    `clip`; with none it is zero.
    """

    category: Category
    version: str
    cadence: Cadence
    hierarchy: str
    codes: tuple[str, ...]
    names: tuple[str, ...]
    clip: int
    active_day: int
    digest: bytes
    derived: int = 0
    rules: Derived = field(default_factory=Derived)
    metrics: tuple[Metric, ...] = ()
    projection: Projection | None = field(default=None, compare=False, repr=False)

    @property
    def objects(self) -> tuple[str, ...]:
        """The codes that are not derived: what a person chooses, or in which range a day of theirs lies."""
        return self.codes[: -2 - self.derived]

    @property
    def size(self) -> int:
        """Number of coordinates of its rows, K."""
        return len(self.codes) if self.projection is None else self.projection.size

    @property
    def content(self) -> int:
        """What the only code of a day gets, in quantised units: the clip less the active day's share."""
        return isqrt(self._room)

    @property
    def _room(self) -> int:
        return self.clip**2 - self.active_day**2

    @cached_property
    def metric_of(self) -> Mapping[str, Metric]:
        """Which metric an object is a reading of."""
        return {metric.code: metric for metric in self.metrics}

    @cached_property
    def _index(self) -> dict[str, int]:
        return {code: at for at, code in enumerate(self.codes[:-2])}

    def codes_of(self, trace: Trace, time_zone: ZoneInfo) -> set[str]:
        """Return what one trace adds to its day: its object, and what the map derives from the rest of it.

        Args:
            trace: Of the map's category, and no reading of one of its metrics.
            time_zone: The vault's fixed time zone.
        """
        known = self.rules.within.get(trace.object, trace.object)
        # What is derived or measured is not claimed by an object.
        if self.metrics or self._index.get(known, self.size) >= len(self.objects):
            known = self._code_without_object(trace)
        return {known} | {code for code in self.rules.codes(trace, time_zone) if code in self._index}

    def _code_without_object(self, trace: Trace) -> str:
        if step := self.rules.step_of.get(trace.action):
            return step
        return text_code(self, trace.text) if trace.text and self.rules.words else OTHER

    def day_vector(self, objects: Iterable[str]) -> Integers:
        """Return the vector of one local day.

        Args:
            objects: The codes of that day, from `Day`; order and repetition change nothing.

        Returns:
            int64[K], zero if there is no trace.
        """
        import numpy as np  # noqa: PLC0415  whoever only reads a map, such as an owner's client, has none

        vector = np.zeros(len(self.codes), dtype=np.int64)
        present = {self._index.get(code, len(self.codes) - 2) for code in objects}
        if present:
            # n values of isqrt(room // n) have squares that sum to at most room: exact, in integers.
            vector[list(present)] = isqrt(self._room // len(present))
            vector[-1] = self.active_day
        seen: Integers = self.project(vector[None])[0]
        return seen

    def project(self, vectors: Integers) -> Integers:
        """Return what rows hold of days: their vectors, or what the map's projection makes of them.

        Args:
            vectors: int64[days, codes], from `day_vector` of the map without a projection.

        Returns:
            int64[days, K].
        """
        return vectors if self.projection is None else self.projection.day_vectors(vectors[:, :-1] > 0)


class Day:
    """What the traces of one local day come to.

    Args:
        feature_map: Map of their category.
        time_zone: The vault's fixed time zone.
    """

    def __init__(self, feature_map: FeatureMap, time_zone: ZoneInfo) -> None:
        self._map = feature_map
        self._time_zone = time_zone
        self._codes: set[str] = set()
        self._readings: dict[str, Readings] = {}

    def add(self, trace: Trace) -> None:
        """Take in one trace of that day."""
        metric = self._map.metric_of.get(trace.object)
        reading = None if metric is None else metric.reading(trace)
        if metric is None or reading is None:
            self._codes |= self._map.codes_of(trace, self._time_zone)
            return
        if metric.code not in self._readings:
            self._readings[metric.code] = Readings(metric)
        self._readings[metric.code].add(trace, reading)

    def codes(self) -> set[str]:
        """Return the codes of the day so far."""
        return self._codes.union(readings.code for readings in self._readings.values())


@lru_cache
def feature_map(category: Category, cadence: Cadence = Cadence.MONTHLY) -> FeatureMap:
    """Return the published map of a category.

    Args:
        category: Which.
        cadence: How its days become rows.

    Raises:
        NoFeatureMap: There is none; the category's traces stay sealed and are not summarised.
    """
    file = _FILES.get(category, {}).get(cadence)
    if file is None:
        raise NoFeatureMap(
            f"No feature map with {cadence} rows is published for {category}, so nothing can be learned from it."
        )
    record = _read(file)
    clip = cast("int", record["clip"])
    derived = cast("list[list[str]]", record.get("derived", []))
    metrics = parse_metrics(record)
    measured = [pair for metric in metrics for pair in metric.coordinates]
    coordinates = [*cast("list[list[str]]", record.get("coordinates", [])), *measured, *derived]
    version = cast("str", record["version"])
    return FeatureMap(
        category=category,
        version=version,
        cadence=cadence,
        hierarchy=cast("str", record.get("like", version)),
        codes=(*(code for code, _ in coordinates), OTHER, ACTIVE_DAY),
        names=(*(name for _, name in coordinates), "anything else", "days with a trace"),
        clip=clip,
        active_day=isqrt(clip**2 * cast("int", record["active_day_percent"]) // 100),
        digest=hashlib.sha256(dump_json(record)).digest(),
        derived=len(derived),
        rules=parse_derived(record),
        metrics=metrics,
    )


@lru_cache(maxsize=65_536)
def text_code(feature_map: FeatureMap, text: str) -> str:
    """Return the code that a text is most about, the first of several alike; `other` if it is about none.

    Raises:
        BadWords: The words that texts are read by are not those that the map was published with.
    """
    from vault.imprint.words import BadWords, words_digest, words_of  # noqa: PLC0415  only the service reads texts

    words = words_of(feature_map)
    if words is None or words_digest(feature_map) != feature_map.rules.words:
        raise BadWords("The published words are not the ones that this map reads texts by.")
    about = words.about([text], feature_map.objects)[0]
    return feature_map.codes[int(about.argmax())] if about.any() else OTHER


def _read(name: str) -> JsonObject:
    record = parse_json((resources.files("vault.imprint") / "data" / name).read_bytes())
    like = record.get("like")
    return record if like is None else _read(f"{like}.json") | record
