"""The map of clicks: steps of a shop's funnel, part of the week and price, and no day beyond the clip whatever was clicked."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vault.imprint.features import ACTIVE_DAY, OTHER, Cadence, FeatureMap, feature_map, mapped_for
from vault.imprint.noise import DiscreteGaussian
from vault.imprint.rows import month_sum, noisy, objects_by_day
from vault.proof.certificate import BUILT_IN
from vault.schema.category import Category
from vault.schema.trace import MAX_INTEGER, Action, Period, Trace, local_date, whole_ms
from vault.twin.reader import closed_form, taxonomy

CLICKED = Category("pd:LinkClicked")
MAP = feature_map(CLICKED)
of_each_cadence = pytest.mark.parametrize("mapped", [feature_map(CLICKED, cadence) for cadence in Cadence])
OCTOBER, BERLIN = Period("2026-10"), ZoneInfo("Europe/Berlin")
NOON = datetime(2026, 10, 7, 12, tzinfo=UTC)  # a Wednesday, two in the afternoon in Berlin

_times = st.datetimes(datetime(2026, 9, 29), datetime(2026, 11, 2)).map(lambda at: whole_ms(at.replace(tzinfo=UTC)))  # noqa: DTZ001


@st.composite
def _traces(draw: st.DrawFn) -> Trace:
    amount = draw(st.one_of(st.none(), st.integers(-MAX_INTEGER, MAX_INTEGER)))
    currency = "" if amount is None else draw(st.sampled_from(["EUR", "USD", "JPY"]))
    named = draw(st.one_of(st.sampled_from(MAP.codes), st.text(max_size=20)))
    return Trace(
        "1", "shop", draw(_times), CLICKED, draw(st.sampled_from(Action)), named, draw(st.text(max_size=9)),
        amount_milli=amount, currency=currency,
    )  # fmt: skip


def click(action: Action, **changed: object) -> Trace:
    values = {"id": "1", "source": "shop", "occurred_at": NOON, "category": CLICKED, "action": action}
    return Trace(**values | {"object": "acme:4711", "text": "a kettle"} | changed)


def norm(vector: np.ndarray) -> int:
    return sum(int(v) ** 2 for v in vector)


@of_each_cadence
@settings(max_examples=60)
@given(traces=st.lists(_traces(), max_size=40), offset=st.integers(0, 33))
def test_all_clicks_of_one_local_day_move_the_month_by_at_most_the_clip(
    mapped: FeatureMap, traces: list[Trace], offset: int
) -> None:
    day = (datetime(2026, 9, 29, 12, tzinfo=UTC) + timedelta(days=offset)).date()
    rest = [one for one in traces if local_date(one.occurred_at, BERLIN) != day]
    step = month_sum(mapped, OCTOBER, BERLIN, traces) - month_sum(mapped, OCTOBER, BERLIN, rest)
    assert step.dtype == np.int64
    assert norm(step) <= mapped.clip**2


@of_each_cadence
def test_ten_thousand_clicks_of_a_day_are_one_day_of_25_hours(mapped: FeatureMap) -> None:
    start = datetime(2026, 10, 24, 22, tzinfo=UTC)  # midnight in Berlin
    actions = list(Action)
    day = [
        click(actions[at % len(actions)], id=str(at), occurred_at=start + timedelta(seconds=9 * at))
        for at in range(10_000)
    ]
    assert 0 < norm(month_sum(mapped, OCTOBER, BERLIN, day)) <= mapped.clip**2
    (codes,) = objects_by_day(mapped, OCTOBER, BERLIN, day).values()
    assert codes == {*MAP.objects, OTHER, *(f"week:6-{part}" for part in range(4))}


@pytest.mark.parametrize(
    ("action", "step"),
    [
        (Action.SEARCH, "list"),
        (Action.CLICK, "view"),
        (Action.VIEW, "view"),
        (Action.SAVE, "save"),
        (Action.CART, "cart"),
        (Action.CHECKOUT, "checkout"),
        (Action.BUY, "buy"),
        (Action.PAY, "buy"),
        (Action.RETURN, "return"),
    ],
)
def test_an_action_on_any_product_is_a_step_of_the_funnel(action: Action, step: str) -> None:
    assert MAP.codes_of(click(action), BERLIN) == {f"funnel:{step}", "week:2-2"}


def test_a_step_may_be_named_and_nothing_derived_is_claimed() -> None:
    assert MAP.codes_of(click(Action.USE, object="funnel:cart"), BERLIN) == {"funnel:cart", "week:2-2"}
    assert MAP.codes_of(click(Action.USE), BERLIN) == {OTHER, "week:2-2"}
    for claimed in ("week:0-0", "price:4", OTHER, ACTIVE_DAY):
        assert MAP.codes_of(click(Action.USE, object=claimed), BERLIN) == {OTHER, "week:2-2"}
    priced = click(Action.CART, amount_milli=-60_000, currency="GBP")
    assert MAP.codes_of(priced, BERLIN) == {"funnel:cart", "week:2-2", "price:2"}


@of_each_cadence
def test_an_hour_that_a_clock_change_repeats_is_the_same_part_twice_and_the_one_it_skips_is_none(
    mapped: FeatureMap,
) -> None:
    repeated = [click(Action.CART, occurred_at=datetime(2026, 10, 25, hour, 30, tzinfo=UTC)) for hour in (0, 1)]
    assert [mapped.codes_of(one, BERLIN) for one in repeated] == [{"funnel:cart", "week:6-0"}] * 2
    skipped = click(Action.CART, occurred_at=datetime(2026, 3, 29, 1, 0, tzinfo=UTC))  # three o'clock, two never was
    assert mapped.codes_of(skipped, BERLIN) == {"funnel:cart", "week:6-0"}


@of_each_cadence
def test_zero_noise_gives_plain_sums_and_a_neighbour_differs_by_one_whole_vector(mapped: FeatureMap) -> None:
    traces = [click(Action.CART, occurred_at=NOON.replace(day=day)) for day in range(1, 29)]
    total = month_sum(mapped, OCTOBER, BERLIN, traces)
    at = mapped.codes.index("funnel:cart")
    assert total[at] == 28 * mapped.day_vector(["funnel:cart", "week:2-2"])[at]
    lacking = month_sum(mapped, OCTOBER, BERLIN, traces[1:])
    assert np.array_equal(total - lacking, mapped.day_vector(["funnel:cart", "week:3-2"]))  # the first is a Thursday
    released = noisy([total], DiscreteGaussian(400), lambda size: (b"\0" * 7 + b"\x80") * (size // 8))[0]
    assert np.array_equal(released, total)


def test_the_map_is_published_and_its_reader_ships() -> None:
    assert (MAP.version, MAP.size) == ("clicks-1", 42)
    assert MAP.digest.hex() == "81fbfabe90d815c86ef16c8be5e7d813cba8b09bcbc29dfe039932e583f625df"
    assert closed_form(MAP).digest in BUILT_IN
    assert {code.partition(":")[0] for code in MAP.objects} == {"funnel"}
    assert {step for _, step in MAP.rules.steps} == {*MAP.objects}
    assert taxonomy(MAP).department[:-1].sum(1).tolist() == [1.0] * (MAP.size - 2)
    assert not taxonomy(MAP).department[:-1, -1].any()
    assert all(CLICKED in mapped_for(cadence) for cadence in Cadence)
