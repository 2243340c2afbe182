"""When days close: two days after the last midnight of those that close together, wherever the clock stands."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vault.schema.freshness import CLOSES_AFTER, Freshness, closes_at, closes_with, last_closed_day

ZONES = [
    "Europe/Berlin",
    "America/Sao_Paulo",  # set forward at midnight, which then never struck
    "America/St_Johns",  # set back a minute after midnight, which then struck twice
    "Pacific/Apia",  # 30 December 2011 did not take place
    "Pacific/Auckland",
    "UTC",
]
ONE = timedelta(days=1)
SECOND = timedelta(seconds=1)

times = st.datetimes(datetime(1995, 1, 1), datetime(2040, 1, 1)).map(lambda at: at.replace(tzinfo=UTC))  # noqa: DTZ001
zones = st.sampled_from(ZONES).map(ZoneInfo)
choices = st.sampled_from(Freshness)


@pytest.mark.parametrize(
    ("freshness", "last", "at"),
    [
        (Freshness.DAY, date(2026, 10, 31), "2026-11-03T00:00:00+13:00"),
        (Freshness.DAY, date(2026, 9, 26), "2026-09-29T01:00:00+13:00"),  # the clock is set forward on the 27th
        (Freshness.WEEK, date(2026, 11, 1), "2026-11-04T00:00:00+13:00"),
        (Freshness.WEEK, date(2027, 1, 3), "2027-01-06T00:00:00+13:00"),  # a week of two years
        (Freshness.MONTH, date(2026, 10, 31), "2026-11-03T00:00:00+13:00"),
        (Freshness.MONTH, date(2026, 12, 31), "2027-01-03T00:00:00+13:00"),
        (Freshness.MONTH, date(2028, 2, 29), "2028-03-03T00:00:00+13:00"),
        (Freshness.MONTH, date(2026, 3, 31), "2026-04-03T00:00:00+13:00"),
        (Freshness.WEEK, date(2026, 4, 5), "2026-04-08T00:00:00+12:00"),  # and set back on the 5th
    ],
)
def test_days_close_two_days_after_the_last_local_midnight_of_those_that_close_together(
    freshness: Freshness, last: date, at: str
) -> None:
    zone = ZoneInfo("Pacific/Auckland")
    closing = closes_at(last, zone)
    assert closing.astimezone(zone).isoformat() == at
    assert last_closed_day(closing, zone, freshness) == last
    before = last_closed_day(closing - SECOND, zone, freshness)
    assert before < last
    assert closes_with(before + ONE, freshness) == last


@given(times, zones, choices)
@example(datetime(2009, 11, 3, 2, 45, tzinfo=UTC), ZoneInfo("America/St_Johns"), Freshness.DAY)
@example(datetime(2012, 1, 1, 10, tzinfo=UTC), ZoneInfo("Pacific/Apia"), Freshness.WEEK)
@example(datetime(2018, 11, 6, 3, tzinfo=UTC), ZoneInfo("America/Sao_Paulo"), Freshness.DAY)
def test_what_is_closed_is_closed_together_and_nothing_else_is(
    now: datetime, zone: ZoneInfo, freshness: Freshness
) -> None:
    closed = last_closed_day(now, zone, freshness)
    assert closes_with(closed, freshness) == closed
    assert closed <= last_closed_day(now, zone, Freshness.DAY)
    assert closes_at(closed, zone) <= now < closes_at(closes_with(closed + ONE, freshness), zone)


@given(times, st.timedeltas(timedelta(0), timedelta(days=40)), zones, choices)
@example(
    datetime(2009, 11, 3, 2, 30, 30, tzinfo=UTC), timedelta(minutes=20), ZoneInfo("America/St_Johns"), Freshness.DAY
)
def test_what_has_closed_stays_closed(now: datetime, later: timedelta, zone: ZoneInfo, freshness: Freshness) -> None:
    assert last_closed_day(now, zone, freshness) <= last_closed_day(now + later, zone, freshness)


@given(st.dates(date(1995, 1, 1), date(2040, 1, 1)), choices)
def test_days_that_close_together_follow_each_other_and_no_day_is_left_out(day: date, freshness: Freshness) -> None:
    last = closes_with(day, freshness)
    assert day <= last
    assert closes_with(last, freshness) == last
    days = {day + timedelta(at) for at in range((last - day).days + 1)}
    assert {closes_with(one, freshness) for one in days} == {last}
    assert len(days) <= {Freshness.DAY: 1, Freshness.WEEK: 7, Freshness.MONTH: 31}[freshness]


def test_a_trace_of_a_days_last_moment_has_two_days() -> None:
    zone = ZoneInfo("Europe/Berlin")
    midnight = datetime(2026, 11, 1, tzinfo=zone).astimezone(UTC)
    for freshness in Freshness:
        assert last_closed_day(midnight + CLOSES_AFTER - SECOND, zone, freshness) < date(2026, 10, 31)
