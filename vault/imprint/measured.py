"""What a map reads in measured series: in which of its public ranges a metric's day lies.

The readings of one local date become one number, their total or their mean, after each was put inside public
bounds; the number becomes the range that it lies in, which is a code like any other. Everything is whole numbers, and
nothing in it is learned from people. In which order readings come, and how often the same one, changes nothing.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import TYPE_CHECKING, Any, assert_never

if TYPE_CHECKING:
    from vault.encoding import JsonObject
    from vault.schema.trace import Trace


class OfDay(StrEnum):
    """How the readings of one day become one number."""

    TOTAL = "total"
    """Added up within each source; of several sources, which may have counted the same steps, the most."""

    MEAN = "mean"
    """Their mean, rounded down, whichever source they are of."""


@dataclass(frozen=True)
class Metric:
    """One published metric.

    Args:
        code: The object of its readings.
        name: In words, with the unit of its bounds.
        of_day: How a day's readings become one number.
        lowest_milli: What a smaller reading, or day, counts as, in thousandths of the first unit.
        highest_milli: What a larger one counts as.
        ranges_milli: Between which numbers the ranges of a day lie, ascending, inside the bounds.
        units: UCUM units of readings, each with the fraction that turns it into the first; others are not read.
    """

    code: str
    name: str
    of_day: OfDay
    lowest_milli: int
    highest_milli: int
    ranges_milli: tuple[int, ...]
    units: tuple[tuple[str, int, int], ...]

    @property
    def coordinates(self) -> list[tuple[str, str]]:
        """Return the code and name of each range, lowest first."""
        first, *_, last = (f"{bound / 1000:g}" for bound in self.ranges_milli)
        between = [f"{low / 1000:g} to {high / 1000:g}" for low, high in pairwise(self.ranges_milli)]
        said = [f"below {first}", *between, f"{last} or more"]
        return [(f"{self.code}:{at}", f"{self.name}: {words}") for at, words in enumerate(said)]

    def reading(self, trace: Trace) -> int | None:
        """Return a reading inside the bounds, in thousandths of the first unit; None if it is no reading of a known unit."""
        if trace.quantity_milli is None:
            return None
        for unit, times, over in self.units:
            if unit == trace.unit:
                return self._bounded(trace.quantity_milli * times // over)
        return None

    def range_of(self, day_milli: int) -> str:
        """Return the code of the range in which a day's number lies."""
        return f"{self.code}:{bisect_right(self.ranges_milli, self._bounded(day_milli))}"

    def _bounded(self, value_milli: int) -> int:
        return min(max(value_milli, self.lowest_milli), self.highest_milli)


class Readings:
    """The readings of one metric on one local date; beside each source's total, no more than a hash of each is kept.

    Args:
        metric: Which.
    """

    def __init__(self, metric: Metric) -> None:
        self._metric = metric
        self._seen: set[int] = set()
        self._totals: defaultdict[str, int] = defaultdict(int)

    def add(self, trace: Trace, value_milli: int) -> None:
        """Take in one reading; the same one again is passed over."""
        name = hash((trace.source, trace.id, value_milli))
        if name not in self._seen:
            self._seen.add(name)
            self._totals[trace.source] += value_milli

    @property
    def code(self) -> str:
        """Return the range of the day, once there is a reading."""
        match self._metric.of_day:
            case OfDay.TOTAL:
                day = max(self._totals.values())
            case OfDay.MEAN:
                day = sum(self._totals.values()) // len(self._seen)
            case _ as other:
                assert_never(other)
        return self._metric.range_of(day)


def parse_metrics(record: JsonObject) -> tuple[Metric, ...]:
    """Return the metrics of a published map; one that names none measures nothing."""
    found: Any = record.get("measured", [])
    return tuple(
        Metric(
            one["code"], one["name"], OfDay(one["of_day"]), one["lowest_milli"], one["highest_milli"],
            tuple(one["ranges_milli"]), tuple((unit, times, over) for unit, times, over in one["units"]),
        )
        for one in found
    )  # fmt: skip
