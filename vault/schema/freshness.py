"""How fresh a person wants the twin: when local days close, after which a trace of theirs is late."""

from __future__ import annotations

from calendar import monthrange
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from typing import Final, assert_never
from zoneinfo import ZoneInfo

CLOSES_AFTER: Final = timedelta(hours=48)
"""How long after its last local midnight a day, a week or a month still waits for late batches."""

_DAY: Final = timedelta(days=1)


class Freshness(StrEnum):
    """Which days close together: each by itself, those of a week (Monday to Sunday), or those of a month."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"


def closes_at(last: date, time_zone: ZoneInfo) -> datetime:
    """Return when days close of which this is the last: local midnight after it, and `CLOSES_AFTER` more."""
    return datetime.combine(last + _DAY, time(), tzinfo=time_zone).astimezone(UTC) + CLOSES_AFTER


def closes_with(day: date, freshness: Freshness) -> date:
    """Return the last of the days that close together with one."""
    match freshness:
        case Freshness.DAY:
            return day
        case Freshness.WEEK:
            return day + timedelta(days=6 - day.weekday())
        case Freshness.MONTH:
            return day.replace(day=monthrange(day.year, day.month)[1])
        case _ as other:
            assert_never(other)


def last_closed_day(now: datetime, time_zone: ZoneInfo, freshness: Freshness) -> date:
    """Return the last local date that is closed in a time zone."""
    today = (now - CLOSES_AFTER).astimezone(time_zone).date()
    # Where a clock is set back across midnight the same date comes twice; what has closed stays closed.
    days = (today, today - _DAY, today - 2 * _DAY)
    day = next(day for day in days if closes_at(day, time_zone) <= now)
    match freshness:
        case Freshness.DAY:
            return day
        case Freshness.WEEK:
            return day - timedelta(days=(day.weekday() + 1) % 7)
        case Freshness.MONTH:
            return (day + _DAY).replace(day=1) - _DAY
        case _ as other:
            assert_never(other)
