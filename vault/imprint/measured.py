"""What a map reads in measured series: in which of its public ranges a metric's day lies.

The readings of one local date become one number, their total or their mean, after each was put inside public
bounds; the number becomes the range that it lies in, which is a code like any other. Everything is whole numbers, and
nothing in it is learned from people. In which order readings come, and how often the same one, changes nothing.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping
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

    def range_of(self, readings: Mapping[tuple[str, str], int]) -> str:
        """Return the code of the range in which a day lies.

        Args:
            readings: One or more, from `reading`, by source and id.
        """
        match self.of_day:
            case OfDay.TOTAL:
                totals: defaultdict[str, int] = defaultdict(int)
                for (source, _), value in readings.items():
                    totals[source] += value
                day = max(totals.values())
            case OfDay.MEAN:
                day = sum(readings.values()) // len(readings)
            case _ as other:
                assert_never(other)
        return f"{self.code}:{bisect_right(self.ranges_milli, self._bounded(day))}"

    def _bounded(self, value_milli: int) -> int:
        return min(max(value_milli, self.lowest_milli), self.highest_milli)


class Readings:
    """The readings of one local date."""

    def __init__(self) -> None:
        self._of: defaultdict[Metric, dict[tuple[str, str], int]] = defaultdict(dict)

    def add(self, metric: Metric, trace: Trace, value_milli: int) -> None:
        """Take in one reading; of two with one source and id the larger, whichever came first."""
        kept, name = self._of[metric], (trace.source, trace.id)
        kept[name] = max(value_milli, kept.get(name, value_milli))

    def codes(self) -> Iterator[str]:
        """Yield the range of every metric that has a reading."""
        return (metric.range_of(readings) for metric, readings in self._of.items())


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
