"""One visit to a company's shop so far: what the company itself has seen of it, in public bounds."""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Final

from vault.clock import DAY_S
from vault.encoding import JsonObject
from vault.schema.reader import Reader

MAX_PAGES: Final = 10_000
MAX_STAY_S: Final = DAY_S
MAX_VALUE_MILLI: Final = 1_000_000_000
UNKNOWN_VALUE: Final = -1


class Visitor(StrEnum):
    """Whether the shop knows the visitor."""

    NEW = "new"
    RETURNING = "returning"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Session:
    """A visit as a funnel: how far it has come, step by step.

    Args:
        administrative_pages, administrative_s: Pages about the account and the time spent on them, in seconds.
        informational_pages, informational_s: Pages about the shop.
        product_pages, product_s: Pages about products.
        bounce_rate_ppm: Mean share of visits that end on the pages seen, in millionths.
        exit_rate_ppm: Mean share of views of them that are a visit's last.
        special_day_ppm: How near a day is on which people give presents, in millionths.
        page_value_milli: Mean value to the shop of the pages seen, in thousandths of its currency, as its own
            statistics reckon it; -1 where they do not.
        month: 1 to 12.
        weekend: Whether it is one.
        visitor: Whether the shop knows the visitor.
    """

    administrative_pages: int = 0
    administrative_s: int = 0
    informational_pages: int = 0
    informational_s: int = 0
    product_pages: int = 0
    product_s: int = 0
    bounce_rate_ppm: int = 0
    exit_rate_ppm: int = 0
    special_day_ppm: int = 0
    page_value_milli: int = UNKNOWN_VALUE
    month: int = 1
    weekend: bool = False
    visitor: Visitor = Visitor.OTHER

    @property
    def pages(self) -> int:
        """How many pages were seen."""
        return self.administrative_pages + self.informational_pages + self.product_pages


BOUNDS: Final = {
    "administrative_pages": (0, MAX_PAGES),
    "administrative_s": (0, MAX_STAY_S),
    "informational_pages": (0, MAX_PAGES),
    "informational_s": (0, MAX_STAY_S),
    "product_pages": (0, MAX_PAGES),
    "product_s": (0, MAX_STAY_S),
    "bounce_rate_ppm": (0, 1_000_000),
    "exit_rate_ppm": (0, 1_000_000),
    "special_day_ppm": (0, 1_000_000),
    "page_value_milli": (UNKNOWN_VALUE, MAX_VALUE_MILLI),
    "month": (1, 12),
    "weekend": (0, 1),
}
"""The closed range of every number."""

SESSION_SCHEMA: Final[JsonObject] = {
    "type": "object",
    "required": [*BOUNDS, "visitor"],
    "additionalProperties": False,
    "properties": {
        **{name: {"type": "integer", "minimum": low, "maximum": high} for name, (low, high) in BOUNDS.items()},
        "visitor": {"type": "string", "enum": [visitor.value for visitor in Visitor]},
    },
}
"""A session's shape for the OpenAPI document."""


def parse_session(r: Reader) -> Session:
    """Read a session.

    Args:
        r: Over its object; raises its own error for a field that is missing, unknown or out of bounds.
    """
    numbers = {name: r.integer(name, *bounds) for name, bounds in BOUNDS.items()}
    visitor = r.word("visitor", Visitor)
    r.end()
    weekend = bool(numbers.pop("weekend"))
    return Session(**numbers, weekend=weekend, visitor=visitor)


def dump_session(session: Session) -> JsonObject:
    """Return the session as a JSON object."""
    values = {field.name: getattr(session, field.name) for field in fields(session)}
    return values | {"weekend": int(session.weekend), "visitor": session.visitor.value}
