"""When a person's days close where rows are made as an installation makes them; app and worker say the same."""

from __future__ import annotations

from datetime import date, datetime
from typing import assert_never
from zoneinfo import ZoneInfo

from vault.imprint.features import Cadence
from vault.parties.people import Person
from vault.schema.freshness import Freshness, closes_at, last_closed_day


def freshness_of(person: Person, cadence: Cadence) -> Freshness:
    """Return which days close together: those of a month where a month is one row, else as the person chose."""
    match cadence:
        case Cadence.MONTHLY:
            return Freshness.MONTH
        case Cadence.DAILY:
            return person.freshness
        case _ as other:
            assert_never(other)


def last_closed(person: Person, cadence: Cadence, now: datetime) -> date:
    """Return the last local date that is closed."""
    return last_closed_day(now, ZoneInfo(person.time_zone), freshness_of(person, cadence))


def closed_at(person: Person, cadence: Cadence, now: datetime) -> datetime:
    """Return when days last closed."""
    return closes_at(last_closed(person, cadence, now), ZoneInfo(person.time_zone))
