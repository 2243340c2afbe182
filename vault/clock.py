"""The one place that reads the wall clock, so that tests can move it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final, Protocol

DAY_S: Final = 86_400


class Clock(Protocol):
    """Anything that tells the time."""

    def now(self) -> datetime:
        """Return the current time, aware, in UTC."""


class SystemClock:
    """The machine's own clock."""

    def now(self) -> datetime:
        """Return the current time, aware, in UTC."""
        return datetime.now(UTC)


def unix_s(at: datetime) -> int:
    """Return whole seconds since the epoch, the form that times have in signed records.

    Args:
        at: An aware time.

    Raises:
        ValueError: The time carries no zone; guessing one would move a consent's window.
    """
    if at.tzinfo is None:
        raise ValueError("a time without a zone cannot be placed; pass an aware datetime")
    return int(at.timestamp())


def month_of(at: datetime) -> str:
    """Return the calendar month in UTC, `YYYY-MM`: what quotas and leaves count by."""
    return f"{at.astimezone(UTC):%Y-%m}"


def utc_day(at_s: int) -> str:
    """Return the day in UTC of a time in unix seconds, `YYYY-MM-DD`, as people read it."""
    return f"{datetime.fromtimestamp(at_s, UTC):%Y-%m-%d}"
