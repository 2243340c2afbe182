"""The map of measured series: public bounds and ranges, whole numbers, and no day beyond the clip whatever was measured."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twinvault.importers import open_import
from vault.imprint.features import ACTIVE_DAY, OTHER, Cadence, FeatureMap, feature_map, mapped_for
from vault.imprint.measured import Metric, OfDay
from vault.imprint.noise import DiscreteGaussian
from vault.imprint.rows import month_sum, noisy, objects_by_day
from vault.proof.certificate import BUILT_IN
from vault.schema.category import Category
from vault.schema.trace import MAX_INTEGER, Action, Period, Trace, dump_trace, local_date, whole_ms
from vault.twin.reader import closed_form, taxonomy

HEALTH = Category("pd:Health")
MAP = feature_map(HEALTH)
of_each_cadence = pytest.mark.parametrize("mapped", [feature_map(HEALTH, cadence) for cadence in Cadence])
OCTOBER, BERLIN = Period("2026-10"), ZoneInfo("Europe/Berlin")
NOON = datetime(2026, 10, 7, 12, tzinfo=UTC)

_times = st.datetimes(datetime(2026, 9, 29), datetime(2026, 11, 2)).map(lambda at: whole_ms(at.replace(tzinfo=UTC)))  # noqa: DTZ001
_objects = st.one_of(st.sampled_from([*MAP.metric_of, *MAP.codes]), st.text(max_size=20))
_units = sorted({unit for metric in MAP.metrics for unit, _, _ in metric.units} | {"furlong"})


@st.composite
def _traces(draw: st.DrawFn) -> Trace:
    value = draw(st.one_of(st.none(), st.integers(-MAX_INTEGER, MAX_INTEGER), st.integers(0, 20_000_000)))
    return Trace(
        str(draw(st.integers(0, 9))), draw(st.sampled_from(["watch", "phone"])), draw(_times), HEALTH, Action.MEASURE,
        draw(_objects), quantity_milli=value, unit="" if value is None else draw(st.sampled_from(_units)),
    )  # fmt: skip


def reading(code: str, value_milli: int | None, unit: str = "", **changed: object) -> Trace:
    values = {"id": "1", "source": "watch", "occurred_at": NOON, "category": HEALTH, "action": Action.MEASURE}
    return Trace(**values | {"object": f"metric:{code}", "quantity_milli": value_milli, "unit": unit} | changed)


def codes(*traces: Trace, mapped: FeatureMap = MAP) -> set[str]:
    (found,) = objects_by_day(mapped, OCTOBER, BERLIN, traces).values()
    return found


def norm(vector: np.ndarray) -> int:
    return sum(int(v) ** 2 for v in vector)


@of_each_cadence
@settings(max_examples=60)
@given(traces=st.lists(_traces(), max_size=40), offset=st.integers(0, 33))
def test_all_readings_of_one_local_day_move_the_month_by_at_most_the_clip(
    mapped: FeatureMap, traces: list[Trace], offset: int
) -> None:
    day = (datetime(2026, 9, 29, 12, tzinfo=UTC) + timedelta(days=offset)).date()
    rest = [one for one in traces if local_date(one.occurred_at, BERLIN) != day]
    step = month_sum(mapped, OCTOBER, BERLIN, traces) - month_sum(mapped, OCTOBER, BERLIN, rest)
    assert step.dtype == np.int64
    assert norm(step) <= mapped.clip**2


@settings(max_examples=60)
@given(st.lists(_traces(), max_size=40), st.randoms())
def test_order_and_repetition_change_nothing_and_a_metric_has_one_range(traces: list[Trace], random: object) -> None:
    again = traces * 3
    random.shuffle(again)  # type: ignore[attr-defined]
    days = objects_by_day(MAP, OCTOBER, BERLIN, traces)
    assert objects_by_day(MAP, OCTOBER, BERLIN, again) == days
    for found in days.values():
        assert found <= {*MAP.codes[:-1]}
        assert len({code.rpartition(":")[0] for code in found - {OTHER}}) == len(found - {OTHER})


@pytest.mark.parametrize("metric", MAP.metrics, ids=lambda metric: metric.code)
def test_whatever_was_measured_lies_in_a_public_range(metric: Metric) -> None:
    assert metric.lowest_milli < metric.ranges_milli[0]
    assert metric.ranges_milli[-1] < metric.highest_milli
    assert all(low < high for low, high in pairwise(metric.ranges_milli))
    unit, code = metric.units[0][0], metric.code.removeprefix("metric:")
    assert metric.units[0][1:] == (1, 1)
    for at, bound in enumerate(metric.ranges_milli):
        assert codes(reading(code, bound - 1, unit)) == {f"{metric.code}:{at}"}
        assert codes(reading(code, bound, unit)) == {f"{metric.code}:{at + 1}"}
    for extreme, at in ((-MAX_INTEGER, 0), (MAX_INTEGER, len(metric.ranges_milli))):
        assert codes(reading(code, extreme, unit)) == {f"{metric.code}:{at}"}


def test_a_total_is_of_one_source_and_a_mean_of_all() -> None:
    hours = [reading("steps", 2_000_000, id=str(at), occurred_at=NOON - timedelta(hours=at)) for at in range(3)]
    assert codes(*hours) == {"metric:steps:2"}  # 6,000
    phone = [reading("steps", 2_500_000, id=str(at), source="phone") for at in range(3)]
    assert codes(*hours, *phone) == {"metric:steps:3"}, "7,500 of the phone, and not 13,500"
    assert codes(*hours, *hours) == {"metric:steps:2"}, "sent twice is walked once"
    beats = [reading("heart-rate", value, "/min", id=str(value)) for value in (50_000, 80_000)]
    assert codes(*beats) == {"metric:heart-rate:1"}  # 65
    strap = reading("heart-rate", 170_000, "/min", source="strap")
    assert codes(*beats, strap) == {"metric:heart-rate:5"}  # 100 of all three


def test_one_absurd_reading_counts_as_the_bound() -> None:
    calm = [reading("heart-rate", 55_000, "/min", id=str(at)) for at in range(99)]
    assert codes(*calm) == {"metric:heart-rate:0"}
    assert codes(*calm, reading("heart-rate", MAX_INTEGER, "/min", id="x")) == {"metric:heart-rate:0"}


@pytest.mark.parametrize(
    ("code", "value_milli", "unit", "at"),
    [
        ("sleep", 450_000, "min", 3),  # seven hours and a half
        ("sleep", 7_500, "h", 3),
        ("sleep", 27_000_000, "s", 3),
        ("distance", 5_000_000, "m", 2),
        ("distance", 3_000, "[mi_i]", 2),
        ("weight", 154_323, "[lb_av]", 2),  # 69.9997 kg
        ("weight", 154_324, "[lb_av]", 3),  # 70.0001 kg
        ("glucose", 100_000, "mg/dL", 1),  # 5.55 mmol/L
        ("energy", 10_460_000, "kJ", 3),  # 2,500 kcal
    ],
)
def test_units_are_turned_into_the_first_in_whole_numbers(code: str, value_milli: int, unit: str, at: int) -> None:
    assert codes(reading(code, value_milli, unit)) == {f"metric:{code}:{at}"}


@pytest.mark.parametrize(
    "trace",
    [
        reading("steps", None),
        reading("steps", 5_000_000, "km"),
        reading("weight", 70_000),
        reading("mood", 5_000),
        *(reading("", 1, object=claimed) for claimed in ("metric:steps:2", OTHER, ACTIVE_DAY, "")),
    ],
    ids=lambda trace: trace.object or "empty",
)
def test_what_is_no_reading_of_a_published_metric_is_anything_else(trace: Trace) -> None:
    assert codes(trace) == {OTHER}


@of_each_cadence
def test_ten_thousand_readings_of_a_day_are_one_day(mapped: FeatureMap) -> None:
    start = datetime(2026, 10, 24, 22, tzinfo=UTC)  # midnight in Berlin; the day has 25 hours
    metrics = mapped.metrics
    day = [
        Trace(
            str(at), f"source-{at % 7}", start + timedelta(seconds=9 * at), HEALTH, Action.MEASURE,
            metrics[at % len(metrics)].code, quantity_milli=at * 977 - 5_000, unit=metrics[at % len(metrics)].units[0][0],
        )
        for at in range(10_000)
    ]  # fmt: skip
    (found,) = objects_by_day(mapped, OCTOBER, BERLIN, day).values()
    assert len(found) == len(metrics)
    total = month_sum(mapped, OCTOBER, BERLIN, day)
    assert 0.9 * mapped.clip < norm(total) ** 0.5 <= mapped.clip


@of_each_cadence
def test_an_hour_that_a_clock_change_repeats_is_walked_twice_and_the_day_after_begins_at_its_own_midnight(
    mapped: FeatureMap,
) -> None:
    hours = [
        reading("steps", 400_000, id=str(at), occurred_at=datetime(2026, 10, 24, 22, tzinfo=UTC) + timedelta(hours=at))
        for at in range(26)
    ]
    days = objects_by_day(mapped, OCTOBER, BERLIN, hours)
    assert {day.day: found for day, found in days.items()} == {25: {"metric:steps:4"}, 26: {"metric:steps:0"}}
    spring = [
        reading("steps", 400_000, id=str(at), occurred_at=datetime(2026, 3, 28, 23, tzinfo=UTC) + timedelta(hours=at))
        for at in range(23)
    ]
    march = objects_by_day(mapped, Period("2026-03"), BERLIN, spring)
    assert {day.day: found for day, found in march.items()} == {29: {"metric:steps:3"}}, "9,200 in 23 hours"


@of_each_cadence
def test_zero_noise_gives_plain_sums_and_a_neighbour_differs_by_one_whole_vector(mapped: FeatureMap) -> None:
    traces = [reading("sleep", 7_500, "h", id=str(day), occurred_at=NOON.replace(day=day)) for day in range(1, 29)]
    total, day = month_sum(mapped, OCTOBER, BERLIN, traces), mapped.day_vector(["metric:sleep:3"])
    assert np.array_equal(total, 28 * day)
    assert np.array_equal(total - month_sum(mapped, OCTOBER, BERLIN, traces[1:]), day)
    released = noisy([total], DiscreteGaussian(400), lambda size: (b"\0" * 7 + b"\x80") * (size // 8))[0]
    assert np.array_equal(released, total)


@pytest.mark.parametrize(
    "number", ["NaN", "Infinity", "-Infinity", "1e400", "72.5", '"72"', "true", "9007199254740993"]
)
def test_no_reading_that_is_no_whole_number_becomes_a_trace(number: str, tmp_path: Path) -> None:
    good = json.dumps(dump_trace(reading("heart-rate", 72_000, "/min")))
    file = tmp_path / "readings.jsonl"
    file.write_text(f"{good}\n{good.replace('72000', number)}\n")
    found = open_import(file, BERLIN)
    assert [trace.quantity_milli for trace in found] == [72_000]
    assert found.rejected == 1


def test_the_map_is_published_and_its_reader_ships() -> None:
    assert (MAP.version, MAP.size) == ("health-1", 70)
    assert MAP.digest.hex() == "7e5b8c32c495001dd2744f094087abf4f565b74ac138d7cdd20bad6e65ff3940"
    assert closed_form(MAP).digest in BUILT_IN
    assert MAP.objects == MAP.codes[:-2]
    assert MAP.names[:2] == ("steps a day: below 2500", "steps a day: 2500 to 5000")
    assert {metric.of_day for metric in MAP.metrics} == {*OfDay}
    departments = taxonomy(MAP).department[:-1]
    assert departments.sum(1).tolist() == [1.0] * (MAP.size - 2)
    assert departments[:, :-1].sum(0).tolist() == [len(metric.ranges_milli) + 1 for metric in MAP.metrics]


def test_measured_series_are_published_where_rows_are_monthly_and_where_they_are_daily() -> None:
    assert all(HEALTH in mapped_for(cadence) for cadence in Cadence)
