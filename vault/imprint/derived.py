"""What a map derives from a trace beside its object: what was done, in which part of the week, at what price.

Public rules and bounds; nothing in them is learned from people. A trace without the field adds nothing.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, cast

from vault.encoding import JsonObject

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

    from vault.schema.trace import Trace


@dataclass(frozen=True)
class Derived:
    """One map's rules.

    Args:
        hours: Hours of a part of a day, a divisor of 24; 0 if the time of a trace adds nothing.
        price_bounds_milli: Between which prices the ranges lie, ascending; none if a price adds nothing.
        currencies: Whose amounts are prices; others add nothing.
        deeper: Pairs of an object that is no coordinate and the coordinate that it counts as.
        steps: Pairs of an action and the coordinate that an object which is none counts as: a step on the way to a
            purchase, whatever the product.
        words: Digest of the published words by which an unknown object's text is read; empty if it is not.
    """

    hours: int = 0
    price_bounds_milli: tuple[int, ...] = ()
    currencies: frozenset[str] = frozenset()
    deeper: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    steps: tuple[tuple[str, str], ...] = ()
    words: bytes = b""

    @cached_property
    def within(self) -> Mapping[str, str]:
        """Which coordinate an object counts as that is none itself."""
        return dict(self.deeper)

    @cached_property
    def step_of(self) -> Mapping[str, str]:
        """Which coordinate an action counts as."""
        return dict(self.steps)

    def codes(self, trace: Trace, time_zone: ZoneInfo) -> Iterator[str]:
        """Yield the codes that a trace has beside its object; whoever asks keeps those that the map publishes.

        Args:
            trace: Any.
            time_zone: The vault's fixed time zone; an hour that a clock change repeats is the same hour twice.
        """
        yield f"action:{trace.action}"
        if self.hours:
            local = trace.occurred_at.astimezone(time_zone)
            yield f"week:{local.weekday()}-{local.hour // self.hours}"
        if self.price_bounds_milli and trace.amount_milli is not None and trace.currency in self.currencies:
            yield f"price:{bisect_right(self.price_bounds_milli, abs(trace.amount_milli))}"


def parse_derived(record: JsonObject) -> Derived:
    """Return the rules of a published map; one that names none derives nothing."""
    return Derived(
        hours=cast("int", record.get("part_of_week_hours", 0)),
        price_bounds_milli=tuple(cast("list[int]", record.get("price_bounds_milli", []))),
        currencies=frozenset(cast("list[str]", record.get("currencies", []))),
        deeper=tuple(cast("dict[str, str]", record.get("within", {})).items()),
        steps=tuple(cast("dict[str, str]", record.get("steps", {})).items()),
        words=bytes.fromhex(cast("str", record.get("words_sha256", ""))),
    )
