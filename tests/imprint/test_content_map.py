"""The map of browsing: object, text, action, part of the week and price, and no day beyond the clip whatever it holds."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vault.imprint import words
from vault.imprint.features import ACTIVE_DAY, OTHER, Cadence, FeatureMap, feature_map, mapped_for, text_code
from vault.imprint.reveals import reveals_of
from vault.imprint.rows import month_sum, objects_by_day
from vault.imprint.words import words_digest
from vault.proof.certificate import BUILT_IN
from vault.schema.category import Category
from vault.schema.trace import MAX_INTEGER, Action, Period, Trace, local_date, whole_ms
from vault.twin.reader import closed_form, taxonomy

BROWSING = Category("pd:BrowsingBehaviour")
CONTENT = feature_map(BROWSING)
of_each_cadence = pytest.mark.parametrize("mapped", [feature_map(BROWSING, cadence) for cadence in Cadence])
OCTOBER, BERLIN = Period("2026-10"), ZoneInfo("Europe/Berlin")
NOON = datetime(2026, 10, 7, 12, tzinfo=UTC)  # a Wednesday, two in the afternoon in Berlin
DOGS = CONTENT.codes[CONTENT.names.index("Pets: Dogs")]

_times = st.datetimes(datetime(2026, 9, 29), datetime(2026, 11, 2)).map(lambda at: whole_ms(at.replace(tzinfo=UTC)))  # noqa: DTZ001
_objects = st.one_of(st.sampled_from([*CONTENT.codes, *CONTENT.rules.within]), st.text(max_size=20))
_texts = st.sampled_from(["", "", "", "Champions League results", "xyz", "\x00\U0001f95b"])


@st.composite
def _traces(draw: st.DrawFn) -> Trace:
    amount = draw(st.one_of(st.none(), st.integers(-MAX_INTEGER, MAX_INTEGER)))
    currency = "" if amount is None else draw(st.sampled_from(["EUR", "USD", "JPY"]))
    return Trace(
        "1", "browser", draw(_times), BROWSING, draw(st.sampled_from(Action)), draw(_objects), draw(_texts),
        amount_milli=amount, currency=currency,
    )  # fmt: skip


def visit(**changed: object) -> Trace:
    values = {"id": "1", "source": "b", "occurred_at": NOON, "category": BROWSING, "action": Action.READ}
    return Trace(**values | changed)


def norm(vector: np.ndarray) -> int:
    return sum(int(v) ** 2 for v in vector)


@of_each_cadence
@settings(max_examples=60)
@given(traces=st.lists(_traces(), max_size=40), offset=st.integers(0, 33))
def test_all_traces_of_one_local_day_move_the_month_by_at_most_the_clip(
    mapped: FeatureMap, traces: list[Trace], offset: int
) -> None:
    day = (datetime(2026, 9, 29, 12, tzinfo=UTC) + timedelta(days=offset)).date()
    rest = [one for one in traces if local_date(one.occurred_at, BERLIN) != day]
    step = month_sum(mapped, OCTOBER, BERLIN, traces) - month_sum(mapped, OCTOBER, BERLIN, rest)
    assert step.dtype == np.int64
    assert norm(step) <= mapped.clip**2


@of_each_cadence
def test_ten_thousand_traces_of_a_day_are_one_day(mapped: FeatureMap) -> None:
    start = datetime(2026, 10, 24, 22, tzinfo=UTC)  # midnight in Berlin; the day has 25 hours
    actions = list(Action)
    day = [
        visit(
            occurred_at=start + timedelta(seconds=9 * at), action=actions[at % len(actions)], amount_milli=at * 977,
            currency="EUR", object=CONTENT.codes[at % len(CONTENT.codes)],
        )
        for at in range(10_000)
    ]  # fmt: skip
    assert 0 < norm(month_sum(mapped, OCTOBER, BERLIN, day)) <= mapped.clip**2
    (codes,) = objects_by_day(mapped, OCTOBER, BERLIN, day).values()
    assert {f"week:6-{part}" for part in range(4)} <= codes
    assert not any(code.startswith("week:") and not code.startswith("week:6") for code in codes)


@of_each_cadence
def test_an_hour_that_a_clock_change_repeats_is_the_same_part_twice_and_the_one_it_skips_is_none(
    mapped: FeatureMap,
) -> None:
    repeated = [visit(occurred_at=datetime(2026, 10, 25, hour, 30, tzinfo=UTC)) for hour in (0, 1)]
    assert [mapped.codes_of(one, BERLIN) for one in repeated] == [{OTHER, "action:read", "week:6-0"}] * 2
    skipped = visit(occurred_at=datetime(2026, 3, 29, 1, 0, tzinfo=UTC))  # three o'clock in Berlin, two never was
    assert "week:6-0" in mapped.codes_of(skipped, BERLIN)


@pytest.mark.parametrize(
    ("amount", "currency", "price"),
    [
        (0, "EUR", 0),
        (9_999, "USD", 0),
        (10_000, "EUR", 1),
        (-60_000, "GBP", 2),
        (MAX_INTEGER, "EUR", 4),
        (5, "JPY", None),
    ],
)
def test_prices_fall_into_public_ranges(amount: int, currency: str, price: int | None) -> None:
    found = CONTENT.codes_of(visit(object=DOGS, amount_milli=amount, currency=currency), BERLIN)
    prices = {code for code in found if code.startswith("price:")}
    assert prices == (set() if price is None else {f"price:{price}"})
    assert found - prices == {DOGS, "action:read", "week:2-2"}


def test_an_action_that_the_map_does_not_publish_adds_nothing() -> None:
    assert CONTENT.codes_of(visit(object=DOGS, action=Action.BUY), BERLIN) == {DOGS, "week:2-2"}


def test_no_object_claims_what_is_derived_from_the_rest() -> None:
    for claimed in ("week:0-0", "action:watch", "price:4", OTHER, ACTIVE_DAY):
        assert CONTENT.codes_of(visit(object=claimed), BERLIN) == {OTHER, "action:read", "week:2-2"}


def test_what_lies_deeper_counts_as_its_second_tier() -> None:
    deeper, coordinate = next(iter(CONTENT.rules.within.items()))
    assert deeper not in CONTENT.codes
    assert coordinate in CONTENT.objects
    assert coordinate in CONTENT.codes_of(visit(object=deeper), BERLIN)


def test_a_text_is_read_where_the_object_is_not_known_and_only_there() -> None:
    title = "How to train your puppy and other dogs"
    assert text_code(CONTENT, title) == DOGS == text_code(feature_map(BROWSING, Cadence.DAILY), title)
    assert DOGS in CONTENT.codes_of(visit(text=title), BERLIN)
    assert DOGS in CONTENT.codes_of(visit(object="https://pets.example/1", text=title), BERLIN)
    known = CONTENT.objects[0]
    assert CONTENT.codes_of(visit(object=known, text=title), BERLIN) >= {known}
    assert DOGS not in CONTENT.codes_of(visit(object=known, text=title), BERLIN)
    assert OTHER in CONTENT.codes_of(visit(text="qzx"), BERLIN)


def test_no_text_reads_what_is_no_object() -> None:
    said = {text_code(CONTENT, name.lower()) for name in CONTENT.names[len(CONTENT.objects) :]}
    assert said <= {OTHER, *CONTENT.objects}


def test_the_map_names_the_words_that_it_reads_texts_by(monkeypatch: pytest.MonkeyPatch) -> None:
    assert CONTENT.rules.words == words_digest(CONTENT)
    assert closed_form(CONTENT).digest in BUILT_IN
    monkeypatch.setattr(words, "words_digest", lambda _: bytes(32))
    with pytest.raises(words.BadWords, match="not the ones that this map"):
        text_code.__wrapped__(CONTENT, "a text")


def test_every_coordinate_has_a_department_and_names_say_what_they_reveal() -> None:
    assert taxonomy(CONTENT).department[:-1].sum(1).tolist() == [1.0] * (CONTENT.size - 2)
    assert not taxonomy(CONTENT).department[:-1, -1].any()
    revealing = {name: reveals_of(code, name) for code, name in zip(CONTENT.objects, CONTENT.names, strict=False)}
    assert revealing["Medical Health: Diseases and Conditions"]
    assert revealing["Religion & Spirituality: Islam"] == {"pd:ReligiousBelief"}
    assert revealing["Politics: Elections"] == {"pd:PoliticalOpinion"}
    assert not revealing["Pets: Dogs"]


def test_browsing_is_second_where_rows_are_monthly_and_where_they_are_daily() -> None:
    for cadence in Cadence:
        assert mapped_for(cadence)[:2] == (Category("pd:Purchase"), BROWSING)
