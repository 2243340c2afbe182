"""Daily rows: one for every calendar day, bounded, named by what made them; late ones fit under the same charge."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vault.budget.accounting import sigma_for
from vault.imprint.chain import power, prefix
from vault.imprint.daily import Chain, late_sigma, on_time_sensitivity
from vault.imprint.features import feature_map
from vault.proof.accounting import OWNER_DAY_CAP, gaussian
from vault.schema.category import Category
from vault.schema.trace import Action, Trace, local_date

RETAIL = feature_map(Category("pd:Purchase"))
BERLIN = ZoneInfo("Europe/Berlin")
HASHES = [bytes([i]) * 32 for i in range(4)]


def chain(**changed: object) -> Chain:
    fixed = {
        "feature_map": RETAIL,
        "vault_id": b"v" * 16,
        "start": date(2026, 10, 20),
        "strategy": prefix(73),
        "sigma": 400,
        "late": False,
        "number": 0,
    }
    return Chain(**(fixed | changed))  # type: ignore[arg-type]


def trace(at: datetime, code: str = RETAIL.codes[0], category: str = "pd:Purchase") -> Trace:
    return Trace("1", "test", at, Category(category), Action.BUY, code)


def test_a_window_that_starts_in_the_year_has_a_row_for_every_day_to_its_end() -> None:
    vectors = chain().day_vectors(BERLIN, [])
    assert vectors.shape == (73, RETAIL.size)
    assert not vectors.any()
    with pytest.raises(ValueError, match="calendar year"):
        chain(start=date(2026, 10, 21))
    assert chain(start=date(2028, 1, 1), strategy=prefix(366)).strategy.horizon == 366


def test_the_25_hours_of_a_clock_change_are_one_day_and_the_23_of_the_other_too() -> None:
    start = datetime(2026, 10, 24, 22, tzinfo=UTC)  # midnight in Berlin, still summer time
    traces = [trace(start + timedelta(hours=h), RETAIL.codes[h]) for h in range(25)]
    vectors = chain().day_vectors(BERLIN, [*traces, trace(start + timedelta(hours=25))])
    assert np.flatnonzero(vectors.any(1)).tolist() == [5, 6]
    assert np.array_equal(vectors[5], RETAIL.day_vector(RETAIL.codes[:25]))
    spring = datetime(2026, 3, 28, 23, tzinfo=UTC)
    traces = [trace(spring + timedelta(hours=h), RETAIL.codes[h]) for h in range(24)]
    vectors = chain(start=date(2026, 3, 29), strategy=prefix(3)).day_vectors(BERLIN, traces)
    assert np.array_equal(vectors[0], RETAIL.day_vector(RETAIL.codes[:23]))
    assert np.array_equal(vectors[1], RETAIL.day_vector([RETAIL.codes[23]]))


def test_ten_thousand_traces_a_day_move_no_further_than_one() -> None:
    at = datetime(2026, 11, 2, 9, tzinfo=UTC)
    many = [trace(at + timedelta(seconds=i % 3600), RETAIL.codes[i % 200]) for i in range(10_000)]
    for traces in (many, many[:1]):
        vectors = chain().day_vectors(BERLIN, traces)
        assert np.flatnonzero(vectors.any(1)).tolist() == [13]
        assert 0 < sum(int(v) ** 2 for v in vectors[13]) <= RETAIL.clip**2


minutes = st.integers(0, 80 * 24 * 60).map(lambda m: datetime(2026, 10, 18, tzinfo=UTC) + timedelta(minutes=m))
some_traces = st.lists(st.builds(trace, minutes, st.sampled_from([*RETAIL.codes, "x:y", "nan", "inf"])), max_size=40)


@settings(max_examples=40)
@given(some_traces, st.integers(0, 78))
def test_one_local_day_moves_one_vector_by_at_most_the_clip(traces: list[Trace], offset: int) -> None:
    day = date(2026, 10, 18) + timedelta(days=offset)
    rest = [t for t in traces if local_date(t.occurred_at, BERLIN) != day]
    step = chain().day_vectors(BERLIN, traces) - chain().day_vectors(BERLIN, rest)
    moved = np.flatnonzero(step.any(1))
    assert set(moved.tolist()) <= {offset - 2}
    assert all(sum(int(v) ** 2 for v in step[at]) <= RETAIL.clip**2 for at in moved)


def test_traces_of_other_categories_and_other_days_add_nothing() -> None:
    outside = [
        trace(datetime(2026, 10, 19, 21, 59, tzinfo=UTC)),  # a minute before the chain starts in Berlin
        trace(datetime(2026, 12, 31, 23, 0, tzinfo=UTC)),  # the next year there
        trace(datetime(2026, 11, 5, tzinfo=UTC), category="pd:BrowsingBehaviour"),
    ]
    assert not chain().day_vectors(BERLIN, outside).any()


def test_a_row_is_named_by_everything_that_made_it() -> None:
    name = chain().row_id(5, HASHES)
    assert name == chain().row_id(5, [*reversed(HASHES), HASHES[0]])
    others = {
        chain(vault_id=b"w" * 16).row_id(5, HASHES),
        chain(start=date(2026, 10, 19)).row_id(5, HASHES),
        chain(strategy=power(50, 73)).row_id(5, HASHES),
        chain(strategy=prefix(72)).row_id(5, HASHES),
        chain(sigma=401).row_id(5, HASHES),
        chain(late=True).row_id(5, HASHES),
        chain(number=1).row_id(5, HASHES),
        chain().row_id(6, HASHES),
        chain().row_id(5, HASHES[:-1]),
        chain().row_id(5, []),
    }
    assert len(others | {name}) == 11
    with pytest.raises(ValueError, match="32 bytes"):
        chain().row_id(5, [b"short"])
    for index in (-1, 73):
        with pytest.raises(ValueError, match="horizon"):
            chain().row_id(index, HASHES)


@given(st.integers(1, 10**6), st.integers(1, 65_536))
def test_a_day_on_time_and_late_stays_within_what_was_reserved(sensitivity: int, sigma: int) -> None:
    late = late_sigma(sigma)
    # S^2 (1/sigma^2 + 1/late^2) <= S'^2 / sigma^2 with S' the on-time sensitivity, in whole numbers.
    assert sensitivity**2 * (late**2 + sigma**2) <= on_time_sensitivity(sensitivity) ** 2 * late**2


def test_the_noise_of_both_rows_fits_under_the_owner_day_cap() -> None:
    sensitivity = prefix(365).sensitivity(48)
    sigma = sigma_for(OWNER_DAY_CAP.epsilon, OWNER_DAY_CAP.delta, on_time_sensitivity(sensitivity))
    both = gaussian(sensitivity, sigma) + gaussian(sensitivity, late_sigma(sigma))
    assert OWNER_DAY_CAP.admits(both)
    alone = sigma_for(OWNER_DAY_CAP.epsilon, OWNER_DAY_CAP.delta, sensitivity)
    assert sigma < 1.03 * alone  # late rows cost every day under 3 % of noise
