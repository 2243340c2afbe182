"""Traces: what they carry, and what they refuse."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vault.encoding import JsonObject, dump_json, parse_json
from vault.errors import MalformedInput
from vault.schema.category import Category
from vault.schema.trace import (
    Action,
    Period,
    Trace,
    dump_trace,
    local_date,
    parse_period,
    parse_trace,
    period_of,
    periods_from,
    whole_ms,
)

AT = datetime(2026, 3, 29, 0, 30, 0, 123_000, tzinfo=UTC)
PURCHASE = Trace(
    "receipt-7/1", "till", AT, Category("pd:Purchase"), Action.BUY, "gpc:10000123", "Oat milk", 2000, "", 3980, "EUR"
)
TRIP = Trace("trip-1", "phone", AT, Category("pd:TravelHistory"), Action.TRAVEL, "geohash:u33db", "", 12_500_000, "m")
LISTEN = Trace("l-1", "player", AT, Category("pd:FavouriteMusic"), Action.LISTEN, "", "Song", 215_000, "s")
CLICK = Trace("c-1", "browser", AT, Category("pd:LinkClicked"), Action.CLICK, "host:example.org", "A page")
HEALTH = Trace("h-1", "watch", AT, Category("pd:Health"), Action.MEASURE, "loinc:8867-4", "", 61_500, "/min")
ALL = [PURCHASE, TRIP, LISTEN, CLICK, HEALTH]
RECORD = dump_trace(PURCHASE)


@pytest.mark.parametrize("trace", ALL)
def test_a_trace_comes_back_from_its_json(trace: Trace) -> None:
    assert parse_trace(parse_json(dump_json(dump_trace(trace)))) == trace


@pytest.mark.parametrize("name", ["id", "source", "at", "category", "action"])
def test_a_required_field_is_required(name: str) -> None:
    with pytest.raises(MalformedInput):
        parse_trace({key: value for key, value in RECORD.items() if key != name})


@pytest.mark.parametrize(
    "change",
    [
        {"id": ""},
        {"id": "x" * 129},
        {"id": 7},
        {"source": "x" * 65},
        {"at": -1},
        {"at": 7_258_118_400_000},
        {"at": "2026"},
        {"at": True},
        {"category": "pd:Nothing"},
        {"category": "Purchase"},
        {"action": "steal"},
        {"object": "x" * 129},
        {"text": "x" * 1025},
        {"text": ""},
        {"quantity": 2**53},
        {"amount": 1.5},
        {"currency": "euro"},
        {"unit": "x" * 17},
        {"colour": "blue"},
    ],
)
def test_a_field_out_of_bounds_is_refused(change: JsonObject) -> None:
    with pytest.raises(MalformedInput):
        parse_trace({**RECORD, **change})


@pytest.mark.parametrize("left_out", ["amount", "currency"])
def test_an_amount_has_a_currency(left_out: str) -> None:
    with pytest.raises(MalformedInput):
        parse_trace({key: value for key, value in RECORD.items() if key != left_out})


def test_a_unit_has_a_quantity() -> None:
    with pytest.raises(MalformedInput):
        replace(TRIP, quantity_milli=None)


@pytest.mark.parametrize(
    "at",
    [
        AT.replace(tzinfo=None),
        AT.replace(microsecond=1),
        AT.astimezone(timezone(timedelta(hours=1))),
        datetime(1969, 12, 31, tzinfo=UTC),
    ],
)
def test_a_time_is_utc_in_whole_milliseconds(at: datetime) -> None:
    with pytest.raises(MalformedInput):
        replace(PURCHASE, occurred_at=at)


def test_any_aware_time_can_be_made_one() -> None:
    berlin = datetime(2026, 3, 29, 3, 30, 0, 123_999, tzinfo=ZoneInfo("Europe/Berlin"))
    assert whole_ms(berlin) == datetime(2026, 3, 29, 1, 30, 0, 123_000, tzinfo=UTC)
    with pytest.raises(MalformedInput):
        whole_ms(datetime(2026, 3, 29))  # noqa: DTZ001  the missing zone is the point


def test_the_local_date_is_the_vaults() -> None:
    late = datetime(2025, 12, 31, 23, 30, tzinfo=UTC)
    assert local_date(late, ZoneInfo("Europe/Berlin")) == date(2026, 1, 1)
    assert local_date(late, ZoneInfo("America/New_York")) == date(2025, 12, 31)
    assert period_of(local_date(late, ZoneInfo("Europe/Berlin"))) == "2026-01"


@pytest.mark.parametrize(
    "text", ["", "2026", "2026-1", "2026-13", "2026-00", "1969-12", "2200-01", "2026-01-01", "٢٠٢٦-01", "20٢٦-01"]
)
def test_a_period_is_a_month(text: str) -> None:
    with pytest.raises(MalformedInput):
        parse_period(text)


@given(st.dates(date(1970, 1, 1), date(2199, 12, 31)), st.integers(0, 40))
def test_periods_follow_each_other(day: date, count: int) -> None:
    periods = periods_from(period_of(day), count)
    assert len(set(periods)) == count
    assert periods == sorted(periods)
    if count:
        assert parse_period(periods[0]) == period_of(day)
        assert int(periods[-1][:4]) * 12 + int(periods[-1][5:]) == day.year * 12 + day.month + count - 1


def test_a_year_of_periods_crosses_the_new_year() -> None:
    assert periods_from(Period("2026-11"), 3) == ["2026-11", "2026-12", "2027-01"]


@given(
    st.dictionaries(
        st.sampled_from([*RECORD]) | st.text(max_size=5),
        st.text(max_size=5) | st.integers() | st.lists(st.integers(), max_size=1),
        max_size=12,
    )
)
@settings(max_examples=300, deadline=None)
def test_any_record_is_read_or_refused_in_one_way(record: JsonObject) -> None:
    try:
        parse_trace({**RECORD, **record})
    except MalformedInput:
        return
